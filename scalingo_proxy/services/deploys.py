"""A deploy as one change: the new backends answer first, the old ones finish what they have.

For the admin API and for programs that embed the proxy alike.  Where the
app's description is kept is the business of whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scalingo_proxy.model import App, AppState, Route
from scalingo_proxy.routing.members import HealthState, Member
from scalingo_proxy.routing.pool import MemberEvent, Pool
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services.paced_probes import PacedProbes
from scalingo_proxy.services.readiness import READY_SECONDS, Tryout, when_ready

__all__ = ["Deploy", "Deploys"]


class Deploy:
    """One change of an app that was made.

    :ivar removed: the members that the app no longer has.
    :ivar is_drained: fires once each of them is safe to kill; at once if
        there is none.  May be cancelled.
    """

    def __init__(self, removed: Iterable[Member], watch: Callable[[Any], Callable[[], None]]) -> None:
        self.removed = tuple(removed)
        self._left = {member for member in self.removed if not _is_gone(member)}
        self.is_drained: Deferred[None] = Deferred(lambda _: self._leave())
        self._leave = watch(self._member_changed)
        self._look()

    def _member_changed(self, _pool: Pool, member: Member, event: MemberEvent) -> None:
        if event == "gone" and member in self._left:
            self._left.discard(member)
            self._look()

    def _look(self) -> None:
        if not self._left and not self.is_drained.called:
            self._leave()
            self.is_drained.callback(None)


class Deploys:
    """Deploys apps into the pools of one proxy.

    :param probes: who finds out whether backends are ready.
    :param seconds: how long new backends have to become ready.
    """

    def __init__(
        self, pools: Pools, probes: PacedProbes, reactor: IReactorTime, seconds: float = READY_SECONDS
    ) -> None:
        self._pools = pools
        self._probes = probes
        self._reactor = reactor
        self.seconds = seconds

    def ready(self, app: App) -> Deferred[tuple[Tryout, ...]]:
        """Probe the backends of *app* that do not serve well already, until all have passed.

        While the app is paused or stopped nobody serves, and all are probed: whoever was well
        before may be another process by now, or none yet.

        Fires with how each of them did, or fails with BackendsNotReady.  To
        cancel it is to give up; nothing has changed in any case.
        """
        pool = self._pools.get(app.name)
        members = pool.members if pool is not None and pool.app.state is AppState.RUNNING else ()
        up = {member.backend.identity for member in members if member.health is HealthState.UP}
        backends = [backend for backend in app.backends if backend.identity not in up]
        health = self._pools.health_of(app)
        return when_ready(app, backends, health, self._probes, self._reactor, self.seconds)

    def apply(self, app: App, tell: Callable[[App], object], tryouts: Iterable[Tryout] = ()) -> Deploy:
        """Make the change by *tell*, which is given *app*: ``resolver.set_app``, for instance.

        :param tryouts: what :meth:`ready` found; those backends begin as up.
        :raises Exception: whatever *tell* raises; then nothing has changed.
        """
        removed: list[Member] = []

        def note(pool: Pool, member: Member, event: MemberEvent) -> None:
            if event == "draining" and pool.app.name == app.name:
                removed.append(member)

        stop = self._pools.watch(note)
        try:
            tell(app)
        finally:
            stop()
        self.settle(app, tryouts)
        return Deploy(removed, self._pools.watch)

    def settle(self, app: App, tryouts: Iterable[Tryout] = ()) -> None:
        """Start the members of *app* as a deploy does, when it is in effect.

        What was held against those that stay counts no more: there may be
        another process behind the address.
        """
        now = self._reactor.seconds()
        tried = tuple(tryouts)
        pool = self._pools.for_route(Route(app, "")) if tried else self._pools.get(app.name)
        if pool is None:
            return
        for tryout in tried:
            pool.proved((tryout.backend.identity,), tryout.reason, now)
        pool.start_over("it was deployed again", now)


def _is_gone(member: Member) -> bool:
    return member.membership.value == "gone"
