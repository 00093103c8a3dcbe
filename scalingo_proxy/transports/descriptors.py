"""How many descriptors the process may open, has open, and can spare for what.

The decisions are arithmetic on one reading of two numbers; who waits, and for
how long, is the business of whoever asks.  In this order things go without
when descriptors run short: first new clients, then pipes, then backend
connections beyond one for each client.  What is left after that is for the
admin API, probes, the store and the log.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import attrs

try:
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
except ImportError:  # pragma: no cover - Windows has no such limit
    _HAS_LIMIT = False
else:
    _HAS_LIMIT = True

__all__ = ["SHORTAGES", "Descriptors", "RecentDescriptors", "limit_for", "raise_limit", "read_descriptors"]

#: What the system answers when there are none left: to the process, or at all.
SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE))

#: The part of the limit that is kept from clients, between these two numbers.
_RESERVED_PART = 8
_LEAST_RESERVE = 24
_LARGEST_RESERVE = 512

#: What is open beside clients and backends, where the system does not tell.
_ASSUMED_OTHERS = 32

_NO_LIMIT = 1 << 30


#: How often, and how long, one reading is used while there is plenty.
_MOST_USES = 64
_GOOD_FOR_SECONDS = 0.1


@attrs.frozen
class Descriptors:
    """The limit of the process and how far it is used, at one moment.

    :ivar limit: how many it may have open.
    :ivar used: how many it has.
    :ivar reserve: how many are kept from clients; of a very low limit no more than a third.
    """

    limit: int
    used: int
    reserve: int = attrs.field(init=False, eq=False, repr=False)

    @reserve.default
    def _reserve(self) -> int:
        # Once for all uses of a reading (0.5 µs less for each).
        part = self.limit // _RESERVED_PART
        return min(max(part, _LEAST_RESERVE), _LARGEST_RESERVE, self.limit // 3)

    def room_for_clients(self, owed: int) -> int:
        """How many clients may come in, each of whom may need a backend connection.

        :param owed: clients who are here and may still need theirs.
        """
        return max(0, (self.limit - self.used - owed - self.reserve) // 2)

    def has_room_for_pipe(self, owed: int) -> bool:
        """Whether a pipe may be opened; without one bytes take the ordinary way."""
        return self.limit - self.used - owed > self.reserve // 2 + 1

    def has_room_for_backend(self) -> bool:
        """Whether a connection to a backend may be begun."""
        return self.limit - self.used > self.reserve // 2


def read_descriptors(count: Callable[[], int]) -> Descriptors:
    """The numbers of this process, now.

    :param count: tells how many clients and backends are connected, which is
        asked where the system does not tell what is open.
    """
    if not _HAS_LIMIT:  # pragma: no cover
        return Descriptors(_NO_LIMIT, 0)
    limit = getrlimit(RLIMIT_NOFILE)[0]
    try:
        used = os.stat("/proc/self/fd").st_size  # Linux tells the number since 6.2, and 0 before
    except OSError:
        used = 0
    return Descriptors(_NO_LIMIT if limit == RLIM_INFINITY else limit, used or count() + _ASSUMED_OTHERS)


class RecentDescriptors:
    """The numbers of this process, read anew only when that may matter.

    While most descriptors are free, a reading is good for some uses and a moment,
    each of which costs one descriptor or two: 3 µs less for each use.

    :param read: reads them.
    :param seconds: the monotonic clock.
    """

    def __init__(self, read: Callable[[], Descriptors], seconds: Callable[[], float]) -> None:
        self._read = read
        self._seconds = seconds
        self._last: Descriptors | None = None
        self._uses = 0
        self._until = 0.0

    def __call__(self) -> Descriptors:
        last = self._last
        if last is not None and self._uses and self._seconds() < self._until:
            self._uses -= 1
            return last
        self._last = last = self._read()
        self._uses = min((last.limit - last.used) // 16, _MOST_USES) if last.used < last.limit // 2 else 0
        self._until = self._seconds() + _GOOD_FOR_SECONDS
        return last


def limit_for(clients: int) -> int:
    """The limit of descriptors with which so many clients fit."""
    needed = 2 * clients + _ASSUMED_OTHERS
    return needed + min(max(needed // (_RESERVED_PART - 1), _LEAST_RESERVE), _LARGEST_RESERVE)


def raise_limit(wanted: int) -> int:
    """Raise what this process may open to *wanted*, as far as the system lets it.

    :return: the limit in effect, which is never lower than before.
    """
    if not _HAS_LIMIT:  # pragma: no cover
        return _NO_LIMIT
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if soft == RLIM_INFINITY or soft >= wanted:
        return _NO_LIMIT if soft == RLIM_INFINITY else soft
    limit = wanted if hard == RLIM_INFINITY else min(wanted, hard)
    try:
        setrlimit(RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):
        return soft
    return limit
