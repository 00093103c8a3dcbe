"""Connections to backends: kept, used again, and found dead without harm."""

from __future__ import annotations

from scalingo_proxy.model import Timeouts
from scalingo_proxy.protocols import backend_connections
from scalingo_proxy.protocols.backend_connections import (
    CLOSING_SECONDS,
    IDLE_SECONDS,
    MAX_IDLE_PER_BACKEND,
)
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, each_world, get, hello, post

CLOSE = (b"Connection", b"close")


class KeepingTests(WorldTestCase):
    """Which connections are kept, for how long, and who gets them."""

    @each_world()
    def test_last_in_first_out(self, world: World) -> None:
        """The connection that was used last is used next."""
        app = hello(world, replies.delayed(0.5, replies.fixed(b"x")))
        for _ in range(3):
            world.client().send(get())
            world.advance(0.1)
        world.advance(1)
        self.assertEqual(len(app.backend.connections), 3)
        last = max(app.backend.connections, key=lambda c: app.backend.connections.index(c))
        for _ in range(4):
            world.request(get())
        self.assertEqual([len(c.requests) for c in app.backend.connections], [1, 1, 5])
        self.assertEqual(len(last.requests), 5)

    @each_world()
    def test_idle_limit(self, world: World) -> None:
        """A connection that nobody needs is closed by us, before the backend would."""
        app = hello(world)
        world.request(get())
        world.advance(IDLE_SECONDS - 1)
        self.assertEqual(len(app.backend.open_connections), 1)
        world.advance(2)
        self.assertEqual(app.backend.open_connections, [])
        self.assertEqual(world.factory.env.connections.open_count, 0)
        self.assertEqual(world.request(get()).status, 200)

    @each_world()
    def test_use_counts(self, world: World) -> None:
        """Each use begins the idle time anew."""
        app = hello(world)
        for _ in range(5):
            world.request(get())
            world.advance(IDLE_SECONDS - 5)
        self.assertEqual(len(app.backend.connections), 1)
        self.assertEqual(len(app.backend.open_connections), 1)

    def burst(self, world: World, most: int, kept: int) -> None:
        """So many requests at once, to a backend that may have so many; *kept* connections stay."""
        app = hello(world, replies.delayed(9.0, replies.fixed(b"x")), limits={"in_flight_per_backend": most})
        for _ in range(most):
            world.client().send(get())
        world.advance(5)
        self.assertEqual(len(app.backend.connections), most)
        world.change("hello", limits={"in_flight_per_backend": kept})
        world.advance(5)
        self.assertEqual(len(app.backend.open_connections), max(kept, MAX_IDLE_PER_BACKEND))
        self.assertEqual(world.factory.env.connections.idle_count, max(kept, MAX_IDLE_PER_BACKEND))

    @each_world()
    def test_bounded(self, world: World) -> None:
        """After a burst no more are kept than are allowed to be used at once, or than so many."""
        self.burst(world, MAX_IDLE_PER_BACKEND + 10, 20)

    @each_world()
    def test_more_are_kept_where_more_are_used(self, world: World) -> None:
        """A backend that may have more requests at once keeps as many connections."""
        self.burst(world, MAX_IDLE_PER_BACKEND + 20, MAX_IDLE_PER_BACKEND + 10)

    @each_world()
    def test_bounded_for_all(self, world: World) -> None:
        """However many requests a backend may have, unused connections to it are bounded."""
        self.patch(backend_connections, "_MOST_IDLE_PER_BACKEND", MAX_IDLE_PER_BACKEND + 5)
        app = hello(world, replies.delayed(9.0, replies.fixed(b"x")), limits={"in_flight_per_backend": 1000})
        for _ in range(MAX_IDLE_PER_BACKEND + 10):
            world.client().send(get())
        world.advance(10)
        self.assertEqual(len(app.backend.connections), MAX_IDLE_PER_BACKEND + 10)
        self.assertEqual(len(app.backend.open_connections), MAX_IDLE_PER_BACKEND + 5)

    @each_world()
    def test_not_kept(self, world: World) -> None:
        """A backend that says it closes, or cannot keep its connection, gets a new one each time."""
        for reply in (
            replies.fixed(b"x", headers=(CLOSE,)),
            replies.close_delimited(b"x"),
            replies.raw(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
            replies.chunked([b"x"], headers=(CLOSE,)),
        ):
            app = hello(world, reply)
            for _ in range(3):
                self.assertEqual(world.request(get()).body, b"x")
            self.assertEqual([len(c.requests) for c in app.backend.connections], [1, 1, 1])
            self.assertEqual(app.backend.open_connections, [])

    @each_world()
    def test_kept(self, world: World) -> None:
        """HTTP/1.0 with keep-alive, chunked, bodiless and large responses all keep it."""
        app = hello(world, replies.fixed(b"last"))
        kept = (
            replies.raw(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\nx"),
            replies.chunked([b"x" * 1000] * 10, trailers=((b"A", b"b"),)),
            replies.fixed(status=204),
            replies.fixed(status=304),
            replies.bulk(300_000),
            replies.fixed(b""),
        )
        app.backend.script(*kept)
        for _ in range(len(kept) + 1):
            world.request(get())
        world.request(get(method=b"HEAD"))
        self.assertEqual(len(app.backend.connections), 1)

    @each_world()
    def test_not_shared_between_apps(self, world: World) -> None:
        """Two apps at one address have connections of their own."""
        app = hello(world)
        world.app("other", ["other.test"], backends=app.backends)
        for host in (b"hello.test", b"other.test") * 2:
            world.request(get(b"/", host))
        self.assertEqual([len(c.requests) for c in app.backend.connections], [2, 2])


class StaleTests(WorldTestCase):
    """A connection that died while nobody used it is never the client's problem."""

    @each_world()
    def test_closed_while_idle(self, world: World) -> None:
        """One whose end was seen is not used, whatever the request."""
        for request in (get(), post(b"body"), post(b"")):
            app = hello(world, replies.echo())
            world.request(get())
            app.backend.close_connections()
            world.settle()
            self.assertEqual(world.factory.env.connections.idle_count, 0)
            self.assertEqual(world.request(request).status, 200)
            self.assertEqual(set(app.backend.request_ids.values()), {1})

    @each_world({"latency": 0.5}, {"latency": 0.5, "cut": True, "shuffle": True})
    def test_end_under_way(self, world: World) -> None:
        """A GET that crosses the backend's FIN is repeated on a fresh connection to the same backend."""
        app = hello(world)
        world.request(get())
        app.backend.close_connections()
        # The client's bytes need half a second; the FIN, closed this moment, as well.
        client = world.client()
        app.backend.close_connections()
        client.send(get())
        world.run_until(lambda: client.responses)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(set(app.backend.request_ids.values()), {1})

    @each_world({"latency": 0.5}, {"latency": 0.5, "cut": True, "shuffle": True})
    def test_post_crosses_the_end(self, world: World) -> None:
        """A POST that crosses the backend's FIN may have been executed: 502, and not sent again."""
        for request in (post(b"body"), post(b"")):
            app = hello(world)
            world.request(get())
            client = world.client().send(request)
            world.advance(0.4)
            app.backend.close_connections()
            world.run_until(lambda client=client: client.responses)
            self.assertEqual((client.statuses, world.records[-1].code), ([502], "backend-closed"))
            self.assertEqual(sum(r.method == b"POST" for r in app.backend.requests), 0)
            self.assertEqual(len(app.backend.connections), 1)

    @each_world({"latency": 0.5}, {"latency": 0.5, "cut": True, "shuffle": True})
    def test_reset_on_first_write(self, world: World) -> None:
        """A GET that is answered by a reset of a kept connection is repeated on a fresh one."""
        app = hello(world)
        world.request(get())
        client = world.client().send(get())
        world.advance(0.4)
        app.backend.open_connections[0].transport.abortConnection()
        world.run_until(lambda: client.responses)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(world.records[-1].attempts, 1)
        self.assertEqual(world.records[-1].code, "-")

    @each_world()
    def test_repeated_once(self, world: World) -> None:
        """On a kept connection that closes without a byte, a GET is asked again, and only once more."""
        app = hello(world, replies.close_silently())
        app.backend.script(replies.fixed(b"first"))
        world.request(get())
        client = world.client().send(get())
        world.settle()
        self.assertEqual(client.statuses, [502])
        self.assertEqual(world.records[-1].code, "backend-closed")
        self.assertEqual(app.requests, 3)  # the first, one on its connection, one on a fresh one

    @each_world()
    def test_fatal_request(self, world: World) -> None:
        """A GET that ends whoever serves it ends each backend once, and the connection it was sent on."""
        app = hello(world, backends=5)
        for _ in range(10):
            world.request(get())
        for backend in app.backends:
            backend.answer(replies.close_silently())
        before = app.requests
        self.assertEqual(world.request(get()).status, 502)
        self.assertEqual(app.requests - before, 3)

    @each_world()
    def test_never_the_same_backend_twice(self, world: World) -> None:
        """A kept connection that closes sends a request elsewhere as long as somebody has room."""
        for request in (get(), get(method=b"PUT"), get(method=b"DELETE")):
            for count in (2, 3):
                app = hello(world, backends=count)
                for _ in range(6):
                    world.request(get())
                for backend in app.backends:
                    backend.answer(replies.close_silently())
                before = [len(backend.requests) for backend in app.backends]
                self.assertEqual(world.request(request).status, 502)
                after = [len(backend.requests) for backend in app.backends]
                self.assertEqual([b - a for a, b in zip(before, after, strict=True)], [1] * count)
                world.advance(60)

    @each_world()
    def test_kept_connection_of_the_only_one_with_room(self, world: World) -> None:
        """A backend whose kept connection closed is asked again when the others are away."""
        app = hello(world, backends=2)
        for _ in range(4):
            world.request(get())
        app.backends[1].crash()
        world.settle()
        app.backends[0].script(replies.close_silently())
        for _ in range(2):
            self.assertEqual(world.request(get()).status, 200)
        self.assertGreaterEqual(world.factory.env.retries["kept-connection"], 1)

    @each_world()
    def test_idempotent_goes_to_another_backend(self, world: World) -> None:
        """A fresh connection that closes without a byte is a failure of the backend: the next is asked."""
        for method in (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"):
            app = hello(world, backends=2)
            app.backends[0].answer(replies.close_silently())
            for _ in range(2):
                self.assertEqual(world.request(get(method=method)).status, 200)
            self.assertEqual(len(app.backends[1].requests), 2)
            world.advance(11)  # for another budget of repetitions

    @each_world()
    def test_post_is_not_executed_twice(self, world: World) -> None:
        """A POST that the backend may have executed is never sent again, with or without a body."""
        for reply in (replies.close_silently(), replies.reset_after(0, replies.fixed())):
            for request in (post(b"body"), post(b""), get(method=b"PATCH"), get(method=b"UNKNOWN")):
                for uses_kept in (False, True):
                    app = hello(world, replies.fixed(b"ok"), backends=2)
                    if uses_kept:
                        for _ in range(2):
                            world.request(get())
                    for backend in app.backends:
                        backend.answer(reply)
                    response = world.request(request)
                    self.assertEqual(response.status, 502)
                    self.assertEqual(world.records[-1].code, "backend-closed")
                    counts = app.backends[0].request_ids + app.backends[1].request_ids
                    self.assertEqual(set(counts.values()), {1})

    @each_world()
    def test_body_on_its_way(self, world: World) -> None:
        """A PUT whose body has begun to flow is repeated with all of it, unless that is more than is kept."""
        for size, status in ((1000, 200), (65536, 200), (65537, 502)):
            app = hello(world, replies.echo(), backends=2)
            for backend in app.backends:
                closes = replies.close_silently()
                backend.script(replies.early(closes) if status == 200 else closes)
            good = world.backend("good").answer(replies.echo())
            world.change("hello", backends=[*app.backends, good])
            body = b"x" * size
            client = world.client().send(post(body, method=b"PUT")[:-100])
            world.settle()
            client.send(b"x" * 100)
            world.advance(3)
            self.assertEqual(client.statuses, [status])
            if status == 200:
                self.assertEqual(client.responses[0].body, body)
            else:
                self.assertEqual(world.observer.codes[-1], "backend-closed")
            world.advance(31)

    @each_world()
    def test_idempotent_body_not_begun(self, world: World) -> None:
        """A PUT whose body still waits for a 100 can go to another backend, and does."""
        app = hello(world, replies.after_interim(replies.echo(), status=100), backends=2)
        app.backends[0].answer(replies.early(replies.close_silently()))
        for _ in range(2):
            client = world.client()
            client.send(post(b"x" * 9, b"Expect: 100-continue", method=b"PUT")[:-9])
            world.run_until(lambda client=client: client.interim)
            client.send(b"x" * 9)
            world.run_until(lambda client=client: client.responses)
            self.assertEqual(client.response.body, b"x" * 9)

    @each_world()
    def test_interim_counts_as_begun(self, world: World) -> None:
        """After an interim response the request may have been executed: it is not repeated."""
        app = hello(world, replies.after_interim(replies.close_silently()), backends=2)
        client = world.client().send(get())
        world.settle()
        self.assertEqual(client.statuses, [502])
        self.assertEqual(app.requests, 1)

    @each_world()
    def test_crash(self, world: World) -> None:
        """A backend that is killed and comes back costs waiting GETs nothing while another serves."""
        app = hello(world, replies.fixed(b"ok"), backends=2)
        for _ in range(40):  # one in five may be repeated
            world.request(get())
        for backend in app.backends:
            backend.answer(replies.delayed(1.0, replies.fixed(b"ok")))
        clients = [world.client().send(get()) for _ in range(20)]
        world.advance(0.5)
        app.backends[0].crash()
        world.advance(3)
        self.assertEqual([client.statuses for client in clients], [[200]] * 20)
        app.backends[0].listen_again()
        for _ in range(2):
            self.assertEqual(world.request(get()).status, 200)


class SilenceWhileIdleTests(WorldTestCase):
    """Bytes nobody asked for."""

    @each_world()
    def test_bytes_while_idle(self, world: World) -> None:
        """A connection on which a backend speaks unasked is closed and never used again."""
        app = hello(world)
        world.request(get())
        app.backend.connections[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        world.settle()
        self.assertEqual(world.factory.env.connections.idle_count, 0)
        self.assertEqual(world.request(get()).body, b"hello-1")
        self.assertEqual(len(app.backend.connections), 2)


class ClosingTests(WorldTestCase):
    """A connection that is given up does not live on for ever."""

    @each_world(buffer_bytes=8192)
    def test_backend_never_takes_the_rest(self, world: World) -> None:
        """A backend that answers and closes nothing, without reading the request, is let go of."""
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

        def answer_only(exchange: replies.IncomingExchange) -> None:
            exchange.transport.pauseProducing()
            exchange.later(1.0, lambda: exchange.write(answer))

        hello(world, replies.Reply(replies.never().complete, answer_only))
        client = world.client().send(post(b"x" * 60_000))
        world.advance(2)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(world.factory.env.connections.open_count, 1)
        world.advance(CLOSING_SECONDS)
        self.assertEqual(world.factory.env.connections.open_count, 0)

    @each_world(buffer_bytes=8192)
    def test_nonsense_without_reading(self, world: World) -> None:
        """A backend that talks nonsense and does not read is cut at once."""

        def answer_only(exchange: replies.IncomingExchange) -> None:
            exchange.transport.pauseProducing()
            exchange.write(b"nonsense\r\n\r\n")

        hello(world, replies.Reply(replies.never().complete, answer_only))
        client = world.client().send(post(b"x" * 60_000))
        world.settle()
        self.assertEqual(client.statuses, [502])
        self.assertEqual(world.factory.env.connections.open_count, 0)

    @each_world(buffer_bytes=8192, timeouts=Timeouts(idle=20.0))
    def test_not_used_while_clogged(self, world: World) -> None:
        """A connection that still holds much of the last request is not given to the next one."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

        def answer_only(exchange: replies.IncomingExchange) -> None:
            exchange.transport.pauseProducing()
            exchange.later(1.0, lambda: exchange.write(answer))

        app = hello(world, replies.fixed(b"next"))
        app.backend.script(replies.Reply(replies.never().complete, answer_only))
        client = world.client().send(post(b"x" * 100_000))
        world.advance(2)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(world.request(get()).body, b"next")
        self.assertEqual(len(app.backend.connections), 2)
        world.advance(CLOSING_SECONDS)
        self.assertEqual(world.factory.env.connections.open_count, 1)
