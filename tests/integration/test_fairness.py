"""One app in trouble, and what its neighbours notice of it: nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

from tests.integration.programs import IntegrationTestCase, ProxyProcess, wait_for
from tests.integration.servers import read_head
from tests.integration.test_many_connections import read_answer
from tests.soak import backend as program

#: How much longer than alone the middle request of a neighbour may take, and the slowest but for a few.
MIDDLE_SECONDS, LATE_SECONDS = 0.015, 0.100


class FairnessTests(IntegrationTestCase):
    """Two apps: ``hello`` is well, ``other`` is not."""

    def start_backend(self, *, hung: bool = False) -> str:
        """The address of a backend of its own process; one that is hung accepts and never answers."""
        if hung:
            listening = socket.create_server(("127.0.0.1", 0), backlog=2000)
            self.addCleanup(listening.close)
            return f"127.0.0.1:{listening.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", program.__file__, "hello-1", "0", os.devnull],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        return f"127.0.0.1:{int(process.stdout.readline())}"

    def latencies(self, proxy: ProxyProcess, count: int = 200) -> tuple[float, float]:
        """How long the middle and the late ones of so many requests to ``hello`` take, in seconds."""
        took = []
        with proxy.connect() as client:
            for _ in range(count):
                began = time.perf_counter()
                client.sendall(b"GET /x HTTP/1.1\r\nHost: hello.test\r\n\r\n")
                answer = read_answer(client)
                took.append(time.perf_counter() - began)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
                time.sleep(0.003)
        took.sort()
        return took[count // 2], took[count * 95 // 100]

    def check(self, proxy: ProxyProcess, alone: tuple[float, float]) -> None:
        """The neighbour is as fast as it was alone, but for what a busy machine adds."""
        middle, late = self.latencies(proxy)
        told = ", ".join(f"{1000 * seconds:.1f} ms" for seconds in (*alone, middle, late))
        sys.stdout.write(f"\n    alone, and beside the other: {told} (middle and 95 % of each) ")
        self.assertLess(middle, alone[0] + MIDDLE_SECONDS)
        self.assertLess(late, alone[1] + LATE_SECONDS)

    def flood(self, proxy: ProxyProcess, statuses: Counter[bytes], stop: threading.Event) -> threading.Thread:
        """Ask ``other`` again and again over new connections, about 200 times a second."""

        def ask() -> None:
            while not stop.is_set():
                with proxy.connect() as client:
                    client.sendall(b"GET /x HTTP/1.1\r\nHost: other.test\r\n\r\n")
                    statuses[read_head(client)[0][9:12]] += 1
                time.sleep(0.005)

        thread = threading.Thread(target=ask)
        thread.start()
        self.addCleanup(thread.join, 30)
        self.addCleanup(stop.set)
        return thread

    def start(self, other: str, limits: str) -> ProxyProcess:
        apps = self.app("hello", [self.start_backend()]) + self.app("other", [other], rest=limits)
        return self.start_proxy("[timeouts]\nfirst_byte = 60.0\nqueue = 60.0\n" + apps)

    def hold(self, proxy: ProxyProcess, count: int) -> None:
        """So many requests to ``other`` that nobody answers."""
        for _ in range(count):
            client = proxy.connect()
            self.addCleanup(client.close)
            client.sendall(b"GET /x HTTP/1.1\r\nHost: other.test\r\n\r\n")

    def test_full_queue(self) -> None:
        """A backend that never answers, a queue that is full, and hundreds a second that are refused."""
        proxy = self.start(
            self.start_backend(hung=True), "limits = { in_flight_per_backend = 50, queue_per_backend = 150 }"
        )
        alone = self.latencies(proxy)
        self.hold(proxy, 200)

        def is_full() -> bool:
            status = proxy.admin("GET", "/api/v1/status")[1]
            return bool(status["in_flight"] == 50 and status["queued"] == 150)

        wait_for(is_full, "the queue to be full")
        statuses: Counter[bytes] = Counter()
        self.flood(proxy, statuses, threading.Event())
        self.check(proxy, alone)
        self.assertEqual(set(statuses), {b"503"})
        self.assertGreater(statuses[b"503"], 50)
        self.assertTrue(is_full())

    def test_slow_backend(self) -> None:
        """Hundreds of requests under way at a backend that takes its time."""
        proxy = self.start(self.start_backend(hung=True), "limits = { in_flight_per_backend = 1000 }")
        alone = self.latencies(proxy)
        self.hold(proxy, 500)
        wait_for(lambda: proxy.admin("GET", "/api/v1/status")[1]["in_flight"] == 500, "slow requests")
        self.check(proxy, alone)

    def test_backend_that_swallows_connections(self) -> None:
        """Connection attempts that nobody answers, many at once."""
        blocked = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(blocked.close)
        address = f"127.0.0.1:{blocked.getsockname()[1]}"
        # What connects to a full backlog hangs.
        for _ in range(3):
            filling = socket.socket()
            filling.setblocking(False)
            filling.connect_ex(blocked.getsockname())
            self.addCleanup(filling.close)
        proxy = self.start(address, "timeouts = { connect = 30.0 }")
        alone = self.latencies(proxy)
        self.hold(proxy, 40)
        wait_for(lambda: proxy.admin("GET", "/api/v1/status")[1]["in_flight"] == 40, "attempts")
        self.check(proxy, alone)
