"""Tests for :mod:`scalingo_proxy.services.metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.errors import errors_by_code
from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.exposition import Family
from scalingo_proxy.services.metrics import DURATION_BOUNDS, Metrics

PREFIX = "scalingo_proxy_"


def a_record(app: str = "hello", status: int = 200, seconds: float = 0.02, **fields: object) -> Record:
    """A finished exchange that took *seconds*."""
    record = Record(100.0, 1.7e9, "127.0.0.1", "http")
    record.method = "GET"
    record.app = app
    record.status = status
    record.finished_at = 100.0 + seconds
    for name, value in fields.items():
        setattr(record, name, value)
    return record


class Page:
    """A page as a Prometheus server reads it."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, /, **labels: str) -> float | None:
        """One number, or ``None`` when it is not on the page."""
        return self.samples.get((PREFIX + name, tuple(sorted(labels.items()))))

    def label_values(self, name: str, label: str) -> set[str]:
        """Every value of a label."""
        return {dict(labels)[label] for key, labels in self.samples if key == PREFIX + name}


class MetricsCase(SynchronousTestCase):
    """What the tests below share."""

    def setUp(self) -> None:
        self.metrics = Metrics()

    def page(self) -> Page:
        """The page now."""
        return Page(self.metrics.exposition())


class RequestTests(MetricsCase):
    """Counting exchanges."""

    def test_interface(self) -> None:
        """It is an observer."""
        verifyObject(IObserver, self.metrics)

    def test_by_class(self) -> None:
        """Requests are counted by listener, app and class of status."""
        for status in (200, 204, 302, 404, 503, 101):
            self.metrics.exchange_finished(a_record(status=status))
        self.metrics.exchange_finished(a_record(listener="inside"))
        page = self.page()
        counts = {
            code: page.value("requests_total", listener="http", app="hello", code=code)
            for code in ("1xx", "2xx", "3xx", "4xx", "5xx")
        }
        self.assertEqual(counts, {"1xx": 1, "2xx": 2, "3xx": 1, "4xx": 1, "5xx": 1})
        self.assertEqual(page.value("requests_total", listener="inside", app="hello", code="2xx"), 1)

    def test_no_status(self) -> None:
        """A status that HTTP does not have has its own class, and harms nothing."""
        for status in (0, 99, 600, 999, -1):
            self.metrics.exchange_finished(a_record(status=status))
        self.assertEqual(self.page().value("requests_total", listener="http", app="hello", code="other"), 5)

    def test_bytes(self) -> None:
        """Bytes add up in both directions."""
        for _ in range(2):
            self.metrics.exchange_finished(a_record(bytes_in=10, bytes_out=700))
        page = self.page()
        self.assertEqual(page.value("request_bytes_total", app="hello"), 20)
        self.assertEqual(page.value("response_bytes_total", app="hello"), 1400)

    def test_durations(self) -> None:
        """Each duration is in every bucket whose bound it does not exceed."""
        for seconds in (0.001, 0.005, 0.3, 100.0):
            self.metrics.exchange_finished(a_record(seconds=seconds, started_at=0.0, finished_at=seconds))
        page = self.page()
        buckets = [
            page.value("request_duration_seconds_bucket", app="hello", le=le)
            for le in ("0.005", "0.25", "0.5", "60", "+Inf")
        ]
        self.assertEqual(buckets, [2, 2, 3, 3, 4])
        self.assertEqual(page.value("request_duration_seconds_count", app="hello"), 4)
        self.assertAlmostEqual(page.value("request_duration_seconds_sum", app="hello"), 100.306)

    def test_by_listener(self) -> None:
        """The same durations by listener, over all apps."""
        self.metrics.exchange_finished(a_record(seconds=0.3))
        self.metrics.exchange_finished(a_record("other", seconds=0.1))
        self.metrics.exchange_finished(a_record(listener="tls"))
        page = self.page()
        self.assertEqual(page.value("listener_request_duration_seconds_count", listener="http"), 2)
        self.assertEqual(
            page.value("listener_request_duration_seconds_bucket", listener="http", le="0.25"), 1
        )
        self.assertAlmostEqual(page.value("listener_request_duration_seconds_sum", listener="http"), 0.4)
        self.assertEqual(page.value("listener_request_duration_seconds_count", listener="tls"), 1)

    def test_half_a_head(self) -> None:
        """What never became a request is counted, and says nothing of how long requests take."""
        self.metrics.exchange_finished(a_record(app="", method="-", status=408, seconds=10.0))
        page = self.page()
        self.assertEqual(page.value("requests_total", listener="http", app="_none", code="4xx"), 1)
        self.assertEqual(page.value("request_duration_seconds_count", app="_none"), 0)

    def test_told_again(self) -> None:
        """What was told stays right when a request took no time at all."""
        for count in (1, 2):
            self.metrics.exchange_finished(a_record(seconds=0.0))
            self.assertEqual(self.page().value("request_duration_seconds_count", app="hello"), count)

    def test_first_byte(self) -> None:
        """How long backends took to begin their responses; what never reached one does not count."""
        self.metrics.exchange_finished(a_record(backend="10.0.0.1:80", first_byte_at=100.2))
        self.metrics.exchange_finished(a_record(backend="10.0.0.1:80"))
        self.metrics.exchange_finished(a_record(first_byte_at=100.7))
        page = self.page()
        self.assertEqual(page.value("first_byte_duration_seconds_count"), 1)
        self.assertAlmostEqual(page.value("first_byte_duration_seconds_sum"), 0.2)
        self.assertEqual(page.value("first_byte_duration_seconds_bucket", le="0.25"), 1)

    def test_bounds(self) -> None:
        """Buckets range from 5 ms to 60 s."""
        self.assertEqual((DURATION_BOUNDS[0], DURATION_BOUNDS[-1]), (0.005, 60.0))
        self.assertEqual(list(DURATION_BOUNDS), sorted(set(DURATION_BOUNDS)))

    def test_tunnel(self) -> None:
        """A tunnel counts the time until it was open, not how long it lived."""
        self.metrics.exchange_finished(a_record(status=101, seconds=3600, first_byte_at=100.25))
        self.metrics.exchange_finished(a_record(status=0, app="tls", seconds=3600, first_byte_at=100.5))
        self.assertEqual(self.page().value("request_duration_seconds_sum", app="tls"), 0.5)
        self.assertEqual(self.page().value("request_duration_seconds_sum", app="hello"), 0.25)

    def test_connects(self) -> None:
        """Only requests that connected count as connects."""
        self.metrics.exchange_finished(a_record())
        self.metrics.exchange_finished(a_record(connect_seconds=0.25))
        page = self.page()
        self.assertEqual(page.value("connect_duration_seconds_count"), 1)
        self.assertEqual(page.value("connect_duration_seconds_sum"), 0.25)

    def test_unfinished(self) -> None:
        """A record without an end is counted and has no duration."""
        self.metrics.exchange_finished(a_record(finished_at=None))
        page = self.page()
        self.assertEqual(page.value("requests_total", listener="http", app="hello", code="2xx"), 1)
        self.assertEqual(page.value("request_duration_seconds_count", app="hello"), 0)


