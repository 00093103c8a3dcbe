"""``python -m tests.benchmarks.latency_cost``: latencies at half load, by how requests come.

All that the two rows of the table leave out: other percentiles, other arrivals,
the backend without a proxy, and how late the load itself was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence

from tests.benchmarks.half_load import half_load
from tests.benchmarks.loads import Latencies, open_loop
from tests.benchmarks.open_loop import ARRIVALS
from tests.benchmarks.peers import HAProxy, Ours
from tests.benchmarks.world import World

_SHARES = (0.1, 0.5, 0.9, 0.99)


def line(title: str, several: Sequence[Latencies]) -> str:
    """The medians of *several* rounds, in microseconds."""

    def median(ask: Callable[[Latencies], float]) -> float:
        return statistics.median(map(ask, several))

    took = "".join(f"{median(lambda each, s=share: each.percentile(s)) * 1e6:7.0f}" for share in _SHARES)
    late = "".join(f"{median(lambda each, s=share: each.lateness(s)) * 1e6:7.0f}" for share in (0.5, 0.99))
    return f"{title:24}{took}  {late}  {median(lambda each: each.core):5.0%}\n"


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0, help="a second; 0: half of what we carry")
    parser.add_argument("--arrivals", nargs="+", choices=ARRIVALS, default=ARRIVALS)
    given = parser.parse_args(words)
    world = World(1000)
    ours = haproxy = None
    try:
        ours, haproxy = Ours(world), HAProxy(world)
        ports = {"direct": world.http, ours.name: ours.http, haproxy.name: haproxy.http}
        rate = given.rate or half_load(world, ours, given.seconds)
        heading = "".join(f"{f'p{share * 100:.0f}':>7}" for share in _SHARES)
        sys.stdout.write(f"{f'{rate:.0f} requests/s; in µs:':24}{heading}  late p50    p99   core\n")
        for arrivals in given.arrivals:
            measured: dict[str, list[Latencies]] = {name: [] for name in ports}
            for number in range(given.rounds):
                for name, port in ports.items():
                    measured[name].append(open_loop(world, name, port, rate, given.seconds, number, arrivals))
            for name, several in measured.items():
                sys.stdout.write(line(f"{arrivals:8} {name}", several))
            sys.stdout.flush()
    finally:
        for peer in (ours, haproxy):
            if peer is not None:
                peer.end()
        world.end()


if __name__ == "__main__":
    main(sys.argv[1:])
