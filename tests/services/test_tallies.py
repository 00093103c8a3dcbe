"""Tests for :mod:`scalingo_proxy.services.tallies`: counted together is as counted one by one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Record
from scalingo_proxy.services.app_series import DURATION_BOUNDS
from scalingo_proxy.services.broadcast import Broadcast
from scalingo_proxy.services.latency_buckets import BOUNDS
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.tallies import buckets_within, tallied
from scalingo_proxy.services.traffic import Traffic

#: When all records of the tests began to finish.
START = 1000.0


def an_answer(finished_at: float, seconds: float, **fields: object) -> Record:
    """An ordinary answer, with *fields* changed."""
    record = Record(finished_at - seconds, 1.7e9, "192.0.2.1", "http")
    record.method, record.status, record.app, record.backend = "GET", 200, "hello", "10.0.0.1:3000"
    record.finished_at = record.first_byte_at = finished_at
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def a_tunnel(finished_at: float, seconds: float, opening: float, **fields: object) -> Record:
    """An ordinary tunnel that was opened after *opening* seconds, with *fields* changed."""
    record = an_answer(finished_at, seconds, method="-", status=0, connect_seconds=opening / 2)
    record.first_byte_at = record.started_at + opening
    for name, value in fields.items():
        setattr(record, name, value)
    return record


@st.composite
def _batches(draw: st.DrawFn) -> list[list[Record]]:
    """Records in the order in which they finish; all times are such that sums of them are exact."""
    now = START
    batches: list[list[Record]] = []
    for _ in range(draw(st.integers(1, 4))):
        batch = []
        for _ in range(draw(st.integers(1, 8))):
            now += draw(st.sampled_from([0.0, 0.0, 0.0, 0.125, 0.5, 7.0]))
            seconds = draw(st.integers(0, 3000)) / 1024
            changes: dict[str, object] = {
                "app": draw(st.sampled_from(["hello", "hello", "hello", "other", ""])),
                "listener": draw(st.sampled_from(["http", "http", "https"])),
                "status": draw(st.sampled_from([200, 200, 204, 304, 404, 101, 0, 500, 999])),
                "bytes_in": draw(st.integers(0, 3)),
                "bytes_out": draw(st.integers(0, 3)),
            }
            unusual = draw(
                st.sampled_from(
                    ["", "", "", "tunnel", "code", "method", "backend", "connect", "first", "none"]
                )
            )
            if unusual != "none":
                changes["connect_seconds"] = draw(st.sampled_from([0.0, 0.0, 0.25, 0.0078125, 64.0]))
            if unusual == "code":
                changes["code"] = "queue-full"
            elif unusual == "tunnel":
                changes["status"], changes["method"] = draw(st.sampled_from([(0, "-"), (101, "GET")]))
                changes["first_byte_at"] = now - seconds / draw(st.sampled_from([1, 2, 8]))
            elif unusual == "connect":
                changes["connect_seconds"] = seconds / 4
            elif unusual == "first":
                changes["first_byte_at"] = now - seconds / 2
            elif unusual == "none":
                changes["first_byte_at"] = None
            elif unusual:
                changes[unusual] = "-" if unusual == "method" else ""
            batch.append(an_answer(now, seconds, **changes))
        batches.append(batch)
    return batches


class Counted:
    """Metrics and traffic."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.metrics, self.traffic = Metrics(clock=self.clock.seconds), Traffic(self.clock.seconds)
        self.broadcast = Broadcast(self.metrics, self.traffic)

    def catch_up_with(self, batch: list[Record]) -> None:
        """It is when the last of them finished."""
        assert batch[-1].finished_at is not None
        self.clock.advance(batch[-1].finished_at - self.clock.seconds())

    def all_that_is_told(self) -> Sequence[object]:
        """The page, and what the traffic has to say."""
        traffic = self.traffic
        return (
            sorted(self.metrics.exposition().splitlines()),
            traffic.history(),
            traffic.now(),
            traffic.rates(),
            [traffic.app(name) for name in ("hello", "other", "")],
            traffic.errors.latest(),
        )


