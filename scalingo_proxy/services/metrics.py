"""What the proxy counts, for Prometheus to fetch.

Counters and histograms are plain integers in dictionaries that an exchange
adds to; text is made only when somebody fetches the page.  What is a state
rather than an event is read at that moment, by functions handed in
(:mod:`scalingo_proxy.services.gauges`).  Serving the page is not done here.

The label ``app`` is bounded.  Requests for hosts that nobody claims count as
``_none``, because a client may send any host.  The ``max_apps`` busiest apps
have series of their own (:mod:`scalingo_proxy.services.app_series`); all
others together are ``_other``.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.errors import errors_by_code
from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.app_series import (
    DURATION_BOUNDS,
    NO_APP,
    OTHER_APPS,
    REQUEST_DURATION,
    STATUS_CLASSES,
    AppCounts,
    AppSeries,
)
from scalingo_proxy.services.batches import nothing_to_tell
from scalingo_proxy.services.exposition import Family, HistogramFamily, escape_label, numbers_in, pieces
from scalingo_proxy.services.tallies import Tally, buckets_within

__all__ = ["DURATION_BOUNDS", "NO_APP", "OTHER_APPS", "Metrics", "Reading"]

#: How much of the page is made at once.
PIECE_CHARACTERS = 100_000

#: Tells a family's samples now: label values and number of each.
Reading = Callable[[], Iterable[tuple[Sequence[str], float]]]

_BUCKETS = buckets_within(DURATION_BOUNDS)

# By the first digit of the status; a status that HTTP does not have is "other".
_CODES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
assert len(_CODES) == STATUS_CLASSES

_REQUESTS = Family(
    "scalingo_proxy_requests_total",
    "counter",
    "Finished requests, refused ones among them, by class of status.",
    ("listener", "app", "code"),
)
_LISTENER_DURATION = HistogramFamily(
    "scalingo_proxy_listener_request_duration_seconds",
    "The same durations, by listener.",
    DURATION_BOUNDS,
    "listener",
)
_CONNECT_DURATION = HistogramFamily(
    "scalingo_proxy_connect_duration_seconds",
    "Time spent on connecting to backends, of requests that needed a new connection.",
    DURATION_BOUNDS,
)
_FIRST_BYTE_DURATION = HistogramFamily(
    "scalingo_proxy_first_byte_duration_seconds",
    "From the beginning of a request to the first byte of a backend's response.",
    DURATION_BOUNDS,
)
_REQUEST_BYTES = Family(
    "scalingo_proxy_request_bytes_total",
    "counter",
    "Bytes of bodies and tunnels received from clients.",
    ("app",),
)
_RESPONSE_BYTES = Family(
    "scalingo_proxy_response_bytes_total", "counter", "Bytes of bodies and tunnels sent to clients.", ("app",)
)
_ERRORS = Family(
    "scalingo_proxy_router_errors_total",
    "counter",
    "Requests that the proxy itself ended, by reason code.",
    ("reason",),
)
_OPEN_CONNECTIONS = Family(
    "scalingo_proxy_open_connections",
    "gauge",
    "Client connections that are open now.",
    ("listener", "kind"),
)
_RELOADS = Family(
    "scalingo_proxy_config_reloads_total", "counter", "Attempts to read the configuration again.", ("result",)
)
_LAST_RELOAD = Family(
    "scalingo_proxy_config_last_reload_successful",
    "gauge",
    "Whether the configuration on file is in effect (1), or was refused at the last reload (0).",
)


@implementer(IObserver)
class Metrics:
    """Counts exchanges and connections, and writes the page.

    :param max_apps: how many apps get a label of their own; see above.
    :param clock: seconds, monotonic.
    :ivar last_reload_successful: whether the configuration on file is in effect.
    """

    _log = Logger()

    def __init__(self, max_apps: int = 1000, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._series = AppSeries(max_apps)
        self._apps = self._series.by_app
        # By listener.
        self._durations: dict[str, list[int]] = defaultdict(lambda: [0] * (len(DURATION_BOUNDS) + 1))
        self._duration_sums: dict[str, float] = defaultdict(float)
        self._connects = [0] * (len(DURATION_BOUNDS) + 1)
        self._connect_seconds = 0.0
        self._first_bytes = [0] * (len(DURATION_BOUNDS) + 1)
        self._first_byte_seconds = 0.0
        # Beginning at zero, so that the first error is seen as a rise.
        self._errors = dict.fromkeys(errors_by_code(), 0)
        self._connections: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._reloads = {"success": 0, "failure": 0}
        self.last_reload_successful = True
        self._readings: list[tuple[Family, Callable[[], Iterator[str]]]] = []
        self._failed_readings: set[str] = set()
        #: Makes sure that nothing waits to be told; called before the page is made.
        self.catch_up: Callable[[], object] = nothing_to_tell

    # -- IObserver -----------------------------------------------------------

    def exchange_finished(self, record: Record) -> None:
        counts = self._apps[record.app]
        status, listener = record.status, record.listener
        counts.requests[listener][status // 100 if 100 <= status <= 599 else 0] += 1
        counts.bytes_in += record.bytes_in
        counts.bytes_out += record.bytes_out
        # How long a tunnel lives says nothing of the app's speed, its opening does.  Those of TLS
        # have no status.  Nor does it say anything how long a client took for half a head.
        is_request = status and status != 101 and record.method != "-"
        end = record.finished_at if is_request else record.first_byte_at
        if end is not None:
            seconds = end - record.started_at
            bucket = bisect_left(DURATION_BOUNDS, seconds)
            counts.durations[bucket] += 1
            counts.seconds += seconds
            self._durations[listener][bucket] += 1
            self._duration_sums[listener] += seconds
        if record.connect_seconds:
            self._connects[bisect_left(DURATION_BOUNDS, record.connect_seconds)] += 1
            self._connect_seconds += record.connect_seconds
        first_byte_at = record.first_byte_at
        if first_byte_at is not None and record.backend:
            if first_byte_at is not end:  # most answers come whole: both are one moment
                seconds = first_byte_at - record.started_at
                bucket = bisect_left(DURATION_BOUNDS, seconds)
            self._first_bytes[bucket] += 1
            self._first_byte_seconds += seconds
        if record.code != "-":
            self._errors[record.code] = self._errors.get(record.code, 0) + 1

    def requests_tallied(self, tallies: Iterable[Tally]) -> None:
        """The same of many that are alike."""
        first_bytes = self._first_bytes
        for tally in tallies:
            durations = self._durations[tally.listener]
            for bucket, number in tally.spread:
                durations[_BUCKETS[bucket]] += number
                first_bytes[_BUCKETS[bucket]] += number
            seconds = sum(tally.durations)
            self._duration_sums[tally.listener] += seconds
            self._first_byte_seconds += seconds
            if tally.connects:
                for bucket, number in tally.connect_spread:
                    self._connects[_BUCKETS[bucket]] += number
                self._connect_seconds += sum(tally.connects)
            if tally.app is None:
                self._count_by_app(tally)
                continue
            counts = self._apps[tally.app]
            counts.requests[tally.listener][tally.status_class] += len(tally.records)
            counts.bytes_in += sum([record.bytes_in for record in tally.records])
            counts.bytes_out += sum([record.bytes_out for record in tally.records])
            for bucket, number in tally.spread:
                counts.durations[_BUCKETS[bucket]] += number
            counts.seconds += seconds

    def _count_by_app(self, tally: Tally) -> None:
        """What is counted by app, where they are several."""
        apps, listener, status_class = self._apps, tally.listener, tally.status_class
        for record, seconds, bucket in zip(tally.records, tally.durations, tally.buckets, strict=True):
            counts = apps[record.app]
            counts.requests[listener][status_class] += 1
            counts.bytes_in += record.bytes_in
            counts.bytes_out += record.bytes_out
            counts.durations[_BUCKETS[bucket]] += 1
            counts.seconds += seconds

    def connection_opened(self, listener: str, kind: str) -> None:
        self._connections[listener, kind] += 1

    def connection_closed(self, listener: str, kind: str) -> None:
        self._connections[listener, kind] -= 1

    def open_connections(self) -> int:
        """How many client connections there are now, of all kinds."""
        return sum(self._connections.values())

    # -- what others tell ----------------------------------------------------

    def config_reloaded(self, successful: bool) -> None:
        """The configuration was read again: taken over, or refused."""
        self._reloads["success" if successful else "failure"] += 1
        self.last_reload_successful = successful

    def add(self, family: Family, read: Reading) -> None:
        """Have *family* on the page; *read* is called each time the page is made.

        Should it raise, the page has everything else, and the program log
        tells of it once.
        """
        self._readings.append((family, lambda: family.lines(read())))

    def add_lines(self, family: Family, read: Callable[[], Iterable[str]]) -> None:
        """The same for families of very many samples: *read* writes the lines, labels escaped and all."""
        self._readings.append((family, lambda: family.with_lines(read())))

    def app_label(self, app: str) -> str:
        """What the label ``app`` says for this app now, escaped; if there is room, it gets a series."""
        return self._series.label_of(app)

    def has_series(self, label: str) -> bool:
        """Whether the page has a series of this label ``app``."""
        return self._series.is_own(label)

    # -- the page ------------------------------------------------------------

    def exposition(self) -> str:
        """The page, in the format of :mod:`scalingo_proxy.services.exposition`."""
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """The page in pieces of about a millisecond, each made when it is asked for.

        What happens between two of them is on the page or not; each series is
        whole.
        """
        self.catch_up()
        return pieces(self._lines(self._series.look(self._clock())), PIECE_CHARACTERS)

    def _lines(self, apps: Sequence[AppCounts]) -> Iterator[str]:
        yield from _REQUESTS.with_lines(self._request_lines(apps))
        yield from REQUEST_DURATION.lines(app.histogram() for app in apps)
        yield from _LISTENER_DURATION.lines(
            numbers_in(
                _LISTENER_DURATION.series(escape_label(listener)), counts, self._duration_sums[listener]
            )
            for listener, counts in tuple(self._durations.items())
        )
        yield from _CONNECT_DURATION.lines(
            [numbers_in(_CONNECT_DURATION.series(), self._connects, self._connect_seconds)]
        )
        yield from _FIRST_BYTE_DURATION.lines(
            [numbers_in(_FIRST_BYTE_DURATION.series(), self._first_bytes, self._first_byte_seconds)]
        )
        yield from _REQUEST_BYTES.with_lines(
            f'scalingo_proxy_request_bytes_total{{app="{app.label}"}} {app.bytes_in}\n' for app in apps
        )
        yield from _RESPONSE_BYTES.with_lines(
            f'scalingo_proxy_response_bytes_total{{app="{app.label}"}} {app.bytes_out}\n' for app in apps
        )
        yield from _ERRORS.lines(((reason,), count) for reason, count in tuple(self._errors.items()))
        yield from _OPEN_CONNECTIONS.lines(tuple(self._connections.items()))
        yield from _RELOADS.lines(((result,), count) for result, count in tuple(self._reloads.items()))
        yield from _LAST_RELOAD.lines([((), self.last_reload_successful)])
        for family, lines in tuple(self._readings):
            try:
                yield from lines()
            except Exception:
                if family.name not in self._failed_readings:
                    self._failed_readings.add(family.name)
                    self._log.failure("{name} cannot be read for the metrics page", name=family.name)

    # -- inner parts ---------------------------------------------------------

    def _request_lines(self, apps: Iterable[AppCounts]) -> Iterator[str]:
        for app in apps:
            for listener, by_code in tuple(app.requests.items()):
                labels = f'listener="{escape_label(listener)}",app="{app.label}"'
                for code, count in enumerate(by_code):
                    if count:
                        yield f'scalingo_proxy_requests_total{{{labels},code="{_CODES[code]}"}} {count}\n'
