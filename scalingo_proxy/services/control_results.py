"""What comes of an operation on the topology: results, and reasons why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.model import App
from scalingo_proxy.protocols.drains import AFTER_DEADLINE_SECONDS
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import MemberEvent, Pool
from scalingo_proxy.services.backend_status import BackendStatus
from scalingo_proxy.services.readiness import Tryout

__all__ = ["AppWritten", "BackendsChange", "DescribedByFile", "NotReady", "UnknownApp"]


class UnknownApp(ScalingoProxyError):
    """No app has this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no app {name!r}")


class DescribedByFile(ScalingoProxyError):
    """The app was not told here, so it cannot be taken back here."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        cure = "edit the file and reload" if source == "file" else "it cannot be removed here"
        super().__init__(f"app {name!r} was not told to the admin API but comes from {source!r}: {cure}")


class NotReady(ScalingoProxyError):
    """The store is not loaded, so nobody knows yet which apps there are."""


@attrs.frozen
class AppWritten:
    """An app that was put, and whether there was none of its name before.

    :ivar tryouts: how the backends did that had to be ready first.
    """

    app: App
    is_new: bool
    tryouts: tuple[Tryout, ...] = ()


class BackendsChange:
    """A set of backends that was replaced, and what is left to wait for.

    :ivar name: the app's name.
    :ivar drain_seconds: how long the app's removed backends may take.
    :ivar tryouts: how the backends did that had to be ready first.
    """

    def __init__(
        self,
        app: App,
        pool: Pool | None,
        statuses: Callable[[App, Pool | None], list[BackendStatus]],
        reactor: IReactorTime,
        tryouts: Iterable[Tryout] = (),
    ) -> None:
        self.name = app.name
        self.tryouts = tuple(tryouts)
        self.drain_seconds = 0.0 if pool is None else pool.timeouts.drain
        self._app = app
        self._pool = pool
        self._statuses = statuses
        self._reactor = reactor

    def statuses(self) -> list[BackendStatus]:
        """The app's backends now, those that still drain among them."""
        return self._statuses(self._app, self._pool)

    def drained(self) -> Deferred[bool]:
        """Fire with ``True`` once every removed backend is safe to kill.

        Those that earlier changes removed count too, so that asking again
        after a lost answer waits for the same backends.  What they still have
        after ``drain_seconds`` is ended then; should even that fail, it fires
        with ``False``.  May be cancelled.
        """
        return _when_drained(self._reactor, self._pool, self.drain_seconds + AFTER_DEADLINE_SECONDS)


def _when_drained(reactor: IReactorTime, pool: Pool | None, seconds: float) -> Deferred[bool]:
    """Fire with ``True`` when nothing of *pool* drains any more, or ``False`` after *seconds*."""
    leaving = set() if pool is None else set(pool.draining)
    if pool is None or not leaving:
        return succeed(True)
    over: Deferred[bool] = Deferred()

    def changed(member: Member, event: MemberEvent) -> None:
        if event == "gone":
            leaving.discard(member)
        if not leaving and not over.called:
            over.callback(True)

    def left(result: Any) -> Any:
        leave()
        if deadline.active():
            deadline.cancel()
        return result

    leave = pool.watch(changed)
    deadline = reactor.callLater(seconds, over.callback, False)
    return over.addBoth(left)
