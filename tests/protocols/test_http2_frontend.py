"""Requests and responses over HTTP/2."""

from __future__ import annotations

from typing import Any

from h2.settings import SettingCodes

from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.testing import replies
from scalingo_proxy.wire.http2_compression import LeanDecoder
from scalingo_proxy.wire.http2_connection import HTTP2Connection
from scalingo_proxy.wire.http2_states import StreamState
from tests.protocols.http2_worlds import HTTP2TestCase, fields, headers_frame
from tests.protocols.worlds import hello


class RequestTests(HTTP2TestCase):
    def test_get(self) -> None:
        """A request reaches a backend and its answer comes back."""
        world = self.world()
        app = hello(world, replies.fixed(b"hello"))
        client = self.client(world)
        stream = client.request(fields(b"/a?b"))
        world.run_until(lambda: stream.ended)
        self.assertEqual((stream.status, bytes(stream.body)), (200, b"hello"))
        (request,) = app.backend.requests
        self.assertEqual(
            (request.method, request.target, request.get(b"Host")), (b"GET", b"/a?b", b"hello.test")
        )
        (record,) = world.records
        self.assertEqual((record.protocol, record.status, record.code), ("h2", 200, "-"))
        self.assertEqual((record.path, record.host, record.app), ("/a?b", "hello.test", "hello"))

    def test_many(self) -> None:
        """Streams run side by side, each with its own answer."""
        world = self.world(cut=True, shuffle=True)
        hello(world, replies.echo())
        client = self.client(world)
        streams = [client.request(fields(method=b"POST"), b"%d" % n * 50) for n in range(80)]
        world.run_until(lambda: all(stream.ended for stream in streams))
        self.assertEqual([bytes(stream.body) for stream in streams], [b"%d" % n * 50 for n in range(80)])

    def test_head(self) -> None:
        """A response to HEAD ends with its head."""
        world = self.world()
        hello(world, replies.fixed(b"hello"))
        stream = self.client(world).request(fields(method=b"HEAD"))
        world.run_until(lambda: stream.ended)
        self.assertEqual((stream.status, stream.headers[b"content-length"], stream.pieces), (200, b"5", []))

    def test_unknown_host(self) -> None:
        """Errors of ours are answers like others."""
        world = self.world()
        client = self.client(world)
        stream = client.request(fields(host=b"nobody.test"))
        world.run_until(lambda: stream.ended)
        self.assertEqual((stream.status, stream.code), (404, "unknown-host"))
        self.assertEqual(world.records[0].code, "unknown-host")

    def test_upload(self) -> None:
        """A body of unknown length goes chunked, with its trailers but the forbidden ones."""
        world = self.world()
        app = hello(world, replies.echo())
        client = self.client(world)
        stream = client.request(fields(method=b"POST"), b"abc", end=False)
        world.settle()
        client.upload(stream, b"def")
        client.h2.send_headers(stream.id, [(b"x-sum", b"1"), (b"authorization", b"no")], end_stream=True)
        client.flush()
        world.run_until(lambda: stream.ended)
        (request,) = app.backend.requests
        self.assertEqual(request.body, b"abcdef")
        self.assertEqual(request.get(b"Transfer-Encoding"), b"chunked")
        self.assertEqual(list(request.trailers), [(b"x-sum", b"1")])
        self.assertEqual(world.records[0].bytes_in, 6)

    def test_big_upload_and_download(self) -> None:
        """Megabytes pass both ways."""
        world = self.world(cut=True)
        hello(world, replies.echo())
        client = self.client(world)
        stream = client.request(fields(method=b"POST"), b"", end=False)
        body = bytes(range(256)) * 4096
        sent = 0
        while sent < len(body):
            world.run_until(lambda: client.h2.local_flow_control_window(stream.id) > 0)
            size = min(client.h2.local_flow_control_window(stream.id), 16384)
            client.upload(stream, body[sent : sent + size])
            sent += size
        client.h2.end_stream(stream.id)
        client.flush()
        world.run_until(lambda: stream.ended)
        self.assertEqual(bytes(stream.body), body)

    def test_limit(self) -> None:
        """A body beyond the limit is answered 413 and the rest is not wanted."""
        world = self.world(limits=Limits(body_bytes=10))
        app = hello(world)
        stream = self.client(world).request(fields(method=b"POST"), b"x" * 11, end=False)
        world.run_until(lambda: stream.is_over and stream.reset is not None)
        self.assertEqual((stream.status, stream.code, stream.reset), (413, "body-too-large", 0))
        self.assertFalse(any(request.is_complete for request in app.backend.requests))

    def test_tiny_window(self) -> None:
        """A window of one byte is served byte by byte."""
        world = self.world()
        hello(world, replies.fixed(b"hello"))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1}, acknowledges=False)
        stream = client.request()
        for size in range(1, 6):
            world.settle()
            self.assertEqual(len(stream.body), size)
            if size < 5:
                client.h2.increment_flow_control_window(1, stream.id)
                client.flush()
        world.run_until(lambda: stream.ended)
        self.assertEqual((bytes(stream.body), stream.pieces), (b"hello", [1] * 5))


