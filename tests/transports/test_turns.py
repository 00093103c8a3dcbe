"""Turns of ours: what is done at their end, and whose events are whose."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples
from twisted.internet import reactor as installed
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from scalingo_proxy.transports import turns
from scalingo_proxy.transports.connection import Eager
from scalingo_proxy.transports.eager import ACCEPTS_A_TURN, EagerClient, EagerServer, eager
from scalingo_proxy.transports.turns import shorten_turns
from tests.wire.http1_strategies import examples


class Readable(Eager):
    """Stands for a transport; each read is noted."""

    def __init__(self, descriptor: int) -> None:
        self.fileno = lambda: descriptor
        self.reads = 0

    def doRead(self) -> None:
        self.reads += 1


class CodeTests(SynchronousTestCase):
    """Each class of transports has code of its own, with what CPython notes in it."""

    def test_own_code(self) -> None:
        """Nobody runs another's code, and each is still what it was copied from."""
        for name in ("write", "doRead", "read_now"):
            functions = [getattr(each, name) for each in (Eager, EagerServer, EagerClient)]
            self.assertEqual(len({id(each.__code__) for each in functions}), 3)
            self.assertEqual(len({each.__code__.co_code for each in functions}), 1)
            self.assertEqual({each.__qualname__ for each in functions}, {f"Eager.{name}"})

    def test_overridden(self) -> None:
        """What a class says itself is what it does."""
        readable = Readable(0)
        readable.read_now()
        self.assertEqual(readable.reads, 1)


