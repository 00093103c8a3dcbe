"""Clients that leave while the proxy does not read from them."""

from __future__ import annotations

import socket
import threading

from tests.integration.programs import IntegrationTestCase, wait_for
from tests.integration.servers import SocketServer, read_head
from tests.integration.test_many_connections import ASK

RESET = b"\1\0\0\0\0\0\0\0"


class PausedClientTests(IntegrationTestCase):
    """Leaving is noticed within a second, and the place at the backend is free again."""

    def setUp(self) -> None:
        self.asked, self.gone = threading.Event(), threading.Event()

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            self.asked.set()
            try:
                self.release.wait(60)
                while connection.recv(1 << 20):
                    pass
            finally:
                self.gone.set()

        self.release = threading.Event()
        server = SocketServer(serve)
        self.addCleanup(server.close)
        self.addCleanup(self.release.set)
        self.proxy = self.start_proxy(self.app("hello", [server.address]))

    def in_flight(self) -> int:
        return int(self.proxy.admin("GET", "/api/v1/status")[1]["in_flight"])

    def leave(self, client: socket.socket, reset: bool) -> None:
        """Close, and see that the proxy has noticed and let go."""
        self.assertEqual(self.in_flight(), 1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        wait_for(lambda: self.in_flight() == 0, "the proxy to notice", 3.0)
        wait_for(self.proxy.request_log, "the log")
        self.assertIn(" status=499 code=client-closed ", self.proxy.request_log()[-1])

    def test_upload_that_is_not_taken(self) -> None:
        """A backend that reads nothing of an upload is let go when the client resets."""
        client = self.proxy.connect()
        client.sendall(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 70000000\r\n\r\n")
        self.assertTrue(self.asked.wait(30))
        client.settimeout(1.0)
        with self.assertRaises(TimeoutError):
            client.sendall(bytes(70_000_000))
        # A FIN would stand behind what the kernels hold, and cannot be seen before that is read.
        self.leave(client, reset=True)

    def test_pipelined_requests(self) -> None:
        """A client that has sent more requests than are read ahead, and closes or resets."""
        for reset in (False, True):
            self.asked.clear()
            client = self.proxy.connect()
            client.sendall(ASK * 2700)
            self.assertTrue(self.asked.wait(30))
            self.leave(client, reset)
