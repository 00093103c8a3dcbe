"""What is measured: the rows of the table, each with its unit, its load and its targets.

A row asks each peer for the cost of one unit, round after round in turns, and
compares the median of ours with that of the best native peer.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from tests.benchmarks.half_load import DIRECT, at_half_load
from tests.benchmarks.loads import Load, clients, h2load, wrk
from tests.benchmarks.peers import AiohttpProxy, HAProxy, Nginx, NginxStream, Ours, Peer, TwistedWebProxy
from tests.benchmarks.programs import Missing
from tests.benchmarks.world import World, host

__all__ = ["ROWS", "Result", "Row", "Scale", "measure"]

_HTTP_PEERS = (Ours, Nginx, HAProxy, AiohttpProxy, TwistedWebProxy)
_TLS_PEERS = (Ours, Nginx, HAProxy)
_TUNNEL_PEERS = (Ours, NginxStream, HAProxy)


@attrs.frozen
class Scale:
    """How much is done of everything.

    :ivar rounds: how often the peers take turns.
    :ivar seconds: how long a turn lasts, where a load is told so.
    :ivar share: of the usual number of units, where a load counts.
    """

    rounds: int = 5
    seconds: int = 1
    share: float = 1.0

    def count(self, usual: int) -> int:
        return max(1, round(usual * self.share))


@attrs.define
class Result:
    """What came out for one row.

    :ivar costs: by peer, the cost of each round.
    :ivar against: the name of what ours is compared with.
    """

    row: Row
    costs: dict[str, list[float]] = attrs.field(factory=dict)
    against: str = ""

    def median(self, name: str) -> float:
        return statistics.median(self.costs[name])

    @property
    def ratio(self) -> float | None:
        """Ours to the best native peer's; of a row without any peer, None."""
        return self.median(Ours.name) / self.median(self.against) if self.against else None


@attrs.frozen
class Row:
    """One line of the table.

    :ivar target: the ratio that is to be met first; *wanted* where we want to be.
    :ivar measure: fills in a result.
    """

    name: str
    unit: str
    target: float
    wanted: float
    measure: Callable[[World, Scale, Result, Callable[[str], None]], None]


@contextmanager
def _running(world: World, kinds: tuple[Any, ...], tell: Callable[[str], None]) -> Iterator[list[Peer]]:
    peers: list[Peer] = []
    try:
        for kind in kinds:
            try:
                peers.append(kind(world))
            except Missing as missing:
                tell(f"left out: {missing}")
        yield peers
    finally:
        for peer in peers:
            peer.end()


def _compare(result: Result, peers: list[Peer]) -> None:
    native = [peer.name for peer in peers if peer.is_native]
    result.against = min(native, key=result.median, default="")


def _cpu(
    kinds: tuple[Any, ...], scale_by: float, make_load: Callable[[World, Scale], Load]
) -> Callable[[World, Scale, Result, Callable[[str], None]], None]:
    """A row of CPU time: *scale_by* turns seconds into the row's unit."""

    def run(world: World, scale: Scale, result: Result, tell: Callable[[str], None]) -> None:
        load = make_load(world, scale)
        with _running(world, kinds, tell) as peers:
            for peer in peers:  # once for nothing: connections are made, caches filled
                load(peer)
            for number in range(scale.rounds):
                for peer in peers if number % 2 else peers[::-1]:
                    before = peer.cpu_seconds()
                    units = load(peer)
                    cost = (peer.cpu_seconds() - before) / units * scale_by
                    result.costs.setdefault(peer.name, []).append(cost)
            _compare(result, peers)

    return run


def _idle(world: World, scale: Scale, result: Result, tell: Callable[[str], None]) -> None:
    """Memory of clients that have asked once and keep their connection."""

    def connect(peer: Peer, count: int) -> list[socket.socket]:
        request = f"GET / HTTP/1.1\r\nHost: {host(7)}\r\n\r\n".encode()
        connected = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", peer.http))
            client.sendall(request)
            if not client.recv(4096):
                raise RuntimeError(f"{peer.name} has closed")
            connected.append(client)
        return connected

    count = scale.count(4000)
    with _running(world, _TLS_PEERS, tell) as peers:
        for peer in peers:
            first = connect(peer, scale.count(500))
            before = peer.resident_bytes()
            more = connect(peer, count)
            result.costs[peer.name] = [(peer.resident_bytes() - before) / count / 1000]
            for client in (*first, *more):
                client.close()