class TurnTests(SynchronousTestCase):
    """A reactor of its own that does not run, with sockets that can be read at once."""

    def setUp(self) -> None:
        if type(installed) is not EPollReactor:
            self.skipTest("there is no epoll here")
        self.reactor = own_reactor()
        self.addCleanup(end, self.reactor)
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

    def test_only_event(self) -> None:
        """It is for who has the descriptor; where nobody has it any more, nothing is done."""
        readable = Readable(self.pairs[0][0].fileno())
        self.reactor.addReader(readable)
        self.reactor.doIteration(0)
        self.assertEqual(readable.reads, 1)
        del self.reactor._selectables[readable.fileno()]
        self.reactor.doIteration(0)
        self.assertEqual(readable.reads, 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_answers_first(self) -> None:
        """What a backend has sent is read before what clients have sent, which keeps its order."""
        order: list[str] = []

        class FromClient(EagerServer):
            def __init__(self, descriptor: int, name: str) -> None:
                self.fileno = lambda: descriptor
                self.doRead = lambda: order.append(name)

        third = socket.socketpair()
        for each in third:
            self.addCleanup(each.close)
        third[1].sendall(b"x")
        first, second = (
            FromClient(near.fileno(), name) for (near, _), name in zip(self.pairs, "12", strict=True)
        )
        backend = Readable(third[0].fileno())
        for each in (first, second, backend):
            self.reactor.addReader(each)
            self.addCleanup(self.reactor.removeReader, each)
        with mock.patch.object(backend, "doRead", lambda: order.append("backend")):
            self.reactor.doIteration(0)
        self.assertEqual(order, ["backend", "1", "2"])

    def test_ends(self) -> None:
        """What is to be done at the end of a turn is, in order and each by itself; more of it waits."""
        done: list[str] = []
        ends = self.reactor.ends_of_turn
        ends += [lambda: done.append("one"), lambda: 1 / 0, lambda: ends.append(lambda: done.append("two"))]
        self.reactor.doIteration(0)
        self.assertEqual(done, ["one", "two"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_end_does_not_wait(self) -> None:
        """A turn that has something to do does not wait for events."""
        done: list[str] = []
        ends = self.reactor.ends_of_turn
        ends.append(lambda: ends.append(lambda: done.append("done")))
        self.reactor.doIteration(None)
        self.assertEqual(done, ["done"])

    def test_idle(self) -> None:
        """What waits for an idle moment is done when there are no events, and before a wait for some."""
        done: list[str] = []
        readable = Readable(self.pairs[0][0].fileno())
        self.reactor.addReader(readable)

        def read() -> None:
            self.pairs[0][0].recv(1)
            done.append("read")

        def again() -> None:
            done.append("idle")
            self.reactor.when_idle(lambda: done.append("idle again"))

        self.reactor.when_idle(again)
        with mock.patch.object(readable, "doRead", read):
            for _ in range(3):
                self.reactor.doIteration(None)
        self.assertEqual(done, ["read", "idle", "idle again"])
        self.reactor.removeReader(readable)

    def test_not_idle(self) -> None:
        """A reactor that has something due looks after that first."""
        self.reactor.when_idle(lambda: self.fail("it was not idle"))
        self.reactor.doIteration(0)

    def test_timer(self) -> None:
        """Whoever waits for a timer is woken up for it."""
        self.reactor.running = True
        called: list[str] = []
        self.reactor.callLater(0.01, called.append, "first")
        self.reactor.callLater(0.02, called.append, "second")
        while (wait := self.reactor.timeout()) is not None:
            self.reactor.doIteration(wait)
            self.reactor.runUntilCurrent()
        self.assertEqual(called, ["first", "second"])

    def test_iterate(self) -> None:
        """A wait that no timer asks for ends, too."""
        before = time.monotonic()
        self.reactor.doIteration(0.01)
        self.assertGreaterEqual(time.monotonic() - before, 0.0099)

    def test_without_alarm(self) -> None:
        """Where the kernel has no such timers, each wait has its own end."""
        with mock.patch.object(turns, "Alarm", side_effect=OSError):
            shorten_turns(self.reactor)
        self.test_timer()
        self.test_iterate()

    def test_turns_follow_each_other(self) -> None:
        """While no timer is due, and none is new, the reactor is not asked between two turns."""
        first = Readable(self.pairs[0][0].fileno())
        self.reactor.running = True
        self.addCleanup(self.reactor.removeReader, first)
        self.reactor.addReader(first)
        self.reactor.callLater(30, self.fail, "it was not due")
        self.reactor.runUntilCurrent()
        for ending in (self._new_timer, self._due_timer, self._thread_call, self._stop):
            first.reads = 0
            with mock.patch.object(first, "doRead", self._counting(first, ending)):
                self.reactor.doIteration(20)
            self.assertEqual(first.reads, 3, ending)
            self.reactor.threadCallQueue.clear()
            self.reactor.runUntilCurrent()
        self.reactor.doIteration(0)
        self.assertEqual(first.reads, 4)

    def _counting(self, readable: Readable, then: Callable[[], object]) -> Callable[[], None]:
        def read() -> None:
            readable.reads += 1
            if readable.reads == 3:
                then()

        return read

    def _new_timer(self) -> None:
        self.reactor.callLater(20, self.fail, "it was not due")

    def _due_timer(self) -> None:
        self.reactor._pendingTimedCalls[0].reset(0)
        self.reactor._pendingTimedCalls[0].cancel()

    def _thread_call(self) -> None:
        self.reactor.threadCallQueue.append((self.fail, (), {}))

    def _stop(self) -> None:
        self.reactor._justStopped = True
        self.reactor.fireSystemEvent = lambda event: None

    @examples(50)
    @given(lists(tuples(sampled_from(("Reader", "Writer")), sampled_from(("add", "remove")), integers(0, 1))))
    def test_polled_as_by_twisted(self, changes: list[tuple[str, str, int]]) -> None:
        """Whatever is added and removed, the same is polled as by Twisted's own methods."""
        usual, ours = own_reactor(), own_reactor()
        shorten_turns(ours)
        try:
            transports = [Readable(near.fileno()) for near, _ in self.pairs]
            for kind, verb, which in changes:
                for reactor in (usual, ours):
                    getattr(reactor, verb + kind)(transports[which])
                self.assertEqual(*(self._polled(reactor) for reactor in (usual, ours)))
            self.assertEqual(*(sorted(reactor._poller.poll(0)) for reactor in (usual, ours)))
        finally:
            end(usual)
            end(ours)

    def test_enter_and_leave(self) -> None:
        """What is new is polled for reading; what leaves is polled no more, and may leave twice."""
        first, second = (Readable(near.fileno()) for near, _ in self.pairs)
        for each in (first, second):
            self.reactor.enter(each, each.fileno())
        self.reactor.doIteration(0)
        self.assertEqual((first.reads, second.reads), (1, 1))
        self.reactor.addWriter(first)
        for _ in range(2):
            self.reactor.leave(first.fileno())
        self.reactor.doIteration(0)
        self.assertEqual((first.reads, second.reads), (1, 2))
        self.assertEqual(self._polled(self.reactor), [(False, False, None), (True, False, second)])
        self.reactor.addWriter(first)
        self.reactor.removeWriter(first)
        self.reactor.leave(second.fileno())
        self.assertEqual(self._polled(self.reactor), [(False, False, None)] * 2)
        self.assertEqual(self.reactor._poller.poll(0), [])

    def test_undone(self) -> None:
        """A reactor whose turns are its own again has nothing of ours."""
        reactor = own_reactor()
        self.addCleanup(end, reactor)
        before = set(vars(reactor))
        undo = shorten_turns(reactor)
        self.assertNotEqual(set(vars(reactor)), before)
        undo()
        self.assertEqual(set(vars(reactor)), before)

    def test_undone_with_something_to_do(self) -> None:
        """What was to be done at the end of a turn, or in an idle moment, is done by the reactor's own."""
        reactor = own_reactor()
        self.addCleanup(end, reactor)
        done: list[str] = []
        undo = shorten_turns(reactor)
        reactor.ends_of_turn.append(lambda: done.append("end"))
        reactor.when_idle(lambda: done.append("idle"))
        undo()
        reactor.runUntilCurrent()
        self.assertEqual(sorted(done), ["end", "idle"])

    def test_shortened_twice(self) -> None:
        """The second time changes nothing, so that nothing of what was to be done is lost."""
        done: list[str] = []
        self.reactor.ends_of_turn.append(lambda: done.append("end"))
        before = dict(vars(self.reactor))
        shorten_turns(self.reactor)()
        self.assertEqual(vars(self.reactor), before)
        self.reactor.doIteration(0)
        self.assertEqual(done, ["end"])

    def _polled(self, reactor: Any) -> list[Any]:
        descriptors = [near.fileno() for near, _ in self.pairs]
        return [
            (each in reactor._reads, each in reactor._writes, reactor._selectables.get(each))
            for each in descriptors
        ]


def own_reactor() -> Any:
    """One that does not run."""
    return EPollReactor()


def end(reactor: Any) -> None:
    """Leave no descriptor of *reactor* open."""
    reactor._poller.close()
    os.close(reactor.waker.i)
    os.close(reactor.waker.o)


class AcceptTests(TestCase):
    """What came with a connection is read when it is accepted."""

    timeout = 30

    async def test_read_at_once(self) -> None:
        """It is delivered in the turn that accepts; who does not want it yet is not given it."""
        if type(installed) is not EPollReactor:
            self.skipTest("there is no epoll here")
        self.addCleanup(shorten_turns(installed))
        reactor: Any = eager(installed)
        for pauses, expected in ((False, ["made", "read"]), (True, ["made"])):
            events: list[str] = []
            factory = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda addr, e=events, p=pauses: Greeted(e, p)  # type: ignore[assignment,misc]
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            with socket.create_connection(("127.0.0.1", port.getHost().port)) as peer:
                peer.sendall(b"hello")
                port.doRead()
                self.assertEqual(events, expected)
            await port.stopListening()
            while events[-1] != "lost":
                await deferLater(installed, 0)

    async def test_one_at_a_time(self) -> None:
        """Where they come one by one, a port hardly asks for more; many that wait come in together soon."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: None  # type: ignore[assignment]
        port = eager(installed).listenTCP(0, factory, interface="127.0.0.1")
        port.stopReading()
        peers: list[socket.socket] = []

        def taken(count: int) -> int:
            """How many of so many that have connected are taken in by one read of the port."""
            peers.extend(socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(count))
            with mock.patch.object(factory, "buildProtocol", return_value=None) as build:
                port.doRead()
            return build.call_count

        in_vain = []
        for turn in range(60):
            if port.numberAccepts > 1:
                in_vain.append(turn)
            self.assertEqual(taken(1), 1)
        self.assertEqual(in_vain, [0, 3, 8, 17, 34, 51])
        turns = [taken(40)]
        while sum(turns) < 40:
            turns.append(taken(0))
        self.assertEqual(max(turns), ACCEPTS_A_TURN)
        self.assertLessEqual(turns.count(1), 17)
        self.assertEqual(taken(0), 0)
        self.assertEqual([taken(2), taken(2), taken(0), taken(0)], [1, 1, 2, 0])
        for peer in peers:
            peer.close()
        await port.stopListening()

    async def test_failure_on_what_came(self) -> None:
        """A protocol that fails on it loses its connection, and the port goes on."""
        self.addCleanup(shorten_turns(installed))
        events: list[str] = []
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: Greeted(events, False, fails=True)  # type: ignore[assignment]
        port = eager(installed).listenTCP(0, factory, interface="127.0.0.1")
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as peer:
            peer.sendall(b"hello")
            port.doRead()
        self.assertEqual(events, ["made", "lost"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(port.connected)
        await port.stopListening()


class Greeted(Protocol):
    """Notes what it is told, and may not want it."""

    def __init__(self, events: list[str], pauses: bool, fails: bool = False) -> None:
        self.events, self.pauses, self.fails = events, pauses, fails

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.events.append("made")
        if self.pauses:
            transport.pauseProducing()
            installed.callLater(0, transport.resumeProducing)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.events.append("read")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")


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
