"""The process as an operator drives it: signals, reloads, mistakes, restarts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from unittest import SkipTest

from tests.installations import CHECKOUT
from tests.integration.programs import IntegrationTestCase, ProxyProcess, free_port, wait_for
from tests.integration.servers import SocketServer, read_head
from tests.integration.test_many_connections import ASK, answer_ok, read_answer


class OperatingTests(IntegrationTestCase):
    """Start, change, stop."""

    def server(self, serve: object = answer_ok) -> SocketServer:
        server = SocketServer(serve)  # type: ignore[arg-type]
        self.addCleanup(server.close)
        return server

    def test_stop_is_a_drain(self) -> None:
        """SIGTERM: no new connections, idle ones closed, the request under way answered, then the end."""
        asked, answer = threading.Event(), threading.Event()

        def slow(connection: socket.socket) -> None:
            read_head(connection)
            asked.set()
            answer.wait(30)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

        proxy = self.start_proxy(
            self.app("slow", [self.server(slow).address]) + self.app("hello", [self.server().address])
        )
        idle = proxy.connect()
        idle.sendall(ASK)
        read_answer(idle)
        busy = proxy.connect()
        busy.sendall(ASK.replace(b"hello", b"slow"))
        self.assertTrue(asked.wait(30))
        proxy.signal(signal.SIGTERM)
        self.assertEqual(idle.recv(10), b"")

        def refused() -> bool:
            try:
                proxy.connect().close()
            except OSError:
                return True
            return False

        wait_for(refused, "the listener to close")
        self.assertEqual(proxy.admin("GET", "/ready")[0], 503)
        answer.set()
        response = read_answer(busy)
        self.assertTrue(response.endswith(b"slow"))
        self.assertIn(b"Connection: close\r\n", response)
        self.assertEqual(proxy.wait(), 0)
        self.assertEqual(len(proxy.request_log()), 2)
        self.assertNotIn("Traceback", proxy.output)

    def test_drain_deadline(self) -> None:
        """What is not done after ``drain`` seconds is answered 503 drain-timeout, and the process ends."""

        def never(connection: socket.socket) -> None:
            read_head(connection)
            connection.recv(1)

        proxy = self.start_proxy(
            "[timeouts]\ndrain = 0.5\n" + self.app("hello", [self.server(never).address])
        )
        with proxy.connect() as client:
            client.sendall(ASK)
            wait_for(lambda: proxy.admin("GET", "/api/v1/status")[1]["in_flight"], "the request")
            proxy.signal(signal.SIGTERM)
            answer = read_answer(client)
        self.assertIn(b"X-Scalingo-Error: drain-timeout", answer)
        self.assertEqual(proxy.wait(), 0)
        self.assertIn(" status=503 code=drain-timeout ", proxy.request_log()[0])

    def test_second_signal(self) -> None:
        """Whoever sends SIGTERM twice does not wait for the drain."""

        def never(connection: socket.socket) -> None:
            read_head(connection)
            connection.recv(1)

        proxy = self.start_proxy(self.app("hello", [self.server(never).address]))
        with proxy.connect() as client:
            client.sendall(ASK)
            wait_for(lambda: proxy.admin("GET", "/api/v1/status")[1]["in_flight"], "the request")
            proxy.signal(signal.SIGTERM)
            wait_for(lambda: proxy.admin("GET", "/ready")[0] == 503, "the drain")
            proxy.signal(signal.SIGTERM)
            self.assertEqual(proxy.wait(10.0), 128 + signal.SIGTERM)

    def test_reload_that_removes_too_much(self) -> None:
        """A file cut in half is held back, with one alarm, and no client notices; one command confirms it."""
        server = self.server()
        apps = [
            f'[[app]]\nname = "app-{n}"\ndomains = ["{n}.test"]\nbackends = ["{server.address}"]\n'
            for n in range(1000)
        ]
        proxy = self.start_proxy("".join(apps))
        for written in ("", "".join(apps[:400]), "".join(apps[600:])):
            proxy.write_config(self.config(written))
            proxy.signal(signal.SIGHUP)
        wait_for(lambda: proxy.admin("GET", "/api/v1/topology")[1]["held"], "the guard")
        status, document = proxy.admin("POST", "/api/v1/reload")
        self.assertEqual((status, document["error"]["code"]), (409, "held-back"))
        self.assertEqual(document["held"]["apps_removed"], 600)
        self.assertEqual({proxy.request(host=f"{n}.test")[0] for n in range(0, 1000, 50)}, {200})
        status, document = proxy.admin("GET", "/ready")
        self.assertEqual((status, len(document["warnings"])), (200, 1))
        self.assertEqual(proxy.output.count("#critical]"), 1)
        self.assertEqual(proxy.admin("POST", "/api/v1/topology/confirm")[0], 200)
        statuses = [proxy.request(host=f"{n}.test")[0] for n in (0, 599, 600, 999)]
        self.assertEqual(statuses, [404, 404, 200, 200])

    def test_reload(self) -> None:
        """SIGHUP takes over the file; connections stay; a broken file changes nothing and says why."""
        server = self.server()
        proxy = self.start_proxy(self.app("hello", [server.address]))
        with proxy.connect() as client:
            client.sendall(ASK)
            read_answer(client)
            both = self.app("hello", [server.address]) + self.app("more", [server.address])
            proxy.write_config(self.config(both))
            proxy.signal(signal.SIGHUP)
            wait_for(lambda: proxy.request(host="more.test")[0] == 200, "the new app")
            client.sendall(ASK)
            self.assertTrue(read_answer(client).endswith(b"ok"))

            proxy.write_config(self.config(both) + "[helth]\n[timeouts]\nconect = 3\n")
            status, document = proxy.admin("POST", "/api/v1/reload")
            self.assertEqual(status, 409)
            message = repr(document)
            self.assertIn('did you mean "health"', message)
            self.assertIn('did you mean "connect"', message)
            self.assertEqual(proxy.request(host="more.test")[0], 200)
            self.assertIn("config_last_reload_successful 0", proxy.admin("GET", "/metrics")[1])

            proxy.write_config(self.config(self.app("more", [server.address])))
            status, document = proxy.admin("POST", "/api/v1/reload")
            self.assertEqual(status, 200, document)
            client.sendall(ASK)
            self.assertIn(b"X-Scalingo-Error: unknown-host", read_answer(client))
            self.assertIn("config_last_reload_successful 1", proxy.admin("GET", "/metrics")[1])

    def test_reload_of_listeners(self) -> None:
        """A reload opens new listeners and keeps those that stay."""
        server = self.server()
        proxy = self.start_proxy(self.app("hello", [server.address]))
        with proxy.connect() as client:
            path = f"{proxy.directory}/door.sock"
            extra = f'[[listen]]\nprotocol = "http"\nendpoint = "unix:{path}"\n'
            proxy.write_config(self.config(extra + self.app("hello", [server.address])))
            status, document = proxy.admin("POST", "/api/v1/reload")
            self.assertEqual(status, 200, document)
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(path)
                other.sendall(ASK)
                self.assertTrue(read_answer(other).endswith(b"ok"))
            client.sendall(ASK)
            self.assertTrue(read_answer(client).endswith(b"ok"))

    def test_store_survives_kill(self) -> None:
        """What the admin API acknowledged is there after kill -9, and wins over the file."""
        server = self.server()
        directory = self.directory()
        state = f"{directory}/state.db"
        proxy = self.start_proxy(self.app("hello", ["127.0.0.1:1"]), state, directory=directory)
        status, document = proxy.admin("PUT", "/api/v1/apps/hello/backends", {"backends": [server.address]})
        self.assertEqual(status, 200, document)
        record = {"domains": ["Bücher.test"], "backends": [server.address]}
        self.assertEqual(proxy.admin("PUT", "/api/v1/apps/books", record)[0], 201)
        proxy.signal(signal.SIGKILL)
        proxy.wait()
        again = self.start_proxy(self.app("hello", ["127.0.0.1:1"]), state, directory=directory)
        self.assertEqual(again.request()[0], 200)
        self.assertEqual(again.request(host="xn--bcher-kva.test")[0], 200)
        self.assertEqual(again.admin("DELETE", "/api/v1/apps/hello")[0], 200)
        self.assertEqual(again.request()[0], 502)

    def test_mistakes_at_the_start(self) -> None:
        """Every mistake of the file is one line, the exit status is 1, and there is no traceback."""
        directory = self.directory()
        text = self.config(self.app("hello", ["10.0.0.1"]) + self.app("hello", ["127.0.0.1:1"])) + "[helth]\n"
        proxy = ProxyProcess(directory, text)
        self.addCleanup(proxy.end)
        self.assertEqual(proxy.wait(), 1)
        self.assertIn("has no port", proxy.output)
        self.assertIn('did you mean "health"', proxy.output)
        self.assertNotIn("Traceback", proxy.output)

    def test_busy_port(self) -> None:
        """A port that is taken is named in one sentence."""
        server = self.server()
        port = server.address.rpartition(":")[2]
        directory = self.directory()
        text = self.config().replace("tcp:0:", f"tcp:{port}:")
        proxy = ProxyProcess(directory, text)
        self.addCleanup(proxy.end)
        self.assertEqual(proxy.wait(), 1)
        self.assertIn(f"port {port} is in use", proxy.output)
        self.assertNotIn("Traceback", proxy.output)

    def test_nowhere_to_write(self) -> None:
        """The proxy serves although nothing can be written to standard output, its banner included."""
        if not os.path.exists("/dev/full"):
            raise SkipTest("this system has no /dev/full")
        directory = self.directory()
        port, admin_port = free_port(), free_port()
        text = self.config().replace("tcp:0:", f"tcp:{port}:")
        text = text.replace("127.0.0.1:0", f"127.0.0.1:{admin_port}")
        proxy = ProxyProcess(directory, text, output="/dev/full")
        self.addCleanup(proxy.end)
        proxy.port, proxy.admin_port = port, admin_port
        proxy.wait_until_ready()
        self.assertEqual(proxy.request()[0], 404)
        proxy.signal(signal.SIGTERM)
        self.assertEqual(proxy.wait(), 0)

    def test_stop_while_loading(self) -> None:
        """A stop before the store gives up on another process's lock leaves no traceback."""
        directory = self.directory()
        first = self.start_proxy(state="apps.db", directory=directory)
        second = ProxyProcess(directory, self.config(state="apps.db"))
        self.addCleanup(second.end)
        wait_for(lambda: "  admin " in second.output, "the banner")
        second.signal(signal.SIGTERM)
        second.wait()
        self.assertNotIn("Traceback", second.output)
        self.assertEqual(first.admin("GET", "/ready")[0], 200)

    def test_busy_port_under_twist(self) -> None:
        """Under ``twist`` too, one sentence is all that a taken port leaves behind."""
        port = self.server().address.rpartition(":")[2]
        run = "from twisted.application.twist._twist import Twist; Twist.main()"
        options = ["scalingo-proxy", "--http", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0"]
        done = subprocess.run(
            [sys.executable, "-c", run, *options],
            cwd=self.directory(),
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"port {port} is in use", done.stderr.decode())
        self.assertNotIn("Traceback", done.stderr.decode())

    def test_output_that_nobody_reads(self) -> None:
        """A log pipe that is full stops no request, no change and no stop."""
        server = self.server()
        proxy = self.start_proxy(self.app("hello", [server.address]))
        proxy.reading.clear()
        with proxy.connect() as client:
            for _ in range(600):  # each leaves a line of the request log; the pipe holds 64 KiB
                client.sendall(ASK)
                self.assertTrue(read_answer(client).endswith(b"ok"))
            for _ in range(50):  # each leaves one of the program's own
                self.assertEqual(proxy.admin("POST", "/api/v1/reload")[0], 200)
            for _ in range(100):
                client.sendall(ASK)
                self.assertTrue(read_answer(client).endswith(b"ok"))
        proxy.signal(signal.SIGTERM)
        self.assertEqual(proxy.process.wait(20), 0)
