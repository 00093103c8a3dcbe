"""HTTP/2 in worlds where everything goes wrong at random, and under bytes that mean nothing."""

from __future__ import annotations

from random import Random
from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from scalingo_proxy.model import Limits
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.replies import IncomingExchange, Reply
from scalingo_proxy.testing.world import World
from tests.protocols.http2_worlds import (
    HTTP2Client,
    HTTP2TestCase,
    build_http2_factory,
    fields,
    headers_frame,
)
from tests.protocols.test_http2_websocket import accepting, connect_fields

#: How many worlds of each kind.
WORLDS = 12


def answer_plainly(exchange: IncomingExchange) -> None:
    """Switch when asked to, else send the tag and the body back."""
    if exchange.request.get(b"Upgrade"):
        accepting(greeting=exchange.request.get(b"X-Tag")).complete(exchange)
    else:
        body = exchange.request.get(b"X-Tag") + exchange.request.body
        replies.fixed(body, headers=((b"X-Plain", b"yes"),)).complete(exchange)


PLAIN = replies.reply_with(answer_plainly)


def random_reply(random: Random) -> Reply:
    """Something that a backend may do, well or badly."""
    few, many = random.randint(0, 200), random.randint(1, 200_000)
    return random.choice(
        (
            PLAIN,
            PLAIN,
            replies.bulk(many),
            replies.chunked([b"x" * few] * 20, trailers=[(b"X-Sum", b"1")]),
            replies.close_delimited(b"x" * many),
            replies.drip([b"x" * 20] * 4, 1),
            replies.delayed(few / 40, PLAIN),
            replies.early(PLAIN),
            replies.after_interim(PLAIN, random.choice((100, 103))),
            replies.reset_after(few, replies.fixed(b"x" * many)),
            replies.close_after(few, replies.chunked([b"x" * few] * 20)),
            replies.raw(b"junk\r\n\r\n", close=True),
            replies.close_silently(),
            replies.never(),
        )
    )


