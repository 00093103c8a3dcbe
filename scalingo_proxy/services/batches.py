"""Finished exchanges, told to observers many at a time.

One observer that looks at many records in a row needs a third of the time that it
needs for them one by one, in between everything else that a request is (5 µs a request less).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from zope.interface import implementer

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.broadcast import Broadcast

__all__ = ["BATCH_RECORDS", "WAIT_SECONDS", "Batches", "nothing_to_tell"]

#: How long a record may wait for others.
WAIT_SECONDS = 0.025
#: How many are told of without waiting any longer.  Requests that come meanwhile wait for it: at half
#: load, 1 in 100 took 1.6 ms with 256, and takes 0.5 ms with 16, which costs each request 2 µs.
BATCH_RECORDS = 16


def nothing_to_tell() -> None:
    """What catches up where observers are told at once."""


class _Reactor(Protocol):
    def callLater(self, delay: float, callable: Callable[..., Any], *args: object) -> Any: ...  # noqa: A002


@implementer(IObserver)
class Batches:
    """Keeps finished exchanges for a moment, then has them told.

    Whoever reads what an observer has learned calls :meth:`catch_up` first.

    :param observers: who is told.
    """

    #: Whoever is told by a Broadcast may; it takes care of that.
    never_raises = True

    def __init__(self, reactor: _Reactor, observers: Broadcast) -> None:
        self._reactor = reactor
        self._observers = observers
        self._untold: list[Record] = []
        self._call: Any = None
        self.connection_opened = observers.connection_opened
        self.connection_closed = observers.connection_closed

    def exchange_finished(self, record: Record) -> None:
        untold = self._untold
        untold.append(record)
        if self._call is None:
            self._call = self._reactor.callLater(WAIT_SECONDS, self._waited)
        if len(untold) >= BATCH_RECORDS:
            self._tell()  # the timer stays: it costs less than one for each batch

    def catch_up(self) -> None:
        """Tell what there is, now."""
        if self._call is not None:
            self._call.cancel()
            self._waited()

    def _waited(self) -> None:
        self._call = None
        if self._untold:
            self._tell()

    def _tell(self) -> None:
        records, self._untold = self._untold, []
        self._observers.exchanges_finished(records)
