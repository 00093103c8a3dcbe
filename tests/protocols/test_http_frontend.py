"""HTTP/1 connections of clients: one request after another, in order, within limits."""

from __future__ import annotations

import random
from typing import Any

from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import CUTS, WorldTestCase, each_world, get, hello, post


class ForwardingTests(WorldTestCase):
    """What a backend sees of a request, and a client of a response."""

    def test_forwarded_headers(self) -> None:
        """The backend learns who asked, how, where, and under which id."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        world.request(get(b"/a?b=c", b"Hello.Test:8080", b"X-Forwarded-For: 6.6.6.6"), source="192.0.2.7")
        (request,) = app.backend.requests
        self.assertEqual(request.target, b"/a?b=c")
        self.assertEqual(request.get_all(b"Host"), [b"Hello.Test:8080"])
        self.assertEqual(request.get_all(b"X-Forwarded-For"), [b"192.0.2.7"])
        self.assertEqual(request.get_all(b"X-Real-IP"), [b"192.0.2.7"])
        self.assertEqual(request.get_all(b"X-Forwarded-Proto"), [b"http"])
        self.assertEqual(request.get_all(b"X-Forwarded-Port"), [b"8080"])
        self.assertRegex(request.get(b"X-Request-ID"), rb"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertRegex(request.get(b"X-Request-Start"), rb"^t=[0-9]+\.[0-9]{3}$")

    def test_own_request_id(self) -> None:
        """A client's own request id is kept when it is well-formed, and is in the record."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        for told, kept in (
            (b"A" * 20, True),
            (b"a+b=c/d-" * 16, True),
            (b"short", False),
            (b"b" * 129, False),
        ):
            world.request(get(b"/", b"hello.test", b"X-Request-ID: " + told))
            seen = app.backend.requests[-1].get_all(b"X-Request-ID")
            self.assertEqual(len(seen), 1)
            self.assertEqual(seen[0] == told, kept)
            self.assertEqual(world.records[-1].request_id.encode(), seen[0])

    def test_trusted_proxy(self) -> None:
        """A trusted peer's chain is continued; the right-most untrusted address is the client."""
        world = self.world(trusted_proxies=["192.0.2.0/24"])
        app = world.app("hello", ["hello.test"])
        world.request(
            get(
                b"/",
                b"hello.test",
                b"X-Forwarded-For: 1.1.1.1, 203.0.113.9, 192.0.2.8",
                b"X-Forwarded-Proto: https",
                b"X-Forwarded-Port: 443",
            ),
            source="192.0.2.7",
        )
        (request,) = app.backend.requests
        self.assertEqual(request.get_all(b"X-Forwarded-For"), [b"1.1.1.1, 203.0.113.9, 192.0.2.8, 192.0.2.7"])
        self.assertEqual(request.get_all(b"X-Real-IP"), [b"203.0.113.9"])
        self.assertEqual(request.get_all(b"X-Forwarded-Proto"), [b"https"])
        self.assertEqual(request.get_all(b"X-Forwarded-Port"), [b"443"])
        self.assertEqual(world.records[-1].client, "203.0.113.9")

    def test_error_header_is_ours(self) -> None:
        """A backend cannot pretend that the router failed."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(replies.fixed(b"x", headers=((b"X-Scalingo-Error", b"unknown-host; no"),)))
        response = world.request(get())
        self.assertEqual(response.get_all(b"X-Scalingo-Error"), [])

    def test_http10_client(self) -> None:
        """HTTP/1.0 gets no chunks; the body ends with the connection."""
        for cut in CUTS:
            world = self.world(cut=cut)
            app = world.app("hello", ["hello.test"])
            app.backend.answer(replies.chunked([b"abc", b"def"]))
            client = world.client().send(b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n")
            world.settle()
            self.assertIn(b"Connection: close\r\n", client.received)
            self.assertNotIn(b"Transfer-Encoding", client.received)
            self.assertTrue(client.received.endswith(b"\r\n\r\nabcdef"))
            self.assertTrue(client.is_over)
            self.assertEqual(app.backend.requests[0].version, b"1.1")

    def test_http10_keep_alive(self) -> None:
        """An HTTP/1.0 client that asks for it keeps its connection where a length is known."""
        world = self.world()
        world.app("hello", ["hello.test"])
        ask = b"GET / HTTP/1.0\r\nHost: hello.test\r\nConnection: keep-alive\r\n\r\n"
        client = world.client().send(ask)
        world.settle()
        client.send(ask)
        world.settle()
        self.assertEqual(client.statuses, [200, 200])
        self.assertFalse(client.is_over)
        self.assertIn(b"Connection: keep-alive\r\n", client.received)

    def test_head(self) -> None:
        """HEAD relays the length and no body, and the connection goes on."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(replies.fixed(b"12345"))
        client = world.client().send(get(method=b"HEAD") + get())
        world.run_until(lambda: len(client.responses) == 2)
        self.assertEqual([response.body for response in client.responses], [b"", b"12345"])
        self.assertEqual(client.responses[0].get(b"Content-Length"), b"5")

    def test_bodiless_statuses(self) -> None:
        """204 and 304 have no body, whatever else follows."""
        for status in (204, 304):
            world = self.world()
            app = world.app("hello", ["hello.test"])
            app.backend.answer(replies.fixed(status=status))
            client = world.client().send(get() + get())
            world.run_until(lambda client=client: len(client.responses) == 2)
            self.assertEqual(client.statuses, [status, status])

    def test_trailers_both_ways(self) -> None:
        """Trailers travel, except those that would frame, route or authenticate."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        trailers = ((b"Digest", b"abc"), (b"Content-Length", b"3"), (b"Authorization", b"x"))
        app.backend.answer(replies.chunked([b"abc"], trailers=trailers))
        client = world.client()
        client.send(
            get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
            + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"
        )
        world.run_until(lambda: client.responses)
        self.assertTrue(client.received.endswith(b"0\r\nDigest: abc\r\n\r\n"))
        self.assertTrue(app.backend.requests[0].raw.endswith(b"0\r\nX-Sum: 1\r\n\r\n"))

    def test_chunk_extensions_are_dropped(self) -> None:
        """Chunked uploads are framed anew."""
        for cut in CUTS:
            world = self.world(cut=cut)
            app = world.app("hello", ["hello.test"])
            head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
            client = world.client().send(head + b'5;a="b\\"c"\r\nhello\r\n00003\r\nabc\r\n0\r\n\r\n')
            world.run_until(lambda client=client: client.responses)
            self.assertEqual(app.backend.requests[0].body, b"helloabc")
            self.assertNotIn(b";", app.backend.requests[0].raw.partition(b"\r\n\r\n")[2])


class OrderTests(WorldTestCase):
    """Requests of one connection, one after the other."""

    def test_pipelining(self) -> None:
        """Fifty requests at once are answered in order, each by its own app."""
        for cut in CUTS:
            world = self.world(cut=cut, seed=3)
            for name in (b"one", b"two"):
                app = world.app(name.decode(), [f"{name.decode()}.test"])
                app.backend.answer(replies.delayed(0.01, replies.fixed(name)))
            wanted = [(b"one", b"two")[number % 2] for number in range(50)]
            client = world.client().send(b"".join(get(b"/", name + b".test") for name in wanted))
            world.run_until(lambda client=client: len(client.responses) == 50)
            self.assertEqual([response.body for response in client.responses], wanted)

    def test_many_errors_at_once(self) -> None:
        """Hundreds of pipelined requests that are refused at once do not nest."""
        world = self.world()
        client = world.client().send(get(b"/", b"nobody.test") * 700)
        world.run_until(lambda: len(client.responses) == 700)
        self.assertEqual(set(client.statuses), {404})

    def test_bad_one_behind_good_one(self) -> None:
        """The good request is answered, the bad one is refused, and nothing behind it is read."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        client = world.client().send(get(b"/1") + b"BAD\r\n\r\n" + get(b"/2"))
        world.settle()
        world.advance(5)
        self.assertEqual(client.statuses, [200, 400])
        self.assertTrue(client.is_over)
        self.assertEqual([request.target for request in app.backend.requests], [b"/1"])

    def test_nothing_behind_connection_close(self) -> None:
        """What follows a request that says it is the last is not processed."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        client = world.client().send(get(b"/1", b"hello.test", b"Connection: close") + get(b"/2"))
        world.advance(5)
        self.assertEqual(client.statuses, [200])
        self.assertTrue(client.is_over)
        self.assertEqual(app.requests, 1)

    def test_read_ahead_is_bounded(self) -> None:
        """A client that pipelines without end is not read without end."""
        world = self.world(buffer_bytes=65536)
        app = world.app("hello", ["hello.test"])
        app.backend.answer(replies.never())
        client = world.client()
        client.send(get(b"/", b"hello.test", b"A: " + b"x" * 8000) * 100)
        world.advance(1)
        (frontend,) = world.factory._frontends
        self.assertLess(len(frontend._ahead), 3 * 65536)
        client.abort()
        world.advance(40)

    def test_backend_connection_is_kept(self) -> None:
        """Requests in a row use one backend connection."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        for _ in range(5):
            world.request(get())
        self.assertEqual(len(app.backend.connections), 1)

    def test_pipelined_errors_by_turns(self) -> None:
        """Hundreds of requests that are refused at once are answered, all of them, by turns."""
        world = self.world()
        hello(world)
        client = world.client().send(get(b"/", b"nobody.test") * 300 + get())
        turns: list[int] = []
        put_off = world.factory.env.turns.put_off

        def count(whose: object) -> None:
            turns.append(len(client.responses))
            put_off(whose)  # type: ignore[arg-type]

        self.patch(world.factory.env.turns, "put_off", count)
        world.run_until(lambda: len(client.responses) == 301)
        self.assertEqual(client.statuses, [404] * 300 + [200])
        self.assertEqual(len(turns), 15)

    def test_no_more_is_read_than_is_worked_off(self) -> None:
        """While requests wait for their turn, what is read ahead of them is bounded."""
        world = self.world()
        request = get(b"/", b"nobody.test")
        put_off = world.factory.env.turns.put_off
        waiting: list[tuple[int, bool]] = []

        def note(frontend: Any) -> None:
            put_off(frontend)
            world.network.callLater(0, lambda: waiting.append(state(frontend)))

        def state(frontend: Any) -> tuple[int, bool]:
            return len(frontend._ahead), frontend.is_reading_paused

        self.patch(world.factory.env.turns, "put_off", note)
        client = world.client().send(request * 8_000)
        world.run_until(lambda: len(client.responses) == 8_000)
        full = [is_paused for length, is_paused in waiting if length > 65536]
        self.assertGreater(len(full), 10)
        self.assertTrue(all(full))
        self.assertLess(max(length for length, _ in waiting), 3 * 65536)

    def test_bodies_in_crumbs_by_turns(self) -> None:
        """Bodies in the smallest of chunks arrive whole, by turns; the next request follows."""
        world = self.world()
        app = hello(world, replies.echo())
        turns: list[object] = []
        put_off = world.factory.env.turns.put_off
        self.patch(world.factory.env.turns, "put_off", lambda whose: (turns.append(whose), put_off(whose)))
        body = bytes(random.Random(1).randbytes(40_000))
        crumbs = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
        clients = [world.client().send(head + crumbs + get()) for _ in range(2)]
        world.run_until(lambda: all(len(client.responses) == 2 for client in clients))
        for client in clients:
            self.assertEqual([response.body for response in client.responses], [body, b""])
        self.assertEqual(app.requests, 4)
        self.assertGreater(len(turns), 2)
        self.assertEqual(list(world.factory.env.turns._waiting), [])

    def test_leaves_while_put_off(self) -> None:
        """A client that is gone by its next turn leaves nothing behind."""
        world = self.world()
        hello(world)
        client = world.client().send(get(b"/", b"nobody.test") * 300)
        world.run_until(lambda: world.factory.env.turns._waiting)
        client.abort()
        world.settle()
        self.assertEqual(list(world.factory.env.turns._waiting), [])
        self.assertLess(len(world.records), 300)