def _routes(world: World, scale: Scale, result: Result, tell: Callable[[str], None]) -> None:
    """100,000 apps against 10, both ours."""
    load = wrk(world, scale.seconds, apps=10)
    few, many = Ours(world, 10), None
    try:
        many = Ours(world, scale.count(100_000))
        sizes: dict[str, Peer] = {"10 apps": few, Ours.name: many}
        for peer in sizes.values():
            load(peer)
        for number in range(scale.rounds * 2):
            for name in list(sizes) if number % 2 else list(sizes)[::-1]:
                before = sizes[name].cpu_seconds()
                units = load(sizes[name])
                cost = (sizes[name].cpu_seconds() - before) / units * 1e6
                result.costs.setdefault(name, []).append(cost)
        result.against = "10 apps"
    finally:
        few.end()
        if many is not None:
            many.end()


def _latency(percentile: float) -> Callable[[World, Scale, Result, Callable[[str], None]], None]:
    """What a proxy adds to the latency at half of the load that ours can carry; clients come at random."""

    def run(world: World, scale: Scale, result: Result, tell: Callable[[str], None]) -> None:
        with _running(world, (Ours, HAProxy), tell) as peers:
            came = at_half_load(world, peers, scale.rounds, scale.seconds, tell)
            for peer in peers:
                result.costs[peer.name] = [
                    (took.percentile(percentile) - direct.percentile(percentile)) * 1e6
                    for took, direct in zip(came[peer.name], came[DIRECT], strict=True)
                ]
            _compare(result, peers)

    return run


ROWS = (
    Row("http_keepalive", "µs/request", 1.8, 1.0, _cpu(_HTTP_PEERS, 1e6, lambda w, s: wrk(w, s.seconds))),
    Row(
        "http_connection",
        "µs/request",
        3.0,
        1.3,
        _cpu(_HTTP_PEERS, 1e6, lambda w, s: wrk(w, s.seconds, close=True)),
    ),
    Row(
        "http_large_body",
        "CPU s/GB",
        1.2,
        1.0,
        _cpu(_TLS_PEERS, 1, lambda w, s: clients(w, "bodies", s.count(4), "http")),
    ),
    Row(
        "passthrough_bulk",
        "CPU s/GB",
        1.0,
        0.85,
        _cpu(_TUNNEL_PEERS, 1, lambda w, s: clients(w, "bulk", s.count(8), "passthrough")),
    ),
    Row(
        "passthrough_connection",
        "µs/connection",
        2.2,
        1.5,
        _cpu(_TUNNEL_PEERS, 1e6, lambda w, s: clients(w, "hellos", s.count(1500), "passthrough")),
    ),
    Row(
        "tls_handshake",
        "µs/handshake",
        1.4,
        1.2,
        _cpu(_TLS_PEERS, 1e6, lambda w, s: clients(w, "handshakes", s.count(400), "https")),
    ),
    Row(
        "https_keepalive",
        "µs/request",
        2.5,
        1.5,
        _cpu(_TLS_PEERS, 1e6, lambda w, s: h2load(w, s.seconds, ["--h1", "-c32"])),
    ),
    Row(
        "h2_request",
        "µs/request",
        8.0,
        2.0,
        _cpu(_TLS_PEERS, 1e6, lambda w, s: h2load(w, s.seconds, ["-c8", "-m16"])),
    ),
    Row("idle_connection", "kB", 6.0, 3.0, _idle),
    Row("routes", "µs/request", 1.05, 1.0, _routes),
    Row("latency_p50", "µs added", 2.0, 1.0, _latency(0.5)),
    Row("latency_p99", "µs added", 3.0, 1.5, _latency(0.99)),
)


def measure(row: Row, world: World, scale: Scale, tell: Callable[[str], None]) -> Result:
    """One row.

    :raises RuntimeError: it cannot be measured, as the sentence says, which names the row and the peer.
    """
    result = Result(row)
    try:
        row.measure(world, scale, result, tell)
    except RuntimeError as error:
        raise RuntimeError(f"{row.name}: {error}") from error
    return result
