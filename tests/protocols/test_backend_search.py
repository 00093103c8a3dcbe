"""From a lease to a connection: attempts that fail move on, within one deadline."""

from __future__ import annotations

from scalingo_proxy.model import Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.connecting import Reach
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, hello, post


class ConnectFailureTests(WorldTestCase):
    """A backend that cannot be reached is never the client's problem while another can."""

    @each_world()
    def test_next_backend(self, world: World) -> None:
        """A refused, reset, unroutable or vanished backend is passed over, whatever the method."""
        app = hello(world, replies.echo(), backends=2)
        for reach in (Reach.REFUSED, Reach.UNREACHABLE, Reach.SILENT):
            world.network.set_way(app.backends[0].address, reach)
            for _ in range(2):
                response = world.request(post(b"once"))
                self.assertEqual((response.status, response.body), (200, b"once"))
                self.assertEqual(world.records[-1].backend, app.backends[1].address)
        self.assertLessEqual({record.attempts for record in world.records}, {1, 2})
        self.assertEqual(app.backends[0].requests, [])
        self.assertEqual({len(backend.request_ids) for backend in app.backends}, {0, 6})

    @each_world()
    def test_counted(self, world: World) -> None:
        """A retry is counted when another backend is asked, by what was wrong with the one before."""
        retries = world.factory.env.retries
        app = hello(world, backends=1)
        app.backend.stop_listening()
        world.request(get())
        self.assertEqual(sum(retries.values()), 0)
        app.backend.listen_again()
        app.backend.script(replies.close_silently())
        world.advance(1.3)
        world.request(get())
        self.assertEqual((world.records[-1].code, sum(retries.values())), ("backend-closed", 0))
        other = world.app("pair", ["pair.test"], backends=2)
        for backend in other.backends:
            backend.script(replies.close_silently())
        world.request(get(b"/", b"pair.test"))
        self.assertEqual((retries["backend-closed"], retries["connect-failed"]), (1, 0))

    @each_world()
    def test_three_backends_at_most(self, world: World) -> None:
        """After three different backends the client is told, though more could be asked."""
        app = hello(world, backends=5)
        for backend in app.backends:
            backend.stop_listening()
        response = world.request(get())
        self.assertEqual(response.status, 502)
        self.assertEqual(world.observer.record.code, "connect-failed")
        self.assertEqual(world.observer.record.attempts, 3)
        self.assertNotEqual(world.observer.record.backend, "")

    @each_world()
    def test_distinct_backends(self, world: World) -> None:
        """The only backend is tried once, and its failure is what the client hears of."""
        app = hello(world)
        app.backend.stop_listening()
        for _ in range(3):
            self.assertEqual(world.request(get()).status, 502)
            world.advance(31)  # its quarantine
        self.assertEqual(world.observer.codes, ["connect-failed"] * 3)
        self.assertEqual([record.attempts for record in world.records], [1] * 3)

    @each_world(timeouts=Timeouts(connect=5.0))
    def test_black_hole(self, world: World) -> None:
        """An attempt that is never answered ends after ``connect`` seconds; the time is in the record."""
        app = hello(world, backends=2)
        world.network.black_hole(app.backends[0].address)
        for _ in range(2):
            self.assertEqual(world.request(get()).status, 200)
        slow = max(world.records, key=lambda record: record.attempts)
        self.assertEqual(slow.attempts, 2)
        self.assertTrue(5.0 <= slow.connect_seconds < 5.3, slow.connect_seconds)

    @each_world(timeouts=Timeouts(connect=5.0))
    def test_one_deadline(self, world: World) -> None:
        """Three attempts together last three times ``connect`` at most."""
        app = hello(world, backends=4)
        for backend in app.backends:
            world.network.black_hole(backend.address)
        started = world.clock.seconds()
        self.assertEqual(world.request(get()).status, 502)
        self.assertLess(world.clock.seconds() - started, 15.5)
        self.assertEqual(world.observer.record.code, "connect-failed")

    @each_world(timeouts=Timeouts(connect=5.0))
    def test_timeout_of_the_app(self, world: World) -> None:
        """An app may have its own ``connect``."""
        app = hello(world, timeouts={"connect": 1.0})
        world.network.black_hole(app.backend.address)
        client = world.client().send(get())
        world.advance(1.3)
        self.assertEqual(code_of(client), "connect-failed")

    @each_world()
    def test_reset_when_accepted(self, world: World) -> None:
        """A backend that resets each connection it accepts costs an idempotent request nothing."""
        app = hello(world, backends=2)
        world.network.reset_on_accept(app.backends[0].address)
        for _ in range(4):
            self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(len(app.backends[1].requests), 4)

    @each_world()
    def test_upload_is_not_lost(self, world: World) -> None:
        """The body waits while backends are tried, and arrives whole."""
        app = hello(world, replies.echo(), backends=3)
        body = bytes(range(256)) * 1200
        for backend in app.backends[:2]:
            world.network.black_hole(backend.address)
        for _ in range(3):
            client = world.client().send_slowly(post(body), size=50_000, every_seconds=0.1)
            world.run_until(lambda client=client: client.responses)
            self.assertEqual(client.response.body, body)

    @each_world(buffer_bytes=4096)
    def test_backend_is_blamed(self, world: World) -> None:
        """Nothing stays leased when every attempt failed."""
        app = hello(world, backends=3)
        for backend in app.backends:
            backend.stop_listening()
        world.client().send(post(b"x" * 100_000))
        world.advance(10)
        self.assertEqual(world.observer.codes, ["connect-failed"])
        world.assert_idle()


