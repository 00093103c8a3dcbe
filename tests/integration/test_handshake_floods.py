"""Floods of TLS hellos, and what clients of another app notice of them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from tests.integration import hello_flood
from tests.integration.programs import wait_for
from tests.integration.test_many_connections import read_answer
from tests.integration.test_tls_termination import CertificatesCase

#: What 98 of 100 clients wait for at most, where the proxy has a processor of its own; seconds.
LATE_SECONDS = 0.100

_BEHIND_PROXY = """
[[listen]]
protocol = "tls"
endpoint = "tcp:0:interface=127.0.0.1"
proxy_protocol = true
"""


class HandshakeFloodTests(CertificatesCase):
    """``hello.test`` is what good clients ask for, ``flooded.test`` the others."""

    def begin(self, limits: str) -> None:
        """A proxy with a door for TLS, and one for TLS behind a PROXY header."""
        apps = self.hello("hello.test"), self.hello("flooded.test")
        proxy = self.start(_BEHIND_PROXY, f"[limits]\n{limits}\n", *apps)
        ports = re.findall(r"^  tls +https://[^/]*:(\d+)/", proxy.output, re.MULTILINE)
        self.port, self.port_behind_proxy = map(int, ports)
        for name in ("hello.test", "flooded.test"):
            self.tell(name, name)

    def flood(self, port: int, count: int, header: str = "") -> Callable[[], tuple[int, int]]:
        """So many hellos at once; call it to end, and to hear how many were answered and refused."""
        flood = subprocess.Popen(
            [sys.executable, "-S", "-E", hello_flood.__file__, str(port), str(count), "flooded.test", header],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(flood.wait)
        self.addCleanup(flood.kill)

        def end() -> tuple[int, int]:
            answered, refused = flood.communicate(timeout=30)[0].split()
            return int(answered), int(refused)

        return end

    def metric(self, text: str) -> float:
        page = self.proxy.admin("GET", "/metrics")[1]
        match = re.search(f"^scalingo_proxy_tls_handshakes_{re.escape(text)} (.*)$", page, re.MULTILINE)
        assert match is not None, text
        return float(match[1])

    def late(self, ask: Callable[[], None], count: int = 100) -> float:
        """How long all but two of so many take at most, in seconds."""
        took = []
        for _ in range(count):
            began = time.perf_counter()
            ask()
            took.append(time.perf_counter() - began)
            time.sleep(0.005)
        return sorted(took)[-3]

    def ask_over_tls(self) -> None:
        """A handshake, a request, an answer."""
        with self.connect("hello.test") as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
            self.assertEqual(read_answer(client)[9:12], b"200")

    def test_twice_the_queue(self) -> None:
        """Twice what may wait, and others are served all the same: over open connections, and new ones."""
        self.begin("handshake_queue = 50")
        client = self.proxy.connect()
        self.addCleanup(client.close)

        def ask() -> None:
            client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
            self.assertEqual(read_answer(client)[9:12], b"200")

        alone = self.late(ask), self.late(self.ask_over_tls)
        end = self.flood(self.port, 100)
        wait_for(lambda: self.metric('refused_total{limit="queue"}') > 100, "the queue to be full")
        began, before = time.monotonic(), self.proxy.cpu_seconds()
        late = self.late(ask), self.late(self.ask_over_tls)
        # The flood keeps it busy, so this is what other programs leave it of a processor.
        share = min(1.0, (self.proxy.cpu_seconds() - before) / (time.monotonic() - began))
        told = ", ".join(f"{1000 * seconds:.0f} ms" for seconds in (*alone, *late))
        sys.stdout.write(
            f"\n    alone, and beside the flood: {told} (kept, new over TLS); {share:.0%} of a processor "
        )
        for seconds in late:
            self.assertLess(seconds, LATE_SECONDS / share)
        answered, _refused = end()
        self.assertGreater(answered, 100)
        lines = [line for line in self.proxy.request_log() if "code=queue-full" in line]
        self.assertEqual({"host=flooded.test" in line for line in lines}, {True})

    def test_twice_the_rate(self) -> None:
        """An address that wants more than it may have is refused; another one is not."""
        self.begin("handshakes_per_address = 20")
        end = self.flood(self.port_behind_proxy, 20, "PROXY TCP4 192.0.2.1 192.0.2.9 4000 443")
        wait_for(lambda: self.metric('refused_total{limit="address"}') > 50, "hellos to be refused")
        with socket.create_connection(("127.0.0.1", self.port_behind_proxy), timeout=30) as other:
            header = b"PROXY TCP4 192.0.2.2 192.0.2.9 4000 443\r\n"
            other.sendall(header + hello_flood.hello("hello.test"))
            self.assertEqual(other.recv(1), b"\x16")
        late = self.late(self.ask_over_tls, 100)
        answered, refused = end()
        told = f"{answered} answered, {refused} refused, others {1000 * late:.0f} ms"
        sys.stdout.write(f"\n    {told} ")
        self.assertGreater(refused, 50)
        self.assertLess(late, LATE_SECONDS)
        lines = [line for line in self.proxy.request_log() if "code=rate-limited" in line]
        self.assertEqual({"from=192.0.2.1 " in line for line in lines}, {True})
