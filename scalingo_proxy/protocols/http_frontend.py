"""One HTTP/1 connection of a client: requests in, responses out, in order.

What Twisted tells of the connection, and what comes next on it, is here.  Heads,
bodies, responses and the end of the connection are the business of the classes it
derives from; backends are not known to any of them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import ClientClosed, InternalError, RequestTimeout
from scalingo_proxy.protocols.http_ending import Doing
from scalingo_proxy.protocols.http_requests import HTTPRequests
from scalingo_proxy.protocols.http_uploads import READ_AHEAD_BYTES
from scalingo_proxy.protocols.relay import RelayEnd
from scalingo_proxy.wire.http1_exchange import Cycle, Event, Side
from scalingo_proxy.wire.http1_forwarding import ClientIdentity, informational_head
from scalingo_proxy.wire.http1_head import ResponseHead
from scalingo_proxy.wire.known_requests import LONGEST_WHOLE, recent_request

__all__ = ["HTTPFrontend"]

_log = Logger()

_CLOSED_EARLY = ClientClosed("the client closed before its request head was complete")

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_WAITING, _HEAD, _EXCHANGE, _CLOSED = Doing.WAITING, Doing.HEAD, Doing.EXCHANGE, Doing.CLOSED
_IDLE, _DONE, _MUST_CLOSE = Side.IDLE, Side.DONE, Side.MUST_CLOSE


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTPFrontend(HTTPRequests):
    """The proxy's end of a client connection.

    :param factory: what all connections of this door share.
    :param identity: who the client is; None: the factory says.
    """

    _relay_end: RelayEnd | None = None
    _is_accounted = False

    def __init__(self, factory: Any, identity: ClientIdentity | None = None) -> None:
        # All that the classes above need, in one place: a constructor of each took 0.6 µs more.
        self._factory = factory
        self._env = factory.env
        self._identity = identity
        self._kind = "http"
        self._doing = _WAITING
        self._cycle = Cycle()
        self._head = self._body = self._exchange = self._passing = None
        self._ahead = bytearray()
        # Asked for with each request, which of the class takes longer.
        self._skipped_line = self._upload_open = self._reading_paused = self._writing_paused = False
        self.has_asked = self._lost = False

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        transport, factory, env = self.transport, self._factory, self._env
        if self._identity is None:
            self._identity = factory.identify(transport)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        factory.frontend_opened(self, self._kind)
        self._wait(env.timeouts.request_head)
        if factory.is_draining:
            self.drain()  # it came in at the last moment

    def take_over(self, transport: Any) -> None:
        """Go on with a connection that is counted as one of these already."""
        kind, self._kind = self._kind, ""
        self.makeConnection(transport)  # type: ignore[no-untyped-call]
        self._kind = kind

    def dataReceived(self, data: bytes) -> None:
        doing = self._doing
        if doing is not _WAITING and self._relay_end is not None:
            self._relay_end.data_received(data)
            return
        try:
            if doing is _WAITING and not self._ahead and not self._writing_paused:
                if len(data) <= LONGEST_WHOLE:
                    # A request that came before is not looked at again (7 µs less).
                    head = recent_request(data)
                    if head is not None and head.limits is self._env.limits:
                        self._begin(head)
                        return
                # A head, whole and alone, as most are: no copies and no deadline (3 µs less).
                if 0 < data.find(b"\r\n\r\n") == len(data) - 4 and data[0] != 13:
                    self._doing = _HEAD
                    self._begin_with(data)
                    return
            if doing is _EXCHANGE:
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
        if self._doing is _CLOSED and self._exchange is None and self._relay_end is None:
            self._account()  # as it ends after a last answer: there is nothing to tell or to give up
            return
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
        self._doing = _CLOSED
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
            self.progress.note(self.transport)
        if self._relay_end is not None:
            self._relay_end.pause_peer()
        elif self._exchange is not None:
            self._exchange.pause_response()

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
                if exchange.may_wait_for_reader and self.progress.has_moved(self.transport):
                    exchange.alive()  # it reads slowly, but it reads
                else:
                    exchange.deadline_reached()
            elif doing is Doing.HEAD:
                self._refuse(RequestTimeout("the request head did not arrive in time"))
            elif doing is Doing.WAITING:
                if self._writing_paused and self.progress.has_moved(self.transport):
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
        exchange = self._exchange
        assert exchange is not None
        if (self._cycle.request is not _IDLE or self._doing is not _EXCHANGE) and not self._comes_round():
            return
        # The next request is waited for.
        self._exchange = self._head = None
        self._doing = _WAITING
        if self._factory.is_draining:
            self._leave_when_quiet()  # the client was not told that this answer is the last
        else:
            env = self._env
            self.deadline = at = (exchange.record.finished_at or env.seconds()) + env.timeouts.keep_alive
            if at < self.covered_from:
                env.deadlines.look_sooner(self)
        if self._reading_paused:
            self._resume_reading()
        if self._ahead:
            self._advance()

    def _comes_round(self) -> bool:
        """Whether another request may come on this connection; if not, its end was begun."""
        if self._passing is not None:
            self._stop_passing()
        self._exchange = self._head = self._body = None
        self._upload_open = False
        if self._lost:
            self._account()
            return False
        if self._doing is not _EXCHANGE:
            if self._doing is Doing.TUNNEL:
                self.transport.abortConnection()
            return False
        cycle = self._cycle
        request_whole = cycle.request is _DONE
        if cycle.response is _MUST_CLOSE:
            self._break()
        elif cycle.next():
            return True
        elif request_whole and not self._ahead:
            self._close()
        else:
            self._linger()
        return False