class HostNameTests(WorldTestCase):
    """Backends told by name: resolved through the reactor, within the same limits."""

    @each_world()
    def test_name(self, world: World) -> None:
        """A backend may be a host name, and its connection is kept like any other."""
        backend = world.backend()
        port = backend.address.rpartition(":")[2]
        world.app("named", ["hello.test"], backends=[])
        world.change("named", backends=[f"localhost:{port}"])
        for _ in range(3):
            self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(len(backend.connections), 1)

    @each_world(timeouts=Timeouts(connect=5.0))
    def test_unknown_name(self, world: World) -> None:
        """A name without an address is a failure to connect."""
        backend = world.backend()
        world.app("named", ["hello.test"], backends=[])
        world.change("named", backends=["nowhere.test:80", backend.address])
        for _ in range(2):
            self.assertEqual(world.request(get()).status, 200)

    def test_impossible_name(self) -> None:
        """A name that cannot be one fails like any other."""
        world = self.world()
        world.app("named", ["hello.test"], backends=[])
        for name in ("a..b:80", "-\u00e9\u0301" * 40 + ":80", "x" * 300 + ":80"):
            world.change("named", backends=[name])
            self.assertEqual(world.request(get()).status, 502, name)
        self.assertEqual(world.observer.codes, ["connect-failed"] * 3)

    @each_world(timeouts=Timeouts(connect=5.0))
    def test_name_server_is_silent(self, world: World) -> None:
        """A name that is never resolved counts against ``connect`` like a silent backend."""
        backend = world.backend()
        world.app("named", ["hello.test"], backends=[])
        world.change("named", backends=["localhost:80", backend.address])
        world.network.nameResolver.delay = None
        for _ in range(2):
            client = world.client().send(get())
            world.advance(5.5)
            self.assertEqual(client.statuses, [200])

    @each_world()
    def test_client_leaves_while_a_name_is_resolved(self, world: World) -> None:
        """The attempt is given up with the client."""
        world.app("named", ["hello.test"], backends=[])
        world.change("named", backends=["localhost:80"])
        world.network.nameResolver.delay = None
        client = world.client().send(get())
        world.settle()
        client.abort()
        world.settle()
        self.assertEqual(world.observer.codes, ["client-closed"])
        world.assert_idle()


