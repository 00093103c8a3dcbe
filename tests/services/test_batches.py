"""Tests for :mod:`scalingo_proxy.services.batches`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.access_log import FLUSH_SECONDS, AccessLog
from scalingo_proxy.services.batches import BATCH_RECORDS, MOST_RECORDS, WAIT_SECONDS, Batches
from scalingo_proxy.services.broadcast import Broadcast
from scalingo_proxy.services.explain import Explain
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.traffic import Traffic
from tests.services.test_broadcast import Recorder


class Together(Recorder):
    """One that takes many at once."""

    def exchanges_finished(self, records: Sequence[Record]) -> None:
        self._keep(list(records))


def finished(request_id: str = "an-id") -> Record:
    """A request to an app, answered in no time."""
    record = Record(0.0, 0.0, "192.0.2.1", "http")
    record.method = "GET"
    record.app, record.status, record.request_id, record.finished_at = "hello", 502, request_id, 0.0
    return record


class BatchesTests(SynchronousTestCase):
    """Telling of finished exchanges many at a time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.observer = Recorder()
        self.batches = Batches(self.clock, Broadcast(self.observer))

    def test_interface(self) -> None:
        """It is an observer."""
        verifyObject(IObserver, self.batches)

    def test_after_a_while(self) -> None:
        """What finished is told in its order, after a while at the latest, and leaves no timer."""
        records = [finished() for _ in range(3)]
        for record in records:
            self.batches.exchange_finished(record)
            self.clock.advance(WAIT_SECONDS / 4)
        self.assertEqual(self.observer.told, [])
        self.clock.advance(WAIT_SECONDS / 4)
        self.assertEqual(self.observer.told, records)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """As soon as there are many, nobody waits any longer."""
        for _ in range(BATCH_RECORDS + 1):
            self.batches.exchange_finished(finished())
        self.assertEqual(len(self.observer.told), BATCH_RECORDS)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(WAIT_SECONDS)
        self.assertEqual(len(self.observer.told), BATCH_RECORDS + 1)

    def test_idle(self) -> None:
        """Where idle moments are known, many wait for one, but not too many; nobody asks for two."""
        asked: list[Callable[[], None]] = []
        self.clock.when_idle = asked.append  # type: ignore[attr-defined]
        self.batches = Batches(self.clock, Broadcast(self.observer))
        told = self.observer.told

        def finish(count: int) -> tuple[int, int]:
            for _ in range(count):
                self.batches.exchange_finished(finished())
            return len(told), len(asked)

        self.assertEqual(finish(BATCH_RECORDS - 1), (0, 0))
        self.assertEqual(finish(1), (0, 1))
        asked.pop()()
        self.assertEqual(len(told), BATCH_RECORDS)
        told.clear()
        self.assertEqual(finish(MOST_RECORDS - 1), (0, 1))
        self.assertEqual(finish(1), (MOST_RECORDS, 1))
        self.assertEqual(finish(BATCH_RECORDS), (MOST_RECORDS, 1))
        self.clock.advance(WAIT_SECONDS)
        asked.pop()()
        self.assertEqual(len(told), MOST_RECORDS + BATCH_RECORDS)
        self.assertEqual(finish(BATCH_RECORDS), (MOST_RECORDS + BATCH_RECORDS, 1))

    def test_catching_up(self) -> None:
        """Whoever catches up knows all, and what there was is not told again."""
        self.batches.catch_up()
        self.batches.exchange_finished(finished())
        self.batches.catch_up()
        self.batches.catch_up()
        self.assertEqual(len(self.observer.told), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connections(self) -> None:
        """Connections are told of at once."""
        self.batches.connection_opened("http", "http")
        self.batches.connection_closed("http", "http")
        self.assertEqual(self.observer.told, [("opened", "http", "http"), ("closed", "http", "http")])

    def test_together(self) -> None:
        """Who takes many at once gets them; all others one by one, also behind one that raises."""
        together, raising, last = Together(), Together(ValueError("broken")), Recorder()
        alone = Recorder(ValueError("broken, too"))
        batches = Batches(self.clock, Broadcast(together, raising, alone, last))
        records = [finished(), finished()]
        for record in records:
            batches.exchange_finished(record)
        batches.catch_up()
        self.assertEqual((together.told, raising.told), ([records], [records]))
        self.assertEqual((alone.told, last.told), (records, records))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)


