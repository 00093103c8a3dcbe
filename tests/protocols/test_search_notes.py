"""What a search notes of itself: little on the ordinary way, everything beside it."""

from __future__ import annotations

import errno

from twisted.internet import error as twisted_errors
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConnectFailed
from scalingo_proxy.model import App, Limits
from scalingo_proxy.protocols.search_notes import connect_failure, is_fault_of_ours
from scalingo_proxy.routing.trail import Attempt, Denied, PassedOver, Waited, has_further_attempt
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.passthrough_worlds import PassthroughTestCase, RawServer
from tests.protocols.passthrough_worlds import hello as client_hello
from tests.protocols.worlds import WorldTestCase, each_world, get, hello, post


class FailureTests(SynchronousTestCase):
    """What is made of an attempt to connect that failed."""

    def test_table(self) -> None:
        """A sentence for people, and whether it is for want of something here."""
        for error, sentence, is_ours in (
            (ConnectFailed("the name is wrong"), "the name is wrong", False),
            (twisted_errors.ConnectionRefusedError(), "the connection was refused", False),
            (twisted_errors.TimeoutError(), "no connection came about in time", False),
            (twisted_errors.ConnectError(errno.EHOSTUNREACH), "connecting failed: No route to host", False),
            (twisted_errors.ConnectError(errno.EMFILE), "connecting failed: Too many open files", True),
            (
                twisted_errors.ConnectError(errno.EADDRNOTAVAIL),
                "connecting failed: Cannot assign requested address",
                True,
            ),
            (None, "connecting failed", False),
        ):
            self.assertEqual((sentence, is_ours), (connect_failure(error), is_fault_of_ours(error)))


class OrdinaryTests(WorldTestCase):
    """A request that was given a connection at once."""

    def test_references_alone(self) -> None:
        """The route, the members there were, and what was sent; no trail."""
        world = self.world()
        app = hello(world, replies.echo(), backends=2)
        world.request(post(b"twelve bytes"))
        record = world.observer.record
        assert record.route is not None and record.lineup is not None
        self.assertEqual((record.route.app.name, record.route.domain), ("hello", "hello.test"))
        self.assertEqual(record.route.resolver, "memory")
        serving, draining, _ = record.lineup
        self.assertEqual(
            [member.backend.address for member in serving], [each.address for each in app.backends]
        )
        self.assertEqual((draining, record.trail, record.reused), ((), None, False))
        served = next(backend for backend in app.backends if backend.requests)
        self.assertEqual(record.sent_bytes, len(served.connections[0].received))
        self.assertTrue(has_further_attempt(record))

    def test_kept_connection(self) -> None:
        """Whether the connection was made or kept from before is told."""
        world = self.world()
        hello(world)
        for _ in range(2):
            world.request(get())
        self.assertEqual([record.reused for record in world.records], [False, True])

    def test_lineup_is_as_it_was(self) -> None:
        """What came and left afterwards does not show."""
        world = self.world()
        app = hello(world, backends=2)
        world.request(get())
        world.change("hello", backends=app.backends[:1])
        world.request(get())
        counts = [tuple(len(part) for part in record.lineup or ()) for record in world.records]
        self.assertEqual(counts, [(2, 0, 0), (1, 0, 0)])

    def test_cause(self) -> None:
        """The sentence of an error of ours stands beside its code, wherever it came from."""
        world = self.world()
        world.request(get())
        world.client().send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        world.settle()
        self.assertEqual(
            [(record.code, bool(record.cause)) for record in world.records],
            [("unknown-host", True), ("bad-request", True)],
        )


