"""Several observers behind one.

Exchanges tell one observer; which ones there are is decided where the proxy
is put together.  An observer that raises harms neither the others nor the
exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.tallies import tallied

__all__ = ["Broadcast"]


@implementer(IObserver)
class Broadcast:
    """Tells each of *observers* everything, in their order.

    What an observer raises is logged with its traceback once for each
    observer and verb; after that, only that observer's loss is left.

    An observer may have a method ``exchanges_finished``, which takes many records at once; one that
    counts may have ``requests_tallied``, which takes what is alike of them
    (:class:`~scalingo_proxy.services.tallies.Tally`) and is told of the others one by one.  It may say
    of itself that it ``is_for_exchanges_alone``: then it is not told of connections.
    """

    _log = Logger()

    def __init__(self, *observers: IObserver) -> None:
        # Bound once: looking the methods up again would cost as much as calling them.
        self._finished = tuple(observer.exchange_finished for observer in observers)
        concerned = [each for each in observers if not getattr(each, "is_for_exchanges_alone", False)]
        self._opened = tuple(observer.connection_opened for observer in concerned)
        self._closed = tuple(observer.connection_closed for observer in concerned)
        self._told: set[Callable[..., Any]] = set()
        counters = [each for each in observers if hasattr(each, "requests_tallied")]
        self._tallied = tuple(counter.requests_tallied for counter in counters)
        self._tell_counters = tuple(partial(self._one_by_one, each.exchange_finished) for each in counters)
        self._finished_together = tuple(
            getattr(observer, "exchanges_finished", None)
            or partial(self._one_by_one, observer.exchange_finished)
            for observer in observers
            if observer not in counters
        )

    def exchange_finished(self, record: Record) -> None:
        for tell in self._finished:
            try:
                tell(record)
            except Exception:
                self._failed(tell)

    def exchanges_finished(self, records: Sequence[Record]) -> None:
        """Tell of several, each observer of all of them before the next; there is one at least."""
        for tell in self._finished_together:
            try:
                tell(records)
            except Exception:
                self._failed(tell)
        if self._tallied:
            self._tell_of_tallies(records)

    def _tell_of_tallies(self, records: Sequence[Record]) -> None:
        try:
            tallies, others = tallied(records)
        except Exception:  # what is wrong with one of them spoils that one alone
            tallies, others = (), records
        for tell in self._tallied:
            try:
                tell(tallies)
            except Exception:
                self._failed(tell)
        if others:
            for tell_each in self._tell_counters:
                tell_each(others)

    def _one_by_one(self, tell: Callable[[Record], object], records: Sequence[Record]) -> None:
        for record in records:
            try:
                tell(record)
            except Exception:
                self._failed(tell)

    def connection_opened(self, listener: str, kind: str) -> None:
        for tell in self._opened:
            try:
                tell(listener, kind)
            except Exception:
                self._failed(tell)

    def connection_closed(self, listener: str, kind: str) -> None:
        for tell in self._closed:
            try:
                tell(listener, kind)
            except Exception:
                self._failed(tell)

    def _failed(self, tell: Callable[..., Any]) -> None:
        if tell not in self._told:
            self._told.add(tell)
            self._log.failure("an observer failed, further failures of {tell} are not logged", tell=tell)
