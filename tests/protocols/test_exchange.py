"""Exchanges from end to end: expectations, records, slow and fast sides, and many on one connection."""

from __future__ import annotations

from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.replies import IncomingExchange
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WAYS, WorldTestCase, code_of, each_world, get, hello, post

EXPECT = b"Expect: 100-continue"


def expecting(body: bytes, *lines: bytes) -> bytes:
    """The head alone of a POST that waits for a 100 before it sends *body*."""
    return post(body, EXPECT, *lines)[: -len(body)]


class ExpectTests(WorldTestCase):
    """``Expect: 100-continue`` (RFC 9110 §10.1.1), which is the backend's to answer."""

    @each_world()
    def test_backend_sends_100(self, world: World) -> None:
        """The 100 is relayed once, then the body goes through, and the connections are kept."""
        app = hello(world, replies.after_interim(replies.echo(), status=100))
        client = world.client()
        for _ in range(2):
            del client.interim[:]
            client.send(expecting(b"hello"))
            world.settle()
            self.assertEqual([interim.status for interim in client.interim], [100])
            self.assertEqual(app.backend.requests[-1].get(b"Expect"), b"100-continue")
            self.assertEqual(app.backend.requests[-1].body, b"")
            client.send(b"hello")
            world.settle()
            self.assertEqual(client.responses[-1].body, b"hello")
        self.assertEqual(len(app.backend.connections), 1)

    @each_world()
    def test_a_second_100(self, world: World) -> None:
        """Only the first 100 is for the client."""
        hundred = b"HTTP/1.1 100 Continue\r\n\r\n"
        hello(world, replies.Reply(replies.echo().complete, lambda exchange: exchange.write(hundred * 3)))
        client = world.client().send(expecting(b"hello"))
        world.settle()
        client.send(b"hello")
        world.settle()
        self.assertEqual([interim.status for interim in client.interim], [100])
        self.assertEqual(client.response.body, b"hello")

    @each_world()
    def test_final_at_once(self, world: World) -> None:
        """A final answer instead of the 100 is relayed; neither connection carries another exchange."""
        app = hello(world, replies.early(replies.fixed(b"no", status=401)))
        client = world.client().send(expecting(b"hello"))
        world.settle()
        self.assertEqual((client.statuses, client.responses[0].body), ([401], b"no"))
        self.assertEqual(client.responses[0].get(b"Connection"), b"close")
        self.assertEqual(app.backend.open_connections, [])
        # A body sent all the same, or another request, is not taken for anything.
        client.send(b"hello" + get())
        world.advance(3)
        self.assertEqual(client.statuses, [401])
        self.assertEqual(app.requests, 1)
        self.assertTrue(client.is_over)

    @each_world()
    def test_client_does_not_wait(self, world: World) -> None:
        """A client that sends its body at once needs no 100; one that comes late is swallowed."""
        app = hello(world, replies.echo())
        app.backend.script(replies.echo(), replies.after_interim(replies.echo(), status=100))
        client = world.client()
        for _ in range(2):
            client.send(expecting(b"hello") + b"hello")
            world.settle()
        self.assertEqual([response.body for response in client.responses], [b"hello"] * 2)

    @each_world()
    def test_http10(self, world: World) -> None:
        """HTTP/1.0 knows no expectation: it is neither relayed nor answered."""
        app = hello(world, replies.after_interim(replies.echo(), status=100))
        head = b"POST / HTTP/1.0\r\nHost: hello.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        client = world.client().send(head + b"hello")
        world.settle()
        self.assertEqual(client.interim, [])
        self.assertEqual(client.response.body, b"hello")
        self.assertEqual(app.backend.requests[0].get_all(b"Expect"), [])

    @each_world()
    def test_without_a_body(self, world: World) -> None:
        """An expectation without a body is met already."""
        app = hello(world)
        for request in (get(b"/", b"hello.test", EXPECT), post(b"", EXPECT)):
            self.assertEqual(world.request(request).status, 200)
            self.assertEqual(app.backend.requests[-1].get_all(b"Expect"), [])

    @each_world()
    def test_chunked(self, world: World) -> None:
        """A chunked body may be waited with, too."""
        hello(world, replies.after_interim(replies.echo(), status=100))
        head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", EXPECT, method=b"POST")
        client = world.client().send(head)
        world.settle()
        self.assertEqual([interim.status for interim in client.interim], [100])
        client.send(b"5\r\nhello\r\n0\r\n\r\n")
        world.settle()
        self.assertEqual(client.response.body, b"hello")

    @each_world()
    def test_103_before_100(self, world: World) -> None:
        """Other interim responses pass while the 100 is waited for."""
        interim = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        hello(world, replies.Reply(replies.echo().complete, lambda exchange: exchange.write(interim)))
        client = world.client().send(expecting(b"hello"))
        world.settle()
        self.assertEqual([interim.status for interim in client.interim], [103, 100])
        client.send(b"hello")
        world.settle()
        self.assertEqual(client.response.body, b"hello")

    @each_world()
    def test_refused_before_any_backend(self, world: World) -> None:
        """An error of ours answers in place of the 100."""
        world.app("empty", ["hello.test"], backends=0)
        client = world.client().send(expecting(b"hello"))
        world.advance(3)
        self.assertEqual(code_of(client), "no-backend")
        self.assertTrue(client.is_over)


