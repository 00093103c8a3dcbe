"""Latencies counted in coarse buckets, and quantiles read back out of them.

Buckets grow by a constant factor, so that a quantile is off by a quarter of
itself at most, whether it is a millisecond or a minute.  Pure numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["BOUNDS", "BUCKETS", "quantile"]

_FIRST_SECONDS = 0.0005
_FACTOR = 1.6

#: The upper bounds of the buckets in seconds, rising: half a millisecond to 40 s.
BOUNDS = tuple(_FIRST_SECONDS * _FACTOR**number for number in range(25))
#: How many buckets there are; the last one is for what is beyond every bound.
BUCKETS = len(BOUNDS) + 1


def quantile(counts: Sequence[int], part: float) -> float | None:
    """The latency that *part* of all stay below, in seconds, or ``None`` when there are none.

    :param counts: how many are in each bucket.
    :param part: above 0, at most 1.
    """
    wanted = sum(counts) * part
    if not wanted:
        return None
    below = 0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            if number == len(BOUNDS):
                break
            upper = BOUNDS[number]
            # Within a bucket they are taken to be spread as the bounds are.
            return float(upper * _FACTOR ** ((wanted - below) / count - 1))
        below += count
    return BOUNDS[-1]
