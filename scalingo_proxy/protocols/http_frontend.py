"""One HTTP/1 connection of a client: requests in, responses out, in order.

Reads one request head after another and hands each to an
:class:`~scalingo_proxy.protocols.exchange.Exchange`.  Bodies, responses and the
end of the connection are the business of the classes it derives from; backends
are not known to any of them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import (
    BadRequest,
    ClientClosed,
    InternalError,
    ProxyError,
    RequestTimeout,
)
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.protocols.http_ending import Doing
from scalingo_proxy.protocols.http_uploads import READ_AHEAD_BYTES, HTTPUploads
from scalingo_proxy.protocols.relay import RelayEnd
from scalingo_proxy.protocols.secured import Secured
from scalingo_proxy.wire.error_answer import ErrorAnswer
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_exchange import Event, Side
from scalingo_proxy.wire.http1_forwarding import (
    acceptable_request_id,
    informational_head,
)
from scalingo_proxy.wire.http1_head import ResponseHead, head_end
from scalingo_proxy.wire.http1_request import check_unfinished_request_head, parse_request_head

__all__ = ["HTTPFrontend"]

_log = Logger()

#: Pipelined requests that are answered with errors of ours before others have their turn.
_REQUESTS_AT_ONCE = 20

_CLOSED_EARLY = ClientClosed("the client closed before its request head was complete")

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_WAITING, _HEAD, _EXCHANGE = Doing.WAITING, Doing.HEAD, Doing.EXCHANGE
_WHOLE = Event.WHOLE
_DONE, _MUST_CLOSE = Side.DONE, Side.MUST_CLOSE


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTPFrontend(HTTPUploads):
    """The proxy's end of a client connection.

    :param factory: what all connections of this door share.
    :param secured: what is known of the TLS below, if TLS ends here.
    """

    def __init__(self, factory: Any, secured: Secured | None = None) -> None:
        super().__init__(factory)
        self._secured = secured
        self._kind = "http"
        self._relay_end: RelayEnd | None = None
        self._searched = 0
        self._skipped_line = False
        self._advancing = False
        self._is_accounted = False

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        self._identity = self._factory.identify(self.transport, self._secured)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._factory.frontend_opened(self, self._kind)
        self._wait(self._env.timeouts.request_head)
        if self._factory.is_draining:
            self.drain()  # it came in at the last moment

    def dataReceived(self, data: bytes) -> None:
        doing = self._doing
        if doing is not _WAITING and self._relay_end is not None:
            self._relay_end.data_received(data)
            return
        try:
            if (
                doing is _WAITING
                # A head, whole and alone, as most are: no copies and no deadline (3 µs less).
                and data.endswith(b"\r\n\r\n")
                and data.find(b"\r\n\r\n") == len(data) - 4
                and not self._ahead
                and not self._writing_paused
                and data[0] != 13  # an empty line may stand before it
            ):
                self._doing = _HEAD
                self._begin_with(data)
            elif doing is _EXCHANGE:
                if self._upload_open and not self._ahead and not self._crumbles:
                    self._receive_body(data)
                else:
                    self._read_ahead(data)
                    if self._upload_open and self._crumbles:
                        self._put_off()
                        self._pause_reading()
            elif doing is Doing.LINGERING:
                self._throw_away(data)
            elif doing is not Doing.CLOSED:
                self._ahead += data
                self._advance()
                if len(self._ahead) > READ_AHEAD_BYTES and self._doing is not Doing.HEAD:
                    self._pause_reading()
        except Exception:
            self._broke()

    def readConnectionLost(self) -> None:
        if self._relay_end is not None:
            self._relay_end.read_closed()
        elif self._exchange is not None:
            # It waits for an answer and closes: it has left (499).
            self._give_up()
            self.transport.abortConnection()
        else:
            self._tell_unread(_CLOSED_EARLY)
            self._close()

    @property
    def is_reading_paused(self) -> bool:
        """Nothing is read for now, so that the end of the stream would not be seen."""
        return self._reading_paused

    def hung_up(self) -> None:
        """The client has closed while nothing was read from it."""
        if self._relay_end is None and self._exchange is not None:
            self.readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self._relay_end is not None:
            self._relay_end.write_closed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        if self._is_put_off:
            self._is_put_off = False
            self._env.turns.forget(self)
        try:
            if self._relay_end is not None:
                self._relay_end.connection_lost()
            else:
                self._tell_unread(_CLOSED_EARLY)
                self._give_up()
        finally:
            if self._exchange is None:
                self._account()

    def _give_up(self) -> None:
        """Nobody waits for an answer any more."""
        self._doing = Doing.CLOSED
        exchange = self._exchange
        if exchange is not None:
            try:
                exchange.client_left()
            except Exception:
                _log.failure(
                    "request {request_id} was not given up in order", request_id=exchange.record.request_id
                )

    def _account(self) -> None:
        """Nothing is left of this connection, the backend's end of a tunnel included."""
        if not self._is_accounted:
            self._is_accounted = True
            self._env.deadlines.forget(self)
            self._factory.frontend_closed(self, self._kind)

    # IPushProducer: our transport asks us to stop filling it.

    def pauseProducing(self) -> None:
        if not self._writing_paused:
            self._writing_paused = True
            self._progress.note(self.transport)
        if self._relay_end is not None:
            self._relay_end.pause_peer()
        elif self._exchange is not None:
            self._exchange.pause_response()

    def writing_held(self, is_held: bool) -> None:
        """The same for what passes by us to our transport: the backend is paused already."""
        self._writing_paused = is_held
        if is_held:
            self._progress.note(self.transport)

    def resumeProducing(self) -> None:
        self._writing_paused = False
        if self._relay_end is not None:
            self._relay_end.resume_peer()
            return
        try:
            if self._exchange is not None:
                self._exchange.resume_response()
            elif self._doing is Doing.WAITING:
                self._resume_reading()
                self._advance()
        except Exception:
            self._broke()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""

    def deadline_reached(self) -> None:
        """Whatever this connection waits for took too long."""
        exchange, doing = self._exchange, self._doing
        try:
            if exchange is not None:
                if exchange.may_wait_for_reader and self._progress.has_moved(self.transport):
                    exchange.alive()  # it reads slowly, but it reads
                else:
                    exchange.deadline_reached()
            elif doing is Doing.HEAD:
                self._refuse(RequestTimeout("the request head did not arrive in time"))
            elif doing is Doing.WAITING:
                if self._writing_paused and self._progress.has_moved(self.transport):
                    self._wait(self._env.timeouts.idle)
                else:
                    self._close()  # there is no request to answer
            else:
                self._end_is_late()
        except Exception:
            self._broke()

    def _broke(self) -> None:
        """A bug of ours surfaced: answer if that is possible, and close."""
        exchange = self._exchange
        if exchange is not None:
            exchange.broke()
        else:
            _log.failure("the connection of {client} failed", client=self._identity)
            if self._doing is Doing.WAITING or self._doing is Doing.HEAD:
                self._refuse(InternalError())
            else:
                self.transport.abortConnection()

    # -- requests ------------------------------------------------------------

    def _advance(self) -> None:
        """Begin requests while there are any to begin.

        A loop and not a recursion: hundreds of pipelined requests may be
        answered with an error each, at once.  None is begun while the client
        does not take the answers to those before it.
        """
        if self._advancing or self._is_put_off:
            return
        self._advancing = True
        left = _REQUESTS_AT_ONCE
        try:
            while self._ahead and (
                self._doing is Doing.HEAD or (self._doing is Doing.WAITING and not self._writing_paused)
            ):
                if not self._begin_request():
                    break
                left -= 1
                if left <= 0 and self._doing is Doing.WAITING and self._ahead:
                    self._put_off()
                    break
        finally:
            self._advancing = False

    def take_turn(self) -> None:
        """Go on with the requests, or the body, that one turn had no time for."""
        self._is_put_off = False
        try:
            if self._doing is Doing.EXCHANGE:
                if self._upload_open:
                    self.open_upload()
                return
            self._advance()
            if len(self._ahead) > READ_AHEAD_BYTES and self._doing is not Doing.HEAD:
                self._pause_reading()  # each answer has resumed it
            elif self._doing is Doing.WAITING or self._doing is Doing.HEAD:
                self._resume_reading()
        except Exception:
            self._broke()

    def _begin_request(self) -> bool:
        """Take one head from what was received; False: need more."""
        ahead, env, limits = self._ahead, self._env, self._env.limits
        if self._doing is Doing.WAITING:
            if not self._skip_empty_line():
                return False
            self._doing = Doing.HEAD
            self._wait(env.timeouts.request_head)
        try:
            end = head_end(ahead, self._searched)
            if end < 0:
                check_unfinished_request_head(ahead, self._searched, limits)
                self._searched = len(ahead)
                return False
        except FramingError as error:
            self._refuse(BadRequest(str(error)))
            return False
        except ProxyError as error:
            self._refuse(error)
            return False
        block = bytes(ahead[:end])
        del ahead[:end]
        self._searched = 0
        return self._begin_with(block)

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

    def _begin_with(self, block: bytes) -> bool:
        """Begin the request that *block* is the head of; False: it was refused."""
        env, identity, factory = self._env, self._identity, self._factory
        assert identity is not None
        try:
            head = parse_request_head(block, env.limits)
        except ProxyError as error:
            self._refuse(error)
            return False
        self._doing = _EXCHANGE
        self._head = head
        self._skipped_line = False
        if not self.has_asked:
            env.clients.first_asked(self)
        if head.framing.has_body:
            self._cycle.on_request(Event.HEAD)
            self._body = head.framing.reader()
            self._body_bytes = 0
        else:
            self._cycle.on_request(_WHOLE)
        record = Record(env.seconds(), env.wall_clock(), identity.peer, factory.listener)
        record.method = head.method.decode("ascii")
        record.host = head.host
        record.path = head.target.decode("ascii")
        record.protocol = "http/1.1" if head.version else "http/1.0"
        if identity.trusted:
            record.client = identity.client_address(head)
        told = head.special.get(b"x-request-id")
        request_id = acceptable_request_id(told) if told else None
        record.request_id = request_id.decode("ascii") if request_id else env.request_ids()
        if factory.notes_agents:
            factory.note_fields(record, head)
        self._exchange = exchange = Exchange(env, self, head, identity, record)
        try:
            exchange.start()
        except Exception:
            exchange.broke()  # one request's bug ends that request and no other
        return True

    def _refuse(self, error: ProxyError) -> None:
        """Answer what could not be read as a request, and read no more."""
        record = self._unread_record()
        record.request_id = self._env.request_ids()
        self._cycle.keep_alive = False
        answer = ErrorAnswer(error, record.request_id, as_json=False)
        record.bytes_out = len(answer.body)
        self.transport.write(answer.http1(1, keep_alive=False, with_body=True))
        self._env.refused(record, error)
        if not self._lost:
            self._linger()

    # -- what comes behind a request -----------------------------------------

    def switch(self, head: ResponseHead) -> Any:
        """Send the 101 and give the transport that is the client's end of the tunnel."""
        self._cycle.on_request(Event.SWITCH)
        self._cycle.on_response(Event.SWITCH)
        self.transport.write(informational_head(head))
        self._factory.kind_changed(self._kind, "websocket")
        self._kind = "websocket"
        self._doing = Doing.TUNNEL
        return self.transport

    def join(self, end: RelayEnd) -> None:
        """Hand everything to *end* from now on, what was read ahead of the switch first."""
        self._relay_end = end
        self._resume_reading()
        if self._writing_paused:
            end.pause_peer()
        if self._ahead:
            held, self._ahead = bytes(self._ahead), bytearray()
            end.data_received(held)

    def exchange_over(self) -> None:
        """The exchange has ended and was accounted for: what comes next?"""
        if self._passing is not None:
            self._stop_passing()
        self._exchange = self._head = self._body = None
        self._upload_open = False
        if self._lost:
            self._account()
            return
        if self._doing is not _EXCHANGE:
            if self._doing is Doing.TUNNEL:
                self.transport.abortConnection()
            return
        cycle = self._cycle
        request_whole = cycle.request is _DONE
        if cycle.response is _MUST_CLOSE:
            self._break()
        elif not cycle.next():
            if request_whole and not self._ahead:
                self._close()
            else:
                self._linger()
        else:
            # The next request is waited for.
            self._doing = _WAITING
            if self._factory.is_draining:
                self._leave_when_quiet()  # the client was not told that this answer is the last
            else:
                env = self._env
                self.deadline = at = env.seconds() + env.timeouts.keep_alive
                if at < self.looked_at:
                    env.deadlines.look_sooner(self)
            if self._reading_paused:
                self._resume_reading()
            if self._ahead:
                self._advance()
