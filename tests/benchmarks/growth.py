"""Costs that grow: with apps, idle connections, tunnels, deadlines and waiting hellos.

Run it with ``python -m tests.benchmarks.growth``; ``--help`` tells its options.
Everything is measured on the program as it is started, but for deadlines and
waiting hellos, which are timed in this process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Iterator

from scalingo_proxy.model import App, TopologyChange
from scalingo_proxy.protocols.deadlines import Deadlines, Timed
from scalingo_proxy.resolvers.store_file import StoreFile
from scalingo_proxy.routing.fair_queue import FairQueue
from tests.benchmarks.clients import hello_to
from tests.benchmarks.peers import Ours
from tests.benchmarks.programs import free_port
from tests.benchmarks.world import World, host

_QUIET_SECONDS = 5.0


class StoredProxy(Ours):
    """Ours, with its apps in its store."""

    def __init__(self, world: World, apps: int) -> None:
        self.state = os.path.join(world.directory, f"store-{apps}-{free_port()}.db")
        store = StoreFile(self.state)
        store.open()
        stored = [App(f"app{n}", (host(n),), (f"127.0.0.1:{world.http}",)) for n in range(apps)]
        stored.append(App("hello", ("hello.example",), (f"127.0.0.1:{world.hello}",), tls="passthrough"))
        store.write(TopologyChange(tuple(stored)))
        store.close()
        super().__init__(world, apps)

    def _start(self, world: World) -> None:
        began = time.monotonic()
        super()._start(world)
        while self.ask("GET", "/ready") != 200:
            time.sleep(0.02)
        self.start_seconds = time.monotonic() - began

    def _configuration(self, world: World) -> str:
        return f"""
[proxy]
state = "{self.state}"
[admin]
endpoint = "127.0.0.1:{self.admin}"
[[listen]]
protocol = "http"
endpoint = "127.0.0.1:{self.http}"
[[listen]]
protocol = "tls"
endpoint = "127.0.0.1:{self.passthrough}"
[log]
destination = "{world.directory}/growth.log"
[limits]
client_connections = 30000
[timeouts]
keep_alive = 600
idle = 600
"""

    def ask(self, method: str, path: str, body: object = None) -> int:
        """One request to the admin API; its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def apps(world: World, counts: list[int]) -> Iterator[str]:
    """Memory, start and the time of one change, by number of apps."""
    empty = 0.0
    for count in counts:
        proxy = StoredProxy(world, count)
        try:
            size = proxy.resident_bytes()
            took = []
            for number in range(30):
                app = {"domains": [host(number % count)], "backends": [f"127.0.0.1:{3000 + number}"]}
                began = time.monotonic()
                status = proxy.ask("PUT", f"/api/v1/apps/app{number % count}", app)
                took.append(time.monotonic() - began)
                if status not in (200, 201):
                    raise RuntimeError(f"the change was answered with {status}")
            each = f"{(size - empty) / count:7.0f} bytes an app" if empty else " " * 19
            empty = empty or size
            yield (
                f"{count:8d} apps: {size / 2**20:6.0f} MiB {each}, ready after {proxy.start_seconds:5.2f} s, "
                f"one change in {statistics.median(took) * 1e3:5.1f} ms"
            )
        finally:
            proxy.end()


def connections(world: World, idle: int, tunnels: int) -> Iterator[str]:
    """Memory of each, and what all of them cost while nothing happens."""
    request = f"GET / HTTP/1.1\r\nHost: {host(7)}\r\n\r\n".encode()
    kinds = (
        ("idle connections", idle, "http", request, 4096),
        ("tunnels", tunnels, "passthrough", hello_to("hello.example"), 1),
    )
    for title, count, door, words, expected in kinds:
        clients: list[socket.socket] = []
        # Each its own: what others have left behind would be used again and not be counted.
        proxy = StoredProxy(world, 10)
        try:
            port = getattr(proxy, door)
            before = proxy.resident_bytes()
            for _ in range(count):
                client = socket.create_connection(("127.0.0.1", port))
                client.sendall(words)
                if not client.recv(expected):
                    raise RuntimeError("closed")
                clients.append(client)
            size = proxy.resident_bytes() - before
            cpu = proxy.cpu_seconds()
            time.sleep(_QUIET_SECONDS)
            share = (proxy.cpu_seconds() - cpu) / _QUIET_SECONDS
            yield f"{count:8d} {title}: {size / count / 1000:5.1f} kB each, {share:.2%} of a core at rest"
        finally:
            for client in clients:
                client.close()
            proxy.end()


class _Clock:
    """Does not move by itself."""

    now = 0.0

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, function: object) -> _Clock:
        return self

    def cancel(self) -> None:
        pass


def deadlines(count: int) -> Iterator[str]:
    """Setting, and looking through, the deadlines of so many connections."""
    clock = _Clock()
    sweeping = Deadlines(clock)
    timed = [Timed() for _ in range(count)]
    for each in timed:
        sweeping.set(each, 60.0)
    began = time.process_time()
    for step in range(10):
        for each in timed:
            sweeping.set(each, 60.0 + step)
    setting = (time.process_time() - began) / (10 * count)
    clock.now = 60.5
    began = time.process_time()
    sweeping._sweep()
    looking = time.process_time() - began
    yield f"{count:8d} deadlines: {setting * 1e6:.2f} µs to move one, {looking * 1e3:.1f} ms to look at all"


def waiting_hellos(count: int) -> Iterator[str]:
    """Refusing one more hello while so many wait, each from an address and for an app of its own."""
    queue: FairQueue[int] = FairQueue()
    for each in range(count):
        queue.put(each, f"192.0.2.{each}", f"app{each}")
    began = time.process_time()
    for each in range(count, count + 1000):
        queue.put(each, f"192.0.2.{each}", f"app{each}")
        queue.drop()
    seconds = (time.process_time() - began) / 1000
    yield f"{count:8d} waiting hellos: {seconds * 1e6:.1f} µs to refuse one more"


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--apps", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--tunnels", type=int, default=5000)
    given = parser.parse_args(words)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    world = World(10)
    try:
        for lines in (
            apps(world, given.apps),
            connections(world, given.idle, given.tunnels),
            deadlines(given.idle),
            *map(waiting_hellos, (10, 1000)),
        ):
            for line in lines:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    finally:
        world.end()


if __name__ == "__main__":
    main(sys.argv[1:])
