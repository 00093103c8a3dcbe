"""What all pools have in hand together, in one walk: there may be thousands of them."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from scalingo_proxy.routing.pool import Pool

__all__ = ["PoolCounts", "count_pools"]


@attrs.frozen
class PoolCounts:
    """Sums over pools.

    :ivar backends: that serve; *draining* are those on their way out.
    """

    pools: int
    backends: int
    draining: int
    in_flight: int
    tunnels: int
    queued: int


def count_pools(pools: Iterable[Pool]) -> PoolCounts:
    """Walk over *pools* once."""
    number = backends = draining = in_flight = tunnels = queued = 0
    for pool in pools:
        number += 1
        queued += pool.queue.length
        for member in pool.members:
            backends += 1
            in_flight += member.in_flight
            tunnels += member.tunnels
        for member in pool.draining:
            draining += 1
            in_flight += member.in_flight
            tunnels += member.tunnels
    return PoolCounts(number, backends, draining, in_flight, tunnels, queued)
