"""What the suites of a transport's contract stand on.

Protocols and producers that write down what a transport does to them, and
what whoever binds a suite has to say.  Nothing here judges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    # Trial's is the one to mix in; this one has types.
    from unittest import TestCase as _TestCase
else:
    _TestCase = object

__all__ = ["HalfCloseRecorder", "PullRecorder", "PushRecorder", "Recorder", "TransportBinding"]


class Recorder(Protocol):
    """Keeps what arrives and how it ends.

    :ivar count: how many bytes arrived.
    :ivar sizes: the size of each piece that came.
    :ivar events: the names of the methods called, data apart, in order.
    :ivar reason: why the connection was lost, or ``None``.
    :ivar on_data: called with each piece after it was recorded.
    :ivar on_lost: called when the connection is lost, before it is recorded.
    """

    transport: Any

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.count = 0
        self.sizes: list[int] = []
        self.events: list[str] = []
        self.reason: Failure | None = None
        self.on_data: Callable[[bytes], Any] = lambda data: None
        self.on_lost: Callable[[], Any] = lambda: None

    @property
    def received(self) -> bytes:
        """Every byte that arrived."""
        return b"".join(self._pieces)

    @property
    def ended_with(self) -> type[BaseException] | None:
        """The class of the reason why the connection was lost."""
        return self.reason.type if self.reason is not None else None

    def connectionMade(self) -> None:
        self.events.append("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self.count += len(data)
        self.sizes.append(len(data))
        self.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.on_lost()
        self.events.append("connectionLost")
        self.reason = reason


@implementer(IHalfCloseableProtocol)
class HalfCloseRecorder(Recorder):
    """A recorder that understands half-close."""

    def readConnectionLost(self) -> None:
        self.events.append("readConnectionLost")

    def writeConnectionLost(self) -> None:
        self.events.append("writeConnectionLost")


@implementer(IPushProducer)
class PushRecorder:
    """A streaming producer that writes nothing by itself.

    :ivar calls: what the transport asked, in order: pause, resume, stop.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IPullProducer)
class PullRecorder:
    """A producer that writes one piece each time it is asked, then unregisters itself.

    :ivar asked: how often it was asked.
    :ivar stopped: whether it was told to stop.
    """

    def __init__(self, transport: Any, pieces: list[bytes]) -> None:
        self.asked = 0
        self.stopped = False
        self._transport = transport
        self._pieces = pieces

    def resumeProducing(self) -> None:
        self.asked += 1
        if self._pieces:
            self._transport.write(self._pieces.pop(0))
        else:
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped = True


class TransportBinding(_TestCase):
    """What a provider has to say for itself.

    :cvar more_than_fits: so many bytes that the buffers below the transports
        do not take them all from a writer whose peer does not read.
    """

    flushLoggedErrors: Callable[..., list[Any]]
    more_than_fits = bytes(range(256)) * 4 * 16384

    async def connect(self, near: Recorder, far: Recorder) -> None:
        """Connect the two protocols; both know of it when this returns."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until *condition* holds; fail when it never does."""
        raise NotImplementedError

    async def rest(self) -> None:
        """Wait until everything has happened that would happen soon."""
        raise NotImplementedError

    async def pair(self, kind: type[Recorder] = Recorder) -> tuple[Any, Any]:
        """Two connected recorders of one *kind*."""
        near, far = kind(), kind()
        await self.connect(near, far)
        return near, far
