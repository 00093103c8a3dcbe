"""Opens the embedded store when the proxy starts, and closes it when it stops."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.resolvers.store import StoreResolver

__all__ = ["StoreService"]


class StoreService(Service):
    """Starts and stops a :class:`~scalingo_proxy.resolvers.store.StoreResolver`.

    Requests that come before the store is loaded wait for it in the resolver.

    :param store: the resolver.
    """

    name = "store"
    _log = Logger()

    def __init__(self, store: StoreResolver) -> None:
        self._store = store
        self._waiting: list[Deferred[None]] = []
        self._outcome: Failure | None = None
        self._is_decided = False

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._is_decided = False
        self._store.start().addCallbacks(lambda _: self._decided(None), self._decided)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return self._store.stop()

    def when_loaded(self) -> Deferred[None]:
        """Fire once the store is loaded, or fail with why it could not be."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if self._is_decided:
            self._tell()
        return waiter

    def _decided(self, failure: Failure | None) -> None:
        self._is_decided = True
        self._outcome = failure
        if failure is not None:
            self._log.error("the store cannot be used: {error}", error=failure.value)
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if self._outcome is None:
                waiter.callback(None)
            else:
                waiter.errback(self._outcome)
