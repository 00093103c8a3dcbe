"""The open connections of the admin API: bounded in number, and in how long a request may take to arrive.

Who cannot even be asked for a token yet must cost little.  Knows of what is
spoken on them only when a request has come whole, and when it was answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

__all__ = ["MAX_CONNECTIONS", "REQUEST_SECONDS", "AdminConnection", "AdminConnections"]

#: How many there may be; then the oldest that has no request under way is closed.
MAX_CONNECTIONS = 500

#: How long a request may take from its first byte to its last one, TLS included.
REQUEST_SECONDS = 30.0


class AdminConnection(ProtocolWrapper):
    """One connection, which does not wait for ever for the rest of a request."""

    factory: AdminConnections

    def __init__(self, factory: AdminConnections, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)  # type: ignore[arg-type]
        self.is_busy = False
        self._late: IDelayedCall | None = None

    def makeConnection(self, transport: ITransport) -> None:
        self._expect_whole()
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        if not self.is_busy and self._late is None:
            self._expect_whole()
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._expect_nothing()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def request_came(self) -> None:
        """A request is there, and will be answered."""
        self.is_busy = True
        self._expect_nothing()

    def request_over(self) -> None:
        """It was."""
        self.is_busy = False

    def _expect_whole(self) -> None:
        self._late = self.factory.clock.callLater(REQUEST_SECONDS, self._is_late)

    def _expect_nothing(self) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()

    def _is_late(self) -> None:
        self._late = None
        self.abortConnection()


class AdminConnections(WrappingFactory):
    """Wraps a factory and remembers which of its connections are open.

    :param end_waits: answers every request that is not answered yet.
    """

    noisy = False
    protocol = AdminConnection

    def __init__(
        self, factory: IProtocolFactory, reactor: IReactorTime, end_waits: Callable[[], None]
    ) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.clock = reactor
        self._end_waits = end_waits
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]
        if len(self.protocols) >= MAX_CONNECTIONS:
            oldest = next((each for each in self.protocols if not each.is_busy), None)
            if oldest is None:
                return None  # Twisted closes the connection
            oldest.abortConnection()
        return super().buildProtocol(addr)

    def drain(self, seconds: float) -> Deferred[None]:
        """Send what is written and close every connection; fires when all are.

        :param seconds: how long a peer that does not read is waited for.
        """
        self._end_waits()
        if not self.protocols:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closed = closed
        deadline = self.clock.callLater(seconds, self._abort)
        for protocol in tuple(self.protocols):
            protocol.loseConnection()

        def over(result: Any) -> Any:
            if deadline.active():
                deadline.cancel()
            return result

        return closed.addBoth(over)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        if not self.protocols and self._closed is not None:
            closed, self._closed = self._closed, None
            closed.callback(None)

    def _abort(self) -> None:
        for protocol in tuple(self.protocols):
            protocol.abortConnection()