class RefusalTests(WorldTestCase):
    """What is refused before any backend is asked; the corpus of the wire tests has the many cases."""

    def refused(self, data: bytes, **options: object) -> tuple[int, str]:
        """The status and code of a request that no backend may see."""
        verdicts = set()
        for how in ("whole", "bytewise", "cut"):
            world = self.world(**options)
            app = world.app("hello", ["hello.test"])
            client = world.client()
            if how == "whole":
                client.send(data)
            elif how == "bytewise" and len(data) < 3000:
                client.send_slowly(data)
            else:
                client.send_cut(data, random.Random(1))
            world.advance(60)
            self.assertTrue(client.is_over, data[:60])
            self.assertEqual(app.backend.connections, [])
            code = client.responses[0].get(b"X-Scalingo-Error").partition(b";")[0].decode()
            self.assertEqual(world.records[-1].code, code)
            self.assertEqual(world.records[-1].status, client.responses[0].status)
            self.assertNotEqual(client.responses[0].get(b"X-Request-ID"), b"")
            verdicts.add((client.responses[0].status, code))
        self.assertEqual(len(verdicts), 1, data[:60])
        return verdicts.pop()

    def test_statuses_and_codes(self) -> None:
        """Each kind of bad request has its status and its code, however it is cut."""
        for data, status, code in (
            (get(b"/", b"nobody.test", b"Connection: close"), 404, "unknown-host"),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "bad-request"),
            (get(b"/", b"hello.test", b"Host: hello.test"), 400, "bad-request"),
            (b"GET / HTTP/1.1\nHost: hello.test\n\n", 400, "bad-request"),
            (b"GET / HTTP/1.1\rHost: hello.test\r\r", 400, "bad-request"),
            (get(b"/", b"hello.test", b"A : b"), 400, "bad-request"),
            (get(b"/", b"hello.test", b"A: b", b" c"), 400, "bad-request"),
            (get(b"/", b"hello.test", b"A: \0"), 400, "bad-request"),
            (get(b"/", b"hello.test", b"Content-Length: 1", b"Content-Length: 2"), 400, "bad-request"),
            (
                get(b"/", b"hello.test", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
                400,
                "bad-request",
            ),
            (b"\r\n\r\n\r\n" + get(), 400, "bad-request"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad-request"),
            (get(method=b"TRACE"), 405, "method-not-allowed"),
            (b"CONNECT hello.test:443 HTTP/1.1\r\nHost: hello.test\r\n\r\n", 405, "method-not-allowed"),
            (get(b"/" + b"a" * 8300), 414, "uri-too-long"),
            (b"G" * 9000, 414, "uri-too-long"),
            (get(b"/", b"hello.test", b"A: " + b"b" * 8300), 431, "head-too-large"),
            (get(b"/", b"hello.test", *[b"A: " + b"b" * 4000] * 9), 431, "head-too-large"),
            (get(b"/", b"hello.test", *[b"A: b"] * 300), 431, "head-too-large"),
            (post(b"x", b"Expect: magic"), 417, "expectation-failed"),
            (get(b"/", b"hello.test", b"Content-Length: 75000001"), 413, "body-too-large"),
            (get(b"/", b"hello.test", b"Content-Length: " + b"9" * 30), 413, "body-too-large"),
            (get(b"/", b"hello.test", b"Transfer-Encoding: gzip, chunked"), 501, "not-implemented"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad-version"),
        ):
            self.assertEqual(self.refused(data), (status, code), data[:80])

    def test_one_empty_line_is_ignored(self) -> None:
        """One CRLF before a request is passed over (RFC 9112 §2.2)."""
        world = self.world()
        world.app("hello", ["hello.test"])
        client = world.client().send_slowly(b"\r\n" + get() + b"\r\n" + get())
        world.run_until(lambda: len(client.responses) == 2)
        self.assertEqual(client.statuses, [200, 200])

    def test_error_as_json(self) -> None:
        """A program that asks for JSON gets the error as JSON."""
        world = self.world()
        response = world.request(get(b"/", b"nobody.test", b"Accept: application/json"))
        self.assertEqual(response.get(b"Content-Type"), b"application/json")
        self.assertIn(b'"code": "unknown-host"', response.body)

    def test_error_for_head(self) -> None:
        """An error for HEAD has no body, and the connection goes on."""
        world = self.world()
        client = world.client().send(get(b"/", b"nobody.test", method=b"HEAD") * 2)
        world.run_until(lambda: len(client.responses) == 2)
        self.assertEqual(client.statuses, [404, 404])

    def test_page_repeats_nothing(self) -> None:
        """Nothing a client sent stands in the page."""
        world = self.world()
        response = world.request(get(b"/<script>", b"nobody-evil.test", b"User-Agent: <script>"))
        self.assertNotIn(b"script", response.body)
        self.assertNotIn(b"nobody-evil", response.raw)

    def test_slow_head(self) -> None:
        """A head that takes longer than request_head is answered 408, drip by drip or not."""
        world = self.world(timeouts=Timeouts(request_head=10.0))
        world.app("hello", ["hello.test"])
        client = world.client()
        client.send_slowly(get(b"/" + b"a" * 100), every_seconds=0.5)
        world.advance(12)
        self.assertEqual(client.statuses, [408])
        self.assertEqual(world.records[-1].code, "request-timeout")

    def test_silent_connection(self) -> None:
        """A client that says nothing is closed without an answer."""
        world = self.world()
        client = world.client()
        world.advance(11)
        self.assertTrue(client.is_over)
        self.assertEqual(client.received, b"")
        self.assertEqual(world.records, [])

    def test_keep_alive_limit(self) -> None:
        """An idle client is closed after keep_alive, without an answer."""
        world = self.world(timeouts=Timeouts(keep_alive=60.0))
        world.app("hello", ["hello.test"])
        client = world.client().send(get())
        world.advance(59)
        self.assertFalse(client.is_over)
        world.advance(2)
        self.assertTrue(client.is_over)
        self.assertEqual(client.statuses, [200])

    def test_client_connections(self) -> None:
        """Beyond client_connections a connection is closed, and room comes back."""
        world = self.world(limits=Limits(client_connections=2))
        world.app("hello", ["hello.test"])
        first, second, third = world.client(), world.client(), world.client()
        world.settle()
        self.assertTrue(third.is_over)
        first.close()
        world.settle()
        fourth = world.client().send(get())
        world.run_until(lambda: fourth.responses)
        self.assertEqual(fourth.statuses, [200])
        self.assertFalse(second.is_over)

    def test_body_limit_while_it_comes(self) -> None:
        """A chunked upload that grows beyond body_bytes is answered 413, and the backend's request is cut."""
        world = self.world(limits=Limits(body_bytes=100))
        app = world.app("hello", ["hello.test"])
        head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
        client = world.client().send(head + b"60\r\n" + b"a" * 96 + b"\r\n")
        world.settle()
        client.send(b"60\r\n" + b"a" * 96 + b"\r\n")
        world.advance(5)
        self.assertEqual(client.statuses, [413])
        self.assertFalse(app.backend.requests[0].is_complete)
        self.assertTrue(client.is_over)

    def test_bad_chunk_in_the_middle(self) -> None:
        """A chunked body that breaks is answered 400; the backend sees no whole request."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
        client = world.client().send(head + b"3\r\nabc\r\n")
        world.settle()
        client.send(b"zz\r\n")
        world.advance(5)
        self.assertEqual(client.statuses, [400])
        self.assertFalse(app.backend.requests[0].is_complete)
        self.assertEqual(app.backend.open_connections, [])


class BackPressureTests(WorldTestCase):
    """Bodies stream; no side is read faster than the other takes."""

    def test_download_to_a_slow_reader(self) -> None:
        """A client that does not read stops the backend; then it gets everything."""
        for cut in CUTS:
            world = self.world(cut=cut)
            app = world.app("hello", ["hello.test"])
            app.backend.answer(replies.bulk(5_000_000))
            client = world.client()
            client.pause()
            client.send(get())
            world.advance(10)
            (connection,) = app.backend.connections
            self.assertEqual(client.count, 0)
            client.resume()
            world.run_until(lambda client=client: client.responses)
            self.assertEqual(len(client.response.body), 5_000_000)
            self.assertFalse(connection.is_over)

    def test_upload_to_a_slow_backend(self) -> None:
        """An upload to a backend that does not read is not buffered."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        paused = []

        def stop_reading(exchange: replies.IncomingExchange) -> None:
            exchange.transport.pauseProducing()
            paused.append(exchange)

        app.backend.answer(replies.Reply(replies.fixed(b"ok").complete, stop_reading))
        client = world.client()
        client.send(post(b"x" * 5_000_000))
        world.advance(5)
        self.assertLess(world.factory.env.client_connections, 2)
        self.assertFalse(app.backend.requests[0].is_complete)
        paused[0].transport.resumeProducing()
        world.run_until(lambda: client.responses)
        self.assertEqual(len(app.backend.requests[0].body), 5_000_000)
        self.assertEqual(world.records[-1].bytes_in, 5_000_000)

    def test_full_duplex(self) -> None:
        """A response may start, and go on, before the upload ends."""
        world = self.world()
        app = world.app("hello", ["hello.test"])

        def begin(exchange: replies.IncomingExchange) -> None:
            exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")

        def end(exchange: replies.IncomingExchange) -> None:
            exchange.write(b"4\r\nlate\r\n0\r\n\r\n")
            exchange.finish()

        app.backend.answer(replies.Reply(end, begin))
        client = world.client().send(post(b"x" * 1000)[:-500])
        world.settle()
        self.assertIn(b"early", client.received)
        client.send(b"x" * 500)
        world.run_until(lambda: client.responses)
        self.assertEqual(client.response.body, b"earlylate")
        self.assertTrue(app.backend.requests[0].is_complete)

    def test_event_stream_is_not_held_back(self) -> None:
        """Each event arrives when the backend sends it."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(replies.drip([b"data: 1\n\n", b"data: 2\n\n"], 10.0))
        client = world.client().send(get())
        world.advance(0.1)
        self.assertIn(b"data: 1", client.received)
        self.assertNotIn(b"data: 2", client.received)
        world.run_until(lambda: client.responses)


class LargeHeadTests(WorldTestCase):
    """Limits beyond the defaults."""

    @each_world(limits=Limits(head_bytes=200_000, header_bytes=100_000))
    def test_head_larger_than_the_read_ahead(self, world: World) -> None:
        """A head may be larger than what is read ahead of an exchange."""
        app = world.app("hello", ["hello.test"])
        lines = [b"A-%d: " % number + b"x" * 60_000 for number in range(3)]
        client = world.client().send(get(b"/", b"hello.test", *lines))
        world.run_until(lambda: client.responses)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(len(app.backend.requests[0].get(b"A-2")), 60_000)
