"""Connections that are dialled: there at once where that can be, and told of once."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from scalingo_proxy.transports.eager import eager


class Dialled(Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")


class DialTests(TestCase):
    """Real sockets on the loopback interface."""

    timeout = 30
    family = socket.AF_INET
    host = "127.0.0.1"

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = eager(reactor)
        self.failures: list[Failure] = []
        self.listening = socket.create_server((self.host, 0), family=self.family)
        self.addCleanup(self.listening.close)

    def dial(self, port: int = 0, timeout: float = 5.0) -> tuple[Dialled, Callable[[], None]]:
        protocol = Dialled()
        port = port or self.listening.getsockname()[1]
        return protocol, self.reactor.dial(self.host, port, protocol, timeout, self.failures.append)

    def closed_port(self) -> int:
        with socket.create_server((self.host, 0), family=self.family) as closed:
            return int(closed.getsockname()[1])

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await deferLater(self.reactor, 0.001)

    async def test_there_at_once(self) -> None:
        """Where somebody listens on this machine, the protocol is connected before the call returns."""
        protocol, abandon = self.dial()
        self.assertEqual(protocol.events, ["made"])
        transport: Any = protocol.transport
        self.assertEqual(transport.getPeer().host, self.host)
        self.assertEqual(transport.logPrefix(), "Dialled,client")
        transport.write(b"hello")
        peer, _ = self.listening.accept()
        self.addCleanup(peer.close)
        self.assertEqual(peer.recv(100), b"hello")
        abandon()  # does nothing any more
        peer.sendall(b"answer")
        await self.until(lambda: len(protocol.events) > 1)
        transport.loseConnection()
        await self.until(lambda: protocol.events[-1] == "lost")
        self.assertEqual((protocol.events, self.failures), (["made", b"answer", "lost"], []))

    async def test_without_failure(self) -> None:
        """Who is there at once is asked for neither a timeout nor what to do about a failure."""
        port = self.listening.getsockname()[1]
        protocol = Dialled()
        self.assertIsNone(self.reactor.dial_at_once(self.host, port, protocol))
        self.assertEqual(protocol.events, ["made"])
        protocol.transport.abortConnection()
        await self.until(lambda: protocol.events[-1] == "lost")
        refused = Dialled()
        go_on = self.reactor.dial_at_once(self.host, self.closed_port(), refused)
        go_on(5.0, self.failures.append)
        await self.until(lambda: self.failures)
        self.assertEqual([each.type for each in self.failures], [error.ConnectionRefusedError])
        self.assertEqual(refused.events, [])

    async def test_refused(self) -> None:
        """Whoever is refused is told so, later and once."""
        protocol, abandon = self.dial(self.closed_port())
        self.assertEqual(self.failures, [])
        await self.until(lambda: self.failures)
        abandon()
        self.assertEqual([each.type for each in self.failures], [error.ConnectionRefusedError])
        self.assertEqual(protocol.events, [])

    async def test_abandoned(self) -> None:
        """An attempt that was given up tells nothing, whatever comes of it."""
        protocol, abandon = self.dial(self.closed_port())
        abandon()
        abandon()
        await deferLater(self.reactor, 0.01)
        self.assertEqual((protocol.events, self.failures), ([], []))

    async def test_not_at_once(self) -> None:
        """Where nobody accepts, it is waited for: until somebody does, or the time is over."""
        with socket.create_server((self.host, 0), family=self.family, backlog=0) as busy:
            port = busy.getsockname()[1]
            queued = [socket.create_connection((self.host, port))]  # the queue takes no more
            self.addCleanup(lambda: [each.close() for each in queued])
            patient, abandon = self.dial(port, timeout=20.0)
            late, _ = self.dial(port, timeout=0.05)
            self.assertEqual((patient.events, late.events), ([], []))
            await self.until(lambda: self.failures)
            self.assertEqual([each.type for each in self.failures], [error.TimeoutError])
            abandon()
        self.assertEqual((patient.events, late.events, len(self.failures)), ([], [], 1))

    async def test_no_descriptor(self) -> None:
        """Without a descriptor the failure says which error it was."""
        self.host.encode("idna")  # the codec is a file, read when it is first needed
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(self.listening.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            protocol, _ = self.dial()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await self.until(lambda: self.failures)
        failed: Any = self.failures[0].value
        self.assertIsInstance(failed, error.ConnectBindError)
        self.assertEqual(failed.osError, 24)
        self.assertEqual(protocol.events, [])


class DialIPv6Tests(DialTests):
    """The same over IPv6."""

    family = socket.AF_INET6
    host = "::1"
