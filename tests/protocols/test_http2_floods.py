"""What an HTTP/2 client cannot do to us, however often it tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from scalingo_proxy.model import Timeouts
from scalingo_proxy.protocols import http2_sender
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.http2_worlds import HTTP2TestCase, RawClient, fields, headers_frame
from tests.protocols.worlds import hello

CALM = ErrorCodes.ENHANCE_YOUR_CALM


def request(number: int, *flags: str, method: bytes = b"GET", **named: Any) -> HeadersFrame:
    """The HEADERS of the request with this number."""
    return headers_frame(2 * number + 1, fields(method=method, **named), *flags)


class FloodTests(HTTP2TestCase):
    def flood(
        self, world: World, *frames: Frame | bytes, times: int, first: tuple[Frame, ...] = ()
    ) -> RawClient:
        """Send *frames* so many times and see that the sender is sent away, and nobody else."""
        hello(world, replies.fixed(b"hello"))
        bystander = self.client(world)
        client = self.raw(world).write(*first)
        world.settle()
        client.write(*frames * times)
        world.settle()
        self.assertEqual(client.goaway, CALM)
        self.assertEqual([r.code for r in world.records].count("bad-request"), 1)
        world.advance(3)
        self.assertTrue(client.is_over)
        stream = bystander.request()
        world.run_until(lambda: stream.is_over)
        self.assertEqual(stream.status, 200)
        return client

    def test_ping(self) -> None:
        """PINGs."""
        self.flood(self.world(), PingFrame(opaque_data=b"12345678"), times=1000)

    def test_settings(self) -> None:
        """SETTINGS."""
        self.flood(self.world(), SettingsFrame(0), times=200)

    def test_priority(self) -> None:
        """PRIORITY."""
        self.flood(self.world(), PriorityFrame(1, 0, 15), times=2000)

    def test_unknown_frames(self) -> None:
        """Frames of a type that nobody knows."""
        self.flood(self.world(), b"\0\0\0\xbe\0\0\0\0\0", times=2000)

    def test_empty_data(self) -> None:
        """DATA with nothing in it."""
        first = (request(0, method=b"POST"),)
        self.flood(self.world(), DataFrame(1, b""), times=1000, first=first)

    def test_small_data(self) -> None:
        """DATA a byte at a time."""
        first = (request(0, method=b"POST"),)
        self.flood(self.world(), DataFrame(1, b"x"), times=8000, first=first)

    def test_small_pieces_in_one_turn(self) -> None:
        """A body that comes in many small frames at once goes to the backend as one piece."""
        world = self.world()
        app = hello(world, replies.echo())
        pieces: list[bytes] = []
        relay = Exchange.request_payload
        self.patch(
            Exchange, "request_payload", lambda exchange, data: (pieces.append(data), relay(exchange, data))
        )
        client = self.raw(world).write(request(0, method=b"POST"))
        world.settle()
        client.write(*[DataFrame(1, b"%03d" % number + bytes(30)) for number in range(150)])
        world.settle()
        client.write(DataFrame(1, b"end", flags=["END_STREAM"]))
        world.settle()
        self.assertLess(len(pieces), 20)
        body = b"".join(b"%03d" % number + bytes(30) for number in range(150)) + b"end"
        self.assertEqual(app.backend.requests[0].body, body)

    def test_padding(self) -> None:
        """DATA with nothing but padding in it."""
        first = (request(0, method=b"POST"),)
        self.flood(self.world(), DataFrame(1, b"", pad_length=1, flags=["PADDED"]), times=1000, first=first)

    def test_small_windows(self) -> None:
        """Windows opened byte by byte."""
        self.flood(self.world(), WindowUpdateFrame(0, 1), times=5000)

    def test_small_windows_of_closed_streams(self) -> None:
        """The same for a stream that is over."""
        first = (request(0, "END_STREAM"),)
        self.flood(self.world(), WindowUpdateFrame(1, 1), times=5000, first=first)

    def test_rapid_reset(self) -> None:
        """Streams opened and reset: each is cancelled at once, and soon there are no more."""
        world = self.world()
        frames = [
            part for n in range(1000) for part in (request(n, "END_STREAM"), RstStreamFrame(2 * n + 1, 8))
        ]
        self.flood(world, *frames, times=1)
        codes = [record.code for record in world.records]
        self.assertEqual(set(codes), {"client-closed", "bad-request", "-"})
        self.assertEqual(codes.count("client-closed"), 201)
        self.assertEqual(world.factory.env.connections.open_count, 1)

    def test_provoked_resets(self) -> None:
        """Streams that make us reset them (CVE-2025-8671)."""

        def malformed(number: int) -> list[Frame]:
            return [headers_frame(2 * number + 1, fields(b"no-slash"), "END_STREAM")]

        def zero_window(number: int) -> list[Frame | bytes]:
            stream_id = 2 * number + 1
            return [request(number), b"\0\0\4\x08\0" + stream_id.to_bytes(4, "big") + b"\0\0\0\0"]

        def window_overflow(number: int) -> list[Frame]:
            return [request(number), WindowUpdateFrame(2 * number + 1, 2**31 - 1)]

        def data_behind_the_end(number: int) -> list[Frame]:
            return [request(number, "END_STREAM"), DataFrame(2 * number + 1, b"x")]

        ways: tuple[Callable[[int], Any], ...] = (
            malformed,
            zero_window,
            window_overflow,
            data_behind_the_end,
        )
        for way in ways:
            world = self.world()
            hello(world, replies.never())
            client = self.raw(world).write(*(part for n in range(300) for part in way(n)))
            world.settle()
            self.assertEqual(client.goaway, CALM, way)
            self.assertEqual(len(client.resets), 101, way)

    def test_leaving(self) -> None:
        """A client that has said goodbye is not free to do so, and has to come to an end."""
        first = (request(0, host=b"slow.test"), GoAwayFrame(0))
        for frames, times in (
            ([GoAwayFrame(0)], 1000),
            ([request(n, "END_STREAM") for n in range(1, 300)], 1),
        ):
            world = self.world()
            world.app("slow", ["slow.test"]).backend.answer(replies.never())
            self.flood(world, *frames, times=times, first=first)

    def test_too_many_streams(self) -> None:
        """The stream behind the hundredth is refused, and may be tried again."""
        world = self.world()
        hello(world, replies.never())
        client = self.raw(world).write(*(request(n, "END_STREAM") for n in range(101)))
        world.settle()
        self.assertEqual(client.resets, {201: ErrorCodes.REFUSED_STREAM})
        self.assertIs(client.goaway, None)
        client.write(RstStreamFrame(1, 8), request(101, "END_STREAM"))
        world.settle()
        self.assertEqual(client.resets, {201: ErrorCodes.REFUSED_STREAM})

    def test_compression_bomb(self) -> None:
        """A block that becomes large by indices into the table ends the connection."""
        world = self.world()
        hello(world)
        encoded = headers_frame(1, [*fields(), (b"x", b"y" * 4000)], "END_STREAM").data
        bomb = HeadersFrame(3, b"\xbe" * 5000, flags=["END_HEADERS", "END_STREAM"])
        client = self.raw(world).write(HeadersFrame(1, encoded, flags=["END_HEADERS", "END_STREAM"]), bomb)
        world.settle()
        self.assertEqual(client.goaway, CALM)

    def test_settings_are_not_hoarded(self) -> None:
        """Settings that nobody knows are forgotten, and our table stays small."""
        world = self.world()
        client = self.raw(world)
        client.write(SettingsFrame(0, {SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1}))
        for first in range(100, 20000, 1000):
            body = b"".join(n.to_bytes(2, "big") + b"\0\0\0\1" for n in range(first, first + 1000))
            client.write(len(body).to_bytes(3, "big") + b"\4\0\0\0\0\0" + body)
        world.settle()
        connection = self.connection_of(world)
        self.assertIs(client.goaway, None)
        self.assertLess(max(len(kept) for kept in vars(connection).values() if hasattr(kept, "__len__")), 10)
        self.assertEqual(connection.encoder.table_bytes, 4096)

    def test_not_reading(self) -> None:
        """A client that sends what must be answered and reads nothing is cut."""
        self.patch(http2_sender, "MAX_UNREAD_CONTROL_BYTES", 1000)
        world = self.world(buffer_bytes=1024)
        hello(world, replies.bulk(500_000))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 2**20})
        client.h2.increment_flow_control_window(2**20)
        client.pause()
        client.request()
        world.settle()
        for _ in range(90):
            client.h2.ping(b"12345678")
        client.flush()
        world.advance(1)
        client.resume()
        world.settle()
        self.assertTrue(client.is_over)
        self.assertEqual(sorted(r.code for r in world.records), ["bad-request", "client-closed"])

    def test_closed_window(self) -> None:
        """Responses that nobody takes are held within bounds, and not for ever."""
        world = self.world(timeouts=Timeouts(idle=5))
        app = hello(world, replies.bulk(10_000_000))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
        stream = client.request()
        world.settle()
        self.assertLess(world.factory.last.pending, 140_000)
        world.advance(6)
        self.assertEqual(stream.reset, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual([record.code for record in world.records], ["idle-timeout"])
        self.assertEqual(world.factory.last.pending, 0)
        self.assertEqual(app.backend.open_connections, [])

    def test_many_closed_windows(self) -> None:
        """A hundred of them wait with one piece each."""
        world = self.world()
        hello(world, replies.bulk(10_000_000), limits={"in_flight_per_backend": 100})
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
        for _ in range(100):
            client.request()
        world.settle()
        self.assertLess(world.factory.last.pending, 7_500_000)

    def test_windows_that_stay_shut(self) -> None:
        """A few of them are given up one by one; who has many is sent away, and nobody else."""
        for reply in (replies.fixed(b"hello"), replies.bulk(10_000_000)):
            for count, is_sent_away in ((15, False), (50, True)):
                world = self.world(timeouts=Timeouts(idle=5))
                hello(world, reply, limits={"in_flight_per_backend": 100})
                bystander = self.client(world)
                client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
                streams = [client.request() for _ in range(count)]
                world.advance(6)
                self.assertEqual(client.goaway, CALM if is_sent_away else None)
                self.assertEqual([r.code for r in world.records].count("bad-request"), int(is_sent_away))
                self.assertTrue(is_sent_away or all(stream.reset is not None for stream in streams))
                world.advance(3)
                self.assertEqual(client.is_over, is_sent_away)
                hello(world, replies.fixed(b"hello"))
                stream = bystander.request()
                world.run_until(lambda stream=stream: stream.is_over)
                self.assertEqual(stream.status, 200)

    def test_end_that_nobody_takes(self) -> None:
        """A whole response that waits for its window is given up, too."""
        world = self.world(timeouts=Timeouts(idle=5))
        hello(world, replies.fixed(b"hello"))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
        stream = client.request()
        world.advance(4)
        self.assertEqual((stream.status, stream.reset), (200, None))
        world.advance(2)
        self.assertEqual(stream.reset, ErrorCodes.CANCEL)

    def test_dribbled_windows(self) -> None:
        """A byte now and then is not progress."""
        world = self.world(timeouts=Timeouts(idle=5))
        hello(world, replies.fixed(b"hello" * 100))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1}, acknowledges=False)
        stream = client.request()
        for _ in range(12):
            world.advance(1)
            if stream.reset is None:
                client.h2.increment_flow_control_window(1, stream.id)
                client.flush()
        self.assertEqual(stream.reset, ErrorCodes.CANCEL)

    def test_slow_reader(self) -> None:
        """A client that takes a little all the time is only slow."""
        world = self.world(timeouts=Timeouts(idle=5))
        hello(world, replies.fixed(b"hello" * 10_000))
        client = self.client(world, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1000}, acknowledges=False)
        stream = client.request()
        while not stream.is_over:
            world.advance(1)
            if not stream.is_over:
                client.h2.increment_flow_control_window(1000, stream.id)
                client.flush()
            self.assertLess(world.clock.seconds(), 100)
        self.assertEqual((len(stream.body), stream.reset), (50_000, None))

    def test_small_events(self) -> None:
        """Many small pieces, each acknowledged on its own, are no flood."""
        world = self.world()
        hello(world, replies.drip([b"data: x\n\n"] * 4000, 0.001))
        client = self.client(world, acknowledges=False)
        stream = client.request()
        seen = 0
        while not stream.is_over:
            world.advance(0.01)
            while seen < len(stream.pieces) and not stream.is_over:
                client.h2.increment_flow_control_window(stream.pieces[seen], stream.id)
                client.h2.increment_flow_control_window(stream.pieces[seen])
                seen += 1
            client.flush()
            self.assertLess(world.clock.seconds(), 100)
        self.assertEqual((len(stream.body), client.goaway), (36_000, None))
