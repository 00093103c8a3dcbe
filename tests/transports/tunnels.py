"""Tunnels made of nothing but a relay between two connections, for tests and measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.protocols.relay import RelayEnd

__all__ = ["End", "connect_ends"]


@implementer(IHalfCloseableProtocol, IPushProducer)
class End(Protocol):
    """The proxy's end of one connection; reads nothing until it is joined to a relay.

    :param connected: called with this object when the connection is there.
    """

    transport: Any

    def __init__(self, connected: Callable[[End], None]) -> None:
        self._connected = connected
        self._relay_end: RelayEnd | None = None
        self.is_lost = False

    def join(self, end: RelayEnd) -> None:
        self._relay_end = end
        self.transport.registerProducer(self, True)
        self.transport.resumeProducing()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.pauseProducing()
        self._connected(self)

    def dataReceived(self, data: bytes) -> None:
        assert self._relay_end is not None
        self._relay_end.data_received(data)

    def readConnectionLost(self) -> None:
        if self._relay_end is not None:
            self._relay_end.read_closed()

    def writeConnectionLost(self) -> None:
        if self._relay_end is not None:
            self._relay_end.write_closed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        if self._relay_end is not None:
            self._relay_end.connection_lost()

    def pauseProducing(self) -> None:
        if self._relay_end is not None:
            self._relay_end.pause_peer()

    def resumeProducing(self) -> None:
        if self._relay_end is not None:
            self._relay_end.resume_peer()

    def stopProducing(self) -> None:
        pass


def connect_ends(reactor: Any, port: int, connected: Callable[[End], None]) -> None:
    """Connect an end to a port on loopback."""
    from twisted.internet.endpoints import TCP4ClientEndpoint

    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda addr: End(connected)  # type: ignore[assignment]
    TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
