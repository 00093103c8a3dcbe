"""How often somebody may ask: token buckets, one for each key, without a timer.

A bucket is kept as one number, the moment at which it will be full again
(the "theoretical arrival time" of the generic cell rate algorithm, ITU-T
I.371): a bucket that is full is the same as none, so that what is not used
costs nothing.  Time is an argument.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from functools import lru_cache

__all__ = ["MAX_KEYS", "Buckets", "rate_key"]

#: Buckets kept at once by one set; beyond it the one that was used longest ago is forgotten.
MAX_KEYS = 65536

#: Buckets that are looked at for being full again whenever a new one is made.
_SWEPT_EACH_TIME = 2


@lru_cache(maxsize=4096)  # clients come again: 0.1 µs against 5 for IPv6, several times a connection
def rate_key(address: str) -> str:
    """Whose bucket a request from *address* draws from: an IPv4 address, or an IPv6 /64.

    A /64 is what one customer gets; who has one has 2^64 addresses to ask from.
    """
    if ":" not in address or address.startswith("unix:"):
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return f"{parsed.packed[:8].hex()}::/64"


class Buckets:
    """Token buckets of one size and rate.

    :param requests: tokens that come back in *per* seconds.
    :param per: seconds.
    :param burst: tokens that a full bucket holds: requests at once; at least 1.
    """

    __slots__ = ("_full_at", "_interval", "_max_keys", "_slack")

    def __init__(self, requests: int, per: float = 1.0, burst: int = 1, max_keys: int = MAX_KEYS) -> None:
        self._interval = per / requests
        self._slack = (max(burst, 1) - 1) * self._interval
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._max_keys = max_keys

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """Take a token from the bucket of *key*.

        :return: 0 when there was one, else the seconds until there will be one.
        """
        full_at = self._full_at.get(key)
        if full_at is None:
            self._make_room(now)
            self._full_at[key] = now + self._interval
            return 0.0
        # A hair of tolerance: sums of a third of a second do not meet the second exactly.
        wait = full_at - self._slack - now
        if wait > 1e-9:
            return wait
        self._full_at[key] = max(full_at, now) + self._interval
        self._full_at.move_to_end(key)
        return 0.0

    def wait(self, key: str, now: float) -> float:
        """The seconds until *key* will have a token; 0 when it has one."""
        wait = self._full_at.get(key, 0.0) - self._slack - now
        return wait if wait > 1e-9 else 0.0

    def _make_room(self, now: float) -> None:
        # The oldest stand first.  Looking at two for each one that comes keeps
        # the set as small as its use, without ever walking through all of it.
        for _ in range(_SWEPT_EACH_TIME):
            if not self._full_at:
                return
            key = next(iter(self._full_at))
            if self._full_at[key] > now and len(self._full_at) < self._max_keys:
                return
            del self._full_at[key]
