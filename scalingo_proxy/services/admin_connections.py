"""The open connections of the admin API, so that stopping can end them.

Knows nothing of what is spoken on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

__all__ = ["AdminConnections"]


class AdminConnections(WrappingFactory):
    """Wraps a factory and remembers which of its connections are open.

    :param end_waits: answers every request that is not answered yet.
    """

    noisy = False

    def __init__(
        self, factory: IProtocolFactory, reactor: IReactorTime, end_waits: Callable[[], None]
    ) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._end_waits = end_waits
        self._closed: Deferred[None] | None = None

    def drain(self, seconds: float) -> Deferred[None]:
        """Send what is written and close every connection; fires when all are.

        :param seconds: how long a peer that does not read is waited for.
        """
        self._end_waits()
        if not self.protocols:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closed = closed
        deadline = self._reactor.callLater(seconds, self._abort)
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