class RecordTests(WorldTestCase):
    """What is told of an exchange."""

    @each_world({}, {"cut": True, "shuffle": True, "seed": 1})
    def test_times_and_sizes(self, world: World) -> None:
        """Bytes are those of the bodies; times are those of each part."""
        app = hello(world, replies.delayed(3.0, replies.fixed(b"y" * 50)))
        world.network.set_way(app.backend.address, delay=2.0)
        head, body = post(b"x" * 100)[:-100], b"x" * 100
        client = world.client().send(head)
        world.advance(4)
        client.send(body)
        world.run_until(lambda: client.responses)
        record = world.observer.record
        self.assertEqual((record.bytes_in, record.bytes_out), (100, 50))
        self.assertEqual((record.method, record.path, record.host), ("POST", "/", "hello.test"))
        self.assertEqual((record.app, record.backend), ("hello", app.backend.address))
        self.assertEqual((record.status, record.code, record.attempts), (200, "-", 1))
        self.assertAlmostEqual(record.connect_seconds, 2.0, places=3)
        self.assertAlmostEqual(record.first_byte_at - record.started_at, 7.0, places=3)
        self.assertAlmostEqual(record.finished_at - record.started_at, 7.0, places=3)
        self.assertEqual(record.queue_seconds, 0.0)

    @each_world()
    def test_chunked_sizes(self, world: World) -> None:
        """Framing does not count."""
        hello(world, replies.chunked([b"y" * 10] * 5, trailers=((b"A", b"b"),)))
        head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
        world.request(head + b"5;ext=1\r\nhello\r\n5\r\nworld\r\n0\r\nT: x\r\n\r\n")
        record = world.observer.record
        self.assertEqual((record.bytes_in, record.bytes_out), (10, 50))

    @each_world()
    def test_one_for_each_request(self, world: World) -> None:
        """Every request has one record, in the order they ended; none is forgotten, none told twice."""
        hello(world, replies.fixed(b"x"))
        client = world.client().send(get(b"/1") + get(b"/2", b"nobody.test") + post(b"abc") + b"bad\r\n\r\n")
        world.advance(3)
        self.assertEqual(client.statuses, [200, 404, 200, 400])
        self.assertEqual([record.status for record in world.records], [200, 404, 200, 400])
        self.assertEqual([record.path for record in world.records], ["/1", "/2", "/", "-"])
        sizes = [len(response.body) for response in client.responses]
        self.assertEqual([record.bytes_out for record in world.records], sizes)
        for record in world.records:
            self.assertIsNotNone(record.finished_at)


