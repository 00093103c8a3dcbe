"""Attempts to connect wait for a descriptor instead of failing, and blame no backend."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from twisted.internet.error import ConnectBindError
from twisted.internet.error import TimeoutError as TimedOut
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import QueueTimeout
from scalingo_proxy.model import Backend
from scalingo_proxy.protocols.backend_connector import Connect, UnderWay
from scalingo_proxy.protocols.connection_attempts import LOOK_AGAIN_SECONDS, ConnectionAttempts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, each_world, get, hello

BACKEND = Backend("127.0.0.1", 3000)


class AtOnce:
    """A connector that can tell at once, as :class:`BackendConnector` can.

    :param later: connects what it says is not connected yet; None: all is.
    """

    def __init__(self, later: Connect | None = None) -> None:
        self.later = later
        self.asked: list[Protocol] = []
        self.begun: list[Protocol] = []

    def __call__(self, backend: Backend, protocol: Protocol, *_: object) -> Callable[[], None]:
        self.begun.append(protocol)
        return lambda: None

    def at_once(self, backend: Backend, protocol: Protocol) -> UnderWay | None:
        self.asked.append(protocol)
        return None if self.later is None else partial(self.later, backend, protocol)


class AttemptsTests(SynchronousTestCase):
    """A connector that is told how each attempt goes."""

    def setUp(self) -> None:
        self.clock, self.room = Clock(), True
        self.begun: list[tuple[Protocol, float, Callable[[Failure], None]]] = []
        self.abandoned: list[Protocol] = []
        self.failures: list[Failure] = []
        self.attempts = ConnectionAttempts(self.connect, self.clock)
        self.attempts.has_room = lambda: self.room

    def connect(
        self, backend: Backend, protocol: Protocol, timeout: float, failed: Callable[[Failure], None]
    ) -> Callable[[], None]:
        self.begun.append((protocol, timeout, failed))
        return lambda: self.abandoned.append(protocol)

    def begin(self, timeout: float = 5.0) -> tuple[Protocol, Callable[[], None]]:
        protocol = Protocol()
        return protocol, self.attempts.begin(BACKEND, protocol, timeout, self.failures.append)

    def test_with_room(self) -> None:
        """Begun at once, counted until it is over."""
        protocol, _ = self.begin()
        self.assertEqual([entry[:2] for entry in self.begun], [(protocol, 5.0)])
        self.assertEqual(len(self.attempts), 1)
        self.attempts.over(protocol)
        self.assertEqual((len(self.attempts), self.clock.getDelayedCalls()), (0, []))

    def test_there_at_once(self) -> None:
        """Of what is connected before it could be waited for nothing is kept."""
        connect = AtOnce()
        attempts = ConnectionAttempts(connect, self.clock)
        told = Protocol()
        attempts.begin(BACKEND, told, 5.0, self.failures.append)()
        self.assertEqual((connect.asked, len(attempts), self.failures), ([told], 0, []))

    def test_not_at_once(self) -> None:
        """Of the others all is, and it goes on where it was begun."""
        connect = AtOnce(self.connect)
        attempts = ConnectionAttempts(connect, self.clock)
        protocol = Protocol()
        abandon = attempts.begin(BACKEND, protocol, 5.0, self.failures.append)
        self.assertEqual((connect.asked, len(attempts)), ([protocol], 1))
        self.assertEqual([entry[:2] for entry in self.begun], [(protocol, 5.0)])
        abandon()
        self.assertEqual((self.abandoned, len(attempts)), ([protocol], 0))

    def test_at_once_only_with_room(self) -> None:
        """Nobody overtakes who waits for a descriptor."""
        connect = AtOnce()
        attempts = ConnectionAttempts(connect, self.clock)
        attempts.has_room = lambda: self.room
        self.room = False
        attempts.begin(BACKEND, Protocol(), 5.0, self.failures.append)
        self.room = True
        attempts.begin(BACKEND, Protocol(), 5.0, self.failures.append)
        self.assertEqual((connect.asked, len(attempts)), ([], 2))
        self.clock.advance(LOOK_AGAIN_SECONDS)
        self.assertEqual(len(connect.begun), 2)

    def test_in_turn(self) -> None:
        """Those who wait come in the order in which they asked, with the time that is left."""
        self.room = False
        first, _ = self.begin()
        second, _ = self.begin()
        self.assertEqual((self.begun, len(self.attempts)), ([], 2))
        self.clock.advance(1)
        self.room = True
        third, _ = self.begin()
        self.assertEqual(self.begun, [])
        self.clock.advance(LOOK_AGAIN_SECONDS)
        self.assertEqual([entry[0] for entry in self.begun], [first, second, third])
        self.assertAlmostEqual(self.begun[0][1], 4.0 - LOOK_AGAIN_SECONDS)

    def test_too_long(self) -> None:
        """One for which there was no descriptor all the time failed for a reason of ours."""
        self.room = False
        self.begin(1.0)
        self.clock.pump([0.25] * 5)
        self.assertEqual([type(failure.value) for failure in self.failures], [QueueTimeout])
        self.assertEqual((len(self.attempts), self.clock.getDelayedCalls()), (0, []))

    def test_failed_for_want_of_a_descriptor(self) -> None:
        """An attempt that the system has none for waits, too."""
        for number in (errno.EMFILE, errno.ENFILE):
            self.begin()
            self.begun.pop()[2](Failure(ConnectBindError(number, "none left")))
            self.assertEqual(self.failures, [])
            self.clock.advance(LOOK_AGAIN_SECONDS)
            self.assertEqual(len(self.begun), 1)
            self.begun[0][2](Failure(TimedOut()))
            self.failures.pop().trap(TimedOut)
            self.begun.clear()
        self.assertEqual(len(self.attempts), 0)

    def test_abandoned(self) -> None:
        """Nobody is told, and nothing is begun any more."""
        protocol, abandon = self.begin()
        abandon()
        abandon()
        self.room = False
        _, abandon = self.begin()
        abandon()
        self.room = True
        self.clock.advance(LOOK_AGAIN_SECONDS)
        self.assertEqual((len(self.begun), self.abandoned, self.failures), (1, [protocol], []))
        self.assertEqual((len(self.attempts), self.clock.getDelayedCalls()), (0, []))


class ShortageTests(WorldTestCase):
    """Requests of a process without a descriptor to spare."""

    @each_world({"latency": 0.1})
    def test_waits_and_is_served(self, world: World) -> None:
        """A request whose connection had to wait is answered as any other."""
        app = hello(world)
        attempts = world.factory.env.connections.attempts
        attempts.has_room = lambda: False
        client = world.client()
        client.send(get())
        world.advance(1)
        self.assertEqual((client.statuses, len(app.backend.connections)), ([], 0))
        attempts.has_room = lambda: True
        world.run_until(lambda: client.responses)
        self.assertEqual(client.statuses, [200])

    @each_world()
    def test_waits_in_vain(self, world: World) -> None:
        """It is told so, and the backend is as well as before."""
        app = hello(world)
        attempts = world.factory.env.connections.attempts
        attempts.has_room = lambda: False
        client = world.client()
        client.send(get())
        world.run_until(lambda: client.responses)
        self.assertEqual(client.statuses, [503])
        self.assertIn(b"queue-timeout", client.responses[0].get_all(b"X-Scalingo-Error")[0])
        attempts.has_room = lambda: True
        self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(len(app.backend.connections), 1)

    @each_world()
    def test_idle_ones_are_given_up(self, world: World) -> None:
        """Connections that are only kept are closed, each backend's oldest first."""
        app = hello(world, replies.delayed(0.5, replies.fixed(b"x")))
        for _ in range(3):
            world.client().send(get())
            world.advance(0.1)
        world.advance(1)
        connections = world.factory.env.connections
        self.assertEqual((connections.idle_count, connections.busy_count), (3, 0))
        connections.close_some_idle(2)
        world.settle()
        self.assertEqual(app.backend.open_connections, app.backend.connections[2:])
        world.factory.env.make_room()
        world.settle()
        self.assertEqual((app.backend.open_connections, connections.open_count), ([], 0))
        self.assertEqual(world.request(get()).status, 200)
