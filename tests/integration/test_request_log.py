"""The request log of a running proxy: its formats, its rotation, and a disk that is full."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from tests.integration.programs import IntegrationTestCase, ProxyProcess, wait_for


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