class TalliesTests(SynchronousTestCase):
    """Counting together."""

    maxDiff = None

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(_batches())
    def test_as_one_by_one(self, batches: list[list[Record]]) -> None:
        """Every number is the same."""
        together, alone = Counted(), Counted()
        for batch in batches:
            for counted in (together, alone):
                counted.catch_up_with(batch)
            together.broadcast.exchanges_finished(batch)
            for record in batch:
                alone.broadcast.exchange_finished(record)
        self.assertEqual(together.all_that_is_told(), alone.all_that_is_told())
        for counted in (together, alone):
            counted.clock.advance(1.0)
        self.assertEqual(together.all_that_is_told(), alone.all_that_is_told())

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.floats(0.0, 100.0) | st.sampled_from((*BOUNDS, *DURATION_BOUNDS)), min_size=1))
    def test_buckets(self, durations: list[float]) -> None:
        """A bucket of a tally is within the buckets that the duration belongs to."""
        records = [an_answer(START, 0.0, started_at=START - seconds) for seconds in durations]
        (tally,), _ = tallied(records)
        for bounds in (BOUNDS, DURATION_BOUNDS):
            buckets = buckets_within(bounds)
            self.assertEqual(
                [buckets[bucket] for bucket in tally.buckets],
                [bisect_left(bounds, seconds) for seconds in tally.durations],
            )
        self.assertEqual(sum(number for _, number in tally.spread), len(records))

    def test_what_is_alike(self) -> None:
        """Class of status and listener tell tallies apart; apps do not."""
        records = [
            an_answer(START, 0.001),
            an_answer(START, 0.002, status=302, app="other"),
            an_answer(START, 0.003, status=204, app="other"),
            an_answer(START, 0.001, listener="https"),
        ]
        tallies, others = tallied(records)
        told = [(tally.listener, tally.status_class, tally.app, tally.records) for tally in tallies]
        self.assertEqual(
            told,
            [
                ("http", 2, None, [records[0], records[2]]),
                ("http", 3, "other", [records[1]]),
                ("https", 2, "hello", [records[3]]),
            ],
        )
        self.assertEqual(others, [])

    def test_tunnels(self) -> None:
        """Those with a status and those without are alike, and what counts of both is the opening."""
        for status in (0, 101):
            tunnels = [a_tunnel(START, 9.0, 0.5, status=status), a_tunnel(START, 600.0, 0.25, status=status)]
            (tally,), others = tallied(tunnels)
            self.assertEqual((tally.status_class, tally.records, others), (status // 100, tunnels, []))
            self.assertEqual((tally.durations, tally.connects), ([0.5, 0.25], [0.25, 0.125]))

    def test_connects(self) -> None:
        """Those that connected are told apart within a tally."""
        (tally,), others = tallied([an_answer(START, 0.5), an_answer(START, 0.5, connect_seconds=0.001)])
        self.assertEqual((tally.connects, len(tally.connect_spread), others), ([0.001], 1, []))

    def test_what_is_not(self) -> None:
        """Whatever is unusual is told by itself, and so is all of a batch across two seconds."""
        unusual = [
            an_answer(START, 0.01, code="queue-full"),
            an_answer(START, 0.01, first_byte_at=START - 0.005),
            an_answer(START, 0.01, first_byte_at=None),
            an_answer(START, 0.01, backend=""),
            an_answer(START, 0.01, status=502),
            an_answer(START, 0.01, status=99),
            an_answer(START, 0.01, status=100),
            a_tunnel(START, 9.0, 0.01, code="backend-unreachable"),
            a_tunnel(START, 9.0, 0.01, first_byte_at=None),
            a_tunnel(START, 9.0, 0.01, backend=""),
        ]
        records = [an_answer(START, 0.01), *unusual, an_answer(START, 0.02)]
        (tally,), others = tallied(records)
        self.assertEqual((tally.records, others), ([records[0], records[-1]], unusual))
        late = [an_answer(START, 0.01), an_answer(START + 1, 0.01)]
        self.assertEqual(tallied(late), ((), late))
