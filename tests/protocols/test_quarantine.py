"""Quarantine as clients meet it: who is to blame, who may try again, who is told what."""

from __future__ import annotations

from scalingo_proxy.model import Limits, Quarantine, Timeouts
from scalingo_proxy.routing.members import HealthState, Member
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.faults import BlackHole
from scalingo_proxy.testing.world import World, WorldApp
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, hello, post

UP, QUARANTINED = HealthState.UP, HealthState.QUARANTINED
KEY = b'Idempotency-Key: "8e03978e"'


def members(world: World) -> tuple[Member, ...]:
    (pool,) = world.pools
    return pool.members


def healths(world: World) -> list[HealthState]:
    return [member.health for member in members(world)]


class TrialTests(WorldTestCase):
    """How a backend comes back without anybody who probes it."""

    @each_world()
    def test_by_one_idempotent_request(self, world: World) -> None:
        """502 at once with Retry-After, for POSTs as long as it lasts; one GET brings the backend back."""
        app = hello(world, replies.fixed(b"fine"))
        app.backend.stop_listening()
        self.assertEqual(world.request(get()).status, 502)
        refused = world.request(get())
        self.assertEqual(refused.status, 502)
        self.assertIn(refused.get(b"Retry-After"), (b"1", b"2"))
        self.assertEqual(world.observer.codes, ["connect-failed", "quarantined"])
        app.backend.listen_again()
        world.advance(5)
        self.assertEqual(world.request(post(b"x")).status, 502)
        self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(world.request(post(b"x")).status, 200)

    @each_world()
    def test_one_at_a_time(self, world: World) -> None:
        """While one request tries the backend all others are refused; then they are served."""
        app = hello(world, replies.delayed(1.0, replies.fixed(b"fine")))
        app.backend.stop_listening()
        world.request(get())
        app.backend.listen_again()
        world.advance(2)
        clients = [world.client().send(get()) for _ in range(5)]
        world.advance(2)
        self.assertEqual(sorted(code_of(client) for client in clients), ["-"] + ["quarantined"] * 4)
        self.assertEqual(healths(world), [UP])

    @each_world()
    def test_long_uploads_try_nothing(self, world: World) -> None:
        """An idempotent request tries a backend only if all of it can be sent again."""
        app = hello(world, replies.echo())
        app.backend.stop_listening()
        world.request(get())
        app.backend.listen_again()
        world.advance(5)
        long = world.request(post(b"x" * 65537, method=b"PUT"))
        self.assertEqual((long.status, world.records[-1].code), (502, "quarantined"))
        self.assertEqual(world.request(post(b"x" * 65536, method=b"PUT")).status, 200)

    @each_world()
    def test_beside_others(self, world: World) -> None:
        """A backend that nobody probes is tried beside others; its failures cost no client anything."""
        app = hello(world, replies.fixed(b"fine"), backends=2)
        app.backends[0].stop_listening()
        for _ in range(30):
            self.assertEqual(world.request(get()).status, 200)
            world.advance(1)
        app.backends[0].listen_again()
        for _ in range(60):
            self.assertEqual(world.request(get()).status, 200)
            world.advance(1)
        self.assertEqual(healths(world), [UP, UP])

    @each_world()
    def test_trial_that_was_given_up(self, world: World) -> None:
        """A client that leaves during its trial leaves it to the next."""
        app = hello(world, replies.fixed(b"fine"))
        app.backend.stop_listening()
        world.request(get())
        app.backend.listen_again()
        app.backend.script(replies.never())
        world.advance(2)
        client = world.client().send(get())
        world.advance(1)
        client.abort()
        world.settle()
        self.assertEqual(world.request(get()).status, 200)


class BlameTests(WorldTestCase):
    """What is held against a backend, and what is not."""

    @each_world()
    def test_client_faults(self, world: World) -> None:
        """No client can put a backend into quarantine by leaving, stalling or reading nothing."""
        app = hello(world, replies.delayed(5.0, replies.bulk(3_000_000)))
        world.client().send(get()).abort()
        gone = world.client().send(get())
        world.advance(1)
        gone.abort()
        world.client().send(post(b"x" * 100)[:-50])
        waits = world.client().send(post(b"x" * 9, b"Expect: 100-continue")[:-9])
        lazy = world.client().send(get())
        lazy.pause()
        world.advance(200)
        self.assertNotIn(QUARANTINED, healths(world))
        for client in (waits, lazy):
            client.abort()
        self.assertGreaterEqual(app.requests, 3)

    @each_world()
    def test_backend_gives_up_on_slow_clients(self, world: World) -> None:
        """A backend that closes because the client does not send its body has done nothing wrong."""
        app = hello(world, replies.early(replies.delayed(10.0, replies.close_silently())))
        client = world.client().send(post(b"x" * 100)[:-50])
        world.advance(12)
        self.assertEqual((code_of(client), app.requests), ("backend-closed", 1))
        self.assertNotIn(QUARANTINED, healths(world))

    @each_world()
    def test_quiet_streams(self, world: World) -> None:
        """A stream that says nothing for ``idle`` seconds is cut, and its backend stays."""
        hello(world, replies.drip([b"data\n\n"] * 3, 100.0))
        world.client().send(get())
        world.advance(90)
        self.assertEqual((world.observer.codes, healths(world)), (["idle-timeout"], [UP]))

    @each_world()
    def test_kept_connection(self, world: World) -> None:
        """A POST that meets the end of a kept connection is lost, once; the backend is not to blame."""
        app = hello(world, replies.fixed(b"fine"))
        self.assertEqual(world.request(post(b"x")).status, 200)
        world.advance(5.0)
        app.backend.script(replies.close_silently())
        self.assertEqual(world.request(post(b"x")).status, 502)
        self.assertEqual(healths(world), [UP])
        self.assertEqual(world.request(post(b"x")).status, 200)
        connections = world.factory.env.connections
        world.advance(4.2)
        self.assertEqual(connections.idle_count, 1)
        world.advance(0.5)
        self.assertEqual(connections.idle_count, 0, "given up before it is five seconds old")

    @each_world()
    def test_late_end_of_a_kept_connection(self, world: World) -> None:
        """It is to blame when it worked on the request for a while before it closed."""
        app = hello(world, replies.fixed(b"fine"))
        self.assertEqual(world.request(get()).status, 200)
        app.backend.script(replies.delayed(3.0, replies.close_silently()))
        self.assertEqual(world.request(post(b"x")).status, 502)
        self.assertEqual(healths(world), [QUARANTINED])

    @each_world(timeouts=Timeouts(first_byte=3.0))
    def test_one_crash(self, world: World) -> None:
        """All requests that one crash ends are one reason for a quarantine."""
        app = hello(world, replies.never())
        clients = [world.client().send(post(b"x")) for _ in range(10)]
        world.advance(1)
        app.backend.crash()
        world.advance(0.1)
        self.assertEqual([code_of(client) for client in clients], ["backend-closed"] * 10)
        (member,) = members(world)
        self.assertEqual((member.health, member.quarantines), (QUARANTINED, 1))