class ResponseTests(HTTP2TestCase):
    def test_interim(self) -> None:
        """Interim responses come before the final one."""
        world = self.world()
        hello(world, replies.after_interim(replies.fixed(b"x"), 103))
        stream = self.client(world).request()
        world.run_until(lambda: stream.ended)
        self.assertEqual((stream.interim, stream.status), ([103], 200))

    def test_continue(self) -> None:
        """A client that waits for 100 gets it from the backend."""
        world = self.world()
        hello(world, replies.after_interim(replies.echo(), 100))
        client = self.client(world)
        stream = client.request(fields(b"/", (b"expect", b"100-continue"), method=b"POST"), end=False)
        world.run_until(lambda: stream.interim == [100])
        client.upload(stream, b"body", end=True)
        world.run_until(lambda: stream.ended)
        self.assertEqual((stream.interim, bytes(stream.body)), ([100], b"body"))

    def test_trailers(self) -> None:
        """A backend's trailers end the stream."""
        world = self.world()
        hello(world, replies.chunked([b"a", b"b"], trailers=[(b"X-Sum", b"1"), (b"Connection", b"close")]))
        stream = self.client(world).request()
        world.run_until(lambda: stream.ended)
        self.assertEqual((bytes(stream.body), stream.trailers), (b"ab", [(b"x-sum", b"1")]))

    def test_fields(self) -> None:
        """Names are in lower case and nothing of the connection travels on."""
        world = self.world()
        lines = b"X-One: 1\r\nKeep-Alive: 5\r\nConnection: x-two\r\nX-Two: 2\r\nSet-Cookie: a\r\n"
        hello(world, replies.raw(b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % lines))
        stream = self.client(world).request()
        world.run_until(lambda: stream.ended)
        expected = {b":status": b"200", b"x-one": b"1", b"set-cookie": b"a", b"content-length": b"0"}
        self.assertEqual(stream.headers, expected)

    def test_no_content(self) -> None:
        """204 and 304 end with their heads."""
        for status in (204, 304):
            world = self.world()
            hello(world, replies.raw(b"HTTP/1.1 %d x\r\n\r\n" % status))
            stream = self.client(world).request()
            world.run_until(lambda stream=stream: stream.ended)  # type: ignore[misc]
            self.assertEqual((stream.status, stream.pieces), (status, []))

    def test_until_close(self) -> None:
        """A body that ends with the backend's connection is whole."""
        world = self.world()
        hello(world, replies.close_delimited(b"hello"))
        stream = self.client(world).request()
        world.run_until(lambda: stream.ended)
        self.assertEqual(bytes(stream.body), b"hello")

    def test_cut_short(self) -> None:
        """A response that breaks off is reset and never looks whole."""
        for reply in (
            replies.close_after(60, replies.fixed(b"x" * 100)),
            replies.reset_after(90, replies.chunked([b"x" * 20] * 9)),
        ):
            world = self.world()
            hello(world, reply)
            client = self.client(world)
            stream = client.request()
            world.run_until(lambda stream=stream: stream.is_over)  # type: ignore[misc]
            self.assertEqual((stream.status, stream.ended, stream.reset), (200, False, 2))
            self.assertIs(client.goaway, None)

    def test_early(self) -> None:
        """An answer before the end of the upload is whole, and the rest is not wanted."""
        world = self.world()
        app = hello(world, replies.early(replies.fixed(b"enough", 401)))
        client = self.client(world)
        stream = client.request(fields(method=b"POST"), b"a", end=False)
        world.run_until(lambda: stream.reset is not None)
        self.assertEqual((stream.status, bytes(stream.body), stream.reset), (401, b"enough", 0))
        self.assertEqual(app.backend.open_connections, [])
        self.assertGreaterEqual(world.clock.seconds(), 2)  # time for the client to stop by itself
        again = client.request(fields(method=b"POST"), b"b")
        world.run_until(lambda: again.ended)

    def test_json(self) -> None:
        """Errors are JSON for those who ask, and have no body for HEAD."""
        world = self.world()
        client = self.client(world)
        asked = client.request(fields(b"/", (b"accept", b"application/json")))
        head = client.request(fields(method=b"HEAD"))
        refused = client.request(fields(b"/" * 9000, method=b"HEAD"))
        world.run_until(lambda: asked.ended and head.ended and refused.ended)
        self.assertEqual(asked.headers[b"content-type"], b"application/json")
        self.assertEqual((bytes(head.body), bytes(refused.body), refused.status), (b"", b"", 414))

    def test_fairness(self) -> None:
        """A small answer does not wait for the end of a large one."""
        world = self.world()
        hello(world, replies.bulk(3_000_000))
        world.app("small", ["small.test"]).backend.answer(replies.fixed(b"x" * 20_000))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 10_000_000})
        client.h2.increment_flow_control_window(10_000_000)
        large = client.request()
        world.run_until(lambda: len(large.body) > 100_000)
        small = client.request(fields(host=b"small.test"))
        world.run_until(lambda: small.ended)
        self.assertLess(len(large.body), 1_000_000)
        world.run_until(lambda: large.ended)
        self.assertEqual(len(large.body), 3_000_000)

    def test_stalled_stream(self) -> None:
        """A stream whose window is shut holds up no other, and pauses its backend."""
        world = self.world()
        hello(world, replies.bulk(3_000_000))
        world.app("small", ["small.test"])
        client = self.client(world, acknowledges=False)
        client.h2.increment_flow_control_window(10_000_000)
        stalled = client.request()
        world.settle()
        self.assertEqual(len(stalled.body), 65535)
        small = client.request(fields(host=b"small.test"))
        world.run_until(lambda: small.ended)
        self.assertLess(world.factory.last.pending, 140_000)

    def test_connection_window(self) -> None:
        """Streams that wait for the window of the connection all go on when it opens."""
        world = self.world()
        hello(world, replies.fixed(b"x" * 60_000))
        client = self.client(world, acknowledges=False)
        streams = [client.request() for _ in range(5)]
        world.settle()
        self.assertEqual(sum(len(stream.body) for stream in streams), 65535)
        client.h2.increment_flow_control_window(300_000)
        client.flush()
        world.settle()
        self.assertEqual([len(stream.body) for stream in streams], [60_000] * 5)

    def test_settings_open_windows(self) -> None:
        """A larger INITIAL_WINDOW_SIZE wakes streams that wait (RFC 9113 §6.9.2)."""
        world = self.world()
        hello(world, replies.fixed(b"x" * 500))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
        stream = client.request()
        world.settle()
        self.assertEqual((stream.status, stream.pieces), (200, []))
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.flush()
        world.run_until(lambda: stream.ended)

    def test_slow_connection(self) -> None:
        """A client that reads nothing pauses every backend."""
        world = self.world(buffer_bytes=4096)
        hello(world, replies.bulk(3_000_000))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 10_000_000})
        client.h2.increment_flow_control_window(10_000_000)
        client.pause()
        streams = [client.request() for _ in range(3)]
        world.advance(1)
        self.assertLess(world.factory.last.pending, 4 * 70_000)
        client.resume()
        world.run_until(lambda: all(stream.ended for stream in streams))
        self.assertEqual([len(stream.body) for stream in streams], [3_000_000] * 3)


