"""Deploys and stops as clients see them, with real programs on both sides."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

import attrs
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.authorities import Authority
from tests.integration import counting_backend
from tests.integration.programs import IntegrationTestCase, free_port, wait_for
from tests.integration.servers import SocketServer, read_head
from tests.protocols.passthrough_worlds import hello as tls_hello

#: The long form is for a person: SCALINGO_LONG_TESTS=1.
_IS_LONG = bool(os.environ.get("SCALINGO_LONG_TESTS"))

RATE = 200 if _IS_LONG else 100
GAP_SECONDS = 5.0 if _IS_LONG else 2.0
WEBSOCKETS = 1000 if _IS_LONG else 100


def tell(figures: str) -> None:
    """Show a person what was measured."""
    if _IS_LONG:
        sys.stdout.write(f"\n{figures}\n")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 60.0) -> Any:
        return self.begin(work).result(seconds)

    def end(self) -> None:
        async def cancel() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@attrs.define
class Load:
    """Requests at a constant rate, whatever becomes of those before.

    :ivar answers: how many ended how: a status, or the name of an exception.
    :ivar slowest: the longest time a request took, seconds.
    """

    port: int
    rate: float
    answers: Counter[str] = attrs.field(factory=Counter)
    slowest: float = 0.0
    count: int = 0
    is_over: bool = False

    async def run(self) -> None:
        """Ask until it :attr:`is_over`, and wait for the last answer."""
        began = time.monotonic()
        asked: set[asyncio.Task[None]] = set()
        while not self.is_over:
            asked.add(asyncio.create_task(self._ask(self.count)))
            self.count += 1
            await asyncio.sleep(began + self.count / self.rate - time.monotonic())
        await asyncio.gather(*asked)

    async def _ask(self, number: int) -> None:
        began = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            if number % 2:
                request = b"POST /%d HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 4\r\n\r\nbody"
            else:
                request = b"GET /%d HTTP/1.1\r\nHost: hello.test\r\n\r\n"
            writer.write(request % number)
            head = await reader.readuntil(b"\r\n\r\n")
            answer = head.split(b" ")[1].decode()
            writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            answer = type(error).__name__
        self.answers[answer] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)


class DeployTestCase(IntegrationTestCase):
    """Has an event loop for clients and servers."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.codes_at_backend: Counter[int] = Counter()
        self.addCleanup(self.loop.end)

    def start_backend(self, port: int, notes: str) -> subprocess.Popen[bytes]:
        """A counting backend that listens."""
        process = subprocess.Popen(
            [sys.executable, counting_backend.__file__, str(port), notes], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"up\n")
        return process

    def serve_websockets(self) -> str:
        """The address of a server that echoes messages."""

        async def echo(connection: ServerConnection) -> None:
            try:
                async for message in connection:
                    await connection.send(message)
            except ConnectionClosed as closed:
                self.codes_at_backend[closed.rcvd.code if closed.rcvd else 1006] += 1

        async def start() -> Any:
            return await serve(echo, "127.0.0.1", 0, ping_interval=None)

        server = self.loop.run(start())
        return f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    def open_websockets(
        self, port: int, count: int, context: ssl.SSLContext | None = None
    ) -> list[ClientConnection]:
        """So many WebSockets, over TLS with a *context*, each of which has carried a message."""
        url = "wss://hello.test/" if context else "ws://hello.test/"

        async def open_one(number: int) -> ClientConnection:
            connection = await connect(
                url, host="127.0.0.1", port=port, ssl=context, ping_interval=None, proxy=None
            )
            await connection.send(f"message {number}")
            assert await connection.recv() == f"message {number}"
            return connection

        async def open_all() -> list[ClientConnection]:
            opened: list[ClientConnection] = []
            for start in range(0, count, 50):
                batch = (open_one(number) for number in range(start, min(start + 50, count)))
                opened += await asyncio.gather(*batch)
            return opened

        connections: list[ClientConnection] = self.loop.run(open_all())
        return connections

    def ends_of(self, connections: list[ClientConnection]) -> Future[list[tuple[int, float]]]:
        """With which code each one closes, and when."""

        async def end_of(connection: ClientConnection) -> tuple[int, float]:
            try:
                await connection.recv()
            except ConnectionClosed as closed:
                return (closed.rcvd.code if closed.rcvd else 1006), time.monotonic()
            raise AssertionError("a message that nobody sent")

        async def all_ends() -> list[tuple[int, float]]:
            return await asyncio.gather(*(end_of(connection) for connection in connections))

        return self.loop.begin(all_ends())


