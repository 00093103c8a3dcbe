"""One HTTP/1.1 connection to a backend: a request out, its response back.

Here is what Twisted tells of it, and the reading of responses; the writing is the
business of the class it derives from.  Which backend, why, and what happens when it
fails is known to :mod:`scalingo_proxy.protocols.exchange`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import BadResponse, ProxyError
from scalingo_proxy.protocols.http_requester import HTTPRequester
from scalingo_proxy.protocols.passing_bodies import pass_response
from scalingo_proxy.wire.grammar import Fields, FramingError
from scalingo_proxy.wire.http1_body import BodyReader, FramingKind
from scalingo_proxy.wire.http1_exchange import Event, Side
from scalingo_proxy.wire.http1_head import ResponseHead, head_end
from scalingo_proxy.wire.http1_response import MAX_RESPONSE_HEAD_BYTES, parse_response_head

if TYPE_CHECKING:
    from scalingo_proxy.protocols.exchange import Exchange

__all__ = ["HTTPBackend"]

#: More interim responses than this to one request is an attack, not progress.
_MAX_INFORMATIONAL = 10

_BLANK_LINE = b"\r\n\r\n"

#: How every response head begins.
_STATUS_LINE_START = b"HTTP/"

_NO_RESPONSE = "the backend sent bytes that are no HTTP response"
_TOO_LARGE = "the backend sent a response head that is too large"

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_LENGTH, _NONE = FramingKind.LENGTH, FramingKind.NONE
_HEAD, _WHOLE = Event.HEAD, Event.WHOLE
_IDLE, _DONE = Side.IDLE, Side.DONE


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTPBackend(HTTPRequester):
    """The proxy's end of a connection to one backend."""

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        transport, exchange = self.transport, self.exchange
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        if self.preface and not ISSLTransport.providedBy(transport):
            transport.write(self.preface)
        self._connections.connected(self)
        if exchange is None:
            transport.abortConnection()  # nobody waits for it any more
            return
        try:
            exchange.backend_connected(self)
        except Exception:
            self._broke(exchange)

    def dataReceived(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self.relay_end is not None:
                self.relay_end.data_received(data)
            else:
                # Bytes nobody asked for: they must not become someone's answer.
                self._connections.discard(self)
            return
        try:
            if self._reader is None:
                self._receive_head(exchange, data)
            else:
                self._receive_body(self._reader, data)
        except Exception:
            self._broke(exchange)

    def readConnectionLost(self) -> None:
        if self.relay_end is not None:
            self.relay_end.read_closed()
            return
        self._end_of_stream(clean=True)
        self._connections.closed_by_backend(self)
        self._connections.discard(self)

    def writeConnectionLost(self) -> None:
        if self.relay_end is not None:
            self.relay_end.write_closed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._stop_passing()
        self._connections.connection_lost(self)
        if self.relay_end is not None:
            self.relay_end.connection_lost()
        else:
            self._end_of_stream(clean=isinstance(reason.value, ConnectionDone))

    # IPushProducer: our transport asks us to stop filling it.

    def pauseProducing(self) -> None:
        self._writing_paused = True
        if self.relay_end is not None:
            self.relay_end.pause_peer()
        elif self.exchange is not None:
            self.exchange.pause_upload()

    def resumeProducing(self) -> None:
        exchange = self.exchange
        self._writing_paused = False
        if self.relay_end is not None:
            self.relay_end.resume_peer()
        elif exchange is not None:
            try:
                exchange.resume_upload()
            except Exception:
                self._broke(exchange)

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""

    def deadline_reached(self) -> None:
        """Nobody has needed this connection for a while, or it could not be closed in order."""
        if self._closing:
            self.abandon()
        else:
            self._connections.discard(self)

    def _broke(self, exchange: Exchange) -> None:
        """A bug of ours surfaced: the exchange it happened to ends, and takes this connection along.

        Unless another exchange has it by now, of which nothing is known to be wrong.
        """
        exchange.broke()
        if self.exchange is exchange:
            self.abandon()
        elif self.exchange is None and self.relay_end is None:
            self._connections.discard(self)

    # -- the response --------------------------------------------------------

    def _receive_head(self, exchange: Exchange, data: bytes) -> None:
        block, blank, rest = data.partition(_BLANK_LINE)
        if blank and not self._head:
            block += blank
        else:
            whole = self._gather_head(data)
            if whole is None:
                return
            block, rest = whole
        try:
            response = parse_response_head(block, self._method)
        except ProxyError as error:
            self._refuse(error)
            return
        framing, cycle = response.framing, self._cycle
        if (
            framing.length == len(rest)
            and (framing.kind is _LENGTH or (framing.kind is _NONE and response.status >= 200))
            and cycle.request is _DONE
            and response.keep_alive
            and not self._writing_paused
            and not self._reading_paused
        ):
            # Most answers are all of what came, to requests that were whole: what _finish does for them,
            # without the steps whose end is known (2 µs less).
            self.exchange = None
            cycle.request = _IDLE  # where WHOLE and NEXT lead; the response's side has come round
            connections = self._connections
            seconds = connections.seconds
            now = seconds()
            connections.give_back(self, now)
            exchange.response_whole(response, rest, [], now)
        elif response.status < 200:
            self._receive_informational(exchange, response, rest)
        else:
            self._response = response
            self._begin_response(exchange, response, rest)

    def _gather_head(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head that *data* completes, and what is behind it; None: it is not there, or never will be."""
        received = self._head
        received += data
        try:
            end = head_end(received, self._searched)
        except FramingError:
            self._refuse(BadResponse(_NO_RESPONSE))
            return None
        if end >= 0:
            self._head = bytearray()
            self._searched = 0
            return bytes(received[:end]), bytes(received[end:])
        if len(received) > MAX_RESPONSE_HEAD_BYTES:
            self._refuse(BadResponse(_TOO_LARGE))
        elif bytes(received[: len(_STATUS_LINE_START)]) != _STATUS_LINE_START[: len(received)]:
            # Another protocol: nobody need wait for the rest of it, or for its end.
            self._refuse(BadResponse(_NO_RESPONSE))
        else:
            self._searched = len(received)
            if self.exchange is not None:
                self.exchange.response_bytes_seen()
        return None

    def _receive_informational(self, exchange: Exchange, response: ResponseHead, rest: bytes) -> None:
        self._informational += 1
        if self._informational > _MAX_INFORMATIONAL:
            self._refuse(BadResponse("the backend sent too many interim responses"))
        elif response.status == 101:
            if self._cycle.request is not Side.DONE:
                self._refuse(BadResponse("the backend switched protocols in the middle of a request"))
                return
            exchange.backend_switched(response, rest)
        else:
            exchange.informational(response)
            if rest and self.exchange is exchange:
                self._receive_head(exchange, rest)

    def _begin_response(self, exchange: Exchange, response: ResponseHead, rest: bytes) -> None:
        reader = response.framing.reader()
        try:
            payload = reader.receive(rest) if rest else b""
        except FramingError as error:
            self._refuse(BadResponse(str(error)))
            return
        if reader.done:
            # A message without body: whatever follows is not part of it.
            excess = reader.excess or (b"" if payload else rest)
            self._finish(_WHOLE, payload, reader.trailers, excess, response)
        else:
            self._cycle.on_response(_HEAD)
            self._reader = reader
            exchange.response_started(response, payload)
            if self.exchange is exchange:
                self._passing = pass_response(exchange, reader, self.transport)

    def _receive_body(self, reader: BodyReader, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        try:
            payload = reader.receive(data)
        except FramingError as error:
            self._refuse(BadResponse(str(error)))
            return
        if reader.done:
            self._finish(Event.END, payload, reader.trailers, reader.excess)
        else:
            exchange.response_payload(payload)

    def _finish(
        self,
        event: Event,
        payload: bytes,
        trailers: Fields,
        excess: bytes,
        started: ResponseHead | None = None,
    ) -> None:
        """The response is whole: free this connection, then tell the exchange.

        In that order, so that the exchange that follows can be given this
        very connection.

        :param excess: what came behind the response.
        :param started: its head, if the exchange was not told of that yet.
        """
        if self._passing is not None:
            self._stop_passing()
        exchange, response, cycle = self.exchange, self._response, self._cycle
        assert exchange is not None and response is not None
        cycle.on_response(event)
        self.exchange = self._response = self._reader = None
        cycle.keep_alive = (
            response.keep_alive
            and not excess
            and not self._writing_paused  # much of the request is still on its way
            and not self._lost
        )
        if self._reading_paused:
            self.resume_response()
        request_whole = cycle.request is _DONE
        now = self._connections.seconds()
        if cycle.next():
            self._connections.give_back(self, now)
        elif request_whole:
            self._connections.discard(self)
        else:
            self.abandon()  # answered before the whole request was sent: the rest must not follow
        if started is not None:
            exchange.response_whole(started, payload, trailers, now)
        else:
            exchange.response_ended(payload, trailers)

    def _end_of_stream(self, clean: bool) -> None:
        """The backend sends no more, by FIN (*clean*) or otherwise."""
        exchange, reader = self.exchange, self._reader
        if exchange is None:
            return
        try:
            if reader is not None and clean and reader.closed():
                self._finish(Event.END, b"", reader.trailers, reader.excess)
            else:
                self.abandon()
                exchange.backend_lost(self, response_begun=bool(self._head) or self._informational > 0)
        except Exception:
            self._broke(exchange)

    def _refuse(self, error: ProxyError) -> None:
        """What the backend sends cannot be trusted any more."""
        exchange = self.exchange
        self.abandon()
        if exchange is not None:
            exchange.backend_failed(error)
