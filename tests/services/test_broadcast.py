"""Tests for :mod:`scalingo_proxy.services.broadcast`."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.broadcast import Broadcast
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.tallies import Tally
from tests.services.test_tallies import START, an_answer


@implementer(IObserver)
class Recorder:
    """Keeps what it is told, and raises *error* if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[object] = []
        self._error = error

    def _keep(self, what: object) -> None:
        self.told.append(what)
        if self._error is not None:
            raise self._error

    def exchange_finished(self, record: Record) -> None:
        self._keep(record)

    def connection_opened(self, listener: str, kind: str) -> None:
        self._keep(("opened", listener, kind))

    def connection_closed(self, listener: str, kind: str) -> None:
        self._keep(("closed", listener, kind))


def tell_everything(observer: IObserver) -> list[object]:
    """One of each."""
    record = Record(0.0, 0.0, "", "")
    observer.exchange_finished(record)
    observer.connection_opened("http", "websocket")
    observer.connection_closed("http", "http")
    return [record, ("opened", "http", "websocket"), ("closed", "http", "http")]


class BroadcastTests(SynchronousTestCase):
    """Telling several observers."""

    def test_interface(self) -> None:
        """It is an observer."""
        verifyObject(IObserver, Broadcast())

    def test_everybody_is_told(self) -> None:
        """Each observer is told everything."""
        observers = Recorder(), Recorder()
        told = tell_everything(Broadcast(*observers))
        self.assertEqual([observer.told for observer in observers], [told, told])

    def test_exchanges_alone(self) -> None:
        """Who says that it is for exchanges is told of nothing else."""
        told_all, told_some = Recorder(), Recorder()
        told_some.is_for_exchanges_alone = True  # type: ignore[attr-defined]
        told = tell_everything(Broadcast(told_all, told_some))
        self.assertEqual((told_all.told, told_some.told), (told, told[:1]))

    def test_one_raises(self) -> None:
        """An observer that raises goes on being told, and so do those after it."""
        bad, good = Recorder(ZeroDivisionError()), Recorder()
        broadcast = Broadcast(bad, good)
        first, second = tell_everything(broadcast), tell_everything(broadcast)
        self.assertEqual(good.told, first + second)
        self.assertEqual(bad.told, first + second)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_logged_per_observer(self) -> None:
        """Each observer that fails is logged, not only the first one."""
        broadcast = Broadcast(Recorder(ZeroDivisionError()), Recorder(KeyError()))
        for _ in range(3):
            broadcast.exchange_finished(Record(0.0, 0.0, "", ""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class Counter(Recorder):
    """One that counts what is alike together."""

    def requests_tallied(self, tallies: Iterable[Tally]) -> None:
        self._keep([record for tally in tallies for record in tally.records])


class CountersTests(SynchronousTestCase):
    """Telling those who count."""

    def setUp(self) -> None:
        self.alike, self.refused = an_answer(START, 0.01), an_answer(START, 0.01, code="queue-full")

    def test_tallied(self) -> None:
        """They are told of what is alike at once, of the others one by one; everybody else of all."""
        counter, last = Counter(), Recorder()
        Broadcast(counter, last).exchanges_finished([self.alike, self.refused, self.alike])
        self.assertEqual(counter.told, [[self.alike, self.alike], self.refused])
        self.assertEqual(last.told, [self.alike, self.refused, self.alike])

    def test_one_raises(self) -> None:
        """It is told on, and so are those after it."""
        bad, good = Counter(ZeroDivisionError()), Counter()
        broadcast = Broadcast(bad, good)
        for _ in range(2):
            broadcast.exchanges_finished([self.alike, self.refused])
        self.assertEqual(good.told, [[self.alike], self.refused] * 2)
        self.assertEqual(bad.told, good.told)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_broken_record(self) -> None:
        """One that cannot be read takes none of the others with it."""
        broken = an_answer(START, 0.01, started_at=None)
        metrics, counter = Metrics(), Counter()
        Broadcast(metrics, counter).exchanges_finished([self.alike, broken, self.alike])
        self.assertEqual(counter.told, [[], self.alike, broken, self.alike])
        self.assertIn('duration_seconds_count{app="hello"} 2', metrics.exposition())
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