class UploadTests(HTTP2TestCase):
    def test_backend_does_not_read(self) -> None:
        """What a backend does not take is not acknowledged."""
        world = self.world(buffer_bytes=4096)
        app = hello(world, replies.echo())
        client = self.client(world)
        stream = client.request(fields(method=b"POST"), b"", end=False)
        world.settle()
        app.backend.connections[0].transport.pauseProducing()
        sent = 0
        for _ in range(100):
            size = min(client.h2.local_flow_control_window(stream.id), 16384)
            if size:
                client.upload(stream, b"x" * size)
                sent += size
            world.advance(0.01)
        self.assertLess(sent, 250_000)
        other = client.request(fields(host=b"nobody.test"))
        world.run_until(lambda: other.ended)
        app.backend.connections[0].transport.resumeProducing()
        world.run_until(lambda: client.h2.local_flow_control_window(stream.id) > 0)
        client.h2.end_stream(stream.id)
        client.flush()
        world.run_until(lambda: stream.ended)
        self.assertEqual(len(stream.body), sent)

    def test_waiting_for_a_backend(self) -> None:
        """A body is held, no more than a window of it, while the app is paused."""
        world = self.world()
        app = hello(world, replies.echo(), state="paused")
        client = self.client(world)
        stream = client.request(fields(method=b"POST"), b"x" * 65535, end=False)
        world.advance(1)
        self.assertEqual((client.h2.local_flow_control_window(1), app.requests), (0, 0))
        world.change("hello", state="running")
        world.settle()
        client.h2.end_stream(stream.id)
        client.flush()
        world.run_until(lambda: stream.ended)
        self.assertEqual((len(stream.body), app.requests), (65535, 1))

    def test_stall(self) -> None:
        """An upload that stalls is answered 408."""
        world = self.world(timeouts=Timeouts(request_body=5))
        hello(world, replies.echo())
        stream = self.client(world).request(fields(method=b"POST"), b"x", end=False)
        world.advance(6)
        self.assertEqual((stream.status, stream.code, stream.reset), (408, "request-timeout", None))
        world.advance(2)
        self.assertEqual(stream.reset, 0)

    def test_malformed_end(self) -> None:
        """A body that is shorter than announced never becomes a whole request."""
        world = self.world()
        app = hello(world, replies.echo())
        client = self.client(world)
        listed = fields(b"/", (b"content-length", b"10"), method=b"POST")
        stream = client.request(listed, b"abc", end=False)
        world.settle()
        client.h2.end_stream(stream.id)
        client.flush()
        world.settle()
        self.assertEqual((stream.status, stream.reset), (0, 1))
        self.assertFalse(app.backend.requests[0].is_complete)
        self.assertEqual(app.backend.open_connections, [])
        self.assertEqual([(r.status, r.code) for r in world.records], [(400, "bad-request")])

    def test_known_length(self) -> None:
        """A content-length travels on in its shortest form."""
        world = self.world()
        app = hello(world, replies.echo())
        listed = fields(b"/", (b"content-length", b"003"), method=b"POST")
        stream = self.client(world).request(listed, b"abc")
        world.run_until(lambda: stream.ended)
        (request,) = app.backend.requests
        self.assertEqual((request.get(b"Content-Length"), request.body), (b"3", b"abc"))

    def test_stale_connection(self) -> None:
        """A body that was not begun goes to a fresh connection."""
        world = self.world()
        app = hello(world, replies.echo())
        client = self.client(world)
        first = client.request(fields(method=b"PUT"), b"1")
        world.run_until(lambda: first.ended)
        app.backend.close_connections()
        second = client.request(fields(method=b"PUT"), b"22")
        world.run_until(lambda: second.is_over)
        self.assertEqual((second.status, bytes(second.body)), (200, b"22"))


