"""A request id, from the log of a running program to what became of it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading

from tests.installations import CHECKOUT
from tests.integration.programs import IntegrationTestCase, ProxyProcess, free_port, wait_for
from tests.integration.servers import SocketServer, read_head
from tests.integration.test_many_connections import ASK, answer_ok, read_answer
from tests.integration.test_tls_passthrough import HELLO, TLS_LISTENER


class ExplainTests(IntegrationTestCase):
    """``scalingo-proxy explain``."""

    def explain(self, proxy: ProxyProcess, request_id: str) -> str:
        """What the command prints."""
        command = [
            sys.executable,
            "-m",
            "scalingo_proxy",
            "--admin",
            str(proxy.admin_port),
            "explain",
            request_id,
        ]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def server(self, serve: object = answer_ok) -> SocketServer:
        server = SocketServer(serve)  # type: ignore[arg-type]
        self.addCleanup(server.close)
        return server

    def logged_id(self, proxy: ProxyProcess, words: str) -> str:
        """The id of the only line of the request log with *words*."""

        def found() -> list[str]:
            return [line for line in proxy.request_log() if words in line]

        (line,) = wait_for(found, f"the line with {words}")
        match = re.search(r" request_id=(\S+)", line)
        assert match is not None, line
        return match[1]

    def test_from_the_log(self) -> None:
        """Requests past a dead backend and a refused one, by what the log calls them."""
        server, dead = self.server(), f"127.0.0.1:{free_port()}"
        proxy = self.start_proxy(self.app("hello", [dead, server.address]))
        for _ in range(2):
            self.assertEqual(proxy.request("/?token=secret")[0], 200)
        wait_for(lambda: len(proxy.request_log()) == 2, "the log")
        ids = [re.findall(r" request_id=(\S+)", line)[0] for line in proxy.request_log()]
        told = [self.explain(proxy, request_id) for request_id in ids]
        # A probe may have been there before the request was, or meanwhile.
        self.assertRegex("".join(told), rf"{re.escape(dead)}  (tried|quarantined): .*(refused|put aside)")
        for each in told:
            self.assertIn("route     app hello, by its domain hello.test, said resolver 'file'", each)
            self.assertIn(f"{server.address}  chosen", each)
            self.assertIn("end       status 200", each)
        self.assertEqual(proxy.request(host="nobody.test")[0], 404)
        refused = self.explain(proxy, self.logged_id(proxy, "host=nobody.test"))
        self.assertIn("end       status 404 unknown-host: no application claims this domain", refused)
        self.assertIn("nothing is known of request 'nope'", self.explain(proxy, "nope"))

    def test_under_way(self) -> None:
        """A request that waits can be explained, and one that is over, after a reload that keeps fewer."""
        asked, answer = threading.Event(), threading.Event()

        def slow(connection: socket.socket) -> None:
            read_head(connection)
            asked.set()
            answer.wait(30)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        app = self.app("hello", [self.server(slow).address])
        proxy = self.start_proxy(app)
        request_id = "x" * 30
        with proxy.connect() as client:
            client.sendall(ASK.replace(b"\r\n\r\n", b"\r\nX-Request-ID: %s\r\n\r\n" % request_id.encode()))
            self.assertTrue(asked.wait(30))
            status, told = proxy.admin("GET", f"/api/v1/requests/{request_id}")
            self.assertEqual((status, told["state"], told["cause"]), (200, "waiting", "it is under way"))
            answer.set()
            read_answer(client)
        _status, told = proxy.admin("GET", f"/api/v1/requests/{request_id}")
        self.assertEqual((told["state"], told["status"]), ("finished", 200))
        proxy.write_config(self.config(app + "[explain]\nrequests = 0\n"))
        self.assertEqual(proxy.admin("POST", "/api/v1/reload")[0], 200)
        status, told = proxy.admin("GET", f"/api/v1/requests/{request_id}")
        self.assertEqual((status, told["error"]["code"]), (404, "unknown-request"))

    def test_passthrough(self) -> None:
        """TLS that passes through, while it lasts and when it could not be."""

        def greet(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"hello yourself")
            connection.recv(1)

        server = self.server(greet)
        proxy = self.start_proxy(
            TLS_LISTENER + self.app("hello", [server.address], rest='tls = "passthrough"')
        )
        match = re.search(r"^  tls +https://[^/]*:(\d+)/", proxy.output, re.MULTILINE)
        assert match is not None, proxy.output
        with socket.create_connection(("127.0.0.1", int(match[1])), timeout=60) as client:
            client.sendall(HELLO)
            self.assertEqual(client.recv(14, socket.MSG_WAITALL), b"hello yourself")
        told = self.explain(proxy, self.logged_id(proxy, "tls=passthrough"))
        self.assertIn("TLS for hello.test", told)
        self.assertIn(f"{server.address}  chosen", told)
        self.assertIn(f"{len(HELLO)} bytes sent", told)
        proxy.signal(signal.SIGTERM)
        proxy.wait()
