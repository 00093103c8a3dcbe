"""Large bodies that pass from socket to socket: the same bytes, the same ends, the same books."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time

from tests.integration.programs import IntegrationTestCase, ProxyProcess, wait_for
from tests.integration.servers import SocketServer, read_head

SIZE = 8 * 1024 * 1024 + 12_345
BODY = os.urandom(SIZE)
DIGEST = hashlib.sha256(BODY).hexdigest()


def read_exactly(connection: socket.socket, count: int, rest: bytes = b"") -> bytes:
    received = bytearray(rest)
    while len(received) < count:
        data = connection.recv(min(65536, count - len(received)))
        if not data:
            break
        received += data
    return bytes(received)


class PassingTests(IntegrationTestCase):
    """A backend that serves BODY and takes as much, behind a proxy."""

    def setUp(self) -> None:
        self.cut_after = 0
        self.answer_early = threading.Event()
        self.stalled = threading.Event()
        self.gone = threading.Event()
        self.digests: list[str] = []

    def serve(self, connection: socket.socket) -> None:
        while True:
            try:
                head, rest = read_head(connection)
            except OSError:
                head = b""
            if not head:
                self.gone.set()
                return
            if head.startswith(b"GET"):
                sent = BODY[: self.cut_after or SIZE]
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + sent)
                except OSError:
                    self.gone.set()
                    return
                if self.cut_after:
                    return
            elif self.answer_early.is_set():
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                return
            else:
                self.stalled.wait(0.3)
                received = read_exactly(connection, SIZE, rest)
                self.digests.append(hashlib.sha256(received).hexdigest())
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def start(self, rest: str = "") -> ProxyProcess:
        server = SocketServer(self.serve)
        self.addCleanup(server.close)
        self.server = server
        return self.start_proxy(rest + self.app("hello", [server.address]))

    def test_both_ways_on_kept_connections(self) -> None:
        """Answers and uploads take turns on one connection, whole, and each is counted."""
        proxy = self.start()
        with proxy.connect() as client:
            for _ in range(3):
                client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
                _, rest = read_head(client)
                self.assertEqual(hashlib.sha256(read_exactly(client, SIZE, rest)).hexdigest(), DIGEST)
                client.sendall(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: %d\r\n\r\n" % SIZE)
                client.sendall(BODY)
                head, rest = read_head(client)
                self.assertTrue(head.startswith(b"HTTP/1.1 200"), head)
                self.assertEqual(read_exactly(client, 2, rest), b"ok")
        self.assertEqual(self.digests, [DIGEST] * 3)
        self.assertLessEqual(self.server.connections, 2)  # a probe may have been first
        lines = wait_for(lambda: len(proxy.request_log()) == 6 and proxy.request_log(), "six lines")
        for index, line in enumerate(lines):
            counts = f" bytes_in={SIZE} bytes_out=2 " if index % 2 else f" bytes_in=0 bytes_out={SIZE} "
            self.assertIn(counts, line)

    def test_pipelined_behind(self) -> None:
        """What a client sends behind its upload is the next request, and no part of the body."""
        proxy = self.start()
        with proxy.connect() as client:
            upload = b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: %d\r\n\r\n" % SIZE + BODY
            sender = threading.Thread(target=client.sendall, args=(upload * 2,))
            sender.start()
            for _ in range(2):
                head, rest = read_head(client)
                self.assertTrue(head.startswith(b"HTTP/1.1 200"), head)
                rest = read_exactly(client, 2, rest)
                self.assertEqual(rest, b"ok")
            sender.join()
        self.assertEqual(self.digests, [DIGEST] * 2)

    def test_backend_that_breaks_off(self) -> None:
        """An answer that is cut is not whole for the client either, and the log says why."""
        self.cut_after = SIZE // 2
        proxy = self.start()
        with proxy.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
            _, rest = read_head(client)
            received = read_exactly(client, SIZE, rest)
        self.assertLess(len(received), SIZE)
        self.assertTrue(BODY.startswith(received))
        (line,) = wait_for(proxy.request_log, "the line")
        self.assertIn(" status=200 code=backend-closed ", line)

    def test_client_that_leaves(self) -> None:
        """A client that leaves in the middle, having stopped to read, takes the backend along."""
        proxy = self.start()
        with proxy.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
            read_head(client)
            time.sleep(0.3)  # until everything is full
        self.assertTrue(self.gone.wait(10))
        (line,) = wait_for(proxy.request_log, "the line")
        self.assertIn(" code=client-closed ", line)

    def test_early_answer(self) -> None:
        """A backend that refuses an upload before it has come is heard."""
        self.answer_early.set()
        proxy = self.start()
        with proxy.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: %d\r\n\r\n" % SIZE)
            client.sendall(BODY[:1_000_000])
            head, _ = read_head(client)
        self.assertTrue(head.startswith(b"HTTP/1.1 403"), head)

    def test_backend_that_takes_nothing(self) -> None:
        """An upload that the backend does not take ends by ``idle``, and it is the backend's fault."""
        self.stalled.wait = lambda timeout=None: time.sleep(6) or True  # type: ignore[method-assign]
        proxy = self.start("[timeouts]\nidle = 1.5\nrequest_body = 0.5\n")
        with proxy.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: %d\r\n\r\n" % SIZE)
            sender = threading.Thread(target=self._send, args=(client,), daemon=True)
            began = time.monotonic()
            sender.start()
            head, _ = read_head(client)
            took = time.monotonic() - began
        self.assertTrue(head.startswith(b"HTTP/1.1 504"), head)
        self.assertGreater(took, 1.4)
        (line,) = wait_for(proxy.request_log, "the line")
        self.assertIn(" code=idle-timeout ", line)

    @staticmethod
    def _send(client: socket.socket) -> None:
        try:
            client.sendall(BODY)
        except OSError:
            pass  # the answer came before all of it was sent