class PipelineTests(WorldTestCase):
    """Many requests on one connection, and a client that does not take the answers."""

    def buffered(self, world: World) -> int:
        """How many bytes of answers the proxy holds."""
        return sum(
            len(frontend.transport.dataBuffer) + frontend.transport._tempDataLen
            for frontend in world.factory._frontends
        )

    @each_world({"buffer_bytes": 8192}, {"buffer_bytes": 8192, "cut": True, "shuffle": True})
    def test_answers_nobody_takes(self, world: World) -> None:
        """No further request is begun while the client does not take the answers to those before it."""
        for reply in (replies.fixed(b"x" * 10_000), replies.chunked([b"x" * 10_000])):
            app = hello(world, reply)
            client = world.client()
            client.pause()
            client.send(get() * 200)
            world.advance(5)
            self.assertLess(self.buffered(world), 150_000)
            self.assertLess(app.requests, 20)
            client.resume()
            world.run_until(lambda client=client: len(client.responses) == 200)
            self.assertEqual(app.requests, 200)
            client.close()
            world.settle()

    @each_world({"buffer_bytes": 8192}, {"buffer_bytes": 8192, "cut": True, "shuffle": True})
    def test_errors_nobody_takes(self, world: World) -> None:
        """Nor are answers of our own heaped up."""
        client = world.client()
        client.pause()
        client.send(get(b"/", b"nobody.test") * 2000)
        world.advance(5)
        self.assertLess(self.buffered(world), 150_000)
        client.resume()
        world.run_until(lambda: len(client.responses) == 2000)

    @each_world({"buffer_bytes": 8192}, timeouts=Timeouts(keep_alive=20.0, idle=60.0))
    def test_given_up(self, world: World) -> None:
        """A client that takes nothing at all is closed in the end."""
        hello(world, replies.fixed(b"x" * 10_000))
        client = world.client()
        client.pause()
        client.send(get() * 200)
        world.advance(60.5 + 60.5)
        self.assertEqual(world.factory.open_connections, 0)
        client.resume()

    @each_world({"buffer_bytes": 8192}, {"buffer_bytes": 8192, "cut": True, "shuffle": True})
    def test_read_ahead_while_answers_wait(self, world: World) -> None:
        """What is read ahead meanwhile is bounded as well."""
        hello(world, replies.fixed(b"x" * 10_000))
        client = world.client()
        client.pause()
        client.send(get(b"/", b"hello.test", b"A: " + b"x" * 6000) * 100)
        world.advance(5)
        (frontend,) = world.factory._frontends
        self.assertLess(len(frontend._ahead), 3 * 65536)
        client.resume()
        world.run_until(lambda: len(client.responses) == 100)

    @each_world()
    def test_each_to_its_own_app(self, world: World) -> None:
        """Requests of one connection go to different apps, and to different backends of one."""
        apps = [world.app(f"app-{n}", [f"app-{n}.test"], backends=2) for n in range(3)]
        order = [number % 3 for number in range(30)]
        client = world.client().send(b"".join(get(b"/", b"app-%d.test" % number) for number in order))
        world.run_until(lambda: len(client.responses) == 30)
        for number, response in zip(order, client.responses, strict=True):
            self.assertTrue(response.body.startswith(b"app-%d-" % number))
        self.assertEqual([len(b.requests) for app in apps for b in app.backends], [5] * 6)

    @each_world()
    def test_upload_behind_upload(self, world: World) -> None:
        """Bodies are told apart, however they are cut."""
        app = hello(world, replies.echo())
        bodies = [b"%d" % number * (number * 37 % 500) for number in range(30)]
        client = world.client().send(b"".join(post(body) for body in bodies))
        world.run_until(lambda: len(client.responses) == 30)
        self.assertEqual([response.body for response in client.responses], bodies)
        self.assertEqual(len(app.backend.connections), 1)

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_many_clients_one_connection(self, world: World) -> None:
        """A backend connection passes from hand to hand within the call that freed it."""
        app = hello(world, replies.chunked([b"a", b"b"]))
        clients = [world.client().send(get() * 10) for _ in range(5)]
        world.run_until(lambda: all(len(client.responses) == 10 for client in clients))
        self.assertEqual(len(app.backend.connections), 1)
        self.assertEqual(app.requests, 50)


class LargeBodyTests(WorldTestCase):
    """Megabytes through small buffers."""

    @each_world({"buffer_bytes": 16384}, {"buffer_bytes": 16384, "cut": True, "shuffle": True, "seed": 1})
    def test_echo(self, world: World) -> None:
        """What goes up and comes down is what was sent, with a length and in chunks."""
        body = bytes(range(251)) * 4000
        hello(world, replies.echo())
        self.assertEqual(world.request(post(body)).body, body)
        head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
        parts = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        self.assertEqual(world.request(head + chunks + b"0\r\n\r\n").body, body)

    @each_world({"buffer_bytes": 8192}, {"buffer_bytes": 8192, "cut": True, "shuffle": True, "seed": 1})
    def test_full_duplex(self, world: World) -> None:
        """A backend that sends back what it reads, while it reads, is relayed in both directions at once."""
        body = bytes(range(251)) * 1600

        def begin(exchange: IncomingExchange) -> None:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            exchange.write(head)
            sent = 0

            def send_on() -> None:
                nonlocal sent
                data = exchange.request.body
                exchange.write(data[sent:])
                sent = len(data)
                if sent < len(body):
                    exchange.later(0.01, send_on)
                else:
                    exchange.finish()

            send_on()

        hello(world, replies.Reply(replies.never().complete, begin))
        client = world.client().send(post(body))
        world.run_until(lambda: client.responses)
        self.assertEqual(client.response.body, body)

    @each_world(*WAYS)
    def test_slow_both_sides(self, world: World) -> None:
        """A body that comes byte by byte goes through byte by byte."""
        app = hello(world, replies.echo())
        client = world.client().send_slowly(post(b"x" * 300), every_seconds=0.01)
        world.run_until(lambda: client.responses)
        self.assertEqual(app.backend.requests[0].body, b"x" * 300)
