"""The request log of a running proxy: its formats, its rotation, and a disk that is full."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame

from scalingo_proxy.wire.http2_frames import PREFACE
from tests.integration.programs import IntegrationTestCase, ProxyProcess, wait_for
from tests.integration.servers import SocketServer
from tests.integration.test_tls_termination import CertificatesCase


class RequestLogTests(IntegrationTestCase):
    """Written to a file."""

    def proxy(self, destination: str, how: str = "logfmt") -> ProxyProcess:
        log = f'[log]\ndestination = "{destination}"\nrequests = "{how}"\n'
        return self.start_proxy(log + self.app("hello", [self.start_nginx().address]))

    def lines(self, path: str, count: int) -> list[str]:
        """That many lines, as soon as they are there."""

        def enough() -> list[str]:
            if not os.path.exists(path):
                return []
            with open(path) as file:
                lines = file.read().splitlines()
            return lines if len(lines) >= count else []

        lines = wait_for(enough, f"{count} lines in {path}")
        self.assertEqual(len(lines), count)
        return list(lines)

    def test_rotation(self) -> None:
        """Moved away and asked to, it goes on in a new file; no line is lost, and none is in both."""
        path = os.path.join(self.directory(), "requests.log")
        proxy = self.proxy(path)
        proxy.request("/one")
        self.lines(path, 1)
        os.rename(path, f"{path}.1")
        proxy.request("/two")
        self.lines(f"{path}.1", 2)
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: os.path.exists(path), "the new file")
        proxy.request("/three")
        (line,) = self.lines(path, 1)
        self.assertIn(" path=/three ", line)
        old = self.lines(f"{path}.1", 2)
        self.assertIn(" path=/two ", old[1])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o640)

    def test_full_disk(self) -> None:
        """Traffic goes on, the lost lines are counted, and the status page warns of them."""
        if not os.path.exists("/dev/full"):
            raise SkipTest("this system has no /dev/full")
        proxy = self.proxy("/dev/full")
        for _ in range(5):
            self.assertEqual(proxy.request("/hello")[0], 200)

        def dropped() -> bool:
            page = proxy.admin("GET", "/metrics")[1]
            return "\nscalingo_proxy_log_lines_dropped_total 5\n" in page

        wait_for(dropped, "the count")
        alarms = [alarm["text"] for alarm in proxy.admin("GET", "/api/v1/traffic")[1]["alarms"]]
        self.assertEqual(alarms, ["lines of the request log were lost"])
        for _ in range(3):
            self.assertEqual(proxy.request("/hello")[0], 200)
            wait_for(lambda: "the request log cannot be written" in proxy.output, "the program log")
        self.assertEqual(proxy.output.count("cannot be written"), 1)

    def test_formats(self) -> None:
        """Each is what its readers expect."""
        readers: dict[str, Callable[[str], Any]] = {
            "json": lambda line: json.loads(line)["path"],
            "combined": lambda line: re.fullmatch(
                r'127\.0\.0\.1 - - \[[^\]]+\] "GET (\S+) HTTP/1\.1" 200 \d+ "-" "-".*', line
            )[1],  # type: ignore[index]
        }
        for how, path_in in readers.items():
            path = os.path.join(self.directory(), "requests.log")
            proxy = self.proxy(path, how)
            proxy.request("/hello")
            (line,) = self.lines(path, 1)
            self.assertEqual(path_in(line), "/hello")

    def test_refused(self) -> None:
        """What never became a request of an app has its line, too, whatever it was."""
        path = os.path.join(self.directory(), "requests.log")
        proxy = self.proxy(path)
        cases = {
            b"\x16\x03\x01 not HTTP\r\n\r\n": "bad-request",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": "bad-request",
            b"GET / HTTP/9.1\r\nHost: hello.test\r\n\r\n": "bad-version",
            b"CONNECT hello.test:443 HTTP/1.1\r\nHost: hello.test:443\r\n\r\n": "method-not-allowed",
            b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n": "unknown-host",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: hello.test\r\n\r\n": "uri-too-long",
            b"GET / HTTP/1.1\r\nHost: hello.test\r\nX: " + b"a" * 9000 + b"\r\n\r\n": "head-too-large",
        }
        for number, (sent, code) in enumerate(cases.items(), 1):
            with proxy.connect() as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            line = self.lines(path, number)[-1]
            self.assertIn(f" code={code} ", line)
            self.assertIn(" from=127.0.0.1 ", line)


class CutShortTests(CertificatesCase):
    """What ended before it was a request, and what was refused for want of room, in every format."""

    def setUp(self) -> None:
        super().setUp()
        self.released = threading.Event()
        self.addCleanup(self.released.set)

    def test_formats(self) -> None:
        """Each has its line, whoever ended it; a connection that was opened and closed has none."""
        for how in ("logfmt", "json", "combined"):
            path = os.path.join(self.directory(), "requests.log")
            silent = SocketServer(self.wait_until_released)
            self.addCleanup(silent.close)
            proxy = self.start(
                f'[log]\ndestination = "{path}"\nrequests = "{how}"\n[limits]\nclient_connections = 1\n'
                "in_flight_per_backend = 500\n",
                f'[[app]]\nname = "hello"\ndomains = ["hello.test"]\nbackends = ["{silent.address}"]\n',
            )
            self.tell("hello", "hello.test")
            lines = _Lines(self, path, _READERS[how])
            self.half_a_head(proxy, lines)
            self.half_a_handshake(lines)
            self.too_many(proxy, lines)
            proxy.end()

    def wait_until_released(self, connection: socket.socket) -> None:
        self.released.wait(60)

    def half_a_head(self, proxy: ProxyProcess, lines: _Lines) -> None:
        for has_reset in (False, True):
            with proxy.connect() as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: hel")
                wait_for(lambda: self.open_connections(proxy, "http"), "the connection")
                if has_reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            lines.expect(499, "client-closed", "http/1.1")
        with proxy.connect():
            wait_for(lambda: self.open_connections(proxy, "http"), "the silent connection")
        wait_for(lambda: not self.open_connections(proxy, "http"), "its end")

    def half_a_handshake(self, lines: _Lines) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(b"\x16\x03\x01\x02\x00\x01")
        lines.expect(499, "client-closed", "tls")
        with socket.create_connection(("127.0.0.1", self.port)) as raw:
            distrustful = ssl.create_default_context()
            self.assertRaises(ssl.SSLError, distrustful.wrap_socket, raw, server_hostname="hello.test")
        lines.expect(400, "bad-request", "tls")

    def too_many(self, proxy: ProxyProcess, lines: _Lines) -> None:
        client = self.connect("hello.test", self.context(None, "h2"))
        frames = [PREFACE, SettingsFrame(0).serialize()]
        for number in range(102):
            listed = [(":method", "GET"), (":scheme", "https"), (":authority", "hello.test"), (":path", "/")]
            frame = HeadersFrame(1 + 2 * number, Encoder().encode(listed))
            frame.flags = {"END_HEADERS", "END_STREAM"}
            frames.append(frame.serialize())
        client.sendall(b"".join(frames))
        for _ in range(2):
            lines.expect(429, "rate-limited", "h2")
        with proxy.connect() as turned_away:
            self.assertIn(_read_end(turned_away), (b"", None))
        lines.expect(503, "queue-full", "http/1.1")
        client.close()
        for _ in range(100):
            lines.expect(499, "client-closed", "h2")

    @staticmethod
    def open_connections(proxy: ProxyProcess, listener: str) -> bool:
        page = proxy.admin("GET", "/metrics")[1]
        return f'open_connections{{listener="{listener}",kind="{listener}"}} 1\n' in page


class _Lines:
    """Reads a request log line by line."""

    def __init__(self, case: CutShortTests, path: str, read: Callable[[str], tuple[int, str, str]]) -> None:
        self._case = case
        self._path = path
        self._read = read
        self._count = 0

    def expect(self, status: int, code: str, protocol: str) -> None:
        """The next line tells of that; formats that lack a word leave it out."""

        def line() -> str:
            if not os.path.exists(self._path):
                return ""
            with open(self._path) as file:
                lines = file.read().splitlines()
            return lines[self._count] if len(lines) > self._count else ""

        told = self._read(wait_for(line, f"line {self._count + 1} of the log: {code}"))
        self._count += 1
        self._case.assertEqual(told, (status, code if told[1] else "", protocol if told[2] else ""))


def _read_end(connection: socket.socket) -> bytes | None:
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return None


def _logfmt(line: str) -> tuple[int, str, str]:
    found = re.search(r" status=(\d+) code=(\S+) .* protocol=(\S+) ", line)
    assert found is not None, line
    return int(found[1]), found[2], found[3]


def _json(line: str) -> tuple[int, str, str]:
    told = json.loads(line)
    return told["status"], told["code"], told["protocol"]


def _combined(line: str) -> tuple[int, str, str]:
    found = re.fullmatch(r'127\.0\.0\.1 - - \[[^\]]+\] "(?:-|GET / HTTP/2\.0)" (\d+) [-\d]+ "-" "-"', line)
    assert found is not None, line
    return int(found[1]), "", ""


_READERS = {"logfmt": _logfmt, "json": _json, "combined": _combined}
