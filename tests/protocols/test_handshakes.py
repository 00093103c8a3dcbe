"""Floods of TLS handshakes: whose turn it is, and who is turned away."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.protocols.handshakes import BURST_SECONDS, SECONDS_A_TURN, Handshakes
from scalingo_proxy.protocols.proxy_header import ProxyHeaderFactory
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_factory import TLSProxyFactory
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.world import World, build_http_factory
from tests.protocols.tls_clients import certificate, client_context, now
from tests.protocols.worlds import WorldTestCase

#: What a handshake of these tests takes: four of them fill a turn.
SECONDS = SECONDS_A_TURN / 4

INTERNAL_ERROR = b"\x15\x03\x03\x00\x02\x02\x50"


class Client:
    """Somebody whose handshake takes its time."""

    def __init__(self, test: HandshakesTests, name: str) -> None:
        self._test = test
        self.name = name
        self.error: ProxyError | None = None

    def begin_handshake(self) -> None:
        self._test.begun.append(self.name)
        self._test.clock.rightNow += SECONDS
        if self.name == "broken":
            raise RuntimeError(self.name)

    def turn_away(self, error: ProxyError) -> None:
        self.error = error


class HandshakesTests(SynchronousTestCase):
    """The rules, on a clock that goes on while somebody works."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.handshakes = Handshakes(self.clock)
        self.limits = Limits()
        self.begun: list[str] = []

    def ask(self, name: str, address: str = "192.0.2.1", app: str = "hello") -> Client:
        client = Client(self, name)
        self.handshakes.ask(client, address, app, self.limits)
        return client

    def turn_of_the_reactor(self) -> None:
        """Make the calls that are due now, and none that comes of them."""
        calls: list[IDelayedCall] = self.clock.getDelayedCalls()
        for call in calls:
            self.clock.calls.remove(call)
            call.func()

    def test_nobody_waits(self) -> None:
        """While handshakes take less than half of the time, each begins at once."""
        for number in range(100):
            self.ask(str(number))
            self.assertEqual(len(self.begun), number + 1)
            self.clock.advance(SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_so_much_of_a_turn(self) -> None:
        """Of many that come at once, some begin, and so many more in each turn of the reactor."""
        for number in range(11):
            self.ask(str(number))
        self.assertEqual(len(self.begun), 4)
        self.assertEqual(self.handshakes.waiting, 7)
        told = []
        while self.clock.getDelayedCalls():
            self.turn_of_the_reactor()
            told.append(len(self.begun))
        self.assertEqual(told, [8, 11])

    def test_nobody_overtakes(self) -> None:
        """Who comes while others wait, waits."""
        for number in range(5):
            self.ask(str(number))
        self.clock.rightNow += 1.0
        self.ask("late")
        self.assertEqual(len(self.begun), 4)
        self.turn_of_the_reactor()
        self.assertEqual(self.begun[-2:], ["4", "late"])

    def test_flood_lets_pass(self) -> None:
        """Somebody else, for another app, does not wait for a flood that came before."""
        for number in range(500):
            self.ask(str(number))
        self.ask("good", "198.51.100.1", "good")
        self.turn_of_the_reactor()
        self.assertIn("good", self.begun)

    def test_full_queue(self) -> None:
        """The newest of the crowd goes, whoever it was that came."""
        self.limits = Limits(handshake_queue=10)
        flood = [self.ask(str(number)) for number in range(14)]
        good = self.ask("good", "198.51.100.1", "good")
        self.assertEqual([client.name for client in flood if client.error], ["13"])
        self.assertIsNone(good.error)
        more = self.ask("14")
        assert more.error is not None
        self.assertEqual(
            (more.error.code, more.error.detail), ("queue-full", "too many TLS handshakes are waiting")
        )
        self.assertEqual(self.handshakes.refused, {"address": 0, "queue": 2})

    def test_of_one_address(self) -> None:
        """Ten seconds' worth at once, and so many a second in the long run; an IPv6 /64 is one address."""
        self.limits = Limits(handshakes_per_address=2)
        clients = [self.ask("x", f"2001:db8::{number}") for number in range(2 * BURST_SECONDS + 5)]
        refused = [client.error for client in clients if client.error is not None]
        self.assertEqual(len(refused), 5)
        self.assertEqual({error.code for error in refused}, {"rate-limited"})
        self.assertIsNone(self.ask("other", "2001:db8:0:1::1").error)
        self.clock.rightNow += 1.0
        self.assertEqual([self.ask("x", "2001:db8::1").error is None for _ in range(3)], [True, True, False])
        self.assertEqual(self.handshakes.refused["address"], 6)

    def test_floods_are_not_let_in(self) -> None:
        """Who is refused as often again as it may ask, is turned away before it says anything."""
        self.limits, seconds = Limits(handshakes_per_address=2), self.clock.seconds
        self.assertIsNone(self.handshakes.refusal("192.0.2.1", seconds()))
        for _ in range(2 * BURST_SECONDS + 1):
            self.ask("x")
        self.assertIsNone(self.handshakes.refusal("192.0.2.1", seconds()))
        self.ask("x")
        refused = self.handshakes.refusal("192.0.2.1", seconds())
        assert refused is not None
        self.assertEqual(refused.code, "rate-limited")
        self.assertEqual(self.handshakes.refused["address"], 3)
        self.assertIsNone(self.handshakes.refusal("192.0.2.2", seconds()))
        self.assertIsNone(self.handshakes.refusal("", seconds()))
        self.assertIsNone(self.handshakes.refusal("192.0.2.1", seconds() + 0.5))

    def test_reload(self) -> None:
        """Another limit counts from the next handshake on."""
        self.limits = Limits(handshakes_per_address=1)
        for _ in range(BURST_SECONDS):
            self.ask("x")
        self.assertIsNotNone(self.ask("x").error)
        self.limits = Limits(handshakes_per_address=5)
        self.assertIsNone(self.ask("x").error)

    def test_no_limit_without_address(self) -> None:
        """Where one address brings many clients, it has no limit of its own."""
        self.limits = Limits(handshakes_per_address=1)
        self.assertEqual({self.ask("x", "").error for _ in range(100)}, {None})

    def test_leaving(self) -> None:
        """Who leaves has no turn; the last one takes the timer with it."""
        clients = [self.ask(str(number)) for number in range(6)]
        for client in clients:
            self.handshakes.forget(client)
        self.assertEqual((self.handshakes.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_broken(self) -> None:
        """One that fails holds up nobody."""
        for number in range(4):
            self.ask(str(number))
        self.ask("broken")
        self.ask("next")
        self.assertRaises(RuntimeError, self.turn_of_the_reactor)
        self.turn_of_the_reactor()
        self.assertEqual(self.begun[-2:], ["broken", "next"])


def build_tls_factory(world: World, **options: Any) -> TLSProxyFactory:
    """Ends TLS by SNI, as the program does."""
    index = CertificateIndex(now)
    index.set(certificate("hello.test"))
    return TLSProxyFactory(build_http_factory(world, **options), Contexts(index))


def build_behind_proxy(world: World, **options: Any) -> ProxyHeaderFactory:
    """The same, where a PROXY header tells whose the connection is."""
    tls = build_tls_factory(world, **options)
    return ProxyHeaderFactory(tls, tls.env)


def hello() -> bytes:
    """A hello for ``hello.test``."""
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(coming, going, server_hostname="hello.test")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return going.read()
    raise AssertionError("a handshake of one side alone")


class WaitingTests(WorldTestCase):
    """What a client notices."""

    def start(self, build: Any = build_tls_factory, **options: Any) -> World:
        world = self.world(build=build, **options)
        world.app("hello", ["hello.test"], tls="terminate")
        self.hello = hello()
        return world

    def make_busy(self, world: World) -> None:
        """From now on everybody waits, and nobody's turn comes."""
        handshakes = world.factory.env.handshakes
        self.patch(handshakes, "_even_at", float("inf"))
        self.patch(handshakes, "_go", lambda: setattr(handshakes, "_timer", None))

    def said(self, client: ScriptedClient) -> bytes:
        return b"".join(piece for _, piece in client.arrivals)

    def codes(self, world: World) -> list[str]:
        return [record.code for record in world.records]

    def test_answered(self) -> None:
        """A handshake that nobody is before begins at once."""
        world = self.start()
        client = world.client("192.0.2.1").send(self.hello)
        world.settle()
        self.assertEqual(self.said(client)[:1], b"\x16")

    def test_too_many_of_an_address(self) -> None:
        """It gets an alert, and its line in the log; others go on."""
        world = self.start(limits=Limits(handshakes_per_address=1))
        for _ in range(BURST_SECONDS):
            world.client("192.0.2.1").send(self.hello)
        refused = world.client("192.0.2.1").send(self.hello)
        other = world.client("192.0.2.2").send(self.hello)
        world.settle()
        self.assertEqual(self.said(refused), INTERNAL_ERROR)
        self.assertEqual(self.said(other)[:1], b"\x16")
        (record,) = world.records
        self.assertEqual(
            (record.code, record.host, record.app, record.client),
            ("rate-limited", "hello.test", "hello", "192.0.2.1"),
        )

    def test_flood_of_an_address(self) -> None:
        """What goes on and on is closed at once, with its line in the log; others come in."""
        world = self.start(limits=Limits(handshakes_per_address=1))
        for _ in range(BURST_SECONDS + 1):
            world.client("192.0.2.1").send(self.hello)
        world.settle()
        refused, other = world.client("192.0.2.1"), world.client("192.0.2.2").send(self.hello)
        world.settle()
        self.assertEqual((self.said(refused), refused.is_over), (b"", True))
        self.assertEqual(self.said(other)[:1], b"\x16")
        self.assertEqual(self.codes(world), ["rate-limited"] * 2)
        self.assertEqual([record.host for record in world.records], ["hello.test", "-"])

    def test_address_of_proxy_header(self) -> None:
        """It is the client whom the PROXY header names, not who sent it, that is counted."""
        world = self.start(build_behind_proxy, limits=Limits(handshakes_per_address=1))
        headers = [b"PROXY TCP4 198.51.100.%d 192.0.2.9 4000 443\r\n" % number for number in (1, 2)]
        clients = [world.client("127.0.0.1").send(headers[0] + self.hello) for _ in range(BURST_SECONDS + 1)]
        other = world.client("127.0.0.1").send(headers[1] + self.hello)
        world.settle()
        answers = [self.said(client) for client in (*clients, other)]
        self.assertEqual(
            [answer == INTERNAL_ERROR for answer in answers], [False] * BURST_SECONDS + [True, False]
        )

    def test_loopback(self) -> None:
        """A proxy on this machine brings many clients."""
        world = self.start(limits=Limits(handshakes_per_address=1))
        clients = [world.client("127.0.0.1").send(self.hello) for _ in range(2 * BURST_SECONDS)]
        world.settle()
        self.assertEqual({self.said(client)[:1] for client in clients}, {b"\x16"})

    def test_full_queue(self) -> None:
        """Who finds the queue full gets an alert."""
        world = self.start(limits=Limits(handshake_queue=3))
        self.make_busy(world)
        clients = [world.client("192.0.2.1").send(self.hello) for _ in range(4)]
        world.settle()
        self.assertEqual([self.said(client) for client in clients], [b"", b"", b"", INTERNAL_ERROR])
        self.assertEqual(self.codes(world), ["queue-full"])

    def test_turn_that_does_not_come(self) -> None:
        """Waiting counts as part of the handshake: it ends in time, with an alert."""
        world = self.start(timeouts=Timeouts(request_head=3.0))
        self.make_busy(world)
        client = world.client("192.0.2.1").send(self.hello)
        world.advance(2.9)
        self.assertEqual(self.said(client), b"")
        world.advance(0.4)
        self.assertEqual(self.said(client), INTERNAL_ERROR)
        self.assertEqual(self.codes(world), ["queue-timeout"])
        self.assertEqual(world.factory.env.handshakes.waiting, 0)

    def test_waiting_makes_room(self) -> None:
        """Where all places are taken, those who wait for a turn give theirs to who comes."""
        world = self.start(limits=Limits(client_connections=3))
        self.make_busy(world)
        crowd = [world.client("192.0.2.1").send(self.hello) for _ in range(3)]
        world.advance(0.2)
        early = world.client("192.0.2.2")
        world.settle()
        self.assertTrue(early.is_over)
        world.advance(0.1)
        other = world.client("192.0.2.2")
        world.settle()
        self.assertEqual([client.is_over for client in (*crowd, other)], [True, True, True, False])
        self.assertEqual(self.codes(world), ["queue-full"] * 4)
        self.assertEqual(world.factory.env.handshakes.waiting, 0)

    def test_leaving(self) -> None:
        """Whoever leaves while waiting, in order or not, is no longer waited for."""
        world = self.start()
        self.make_busy(world)
        clients = [world.client("192.0.2.1").send(self.hello) for _ in range(3)]
        world.settle()
        clients[0].close()
        clients[1].abort()
        clients[2].half_close()
        world.settle()
        self.assertEqual(world.factory.env.handshakes.waiting, 0)
        self.assertEqual(self.codes(world), ["client-closed"] * 3)

    def test_more_than_a_hello(self) -> None:
        """What a client sends while it waits is read in its turn."""
        world = self.start()
        self.patch(world.factory.env.handshakes, "_even_at", float("inf"))
        client = world.client("192.0.2.1").send(self.hello)
        client.send(b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure
        world.settle()
        self.assertEqual(self.said(client)[:1], b"\x16")
        world.advance(5.0)
        self.assertEqual(self.codes(world), ["bad-request"])

    def test_stop(self) -> None:
        """A proxy that stops lets those who wait have their turn, and cuts them with all others."""
        world = self.start()
        self.make_busy(world)
        world.client("192.0.2.1").send(self.hello)
        world.settle()
        world.factory.drain(1.0)
        world.advance(0.9)
        self.assertEqual(self.codes(world), [])
        world.advance(0.2)
        self.assertEqual(self.codes(world), ["drain-timeout"])
