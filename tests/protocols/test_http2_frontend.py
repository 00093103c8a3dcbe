"""Requests and responses over HTTP/2."""

from __future__ import annotations

from h2.settings import SettingCodes

from scalingo_proxy.model import Limits
from scalingo_proxy.testing import replies
from tests.protocols.http2_worlds import HTTP2TestCase, fields
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
