"""What backends say, and what becomes of it when it is wrong, short, too much or too long."""

from __future__ import annotations

from scalingo_proxy.testing import replies
from scalingo_proxy.testing.replies import IncomingExchange, Reply
from scalingo_proxy.testing.world import World, WorldApp
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, hello, post

OK = b"HTTP/1.1 200 OK\r\n"


def raw(*pieces: bytes, every_seconds: float = 0.05, close: bool = False) -> Reply:
    """Send *pieces*, one after the other."""

    def answer(exchange: IncomingExchange) -> None:
        for number, piece in enumerate(pieces):
            exchange.later(number * every_seconds, lambda piece=piece: exchange.write(piece))
        if close:
            exchange.later(len(pieces) * every_seconds, exchange.close)

    return replies.reply_with(answer)


class BadResponseTestCase(WorldTestCase):
    """A backend that misbehaves once, and then answers ``fine``."""

    def app(self, world: World, reply: Reply) -> WorldApp:
        app = hello(world, replies.fixed(b"fine"))
        app.backend.script(reply)
        return app

    def not_reused(self, world: World, app: WorldApp) -> None:
        """The next request goes over a connection of its own, and the bad one is closed."""
        world.advance(1.3)  # it may have been put into quarantine
        response = world.request(get())
        self.assertEqual(response.body, b"fine")
        self.assertEqual(len(app.backend.connections), 2)
        world.advance(1)
        self.assertTrue(app.backend.connections[0].is_over)