class LateAttemptTests(WorldTestCase):
    """What goes on between attempts does not turn a failure into another's."""

    @each_world(timeouts=Timeouts(connect=5.0, queue=30.0))
    def test_wait_between_attempts(self, world: World) -> None:
        """A backend that was waited for is asked, not counted as failed for the time it took."""
        app = hello(world, backends=2, limits={"in_flight_per_backend": 1})
        bad, good = app.backends
        world.network.black_hole(bad.address)
        # Each answer ends its connection, so that the next request needs a new one.
        good.answer(replies.delayed(22.0, replies.fixed(b"good", headers=((b"Connection", b"close"),))))
        clients = [world.client().send(get()) for _ in range(2)]
        # One reaches the good backend; the other fails first and waits for it.
        world.advance(60)
        self.assertEqual([client.statuses for client in clients], [[200], [200]])
        self.assertEqual(good.request_ids.most_common(1)[0][1], 1)

    @each_world(timeouts=Timeouts(connect=5.0, queue=10.0, first_byte=300.0))
    def test_queue_after_a_failure(self, world: World) -> None:
        """When no further backend becomes free in time, whoever met a failure hears of that."""
        app = hello(world, backends=2, limits={"in_flight_per_backend": 1})
        bad, good = app.backends
        bad.stop_listening()
        good.answer(replies.never())
        first = world.client().send(get())
        second = world.client().send(get())
        third = world.client().send(get())
        world.advance(11)
        busy = [client for client in (first, second, third) if not client.responses]
        self.assertEqual(len(busy), 1)
        for record in world.records:
            self.assertEqual(record.code, "connect-failed" if record.attempts else "queue-timeout")
        busy[0].abort()

    @each_world(timeouts=Timeouts(connect=1.0))
    def test_repeated_late(self, world: World) -> None:
        """A request is not begun anew when its backend took longer than all attempts may last."""
        app = hello(world, backends=3)
        for backend in app.backends:
            backend.answer(replies.delayed(10.0, replies.close_silently()))
        for _ in range(2):  # on fresh connections and on kept ones
            client = world.client().send(get())
            world.advance(11)
            self.assertEqual(code_of(client), "backend-closed")
        self.assertEqual(app.requests, 2)


class RemovedBackendTests(WorldTestCase):
    """A backend that left the app gets no request any more, not even one on its way."""

    @each_world()
    def test_removed_while_connecting(self, world: World) -> None:
        """A request whose backend is removed before it is connected goes to one that remains."""
        app = hello(world, backends=2)
        old, new = app.backends
        world.change("hello", backends=[old])
        world.network.set_way(old.address, delay=2.0)
        client = world.client().send(post(b"x"))
        world.advance(1)
        world.change("hello", backends=[new])
        world.advance(3)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(old.requests, [])
        self.assertEqual(len(new.requests), 1)

    @each_world()
    def test_all_removed_while_connecting(self, world: World) -> None:
        """When none remains, the app has no backend."""
        app = hello(world)
        world.network.set_way(app.backend.address, delay=2.0)
        client = world.client().send(get())
        world.advance(1)
        world.change("hello", backends=[])
        world.advance(3)
        self.assertEqual(code_of(client), "no-backend")
        self.assertEqual(app.backend.requests, [])

    @each_world()
    def test_stale_connection_of_a_removed_backend(self, world: World) -> None:
        """A request on a connection that proves dead is not repeated to a backend that left meanwhile."""
        app = hello(world, backends=2)
        old, new = app.backends
        world.change("hello", backends=[old])
        world.request(get())
        old.answer(replies.delayed(1.0, replies.close_silently()))
        client = world.client().send(get())
        world.advance(0.5)
        world.change("hello", backends=[new])
        world.advance(2)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(len(old.requests), 2)
        self.assertEqual(len(new.requests), 1)
