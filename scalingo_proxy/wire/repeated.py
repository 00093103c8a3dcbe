"""What was found out about bytes that come again and again.

A client that keeps its connection sends nearly the same header section with
each request, which is why HTTP/2 has HPACK; reading it once is enough.  What is
known of some bytes is only ever given to whoever sends exactly those bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Repeated"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

#: So many bytes that came once are recognised when they come again.
_MOST_SEEN = 4096

#: So many look-ups in vain, and only every so many-eth is made.
_PATIENCE = 64
_ONE_OF = 64


class Repeated(Generic[K, T]):
    """What bytes that came more than once lately were found to mean.

    Bounded in entries, in the size of each, and in age: there are two generations, and what
    nobody has asked for in a whole one goes with it.  A generation is over when
    it is full, and when :meth:`turn` says so.  Of bytes that came once nothing is
    kept but a hash, so that who never repeats himself costs next to nothing.

    :param most: entries of one generation.
    :ivar recent: the younger generation; always the same dict, so that its bound
        ``get`` may be asked first (0.1 µs less than a method).
    :ivar misses: look-ups in vain since the last that was not, if who finds
        something sets it to 0.
    """

    __slots__ = ("_most", "_older", "_seen", "misses", "recent")

    def __init__(self, most: int) -> None:
        self._most = most
        self.recent: dict[K, T] = {}
        self._older: dict[K, T] = {}
        self._seen: set[int] = set()
        self.misses = 0

    def find_older(self, key: K) -> T | None:
        """What is known of *key* since the generation before, and from now on in this one, too."""
        value = self._older.pop(key, None)
        if value is None:
            self.misses += 1
        else:
            self.misses = 0
            self.keep(key, value)
        return value

    def is_hopeless(self) -> bool:
        """Whether to look for nothing this time: so much in vain that only now and then it is worth it."""
        if self.misses < _PATIENCE:
            return False
        self.misses += 1
        return self.misses % _ONE_OF != 0

    def is_second(self, key: K) -> bool:
        """Whether *key* came before, most likely; if not, it came now."""
        seen, mark = self._seen, hash(key)
        if mark in seen:
            return True
        if len(seen) >= _MOST_SEEN:
            seen.clear()
        seen.add(mark)
        return False

    def keep(self, key: K, value: T) -> None:
        """Know *value* when *key* comes again."""
        if len(self.recent) >= self._most:
            self.turn()
        self.recent[key] = value

    def turn(self) -> None:
        """Begin a generation, and forget the one before the last."""
        self._older = self.recent.copy()
        self.recent.clear()
        self._seen.clear()
        self.misses = 0
