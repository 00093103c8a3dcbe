"""What was learned of clients' bytes is forgotten, if nobody sends them any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scalingo_proxy.protocols.deadlines import Deadlines, Timed

__all__ = ["FORGET_SECONDS", "Forgetting"]

#: What was not asked for between two of these moments is gone at the second.
FORGET_SECONDS = 60.0


class Forgetting(Timed):
    """Says now and then that time has passed, to something that knows no clock.

    :param seconds: the monotonic clock.
    :param turns: all are called every :data:`FORGET_SECONDS`.
    """

    def __init__(
        self, deadlines: Deadlines, seconds: Callable[[], float], turns: Sequence[Callable[[], None]]
    ) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._turns = turns

    def begin(self) -> None:
        """Somebody is served from now on."""
        self._deadlines.set(self, self._seconds() + FORGET_SECONDS)

    def end(self) -> None:
        """Nobody is served any more: what is left goes at once."""
        self._deadlines.forget(self)
        self._turn()
        self._turn()

    def _turn(self) -> None:
        for turn in self._turns:
            turn()

    def deadline_reached(self) -> None:
        self._turn()
        self.begin()