class LeavingTests(HTTP2TestCase):
    def test_reset(self) -> None:
        """A stream that the client resets is cancelled at the backend."""
        world = self.world()
        app = hello(world, replies.never())
        client = self.client(world)
        stream = client.request()
        other = client.request()
        world.settle()
        client.cancel(stream)
        world.settle()
        self.assertEqual([(r.status, r.code) for r in world.records], [(499, "client-closed")])
        self.assertEqual(len(app.backend.open_connections), 1)
        self.assertFalse(other.is_over)

    def test_connection_lost(self) -> None:
        """All streams go with their connection."""
        world = self.world()
        app = hello(world, replies.never())
        client = self.client(world)
        for _ in range(3):
            client.request()
        world.settle()
        client.abort()
        world.settle()
        self.assertEqual([r.code for r in world.records], ["client-closed"] * 3)
        self.assertEqual(app.backend.open_connections, [])

    def test_drain(self) -> None:
        """Streams under way finish; new ones are served for a moment, then refused and may go elsewhere."""
        world = self.world()
        hello(world, replies.delayed(2, replies.fixed(b"late")))
        busy, idle = self.client(world), self.client(world)
        world.advance(1.1)
        stream = busy.request()
        world.settle()
        drained = world.factory.drain(10)
        world.settle()
        self.assertEqual((idle.goaway, idle.is_over), (0, True))
        self.assertEqual((busy.goaway, busy.is_over), (0, False))
        world.advance(0.5)
        last = busy.request()
        world.advance(1)
        refused = busy.request()
        world.settle()
        self.assertEqual(refused.reset, 7)
        world.run_until(drained)
        world.settle()
        self.assertEqual((stream.ended, bytes(stream.body), busy.is_over), (True, b"late", True))
        self.assertEqual((last.ended, bytes(last.body)), (True, b"late"))

    def test_cut(self) -> None:
        """What is not over by the end of the drain is told so."""
        world = self.world()
        hello(world, replies.never())
        stream = self.client(world).request()
        world.settle()
        world.run_until(world.factory.drain(1))
        world.settle()
        self.assertEqual((stream.status, stream.code), (503, "drain-timeout"))

    def test_idle(self) -> None:
        """A connection without streams is closed with a word, however often it pings."""
        world = self.world(timeouts=Timeouts(keep_alive=5))
        hello(world)
        client = self.client(world)
        stream = client.request()
        world.run_until(lambda: stream.ended)
        for _ in range(6):
            world.advance(1)
            if not client.is_over:
                client.h2.ping(b"12345678")
                client.flush()
        self.assertEqual((client.goaway, client.is_over), (0, True))
        self.assertEqual(len(world.records), 1)

    def test_silence(self) -> None:
        """A client that never asks is closed after ``request_head``, without a record."""
        world = self.world(timeouts=Timeouts(request_head=3))
        client = self.client(world)
        world.advance(4)
        self.assertTrue(client.is_over)
        self.assertEqual(world.records, [])

    def test_unfinished_head(self) -> None:
        """Half a header block is waited for as long as half a head of HTTP/1."""
        world = self.world(timeouts=Timeouts(request_head=3, keep_alive=60))
        hello(world)
        client = self.raw(world).write(headers_frame(1, fields(), "END_STREAM"))
        world.settle()
        frame = headers_frame(3, fields(), "END_STREAM")
        frame.flags.discard("END_HEADERS")
        client.write(frame)
        world.advance(4)
        self.assertEqual((client.goaway, client.is_over), (0, True))
        self.assertEqual([r.code for r in world.records], ["-", "request-timeout"])