class RefusedTests(BadResponseTestCase):
    """Nothing was sent to the client yet: 502."""

    HEADS = (
        b"garbage\r\n\r\n",
        b"<html>HTTP/0.9 has no head</html>\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"\r\n\r\n" + OK + b"\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        OK + b"Content-Length: 1, 1\r\n\r\nx",
        OK + b"Content-Length: +1\r\n\r\nx",
        OK + b"Content-Length: one\r\n\r\nx",
        OK + b"Content-Length: \r\n\r\nx",
        OK + b"Content-Length: 99999999999999999999\r\n\r\nx",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"A: \0\r\n\r\n",
        OK + b"A: b\rc\r\n\r\n",
        OK + b"A: b\nSet-Cookie: c\r\n\r\n",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b": empty\r\n\r\n",
        OK + b"A : b\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"A: " + b"b" * 70_000 + b"\r\n\r\n",
        OK + b"A: b\r\n" * 1500 + b"\r\n",
        b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )

    @each_world()
    def test_heads(self, world: World) -> None:
        """A head that is no response is 502 ``bad-response``, and its connection closed at once."""
        for head in self.HEADS:
            app = self.app(world, raw(head))
            client = world.client().send(get())
            world.advance(0.5)
            self.assertEqual((client.response.status, code_of(client)), (502, "bad-response"), head[:60])
            self.assertFalse(client.is_over)
            self.assertEqual(app.backend.open_connections, [])
            self.not_reused(world, app)

    @each_world()
    def test_other_protocols(self, world: World) -> None:
        """What does not begin like a response is refused at once, whether or not it closes."""
        for greeting in (b"SSH-2.0-server\r\n", b"<html>no head</html>", b"220 mail ready\r\n", b"HTTQ"):
            for close in (False, True):
                app = self.app(world, raw(greeting, close=close))
                client = world.client().send(get())
                world.advance(0.5)
                self.assertEqual((client.response.status, code_of(client)), (502, "bad-response"), greeting)
                self.assertEqual(app.backend.open_connections, [])
                self.not_reused(world, app)

    @each_world()
    def test_head_byte_by_byte(self, world: World) -> None:
        """A head that comes slowly is awaited from its first byte on."""
        pieces = [bytes([each]) for each in OK + b"Content-Length: 0\r\n\r\n"]
        self.app(world, raw(*pieces))
        client = world.client().send(get())
        world.advance(5)
        self.assertEqual(client.response.status, 200)

    @each_world()
    def test_endless_head(self, world: World) -> None:
        """A head without end is refused when it is too large, not when memory ends."""
        for endless in (b"X" * 8000, b"A: b\r\n" * 1000):

            def pour(exchange: IncomingExchange, endless: bytes = endless) -> None:
                exchange.write(endless)
                exchange.later(0.01, lambda: pour(exchange, endless))

            app = self.app(
                world, replies.reply_with(lambda exchange: (exchange.write(OK), pour(exchange))[0])
            )
            client = world.client().send(get())
            world.advance(1)
            self.assertEqual(code_of(client), "bad-response")
            self.not_reused(world, app)

    @each_world()
    def test_bad_end_in_the_same_piece(self, world: World) -> None:
        """A body that is wrong from the first piece on is still 502."""
        app = self.app(world, raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"))
        client = world.client().send(get())
        world.advance(0.5)
        if client.responses:  # cut into pieces, the head goes out before the body is seen
            self.assertEqual(code_of(client), "bad-response")
        else:
            self.assertTrue(client.is_over)
        self.assertEqual(world.records[-1].code, "bad-response")
        self.not_reused(world, app)

    @each_world()
    def test_nothing(self, world: World) -> None:
        """A part of a head and then the end is 502 ``backend-closed``, and is not repeated."""
        for part in (b"H", b"HTTP/1.1 200", OK, OK + b"Content-Length: 5\r\n"):
            app = self.app(world, raw(part, close=True))
            client = world.client().send(get())
            world.advance(1)
            self.assertEqual((client.response.status, code_of(client)), (502, "backend-closed"))
            self.assertEqual(app.requests, 1)
            self.not_reused(world, app)


class BrokenTests(BadResponseTestCase):
    """The response has begun: the client must not take it for whole."""

    def broken(self, world: World, reply: Reply, code: str, request: bytes = get()) -> bytes:
        """What the client got of a response that must have a visible break at its end."""
        app = self.app(world, reply)
        client = world.client().send(request)
        world.advance(1)
        self.assertEqual(client.responses, [], client.received[-50:])
        self.assertTrue(client.is_over)
        self.assertEqual((world.records[-1].code, world.records[-1].status), (code, 200))
        self.assertEqual(app.requests, 1)
        self.not_reused(world, app)
        return client.received

    @each_world()
    def test_length_cut_short(self, world: World) -> None:
        """A body shorter than its Content-Length ends the connection short, by FIN as by reset."""
        body = replies.fixed(b"x" * 100)
        for end in (replies.close_after, replies.reset_after):
            received = self.broken(world, end(80, body), "backend-closed")
            self.assertIn(b"Content-Length: 100\r\n", received)

    @each_world()
    def test_chunked_cut_short(self, world: World) -> None:
        """A chunked body that stops anywhere gets no last chunk from us."""
        for end in (
            b"",
            b"5\r\n",
            b"5\r\nhel",
            b"5\r\nhello\r\n",
            b"5\r\nhello\r\n0",
            b"5\r\nhello\r\n0\r\nA: b\r\n",
        ):
            head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
            received = self.broken(world, raw(head, end, close=True), "backend-closed")
            self.assertFalse(received.endswith(b"0\r\n\r\n"))

    @each_world()
    def test_chunked_reset(self, world: World) -> None:
        """A reset in the middle is as visible."""
        reply = replies.reset_after(70, replies.chunked([b"x" * 100]))
        received = self.broken(world, reply, "backend-closed")
        self.assertNotIn(b"\r\n0\r\n", received)

    @each_world()
    def test_bad_chunks(self, world: World) -> None:
        """A chunk that is malformed breaks the response there."""
        head = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        for bad in (
            b"zz\r\n", b"-1\r\n", b"0x5\r\n", b"5 \r\n", b"5\n", b"\r\n", b"11111111111111111\r\n",
            b"5\r\nhelloXX", b"5\r\nhello\n", b"0\r\nA b\r\n\r\n", b"0\r\n A: b\r\n\r\n", b"0\r\n\0\r\n\r\n",
        ):  # fmt: skip
            received = self.broken(world, raw(head, bad), "bad-response")
            self.assertFalse(received.endswith(b"0\r\n\r\n"), bad)

    @each_world()
    def test_cut_short_for_http10(self, world: World) -> None:
        """Where the end of the connection ends the body, only a reset can show the break."""
        request = b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n"
        head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        app = self.app(world, raw(head, b"5\r\nhello\r\n", close=True))
        client = world.client().send(request)
        world.advance(1)
        self.assertTrue(client.is_over)
        self.assertFalse(client.saw_end)
        self.assertEqual(client.responses, [])
        self.not_reused(world, app)

    @each_world()
    def test_close_delimited_reset(self, world: World) -> None:
        """A body that only a FIN completes is broken by a reset, for HTTP/1.1 and for HTTP/1.0."""
        reply = replies.reset_after(30, replies.close_delimited(b"x" * 100))
        received = self.broken(world, reply, "backend-closed")
        self.assertFalse(received.endswith(b"0\r\n\r\n"))
        app = self.app(world, reply)
        client = world.client().send(b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n")
        world.advance(1)
        self.assertEqual(client.responses, [])
        self.assertFalse(client.saw_end)
        self.not_reused(world, app)


class WholeTests(BadResponseTestCase):
    """The response is whole, and something else is odd."""

    @each_world()
    def test_bytes_behind_the_end(self, world: World) -> None:
        """What follows a response, at once or later, is nobody's, and costs the connection."""
        evil = OK + b"Content-Length: 4\r\n\r\nevil"
        for whole in (
            OK + b"Content-Length: 4\r\n\r\ngood",
            OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
        ):
            for reply in (raw(whole + evil), raw(whole, evil), raw(whole, b"\r\n")):
                app = self.app(world, reply)
                client = world.client().send(get())
                world.advance(1)
                self.assertEqual(client.response.body, b"good")
                client.send(get())
                world.advance(1)
                self.assertEqual(client.responses[1].body, b"fine")
                self.assertEqual(len(app.backend.connections), 2)

    @each_world()
    def test_body_where_none_can_be(self, world: World) -> None:
        """A body behind 204, 304 or the answer to HEAD is dropped, and the connection with it."""
        for head, method in (
            (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET"),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", b"GET"),
            (OK + b"Content-Length: 4\r\n\r\n", b"HEAD"),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"HEAD"),
        ):
            for reply in (raw(head + b"evil"), raw(head, b"evil")):
                app = self.app(world, reply)
                client = world.client().send(get(method=method))
                world.advance(1)
                self.assertEqual(len(client.responses), 1)
                self.assertTrue(client.received.endswith(b"\r\n\r\n"))
                self.not_reused(world, app)

    @each_world()
    def test_204_that_announces_a_body(self, world: World) -> None:
        """Nobody can tell what follows a 204 with framing: it is relayed without, the connection closed."""
        for framing in (b"Content-Length: 4", b"Transfer-Encoding: chunked"):
            app = self.app(world, raw(b"HTTP/1.1 204 No Content\r\n%b\r\n\r\n" % framing))
            response = world.request(get())
            self.assertEqual(response.status, 204)
            self.assertEqual(response.get_all(b"Content-Length") + response.get_all(b"Transfer-Encoding"), [])
            self.not_reused(world, app)

    @each_world()
    def test_close_delimited(self, world: World) -> None:
        """A body that the backend's FIN ends is whole: chunked to HTTP/1.1, by our FIN to HTTP/1.0."""
        app = self.app(world, replies.close_delimited(b"whole"))
        client = world.client().send(get())
        world.advance(1)
        self.assertEqual(client.response.body, b"whole")
        self.assertEqual(client.response.get(b"Transfer-Encoding"), b"chunked")
        self.assertFalse(client.is_over)
        app.backend.script(replies.close_delimited(b"whole"))
        client = world.client().send(b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n")
        world.advance(1)
        self.assertEqual(client.response.body, b"whole")
        self.assertTrue(client.response.ended_by_close)

    @each_world()
    def test_hop_by_hop(self, world: World) -> None:
        """Fields between us and the backend stay there; the others keep their order and case."""
        head = (
            OK + b"X-One: 1\r\nConnection: X-Two, keep-alive\r\nX-Two: 2\r\nKeep-Alive: timeout=5\r\n"
            b"Proxy-Connection: x\r\nUpgrade: h2c\r\nx-three: 3\r\nContent-Length: 0\r\n"
            b"X-Scalingo-Error: x\r\n\r\n"
        )
        app = self.app(world, raw(head))
        response = world.request(get())
        names = [name for name, _ in response.headers]
        self.assertEqual(names, [b"X-One", b"x-three", b"Content-Length"])
        world.request(get())
        self.assertEqual(len(app.backend.connections), 1)

    @each_world()
    def test_early_answer(self, world: World) -> None:
        """An answer before the end of the upload is delivered; both connections end with it."""
        for then in (False, True):
            app = self.app(world, replies.early(replies.fixed(b"too much", status=413)))
            client = world.client().send(post(b"x" * 1000)[:-500])
            world.settle()
            self.assertEqual((client.statuses, client.responses[0].body), ([413], b"too much"))
            self.assertEqual(client.responses[0].get(b"Connection"), b"close")
            self.assertEqual(app.backend.open_connections, [])
            if then:
                client.send(b"x" * 500 + get())
            world.advance(3)
            self.assertTrue(client.is_over)
            self.assertEqual(client.statuses, [413])
            self.assertEqual(app.requests, 1)
            self.not_reused(world, app)

    @each_world({}, {"latency": 0.02, "shuffle": True}, buffer_bytes=16384)
    def test_early_answer_and_end(self, world: World) -> None:
        """A backend that answers early and closes on unread bytes, which resets, is heard.

        As far as one read goes: what is behind it is lost with the connection.
        """

        def answer(exchange: IncomingExchange) -> None:
            exchange.transport.pauseProducing()
            exchange.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            exchange.close()

        app = self.app(world, replies.early(replies.reply_with(answer)))
        client = world.client(closes_at_end=False).send(post(b"x" * 200_000))
        world.advance(4)
        self.assertEqual(client.statuses, [413])
        self.assertEqual(client.responses[0].body, b"big")
        self.assertEqual(world.factory.open_connections, 0)
        self.not_reused(world, app)

    @each_world()
    def test_early_start_late_end(self, world: World) -> None:
        """A response that began early and ends after the upload is whole, and the backend connection kept."""

        def begin(exchange: IncomingExchange) -> None:
            exchange.write(OK + b"Content-Length: 4\r\n\r\nab")

        def end(exchange: IncomingExchange) -> None:
            exchange.write(b"cd")
            exchange.finish()

        app = hello(world, replies.Reply(end, begin))
        client = world.client().send(post(b"x" * 10)[:-5])
        world.settle()
        client.send(b"x" * 5)
        world.advance(1)
        self.assertEqual(client.response.body, b"abcd")
        self.assertTrue(client.is_over)  # it was told "Connection: close" when the end was not known
        self.assertEqual(len(app.backend.open_connections), 1)


class InterimTests(BadResponseTestCase):
    """1xx responses: relayed, swallowed, or too many."""

    @each_world()
    def test_103_is_relayed(self, world: World) -> None:
        """Early hints reach an HTTP/1.1 client, several of them, before the answer."""
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * 3
        self.app(world, raw(hints, OK + b"Content-Length: 2\r\n\r\nok"))
        client = world.client().send(get())
        world.advance(1)
        self.assertEqual([interim.status for interim in client.interim], [103] * 3)
        self.assertEqual(client.interim[0].get(b"Link"), b"</a>; rel=preload")
        self.assertEqual(client.response.body, b"ok")
        self.assertEqual(world.records[-1].status, 200)

    @each_world()
    def test_not_for_http10(self, world: World) -> None:
        """HTTP/1.0 knows no interim response."""
        hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        self.app(world, raw(hints, OK + b"Content-Length: 2\r\n\r\nok"))
        client = world.client().send(b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n")
        world.advance(1)
        self.assertEqual(client.interim, [])
        self.assertEqual(client.response.body, b"ok")

    @each_world()
    def test_flood(self, world: World) -> None:
        """More than ten are an attack: 502, at once or spread over time."""
        interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        for reply in (raw(interim * 2000), raw(*[interim] * 20)):
            app = self.app(world, reply)
            client = world.client().send(get())
            world.advance(3)
            self.assertEqual(code_of(client), "bad-response")
            self.assertLessEqual(len(client.interim), 10)
            self.not_reused(world, app)

    @each_world()
    def test_100_unasked(self, world: World) -> None:
        """A 100 that nobody waits for is swallowed, for a request with a body as for one without."""
        hundred = b"HTTP/1.1 100 Continue\r\n\r\n"
        for request in (get(), post(b"body")):
            app = self.app(world, raw(hundred, hundred + OK + b"Content-Length: 2\r\n\r\nok"))
            client = world.client().send(request)
            world.advance(1)
            self.assertEqual(client.interim, [])
            self.assertEqual(client.response.body, b"ok")
            world.request(get())
            self.assertEqual(len(app.backend.connections), 1)

    @each_world()
    def test_200_behind_100_counts_from_its_own_start(self, world: World) -> None:
        """The first byte in the record is that of the answer, not of a swallowed 100."""
        hundred = b"HTTP/1.1 100 Continue\r\n\r\n"
        self.app(world, raw(hundred, OK + b"Content-Length: 2\r\n\r\nok", every_seconds=5.0))
        client = world.client().send(get())
        world.advance(6)
        self.assertEqual(client.response.body, b"ok")
        record = world.records[-1]
        self.assertGreater(record.first_byte_at - record.started_at, 4.9)

    @each_world()
    def test_101_unasked(self, world: World) -> None:
        """A switch of protocols that nobody asked for is 502."""
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        for request in (
            get(),
            post(b"body"),
            get(b"/", b"hello.test", b"Connection: upgrade", b"Upgrade: h2c"),
        ):
            app = self.app(world, raw(switch))
            client = world.client().send(request)
            world.advance(1)
            self.assertEqual(code_of(client), "bad-response")
            self.not_reused(world, app)

    @each_world()
    def test_101_to_something_else(self, world: World) -> None:
        """A switch to a protocol that was not offered is 502."""
        ask = get(b"/", b"hello.test", b"Connection: upgrade", b"Upgrade: foo/1, bar")
        for token in (b"baz", b"foo", b"", b"bar, foo/1"):
            head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\n"
            app = self.app(world, raw(head % token))
            client = world.client().send(ask)
            world.advance(1)
            self.assertEqual(code_of(client), "bad-response", token)
            self.not_reused(world, app)

    @each_world()
    def test_101_in_the_middle_of_a_request(self, world: World) -> None:
        """A switch while the body still comes is 502, and the client is heard out."""
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        app = self.app(world, replies.early(raw(switch)))
        lines = (b"Connection: upgrade", b"Upgrade: websocket")
        client = world.client().send(post(b"x" * 100, *lines)[:-50])
        world.advance(1)
        self.assertEqual(client.statuses, [502])
        self.assertEqual(world.records[-1].code, "bad-response")
        self.assertEqual(app.backend.open_connections, [])


class LargeTests(WorldTestCase):
    """Sizes and shapes at the edges of what is allowed."""

    @each_world()
    def test_large_head(self, world: World) -> None:
        """A head of nearly 64 kB passes unchanged."""
        cookie = b"x" * 60_000
        hello(world, replies.fixed(b"ok", headers=((b"Set-Cookie", cookie),)))
        self.assertEqual(world.request(get()).get(b"Set-Cookie"), cookie)

    @each_world()
    def test_many_small_chunks(self, world: World) -> None:
        """Thousands of one-byte chunks arrive as the same bytes."""
        hello(world, replies.chunked([b"x"] * 3000))
        self.assertEqual(world.request(get()).body, b"x" * 3000)

    @each_world()
    def test_empty_bodies(self, world: World) -> None:
        """Nothing, in every framing, is nothing."""
        for reply in (replies.fixed(), replies.chunked([]), replies.close_delimited(b"")):
            hello(world, reply)
            self.assertEqual(world.request(get()).body, b"")
