"""How often requests of one app may be sent again, so that a dying app is not drowned.

Counts requests and repetitions of the last ten seconds, by the second.  Time
is an argument.  What may be repeated at all is decided in
:mod:`scalingo_proxy.routing.retries`.
"""

from __future__ import annotations

from collections import deque
from math import floor, inf

__all__ = ["RetryBudget"]

#: The window, in seconds.
_SECONDS = 10
#: Repetitions per request.
_SHARE = 0.2
#: Repetitions that are always allowed in one window.
_FLOOR = 3


class RetryBudget:
    """One app's requests and repetitions.

    :ivar requests: of the second under way.  Whoever has a request adds to
        it, and calls :meth:`turn` first when ``turns_at`` has come; spelled
        out there, because that is done for every request.
    :ivar turns_at: when the next second begins.
    """

    __slots__ = ("_earlier", "_repeated", "_second", "requests", "turns_at")

    def __init__(self) -> None:
        self.requests = 0
        self.turns_at = -inf
        self._second = 0
        self._repeated = 0
        # Second, requests and repetitions; seconds without any are left out.
        self._earlier: deque[tuple[int, int, int]] = deque(maxlen=_SECONDS)

    def turn(self, now: float) -> None:
        """A new second begins."""
        second = floor(now)
        if self.requests or self._repeated:
            self._earlier.append((self._second, self.requests, self._repeated))
        self._second = second
        self.turns_at = second + 1.0
        self.requests = self._repeated = 0

    def spend(self, now: float) -> bool:
        """Take one repetition out of the budget, if there is one left."""
        if now >= self.turns_at:
            self.turn(now)
        requests, repeated = self.requests, self._repeated
        for second, its_requests, its_repeated in self._earlier:
            if second > self._second - _SECONDS:
                requests += its_requests
                repeated += its_repeated
        if repeated + 1 > max(_FLOOR, requests * _SHARE):
            return False
        self._repeated += 1
        return True
