"""Turns of ours: what is done at their end, and whose events are whose."""

from __future__ import annotations

import socket
from typing import Any
from unittest import mock

from twisted.internet import reactor as installed
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from scalingo_proxy.transports.connection import Eager
from scalingo_proxy.transports.eager import eager
from scalingo_proxy.transports.turns import shorten_turns


class Readable(Eager):
    """Stands for a transport; each read is noted."""

    def __init__(self, descriptor: int) -> None:
        self.fileno = lambda: descriptor
        self.reads = 0

    def doRead(self) -> None:
        self.reads += 1


class TurnTests(SynchronousTestCase):
    """A reactor of its own that does not run, with sockets that can be read at once."""

    def setUp(self) -> None:
        if type(installed) is not EPollReactor:
            self.skipTest("there is no epoll here")
        self.reactor: Any = EPollReactor()
        self.addCleanup(self.reactor._poller.close)
        shorten_turns(self.reactor)
        self.pairs = [socket.socketpair() for _ in range(2)]
        for near, far in self.pairs:
            self.addCleanup(near.close)
            self.addCleanup(far.close)
            far.sendall(b"x")

    def test_event_of_who_had_the_descriptor_before(self) -> None:
        """Who got a descriptor in this turn is not given what was told of who had it before."""
        first, second = (Readable(near.fileno()) for near, _ in self.pairs)
        newcomer = Readable(second.fileno())

        def exchange() -> None:
            self.reactor.removeReader(second)
            self.reactor.addReader(newcomer)

        with mock.patch.object(first, "doRead", exchange):
            self.reactor.addReader(first)
            self.reactor.addReader(second)
            self.reactor.doIteration(0)
            self.assertEqual((second.reads, newcomer.reads), (0, 0))
            self.reactor.removeReader(first)
        self.reactor.doIteration(0)
        self.assertEqual((second.reads, newcomer.reads), (0, 1))

    def test_ends(self) -> None:
        """What is to be done at the end of a turn is, in order and each by itself; more of it waits."""
        done: list[str] = []
        ends = self.reactor.doIteration.ends
        ends += [lambda: done.append("one"), lambda: 1 / 0, lambda: ends.append(lambda: done.append("two"))]
        self.reactor.doIteration(0)
        self.assertEqual(done, ["one", "two"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_end_does_not_wait(self) -> None:
        """A turn that has something to do does not wait for events."""
        done: list[str] = []
        ends = self.reactor.doIteration.ends
        ends.append(lambda: ends.append(lambda: done.append("done")))
        self.reactor.doIteration(None)
        self.assertEqual(done, ["done"])


@implementer(IHalfCloseableProtocol)
class HalfCloser(Protocol):
    """Notes its ends."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def readConnectionLost(self) -> None:
        self.events.append("read")

    def writeConnectionLost(self) -> None:
        self.events.append("write")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")


class EndWritingTests(TestCase):
    """``end_writing``, with a plain socket at the other end."""

    timeout = 30

    async def connect(self) -> tuple[HalfCloser, socket.socket]:
        reactor: Any = eager(installed)
        protocol = HalfCloser()
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: protocol  # type: ignore[assignment]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        peer = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(peer.close)
        peer.settimeout(10)
        while protocol.transport is None:
            await deferLater(reactor, 0)
        return protocol, peer

    async def end(self, protocol: HalfCloser) -> None:
        transport: Any = protocol.transport
        transport.loseConnection()
        while "lost" not in protocol.events:
            await deferLater(installed, 0)

    async def test_at_once(self) -> None:
        """The peer sees the end before the call returns, and what is written after it goes nowhere."""
        protocol, peer = await self.connect()
        transport: Any = protocol.transport
        transport.write(b"last")
        transport.end_writing()
        transport.write(b"too late")
        self.assertEqual((peer.recv(100), peer.recv(100)), (b"last", b""))
        transport.end_writing()
        transport.loseWriteConnection()
        peer.close()
        while "read" not in protocol.events:
            await deferLater(installed, 0)
        await self.end(protocol)
        self.assertEqual(protocol.events.count("lost"), 1)

    async def test_behind_what_is_buffered(self) -> None:
        """What the system has not taken yet goes first."""
        protocol, peer = await self.connect()
        transport: Any = protocol.transport
        sent = bytes(1 << 23)
        transport.write(sent)
        transport.end_writing()
        received = 0
        while data := peer.recv(1 << 20):
            received += len(data)
            await deferLater(installed, 0)
        self.assertEqual(received, len(sent))
        await self.end(protocol)
        self.assertEqual(protocol.events, ["write", "lost"])

    async def test_close_after_both_ends(self) -> None:
        """Where both have ended their direction, a close is one."""
        protocol, peer = await self.connect()
        transport: Any = protocol.transport
        peer.shutdown(socket.SHUT_WR)
        while "read" not in protocol.events:
            await deferLater(installed, 0)
        transport.end_writing()
        transport.loseConnection()
        self.assertEqual(protocol.events, ["read", "lost"])
        self.assertEqual(peer.recv(100), b"")