class Mayhem:
    """One random run with clients that keep the rules of HTTP/2, and little else."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.world = World(
            seed,
            build=build_http2_factory,
            latency=random.choice((0, 0.001, 0.02)),
            cut=random.random() < 0.5,
            shuffle=random.random() < 0.5,
            buffer_bytes=random.choice((1024, 65536)),
            limits=Limits(in_flight_per_backend=random.choice((1, 3, 50)), body_bytes=100_000),
        )
        self.sent: list[tuple[Any, bytes]] = []
        self.clients: list[HTTP2Client] = []
        self.apps = [self.world.app(f"app-{n}", [f"app-{n}.test"], random.randint(1, 2)) for n in range(2)]
        for app in self.apps:
            for backend in app.backends:
                backend.script(*(random_reply(random) for _ in range(random.randint(0, 25)))).answer(PLAIN)

    def run(self, case: HTTP2TestCase) -> None:
        """Do some dozens of random things, then see what holds."""
        for _ in range(self.random.randint(5, 70)):
            self.clients = [client for client in self.clients if not client.is_over]
            if not self.clients or self.random.random() < 0.1:
                self.arrive(case)
            self.act(self.random.choice(self.clients))
            self.world.advance(self.random.choice((0, 0, 0, 0.001, 0.01, 0.5, 3, 40)))
        for client in self.clients:
            client.resume()
        self.world.advance(1)
        for stream, expected in self.sent:
            if stream.ended and b"x-plain" in stream.headers and stream.body:
                case.assertEqual(bytes(stream.body).rstrip(b"y"), expected)
        self.world.end(patience_seconds=300)
        tags = {request.get(b"X-Tag") for app in self.apps for b in app.backends for request in b.requests}
        case.assertLessEqual(tags, {b"%d" % n for n in range(len(self.sent))})
        case.assertNotIn("internal-error", [record.code for record in self.world.records])

    def arrive(self, case: HTTP2TestCase) -> None:
        """Another client, with windows of its own."""
        window = self.random.choice((0, 1, 100, 65535, 1_000_000))
        client = HTTP2Client({SettingCodes.INITIAL_WINDOW_SIZE: window}, self.random.random() < 0.8)
        self.clients.append(case.connect(self.world, client))

    def act(self, client: HTTP2Client) -> None:
        """Let *client* do one thing."""
        streams = [stream for stream in client.streams.values() if not stream.is_over and not stream.done]
        kind = self.random.choice(
            ("ask", "ask", "ask", "body", "body", "cancel", "open", "pause", "ping", "leave")
        )
        if kind == "ask" or not streams:
            self.ask(client)
        elif kind == "body":
            self.send_body(client, self.random.choice(streams))
        elif kind == "cancel":
            stream = self.random.choice(streams)
            stream.done = True
            client.cancel(stream)
        elif kind == "open":
            client.h2.increment_flow_control_window(self.random.randint(1, 70_000))
            client.flush()
        elif kind == "pause":
            self.random.choice((client.pause, client.resume, client.resume))()
        elif kind == "ping":
            client.h2.ping(b"12345678")
            client.flush()
        elif self.random.random() < 0.3:
            self.random.choice((client.close, client.abort))()

    def ask(self, client: HTTP2Client) -> None:
        """Send a request, its body perhaps later."""
        tag = b"%d" % len(self.sent)
        host = b"app-%d.test" % self.random.choice((0, 0, 1, 1, 2))
        kind = self.random.choice((b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"CONNECT"))
        if kind == b"CONNECT":
            listed = connect_fields((b"x-tag", tag))
            listed[2] = (b":authority", host)
        else:
            listed = fields(b"/", (b"x-tag", tag), method=kind, host=host)
        has_body = kind in (b"POST", b"PUT", b"CONNECT")
        stream: Any = client.request(listed, end=not has_body)
        stream.done = not has_body
        self.sent.append((stream, tag))

    def send_body(self, client: HTTP2Client, stream: Any) -> None:
        """Send what the windows admit, and perhaps the end."""
        if stream.done:
            return
        size = min(client.h2.local_flow_control_window(stream.id), self.random.choice((1, 1000, 65535)))
        if size > 0:
            client.upload(stream, b"y" * size)
        if self.random.random() < 0.5:
            stream.done = True
            client.h2.end_stream(stream.id)
            client.flush()


def random_frame(random: Random) -> Frame | bytes:
    """A frame that may be right or wrong."""
    stream_id = random.choice((0, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1))
    number = random.choice((0, 1, 100, 65535, 2**31 - 1))
    if random.random() < 0.2:
        body = random.randbytes(random.choice((0, 4, 5, 6, 8, 40)))
        kind = random.randint(0, 12)
        return (
            len(body).to_bytes(3, "big")
            + bytes([kind, random.getrandbits(8)])
            + stream_id.to_bytes(4, "big")
            + body
        )
    stream_id = stream_id or 1
    end = random.choice(((), ("END_STREAM",)))
    listed = fields(b"/", method=random.choice((b"GET", b"POST")), host=random.choice((b"a.test", b"b.test")))
    if random.random() < 0.1:
        random.shuffle(listed)
    return random.choice(
        (
            headers_frame(stream_id, listed, *end),
            headers_frame(stream_id, listed, *end),
            headers_frame(stream_id, [(b"x", b"y")], "END_STREAM"),
            DataFrame(stream_id, b"x" * random.choice((0, 1, 5000)), flags=end),
            RstStreamFrame(stream_id, 8),
            WindowUpdateFrame(random.choice((0, stream_id)), max(1, number)),
            PriorityFrame(stream_id, 0, 1),
            SettingsFrame(0, {random.randint(1, 8): number}),
            PingFrame(opaque_data=b"12345678"),
            ContinuationFrame(stream_id, b"", flags=["END_HEADERS"]),
            GoAwayFrame(0, error_code=random.choice((0, 0, 1))),
        )
    )


class RandomTests(HTTP2TestCase):
    def test_mayhem(self) -> None:
        """Whatever happens, every stream is accounted for and nothing is left."""
        for seed in range(WORLDS):
            try:
                Mayhem(seed).run(self)
            except Exception as error:
                error.args = (f"{error} (seed {seed})",)
                raise

    def test_frames(self) -> None:
        """Frames in any order: the connection goes on or ends with a code, and never by a bug."""
        for seed in range(WORLDS * 10):
            random = Random(seed)
            world = World(seed, build=build_http2_factory, cut=random.random() < 0.5)
            world.app("a", ["a.test"]).backend.answer(replies.echo())
            world.app("b", ["b.test"]).backend.answer(replies.never())
            client = self.raw(world)
            for _ in range(random.randint(1, 30)):
                if not client.is_over:
                    client.write(random_frame(random))
                world.advance(random.choice((0, 0, 0.01, 1)))
            self.assertNotEqual(client.goaway, ErrorCodes.INTERNAL_ERROR, f"seed {seed}")
            self.assertNotIn("internal-error", [r.code for r in world.records], f"seed {seed}")
            world.end(patience_seconds=200)

    def test_bytes(self) -> None:
        """Noise behind the preface ends the connection, by a code or by a deadline."""
        for seed in range(WORLDS * 4):
            random = Random(seed)
            world = World(seed, build=build_http2_factory, cut=random.random() < 0.5)
            client = self.raw(world)
            client.write(random.randbytes(random.randint(1, 200)))
            world.advance(100)
            self.assertTrue(client.is_over, f"seed {seed}")
            self.assertNotEqual(client.goaway, ErrorCodes.INTERNAL_ERROR, f"seed {seed}")
            world.end()
