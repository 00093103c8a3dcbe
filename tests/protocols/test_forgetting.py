"""Time passes for what knows no clock, as long as somebody is served."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Limits
from scalingo_proxy.protocols.deadlines import Deadlines
from scalingo_proxy.protocols.forgetting import FORGET_SECONDS, Forgetting
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire import known_hellos
from scalingo_proxy.wire.http1_request import parse_request_head
from scalingo_proxy.wire.known_requests import recent_request
from tests.wire.hello_builder import message, record, server_name, versions


class ForgettingTests(SynchronousTestCase):
    """Alone, with a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = 0
        deadlines = Deadlines(self.clock)
        self.forgetting = Forgetting(deadlines, self.clock.seconds, [self.turn])

    def turn(self) -> None:
        self.turns += 1

    def test_turns(self) -> None:
        """One turn each time, as long as it goes on."""
        self.forgetting.begin()
        for expected in (1, 2, 3):
            self.clock.advance(FORGET_SECONDS + 0.2)
            self.assertEqual(self.turns, expected)

    def test_end(self) -> None:
        """At the end everything goes, and no more turns come."""
        self.forgetting.begin()
        self.forgetting.end()
        self.assertEqual(self.turns, 2)
        self.clock.advance(10 * FORGET_SECONDS)
        self.assertEqual(self.turns, 2)


class ServingTests(SynchronousTestCase):
    """Together with everything else."""

    def test_forgotten(self) -> None:
        """What a client sent is not known any more some time after it was sent last."""
        world = World()
        self.addCleanup(world.end)
        app = world.app("known", ["known.test"])
        client = world.client()
        request = b"GET / HTTP/1.1\r\nHost: known.test\r\nCookie: secret\r\n\r\n"
        for _ in range(5):
            client.send(request)
            world.advance(0.1)
        self.assertEqual(len(app.backend.requests), 5)
        self.assertTrue(parse_request_head(request, Limits()).lines)
        self.assertIsNotNone(recent_request(request))
        for _ in range(3):
            world.advance(FORGET_SECONDS + 0.2)
        self.assertIsNone(recent_request(request))
        self.assertFalse(parse_request_head(request, Limits()).lines)

    def test_forgotten_hello(self) -> None:
        """Nor what it said hello with."""
        world = World()
        self.addCleanup(world.end)
        world.client()
        hello = record(message(server_name(b"known.test"), versions(0x0304)))
        for _ in range(5):
            known_hellos.known_hello(hello)
        self.assertTrue(known_hellos._hellos.recent)
        for _ in range(3):
            world.advance(FORGET_SECONDS + 0.2)
        self.assertFalse(known_hellos._hellos.recent)