class BugTests(HTTP2TestCase):
    """What is our own fault costs one stream."""

    def test_sending(self) -> None:
        """A response that cannot be sent is reset; the others arrive."""
        world = self.world()
        hello(world, replies.echo())
        send = HTTP2Connection._send_block

        def fail_on_3(connection: HTTP2Connection, stream: StreamState, *args: Any) -> None:
            if stream.id == 3:
                raise ZeroDivisionError
            send(connection, stream, *args)

        self.patch(HTTP2Connection, "_send_block", fail_on_3)
        client = self.client(world)
        streams = [client.request(fields(method=b"POST"), b"body") for _ in range(3)]
        world.run_until(lambda: all(stream.is_over for stream in streams))
        self.assertEqual([stream.reset for stream in streams], [None, 2, None])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_receiving(self) -> None:
        """A body that cannot be handed on is answered 500; the others are."""
        world = self.world()
        app = hello(world, replies.echo())
        hand_on = Exchange.request_payload

        def fail_on_bad(exchange: Exchange, payload: bytes) -> None:
            if payload == b"bad":
                raise ZeroDivisionError
            hand_on(exchange, payload)

        self.patch(Exchange, "request_payload", fail_on_bad)
        client = self.client(world)
        streams = [client.request(fields(method=b"POST"), body) for body in (b"good", b"bad")]
        world.run_until(lambda: all(stream.is_over for stream in streams))
        self.assertEqual([stream.status for stream in streams], [200, 500])
        self.assertEqual(sorted(r.code for r in world.records), ["-", "internal-error"])
        self.assertEqual(len(app.backend.open_connections), 1)
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 0)

    def test_frames(self) -> None:
        """A frame that we cannot cope with ends the connection, without a traceback."""
        world = self.world()

        def fail(connection: HTTP2Connection, *frame: Any) -> None:
            raise ZeroDivisionError

        client = self.raw(world)
        world.settle()
        self.patch(LeanDecoder, "decode", fail)
        client.write(headers_frame(1, fields(), "END_STREAM"))
        world.settle()
        self.assertEqual(client.goaway, 2)
        self.assertEqual([r.code for r in world.records], ["bad-request"])
