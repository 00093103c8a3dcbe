"""How long each backend keeps a connection that nobody uses, learned from those it closed.

Whoever sends a request just when the backend closes loses it, and a POST
cannot be sent again.  So connections are given up before they get as old as
the one the backend closed.  Time is an argument; connections are not known here.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["IdleAges"]

#: A shorter age is an accident more likely than a setting.
_LEAST_SECONDS = 1.0
#: For how long what was learned counts.
_REMEMBERED_SECONDS = 600.0
#: Connections closed within this time were closed by one and the same event.
_AT_ONCE_SECONDS = 0.5


def _margin(age: float) -> float:
    return max(0.25, age / 10)


class _Close:
    """The last time that a backend closed an unused connection."""

    __slots__ = ("age", "at", "believed")

    def __init__(self, age: float, at: float, believed: bool) -> None:
        self.age = age
        self.at = at
        self.believed = believed


class IdleAges:
    """What is known of each backend.

    :ivar closes: empty, as long as nothing is known of any.
    """

    def __init__(self) -> None:
        self.closes: dict[Hashable, _Close] = {}

    def closed(self, backend: Hashable, age: float, now: float) -> None:
        """*backend* closed a connection that had been unused for *age* seconds."""
        last = self.closes.get(backend)
        if last is not None and now - last.at < _AT_ONCE_SECONDS:
            last.at = now
            if abs(age - last.age) > _margin(max(age, last.age)):
                last.believed = False  # all at once, whatever their age: it stops
            return
        if age < _LEAST_SECONDS:
            return
        if last is not None and last.believed and now - last.at < _REMEMBERED_SECONDS:
            age = min(age, last.age)
        self.closes[backend] = _Close(age, now, True)

    def limit(self, backend: Hashable, most: float, now: float) -> float:
        """For how many seconds a connection to *backend* may be unused; *most* if nothing is known."""
        last = self.closes.get(backend)
        if last is None or not last.believed:
            return most
        if now - last.at >= _REMEMBERED_SECONDS:
            del self.closes[backend]
            return most
        return min(most, last.age - _margin(last.age))

    def forget(self, backend: Hashable) -> None:
        """There may be another program behind it, or none."""
        self.closes.pop(backend, None)