class PauseTests(DeployTestCase):
    """A deploy that has to stop the old backend before it can start the new one."""

    def test_stop_then_start(self) -> None:
        """Under pause, with nobody there for seconds, every request is answered 200 and executed once."""
        self.deploy(free_port())

    def test_stop_then_start_at_the_same_address(self) -> None:
        """The same with a backend that comes back where it was, and is probed all the while."""
        self.deploy(0, "health = { interval = 0.2, timeout = 0.5 }")

    def deploy(self, other_port: int, rest: str = "") -> None:
        notes = os.path.join(self.directory(), "executed")
        port = free_port()
        old = self.start_backend(port, notes)
        proxy = self.start_proxy(self.app("hello", [f"127.0.0.1:{port}"], rest=rest))
        load = Load(proxy.port, RATE)
        running = self.loop.begin(load.run())
        wait_for(lambda: load.answers["200"] > RATE / 2, "ordinary traffic")
        app = "/api/v1/apps/hello"
        self.assertEqual(proxy.admin("POST", f"{app}/pause")[0], 200)
        wait_for(
            lambda: not proxy.admin("GET", f"{app}/backends")[1]["backends"][0]["in_flight"],
            "the last answer",
        )
        old.kill()
        old.wait()
        time.sleep(GAP_SECONDS)
        self.start_backend(other_port or port, notes)
        backends = {"backends": [f"127.0.0.1:{other_port or port}"]}
        self.assertEqual(proxy.admin("PUT", f"{app}/backends", backends)[0], 200)
        self.assertEqual(proxy.admin("POST", f"{app}/resume")[0], 200)
        at_resume = load.count
        wait_for(lambda: load.count > at_resume + RATE, "further traffic")
        load.is_over = True
        running.result(60)
        self.assertEqual(load.answers, {"200": load.count})
        self.assertGreater(load.slowest, GAP_SECONDS)
        with open(notes) as file:
            executed = Counter(file.read().split())
        self.assertEqual((len(executed), set(executed.values())), (load.count, {1}))
        tell(f"{load.count} requests at {RATE}/s, {GAP_SECONDS} s gap, slowest {load.slowest:.2f} s")


class DrainTests(DeployTestCase):
    """WebSockets at a backend that leaves its app."""

    def test_websockets(self) -> None:
        """All see 1012 and none at the same moment, and whoever waits for the drain is told."""
        proxy = self.start_proxy("[timeouts]\ndrain = 1\n" + self.app("hello", [self.serve_websockets()]))
        connections = self.open_websockets(proxy.port, WEBSOCKETS)
        ends = self.ends_of(connections)
        began = time.monotonic()
        status, told = proxy.admin("PUT", "/api/v1/apps/hello/backends?wait=drained", {"backends": []})
        took = time.monotonic() - began
        self.assertEqual((status, told), (200, {"backends": []}))
        codes, moments = zip(*ends.result(30), strict=True)
        self.assertEqual(Counter(codes), {1012: WEBSOCKETS})
        wait_for(lambda: self.codes_at_backend == {1012: WEBSOCKETS}, "the same code at the backend")
        spread = max(moments) - min(moments)
        self.assertGreater(min(moments) - began, 0.9)
        self.assertGreater(spread, min(WEBSOCKETS * 0.01, 5.0) * 0.7)
        self.assertLess(took, 1 + min(WEBSOCKETS * 0.01, 5.0) + 3)
        tell(f"{WEBSOCKETS} WebSockets closed with 1012 over {spread:.2f} s, drained in {took:.2f} s")

    def test_over_tls(self) -> None:
        """The same where TLS ends here."""
        authority, directory, port = Authority(), self.directory(), free_port()
        chain, key = authority.issue(["hello.test"])
        for name, content in (("cert.pem", chain), ("key.pem", key)):
            with open(os.path.join(directory, name), "w") as file:
                file.write(content)
        proxy = self.start_proxy(
            f'[[listen]]\nprotocol = "tls"\nendpoint = "127.0.0.1:{port}"\n[timeouts]\ndrain = 0.2\n'
            + self.app(
                "hello",
                [self.serve_websockets()],
                rest='certificate = { cert = "cert.pem", key = "key.pem" }',
            ),
            directory=directory,
        )
        context = ssl.create_default_context(cadata=authority.pem)
        ends = self.ends_of(self.open_websockets(port, 20, context))
        status, _ = proxy.admin("PUT", "/api/v1/apps/hello/backends?wait=drained", {"backends": []})
        self.assertEqual(status, 200)
        codes, _ = zip(*ends.result(30), strict=True)
        self.assertEqual(Counter(codes), {1012: 20})
        self.assertNotIn("Traceback", proxy.output)


