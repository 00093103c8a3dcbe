"""Requests that wait for a backend: how many, how long, in which order, and who leaves."""

from __future__ import annotations

from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, hello, post

NARROW = Limits(in_flight_per_backend=2, queue_per_backend=3)


class QueueTests(WorldTestCase):
    """A bounded line for each app, first come first served."""

    @each_world(limits=NARROW)
    def test_in_flight_per_backend(self, world: World) -> None:
        """No backend has more requests at once than it may, and the others wait their turn."""
        most = 0
        app = hello(world, replies.delayed(1.0, replies.fixed(b"done")), backends=2)
        clients = [world.client().send(get()) for _ in range(10)]
        for _ in range(40):
            world.advance(0.1)
            most = max(most, *(pool.in_flight for pool in world.pools))
            for backend in app.backends:
                at_once = [c for c in backend.open_connections if c._exchanges]
                self.assertLessEqual(len(at_once), 2)
        self.assertEqual(most, 4)
        self.assertEqual([client.statuses for client in clients], [[200]] * 10)
        self.assertEqual(len(app.backends[0].requests), 5)

    @each_world(limits=NARROW)
    def test_queue_full(self, world: World) -> None:
        """Beyond ``queue_per_backend`` the answer is 503 at once; the connection goes on."""
        hello(world, replies.delayed(1.0, replies.fixed(b"done")))
        clients = []
        for _ in range(6):
            clients.append(world.client().send(get()))
            world.settle()
        self.assertEqual([client.statuses for client in clients], [[]] * 5 + [[503]])
        self.assertEqual(code_of(clients[5]), "queue-full")
        self.assertFalse(clients[5].is_over)
        world.advance(4)
        self.assertEqual([client.statuses for client in clients[:5]], [[200]] * 5)
        clients[5].send(get())
        world.advance(2)
        self.assertEqual(clients[5].statuses, [503, 200])

    @each_world(limits=Limits(in_flight_per_backend=1, queue_per_backend=50))
    def test_first_come_first_served(self, world: World) -> None:
        """Waiting requests are served in the order they came."""
        app = hello(world, replies.delayed(0.5, replies.fixed(b"done")))
        for number in range(8):
            world.client().send(get(b"/%d" % number))
            world.advance(0.05)
        world.advance(5)
        self.assertEqual([request.target for request in app.backend.requests], [b"/%d" % n for n in range(8)])
        waits = [record.queue_seconds for record in world.records]
        self.assertEqual(waits, sorted(waits))
        self.assertEqual(waits[0], 0.0)
        self.assertTrue(3.0 < waits[-1] < 3.5, waits)

    @each_world(limits=Limits(in_flight_per_backend=1, queue_per_backend=2))
    def test_leaving_gives_the_place_back(self, world: World) -> None:
        """A client that leaves the queue makes room in it, and is never sent to a backend."""
        app = hello(world, replies.delayed(2.0, replies.fixed(b"done")))
        first = world.client().send(get(b"/first"))
        world.settle()
        leaving = world.client().send(post(b"x" * 1000))
        world.settle()
        staying = world.client().send(get(b"/staying"))
        world.settle()
        refused = world.client().send(get(b"/refused"))
        world.settle()
        self.assertEqual(code_of(refused), "queue-full")
        leaving.abort()
        world.settle()
        self.assertEqual(world.records[-1].code, "client-closed")
        self.assertEqual(world.records[-1].status, 499)
        late = world.client().send(get(b"/late"))
        world.advance(7)
        self.assertEqual([c.statuses for c in (first, staying, late)], [[200]] * 3)
        targets = [request.target for request in app.backend.requests]
        self.assertEqual(targets, [b"/first", b"/staying", b"/late"])

    @each_world(limits=Limits(in_flight_per_backend=1), timeouts=Timeouts(queue=30.0, first_byte=300.0))
    def test_queue_timeout(self, world: World) -> None:
        """A place that does not come within ``queue`` seconds is 503, and the wait is in the record."""
        app = hello(world, replies.never())
        busy = world.client().send(get())
        world.settle()
        client = world.client().send(get())
        world.advance(29.5)
        self.assertEqual(client.responses, [])
        world.advance(1)
        self.assertEqual((client.response.status, code_of(client)), (503, "queue-timeout"))
        self.assertTrue(30.0 <= world.observer.record.queue_seconds < 30.4)
        self.assertEqual(app.requests, 1)
        busy.abort()

    @each_world(timeouts=Timeouts(queue=30.0))
    def test_timeout_of_the_app(self, world: World) -> None:
        """An app may have its own ``queue`` and its own limits."""
        hello(world, replies.never(), timeouts={"queue": 2.0}, limits={"in_flight_per_backend": 1})
        busy = world.client().send(get())
        world.settle()
        client = world.client().send(get())
        world.advance(2.4)
        self.assertEqual(code_of(client), "queue-timeout")
        busy.abort()

    @each_world(limits=Limits(in_flight_per_backend=1, queue_per_backend=1))
    def test_other_apps(self, world: World) -> None:
        """An app whose queue is full takes nothing from another."""
        hello(world, replies.never())
        world.app("other", ["other.test"])
        clients = [world.client().send(get()) for _ in range(5)]
        world.settle()
        for _ in range(5):
            self.assertEqual(world.request(get(b"/", b"other.test")).status, 200)
        self.assertEqual(sorted(client.statuses for client in clients), [[], [], [503], [503], [503]])
        for client in clients:
            client.abort()

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_next_in_line_uses_the_connection(self, world: World) -> None:
        """The connection that comes free carries the request that waited."""
        app = hello(world, replies.delayed(0.1, replies.echo()))
        clients = [world.client().send(post(b"%d" % number)) for number in range(5)]
        world.advance(2)
        self.assertEqual([client.response.body for client in clients], [b"%d" % n for n in range(5)])
        self.assertEqual(len(app.backend.connections), 1)

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_place_of_a_failure(self, world: World) -> None:
        """However an exchange ends, the next in line is served, or told at once that nobody will."""
        for reply, body in (
            (replies.close_silently(), b"every backend is in quarantine"),
            (replies.raw(b"nonsense", close=True), b"next"),
            (replies.raw(b"nonsense\r\n\r\n"), b"next"),
            (replies.reset_after(20, replies.fixed(b"x" * 100)), b"every backend is in quarantine"),
            (replies.fixed(b"fine"), b"next"),
        ):
            app = world.app("hello", ["hello.test"])
            app.backend.answer(replies.delayed(1.0, replies.fixed(b"next"))).script(reply)
            first = world.client().send(post(b"x"))
            world.settle()
            second = world.client().send(get())
            world.advance(2.5)
            self.assertTrue(first.responses or first.is_over)
            self.assertIn(body.lower(), second.response.body.lower())

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_many_leave_at_once(self, world: World) -> None:
        """Hundreds that wait and leave in the same moment leave nothing behind."""
        hello(world, replies.never(), limits={"queue_per_backend": 500})
        clients = [world.client().send(get()) for _ in range(200)]
        world.settle()
        self.assertEqual(sum(pool.queued for pool in world.pools), 199)
        for client in clients:
            client.abort()
        world.settle()
        self.assertEqual(sum(pool.queued for pool in world.pools), 0)
        self.assertEqual(set(world.observer.codes), {"client-closed"})