class BesideTests(WorldTestCase):
    """Everything else."""

    @each_world()
    def test_failed_attempts(self, world: World) -> None:
        """Each backend that did not do, with its reason; the last one stands in the record."""
        app = hello(world, backends=2)
        app.backends[0].stop_listening()
        for _ in range(2):
            world.request(get())
        record = max(world.records, key=lambda record: record.attempts)
        (attempt,) = record.trail or []
        assert isinstance(attempt, Attempt)
        self.assertEqual((attempt.backend, attempt.sent_bytes), (app.backends[0].address, 0))
        self.assertIn("refused", attempt.end)
        self.assertEqual(record.backend, app.backends[1].address)
        self.assertTrue(has_further_attempt(record))

    def test_all_failed(self) -> None:
        """Nothing is told twice when every attempt failed."""
        world = self.world()
        app = hello(world, backends=2)
        for backend in app.backends:
            backend.stop_listening()
        world.request(get())
        record = world.observer.record
        *attempts, denied = record.trail or ()
        self.assertEqual([type(step) for step in attempts], [Attempt, Attempt])
        assert isinstance(denied, Denied)
        self.assertEqual(denied.why, "there was no other backend")
        self.assertFalse(has_further_attempt(record))

    def test_denied(self) -> None:
        """Why a further backend was not asked: it may have been executed, or too many were asked already."""
        world = self.world()
        hello(world, replies.close_silently(), backends=4)
        world.request(post(b"once"))
        (denied,) = world.observer.record.trail or ()
        assert isinstance(denied, Denied)
        self.assertIn("may have executed it", denied.why)
        world = self.world(seed=1)
        for backend in hello(world, backends=4).backends:
            backend.stop_listening()
        world.request(get())
        *attempts, denied = world.observer.record.trail or ()
        assert isinstance(denied, Denied)
        self.assertEqual((len(attempts), denied.why), (3, "a request is given to 3 backends at most"))

    def test_budget(self) -> None:
        """And that the app's budget for repetitions was spent."""
        world = self.world()
        hello(world, replies.close_silently(), backends=20)
        for _ in range(6):
            world.request(get())
        told = [
            step.why for record in world.records for step in record.trail or () if isinstance(step, Denied)
        ]
        self.assertIn("the app's budget for sending requests again was spent", told)

    def test_repeated(self) -> None:
        """A connection that was closed while idle is an attempt of its own."""
        world = self.world()
        hello(world, None).backend.script(
            replies.fixed(b"one"), replies.close_silently(), replies.fixed(b"two")
        )
        for _ in range(2):
            world.request(get())
        record = world.records[-1]
        (attempt,) = record.trail or []
        assert isinstance(attempt, Attempt)
        self.assertTrue(attempt.is_repeated and attempt.reused and attempt.sent_bytes)
        self.assertEqual((record.status, record.attempts, record.reused), (200, 1, False))
        self.assertTrue(has_further_attempt(record))

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_full_and_queue(self, world: World) -> None:
        """Who had no room, and how long the wait for it was."""
        app = hello(world, replies.delayed(2.0, replies.fixed(b"done")), backends=2)
        for _ in range(3):
            world.client().send(get())
            world.advance(0.5)
        world.advance(5)
        first, second, third = world.records
        self.assertIsNone(first.trail)
        (passed,) = second.trail or []
        assert isinstance(passed, PassedOver)
        self.assertEqual(passed.backends, (first.backend,))
        self.assertIn("as many requests as it may (1)", passed.why)
        everybody, waited, *_ = third.trail or []
        assert isinstance(everybody, PassedOver) and isinstance(waited, Waited)
        self.assertEqual(set(everybody.backends), {each.address for each in app.backends})
        self.assertEqual(waited.why, "no backend had room")
        self.assertAlmostEqual(waited.seconds or 0.0, third.queue_seconds)

    def test_paused(self) -> None:
        """A wait for a paused app says so, also while it lasts."""
        world = self.world()
        hello(world, state="paused")
        world.client().send(get())
        world.settle()
        (exchange,) = world.factory.env.under_way()
        (waited,) = exchange.record.trail or []
        assert isinstance(waited, Waited)
        self.assertEqual((waited.why, waited.seconds), ("the app was paused", None))
        world.change("hello", state="running")
        world.advance(1)
        self.assertEqual(list(world.factory.env.under_way()), [])
        self.assertEqual(world.observer.record.status, 200)

    def test_nobody_to_choose(self) -> None:
        """Who drained when nobody was left is told."""
        world = self.world()
        app = hello(world, replies.delayed(5.0, replies.fixed(b"done")))
        world.client().send(get())
        world.settle()
        world.change("hello", backends=[])
        world.request(get())
        record = world.observer.records[0]
        assert record.lineup is not None
        self.assertEqual((record.code, record.lineup[0]), ("no-backend", ()))
        self.assertEqual([each.backend.address for each in record.lineup[1]], [app.backend.address])
        world.advance(6)


class PassthroughTests(PassthroughTestCase):
    """Tunnels note the same."""

    def test_tunnel(self) -> None:
        """Its route, its attempts, and the hello among what was sent."""
        world = self.world()
        server = RawServer(world.network, b"hello yourself")
        dead = RawServer(world.network)
        world.resolver.set_app(_passthrough_app(server, dead))
        world.network.refuse(dead.address)
        for _ in range(2):
            client = world.client().send(client_hello())
            world.settle()
            (tunnel,) = world.factory.env.under_way()
            self.assertEqual(tunnel.record.app, "sealed")
            client.close()
            world.settle()
        record = max(world.records, key=lambda record: record.attempts)
        self.assertEqual([type(step) for step in record.trail or ()], [Attempt])
        self.assertEqual(record.sent_bytes, len(client_hello()))
        assert record.route is not None
        self.assertEqual(record.route.domain, "hello.test")


def _passthrough_app(*servers: RawServer) -> App:
    return App("sealed", ("hello.test",), [each.address for each in servers], tls="passthrough")


class LargePoolTests(WorldTestCase):
    """What is noted stays small where an app has many backends."""

    def test_all_full(self) -> None:
        """Those who wait share one value."""
        world = self.world(limits=Limits(in_flight_per_backend=1))
        hello(world, replies.delayed(9.0, replies.fixed(b"done")), backends=70)
        clients = [world.client().send(get()) for _ in range(72)]
        world.settle()
        waiting = [each.record for each in world.factory.env.under_way() if each.phase.value == "queued"]
        first, second = ((record.trail or [])[0] for record in waiting)
        assert isinstance(first, PassedOver) and isinstance(second, PassedOver)
        self.assertIs(first.members, second.members)
        self.assertEqual(len(first.backends), 70)
        served = [each.record.trail for each in world.factory.env.under_way() if each.phase.value != "queued"]
        self.assertEqual(served, [None] * 70)
        for client in clients:
            client.abort()
        world.settle()
