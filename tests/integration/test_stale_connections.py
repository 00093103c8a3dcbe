"""Kept connections that died, over real sockets, where the kernel can be asked before a request is sent."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scalingo_proxy.model import App, join_host_port
from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.testing.clients import ScriptedClient, connect_client
from scalingo_proxy.testing.observers import RecordingObserver

POST = b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 4\r\n\r\nbody"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class StaleConnectionTests(TestCase):
    """The backend is a plain socket that nobody's event loop helps."""

    timeout = 20

    def setUp(self) -> None:
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.backend.settimeout(5)
        self.addCleanup(self.backend.close)
        address = join_host_port(*self.backend.getsockname())
        self.observer = RecordingObserver()
        resolver = MemoryResolver([App("hello", ["hello.test"], [address])])
        self.factory = HTTPProxyFactory(resolver, reactor, observer=self.observer)
        listen: Any = reactor.listenTCP  # type: ignore[attr-defined]
        self.port = listen(0, self.factory, interface="127.0.0.1")

    @inlineCallbacks
    def tearDown(self) -> Any:
        yield self.port.stopListening()
        yield self.factory.drain(0)
        while self.factory.env.connections.open_count:
            yield deferLater(reactor, 0.005)

    def serve_one(self, connection: socket.socket | None) -> socket.socket:
        """Read a request and answer it, over a new connection if none is given; in a thread."""
        if connection is None:
            connection, _ = self.backend.accept()
            connection.settimeout(5)
        received = b""
        while not received.endswith(b"body"):
            received += connection.recv(65536)
        self.assertEqual(received.count(b"POST "), 1)
        connection.sendall(ANSWER)
        return connection

    def client(self) -> ScriptedClient:
        """A client of the proxy."""
        client = connect_client(reactor, ("127.0.0.1", self.port.getHost().port))
        self.addCleanup(client.close)
        return client

    @inlineCallbacks
    def answered(self, client: ScriptedClient, count: int) -> Any:
        """Wait for so many answers."""
        while len(client.responses) < count and not client.is_over:
            yield deferLater(reactor, 0.005)
        self.assertEqual(client.statuses, [200] * count)

    @inlineCallbacks
    def dies(self, *, reset: bool, says: bytes = b"") -> Any:
        """A kept connection ends in the moment before a POST is sent over it."""
        client = self.client()
        served: Deferred[socket.socket] = deferToThread(self.serve_one, None)
        client.send(POST)
        first = yield served
        yield self.answered(client, 1)
        self.assertEqual(self.factory.env.connections.idle_count, 1)
        if says:
            first.sendall(says)
        if reset:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        first.close()
        # As if the end came in the same turn of the reactor as the request, behind it.
        (backend,) = self.factory.env.connections._open
        backend.transport.stopReading()
        served = deferToThread(self.serve_one, None)
        client.send(POST)
        yield self.answered(client, 2)
        second = yield served
        second.close()
        self.assertEqual([record.attempts for record in self.observer.records], [1, 1])
        client.close()

    def test_closed(self) -> Any:
        """A POST does not meet a connection that the backend has closed: it takes a new one."""
        return self.dies(reset=False)

    def test_reset(self) -> Any:
        """Nor one that was reset."""
        return self.dies(reset=True)

    def test_spoke_unasked(self) -> Any:
        """Nor one on which the backend said something that nobody asked for."""
        return self.dies(reset=False, says=b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    @inlineCallbacks
    def test_alive(self) -> Any:
        """One that is alive is used again."""
        client = self.client()
        served: Deferred[socket.socket] = deferToThread(self.serve_one, None)
        client.send(POST)
        connection = yield served
        yield self.answered(client, 1)
        served = deferToThread(self.serve_one, connection)
        client.send(POST)
        yield self.answered(client, 2)
        self.assertIs((yield served), connection)
        connection.close()
        client.close()
