"""One connection to a backend that carries a tunnel from its first byte on.

Nothing of what it carries is looked at.  Whom it belongs to, and why, is the
business of whoever asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from typing import Protocol as StructuralType

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.protocols.relay import RelayEnd

if TYPE_CHECKING:
    from scalingo_proxy.protocols.backend_connections import BackendConnections

__all__ = ["RawBackend", "TunnelOwner"]


class TunnelOwner(StructuralType):
    """Who wants a connection to a backend, and becomes a tunnel with it."""

    def backend_connected(self, backend: Any) -> None:
        """The connection is there: join it to a relay, or abandon it."""

    def backend_ended(self) -> None:
        """The backend sends no more."""

    def broke(self) -> None:
        """A bug of the owner's surfaced, and the exception being handled tells of it."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class RawBackend(Protocol):
    """The proxy's end of a connection to one backend.

    :param connections: counts it while it is established.
    :param owner: told when it is connected, and when the backend ends it.
    """

    transport: Any

    def __init__(self, connections: BackendConnections, owner: TunnelOwner) -> None:
        self._connections = connections
        self._owner: TunnelOwner | None = owner
        self._relay_end: RelayEnd | None = None

    # -- called by the owner -------------------------------------------------

    def join(self, end: RelayEnd) -> None:
        """Become one end of a tunnel."""
        self._relay_end = end
        self.transport.registerProducer(self, True)

    def abandon(self) -> None:
        """Nobody wants it any more: cut the connection at once."""
        self._owner = None
        self.transport.abortConnection()

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._connections.raw_connected(self)
        owner = self._owner
        if owner is not None:
            try:
                owner.backend_connected(self)
            except Exception:
                self.abandon()
                owner.broke()

    def dataReceived(self, data: bytes) -> None:
        if self._relay_end is not None:
            self._relay_end.data_received(data)

    def readConnectionLost(self) -> None:
        self._ended()
        if self._relay_end is not None:
            self._relay_end.read_closed()

    def writeConnectionLost(self) -> None:
        if self._relay_end is not None:
            self._relay_end.write_closed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connections.raw_connection_lost()
        if self._owner is not None:
            self._ended()
        if self._relay_end is not None:
            self._relay_end.connection_lost()

    def _ended(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.backend_ended()

    # IPushProducer: our transport asks us to stop filling it.

    def pauseProducing(self) -> None:
        if self._relay_end is not None:
            self._relay_end.pause_peer()

    def resumeProducing(self) -> None:
        if self._relay_end is not None:
            self._relay_end.resume_peer()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""