class AppLabelTests(MetricsCase):
    """Keeping the label ``app`` bounded."""

    def test_unknown_host(self) -> None:
        """Requests that belong to no app are ``_none``, whatever host they asked for."""
        for host in ("a", "b", 'c"\n'):
            self.metrics.exchange_finished(a_record(app="", host=host, status=404))
        page = self.page()
        self.assertEqual(page.value("requests_total", listener="http", app="_none", code="4xx"), 3)
        self.assertEqual(page.label_values("requests_total", "app"), {"_none"})

    def test_cap(self) -> None:
        """The busiest have series of their own, the others are counted together."""
        self.metrics = Metrics(max_apps=2)
        for app in ("b", "a", "c", "d", "a", "c"):
            self.metrics.exchange_finished(a_record(app=app))
        page = self.page()
        counts = {
            app: page.value("requests_total", listener="http", app=app, code="2xx")
            for app in ("a", "b", "c", "d", "_other")
        }
        self.assertEqual(counts, {"a": 2, "b": None, "c": 2, "d": None, "_other": 2})

    def test_labels_beyond_the_cap(self) -> None:
        """Gauges are told which label an app has."""
        self.metrics = Metrics(max_apps=1)
        self.assertEqual(
            [self.metrics.app_label(app) for app in ("a", "b", "a", "")], ["a", "_other", "a", "_none"]
        )

    def test_reserved_names(self) -> None:
        """Apps named like the reserved labels share them instead of spoiling the page."""
        for app in ("_none", "_other", ""):
            self.metrics.exchange_finished(a_record(app=app))
        page = self.page()
        self.assertEqual(page.value("requests_total", listener="http", app="_none", code="2xx"), 2)
        self.assertEqual(page.value("requests_total", listener="http", app="_other", code="2xx"), 1)

    def test_odd_names(self) -> None:
        """Whatever an app or a listener is called, the page can be read."""
        for name in ('a"b', "a\\b", "a\nb", "é", "100%d"):
            self.metrics.exchange_finished(a_record(app=name, listener=name))
            self.assertEqual(self.page().value("requests_total", listener=name, app=name, code="2xx"), 1)