class ReadersTests(SynchronousTestCase):
    """Whoever is asked what became of a request knows of the one that has just finished."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.metrics, self.traffic = Metrics(), Traffic(self.clock.seconds)
        self.explain = Explain(10, lambda: (), self.clock.seconds)
        self.batches = Batches(self.clock, Broadcast(self.metrics, self.traffic, self.explain))
        for reader in (self.metrics, self.traffic, self.explain):
            reader.catch_up = self.batches.catch_up
        self.batches.exchange_finished(finished("just-now"))

    def test_metrics(self) -> None:
        """The page counts it."""
        line = 'scalingo_proxy_requests_total{listener="http",app="hello",code="5xx"} 1'
        self.assertIn(line, self.metrics.exposition())

    def test_explain(self) -> None:
        """It can be explained."""
        self.assertEqual(len(self.explain.explain("just-now")), 1)

    def test_traffic(self) -> None:
        """The rates, and an app's last minute, have it in them."""
        self.assertEqual(self.traffic.app("hello").requests, 1)
        self.batches.exchange_finished(finished())
        self.assertGreater(self.traffic.rates()["hello"], 0)
        self.batches.exchange_finished(finished())
        self.clock.advance(WAIT_SECONDS / 2)
        self.assertEqual(self.traffic.app("hello").requests, 3)

    def test_errors(self) -> None:
        """The last errors have it among them."""
        self.assertEqual([error.request_id for error in self.traffic.errors.latest()], ["just-now"])


class LoggedTests(SynchronousTestCase):
    """The request log and batches."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.callFromThread = lambda function, *args: function(*args)  # type: ignore[attr-defined]
        self.written = b""
        case = self

        class Writer:
            dropped, waiting_bytes, error = 0, 0, None

            def __init__(self, descriptor: int) -> None:
                os.close(descriptor)

            switch_to = __init__

            def start(self) -> None:
                pass

            def write(self, data: bytes) -> None:
                case.written += data

            def stop(self, stopped: object) -> None:
                stopped()  # type: ignore[operator]

        self.log = AccessLog(self.clock, destination="/dev/null", make_writer=Writer)  # type: ignore[arg-type]
        self.batches = Batches(self.clock, Broadcast(self.log))
        self.log.catch_up = self.batches.catch_up

    def test_lines(self) -> None:
        """They are written within 50 ms: what waited to be told of waits for other lines, too."""
        self.log.startService()
        self.batches.exchange_finished(finished("one"))
        self.batches.exchange_finished(finished("two"))
        self.clock.pump([WAIT_SECONDS, FLUSH_SECONDS])
        self.assertEqual((self.written.count(b"\n"), self.clock.seconds()), (2, 0.05))
        self.assertLess(self.written.index(b"request_id=one"), self.written.index(b"request_id=two"))
        self.log.stopService()

    def test_stop(self) -> None:
        """When the log stops, what finished before is written."""
        self.log.startService()
        self.batches.exchange_finished(finished("last"))
        self.log.stopService()
        self.assertIn(b"request_id=last", self.written)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reconfigured(self) -> None:
        """What finished before other settings is written with the old ones."""
        self.log.startService()
        self.batches.exchange_finished(finished("old"))
        self.log.reconfigure("json", "/dev/null", True)
        self.batches.exchange_finished(finished("new"))
        self.log.stopService()
        old, new = self.written.splitlines()
        self.assertTrue(old.startswith(b"at=info "), old)
        self.assertTrue(new.startswith(b'{"at":'), new)

    def test_not_started(self) -> None:
        """Lines that nobody could write are counted."""
        self.batches.exchange_finished(finished())
        self.batches.catch_up()
        self.assertEqual(self.log.dropped, 1)