class StateTests(WorldTestCase):
    """What an operator says about an app reaches those who wait."""

    @each_world(timeouts=Timeouts(queue=30.0))
    def test_pause_and_resume(self, world: World) -> None:
        """A paused app holds requests, and serves them when it goes on."""
        app = hello(world, replies.echo(), state="paused")
        clients = [world.client().send(post(b"%d" % number)) for number in range(70)]
        world.advance(10)
        self.assertEqual(app.requests, 0)
        world.change("hello", state="running")
        world.settle()
        self.assertEqual([client.response.body for client in clients], [b"%d" % n for n in range(70)])

    @each_world(timeouts=Timeouts(queue=30.0), limits=Limits(in_flight_per_backend=5, queue_per_backend=5))
    def test_stop_then_start_under_pause(self, world: World) -> None:
        """A deploy that stops the old backend before the new one starts costs no request anything."""
        app = hello(world, replies.delayed(0.02, replies.fixed(b"old")))
        clients = []

        def ask(seconds: float) -> None:
            for _ in range(int(seconds * 100)):
                clients.append(world.client().send(get(b"/%d" % len(clients))))
                world.advance(0.01)

        ask(1)
        world.change("hello", state="paused")
        ask(0.5)
        app.backend.crash()
        ask(3)
        fresh = world.backend("fresh").answer(replies.delayed(0.02, replies.fixed(b"new")))
        world.change("hello", backends=[fresh])
        ask(0.5)
        world.change("hello", state="running")
        ask(3)
        world.advance(10)
        self.assertEqual({tuple(client.statuses) for client in clients}, {(200,)})
        targets = [int(request.target[1:]) for request in fresh.requests]
        self.assertEqual(len(targets), len(set(targets)))
        # In order, but for those that are on their way at the same time.
        late = [abs(target - 100 - place) for place, target in enumerate(targets)]
        self.assertLess(max(late), 10)

    @each_world()
    def test_uploads_are_not_collected(self, world: World) -> None:
        """The body for a paused app stays with its client, but for what fits into buffers."""
        app = hello(world, replies.echo(), state="paused")
        client = world.client().send(post(b"x" * 5_000_000))
        world.advance(5)
        taken = 5_000_000 - len(client.transport.dataBuffer) - client.transport._tempDataLen
        self.assertLess(taken, 400_000)
        world.change("hello", state="running")
        world.advance(5)
        self.assertEqual(len(client.response.body), 5_000_000)
        self.assertEqual(app.requests, 1)

    @each_world()
    def test_websockets_wait(self, world: World) -> None:
        """An upgrade waits as any request does."""
        hello(world, replies.upgrade_echo(greeting=b"hi"), state="paused")
        asked = (b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        client = world.client().send(get(b"/", b"hello.test", *asked, key))
        world.advance(5)
        self.assertEqual(client.received, b"")
        world.change("hello", state="running")
        world.settle()
        self.assertEqual((client.statuses, client.tunnelled), ([101], b"hi"))

    @each_world(timeouts=Timeouts(queue=30.0))
    def test_pause_timeout(self, world: World) -> None:
        """Who waits too long for a paused app gets 504."""
        app = hello(world, state="paused")
        client = world.client().send(get())
        world.advance(29.5)
        self.assertEqual(client.responses, [])
        world.advance(1)
        self.assertEqual((client.response.status, code_of(client)), (504, "pause-timeout"))
        self.assertEqual(app.requests, 0)

    @each_world()
    def test_states_refuse(self, world: World) -> None:
        """A stopped app, one in maintenance and one without backends each have their code."""
        hello(world)
        for fields, code in (
            ({"state": "stopped"}, "app-stopped"),
            ({"state": "maintenance"}, "maintenance"),
            ({"state": "running", "backends": []}, "no-backend"),
        ):
            world.change("hello", **fields)
            client = world.client().send(get() + get())
            world.settle()
            self.assertEqual(client.statuses, [503, 503])
            self.assertEqual(client.responses[0].get(b"X-Scalingo-Error").partition(b";")[0].decode(), code)
            self.assertFalse(client.is_over)

    @each_world()
    def test_who_is_there_already(self, world: World) -> None:
        """A state is about new requests: those under way finish, tunnels go on, idle connections close."""
        app = hello(world, replies.delayed(2.0, replies.fixed(b"done")))
        for _ in range(2):
            world.client().send(get())
        world.advance(3)
        app.backend.script(replies.upgrade_echo(b"chat"))
        tunnel = world.client().send(get(b"/", b"hello.test", b"Connection: upgrade", b"Upgrade: chat"))
        world.settle()
        self.assertEqual(tunnel.statuses, [101])
        for state in ("paused", "stopped", "maintenance"):
            world.change("hello", state="running")
            under_way = world.client().send(get())
            world.advance(1)
            world.change("hello", state=state)
            world.settle()
            self.assertEqual(len(app.backend.open_connections), 2, state)
            world.advance(2)
            self.assertEqual(under_way.response.body, b"done")
        tunnel.send(b"still here")
        world.settle()
        self.assertEqual(tunnel.tunnelled, b"still here")

    @each_world()
    def test_stopped_while_paused(self, world: World) -> None:
        """Requests that are held are refused at once when the app is stopped."""
        hello(world, state="paused")
        clients = [world.client().send(get()) for _ in range(3)]
        world.settle()
        world.change("hello", state="stopped")
        world.settle()
        self.assertEqual([code_of(client) for client in clients], ["app-stopped"] * 3)

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_backends_removed_under_the_queue(self, world: World) -> None:
        """Who waits is refused when the last backend goes; what is under way finishes."""
        hello(world, replies.delayed(2.0, replies.fixed(b"done")))
        first = world.client().send(get())
        world.settle()
        second = world.client().send(get())
        world.settle()
        world.change("hello", backends=[])
        world.settle()
        self.assertEqual(code_of(second), "no-backend")
        world.advance(3)
        self.assertEqual(first.response.body, b"done")

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_backend_added_under_the_queue(self, world: World) -> None:
        """Who waits goes to a backend that joins."""
        app = hello(world, replies.never())
        first = world.client().send(get())
        world.settle()
        second = world.client().send(get())
        world.settle()
        fresh = world.backend("fresh")
        world.change("hello", backends=[*app.backends, fresh])
        world.settle()
        self.assertEqual(second.response.body, b"fresh")
        first.abort()