class StopTests(DeployTestCase):
    """SIGTERM with everything under way."""

    def test_under_load(self) -> None:
        """Clients that never pause, over new connections and kept ones, see no request broken."""
        port = free_port()
        self.start_backend(port, os.path.join(self.directory(), "executed"))
        proxy = self.start_proxy('[log]\nrequests = "off"\n' + self.app("hello", [f"127.0.0.1:{port}"]))
        ends: Counter[str] = Counter()

        async def ask(requests: int) -> None:
            """So many requests over one connection, again and again, until nobody listens."""
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                except OSError as refused:
                    ends[type(refused).__name__] += 1
                    return
                try:
                    for _ in range(requests):
                        writer.write(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
                        head = await reader.readuntil(b"\r\n\r\n")
                        ends[head.split(b" ")[1].decode()] += 1
                        await reader.readexactly(2)
                        if b"Connection: close" in head:
                            break
                except (OSError, asyncio.IncompleteReadError) as error:
                    ends[f"broken: {type(error).__name__}"] += 1
                writer.close()

        asking = [self.loop.begin(ask(requests)) for requests in [1] * 20 + [1_000_000] * 20]
        wait_for(lambda: ends["200"] > 500, "traffic")
        proxy.signal(signal.SIGTERM)
        self.assertEqual(proxy.wait(), 0)
        for each in asking:
            each.result(10)
        self.assertEqual(ends, {"200": ends["200"], "ConnectionRefusedError": 40})
        tell(f"{ends['200']} requests, none broken by the stop")

    def test_sigterm(self) -> None:
        """Slow requests are answered, WebSockets get 1012, tunnels end, and the process within the limit."""
        drain = 6.0

        def slow(connection: socket.socket) -> None:
            read_head(connection)
            time.sleep(drain - 1)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

        def tunnel(connection: socket.socket) -> None:
            while data := connection.recv(65536):
                connection.sendall(data)

        servers = [SocketServer(slow), SocketServer(tunnel)]
        for server in servers:
            self.addCleanup(server.close)
        tls_port = free_port()
        proxy = self.start_proxy(
            f"""
[[listen]]
protocol = "tls"
endpoint = "127.0.0.1:{tls_port}"
[timeouts]
drain = {drain}
[log]
requests = "off"
"""
            + self.app("hello", [self.serve_websockets()])
            + self.app("slow", [servers[0].address])
            + self.app("sealed", [servers[1].address], rest='tls = "passthrough"')
        )
        ends = self.ends_of(self.open_websockets(proxy.port, WEBSOCKETS))
        sealed = []
        for _ in range(20):
            tunnelled = socket.create_connection(("127.0.0.1", tls_port), timeout=30)
            self.addCleanup(tunnelled.close)
            tunnelled.sendall(tls_hello(b"sealed.test"))
            self.assertTrue(tunnelled.recv(65536))
            sealed.append(tunnelled)
        waiting = []
        for _ in range(50):
            client = proxy.connect()
            self.addCleanup(client.close)
            client.sendall(b"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n")
            waiting.append(client)
        wait_for(lambda: proxy.admin("GET", "/api/v1/status")[1]["in_flight"] == 50, "slow requests")
        began = time.monotonic()
        proxy.signal(signal.SIGTERM)
        for client in waiting:
            head, rest = read_head(client)
            while len(rest) < 4:
                rest += client.recv(10)
            self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
            self.assertIn(b"\r\nConnection: close\r\n", head)
            self.assertEqual(rest, b"slow")
            self.assertEqual(client.recv(10), b"")
        codes, _ = zip(*ends.result(30), strict=True)
        self.assertEqual(Counter(codes), {1012: WEBSOCKETS})
        for tunnelled in sealed:
            while tunnelled.recv(65536):
                pass
        self.assertEqual(proxy.wait(), 0)
        took = time.monotonic() - began
        self.assertLess(took, drain + 0.5)
        self.assertNotIn("Traceback", proxy.output)
        tell(f"{WEBSOCKETS} WebSockets, 20 tunnels, 50 slow requests: gone in {took:.2f} of {drain} s")
