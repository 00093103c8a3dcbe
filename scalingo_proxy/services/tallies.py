"""Finished requests and tunnels that are alike, to be counted together.

Nearly all requests are answered whole, and nearly all tunnels opened, without an error: whoever counts
adds the same few numbers for each.  Of those that finished together, all of one listener and one class
of status are one :class:`Tally`; most of what is counted of them is a sum, and the bucket that a
duration belongs to is found once for everybody who has buckets.  What is not like that is told of one
by one, as ever.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from scalingo_proxy.model import Record
from scalingo_proxy.services.app_series import DURATION_BOUNDS
from scalingo_proxy.services.latency_buckets import BOUNDS

__all__ = ["Tally", "buckets_within", "tallied"]

#: The statuses of tunnels: of one for TLS, and of one that a request began.
_OF_TUNNELS = (0, 101)

_connect_seconds = attrgetter("connect_seconds")

# Those of the metrics and of the traffic, rising.
_BOUNDS = tuple(sorted({*DURATION_BOUNDS, *BOUNDS}))


def buckets_within(bounds: Sequence[float]) -> Sequence[int]:
    """For each bucket of a :class:`Tally`, the one of *bounds* that it is a part of.

    :param bounds: upper bounds in seconds, rising: those of the metrics, or of the traffic.
    """
    return *(bisect_left(bounds, bound) for bound in _BOUNDS), len(bounds)


class Tally:
    """Requests that were answered whole by backends, or tunnels to them, through one listener.

    :ivar second: that in which they finished, on the clock of the records.
    :ivar status_class: the first digit of the status: 2, 3 or 4; 0 or 1 of tunnels.
    :ivar durations: of each, in seconds, until it was answered: of a tunnel, the opening counts.
    :ivar spread: how many durations are in each bucket (:func:`buckets_within`), of those that have any.
    :ivar connects: how long those took to connect that did, in seconds.
    :ivar connect_spread: the same of these.
    :ivar app: that all of them are for; ``None`` where it is several.
    """

    __slots__ = (
        "_buckets",
        "app",
        "connect_spread",
        "connects",
        "durations",
        "listener",
        "records",
        "second",
        "spread",
        "status_class",
    )

    def __init__(self, listener: str, status_class: int, second: int, records: list[Record]) -> None:
        self.listener = listener
        self.status_class = status_class
        self.second = second
        self.records = records
        self._buckets: Sequence[int] = ()

    @property
    def buckets(self) -> Sequence[int]:
        """The bucket of each duration."""
        if not self._buckets:
            self._buckets = [bisect_left(_BOUNDS, seconds) for seconds in self.durations]
        return self._buckets

    def complete(self) -> None:
        """Work out what there is to know of the records."""
        records = self.records
        self.durations = [record.first_byte_at - record.started_at for record in records]  # type: ignore[operator]
        self.spread = _spread(self.durations)
        self.connects = [*filter(None, map(_connect_seconds, records))]
        self.connect_spread = _spread(self.connects) if self.connects else ()
        apps = {record.app for record in records}
        self.app = apps.pop() if len(apps) == 1 else None


def _spread(durations: Sequence[float]) -> Sequence[tuple[int, int]]:
    rising = sorted(durations)  # so that it is a bucket that is looked for, and not each duration's
    spread, start, end = [], 0, len(rising)
    while start < end:
        bucket = bisect_left(_BOUNDS, rising[start])
        next_start = bisect_right(rising, _BOUNDS[bucket], start) if bucket < len(_BOUNDS) else end
        spread.append((bucket, next_start - start))
        start = next_start
    return spread


def tallied(records: Sequence[Record]) -> tuple[Iterable[Tally], Sequence[Record]]:
    """What is alike of *records*, and those that are like no other.

    Where they did not all finish within one second of the clock, nothing is tallied.

    :param records: in the order in which they finished; each has.
    """
    first, last = records[0].finished_at, records[-1].finished_at
    if first is None or last is None or (second := int(first)) != int(last):
        return (), records
    tallies: dict[tuple[str, int], Tally] = {}
    others: list[Record] = []
    add = others.append
    status = listener = None
    for record in records:
        if (
            (
                record.finished_at is not record.first_byte_at
                and (record.status not in _OF_TUNNELS or record.first_byte_at is None)
            )
            or record.code != "-"
            or not record.backend
        ):
            others.append(record)
            continue
        if record.status != status or record.listener != listener:
            status, listener = record.status, record.listener
            if 200 <= status <= 499 or status in _OF_TUNNELS:
                key = listener, status // 100
                tally = tallies.get(key)
                if tally is None:
                    tally = tallies[key] = Tally(*key, second, [])
                add = tally.records.append
            else:
                add = others.append
        add(record)
    for tally in tallies.values():
        tally.complete()
    return tallies.values(), others
