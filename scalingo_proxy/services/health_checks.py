"""When which backend is probed.

Members of apps in use are probed until they are up, and at intervals where
the app asks for it; an app that asks for it is in use from when it is told of.
Nobody else is ever probed.  What a result means is decided in
:mod:`scalingo_proxy.routing`, what a probe does in :mod:`scalingo_proxy.protocols`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from random import Random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.model import App, AppState, ProbeResult, Route, TopologyChange
from scalingo_proxy.routing.members import HealthState, Member
from scalingo_proxy.routing.pool import MemberEvent, Pool
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services.paced_probes import Haste, PacedProbes

__all__ = ["HealthChecksService"]

_log = Logger()

#: How far an interval is stretched or shortened at random, as a share of it.
_JITTER = 0.1
#: Seconds until a probe that could not be made is tried again.
_AGAIN_SECONDS = 1.0
#: Pools made in one turn of the reactor, for apps that ask to be probed.
_POOLS_PER_TURN = 50
#: Entries of the heap that may be out of date before it is made anew.
_STALE_ENTRIES = 1000


class _Check:
    """When one member is probed next, or its probe under way."""

    __slots__ = ("asked", "due", "interval", "member", "number", "pool", "probing")

    def __init__(self, pool: Pool, member: Member) -> None:
        self.pool = pool
        self.member = member
        self.due = inf
        #: The interval that ``due`` comes from; 0: from the member's health.
        self.interval = 0.0
        #: Its entry in the heap; entries with another number are out of date.
        self.number = 0
        self.probing: Deferred[ProbeResult] | None = None
        #: What the probe under way was asked to do.
        self.asked: object = None


class HealthChecksService(Service):
    """Probes what is to be probed, while it runs.

    :param pools: whose members are probed.
    :param apps: the feed that tells of apps; ``None``: only the pools do.
    :param probes: who probes.
    :param random: spreads probes over their intervals.
    """

    def __init__(
        self,
        pools: Pools,
        apps: Any,
        probes: PacedProbes,
        reactor: IReactorTime,
        random: Random,
    ) -> None:
        self._pools = pools
        self._apps = apps
        self._probes = probes
        self._reactor = reactor
        self._random = random
        self._checks: dict[Member, _Check] = {}
        self._heap: list[tuple[float, int, _Check]] = []
        self._numbers = itertools.count(1)
        self._timer: IDelayedCall | None = None
        self._wanted: deque[str] = deque()
        self._making: IDelayedCall | None = None
        self._watching: list[Callable[[], None]] = []

    def startService(self) -> None:
        """Look at every pool and every app, and follow them from now on."""
        super().startService()  # type: ignore[no-untyped-call]
        self._watching = [self._pools.watch(self._member_changed)]
        for pool in self._pools:
            for member in pool.members:
                self._add(pool, member)
        if self._apps is not None:
            self._watching.append(self._apps.watch(self._apps_changed))
            self._look_for_wishes(self._apps.apps().values())

    def stopService(self) -> None:
        """Cancel everything; nothing is left to come."""
        super().stopService()  # type: ignore[no-untyped-call]
        for stop in self._watching:
            stop()
        self._watching = []
        for call in (self._timer, self._making):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._making = None
        self._wanted.clear()
        self._heap.clear()
        checks, self._checks = self._checks, {}
        for check in checks.values():
            self._cancel(check)

    def defaults_changed(self) -> None:
        """Look at everything again, because the pools were given other defaults."""
        if not self.running:
            return
        for check in list(self._checks.values()):
            self._settings_changed(check)
        if self._apps is not None:
            self._look_for_wishes(self._apps.apps().values())

    # -- who is probed -------------------------------------------------------

    def _member_changed(self, pool: Pool, member: Member, event: MemberEvent) -> None:
        if event == "joined":
            self._add(pool, member)
        elif event in ("draining", "gone"):
            check = self._checks.pop(member, None)
            if check is not None:
                self._cancel(check)
        elif member in self._checks:
            check = self._checks[member]
            if check.probing is None or member.health is not HealthState.UP:
                # What a probe finds that began before a failure says nothing of what is now.  One
                # that a request has overtaken may end in peace: a reset would only fill a log.
                self._cancel(check)
                self._schedule(check)

    def _add(self, pool: Pool, member: Member) -> None:
        check = self._checks[member] = _Check(pool, member)
        self._schedule(check)

    def _apps_changed(self, change: TopologyChange) -> None:
        for app in change.updated:
            pool = self._pools.get(app.name)
            for member in () if pool is None else pool.members:
                if member in self._checks:
                    self._settings_changed(self._checks[member])
        self._look_for_wishes(change.updated)

    def _settings_changed(self, check: _Check) -> None:
        if check.probing is not None and check.asked != _question(check):
            self._cancel(check)
        if check.probing is None:
            self._schedule(check)

    def _look_for_wishes(self, apps: Any) -> None:
        """Find the apps that ask to be probed and are not in use."""
        get, default = self._pools.get, self._default_interval()
        self._wanted.extend(app.name for app in apps if _wishes(app, default) and get(app.name) is None)
        if self._wanted and self._making is None:
            self._making = self._reactor.callLater(0, self._make_pools)

    def _default_interval(self) -> float:
        return self._pools.health_of(App("")).interval

    def _make_pools(self) -> None:
        self._making = None
        apps, default = self._apps.apps(), self._default_interval()
        for _ in range(min(_POOLS_PER_TURN, len(self._wanted))):
            app = apps.get(self._wanted.popleft())
            if app is not None and _wishes(app, default) and self._pools.get(app.name) is None:
                self._pools.for_route(Route(app, ""))
        if self._wanted:
            self._making = self._reactor.callLater(0, self._make_pools)

    # -- when ----------------------------------------------------------------

    def _schedule(self, check: _Check, last: float | None = None) -> None:
        """Find out when the member is probed next.

        :param last: when the probe was due that was made just now.
        """
        now = self._reactor.seconds()
        member, interval = check.member, check.pool.health.interval
        if check.pool.app.state is AppState.STOPPED:
            due, interval = inf, 0.0
        elif member.health is not HealthState.UP:
            due, interval = max(member.probe_due_at, now), 0.0
        elif not interval:
            due = inf
        elif last is None and check.interval == interval and check.due != inf:
            return  # still its turn in the same round
        else:
            # From when it was due, not from when its turn came: a line once does not become a wave.
            due = now if last is None else last + interval * (1 + _JITTER * (2 * self._random.random() - 1))
            if due <= now:
                due = now + interval * self._random.random()
        check.interval = interval
        self._enter(check, due)

    def _enter(self, check: _Check, due: float) -> None:
        check.due = due
        check.number = next(self._numbers)
        if due == inf:
            return
        heappush(self._heap, (due, check.number, check))
        if len(self._heap) > 2 * len(self._checks) + _STALE_ENTRIES:
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].number]
            heapify(self._heap)
        self._set_timer(due)

    def _set_timer(self, due: float) -> None:
        delay = max(due - self._reactor.seconds(), 0.0)
        if self._timer is None:
            self._timer = self._reactor.callLater(delay, self._time_has_come)
        elif due < self._timer.getTime():
            self._timer.reset(delay)

    def _time_has_come(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        while self._heap and self._heap[0][0] <= now:
            due, number, check = heappop(self._heap)
            if number == check.number and check.probing is None:
                self._begin(check, due)
        if self._heap:
            self._set_timer(self._heap[0][0])

    # -- a probe -------------------------------------------------------------

    def _begin(self, check: _Check, due: float) -> None:
        check.due = inf
        pool, member = check.pool, check.member
        check.asked = _question(check)
        haste = Haste.ROUTINE if member.health is HealthState.UP else Haste.URGENT
        probing = self._probes.probe(member.backend, pool.app, pool.health, haste)
        check.probing = probing
        probing.addCallback(self._probed, check, due)
        probing.addErrback(self._failed, check)

    def _probed(self, result: ProbeResult, check: _Check, due: float) -> None:
        check.probing = None
        now = self._reactor.seconds()
        was_up = check.member.health is HealthState.UP
        if result.is_inconclusive:
            check.interval = 0.0
            self._enter(check, now + _AGAIN_SECONDS)
            return
        try:
            check.pool.probed(check.member, result, now)
        finally:
            if self._checks.get(check.member) is check and check.probing is None:
                self._schedule(check, due if was_up else None)

    def _failed(self, failure: Failure, check: _Check) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure(
                "the result of a probe of {address} is lost", failure, address=check.member.backend.address
            )

    def _cancel(self, check: _Check) -> None:
        """Forget when it is due, and the probe under way."""
        check.number = 0
        check.due = inf
        probing, check.probing = check.probing, None
        if probing is not None:
            probing.cancel()


def _wishes(app: App, default_interval: float) -> bool:
    """Whether *app* asks to be probed although nobody uses it."""
    return bool(app.backends) and app.health.get("interval", default_interval) > 0


def _question(check: _Check) -> object:
    """What a probe's result depends on, beside the backend."""
    app = check.pool.app
    return check.pool.health, app.send_proxy, app.tls, app.domains, check.member.backend.trust
