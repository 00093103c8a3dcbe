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

__all__ = ["BATCH_RECORDS", "MOST_RECORDS", "WAIT_SECONDS", "Batches", "nothing_to_tell"]

#: How long a record may wait for others.
WAIT_SECONDS = 0.025
#: How many are told of as soon as the proxy has nothing else to do, so that no request waits for it.
BATCH_RECORDS = 16
#: How many are told of without waiting any longer.  Where a proxy is never idle, each costs 2 µs less
#: than with 16, and more on a machine where others work, too.
MOST_RECORDS = 256


def nothing_to_tell() -> None:
    """What catches up where observers are told at once."""


class _Reactor(Protocol):
    def callLater(self, delay: float, callable: Callable[..., Any], *args: object) -> Any: ...  # noqa: A002


@implementer(IObserver)
class Batches:
    """Keeps finished exchanges for a moment, then has them told.

    Whoever reads what an observer has learned calls :meth:`catch_up` first.

    :param reactor: gives ``callLater()``; without a ``when_idle()``
        (:mod:`scalingo_proxy.transports.turns`) nobody waits for an idle moment.
    :param observers: who is told.
    """

    #: Whoever is told by a Broadcast may; it takes care of that.
    never_raises = True

    def __init__(self, reactor: _Reactor, observers: Broadcast) -> None:
        self._reactor = reactor
        self._observers = observers
        self._untold: list[Record] = []
        self._call: Any = None
        self._when_idle: Callable[[Callable[[], None]], object] | None = getattr(reactor, "when_idle", None)
        #: How many are enough to do something about it.
        self._enough = BATCH_RECORDS
        self.connection_opened = observers.connection_opened
        self.connection_closed = observers.connection_closed

    def exchange_finished(self, record: Record) -> None:
        untold = self._untold
        untold.append(record)
        if self._call is None:
            self._call = self._reactor.callLater(WAIT_SECONDS, self._waited)
        if len(untold) >= self._enough:
            self._are_enough()

    def catch_up(self) -> None:
        """Tell what there is, now."""
        if self._call is not None:
            self._call.cancel()
            self._waited()

    def _are_enough(self) -> None:
        if self._when_idle is None or self._enough == MOST_RECORDS:
            self._tell()  # the timer stays: it costs less than one for each batch
        else:
            self._enough = MOST_RECORDS
            self._when_idle(self._is_idle)

    def _is_idle(self) -> None:
        self._enough = BATCH_RECORDS
        if self._untold:
            self._tell()

    def _waited(self) -> None:
        self._call = None
        if self._untold:
            self._tell()

    def _tell(self) -> None:
        records, self._untold = self._untold, []
        self._observers.exchanges_finished(records)
