"""What the status page tells, as plain values, at the moment somebody asks.

Puts together what topology, pools, traffic, certificates and alarms say.
Knows no HTML and no HTTP, and keeps nothing but the totals of this second,
which all viewers share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import attrs

from scalingo_proxy.model import App, Certificate
from scalingo_proxy.routing.members import HealthState
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services.alarms import Alarm
from scalingo_proxy.services.backend_status import BackendStatus
from scalingo_proxy.services.control import Control, UnknownApp
from scalingo_proxy.services.recent_errors import RecentError
from scalingo_proxy.services.resolver_updates import SourceState
from scalingo_proxy.services.traffic import AppTraffic, Moment, Traffic

__all__ = ["MOST_BACKENDS", "SORTS", "AppRow", "AppView", "Overview", "StatusView", "Totals"]

#: How many backends of an app are told; of more, those that are in trouble first.
MOST_BACKENDS = 200

#: What a table of apps can be ordered by.
SORTS = ("name", "rate")

_USABLE = (HealthState.UP, HealthState.UNPROVEN)


@attrs.frozen
class Totals:
    """Counts over everything.

    :ivar traffic: the last ten seconds.
    :ivar history: each of the last seconds.
    """

    traffic: Moment
    history: Sequence[Moment]
    apps: int
    in_flight: int
    tunnels: int
    queued: int
    draining: int


@attrs.frozen
class AppRow:
    """One app in a table.

    :ivar backends: how many it has, and how many of them may be used.
    """

    app: App
    traffic: AppTraffic
    in_flight: int
    queued: int
    backends: int
    backends_up: int


@attrs.frozen
class Overview:
    """The first page.

    :ivar total: how many apps the query finds; *rows* are a part of them.
    """

    totals: Totals
    rows: Sequence[AppRow]
    query: str
    sort: str
    page: int
    per_page: int
    total: int
    errors: Sequence[RecentError]
    sources: Sequence[SourceState]
    alarms: Sequence[Alarm]
    now: float


@attrs.frozen
class AppView:
    """The page of one app.

    :ivar drain_seconds: how long its removed backends may take.
    :ivar drained_for: of each backend that drains, for how long it has.
    :ivar certificates: those that are served for its domains.
    """

    row: AppRow
    source: str
    backends: Sequence[BackendStatus]
    drain_seconds: float
    drained_for: Mapping[str, float]
    certificates: Sequence[Certificate]
    errors: Sequence[RecentError]
    now: float


class StatusView:
    """Asks everybody.

    :param certificates_for: the certificates that are served for an app.
    :param alarms: what there is to look at.
    :param sources: the sources of routes.
    :param facts: what runs here: ``name``, ``region``, ``version`` and more.
    :param clock: what the pools are told the time by.
    """

    def __init__(
        self,
        *,
        control: Control,
        pools: Pools,
        traffic: Traffic,
        certificates_for: Callable[[App], Iterable[Certificate]] = lambda app: (),
        alarms: Callable[[], Sequence[Alarm]] = tuple,
        sources: Callable[[], Sequence[SourceState]] = tuple,
        facts: Callable[[], Mapping[str, Any]] = dict,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._control = control
        self._pools = pools
        self._traffic = traffic
        self._certificates_for = certificates_for
        self._alarms = alarms
        self._sources = sources
        self.facts = facts
        self._clock = clock
        self._wall_clock = wall_clock
        self._totals: Totals | None = None
        self._totals_at = 0

    def overview(self, query: str = "", page: int = 1, per_page: int = 25, sort: str = "name") -> Overview:
        """The first page: the apps that *query* finds, a page of them.

        :raises NotReady: the store is not loaded yet.
        """
        rows, total = self.rows(query, page, per_page, sort)
        return Overview(
            self.totals(),
            rows,
            query,
            sort,
            page,
            per_page,
            total,
            self._traffic.errors.latest(),
            self._sources(),
            self._alarms(),
            self._wall_clock(),
        )

    def overview_of(self, names: Iterable[str], before: Overview) -> Overview:
        """An overview like *before*, as it is now, of the apps of these names that are still there."""
        rows = []
        for name in names:
            with suppress(UnknownApp):
                rows.append(self.row(self._control.app(name)))
        return attrs.evolve(
            before,
            totals=self.totals(),
            rows=rows,
            errors=self._traffic.errors.latest(),
            sources=self._sources(),
            alarms=self._alarms(),
            now=self._wall_clock(),
        )

    def rows(self, query: str, page: int, per_page: int, sort: str) -> tuple[list[AppRow], int]:
        """A page of the apps that *query* finds, and how many it finds.

        Ordered by ``name``, or by ``rate``, the busiest first.

        :raises NotReady: the store is not loaded yet.
        """
        if sort == "name":
            found = self._control.apps(query, page, per_page)
            return [self.row(app) for app in found.apps], found.total
        names = self._control.app_names(query)
        rates = self._traffic.rates()
        known = frozenset(rates).intersection(names)
        # Those without a request need no sorting: they follow in the order of their names.
        busy = sorted(
            (name for name, rate in rates.items() if rate and name in known),
            key=lambda name: (-rates[name], name),
        )
        is_busy = frozenset(busy)
        ordered = chain(busy, (name for name in names if name not in is_busy))
        shown = islice(ordered, (page - 1) * per_page, page * per_page)
        return [self.row(self._control.app(name)) for name in shown], len(names)

    def app(self, name: str) -> AppView:
        """One app.

        :raises UnknownApp: there is none of this name.
        :raises NotReady: the store is not loaded yet.
        """
        app = self._control.app(name)
        pool = self._pools.get(name)
        draining = () if pool is None else pool.draining
        return AppView(
            self.row(app),
            self._control.source(name),
            self._control.statuses(app, pool, MOST_BACKENDS),
            0.0 if pool is None else pool.timeouts.drain,
            {member.backend.address: self._clock() - member.membership_since for member in draining},
            tuple(self._certificates_for(app)),
            self._traffic.errors.latest(name),
            self._wall_clock(),
        )

    def row(self, app: App) -> AppRow:
        """One app, in short."""
        pool = self._pools.get(app.name)
        if pool is None:
            in_flight, queued, backends, up = 0, 0, len(app.backends), len(app.backends)
        else:
            in_flight, queued, backends, up = pool.in_flight, pool.queued, len(pool.members), _up(pool)
        return AppRow(app, self._traffic.app(app.name), in_flight, queued, backends, up)

    def totals(self) -> Totals:
        """Counts over everything, made once a second at most."""
        now = int(self._clock())
        if self._totals is None or self._totals_at != now:
            counts = self._control.status()
            self._totals_at = now
            self._totals = Totals(
                self._traffic.now(),
                self._traffic.history(),
                counts["apps"],
                counts["in_flight"],
                counts["tunnels"],
                counts["queued"],
                counts["draining"],
            )
        return self._totals


def _up(pool: Pool) -> int:
    return sum(member.health in _USABLE for member in pool.members)