class OtherNumbersTests(MetricsCase):
    """Errors, connections, reloads, and what is read when the page is made."""

    def test_reasons(self) -> None:
        """Errors of ours are counted by code; every code is on the page from the start."""
        self.metrics.exchange_finished(a_record(status=503, code="queue-full"))
        page = self.page()
        self.assertEqual(page.value("router_errors_total", reason="queue-full"), 1)
        self.assertEqual(page.value("router_errors_total", reason="connect-failed"), 0)
        self.assertEqual(page.label_values("router_errors_total", "reason"), set(errors_by_code()))

    def test_connections(self) -> None:
        """Open connections rise and fall by listener and kind."""
        self.metrics.connection_opened("http", "http")
        self.metrics.connection_opened("http", "http")
        self.metrics.connection_closed("http", "http")
        self.metrics.connection_opened("http", "websocket")
        page = self.page()
        self.assertEqual(page.value("open_connections", listener="http", kind="http"), 1)
        self.assertEqual(page.value("open_connections", listener="http", kind="websocket"), 1)

    def test_reloads(self) -> None:
        """Reloads are counted by result, and the last one is told."""
        self.assertEqual(self.page().value("config_last_reload_successful"), 1)
        self.metrics.config_reloaded(True)
        self.metrics.config_reloaded(False)
        page = self.page()
        self.assertEqual(page.value("config_last_reload_successful"), 0)
        self.assertEqual(page.value("config_reloads_total", result="success"), 1)
        self.assertEqual(page.value("config_reloads_total", result="failure"), 1)

    def test_reading(self) -> None:
        """What is added is read each time the page is made."""
        numbers = iter((5, 6))
        family = Family("scalingo_proxy_things", "gauge", "Things.", ("kind",))
        self.metrics.add(family, lambda: [(("odd",), next(numbers))])
        self.assertEqual(self.page().value("things", kind="odd"), 5)
        self.assertEqual(self.page().value("things", kind="odd"), 6)

    def test_failing_reading(self) -> None:
        """A reading that fails is left out, whole, and logged once; the rest of the page stays."""

        def broken() -> Iterator[tuple[tuple[()], int]]:
            yield (), 1
            raise RuntimeError("no")

        self.metrics.add(Family("scalingo_proxy_broken", "gauge", "Broken."), broken)
        self.metrics.add(Family("scalingo_proxy_sound", "gauge", "Sound."), lambda: [((), 2)])
        for _ in range(2):
            page = self.page()
            self.assertEqual((page.value("broken"), page.value("sound")), (None, 2))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_every_family(self) -> None:
        """Every name begins alike, appears once, and has a help and a type."""
        self.metrics.exchange_finished(a_record())
        self.metrics.connection_opened("http", "http")
        families = self.page().families
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        for family in families:
            self.assertTrue(family.name.startswith(PREFIX), family.name)
            self.assertTrue(family.documentation.endswith("."), family.name)
            self.assertIn(family.type, ("counter", "gauge", "histogram"))
