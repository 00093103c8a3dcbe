"""The pools of all apps, by name, made when first used.

Two parties say what an app is: a feed, in :meth:`Pools.apply`, and the route
that a request was given.  What a feed said last counts.  A route is believed
only about an app that no feed has spoken of, because its resolver answers
questions and pushes nothing; there the latest answer counts.  It is never
believed when it holds an App that a feed has replaced or removed: a slow
answer must not bring removed backends back.

This module knows no resolver, and reads the time from the clock it is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import Random
from weakref import WeakValueDictionary

import attrs

from scalingo_proxy.interfaces import IBalancer
from scalingo_proxy.model import (
    App,
    AppState,
    Health,
    Limits,
    Quarantine,
    Route,
    Timeouts,
    TopologyChange,
)
from scalingo_proxy.routing.balancers import BALANCERS
from scalingo_proxy.routing.callouts import Callouts
from scalingo_proxy.routing.members import Drain, Member
from scalingo_proxy.routing.pool import MemberEvent, Pool
from scalingo_proxy.routing.pool_settings import PoolSettings

__all__ = ["Pools"]


class Pools:
    """One pool for each app in use.

    Tell it every change of every feed.  An app costs one reference before its
    first request, and not even that as long as no feed speaks of it.

    :param timeouts: the defaults that apps may override; *limits*, *health*
        and *quarantine* likewise.
    :param random: where balancers get their randomness.
    :param balancers: what ``balancer`` of an app may name.
    :param clock: seconds, monotonic, the same that callers give as *now*.
    :ivar get: gives the pool of the app of this name, or ``None`` before its first request.  A
        dict's own method: it is asked for every request.
    """

    __slots__ = (
        "_balancers",
        "_clock",
        "_defaults",
        "_outdated",
        "_pools",
        "_random",
        "_retired",
        "_told",
        "_watchers",
        "get",
    )

    def __init__(
        self,
        timeouts: Timeouts,
        limits: Limits,
        random: Random,
        balancers: Mapping[str, Callable[[Random], IBalancer]] = BALANCERS,
        *,
        clock: Callable[[], float],
        health: Health = Health(),  # noqa: B008 - frozen
        quarantine: Quarantine = Quarantine(),  # noqa: B008 - frozen
    ) -> None:
        self._defaults = PoolSettings(timeouts, limits, health, quarantine)
        self._random = random
        self._balancers = balancers
        self._clock = clock
        self._pools: dict[str, Pool] = {}
        self.get: Callable[[str], Pool | None] = self._pools.get
        # Pools of removed apps that still drain.  An app of the same name
        # that comes back gets a pool of its own.
        self._retired: dict[Pool, None] = {}
        # What feeds said last, of apps that had no pool then, too.
        self._told: dict[str, App] = {}
        # Apps that a feed replaced or removed and that somebody still holds,
        # by identity: the same content may come again later.
        self._outdated: WeakValueDictionary[int, App] = WeakValueDictionary()
        self._watchers: dict[object, Callable[[Pool, Member, MemberEvent], object]] = {}

    def for_route(self, route: Route) -> Pool:
        """The pool that serves *route*, as it is now."""
        app = route.app
        pool = self._pools.get(app.name)
        if pool is not None and pool.app is app:
            return pool
        return self._pool_for(app)

    def health_of(self, app: App) -> Health:
        """How the members of *app* are probed, whether it has a pool or not."""
        return self._defaults.of(app).health

    def __iter__(self) -> Iterator[Pool]:
        """Every pool, also those of removed apps that still drain."""
        return iter((*self._pools.values(), *self._retired))

    def apply(self, change: TopologyChange, now: float) -> tuple[Drain, ...]:
        """Take over what a feed says; pools that do not exist yet are not made.

        The change is whole in every pool before any callback sees any of it.

        :return: for each pool concerned, the drain of the members it lost.
        """
        callouts = Callouts()
        concerned: list[Pool] = []
        drains: list[Drain] = []

        def change_pool(pool: Pool, app: App) -> None:
            drains.append(pool.change_to(app, now))
            concerned.append(pool)

        for app in change.updated:
            self._forget_told(app.name)
            self._told[app.name] = app
            self._outdated.pop(id(app), None)
            if app.name in self._pools:
                callouts.call(change_pool, self._pools[app.name], app)
        for name in change.removed:
            self._forget_told(name)
            if name in self._pools:
                pool = self._pools.pop(name)
                callouts.call(change_pool, pool, _emptied(pool.app))
                if pool.draining:
                    self._retired[pool] = None
        for pool in concerned:
            callouts.call(pool.announce)
        callouts.finish()
        return tuple(drains)

    def set_defaults(
        self,
        timeouts: Timeouts,
        limits: Limits,
        health: Health | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Take other defaults under the apps' own values, after a reload; what is left out stays."""
        before = self._defaults
        self._defaults = PoolSettings(
            timeouts, limits, health or before.health, quarantine or before.quarantine
        )
        now = self._clock()
        callouts = Callouts()
        for pool in self:
            callouts.call(pool.set_defaults, self._defaults, now)
        callouts.finish()

    def watch(self, callback: Callable[[Pool, Member, MemberEvent], object]) -> Callable[[], None]:
        """Tell *callback* what becomes of members, until the returned function is called."""
        key = object()
        self._watchers[key] = callback

        def stop() -> None:
            self._watchers.pop(key, None)

        return stop

    # -- who is right about an app -------------------------------------------

    def _forget_told(self, name: str) -> None:
        """Whatever was known of this app is not true any more."""
        told = self._told.pop(name, None)
        if told is not None:
            self._outdated[id(told)] = told
        pool = self._pools.get(name)
        if pool is not None:
            self._outdated[id(pool.app)] = pool.app

    def _pool_for(self, app: App) -> Pool:
        name = app.name
        pool = self._pools.get(name)
        if name in self._told:
            app = self._told[name]
        elif self._outdated.get(id(app)) is app:
            return pool if pool is not None else self._make_pool(_emptied(app))
        if pool is None:
            pool = self._pools[name] = self._make_pool(app)
            pool.watch(partial(self._tell, pool))
            pool.announce()
        elif pool.app is not app:
            pool.apply(app, self._clock())
        return pool

    def _make_pool(self, app: App) -> Pool:
        defaults = self._defaults
        return Pool(
            app,
            defaults.timeouts,
            defaults.limits,
            self._random,
            self._clock(),
            self._balancers,
            health=defaults.health,
            quarantine=defaults.quarantine,
        )

    def _tell(self, pool: Pool, member: Member, event: MemberEvent) -> None:
        callouts = Callouts()
        for watcher in tuple(self._watchers.values()):
            callouts.call(watcher, pool, member, event)
        if not pool.draining:
            self._retired.pop(pool, None)
        callouts.finish()


def _emptied(app: App) -> App:
    """The app when it is no more: nobody waits for it, paused or not."""
    return attrs.evolve(app, backends=(), state=AppState.RUNNING)
