"""An observer that keeps what it is told, for tests to read."""

from __future__ import annotations

from collections import Counter

from zope.interface import implementer

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record

__all__ = ["RecordingObserver"]


@implementer(IObserver)
class RecordingObserver:
    """Keeps every record, and counts connections.

    :ivar records: what each finished exchange had to tell, in order.
    :ivar opened: how many connections began, by listener and kind.
    :ivar closed: how many ended, by listener and kind.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.opened: Counter[tuple[str, str]] = Counter()
        self.closed: Counter[tuple[str, str]] = Counter()

    def exchange_finished(self, record: Record) -> None:
        """Keep *record*."""
        self.records.append(record)

    def connection_opened(self, listener: str, kind: str) -> None:
        """Count it."""
        self.opened[listener, kind] += 1

    def connection_closed(self, listener: str, kind: str) -> None:
        """Count it."""
        self.closed[listener, kind] += 1

    @property
    def record(self) -> Record:
        """The only record.

        :raises AssertionError: when there are none or several.
        """
        assert len(self.records) == 1, f"{len(self.records)} records, codes {self.codes}"
        return self.records[0]

    @property
    def codes(self) -> list[str]:
        """The reason code of each record, ``-`` where there was no error of ours."""
        return [record.code for record in self.records]

    @property
    def still_open(self) -> Counter[tuple[str, str]]:
        """The connections that began and did not end, by listener and kind."""
        return self.opened - self.closed
