"""Requests at moments that do not depend on the answers: ``python -m tests.benchmarks.open_loop --help``.

Clients that know nothing of each other come at random (a Poisson process), also
while the proxy is busy.  So the moments are drawn before, each request is sent
at its moment, or as soon as a connection is free, and its latency counts from
the moment and not from the sending: a stall is felt by all whom it lets wait.
The first part of the time is for warming up and not counted.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.world import BROWSER_HEADERS, host

__all__ = ["ARRIVALS", "WARM_UP_SECONDS", "measured", "moments"]

#: Who comes when: at random; one by one at the same distance; all connections at once and then nobody.
ARRIVALS = ("random", "even", "bursts")

WARM_UP_SECONDS = 0.3

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
_PATIENCE_SECONDS = 10.0
_PR_SET_TIMERSLACK = 29


def moments(arrivals: str, rate: float, seconds: float, connections: int, seed: int) -> Iterator[float]:
    """When requests are sent, in seconds from the beginning.

    :param rate: requests a second.
    :param connections: how many come together in ``bursts``.
    """
    chance = random.Random(seed)
    moment, number = 0.0, 0
    while True:
        if arrivals == "random":
            moment += chance.expovariate(rate)
        elif arrivals == "even" or number % connections == 0:
            moment = number / rate
        number += 1
        if moment >= seconds:
            return
        yield moment


def _answer_bytes(received: bytes) -> int:
    """The size of an answer, 0 while its head is not there."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    length = _LENGTH.search(received, 0, end + 2)
    if length is None or not received.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"no 200 with a length: {received[:200]!r}")
    return end + 4 + int(length[1])


def measured(
    port: int, arrivals: str, rate: float, seconds: float, connections: int, seed: int = 1
) -> dict[str, Any]:
    """Latencies of the requests, and how late they were sent, in seconds; the share of a core it took."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in BROWSER_HEADERS.items())
    requests = [
        f"GET /some/path?page=2 HTTP/1.1\r\nHost: {host(number)}\r\n{fields}\r\n".encode()
        for number in range(10)
    ]
    idle = deque(socket.create_connection(("127.0.0.1", port)) for _ in range(connections))
    for client in idle:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    due = list(moments(arrivals, rate, WARM_UP_SECONDS + seconds, connections, seed))
    took, late = [0.0] * len(due), [0.0] * len(due)
    asked: dict[socket.socket, int] = {}
    parts: dict[socket.socket, bytes] = {}
    clock, wait = time.perf_counter, select.select
    upcoming = 0
    cpu, start = time.process_time(), clock() + 0.01
    while upcoming < len(due) or asked:
        now = clock() - start
        while upcoming < len(due) and due[upcoming] <= now and idle:
            client = idle.popleft()  # the one that was idle longest: all take part
            client.sendall(requests[upcoming % 10])
            late[upcoming] = now - due[upcoming]
            asked[client] = upcoming
            upcoming += 1
        is_free = upcoming < len(due) and idle
        patience = max(0.0, due[upcoming] - (clock() - start)) if is_free else _PATIENCE_SECONDS
        readable = wait(list(asked), (), (), patience)[0]
        if not readable and not is_free:
            raise RuntimeError(f"{len(asked)} requests were not answered within {_PATIENCE_SECONDS} s")
        for client in readable:
            received = parts.pop(client, b"") + client.recv(65536)
            now = clock() - start
            if not received:
                raise RuntimeError("closed")
            if not 0 < _answer_bytes(received) <= len(received):
                parts[client] = received
                continue
            number = asked.pop(client)
            took[number] = now - due[number]
            idle.append(client)
    lasted = clock() - start
    cpu = (time.process_time() - cpu) / lasted
    for client in idle:
        client.close()
    first = next((number for number, moment in enumerate(due) if moment >= WARM_UP_SECONDS), len(due))
    return {"took": sorted(took[first:]), "late": sorted(late[first:]), "core": cpu, "seconds": lasted}


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.open_loop", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float, help="requests a second")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--arrivals", choices=ARRIVALS, default="random")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(words)
    gc.disable()
    if sys.platform == "linux":  # wake up on time; by default, up to 50 µs later
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    told = measured(given.port, given.arrivals, given.rate, given.seconds, given.connections, given.seed)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
