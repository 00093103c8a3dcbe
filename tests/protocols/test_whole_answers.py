"""Whole answers of backends, to whole requests, take a shortcut: what that comes to."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols import http_backend, http_requester
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.wire.http1_body import Framing, FramingKind
from scalingo_proxy.wire.http1_exchange import IllegalTransition, Side
from scalingo_proxy.wire.http1_head import RequestHead

_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello there",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
)


class _Connections:
    """Notes what becomes of a connection."""

    def __init__(self) -> None:
        self.seconds = lambda: 7.0
        self.calls: list[Any] = []

    def give_back(self, backend: HTTPBackend, now: float) -> None:
        self.calls.append(("given back", now, backend.exchange is None))

    def discard(self, backend: HTTPBackend) -> None:
        self.calls.append("discarded")


class _Exchange:
    """Notes what it is told; nothing passes it by."""

    client_transport = None

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def informational(self, head: Any) -> None:
        self.calls.append(("interim", head.status))

    def response_whole(self, head: Any, payload: bytes, trailers: Any, now: float) -> None:
        self.calls.append(("whole", head.status, head.fields, payload, list(trailers), now))

    def response_started(self, head: Any, payload: bytes) -> None:
        self.calls.append(("started", head.status, head.fields, payload))

    def backend_failed(self, error: Exception) -> None:
        self.calls.append(("failed", str(error)))

    def broke(self) -> None:
        self.calls.append("broke")


def _request(method: bytes, has_body: bool) -> RequestHead:
    head = RequestHead(method, b"/", 1)
    if has_body:
        head.framing = Framing(FramingKind.LENGTH, 3)
    return head


class StepsTests(SynchronousTestCase):
    """The shortcuts of a connection to a backend, against the steps that they leave out."""

    def outcome(
        self, answer: bytes, method: bytes, request: str, is_writing_paused: bool, is_reading_paused: bool
    ) -> Any:
        """Who is told what, and where the connection stands then."""
        connections, transport = _Connections(), StringTransport()
        backend = HTTPBackend(connections, object(), None)  # type: ignore[arg-type]
        backend.transport = transport
        backend.exchange = _Exchange(connections.calls)  # type: ignore[assignment]
        backend.send_request(_request(method, request != "alone"), b"words")
        if request == "ended":
            backend.end_request([], b"abc")
        backend._writing_paused = is_writing_paused
        if is_reading_paused:
            backend.pause_response()
        backend.dataReceived(answer)
        state = {
            name: value
            for name, value in vars(backend).items()
            if name
            not in ("_connections", "_cycle", "_reader", "_response", "exchange", "member", "transport")
        }
        return (
            connections.calls,
            (backend._cycle.request, backend._cycle.response),
            (backend.exchange is None, backend._reader is None, backend._response is None),
            (transport.value(), transport.producerState, transport.disconnecting, transport.disconnected),
            state,
        )

    @contextlib.contextmanager
    def no_shortcut(self) -> Iterator[None]:
        """No answer and no request is of the kinds that they are for."""
        with (
            mock.patch.object(http_backend, "_LENGTH"),
            mock.patch.object(http_backend, "_NONE"),
            mock.patch.object(http_requester, "_IDLE"),
        ):
            yield

    def test_all(self) -> None:
        """All kinds of answers, to all kinds of requests, whoever is held up."""
        ways = itertools.product(
            _ANSWERS, (b"GET", b"HEAD"), ("alone", "ended", "begun"), (False, True), (False, True)
        )
        kept = 0
        for way in ways:
            outcome = self.outcome(*way)
            with self.no_shortcut():
                by_steps = self.outcome(*way)
            self.assertEqual(outcome, by_steps, str(way))
            kept += ("given back", 7.0, True) in outcome[0]
        self.assertGreater(kept, 20)

    def test_one_after_the_other(self) -> None:
        """A second request, sent while one is under way, is noticed whether it is whole or not."""
        for has_body in (False, True):
            backend = HTTPBackend(_Connections(), object(), None)  # type: ignore[arg-type]
            backend.transport = StringTransport()
            backend.send_request(_request(b"GET", False), b"words")
            self.assertRaises(IllegalTransition, backend.send_request, _request(b"GET", has_body), b"words")
            self.assertIs(backend._cycle.request, Side.DONE)
