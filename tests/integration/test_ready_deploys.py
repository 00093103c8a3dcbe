"""Probes and deploys that wait, with the real program, real sockets and real time."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import time
from typing import Any

from tests.authorities import Authority
from tests.integration.programs import ProxyProcess, free_port, wait_for
from tests.integration.servers import SocketServer, read_head
from tests.integration.test_deploys import DeployTestCase, Load

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_HEALTH = 'health = { path = "/up" }'


def answer_ok(connection: socket.socket) -> None:
    """Answer every request on the connection."""
    while True:
        head, rest = read_head(connection)
        if not head:
            return
        length = 4 if b"Content-Length: 4" in head else 0
        while len(rest) < length:
            rest += connection.recv(length)
        connection.sendall(_OK)


class ReadyTests(DeployTestCase):
    """``?wait=ready`` while clients ask on and on."""

    def setUp(self) -> None:
        super().setUp()
        self.old = SocketServer(answer_ok)
        self.addCleanup(self.old.close)

    def states(self, proxy: ProxyProcess) -> dict[str, tuple[str, str]]:
        """State and reason of each backend."""
        _status, told = proxy.admin("GET", "/api/v1/apps/hello/backends")
        return {one["address"]: (one["state"], one["reason"]) for one in told["backends"]}

    def serve_later(self, host: str, port: int, seconds: float) -> list[tuple[bytes, bool]]:
        """A backend that listens after a while and is well a while later; gives paths, and whether it was."""
        paths: list[tuple[bytes, bool]] = []
        began = time.monotonic()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b"Content-Length: 4" in head:
                        await reader.readexactly(4)
                    is_well = time.monotonic() - began > 2 * seconds
                    paths.append((head.split(b" ")[1], is_well))
                    writer.write(_OK if is_well else _OK.replace(b"200 OK", b"503 Not Yet"))
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        async def start() -> None:
            await asyncio.sleep(seconds)
            await asyncio.start_server(serve, host, port, backlog=512)

        self.loop.begin(start())
        return paths

    def test_becomes_ready(self) -> None:
        """A backend that starts slowly gets no request before it is well; no client notices."""
        proxy = self.start_proxy(self.app("hello", [self.old.address], rest=_HEALTH))
        load = Load(proxy.port, 100)
        running = self.loop.begin(load.run())
        for host in ("127.0.0.1", "::1"):
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
                taken.bind((host, 0))
                port = taken.getsockname()[1]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            paths = self.serve_later(host, port, 1.0)
            status, answer = proxy.admin(
                "PUT", "/api/v1/apps/hello/backends?wait=ready,drained", {"backends": [address]}
            )
            self.assertEqual(status, 200, answer)
            self.assertEqual([one["address"] for one in answer["backends"]], [address])
            (probe,) = answer["probes"]
            self.assertEqual((probe["status"], probe["url"]), (200, f"http://{address}/up"))
            self.assertGreaterEqual(probe["tries"], 2)
            wait_for(lambda: len(paths) > 50, "requests at the new backend")  # noqa: B023
            self.assertEqual({is_well for path, is_well in paths if path != b"/up"}, {True})
        load.is_over = True
        running.result(60)
        self.assertEqual(set(load.answers), {"200"}, load.answers)
        self.assertGreater(load.count, 300)

    def test_called_off(self) -> None:
        """A client that leaves has changed nothing, then and later."""
        proxy = self.start_proxy(self.app("hello", [self.old.address], rest=_HEALTH))
        port = free_port()
        client = http.client.HTTPConnection("127.0.0.1", proxy.admin_port, timeout=1.5)
        body = json.dumps({"backends": [f"127.0.0.1:{port}"]})
        client.request(
            "PUT", "/api/v1/apps/hello/backends?wait=ready", body, {"Content-Type": "application/json"}
        )
        self.assertRaises(TimeoutError, client.getresponse)
        client.close()
        late = SocketServer(answer_ok)
        self.addCleanup(late.close)
        # Another app's deploy does not wait for anything.
        began = time.monotonic()
        status, _answer = proxy.admin(
            "PUT", "/api/v1/apps/other?wait=ready", {"domains": ["other.test"], "backends": [late.address]}
        )
        self.assertEqual((status, time.monotonic() - began < 1.0), (201, True))
        self.assertEqual(proxy.request()[0], 200)
        self.assertEqual(list(self.states(proxy)), [self.old.address])

    def test_goes_and_comes_back(self) -> None:
        """A backend that hangs, and goes on, is told so in its state, by probes alone."""
        notes = os.path.join(self.directory(), "notes")
        port = free_port()
        process = self.start_backend(port, notes)
        health = 'health = { path = "/up", interval = 0.2, timeout = 0.3, fall = 2 }'
        address = f"127.0.0.1:{port}"
        proxy = self.start_proxy(
            self.app("hello", [address], rest=health + "\nquarantine = { first = 0.2, max = 0.5 }")
        )

        def is_in(state: str, reason: str) -> Any:
            return lambda: self.states(proxy)[address] == (state, f"GET http://{address}/up: {reason}")

        wait_for(is_in("up", "answered 200"), "a first good probe")
        process.send_signal(signal.SIGSTOP)
        wait_for(is_in("down", "no answer within 0.3 s"), "silence to be noticed")
        self.assertEqual(proxy.request()[0], 502)
        process.send_signal(signal.SIGCONT)
        wait_for(is_in("up", "answered 200"), "its return")
        self.assertEqual(proxy.request()[0], 200)
        process.kill()
        wait_for(is_in("down", "connection refused"), "its end to be noticed")
        self.start_backend(port, notes)
        wait_for(is_in("up", "answered 200"), "its successor")
        page = proxy.admin("GET", "/metrics")[1]
        for result in ("pass", "fail"):
            self.assertRegex(page, rf'scalingo_proxy_health_checks_total{{result="{result}"}} [1-9]')

    def test_tls_passed_through(self) -> None:
        """Where TLS passes through, a handshake with any certificate will do, if the app asks for one."""
        chain, key = Authority().issue(["somebody.else"])
        folder = self.directory()
        for name, text in (("cert.pem", chain), ("key.pem", key)):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)

        async def start() -> int:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
            server = await asyncio.start_server(
                lambda _r, writer: writer.close(), "127.0.0.1", 0, ssl=context
            )
            return int(server.sockets[0].getsockname()[1])

        proxy = self.start_proxy()
        record = {"domains": ["sealed.test"], "tls": "passthrough", "health": {"kind": "tls"}}
        address = f"127.0.0.1:{self.loop.run(start())}"
        status, answer = proxy.admin(
            "PUT", "/api/v1/apps/sealed?wait=ready", {**record, "backends": [address]}
        )
        self.assertEqual(status, 201, answer)
        self.assertEqual(answer["probes"][0]["reason"], f"TLS handshake with tls://{address}: completed")
