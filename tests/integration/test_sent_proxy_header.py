"""PROXY headers before TLS towards a backend, on real sockets."""

from __future__ import annotations

import os
import socket
import ssl
import time

from scalingo_proxy.protocols.tls_authority import Authority
from tests.integration.programs import IntegrationTestCase
from tests.integration.servers import SocketServer, read_head


class SentHeaderTests(IntegrationTestCase):
    """What a backend over TLS gets."""

    def test_before_the_handshake(self) -> None:
        """The header comes in clear, before TLS, once for each connection."""
        folder = self.directory()
        authority = Authority.create("Test CA", time.time())
        chain, key = authority.issue(["backend.test"], time.time())
        for name, pem in (("ca.pem", authority.pem), ("own.pem", chain), ("own.key", key)):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(folder, "own.pem"), os.path.join(folder, "own.key"))
        lines: list[bytes] = []

        def serve(connection: socket.socket) -> None:
            line = b""
            while not line.endswith(b"\r\n"):
                line += connection.recv(1)
            lines.append(line)
            with context.wrap_socket(connection, server_side=True) as secured:
                while read_head(secured)[0]:
                    secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server = SocketServer(serve)
        self.addCleanup(server.close)
        ca = os.path.join(folder, "ca.pem")
        rest = f'send_proxy = "v1"\nbackend_tls = {{ ca = "{ca}", name = "backend.test" }}\n'
        proxy = self.start_proxy(self.app("hello", [f"https://{server.address}"], rest=rest))
        with proxy.connect() as client:
            for _ in range(2):
                client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
                head, body = read_head(client)
                self.assertTrue(head.startswith(b"HTTP/1.1 200"), head + body)
                while len(body) < 2:
                    body += client.recv(2)
            port = client.getsockname()[1]
        self.assertEqual(proxy.request()[0], 200)
        told = b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, proxy.port)
        # Both requests of one client came over one connection; a probe may have made another.
        self.assertEqual(lines.count(told), 1)
        self.assertGreaterEqual(len(lines), 2)
        for line in lines:
            self.assertRegex(line, rb"^PROXY (UNKNOWN|TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ \d+)\r\n$")
