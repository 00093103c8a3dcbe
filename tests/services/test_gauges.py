"""Tests for :mod:`scalingo_proxy.services.gauges`."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Limits, Outcome, Route, Timeouts
from scalingo_proxy.routing.members import HealthState
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services import gauges, pool_gauges
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.resolver_updates import SourceState
from tests.services.test_metrics import Page


class PoolGaugeTests(SynchronousTestCase):
    """What pools say of themselves."""

    def setUp(self) -> None:
        self.metrics = Metrics(max_apps=2)
        self.pools = Pools(Timeouts(), Limits(), Random(1), clock=lambda: 0.0)
        pool_gauges.add_pools(self.metrics, self.pools)
        pool_gauges.add_verdicts(self.metrics, self.pools, lambda moment: 1_700_000_000 + moment)

    def page(self) -> Page:
        """The page now."""
        return Page(self.metrics.exposition())

    def test_in_flight(self) -> None:
        """Leases are in flight until they are released or become tunnels."""
        pool = self.pools.for_route(Route(App("a", backends=("10.0.0.1:80",)), "a"))
        lease = pool.lease()
        assert lease is not None
        self.assertEqual(self.page().value("requests_in_flight", app="a"), 1)
        lease.release(Outcome.COMPLETED, 0.0)
        self.assertEqual(self.page().value("requests_in_flight", app="a"), 0)

    def test_backend_up(self) -> None:
        """A backend is up unless it is quarantined or down, also before it has answered."""
        pool = self.pools.for_route(
            Route(App("a", backends=("10.0.0.1:80", "10.0.0.2:80", "[::1]:80", "10.0.0.4:80")), "a")
        )
        states = (HealthState.UNPROVEN, HealthState.UP, HealthState.DOWN, HealthState.QUARANTINED)
        for member, health in zip(pool.members, states, strict=True):
            member.health = health
        page = self.page()
        up = [page.value("backend_up", app="a", backend=member.backend.address) for member in pool.members]
        self.assertEqual(up, [1, 1, 0, 0])

    def test_away_since(self) -> None:
        """Who gets no requests is told with the verdict and its time; others are not told."""
        app = App("a", backends=("10.0.0.1:80", "10.0.0.2:80"))
        pool = self.pools.for_route(Route(app, "a"))
        pool.members[1].health, pool.members[1].health_since = HealthState.QUARANTINED, 12.5
        name = "backend_away_since_timestamp_seconds"
        told = self.page().value(name, app="a", backend="10.0.0.2:80", health="quarantined")
        self.assertEqual(told, 1_700_000_012.5)
        self.assertNotIn(f'{name}{{app="a",backend="10.0.0.1:80"', self.metrics.exposition())

    def test_queued(self) -> None:
        """Who waits is told by app."""
        app = App("a", backends=("10.0.0.1:80",), limits={"in_flight_per_backend": 1})
        pool = self.pools.for_route(Route(app, "a"))
        self.assertIsNotNone(pool.lease())
        self.assertEqual(self.page().value("requests_queued", app="a"), 0)
        pool.enqueue(0.0, lambda lease: None, lambda error: None)
        self.assertEqual(self.page().value("requests_queued", app="a"), 1)

    def test_beyond_the_cap(self) -> None:
        """Apps beyond the cap share their requests in flight, and their backends are not told."""
        for name in ("a", "b", "c", "d"):
            pool = self.pools.for_route(Route(App(name, backends=("10.0.0.1:80",)), name))
            self.assertIsNotNone(pool.lease())
        page = self.page()
        self.assertEqual(page.label_values("requests_in_flight", "app"), {"a", "b", "_other"})
        self.assertEqual(page.value("requests_in_flight", app="_other"), 2)
        self.assertEqual(page.label_values("backend_up", "app"), {"a", "b"})


class OtherGaugeTests(SynchronousTestCase):
    """Single numbers and facts."""

    def test_all(self) -> None:
        """Each number is on the page under its name."""
        metrics = Metrics()
        gauges.add_routes(metrics, lambda: 12)
        gauges.add_resolvers(
            metrics,
            lambda: [SourceState("store", True, 2, 7, 1.7e9), SourceState("file", False, 0, 0, 0.0)],
        )
        gauges.add_reactor_lag(metrics, lambda: 0.25)
        gauges.add_workers(metrics, lambda: [("0", True), ("1", False)])
        gauges.add_acme_orders(metrics, lambda: {"success": 2, "failure": 0})
        gauges.add_log_lines_dropped(metrics, lambda: 3)
        gauges.add_handshakes(metrics, {"address": 4, "queue": 5}, lambda: 6)
        gauges.add_process_start_time(metrics, 1.7e9)
        gauges.add_build_info(metrics, {"name": "router-1", "version": "1"})
        page = Page(metrics.exposition())
        self.assertEqual(page.value("routes"), 12)
        self.assertEqual(page.value("resolver_up", resolver="store"), 1)
        self.assertEqual(page.value("resolver_up", resolver="file"), 0)
        self.assertEqual(page.value("resolver_updates_total", resolver="store", result="applied"), 7)
        self.assertEqual(page.value("resolver_last_sync_timestamp_seconds", resolver="store"), 1.7e9)
        self.assertEqual(page.value("reactor_lag_seconds"), 0.25)
        self.assertEqual([page.value("worker_up", worker=worker) for worker in "01"], [1, 0])
        self.assertEqual(page.value("acme_orders_total", result="success"), 2)
        self.assertEqual(page.value("log_lines_dropped_total"), 3)
        self.assertEqual(page.value("tls_handshakes_refused_total", limit="queue"), 5)
        self.assertEqual(page.value("tls_handshakes_waiting"), 6)
        self.assertEqual(page.value("process_start_time_seconds"), 1.7e9)
        self.assertEqual(page.value("build_info", name="router-1", version="1"), 1)
