"""Tests for :mod:`scalingo_proxy.services.traffic`, its latencies and its errors."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services import recent_errors, traffic
from scalingo_proxy.services.latency_buckets import BOUNDS, BUCKETS, quantile
from scalingo_proxy.services.traffic import HISTORY_SECONDS, AppTraffic, Traffic


class QuantileTests(SynchronousTestCase):
    """Reading quantiles back."""

    def test_none(self) -> None:
        """Of nothing there is no quantile."""
        self.assertIsNone(quantile([0] * BUCKETS, 0.5))

    def test_beyond(self) -> None:
        """What is beyond every bound is told as the last bound."""
        self.assertEqual(quantile([0] * len(BOUNDS) + [3], 0.99), BOUNDS[-1])

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.floats(0.0005, 35.0), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99]))
    def test_close(self, latencies: list[float], part: float) -> None:
        """A quantile is in the bucket of the true one: off by the factor of the buckets at most."""
        counts = [0] * BUCKETS
        for latency in latencies:
            counts[sum(bound < latency for bound in BOUNDS)] += 1
        ordered = sorted(latencies)
        rank = next(number for number in range(1, len(ordered) + 1) if number >= len(ordered) * part)
        told = quantile(counts, part)
        assert told is not None
        self.assertLessEqual(told, ordered[rank - 1] * 1.61)
        self.assertGreaterEqual(told, ordered[rank - 1] / 1.61)


class TrafficCase(SynchronousTestCase):
    """What the tests below share."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.traffic = Traffic(self.clock.seconds)

    def finish(self, app: str = "hello", status: int = 200, seconds: float = 0.01, **fields: object) -> None:
        """A request ends now."""
        now = self.clock.seconds()
        record = Record(now - seconds, 1.7e9, "127.0.0.1", "http")
        record.method = "GET"
        record.app, record.status, record.finished_at = app, status, now
        for name, value in fields.items():
            setattr(record, name, value)
        self.traffic.exchange_finished(record)


class TotalsTests(TrafficCase):
    """Over all apps."""

    def test_interface(self) -> None:
        """It is an observer."""
        verifyObject(IObserver, self.traffic)

    def test_half_a_head(self) -> None:
        """What never became a request is counted, but not how long its client took."""
        self.finish(app="", status=408, seconds=10.0, method="-")
        self.clock.advance(1.0)
        now = self.traffic.now()
        self.assertEqual((now.requests, now.p50), (1.0, None))

    def test_seconds(self) -> None:
        """Each second that is over is told by itself, those without requests too."""
        for _ in range(3):
            self.finish()
        self.finish(status=503)
        self.clock.advance(3.0)
        self.finish()
        self.assertEqual([moment.requests for moment in self.traffic.history()], [4, 0, 0])
        self.assertEqual([moment.errors for moment in self.traffic.history()], [1, 0, 0])
        self.clock.advance(1.0)
        self.assertEqual([moment.requests for moment in self.traffic.history()], [4, 0, 0, 1])

    def test_quiet_then_busy(self) -> None:
        """A request after a quiet second is not counted into that one."""
        self.clock.advance(2.0)
        self.traffic.history()
        self.finish()
        self.clock.advance(1.0)
        self.assertEqual([moment.requests for moment in self.traffic.history()], [0, 0, 1])
        self.assertAlmostEqual(self.traffic.now().requests, 1 / 3)

    def test_bounded(self) -> None:
        """Two minutes are kept, however long nobody asked."""
        self.finish()
        self.clock.advance(1e6)
        self.assertEqual(len(self.traffic.history()), HISTORY_SECONDS)
        self.assertEqual(self.traffic.now().requests, 0)

    def test_now(self) -> None:
        """The present is the mean of ten seconds, with their latencies together."""
        for number in range(10):
            self.finish(seconds=0.01 if number < 9 else 2.0, status=500 if number == 3 else 200)
            self.clock.advance(1.0)
        now = self.traffic.now()
        self.assertEqual((now.requests, now.errors), (1.0, 0.1))
        assert now.p50 is not None
        assert now.p99 is not None
        self.assertLess(now.p50, 0.02)
        self.assertGreater(now.p99, 1.0)

    def test_connections(self) -> None:
        """Open connections are those of the end of each second."""
        self.traffic.connection_opened("http", "http")
        self.traffic.connection_opened("tls", "tls")
        self.clock.advance(1.0)
        self.assertEqual(self.traffic.history()[-1].connections, 2)
        self.traffic.connection_closed("http", "http")
        self.assertEqual(self.traffic.now().connections, 1)

    def test_connections_counted_elsewhere(self) -> None:
        """Where somebody counts them already, that is what is told, and of exchanges alone it hears."""
        counts = [7, 3]
        traffic = Traffic(self.clock.seconds, counts.pop)
        self.assertEqual((self.traffic.is_for_exchanges_alone, traffic.is_for_exchanges_alone), (False, True))
        self.clock.advance(1.0)
        self.assertEqual(traffic.history()[-1].connections, 3)
        self.assertEqual(traffic.now().connections, 7)

    def test_tunnels(self) -> None:
        """Of a tunnel the opening counts as latency, not how long it lived."""
        now = self.clock.seconds()
        self.finish(status=101, seconds=900.0, first_byte_at=now - 899.99)
        self.finish(status=0, app="", seconds=900.0)
        self.clock.advance(1.0)
        p99 = self.traffic.now().p99
        assert p99 is not None
        self.assertLess(p99, 0.1)
        self.assertEqual(self.traffic.now().requests, 2.0)


