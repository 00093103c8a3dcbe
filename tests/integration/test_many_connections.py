"""Many clients, many requests, many apps."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time

from tests.integration.programs import IntegrationTestCase
from tests.integration.servers import SocketServer, read_head

ASK = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"


def answer_ok(connection: socket.socket) -> None:
    """Answer requests until the peer goes."""
    while read_head(connection)[0]:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def read_answer(connection: socket.socket) -> bytes:
    """One answer of :func:`answer_ok`, whole."""
    head, rest = read_head(connection)
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    while len(rest) < length:
        rest += connection.recv(65536)
    return head + rest


class ManyConnectionsTests(IntegrationTestCase):
    """Numbers that a platform sees every day."""

    def test_idle_connections(self) -> None:
        """2,000 kept-alive connections stay open, and each is answered again."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 6000:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000), hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        server = SocketServer(answer_ok)
        self.addCleanup(server.close)
        proxy = self.start_proxy(self.app("hello", [server.address]))
        before = proxy.resident_bytes()
        clients = []
        for _ in range(2000):
            client = proxy.connect()
            self.addCleanup(client.close)
            client.sendall(ASK)
            self.assertTrue(read_answer(client).startswith(b"HTTP/1.1 200"))
            clients.append(client)
        each = (proxy.resident_bytes() - before) / len(clients)
        for client in clients:
            client.sendall(ASK)
            self.assertTrue(read_answer(client).endswith(b"ok"))
        self.assertLess(each, 50_000)
        self.assertEqual(proxy.admin("GET", "/api/v1/status")[1]["client_connections"], 2000)

    def test_pipelining(self) -> None:
        """50 requests in one segment are answered in order."""

        def serve(connection: socket.socket) -> None:
            while head := read_head(connection)[0]:
                path = head.split()[1]
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

        server = SocketServer(serve)
        self.addCleanup(server.close)
        proxy = self.start_proxy(self.app("hello", [server.address]))
        wanted = [b"/%d" % number for number in range(50)]
        with proxy.connect() as client:
            client.sendall(b"".join(ASK.replace(b"/ ", path + b" ", 1) for path in wanted))
            received = b""
            while received.count(b"HTTP/1.1 200") < 50 or not received.endswith(wanted[-1]):
                data = client.recv(65536)
                assert data, received
                received += data
        bodies = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        self.assertEqual(bodies, wanted)

    def test_ten_thousand_apps(self) -> None:
        """10,000 apps come from the store in under 2 s; one more is served at once and drops nothing."""
        server = SocketServer(answer_ok)
        self.addCleanup(server.close)
        directory = self.directory()
        state = f"{directory}/state.db"
        self.fill_store(state, server.address, 10_000)
        began = time.monotonic()
        proxy = self.start_proxy(self.app("hello", [server.address]), state, directory=directory)
        self.assertLess(time.monotonic() - began, 10.0)  # Python, twistd and the store together
        self.assertEqual(proxy.request(host="app-9999.test")[0], 200)
        self.assertEqual(proxy.admin("GET", "/api/v1/status")[1]["apps"], 10_001)

        stop, statuses = threading.Event(), []

        def load() -> None:
            with proxy.connect() as client:
                while not stop.is_set():
                    client.sendall(ASK)
                    statuses.append(read_answer(client)[:12])

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(20):
            record = {"domains": [f"new-{number}.test"], "backends": [server.address]}
            status, document = proxy.admin("PUT", f"/api/v1/apps/new-{number}", record)
            self.assertEqual(status, 201, json.dumps(document))
            self.assertEqual(proxy.request(host=f"new-{number}.test")[0], 200)
        stop.set()
        for thread in threads:
            thread.join(30)
        self.assertEqual(set(statuses), {b"HTTP/1.1 200"})

    def fill_store(self, path: str, address: str, count: int) -> None:
        """Write the store as the proxy itself does, in a reactor of its own."""
        import subprocess
        import sys

        script = (
            "import sys\n"
            "from twisted.internet.task import react\n"
            "from scalingo_proxy.model import App, TopologyChange\n"
            "from scalingo_proxy.resolvers.store import StoreResolver\n"
            "async def fill(reactor, path, address, count):\n"
            "    store = StoreResolver(path, reactor)\n"
            "    await store.start()\n"
            "    apps = [App(f'app-{n}', [f'app-{n}.test'], [address]) for n in range(int(count))]\n"
            "    await store.apply(TopologyChange(tuple(apps)))\n"
            "    await store.stop()\n"
            "react(lambda reactor, *words: __import__('twisted.internet.defer').internet.defer.Deferred"
            ".fromCoroutine(fill(reactor, *words)), sys.argv[1:])\n"
        )
        subprocess.run([sys.executable, "-c", script, path, address, str(count)], check=True, timeout=120)
