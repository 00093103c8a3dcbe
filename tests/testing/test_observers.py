"""The observer that keeps what it is told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.testing.observers import RecordingObserver


class RecordingObserverTests(SynchronousTestCase):
    def test_provides_interface(self) -> None:
        """It is an observer."""
        verifyObject(IObserver, RecordingObserver())

    def test_keeps_and_counts(self) -> None:
        """Records are kept in order, and connections counted by listener and kind."""
        observer = RecordingObserver()
        records = [Record(0.0, 0.0, "192.0.2.1", "http") for _ in range(2)]
        records[1].code = "queue-full"
        observer.exchange_finished(records[0])
        self.assertIs(observer.record, records[0])
        observer.exchange_finished(records[1])
        self.assertEqual((observer.records, observer.codes), (records, ["-", "queue-full"]))
        self.assertRaises(AssertionError, lambda: observer.record)
        observer.connection_opened("http", "http")
        observer.connection_opened("http", "websocket")
        observer.connection_closed("http", "http")
        self.assertEqual(dict(observer.still_open), {("http", "websocket"): 1})
