"""Latencies at half of the load that ours can carry: all percentiles of the table come from the same rounds.

Rounds are short and many, and the peers take turns in each, so that what the
machine does beside them hits all alike, and the medians are of many.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from tests.benchmarks.loads import Latencies, h2load, open_loop
from tests.benchmarks.machine import busy_seconds, cpu_seconds
from tests.benchmarks.peers import Peer
from tests.benchmarks.world import World

__all__ = ["DIRECT", "at_half_load", "half_load"]

#: The name of the backend without a proxy.
DIRECT = "the backend"

#: How many rounds there are for each that was asked for, and how long the peers are warmed up.
_ROUNDS, _WARM_UP_SECONDS = 3, 0.5

# A load that is busier, or later, than this measures itself; a machine that does more beside it, that.
_BUSY_SHARE, _LATE_SECONDS, _OTHERS_SHARE = 0.6, 0.0001, 0.1

_known: WeakKeyDictionary[World, dict[str, list[Latencies]]] = WeakKeyDictionary()


def half_load(world: World, ours: Peer, seconds: int) -> float:
    """Half of the requests a second that ours can carry, from what one costs when it is never idle."""
    load = h2load(world, seconds, ["--plain", "--h1", "-c32"])
    load(ours)
    before = ours.cpu_seconds()
    units = load(ours)
    return 0.5 * units / (ours.cpu_seconds() - before)


def at_half_load(
    world: World, peers: Sequence[Peer], rounds: int, seconds: int, tell: Callable[[str], None]
) -> dict[str, list[Latencies]]:
    """The latencies of each of *peers*, of which ours is the first, and of :data:`DIRECT`, by round.

    What was measured in a world once is not measured again.
    """
    if world not in _known:
        _known[world] = _measured(world, peers, rounds * _ROUNDS, seconds, tell)
    return _known[world]


def _measured(
    world: World, peers: Sequence[Peer], rounds: int, seconds: int, tell: Callable[[str], None]
) -> dict[str, list[Latencies]]:
    rate = half_load(world, peers[0], seconds)
    for peer in peers:
        open_loop(world, peer.name, peer.http, rate, _WARM_UP_SECONDS, 0)
    came: dict[str, list[Latencies]] = {DIRECT: [], **{peer.name: [] for peer in peers}}
    shares: dict[str, list[float]] = {peer.name: [] for peer in peers}
    others = []
    for number in range(rounds):
        began, before = time.monotonic(), busy_seconds() - _ours_seconds(world, peers)
        # All get the same moments, the backend without a proxy among them.
        direct = open_loop(world, DIRECT, world.http, rate, seconds, number)
        came[DIRECT].append(direct)
        for peer in peers if number % 2 else peers[::-1]:
            cpu = peer.cpu_seconds()
            took = open_loop(world, peer.name, peer.http, rate, seconds, number)
            came[peer.name].append(took)
            shares[peer.name].append((peer.cpu_seconds() - cpu) / took.seconds)
        beside = busy_seconds() - _ours_seconds(world, peers) - before
        others.append(beside / (time.monotonic() - began))
    tell(_told(rate, came[DIRECT], shares, others))
    return came


def _ours_seconds(world: World, peers: Sequence[Peer]) -> float:
    """The CPU time of all that takes part."""
    loads = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    used = loads.ru_utime + loads.ru_stime + own.ru_utime + own.ru_stime
    return used + sum(peer.cpu_seconds() for peer in peers) + sum(map(cpu_seconds, world.pids()))


def _told(
    rate: float, direct: Sequence[Latencies], shares: dict[str, list[float]], others: Sequence[float]
) -> str:
    """What the medians of a row do not say."""
    late = statistics.median(each.lateness(0.5) for each in direct)
    busy = statistics.median(each.core for each in direct)
    beside = statistics.median(others)
    cores = ", ".join(f"{name} {statistics.median(several):.0%}" for name, several in shares.items())
    said = f"shares of a core at {rate:.0f} requests/s: {cores}, the load {busy:.0%}, "
    said += f"everybody else on the machine {beside:.0%}; the load was {late * 1e6:.0f} µs late"
    is_sound = busy <= _BUSY_SHARE and late <= _LATE_SECONDS and beside <= _OTHERS_SHARE
    return said if is_sound else f"{said}: do not rely on these latencies"
