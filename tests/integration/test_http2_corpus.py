"""A part of the HTTP/2 corpus inside TLS on real sockets: what reached a backend that is a program's own?"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

from scalingo_proxy.testing.messages import MalformedMessage, Request, RequestReader
from tests.corpus.http2 import Case, load_cases
from tests.integration.servers import SocketServer
from tests.integration.test_tls_termination import CertificatesCase
from tests.protocols.http2_worlds import RawClient, headers_frame
from tests.protocols.test_http2_corpus import PROBE, complaints, frames_of, verdict_of
from tests.protocols.tls_worlds import Cut, bytewise, cut_by, whole

#: Of the cases whose host is the app's, each so many; every family is among them.
_EACH = 5
_CASES = [case for case in load_cases() if (b":authority", b"app.test") in case.fields][::_EACH]


class _Backend:
    """Answers every request, and keeps what it read."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.malformed: list[str] = []
        self.server = SocketServer(self._serve)

    def _serve(self, connection: socket.socket) -> None:
        reader = RequestReader()
        reader.on_head = self.requests.append
        reader.on_complete = lambda _: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        while data := connection.recv(65536):
            try:
                reader.feed(data)
            except MalformedMessage as error:
                self.malformed.append(str(error))
                return


class HTTP2CorpusTests(CertificatesCase):
    """Whole, byte by byte, and cut at random into records."""

    def setUp(self) -> None:
        super().setUp()
        self.kept = _Backend()
        self.addCleanup(self.kept.server.close)
        address = self.kept.server.address
        self.start(f'[[app]]\nname = "any"\ndomains = ["app.test"]\nbackends = ["{address}"]\n')
        self.tell("any", "app.test")
        self.trusting = self.context(None, "h2")

    def run_case(self, case: Case, cut: Cut) -> list[str]:
        """What is not as the case has it."""
        requests, malformed = self.kept.requests, self.kept.malformed
        requests.clear()
        malformed.clear()
        with self.connect("app.test", self.trusting) as connection:
            client = RawClient()
            client.makeConnection(_Socket(connection, cut))
            client.begin()
            client.write(*frames_of(case, None), headers_frame(3, PROBE, "END_STREAM"))

            def is_told() -> bool:
                return verdict_of(client) == case.then and bool(client.goaway or client.statuses_of(3))

            _read_until(connection, client, is_told)
        app: Any = SimpleNamespace(backend=SimpleNamespace(requests=list(requests), malformed=malformed))
        return complaints(case, client, app, b"https", b"127.0.0.1")

    def run_cases(self, cut_for: Callable[[int], Cut]) -> None:
        self.assertGreater(len(_CASES), 45)
        found = {}
        for seed, case in enumerate(_CASES):
            # Once more if need be: what a backend was sent in the case before may come late.
            found[case.name] = self.run_case(case, cut_for(seed)) and self.run_case(case, cut_for(seed))
        self.assertEqual({name: why for name, why in found.items() if why}, {})

    def test_whole(self) -> None:
        """In as few records as TLS allows."""
        self.run_cases(lambda seed: whole)

    def test_cut(self) -> None:
        """In records of random sizes."""
        self.run_cases(lambda seed: cut_by(Random(seed)))

    def test_bytewise(self) -> None:
        """Each byte in a record of its own, but for what is large."""
        self.run_cases(lambda seed: _bytewise_if_small)


def _bytewise_if_small(data: bytes) -> Any:
    return bytewise(data) if len(data) < 2000 else whole(data)


class _Socket:
    """A socket as a client's transport."""

    def __init__(self, connection: ssl.SSLSocket, cut: Cut) -> None:
        self._connection = connection
        self._cut = cut

    def write(self, data: bytes) -> None:
        for piece in self._cut(data):
            self._connection.sendall(piece)


def _read_until(connection: ssl.SSLSocket, client: RawClient, is_told: Callable[[], bool]) -> None:
    """Give *client* what comes, until that is enough, nothing more can come, or it takes too long."""
    end = time.monotonic() + 10.0
    connection.settimeout(10.0)
    while not is_told() and time.monotonic() < end:
        try:
            data = connection.recv(65536)
        except OSError:
            return
        if not data:
            return
        client.dataReceived(data)