class RepetitionTests(WorldTestCase):
    """What is sent to another backend, and what is never."""

    def closing(self, world: World) -> WorldApp:
        """An app whose backends close on their first request and echo from then on."""
        app = hello(world, replies.echo(), backends=2)
        for backend in app.backends:
            backend.script(replies.close_silently())
        world.change("hello", backends=[*app.backends, world.backend("third").answer(replies.echo())])
        return app

    @each_world()
    def test_key(self, world: World) -> None:
        """A POST with an Idempotency-Key is repeated with its body, one without never."""
        app = self.closing(world)
        body = b"x" * 50_000
        answered = world.request(post(body, KEY))
        self.assertEqual((answered.status, answered.body), (200, body))
        for backend in app.backends:
            backend.script(replies.close_silently())
        (pool,) = world.pools
        pool.start_over("for the test", world.clock.seconds())
        codes = []
        for _ in range(3):
            world.request(post(body))
            codes.append(world.records[-1].code)
            self.assertEqual(world.records[-1].attempts, 1)
        self.assertIn("backend-closed", codes)

    @each_world()
    def test_trailers(self, world: World) -> None:
        """A body in chunks is repeated as a whole, its trailers too."""
        self.closing(world)
        head = b"PUT / HTTP/1.1\r\nHost: hello.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        answered = world.request(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
        self.assertEqual((answered.status, answered.body), (200, b"abcde"))

    @each_world(quarantine=Quarantine(first=0.001, max=0.001))
    def test_budget(self, world: World) -> None:
        """Beyond three in ten seconds and one in five requests the failure is told instead."""
        app = hello(world, replies.fixed(b"fine"), backends=2)
        app.backends[0].answer(replies.close_silently())
        codes = []
        for _ in range(12):
            world.request(get())
            codes.append(world.records[-1].code)
            (pool,) = world.pools
            pool.start_over("for the test", world.clock.seconds())
        self.assertEqual(codes.count("backend-closed"), 3)
        self.assertEqual(world.factory.env.retries_refused, 3)
        world.advance(11)
        self.assertEqual(world.request(get()).status, 200)

    @each_world(timeouts=Timeouts(connect=5.0))
    def test_nobody_waits_for_a_black_hole(self, world: World) -> None:
        """When one connection attempt has timed out, the others at that backend move on at once."""
        app = hello(world, replies.fixed(b"fine"), backends=2)
        world.network.faults.suffer(app.backends[0].address, BlackHole())
        first = world.client().send(get())
        second = world.client().send(get())
        world.advance(4)
        later = [world.client().send(post(b"x")) for _ in range(6)]
        world.advance(1.5)
        self.assertEqual([client.statuses for client in (first, second, *later)], [[200]] * 8)
        self.assertEqual(set(world.observer.codes), {"-"})


class FairnessTests(WorldTestCase):
    """Apps side by side."""

    @each_world(
        limits=Limits(in_flight_per_backend=2, queue_per_backend=3), timeouts=Timeouts(first_byte=9.0)
    )
    def test_a_full_queue_is_one_apps_own(self, world: World) -> None:
        """An app whose backends hang and whose queue is full moves nobody else's answers by a moment."""
        hello(world, replies.never())
        world.app("other", ["other.test"]).backend.answer(replies.delayed(0.5, replies.fixed(b"fine")))
        hung = [world.client().send(get()) for _ in range(20)]
        world.advance(1)
        for _ in range(20):
            began = world.clock.seconds()
            self.assertEqual(world.request(get(b"/", b"other.test")).status, 200)
            self.assertLess(world.clock.seconds() - began, 1.0)
            self.assertEqual(world.records[-1].queue_seconds, 0.0)
        for client in hung:
            client.abort()
