"""WebSockets over HTTP/2 (RFC 8441), bridged to an upgrade at the backend."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from h2.errors import ErrorCodes

from scalingo_proxy.model import Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.replies import IncomingExchange, Reply
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.websocket_frames import SERVICE_RESTART, close_frame
from tests.protocols.http2_worlds import HTTP2TestCase, fields
from tests.protocols.worlds import hello

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def connect_fields(*more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """An extended CONNECT."""
    listed = fields(b"/chat", *more, method=b"CONNECT")
    return [*listed[:4], (b":protocol", b"websocket"), *listed[4:], (b"sec-websocket-version", b"13")]


def accepting(accept: bytes = b"", greeting: bytes = b"", farewell: bytes = b"") -> Reply:
    """Switch to WebSocket, properly unless *accept* is given, and send every byte back."""

    def answer(exchange: IncomingExchange) -> None:
        def end() -> None:
            exchange.write(farewell)
            exchange.close()

        key = exchange.request.get(b"Sec-WebSocket-Key")
        proof = accept or base64.b64encode(hashlib.sha1(key + _GUID).digest())
        exchange.tunnel(exchange.write, end)
        exchange.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
            b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: %b\r\n\r\n%b" % (proof, greeting)
        )

    return replies.reply_with(answer)


class WebSocketTests(HTTP2TestCase):
    def opened(self, world: World, *more: tuple[bytes, bytes], **options: Any) -> tuple[Any, Any]:
        """A client and the stream of its WebSocket."""
        client = self.client(world, **options)
        stream = client.request(connect_fields(*more), end=False)
        world.settle()
        return client, stream

    def test_open(self) -> None:
        """The backend sees an HTTP/1 handshake of ours, the client a plain 200."""
        world = self.world()
        app = hello(world, accepting())
        _, stream = self.opened(
            world, (b"origin", b"http://hello.test"), (b"sec-websocket-protocol", b"chat")
        )
        self.assertEqual(stream.status, 200)
        self.assertEqual(stream.headers[b"sec-websocket-protocol"], b"chat")
        self.assertEqual({b"sec-websocket-accept", b"upgrade", b"connection"} & stream.headers.keys(), set())
        (request,) = app.backend.requests
        self.assertEqual((request.method, request.target, request.version), (b"GET", b"/chat", b"1.1"))
        self.assertEqual(
            [request.get(name) for name in (b"Connection", b"Upgrade", b"Sec-WebSocket-Version", b"Origin")],
            [b"upgrade", b"websocket", b"13", b"http://hello.test"],
        )
        self.assertEqual(len(base64.b64decode(request.get(b"Sec-WebSocket-Key"))), 16)
        self.assertFalse(stream.is_over)
        self.assertEqual(world.observer.still_open[world.factory.listener, "websocket"], 1)

    def test_echo(self) -> None:
        """Bytes travel both ways; the client's end becomes the backend's, and comes back."""
        for way in ({}, {"seed": 1, "cut": True, "latency": 0.01}):
            world = self.world(**way)  # type: ignore[arg-type]
            app = hello(world, accepting(greeting=b"hi ", farewell=b" bye"))
            client, stream = self.opened(world)
            for n in range(10):
                client.upload(stream, b"%d" % n)
                world.advance(0.005)
            client.h2.end_stream(stream.id)
            client.flush()
            world.run_until(lambda stream=stream: stream.ended)  # type: ignore[misc]
            world.settle()
            self.assertEqual((bytes(stream.body), stream.reset), (b"hi 0123456789 bye", None))
            self.assertTrue(app.backend.connections[0].saw_end)
            (record,) = world.records
            self.assertEqual((record.bytes_in, record.bytes_out, record.code), (10, 17, "-"))
            self.assertEqual(world.observer.still_open[world.factory.listener, "websocket"], 0)

    def test_bulk(self) -> None:
        """Much more than the windows passes, and nothing is held beyond them."""
        world = self.world()
        hello(world, accepting())
        client, stream = self.opened(world)
        body = bytes(range(256)) * 4000
        sent = 0
        while sent < len(body):
            world.run_until(lambda: client.h2.local_flow_control_window(stream.id) > 0)
            size = min(client.h2.local_flow_control_window(stream.id), 16384, len(body) - sent)
            client.upload(stream, body[sent : sent + size])
            sent += size
            self.assertLess(world.factory.last.pending, 200_000)
        world.run_until(lambda: len(stream.body) == len(body))
        self.assertEqual(bytes(stream.body), body)

    def test_sent_early(self) -> None:
        """What the client sends before the answer waits for the backend to accept."""
        world = self.world()
        app = hello(world, replies.delayed(1, accepting()))
        client, stream = self.opened(world)
        client.upload(stream, b"early")
        world.advance(0.5)
        self.assertEqual(app.backend.connections[0].tunnelled, b"")
        world.advance(1)
        self.assertEqual(bytes(stream.body), b"early")
        self.assertEqual(world.records, [])
        client.cancel(stream)
        world.settle()
        self.assertEqual(world.records[0].bytes_in, 5)

    def test_reset(self) -> None:
        """A client that resets the stream has closed the tunnel."""
        world = self.world()
        app = hello(world, accepting())
        client, stream = self.opened(world)
        client.cancel(stream)
        world.settle()
        self.assertTrue(app.backend.connections[0].is_over)
        self.assertEqual([record.status for record in world.records], [101])
        again = client.request(connect_fields(), end=False)
        world.settle()
        self.assertEqual(again.status, 200)  # the connection goes on

    def test_backend_closes(self) -> None:
        """A backend that closes ends the stream; the client's side is not waited for."""
        world = self.world()
        app = hello(world, accepting())
        _, stream = self.opened(world)
        app.backend.close_connections()
        world.settle()
        self.assertEqual((stream.ended, len(world.records)), (True, 0))
        world.advance(61)
        self.assertEqual((stream.reset, len(world.records)), (ErrorCodes.CANCEL, 1))

    def test_backend_crashes(self) -> None:
        """A backend that is gone altogether ends both directions."""
        world = self.world()
        app = hello(world, accepting())
        _, stream = self.opened(world)
        app.backend.crash()
        world.settle()
        self.assertTrue(stream.is_over)
        self.assertEqual(len(world.records), 1)

    def test_idle(self) -> None:
        """A silent tunnel is cut."""
        world = self.world(timeouts=Timeouts(idle=5))
        app = hello(world, accepting())
        client, stream = self.opened(world)
        world.advance(4)
        client.upload(stream, b"x")
        world.advance(4)
        self.assertFalse(stream.is_over)
        world.advance(2)
        self.assertEqual(stream.reset, ErrorCodes.CANCEL)
        self.assertEqual(world.records[0].code, "idle-timeout")
        self.assertEqual(app.backend.open_connections, [])

    def test_refused(self) -> None:
        """A backend that refuses is quoted."""
        world = self.world()
        hello(world, replies.fixed(b"no", 403))
        _, stream = self.opened(world)
        self.assertEqual((stream.status, bytes(stream.body), stream.code), (403, b"no", "-"))
        self.assertEqual(world.records[0].status, 403)
        world.advance(3)
        self.assertEqual(stream.reset, ErrorCodes.NO_ERROR)

    def test_no_websocket(self) -> None:
        """An answer that HTTP/2 would take for acceptance, or a false proof, is 502."""
        for reply in (
            replies.fixed(b"hello"),
            replies.chunked([b"hello", b"x"]),
            replies.fixed(b"", 204),
            accepting(b"c2hh"),
            replies.upgrade_echo(),
            replies.upgrade_echo(b"chat"),
        ):
            world = self.world()
            hello(world, reply)
            _, stream = self.opened(world)
            self.assertEqual((stream.status, stream.code), (502, "bad-response"))
            self.assertEqual([record.code for record in world.records], ["bad-response"])

    def test_slow_client(self) -> None:
        """A client that reads nothing pauses the backend."""
        world = self.world()

        def flood(exchange: IncomingExchange) -> None:
            accepting(greeting=b"x" * 1_000_000).complete(exchange)

        hello(world, replies.reply_with(flood))
        client, stream = self.opened(world, acknowledges=False)
        world.advance(1)
        self.assertEqual(len(stream.body), 65535)
        self.assertLess(world.factory.last.pending, 140_000)
        client.h2.increment_flow_control_window(2_000_000, stream.id)
        client.h2.increment_flow_control_window(2_000_000)
        client.flush()
        world.settle()
        self.assertEqual(len(stream.body), 1_000_000)

    def test_drain(self) -> None:
        """A tunnel is closed, with a close frame, before the proxy has waited long enough."""
        world = self.world()
        hello(world, accepting())
        client, stream = self.opened(world)
        drained = world.factory.drain(5)
        world.advance(2.4)
        self.assertEqual((client.goaway, stream.is_over, bytes(stream.body)), (0, False, b""))
        world.advance(0.2)
        self.assertEqual(bytes(stream.body), close_frame(SERVICE_RESTART, "Service Restart"))
        self.assertFalse(stream.is_over)
        world.run_until(drained)
        world.settle()
        self.assertEqual((stream.ended, stream.reset), (True, ErrorCodes.NO_ERROR))
        self.assertEqual(world.records[0].code, "drain-timeout")
