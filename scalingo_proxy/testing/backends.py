"""Backends that do as they are told and remember what they were asked.

A :class:`ScriptedBackend` is an ordinary factory: it listens on a
:class:`~scalingo_proxy.testing.network.MemoryNetwork` or on any reactor.
What it can do with a request is in :mod:`scalingo_proxy.testing.replies`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.model import join_host_port
from scalingo_proxy.testing.messages import MalformedMessage, Request, RequestReader
from scalingo_proxy.testing.replies import Reply, fixed

__all__ = ["BackendConnection", "BackendExchange", "ScriptedBackend"]


class ScriptedBackend(ServerFactory):
    """A backend that answers by a script and records what it was sent.

    :ivar name: what its default answer and its headers call it.
    :ivar requests: every request whose head arrived, in order; see
        ``is_complete`` of each for whether all of it did.
    :ivar request_ids: how many requests came with each X-Request-ID.
    :ivar connections: every connection it ever had, in order.
    :ivar malformed: what was wrong with messages it could not read; such a
        connection is closed.
    """

    def __init__(self, name: str = "backend") -> None:
        self.name = name
        self.requests: list[Request] = []
        self.request_ids: Counter[bytes] = Counter()
        self.connections: list[BackendConnection] = []
        self.malformed: list[str] = []
        self._script: deque[Reply] = deque()
        self._answer = fixed(name.encode(), headers=((b"X-Backend", name.encode()),))
        self._port: Any = None
        self._reactor: Any = None
        self._host_port = ("", 0)

    def __repr__(self) -> str:
        return f"<ScriptedBackend {self.name} at {self.address}>"

    # -- where it is ---------------------------------------------------------

    def listen(self, reactor: Any, host: str = "127.0.0.1", port: int = 0) -> ScriptedBackend:
        """Listen on *reactor*; port 0 takes a free one.  Returns itself."""
        self._reactor = reactor
        self._port = reactor.listenTCP(port, self, interface=host)
        self._host_port = (host, self._port.getHost().port)
        return self

    @property
    def address(self) -> str:
        """Where it listens, or listened, as ``HOST:PORT``."""
        return join_host_port(*self._host_port)

    def stop_listening(self) -> Any:
        """Refuse new connections; those that exist live on."""
        port, self._port = self._port, None
        return port.stopListening() if port is not None else None

    def listen_again(self) -> None:
        """Listen where it did before."""
        if self._port is None:
            self.listen(self._reactor, *self._host_port)

    def crash(self) -> None:
        """Stop listening and reset every connection, as a killed process does."""
        self.stop_listening()
        for connection in self.open_connections:
            connection.transport.abortConnection()

    def close_connections(self) -> None:
        """Close every connection in order, as a server with an idle limit does."""
        for connection in self.open_connections:
            connection.transport.loseConnection()

    @property
    def open_connections(self) -> list[BackendConnection]:
        """The connections that are not over."""
        return [connection for connection in self.connections if not connection.is_over]

    # -- what it does --------------------------------------------------------

    def answer(self, reply: Reply) -> ScriptedBackend:
        """Answer every request like this from now on.  Returns itself."""
        self._answer = reply
        return self

    def script(self, *replies: Reply) -> ScriptedBackend:
        """Answer the next requests by these, one each, then as :meth:`answer` says."""
        self._script.extend(replies)
        return self

    def next_reply(self) -> Reply:
        """How the next request is answered."""
        return self._script.popleft() if self._script else self._answer

    def buildProtocol(self, addr: IAddress | None) -> BackendConnection:
        """Make and record one connection."""
        connection = BackendConnection(self, self._reactor)
        self.connections.append(connection)
        return connection


@implementer(IHalfCloseableProtocol)
class BackendConnection(Protocol):
    """One connection at a backend.

    :ivar requests: the requests that came over it.
    :ivar saw_end: whether the proxy half-closed it.
    :ivar lost_because: why it ended, or ``None``.
    """

    transport: Any

    def __init__(self, backend: ScriptedBackend, reactor: Any) -> None:
        self.backend = backend
        self.reactor = reactor
        self.requests: list[Request] = []
        self.saw_end = False
        self.lost_because: Failure | None = None
        self._received = bytearray()
        self._tunnelled = bytearray()
        self._ended: Callable[[], None] = self._close
        self._delayed: list[IDelayedCall] = []
        self._exchanges: deque[BackendExchange] = deque()
        self._reader = RequestReader()
        self._reader.on_head = self._head_read
        self._reader.on_complete = self._request_read

    @property
    def is_over(self) -> bool:
        """Whether the connection is lost."""
        return self.lost_because is not None

    @property
    def received(self) -> bytes:
        """Every byte that came over it."""
        return bytes(self._received)

    @property
    def tunnelled(self) -> bytes:
        """The bytes that came after an upgrade."""
        return bytes(self._tunnelled)

    def dataReceived(self, data: bytes) -> None:
        """Read requests and start answering them."""
        self._received += data
        try:
            self._reader.feed(data)
        except MalformedMessage as error:
            self.backend.malformed.append(str(error))
            self.transport.abortConnection()

    def _head_read(self, request: Request) -> None:
        self.requests.append(request)
        self.backend.requests.append(request)
        self.backend.request_ids[request.request_id] += 1
        exchange = BackendExchange(self, request, self.backend.next_reply())
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1:
            exchange.start()

    def _request_read(self, request: Request) -> None:
        if self._exchanges:
            self._exchanges[0].proceed()

    def exchange_over(self, keep: bool) -> None:
        """The first exchange was answered: go on with the next, or close."""
        self._exchanges.popleft()
        if not keep:
            self._exchanges.clear()
            self.transport.loseConnection()
        elif self._exchanges:
            self._exchanges[0].start()
            self._exchanges[0].proceed()

    def become_tunnel(self, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        """Keep and hand on every further byte, and tell of the end."""
        self._ended = ended

        def take(data: bytes) -> None:
            self._tunnelled += data
            received(data)

        self._reader.become_tunnel(take)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call *call* after *seconds*, unless the connection ends before."""
        self._delayed.append(self.reactor.callLater(seconds, call))

    def readConnectionLost(self) -> None:
        """Note it; close, as servers do, unless a tunnel goes on the other way."""
        self.saw_end = True
        self._ended()

    def _close(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: it was us."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note why, and do nothing more."""
        self.lost_because = reason
        self._exchanges.clear()
        for call in self._delayed:
            if call.active():
                call.cancel()


class BackendExchange:
    """One request at a backend; see :class:`scalingo_proxy.testing.replies.IncomingExchange`."""

    def __init__(self, connection: BackendConnection, request: Request, reply: Reply) -> None:
        self.connection = connection
        self.request = request
        self.reply = reply
        self._is_over = False
        self._proceeded = False

    @property
    def transport(self) -> Any:
        """The backend's side of the connection."""
        return self.connection.transport

    def start(self) -> None:
        """It is this exchange's turn: act on the head."""
        self.reply.head(self)

    def proceed(self) -> None:
        """Act on the whole request, once, if its time has come."""
        if self.request.is_complete and not (self._proceeded or self._is_over):
            self._proceeded = True
            self.reply.complete(self)

    def write(self, data: bytes) -> None:
        """Send *data*."""
        self.transport.write(data)

    def finish(self, close: bool = False) -> None:
        """The response is over; keep the connection if both sides may."""
        if self._is_over or self.connection.is_over:
            return
        self._is_over = True
        asked = self.request.get(b"Connection").lower()
        keep = asked != b"close" and (self.request.version == b"1.1" or asked == b"keep-alive")
        self.connection.exchange_over(keep and not close)

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        self._is_over = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection once what was written is sent."""
        self._is_over = True
        _AbortWhenSent(self.transport)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call *call* after *seconds*, unless the connection ends before."""
        self.connection.later(seconds, call)

    def tunnel(self, received: Callable[[bytes], None], ended: Callable[[], None] | None = None) -> None:
        """Hand every further byte to *received*, and call *ended* at the end; else close then."""
        self.connection.become_tunnel(received, ended or self.close)


@implementer(IPullProducer)
class _AbortWhenSent:
    """Aborts once the write buffer is empty, which a pull producer is told of."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._asked = False
        transport.unregisterProducer()
        transport.registerProducer(self, False)
        # Nothing may be buffered: an empty write asks for the turn all the same.
        transport.startWriting()

    def resumeProducing(self) -> None:
        if self._asked:
            self._transport.unregisterProducer()
            self._transport.abortConnection()
        self._asked = True

    def stopProducing(self) -> None:
        pass
