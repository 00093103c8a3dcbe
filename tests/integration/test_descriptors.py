"""A process that may open few files, and many more clients than that."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time

from scalingo_proxy.protocols.tls_authority import Authority
from tests.integration.programs import IntegrationTestCase, wait_for
from tests.integration.servers import SocketServer
from tests.integration.test_many_connections import ASK, answer_ok, read_answer
from tests.integration.test_tls_passthrough import TLS_LISTENER, EchoServer
from tests.wire import hello_builder

#: What the process may open, and how many clients of each kind come besides those who are here.
LIMIT, NEWCOMERS = 128, 90

KINDS = ("http", "terminated", "passed")
SEALED = hello_builder.record(hello_builder.message(hello_builder.server_name(b"sealed.test")))
PATIENCE = 150.0


def served(kind: str, client: socket.socket) -> bool:
    """One exchange of a client: whether it went as it should."""
    if kind != "passed":
        client.sendall(ASK)
        return read_answer(client).startswith(b"HTTP/1.1 200")
    client.sendall(SEALED)
    received = b""
    while len(received) < len(SEALED) and (data := client.recv(65536)):
        received += data
    return received == SEALED


class DescriptorTests(IntegrationTestCase):
    """Those who are here are served; the others wait, and come in when there is room."""

    def setUp(self) -> None:
        folder = self.directory()
        authority = Authority.create("Test CA", time.time())
        chain, key = authority.issue(["hello.test"], time.time())
        for name, pem in (("own.pem", chain), ("own.key", key)):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(pem)
        self.context = ssl.create_default_context(cadata=authority.pem.decode())
        plain, echo = SocketServer(answer_ok), EchoServer()
        self.addCleanup(plain.close)
        self.addCleanup(echo.close)
        certificate = f'certificate = {{ cert = "{folder}/own.pem", key = "{folder}/own.key" }}'
        self.proxy = self.start_proxy(
            TLS_LISTENER
            + self.app("hello", [plain.address], rest=certificate)
            + self.app("sealed", [echo.address], rest='tls = "passthrough"'),
            descriptors=LIMIT,
        )
        match = re.search(r"^  tls +https://[^/]*:(\d+)/", self.proxy.output, re.MULTILINE)
        assert match is not None, self.proxy.output
        self.tls_port = int(match[1])
        self.release = threading.Event()
        self.addCleanup(self.release.set)
        self.served: list[str] = []
        self.failed: list[str] = []

    def connect(self, kind: str) -> socket.socket:
        port = self.proxy.port if kind == "http" else self.tls_port
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if kind == "terminated":
            return self.context.wrap_socket(client, server_hostname="hello.test")
        return client

    def newcomer(self, kind: str) -> None:
        """Come in, be served, stay until all may go, being served now and then."""
        try:
            with self.connect(kind) as client:
                is_served = served(kind, client)
                self.served.append(kind)
                # Who idles is given up in the end, while others wait.
                while is_served and not self.release.wait(2.0):
                    is_served = served(kind, client)
                if not (is_served and served(kind, client)):
                    self.failed.append(f"{kind}: another answer")
        except Exception as error:
            self.failed.append(f"{kind}: {error!r}")

    def metric(self, name: str) -> float:
        text = self.proxy.admin("GET", "/metrics")[1]
        (line,) = re.findall(rf"^scalingo_proxy_{name} (\S+)$", text, re.MULTILINE)
        return float(line)

    def is_quiet(self) -> bool:
        """Whether the gate is closed and nobody has come in for a while."""
        before = len(self.served)
        time.sleep(0.5)
        for kind, client in self.here:
            self.assertTrue(served(kind, client))
        return len(self.served) == before and self.metric("accepts_paused") == 1

    def test_more_clients_than_descriptors(self) -> None:
        """270 clients of a process with 128 descriptors: none is refused, none of those here is harmed."""
        proxy = self.proxy
        before = proxy.descriptor_count()
        self.here = here = [(kind, self.connect(kind)) for kind in KINDS * 3]
        for kind, client in here:
            self.addCleanup(client.close)
            self.assertTrue(served(kind, client))

        threads = [threading.Thread(target=self.newcomer, args=(kind,)) for kind in KINDS * NEWCOMERS]
        for thread in threads:
            thread.start()
        wait_for(self.is_quiet, "the shortage", 60.0)
        self.assertEqual(self.failed, [])
        self.assertLess(len(self.served), NEWCOMERS)
        self.assertLess(proxy.descriptor_count(), LIMIT)

        start, spent = time.monotonic(), proxy.cpu_seconds()
        for _ in range(5):
            for kind, client in here:
                self.assertTrue(served(kind, client))
            time.sleep(0.3)
        self.assertLess(proxy.cpu_seconds() - spent, 0.3 * (time.monotonic() - start))
        self.assertEqual(proxy.admin("GET", "/live")[0], 200)
        self.assertIn("new clients wait until some are free", proxy.output)

        self.release.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(self.failed, [])
        self.assertEqual(sorted(self.served), sorted(KINDS * NEWCOMERS))
        for kind, client in here:
            self.assertTrue(served(kind, client))
            client.close()
        self.assertGreater(self.metric("accept_pauses_total"), 0)
        wait_for(lambda: "accepted as they come again" in proxy.output, "the end of the shortage")
        wait_for(lambda: proxy.descriptor_count() <= before + 40, "the descriptors' coming back")
        self.assertEqual([line for line in proxy.request_log() if " code=- " not in line], [])
        self.assertNotIn("Traceback", proxy.output)
