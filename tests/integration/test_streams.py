"""Streams over real sockets: events, WebSockets, and bodies larger than any buffer."""

from __future__ import annotations

import os
import select
import socket
import threading
import time

from tests.integration.programs import IntegrationTestCase
from tests.integration.servers import SocketServer, read_head

MEGABYTE = 1024 * 1024


class StreamTests(IntegrationTestCase):
    """What is sent is passed on when it is sent, and no more is kept than has to be."""

    def serve(self, serve: object) -> SocketServer:
        server = SocketServer(serve)  # type: ignore[arg-type]
        self.addCleanup(server.close)
        return server

    def test_events_are_not_held_back(self) -> None:
        """The first event of a stream is there within 100 ms, long before the second is sent."""
        go_on = threading.Event()

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            go_on.wait(60)
            connection.sendall(b"data: 2\n\n")

        proxy = self.start_proxy(self.app("hello", [self.serve(serve).address]))
        with proxy.connect() as client:
            began = time.monotonic()
            client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
            received = b""
            while b"data: 1\n\n" not in received:
                received += client.recv(65536)
            took = time.monotonic() - began
            go_on.set()
            while b"data: 2\n\n" not in received:
                received += client.recv(65536)
        self.assertLess(took, 0.1)

    def test_gigabyte_upload(self) -> None:
        """1 GB goes up to a backend that reads it, without staying in memory."""
        size = 1024 * MEGABYTE
        seen = []

        def serve(connection: socket.socket) -> None:
            _, rest = read_head(connection)
            count, buffer = len(rest), bytearray(MEGABYTE)
            while count < size:
                count += connection.recv_into(buffer)
            seen.append(count)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        limits = "[limits]\nbody_bytes = 2000000000\n"
        proxy = self.start_proxy(limits + self.app("hello", [self.serve(serve).address]))
        before = proxy.resident_bytes()
        with proxy.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: %d\r\n\r\n" % size)
            piece = bytes(MEGABYTE)
            for _ in range(size // MEGABYTE):
                client.sendall(piece)
            head, _ = read_head(client)
        self.assertTrue(head.startswith(b"HTTP/1.1 200"), head)
        self.assertEqual(seen, [size])
        self.assertLess(proxy.resident_bytes() - before, 30 * MEGABYTE)

    def test_slow_reader_of_a_large_answer(self) -> None:
        """A client that reads nothing of 200 MB costs no memory, and gets it all in the end."""
        size = 200 * MEGABYTE
        stuck = threading.Event()

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            piece = os.urandom(1024) * 1024
            left = size
            while left:
                if not select.select([], [connection], [], 1.0)[1]:
                    stuck.set()
                    select.select([], [connection], [], 60.0)
                left -= connection.send(piece[:left])

        proxy = self.start_proxy(self.app("hello", [self.serve(serve).address]))
        before = proxy.resident_bytes()
        with proxy.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
            _, rest = read_head(client)
            self.assertTrue(stuck.wait(60))
            self.assertLess(proxy.resident_bytes() - before, 30 * MEGABYTE)
            count, buffer = len(rest), bytearray(MEGABYTE)
            while count < size:
                count += client.recv_into(buffer)
        self.assertEqual(count, size)

    def test_websocket(self) -> None:
        """A real WebSocket library talks through the proxy to another."""
        from websockets.sync.client import connect
        from websockets.sync.server import ServerConnection, serve

        def echo(connection: ServerConnection) -> None:
            for message in connection:
                connection.send(message)

        with serve(echo, "127.0.0.1", 0) as server:
            port = server.socket.getsockname()[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            proxy = self.start_proxy(self.app("hello", [f"127.0.0.1:{port}"]))
            with (
                socket.create_connection(("127.0.0.1", proxy.port)) as raw,
                connect("ws://hello.test/", sock=raw, proxy=None) as client,
            ):
                for message in ("hello", "x" * 100_000, b"\0" * 1_000_000):
                    client.send(message)
                    self.assertEqual(client.recv(timeout=30), message)
                status, page = proxy.admin("GET", "/api/v1/apps/hello/backends")
                self.assertEqual(status, 200)
                self.assertEqual([backend["tunnels"] for backend in page["backends"]], [1])
            server.shutdown()
        proxy.end()
        (line,) = proxy.request_log()
        self.assertIn(" status=101 code=- ", line)

    def test_half_close_in_a_tunnel(self) -> None:
        """After the client's FIN the backend's bytes still arrive."""

        def serve(connection: socket.socket) -> None:
            _, rest = read_head(connection)
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
            )
            while data := connection.recv(65536):
                rest += data
            connection.sendall(b"got " + rest)

        proxy = self.start_proxy(self.app("hello", [self.serve(serve).address]))
        with proxy.connect() as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
            )
            head, rest = read_head(client)
            self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
            client.sendall(b"last words")
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                rest += data
        self.assertEqual(rest, b"got last words")

    def test_client_that_leaves(self) -> None:
        """When the client goes, the backend's connection goes within a second, and the log says 499."""
        for reset in (False, True):
            asked, gone = threading.Event(), threading.Event()

            def serve(
                connection: socket.socket, asked: threading.Event = asked, gone: threading.Event = gone
            ) -> None:
                read_head(connection)
                asked.set()
                try:
                    connection.recv(1)
                finally:
                    gone.set()

            proxy = self.start_proxy(self.app("hello", [self.serve(serve).address]))
            with proxy.connect() as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
                self.assertTrue(asked.wait(30))
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.assertTrue(gone.wait(1.0))
            proxy.end()
            (line,) = proxy.request_log()
            self.assertIn(" status=499 code=client-closed ", line)
