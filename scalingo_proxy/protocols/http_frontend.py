"""One HTTP/1 connection of a client: requests in, responses out, in order.

Reads one request after another, hands each to an
:class:`~scalingo_proxy.protocols.exchange.Exchange` and writes what that says.
Knows framing, limits and back-pressure; knows nothing of backends.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import (
    BadRequest,
    BodyTooLarge,
    HeadTooLarge,
    ProxyError,
    RequestTimeout,
    UriTooLong,
)
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.protocols.http_responder import HTTPResponder
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.protocols.relay import Relay
from scalingo_proxy.wire.error_answer import ErrorAnswer
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_body import BodyReader
from scalingo_proxy.wire.http1_exchange import Event, Side
from scalingo_proxy.wire.http1_forwarding import (
    ClientIdentity,
    acceptable_request_id,
    informational_head,
)
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead, head_end, parse_request_head

if TYPE_CHECKING:
    from scalingo_proxy.protocols.factories import HTTPProxyFactory

__all__ = ["HTTPFrontend"]

_log = Logger()

#: Bytes read ahead of the exchange under way before reading stops.  Until
#: then reading goes on, since only a reader notices that the client left.
_READ_AHEAD_BYTES = 65536

#: After a last answer the client may still be sending; its bytes are thrown
#: away for so long and so many, because closing at once would reset the
#: connection and could take the answer with it (RFC 9112 §9.6).
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * 1024 * 1024


class _Doing(enum.Enum):
    """What the connection as a whole is doing."""

    WAITING = "waiting for a request"
    HEAD = "reading a head"
    EXCHANGE = "exchange under way"
    TUNNEL = "tunnel"
    LINGERING = "throwing away what still comes"
    CLOSED = "closed"


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTPFrontend(HTTPResponder):
    """The proxy's end of a client connection.

    :param factory: what all connections of this door share.
    """

    def __init__(self, factory: HTTPProxyFactory) -> None:
        super().__init__()
        self._factory = factory
        self._env = factory.env
        self._doing = _Doing.WAITING
        self._kind = "http"
        self._identity: ClientIdentity | None = None
        self._relay: Relay | None = None
        self._ahead = bytearray()
        self._searched = 0
        self._skipped_line = False
        self._body: BodyReader | None = None
        self._upload_open = False
        self._reading_paused = False
        self._advancing = False
        self._progress = SendProgress()
        self._body_bytes = 0
        self._lingered = 0
        self._served = 0

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        self._identity = self._factory.identify(self.transport)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._factory.frontend_opened(self, self._kind)
        env = self._env
        env.deadlines.set(self, env.seconds() + env.timeouts.request_head)

    def dataReceived(self, data: bytes) -> None:
        doing = self._doing
        if doing is _Doing.TUNNEL:
            assert self._relay is not None
            self._relay.client.data_received(data)
        elif doing is _Doing.EXCHANGE:
            if self._upload_open and not self._ahead:
                self._receive_body(data)
            else:
                self._read_ahead(data)
        elif doing is _Doing.LINGERING:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.transport.abortConnection()
        elif doing is not _Doing.CLOSED:
            self._ahead += data
            self._advance()

    def readConnectionLost(self) -> None:
        if self._relay is not None:
            self._relay.client.read_closed()
        elif self._exchange is not None:
            # It waits for an answer and closes: it has left (499).
            self._doing = _Doing.CLOSED
            self._exchange.client_left()
            self.transport.abortConnection()
        else:
            self._close()

    def writeConnectionLost(self) -> None:
        if self._relay is not None:
            self._relay.client.write_closed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.frontend_closed(self, self._kind)
        if self._relay is not None:
            self._relay.client.connection_lost()
        else:
            self._doing = _Doing.CLOSED
            if self._exchange is not None:
                self._exchange.client_left()
        if self._exchange is None:
            self._env.deadlines.forget(self)

    # IPushProducer: our transport asks us to stop filling it.

    def pauseProducing(self) -> None:
        if self._relay is not None:
            self._relay.client.pause_peer()
        elif self._exchange is not None:
            self._exchange.pause_response()

    def resumeProducing(self) -> None:
        if self._relay is not None:
            self._relay.client.resume_peer()
        elif self._exchange is not None:
            self._exchange.resume_response()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""

    # -- requests ------------------------------------------------------------

    def _advance(self) -> None:
        """Begin requests while there are any to begin.

        A loop and not a recursion: hundreds of pipelined requests may be
        answered with an error each, at once.
        """
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._ahead and self._doing in (_Doing.WAITING, _Doing.HEAD):
                if not self._begin_request():
                    break
        finally:
            self._advancing = False

    def _begin_request(self) -> bool:
        """Take one head from what was received; False: need more."""
        ahead, env, limits = self._ahead, self._env, self._env.limits
        if self._doing is _Doing.WAITING:
            if not self._skip_empty_line():
                return False
            self._doing = _Doing.HEAD
            env.deadlines.set(self, env.seconds() + env.timeouts.request_head)
        try:
            end = head_end(ahead, self._searched)
            if (end if end >= 0 else len(ahead)) > limits.head_bytes:
                raise UriTooLong() if self._line_is_too_long() else HeadTooLarge()
            if end < 0:
                self._searched = len(ahead)
                if len(ahead) > limits.request_line_bytes + 1 and self._line_is_too_long():
                    raise UriTooLong()
                return False
            head = parse_request_head(bytes(ahead[:end]), limits)
        except FramingError as error:
            self._refuse(BadRequest(str(error)))
            return False
        except ProxyError as error:
            self._refuse(error)
            return False
        del ahead[:end]
        self._searched = 0
        self._begin_exchange(head)
        return True

    def _skip_empty_line(self) -> bool:
        """Pass over one empty line before a request (RFC 9112 §2.2); False: need more."""
        ahead = self._ahead
        if ahead[0] == 13 and not self._skipped_line:  # CR
            if len(ahead) < 2:
                return False
            if ahead[1] == 10:
                self._skipped_line = True
                del ahead[:2]
        return bool(ahead)

    def _line_is_too_long(self) -> bool:
        return self._ahead.find(b"\r\n", 0, self._env.limits.request_line_bytes + 2) < 0

    def _begin_exchange(self, head: RequestHead) -> None:
        assert self._identity is not None
        env = self._env
        self._doing = _Doing.EXCHANGE
        self._skipped_line = False
        self._head = head
        has_body = head.framing.has_body
        self._cycle.on_request(Event.HEAD if has_body else Event.WHOLE)
        self._body = head.framing.reader() if has_body else None
        self._body_bytes = 0
        record = self._new_record()
        record.method = head.method.decode("ascii")
        record.host = head.host
        record.path = head.target.decode("ascii")
        record.protocol = "http/1.1" if head.version else "http/1.0"
        record.client = self._identity.client_address(head)
        told = head.special.get(b"x-request-id")
        request_id = acceptable_request_id(told) if told else None
        record.request_id = request_id.decode("ascii") if request_id else env.request_ids()
        self._factory.note_fields(record, head)
        self._exchange = exchange = Exchange(env, self, head, self._identity, record)
        try:
            exchange.start()
        except Exception:
            # One request's bug ends that request and no other.
            _log.failure("request {request_id} failed", request_id=record.request_id)
            exchange.broke()

    def _new_record(self) -> Record:
        assert self._identity is not None
        env = self._env
        return Record(env.seconds(), env.wall_clock(), self._identity.peer, self._factory.listener)

    def _refuse(self, error: ProxyError) -> None:
        """Answer what could not be read as a request, and read no more."""
        record = self._new_record()
        record.status, record.code = error.status, error.code
        record.request_id = self._env.request_ids()
        record.protocol = "http/1.1"
        record.finished_at = record.started_at
        self._cycle.keep_alive = False
        answer = ErrorAnswer(error, record.request_id, as_json=False)
        self.transport.write(answer.http1(1, keep_alive=False, with_body=True))
        self._env.observer.exchange_finished(record)
        self._linger()

    # -- request bodies ------------------------------------------------------

    def _read_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > _READ_AHEAD_BYTES:
            self._pause_reading()

    def open_upload(self) -> None:
        """Hand over the request body, what was read ahead of it first."""
        self._upload_open = True
        if self._ahead and self._body is not None:
            data = bytes(self._ahead)
            self._ahead.clear()
            self._receive_body(data)
        if self._upload_open or self._body is None:
            self._resume_reading()

    def close_upload(self) -> None:
        """The backend takes no more for now."""
        self._upload_open = False
        self._pause_reading()

    def _receive_body(self, data: bytes) -> None:
        body, exchange = self._body, self._exchange
        assert body is not None and exchange is not None
        try:
            payload = body.receive(data)
        except FramingError as error:
            exchange.fail(BadRequest(str(error)))
            return
        if payload:
            self._body_bytes += len(payload)
            exchange.record.bytes_in = self._body_bytes
            if self._body_bytes > exchange.body_limit:
                exchange.fail(BodyTooLarge())
                return
            exchange.request_payload(payload)
        if body.done and self._exchange is exchange:
            self._body = None
            self._ahead += body.excess
            self._upload_open = False
            self._cycle.on_request(Event.END)
            exchange.request_ended(body.trailers)
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._doing is not _Doing.CLOSED:
            self._reading_paused = False
            self.transport.resumeProducing()

    def switch(self, head: ResponseHead, backend_transport: Any, alive: Callable[[], None]) -> Relay:
        """Send the 101 and become a tunnel."""
        exchange = self._exchange
        assert exchange is not None
        self._cycle.on_request(Event.SWITCH)
        self._cycle.on_response(Event.SWITCH)
        self.transport.write(informational_head(head))
        self._factory.kind_changed(self._kind, "websocket")
        self._kind = "websocket"
        self._doing = _Doing.TUNNEL
        self._relay = relay = Relay(self.transport, backend_transport, alive, exchange.tunnel_ended)
        self._resume_reading()
        if self._ahead:
            held, self._ahead = bytes(self._ahead), bytearray()
            relay.client.data_received(held)
        return relay

    def exchange_over(self) -> None:
        """The exchange has ended and was accounted for: what comes next?"""
        self._exchange = self._head = self._body = None
        self._upload_open = False
        if self._doing is not _Doing.EXCHANGE:
            return
        self._served += 1
        if self._cycle.response is Side.MUST_CLOSE:
            self._cut()
        elif self._cycle.response is Side.IDLE:
            self._doing = _Doing.CLOSED  # the client has left without an answer
        else:
            request_whole = self._cycle.request is Side.DONE
            if self._cycle.next():
                self._wait_for_request()
            elif request_whole and not self._ahead:
                self._close()
            else:
                self._linger()

    def _wait_for_request(self) -> None:
        env = self._env
        self._doing = _Doing.WAITING
        if self._factory.is_draining and not self._ahead:
            self._close()
            return
        env.deadlines.set(self, env.seconds() + env.timeouts.keep_alive)
        self._resume_reading()
        if self._ahead:
            self._advance()

    def _is_last(self) -> bool:
        return self._factory.is_draining

    # -- ends ----------------------------------------------------------------

    def deadline_reached(self) -> None:
        """Whatever this connection waits for took too long."""
        doing = self._doing
        if self._progress.has_moved(self.transport):
            # What we wait for may be slow, but it is not silent.
            env = self._env
            env.deadlines.set(self, env.seconds() + env.timeouts.idle)
        elif self._exchange is not None:
            self._exchange.deadline_reached()
        elif doing is _Doing.HEAD:
            self._refuse(RequestTimeout("the request head did not arrive in time"))
        elif doing is _Doing.WAITING and self._served == 0 and not self._ahead:
            self._close()  # connected and said nothing: there is no request to answer
        elif doing is _Doing.LINGERING or doing is _Doing.CLOSED:
            self.transport.abortConnection()
        else:
            self._close()

    def drain(self) -> None:
        """The proxy stops: close now if nothing is under way, else after the answer."""
        if self._doing is _Doing.WAITING:
            self._close()

    def cut(self) -> None:
        """The proxy stops and waits no longer."""
        if self._exchange is not None:
            self._exchange.cut()
        if self._doing is not _Doing.CLOSED and self._doing is not _Doing.LINGERING:
            self.transport.abortConnection()

    def _close(self) -> None:
        """Close once what is written has gone out, if the client takes it at all."""
        env = self._env
        self._doing = _Doing.CLOSED
        self.transport.unregisterProducer()
        self._reading_paused = False
        self.transport.resumeProducing()
        env.deadlines.set(self, env.seconds() + env.timeouts.idle)
        self.transport.loseConnection()

    def _cut(self) -> None:
        """End a response that is not complete.

        Where only the end of the connection would end the body, it has to be
        a reset; elsewhere what was sent may go out first.
        """
        if self._ends_by_close:
            self._doing = _Doing.CLOSED
            self.transport.abortConnection()
        else:
            self._close()

    def _linger(self) -> None:
        """Close after a last answer to a client that is still sending."""
        env = self._env
        self._doing = _Doing.LINGERING
        self._ahead.clear()
        self.transport.unregisterProducer()
        self._reading_paused = False
        self.transport.resumeProducing()
        if ISSLTransport.providedBy(self.transport) or not hasattr(self.transport, "loseWriteConnection"):
            self._doing = _Doing.CLOSED
            self.transport.loseConnection()
            return
        self.transport.loseWriteConnection()
        env.deadlines.set(self, env.seconds() + _LINGER_SECONDS)
