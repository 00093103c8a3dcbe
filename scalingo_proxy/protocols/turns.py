"""Work that was put off so that everybody has a turn.

Who has more to do than one turn has time for goes on in a later one, however
many there are of them: all together get so much of each turn of the reactor
and no more.  Whoever has little to do never comes here.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

__all__ = ["SECONDS_AT_ONCE", "PutOff", "Turns"]

#: How long one of them may work before the next one's turn.
SECONDS_AT_ONCE = 0.002

#: How long all of them may work before the reactor looks after everybody else.
_SECONDS_OF_ALL = 0.004


class PutOff(Protocol):
    """Who has more to do."""

    def take_turn(self) -> None:
        """Go on for at most about :data:`SECONDS_AT_ONCE`, and be put off again if that is not enough."""


class Turns:
    """Those who wait for a turn, in the order in which they came.

    :param clock: gives ``seconds()`` and ``callLater()``.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiting: deque[PutOff] = deque()
        self._timer: Any = None

    def put_off(self, whose: PutOff) -> None:
        """Let *whose* ``take_turn()`` be called when its turn comes."""
        self._waiting.append(whose)
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._go)

    def forget(self, whose: PutOff) -> None:
        """*whose* has nothing to do any more."""
        if whose in self._waiting:
            self._waiting.remove(whose)
        if not self._waiting and self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()

    def _go(self) -> None:
        self._timer = None
        seconds, waiting = self._clock.seconds, self._waiting
        end = seconds() + _SECONDS_OF_ALL
        try:
            for _ in range(len(waiting)):
                waiting.popleft().take_turn()
                if not waiting or seconds() >= end:
                    break
        finally:
            if waiting and self._timer is None:
                self._timer = self._clock.callLater(0, self._go)
