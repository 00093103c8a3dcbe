"""Doing many things of one kind a few at a time, so that nobody meets all of them at once.

Thousands of clients that lose their connection in one instant come back in one
instant.  What is done, and to whom, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop
from typing import Any

from twisted.logger import Logger

__all__ = ["MOST_SECONDS", "Pace"]

_log = Logger()

#: The longest time over which things are spread.
MOST_SECONDS = 5.0

#: The time for each, as long as they are few.
_EACH_SECONDS = 0.01


class Pace:
    """Spreads what it is given evenly over a time, in the order given.

    :param clock: an IReactorTime.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._timer: Any = None

    def spread(self, acts: Sequence[Callable[[], object]], most_seconds: float = MOST_SECONDS) -> None:
        """Call each of *acts*, the first one now, within ten milliseconds for each.

        :param most_seconds: within this time at most.
        """
        now = self._clock.seconds()
        span = min(len(acts) * _EACH_SECONDS, most_seconds)
        for index, act in enumerate(acts):
            self._count += 1
            self._waiting.append((now + span * index / len(acts), self._count, act))
        heapify(self._waiting)
        self._go_on()

    def stop(self) -> None:
        """Forget what was not done yet: there is nobody left to do it to."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, waiting = self._clock.seconds(), self._waiting
        while waiting and waiting[0][0] <= now:
            _due, _number, act = heappop(waiting)
            try:
                act()
            except Exception:
                _log.failure("one of many could not be ended in order")
        if waiting and self._timer is None:
            # Those that come due within this time are done together: they are few.
            delay = max(waiting[0][0] - now, _EACH_SECONDS)
            self._timer = self._clock.callLater(delay, self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._go_on()