class AppsTests(TrafficCase):
    """By app."""

    def test_unknown(self) -> None:
        """An app without requests has no traffic."""
        self.assertEqual(self.traffic.app("nobody"), AppTraffic())
        self.assertEqual(AppTraffic().requests, 0)

    def test_minute(self) -> None:
        """Classes and latencies are those of the last minute, the rate that of the last seconds."""
        for second in range(120):
            self.finish(status=500 if second < 30 else 200, seconds=0.1)
            self.clock.advance(1.0)
        told = self.traffic.app("hello")
        self.assertGreaterEqual(told.classes[2], 54)
        self.assertLessEqual(told.classes[2], 60)
        self.assertEqual(told.classes[5], 0)
        self.assertLess(abs(told.rate - 1.0), 0.15)
        assert told.p50 is not None
        self.assertLess(abs(told.p50 - 0.1), 0.04)

    def test_rate_falls(self) -> None:
        """After the last request the rate is zero within fifteen seconds, and the app soon costs nothing."""
        self.finish()
        self.assertEqual(list(self.traffic.rates()), ["hello"])
        self.clock.advance(15.0)
        self.assertEqual(self.traffic.app("hello").rate, 0.0)
        self.assertEqual(self.traffic.app("hello").classes[2], 1)
        for _ in range(30):
            self.clock.advance(5.0)
            self.traffic.rates()
        self.assertEqual(self.traffic.rates(), {})

    def test_bounded(self) -> None:
        """Apps beyond the limit are in the totals only."""
        self.patch(traffic, "MAX_APPS", 2)
        for name in ("a", "b", "c", "d"):
            self.finish(app=name)
        self.assertEqual(set(self.traffic.rates()), {"a", "b"})
        self.clock.advance(1.0)
        self.assertEqual(self.traffic.now().requests, 4.0)

    def test_nobody(self) -> None:
        """Hosts that nobody claims are no app."""
        self.finish(app="", status=404, code="unknown-host")
        self.assertEqual(self.traffic.rates(), {})


class ErrorsTests(TrafficCase):
    """The last errors."""

    def test_what_counts(self) -> None:
        """An error of the proxy's own, and any 5xx of a backend."""
        self.finish(status=200)
        self.finish(status=404)
        self.finish(status=500, request_id="by-backend", backend="10.0.0.1:80")
        self.finish(status=404, code="unknown-host", request_id="by-us", app="")
        self.assertEqual(
            [error.request_id for error in self.traffic.errors.latest()], ["by-us", "by-backend"]
        )
        self.assertEqual([error.request_id for error in self.traffic.errors.latest("hello")], ["by-backend"])

    def test_who_left_early(self) -> None:
        """Scanners that go before they have asked would hide what matters; who waited and left would not."""
        early = {"status": 499, "code": "client-closed", "app": "", "method": "-"}
        self.finish(**early, request_id="early")  # type: ignore[arg-type]
        self.finish(status=499, code="client-closed", request_id="late")
        self.finish(status=503, code="queue-full", app="", method="-", request_id="no-room")
        self.assertEqual([error.request_id for error in self.traffic.errors.latest()], ["no-room", "late"])

    def test_without_the_query(self) -> None:
        """A query may hold a secret, and a path may be long."""
        self.finish(status=502, code="connect-failed", path="/reset?token=secret")
        self.finish(status=502, code="connect-failed", path="/" + "x" * 8000)
        long, short = self.traffic.errors.latest()
        self.assertEqual(short.path, "/reset")
        self.assertEqual(len(long.path), recent_errors.PATH_CHARACTERS)

    def test_bounded(self) -> None:
        """The oldest are forgotten: of everything, of an app, and apps as a whole."""
        self.patch(recent_errors, "APPS_KEPT", 3)
        for number in range(50):
            self.finish(app=f"app-{number % 5}", status=502, code="connect-failed", request_id=str(number))
        self.assertEqual(
            [error.request_id for error in self.traffic.errors.latest()],
            [str(number) for number in range(49, 29, -1)],
        )
        kept = [name for name in map("app-{}".format, range(5)) if self.traffic.errors.latest(name)]
        self.assertEqual(len(kept), 3)
        for _ in range(30):
            self.finish(app="app-9", status=502, code="connect-failed")
        self.assertEqual(len(self.traffic.errors.latest("app-9")), recent_errors.APP_KEPT)
