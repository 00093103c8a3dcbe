"""Clients that send what they are told, byte for byte, and read the answers.

A :class:`ScriptedClient` is an ordinary protocol; :func:`connect_client` makes
it on a :class:`~scalingo_proxy.testing.network.MemoryNetwork` or any reactor.
It refuses to know what a good request is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any

from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.testing.messages import MalformedMessage, RequestReader, Response, ResponseReader

__all__ = ["ScriptedClient", "connect_client"]


@implementer(IHalfCloseableProtocol)
class ScriptedClient(Protocol):
    """One client connection.

    :ivar count: how many bytes came.
    :ivar arrivals: the time of each piece that came, and the piece.
    :ivar responses: the final responses read whole, in order; 101 is one.
    :ivar interim: the 1xx responses before them.
    :ivar malformed: what was wrong with the first response that could not be read.
    :ivar saw_end: whether the other side sent FIN.
    :ivar lost_because: why the connection ended, or could not be made; ``None`` before.
    :ivar closes_at_end: whether it closes when the other side sent FIN, as
        clients do; else it only notes that.
    """

    transport: Any

    def __init__(self, reactor: Any, *, closes_at_end: bool = True) -> None:
        self.reactor = reactor
        self.closes_at_end = closes_at_end
        self.is_connected = False
        self.count = 0
        self.arrivals: list[tuple[float, bytes]] = []
        self.responses: list[Response] = []
        self.interim: list[Response] = []
        self.malformed = ""
        self.saw_end = False
        self.lost_because: Failure | None = None
        self._received = bytearray()
        self._tunnelled = bytearray()
        self._to_send: deque[tuple[bytes, float]] = deque()
        self._next_piece: IDelayedCall | None = None
        self._requests: RequestReader | None = RequestReader()
        self._requests.on_head = lambda request: self._reader.methods.append(request.method)
        self._reader = ResponseReader()
        self._reader.on_head = self._head_read
        self._reader.on_complete = self._response_read

    # -- sending -------------------------------------------------------------

    def send(self, data: bytes) -> ScriptedClient:
        """Send *data* in one write.  Returns itself, as the others do."""
        return self._enqueue([data], 0)

    def send_slowly(self, data: bytes, size: int = 1, every_seconds: float = 0.001) -> ScriptedClient:
        """Send *data* in pieces of *size* bytes, one each *every_seconds*."""
        return self._enqueue((data[at : at + size] for at in range(0, len(data), size)), every_seconds)

    def send_cut(self, data: bytes, random: Random, every_seconds: float = 0.001) -> ScriptedClient:
        """Send *data* in pieces of random sizes, one each *every_seconds*."""
        return self._enqueue(_cut(data, random), every_seconds)

    def _enqueue(self, pieces: Any, pause: float) -> ScriptedClient:
        self._to_send.extend((piece, pause) for piece in pieces)
        if self.is_connected and self._next_piece is None:
            self._send_next()
        return self

    def _send_next(self) -> None:
        self._next_piece = None
        while self._to_send and self.lost_because is None:
            piece, pause = self._to_send.popleft()
            self._note_methods(piece)
            self.transport.write(piece)
            if pause and self._to_send:
                self._next_piece = self.reactor.callLater(pause, self._send_next)
                return

    def _note_methods(self, sent: bytes) -> None:
        """Read our own requests: how a response ends depends on the method."""
        if self._requests is not None:
            try:
                self._requests.feed(sent)
            except MalformedMessage:
                # Sent on purpose; what follows it is nobody's request.
                self._requests = None

    # -- what else a client does ---------------------------------------------

    def pause(self) -> None:
        """Stop reading."""
        if not self.is_over:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        if not self.is_over:
            self.transport.resumeProducing()

    def half_close(self) -> None:
        """Send FIN and read on."""
        if not self.is_over:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close in order."""
        self._to_send.clear()
        if self.transport is not None:
            self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection."""
        self._to_send.clear()
        self.transport.abortConnection()

    # -- what came -----------------------------------------------------------

    @property
    def received(self) -> bytes:
        """Every byte that came."""
        return bytes(self._received)

    @property
    def tunnelled(self) -> bytes:
        """The bytes that came after a 101."""
        return bytes(self._tunnelled)

    @property
    def is_over(self) -> bool:
        """Whether the connection is lost, or could not be made."""
        return self.lost_because is not None

    @property
    def partial(self) -> Response | None:
        """The response that began and did not end, if any."""
        return self._reader.current

    @property
    def response(self) -> Response:
        """The only response.

        :raises AssertionError: when there are none or several.
        """
        assert len(self.responses) == 1, f"{self.responses}, then {self._reader.current}"
        return self.responses[0]

    @property
    def statuses(self) -> list[int]:
        """The status of each final response."""
        return [response.status for response in self.responses]

    def _head_read(self, response: Response) -> None:
        if response.status == 101:
            self._reader.become_tunnel(self._tunnelled.extend)

    def _response_read(self, response: Response) -> None:
        is_interim = response.status < 200 and response.status != 101
        (self.interim if is_interim else self.responses).append(response)

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        """Send what was waiting for the connection."""
        self.is_connected = True
        self._send_next()

    def dataReceived(self, data: bytes) -> None:
        """Record and read what came."""
        self._received += data
        self.count += len(data)
        self.arrivals.append((self.reactor.seconds(), data))
        if self.malformed:
            return
        try:
            self._reader.feed(data)
        except MalformedMessage as error:
            self.malformed = str(error)

    def readConnectionLost(self) -> None:
        """The other side sent FIN."""
        self._end()
        if self.closes_at_end:
            self._to_send.clear()
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: it was us."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note why."""
        self.lost_because = reason
        self._to_send.clear()
        if self._next_piece is not None and self._next_piece.active():
            self._next_piece.cancel()

    def _end(self) -> None:
        self.saw_end = True
        self._reader.feed_end()


def _cut(data: bytes, random: Random) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = random.choice((1, random.randint(1, 16), random.randint(1, len(data))))
        yield data[at : at + size]
        at += size


def connect_client(
    reactor: Any,
    address: tuple[str, int],
    *,
    source: tuple[str, int] | None = None,
    closes_at_end: bool = True,
) -> ScriptedClient:
    """Begin to connect a client; what it is told to send waits for the connection.

    :param address: the host and port to connect to.
    :param source: the host and port to connect from.
    """
    client = ScriptedClient(reactor, closes_at_end=closes_at_end)
    reactor.connectTCP(*address, _OneClient(client), bindAddress=source)
    return client


class _OneClient(ClientFactory[ScriptedClient]):
    noisy = False

    def __init__(self, client: ScriptedClient) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> ScriptedClient:
        return self._client

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._client.lost_because = reason
