"""What went on a moment ago: rates and latencies, over all and by app.

An observer on the way of every request, so it adds to a few lists and makes
nothing.  Time is taken from the records: windows move when a request comes
or when somebody asks, and no timer runs.

Over all, one bucket a second is kept for two minutes.  By app, five seconds
share a slice, and a minute of slices is kept, so that an app that had no
request for that long costs nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs
from zope.interface import implementer

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.batches import nothing_to_tell
from scalingo_proxy.services.latency_buckets import BOUNDS, BUCKETS, quantile
from scalingo_proxy.services.recent_errors import RecentErrors
from scalingo_proxy.services.tallies import Tally, buckets_within

__all__ = ["HISTORY_SECONDS", "MAX_APPS", "WINDOW_SECONDS", "AppTraffic", "Moment", "Traffic"]

#: For how long each second over all apps is kept.
HISTORY_SECONDS = 120
#: What counts and quantiles of an app are about, in seconds.
WINDOW_SECONDS = 60
#: Of how many apps traffic is kept at once; the others are in the totals only.
MAX_APPS = 10_000

_SLICE_SECONDS = 5
_SLICES = WINDOW_SECONDS // _SLICE_SECONDS
# Rates are about the last two slices, and what there is of the present one.
_RATE_SLICES = 2
# Each list of counts: requests by the first digit of the status (0: none, or none that HTTP has),
# then their latencies.
_CLASSES = 6
_SERVER_ERROR = 5
_WIDTH = _CLASSES + BUCKETS
# By the bucket of a tally.
_LATENCIES = tuple(_CLASSES + bucket for bucket in buckets_within(BOUNDS))
_NOTHING = (0,) * _WIDTH


@attrs.frozen
class Moment:
    """One second over all apps, or the mean of several.

    :ivar requests: that ended, per second.
    :ivar errors: those of them that were answered 5xx, per second.
    :ivar p50: half of them took no longer, in seconds; ``None`` without any.
    :ivar connections: client connections that were open at its end.
    """

    requests: float
    errors: float
    p50: float | None
    p95: float | None
    p99: float | None
    connections: int


@attrs.frozen
class AppTraffic:
    """An app's last minute.

    :ivar rate: requests per second, over the last ten seconds.
    :ivar classes: how many were answered 1xx, 2xx, … 5xx within the minute,
        by the first digit; 0 is for tunnels without a status.
    :ivar p50: in seconds; ``None`` without any request.
    """

    rate: float = 0.0
    classes: Sequence[int] = (0,) * _CLASSES
    p50: float | None = None
    p95: float | None = None

    @property
    def requests(self) -> int:
        """All of them within the minute."""
        return sum(self.classes)


class _Window:
    """The slices of one app: the present one, and those of the last minute."""

    __slots__ = ("counts", "number", "past")

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts = [0] * _WIDTH
        self.past: deque[tuple[int, array[int]]] = deque(maxlen=_SLICES)

    def turn(self, number: int) -> None:
        """Begin another slice."""
        self.past.append((self.number, array("Q", self.counts)))
        self.counts = [0] * _WIDTH
        self.number = number

    def since(self, number: int) -> Iterator[Sequence[int]]:
        """The slices from that number on."""
        if self.number >= number:
            yield self.counts
        for past, counts in reversed(self.past):
            if past < number:
                break
            yield counts


@implementer(IObserver)
class Traffic:
    """Keeps the last two minutes.

    :param clock: what the records' moments are told by: seconds, monotonic.
    :param open_connections: tells how many clients are connected, if somebody counts them already.
    """

    def __init__(self, clock: Callable[[], float], open_connections: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self.is_for_exchanges_alone = open_connections is not None
        self._connections = 0
        self._open_connections = open_connections or (lambda: self._connections)
        #: Makes sure that nothing waits to be told; called before anything is read.
        self.catch_up: Callable[[], object] = nothing_to_tell
        self._errors = RecentErrors()
        self._apps: dict[str, _Window] = {}
        self._overflow = _Window(0)
        self._second = int(clock())
        self._slice = self._second // _SLICE_SECONDS
        self._current = [0] * _WIDTH
        # The seconds before this one, and the counts of the last of them.
        self._history: deque[Moment] = deque(maxlen=HISTORY_SECONDS)
        self._recent: deque[Sequence[int]] = deque(maxlen=10)

    # -- IObserver -----------------------------------------------------------

    def exchange_finished(self, record: Record) -> None:
        finished_at = record.finished_at
        if finished_at is None:
            finished_at = self._clock()
        if finished_at >= self._second + 1:
            self._move_to(int(finished_at))
        status = record.status
        kind = status // 100 if 100 <= status <= 599 else 0
        # As in the metrics: of a tunnel, the opening counts, and of half a head nothing.
        is_request = status and status != 101 and record.method != "-"
        end = finished_at if is_request else record.first_byte_at
        current, counts = self._current, self._counts_of(record.app)
        current[kind] += 1
        counts[kind] += 1
        if end is not None:
            bucket = _CLASSES + bisect_left(BOUNDS, end - record.started_at)
            current[bucket] += 1
            counts[bucket] += 1
        if record.code != "-" or kind == _SERVER_ERROR:
            self._errors.add(record)

    def requests_tallied(self, tallies: Iterable[Tally]) -> None:
        """The same of many that are alike."""
        for tally in tallies:
            if tally.second > self._second:
                self._move_to(tally.second)
            kind = tally.status_class
            counted = [self._current] if tally.app is None else [self._current, self._counts_of(tally.app)]
            for counts in counted:
                counts[kind] += len(tally.records)
                for bucket, number in tally.spread:
                    counts[_LATENCIES[bucket]] += number
            if tally.app is None:
                windows, present = self._apps, self._slice
                for record, bucket in zip(tally.records, tally.buckets, strict=True):
                    window = windows.get(record.app)
                    if window is not None and window.number == present:
                        counts = window.counts
                    else:
                        counts = self._counts_of(record.app)
                    counts[kind] += 1
                    counts[_LATENCIES[bucket]] += 1

    def connection_opened(self, listener: str, kind: str) -> None:
        self._connections += 1

    def connection_closed(self, listener: str, kind: str) -> None:
        self._connections -= 1

    # -- what people ask -----------------------------------------------------

    @property
    def errors(self) -> RecentErrors:
        """The last errors."""
        self.catch_up()
        return self._errors

    def history(self) -> Sequence[Moment]:
        """The last :data:`HISTORY_SECONDS` seconds that are over, oldest first; fewer at first."""
        self._move_on()
        return tuple(self._history)

    def now(self) -> Moment:
        """The mean of the last ten seconds that are over."""
        self._move_on()
        counts = _sum(self._recent)
        seconds = len(self._recent) or 1
        return _moment(counts, seconds, self._open_connections())

    def app(self, name: str) -> AppTraffic:
        """The last minute of one app."""
        self._move_on()
        window = self._apps.get(name)
        if window is None:
            return AppTraffic()
        counts = _sum(window.since(self._slice - _SLICES + 1))
        latencies = counts[_CLASSES:]
        return AppTraffic(
            self._requests(window) / self._rate_seconds(),
            counts[:_CLASSES],
            quantile(latencies, 0.5),
            quantile(latencies, 0.95),
        )

    def rates(self) -> dict[str, float]:
        """Requests per second of every app that had any within the minute, by name."""
        self._move_on()
        seconds = self._rate_seconds()
        return {name: self._requests(window) / seconds for name, window in self._apps.items() if name}

    # -- inner parts ---------------------------------------------------------

    def _requests(self, window: _Window) -> int:
        """Those that rates are about."""
        first = self._slice - _RATE_SLICES
        requests = sum(window.counts[:_CLASSES]) if window.number >= first else 0
        for number, counts in reversed(window.past):
            if number < first:
                break
            requests += sum(counts[:_CLASSES])
        return requests

    def _rate_seconds(self) -> float:
        return _RATE_SLICES * _SLICE_SECONDS + self._clock() - self._slice * _SLICE_SECONDS

    def _counts_of(self, app: str) -> list[int]:
        """Where to count for *app* now."""
        window = self._apps.get(app)
        if window is None:
            window = self._window_of(app)
        if window.number != self._slice:
            window.turn(self._slice)
        return window.counts

    def _window_of(self, app: str) -> _Window:
        if len(self._apps) >= MAX_APPS:
            return self._overflow
        window = self._apps[app] = _Window(self._slice)
        return window

    def _move_on(self) -> None:
        self.catch_up()
        now = int(self._clock())
        if now > self._second:
            self._move_to(now)

    def _move_to(self, second: int) -> None:
        """Close every second before *second*."""
        self._close()
        # Seconds in which nothing happened; no more than are kept.
        for _ in range(min(second - self._second - 1, HISTORY_SECONDS)):
            self._close()
        self._second = second
        number = second // _SLICE_SECONDS
        if number != self._slice:
            if number // _SLICES != self._slice // _SLICES:
                self._forget(number - _SLICES)
            self._slice = number

    def _close(self) -> None:
        counts: Sequence[int] = _NOTHING
        if any(self._current):
            counts, self._current = self._current, [0] * _WIDTH
        self._recent.append(counts)
        self._history.append(_moment(counts, 1, self._open_connections()))

    def _forget(self, number: int) -> None:
        """Drop the apps that had no request since that slice."""
        for name in [name for name, window in self._apps.items() if window.number < number]:
            del self._apps[name]


def _sum(several: Iterable[Sequence[int]]) -> list[int]:
    total = [0] * _WIDTH
    for counts in several:
        total = [one + other for one, other in zip(total, counts, strict=True)]
    return total


def _moment(counts: Sequence[int], seconds: int, connections: int) -> Moment:
    latencies = counts[_CLASSES:]
    return Moment(
        sum(counts[:_CLASSES]) / seconds,
        counts[_SERVER_ERROR] / seconds,
        quantile(latencies, 0.5),
        quantile(latencies, 0.95),
        quantile(latencies, 0.99),
        connections,
    )
