"""What RFC 9113 makes a server do with frames that break its rules, as a table.

After the list of h2spec, with what it leaves out.  Each case is the frames
that a client sends behind its preface and the reaction that is required.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import attrs
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from scalingo_proxy.testing import replies
from tests.protocols.http2_worlds import PREFACE, HTTP2TestCase, RawClient, fields, headers_frame
from tests.protocols.worlds import hello

PROTOCOL = ErrorCodes.PROTOCOL_ERROR
SIZE = ErrorCodes.FRAME_SIZE_ERROR
FLOW = ErrorCodes.FLOW_CONTROL_ERROR
CLOSED = ErrorCodes.STREAM_CLOSED
COMPRESSION = ErrorCodes.COMPRESSION_ERROR
CALM = ErrorCodes.ENHANCE_YOUR_CALM
REFUSED = ErrorCodes.REFUSED_STREAM


def raw(kind: int, flags: int, stream_id: int, body: bytes = b"", length: int | None = None) -> bytes:
    """Any frame, of any claimed length."""
    size = len(body) if length is None else length
    return struct.pack(">HBBBL", size >> 8, size & 0xFF, kind, flags, stream_id) + body


def head(stream_id: int = 1, *more: tuple[bytes, bytes], end: bool = True, **named: Any) -> HeadersFrame:
    """A request."""
    flags = ("END_STREAM",) if end else ()
    return headers_frame(stream_id, fields(b"/", *more, **named), *flags)


def post(stream_id: int = 1, *more: tuple[bytes, bytes]) -> HeadersFrame:
    """A request whose body follows."""
    return head(stream_id, *more, end=False, method=b"POST")


def listed(*fields_: tuple[bytes, bytes], end: bool = True) -> HeadersFrame:
    """A request of exactly these fields."""
    return headers_frame(1, fields_, *(("END_STREAM",) if end else ()))


def data(stream_id: int, payload: bytes = b"", *flags: str) -> DataFrame:
    """A DATA frame."""
    return DataFrame(stream_id, payload, flags=flags)


def begun(frame: HeadersFrame) -> HeadersFrame:
    """The same without END_HEADERS."""
    frame.flags.discard("END_HEADERS")
    return frame


def rest(stream_id: int, part: bytes = b"", *flags: str) -> ContinuationFrame:
    """A CONTINUATION frame."""
    return ContinuationFrame(stream_id, part, flags=flags)


@attrs.frozen
class Case:
    """One row.

    :ivar frames: what is sent behind preface and settings.
    :ivar goaway: the error code of a connection error.
    :ivar reset: the error code of a stream error, on stream 1.
    :ivar status: of the answer on stream 1.
    :ivar then: what is sent when the first frames have been answered.
    """

    frames: tuple[Frame | bytes, ...]
    goaway: int | None = None
    reset: int | None = None
    status: int | None = None
    then: tuple[Frame | bytes, ...] = ()
    fine: bool = False


def fatal(code: int, *frames: Frame | bytes, then: tuple[Frame | bytes, ...] = ()) -> Case:
    """A connection error."""
    return Case(frames, goaway=code, then=then)


def stream_error(code: int, *frames: Frame | bytes, then: tuple[Frame | bytes, ...] = ()) -> Case:
    """A stream error; the connection goes on."""
    return Case(frames, reset=code, then=then)


def answered(status: int, *frames: Frame | bytes, then: tuple[Frame | bytes, ...] = ()) -> Case:
    """An answer; the connection goes on."""
    return Case(frames, status=status, then=then)


def ignored(*frames: Frame | bytes) -> Case:
    """Nothing happens; the connection goes on."""
    return Case(frames, fine=True)


METHOD, SCHEME = (b":method", b"GET"), (b":scheme", b"http")
AUTHORITY, PATH = (b":authority", b"hello.test"), (b":path", b"/")
ALL = (METHOD, SCHEME, AUTHORITY, PATH)

#: RFC 9113 §3.4 and §4: the preface, frames, header compression.
FRAMES = {
    "unknown frame type": ignored(raw(0xBE, 0xFF, 0, b"anything")),
    "unknown frame type on a stream": ignored(raw(0xBE, 0, 7, b"anything")),
    "reserved bit": ignored(raw(6, 0, 0x80000000, b"12345678")),
    "unknown flags": ignored(raw(6, 0xF6, 0, b"12345678")),
    "largest frame": answered(200, post(), data(1, b"x" * 16384, "END_STREAM")),
    "frame too large": fatal(SIZE, post(), raw(0, 0, 1, length=16385)),
    "headers too large": fatal(SIZE, raw(1, 5, 1, length=16385)),
    "frame of the largest length": fatal(SIZE, raw(0xBE, 0, 0, length=2**24 - 1)),
    "bad header block": fatal(COMPRESSION, raw(1, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
    "index 0": fatal(COMPRESSION, raw(1, 5, 1, b"\x80")),
    "index beyond the table": fatal(COMPRESSION, raw(1, 5, 1, b"\xfe")),
    "table size beyond ours": fatal(COMPRESSION, raw(1, 5, 1, b"\x3f\xe2\x1f")),
    "table size behind a field": fatal(COMPRESSION, raw(1, 5, 1, b"\x82\x20")),
    "huffman padding of more than 7 bits": fatal(COMPRESSION, raw(1, 5, 1, b"\x40\x84\xff\xff\xff\xff\x00")),
    "something within a header block": fatal(PROTOCOL, begun(head()), PingFrame(opaque_data=b"12345678")),
    "another stream within a header block": fatal(PROTOCOL, begun(head()), head(3)),
    "unknown type within a header block": fatal(PROTOCOL, begun(head()), raw(0xBE, 0, 1)),
}

#: §5: stream states, numbers, concurrency.
STREAMS = {
    "idle: DATA": fatal(PROTOCOL, data(1, b"x")),
    "idle: RST_STREAM": fatal(PROTOCOL, RstStreamFrame(1)),
    "idle: WINDOW_UPDATE": fatal(PROTOCOL, WindowUpdateFrame(1, 100)),
    "idle: CONTINUATION": fatal(PROTOCOL, rest(1, b"", "END_HEADERS")),
    "idle: PRIORITY": ignored(PriorityFrame(1, 0, 15)),
    "half-closed: DATA": stream_error(CLOSED, head(host=b"slow.test"), data(1, b"x")),
    "half-closed: HEADERS": stream_error(CLOSED, head(host=b"slow.test"), head(1)),
    "half-closed: CONTINUATION": fatal(PROTOCOL, head(host=b"slow.test"), rest(1, b"", "END_HEADERS")),
    "closed by the client: DATA": stream_error(CLOSED, post(), RstStreamFrame(1, 8), data(1, b"x")),
    "closed by the client: HEADERS": stream_error(CLOSED, post(), RstStreamFrame(1, 8), head(1)),
    "closed by the client: CONTINUATION": fatal(PROTOCOL, post(), RstStreamFrame(1, 8), rest(1)),
    "closed: DATA": stream_error(CLOSED, head(), then=(data(1, b"x"),)),
    "closed: HEADERS": fatal(CLOSED, head(), then=(head(1),)),
    "closed: WINDOW_UPDATE": answered(200, head(), then=(WindowUpdateFrame(1, 10),)),
    "closed: RST_STREAM": answered(200, head(), then=(RstStreamFrame(1, 8),)),
    "closed: PRIORITY": answered(200, head(), then=(PriorityFrame(1, 0, 15),)),
    "even number": fatal(PROTOCOL, head(2)),
    "number that goes back": fatal(PROTOCOL, head(5), head(3)),
    "PRIORITY on itself": fatal(PROTOCOL, PriorityFrame(1, 1, 15)),
}

#: §6.1 to §6.10: each type of frame.
TYPES = {
    "DATA on stream 0": fatal(PROTOCOL, raw(0, 1, 0, b"x")),
    "DATA with padding of its own length": fatal(PROTOCOL, post(), raw(0, 0x9, 1, b"\x06test\x00")),
    "DATA padded without a length": fatal(SIZE, post(), raw(0, 0x9, 1)),
    "DATA padded": answered(200, post(), raw(0, 0x9, 1, b"\x02ab\x00\x00")),
    "DATA padded by nothing": answered(200, post(), raw(0, 0x9, 1, b"\x00ab")),
    "HEADERS on stream 0": fatal(PROTOCOL, raw(1, 5, 0, b"\x82")),
    "HEADERS with padding beyond its length": fatal(PROTOCOL, raw(1, 0xD, 1, b"\x17\x82\x86\x84")),
    "HEADERS with a priority": answered(200, raw(1, 0x25, 1, b"\0\0\0\0\x0f" + Encoder().encode(ALL))),
    "HEADERS with a priority on itself": fatal(
        PROTOCOL, raw(1, 0x25, 1, b"\0\0\0\1\x0f" + Encoder().encode(ALL))
    ),
    "HEADERS with half a priority": fatal(SIZE, raw(1, 0x25, 1, b"\0\0\0")),
    "PRIORITY on stream 0": fatal(PROTOCOL, raw(2, 0, 0, b"\0\0\0\0\x0f")),
    "PRIORITY of 4 bytes": fatal(SIZE, raw(2, 0, 1, b"\0\0\0\0")),
    "PRIORITY of 6 bytes": fatal(SIZE, raw(2, 0, 1, b"\0\0\0\0\0\0")),
    "RST_STREAM on stream 0": fatal(PROTOCOL, raw(3, 0, 0, b"\0\0\0\0")),
    "RST_STREAM of 3 bytes": fatal(SIZE, post(), raw(3, 0, 1, b"\0\0\0")),
    "RST_STREAM of 5 bytes": fatal(SIZE, post(), raw(3, 0, 1, b"\0\0\0\0\0")),
    "RST_STREAM of an unknown code": ignored(post(), RstStreamFrame(1, 0xFFFF)),
    "SETTINGS on a stream": fatal(PROTOCOL, raw(4, 0, 1)),
    "SETTINGS of 5 bytes": fatal(SIZE, raw(4, 0, 0, b"\0\3\0\0\0")),
    "SETTINGS acknowledged with settings": fatal(SIZE, raw(4, 1, 0, b"\0\0\0\0\0\0")),
    "ENABLE_PUSH of 2": fatal(PROTOCOL, SettingsFrame(0, {2: 2})),
    "INITIAL_WINDOW_SIZE of 2^31": fatal(FLOW, SettingsFrame(0, {4: 2**31})),
    "MAX_FRAME_SIZE of 16383": fatal(PROTOCOL, SettingsFrame(0, {5: 16383})),
    "MAX_FRAME_SIZE of 2^24": fatal(PROTOCOL, SettingsFrame(0, {5: 2**24})),
    "unknown setting": ignored(raw(4, 0, 0, b"\xff\xff\0\0\0\1")),
    "PUSH_PROMISE": fatal(PROTOCOL, post(), PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"])),
    "PING on a stream": fatal(PROTOCOL, raw(6, 0, 1, b"12345678")),
    "PING of 6 bytes": fatal(SIZE, raw(6, 0, 0, b"123456")),
    "PING acknowledged": ignored(raw(6, 1, 0, b"12345678")),
    "GOAWAY on a stream": fatal(PROTOCOL, raw(7, 0, 1, b"\0" * 8)),
    "GOAWAY of 7 bytes": fatal(SIZE, raw(7, 0, 0, b"\0" * 7)),
    "WINDOW_UPDATE of 0": fatal(PROTOCOL, raw(8, 0, 0, b"\0\0\0\0")),
    "WINDOW_UPDATE of 0 on a stream": stream_error(PROTOCOL, post(), raw(8, 0, 1, b"\0\0\0\0")),
    "WINDOW_UPDATE of 3 bytes": fatal(SIZE, raw(8, 0, 0, b"\0\0\1")),
    "WINDOW_UPDATE of 5 bytes": fatal(SIZE, raw(8, 0, 0, b"\0\0\0\0\1")),
    "window beyond 2^31-1": fatal(FLOW, WindowUpdateFrame(0, 2**31 - 1)),
    "window of a stream beyond 2^31-1": stream_error(FLOW, post(), WindowUpdateFrame(1, 2**31 - 1)),
    "windows beyond 2^31-1 by SETTINGS": fatal(
        FLOW, post(), WindowUpdateFrame(1, 2**31 - 70000), SettingsFrame(0, {4: 100000})
    ),
    "more DATA than the window": fatal(
        FLOW, head(1, end=False, method=b"POST", host=b"paused.test"), *[data(1, b"x" * 16384)] * 4
    ),
    "CONTINUATION on stream 0": fatal(PROTOCOL, raw(9, 4, 0)),
    "CONTINUATION behind a whole block": fatal(PROTOCOL, post(), rest(1, b"", "END_HEADERS")),
    "CONTINUATION behind CONTINUATION": fatal(
        PROTOCOL, begun(head()), rest(1, b"", "END_HEADERS"), rest(1, b"", "END_HEADERS")
    ),
    "16 CONTINUATIONs": answered(200, begun(head()), *[rest(1)] * 15, rest(1, b"", "END_HEADERS")),
    "17 CONTINUATIONs": fatal(CALM, begun(head()), *[rest(1)] * 17),
    "CONTINUATIONs of 64 kB": fatal(CALM, begun(head()), *[rest(1, b"\0" * 16384)] * 4),
}


def malformed(*fields_: tuple[bytes, bytes]) -> Case:
    """A header list that costs its stream."""
    return stream_error(PROTOCOL, listed(*fields_))


def with_field(name: bytes, value: bytes) -> Case:
    """The same, of a good request with one field too many."""
    return malformed(*ALL, (name, value))


#: §8: requests.
REQUESTS = {
    "upper case": with_field(b"X-Test", b"1"),
    "empty name": with_field(b"", b"1"),
    "colon within a name": with_field(b"x:y", b"1"),
    "space within a name": with_field(b"x y", b"1"),
    "control character in a name": with_field(b"x\x7f", b"1"),
    "high byte in a name": with_field(b"x\xff", b"1"),
    "CR in a value": with_field(b"x", b"a\rb"),
    "LF in a value": with_field(b"x", b"a\nb"),
    "CRLF in a value": with_field(b"x", b"a\r\nevil: 1"),
    "NUL in a value": with_field(b"x", b"a\0b"),
    "space before a value": with_field(b"x", b" a"),
    "space behind a value": with_field(b"x", b"a "),
    "tab behind a value": with_field(b"x", b"a\t"),
    "empty value": answered(200, listed(*ALL, (b"x", b""))),
    "transfer-encoding": with_field(b"transfer-encoding", b"chunked"),
    "connection": with_field(b"connection", b"close"),
    "keep-alive": with_field(b"keep-alive", b"1"),
    "proxy-connection": with_field(b"proxy-connection", b"close"),
    "upgrade": with_field(b"upgrade", b"h2c"),
    "te: gzip": with_field(b"te", b"gzip"),
    "te: trailers, gzip": with_field(b"te", b"trailers, gzip"),
    "te: trailers": answered(200, listed(*ALL, (b"te", b"trailers"))),
    "unknown pseudo-header": malformed(*ALL, (b":test", b"1")),
    ":status in a request": malformed(*ALL, (b":status", b"200")),
    ":status of 100 in a request": malformed((b":status", b"100"), *ALL),
    "pseudo-header behind a field": malformed(METHOD, SCHEME, PATH, (b"x", b"1"), AUTHORITY),
    "no :method": malformed(SCHEME, AUTHORITY, PATH),
    "no :scheme": malformed(METHOD, AUTHORITY, PATH),
    "no :path": malformed(METHOD, SCHEME, AUTHORITY),
    "no :authority and no host": answered(400, listed(METHOD, SCHEME, PATH)),
    "host alone": answered(200, listed(METHOD, SCHEME, PATH, (b"host", b"hello.test"))),
    "host and :authority alike": answered(200, listed(*ALL, (b"host", b"HELLO.test"))),
    "host and :authority differ": answered(400, listed(*ALL, (b"host", b"slow.test"))),
    "two hosts": answered(400, listed(*ALL, (b"host", b"hello.test"), (b"host", b"hello.test"))),
    "userinfo": answered(400, listed(METHOD, SCHEME, PATH, (b":authority", b"a@hello.test"))),
    "two :method": malformed(METHOD, *ALL),
    "two :scheme": malformed(SCHEME, *ALL),
    "two :path": malformed(PATH, *ALL),
    "two :authority": malformed(AUTHORITY, *ALL),
    "empty :path": malformed(METHOD, SCHEME, AUTHORITY, (b":path", b"")),
    ":path without slash": malformed(METHOD, SCHEME, AUTHORITY, (b":path", b"a")),
    ":path with a space": malformed(METHOD, SCHEME, AUTHORITY, (b":path", b"/a b")),
    ":path with a fragment": malformed(METHOD, SCHEME, AUTHORITY, (b":path", b"/#a")),
    ":path with CRLF": malformed(METHOD, SCHEME, AUTHORITY, (b":path", b"/ HTTP/1.1\r\nx: y")),
    ":path of *": malformed(METHOD, SCHEME, AUTHORITY, (b":path", b"*")),
    "OPTIONS *": answered(200, listed((b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*"))),
    ":method with a space": malformed((b":method", b"GET /x"), SCHEME, AUTHORITY, PATH),
    "empty :method": malformed((b":method", b""), SCHEME, AUTHORITY, PATH),
    ":scheme of ftp": malformed(METHOD, (b":scheme", b"ftp"), AUTHORITY, PATH),
    "CONNECT": answered(405, listed((b":method", b"CONNECT"), AUTHORITY)),
    "TRACE": answered(405, listed((b":method", b"TRACE"), SCHEME, AUTHORITY, PATH)),
    ":protocol without CONNECT": malformed(*ALL, (b":protocol", b"websocket")),
    "another :protocol": answered(405, listed((b":method", b"CONNECT"), *ALL[1:], (b":protocol", b"x"))),
    "content-length above the body": stream_error(
        PROTOCOL, post(1, (b"content-length", b"3")), data(1, b"ab", "END_STREAM")
    ),
    "content-length below the body": stream_error(
        PROTOCOL, post(1, (b"content-length", b"1")), data(1, b"ab", "END_STREAM")
    ),
    "content-length below several": stream_error(
        PROTOCOL, post(1, (b"content-length", b"3")), data(1, b"ab"), data(1, b"cd")
    ),
    "content-length without a body": stream_error(PROTOCOL, head(1, (b"content-length", b"1"))),
    "content-length of 0 with a body": stream_error(
        PROTOCOL, post(1, (b"content-length", b"0")), data(1, b"a", "END_STREAM")
    ),
    "content-length above, then trailers": stream_error(
        PROTOCOL,
        post(1, (b"content-length", b"3")),
        data(1, b"ab"),
        headers_frame(1, [(b"x", b"y")], "END_STREAM"),
    ),
    "content-length of +1": with_field(b"content-length", b"+1"),
    "two content-lengths": with_field(b"content-length", b"0, 0"),
    "content-length twice": malformed(*ALL, (b"content-length", b"0"), (b"content-length", b"0")),
    "trailers that do not end": stream_error(
        PROTOCOL, post(), data(1, b"a"), headers_frame(1, [(b"x", b"y")])
    ),
    "trailers with a pseudo-header": stream_error(
        PROTOCOL, post(), data(1, b"a"), headers_frame(1, [(b":path", b"/")], "END_STREAM")
    ),
    "trailers in upper case": stream_error(
        PROTOCOL, post(), data(1, b"a"), headers_frame(1, [(b"X", b"y")], "END_STREAM")
    ),
    "head too large": answered(431, listed(*ALL, *[(b"x%d" % n, b"y" * 4000) for n in range(9)], end=True)),
    "field too large": answered(431, listed(*ALL, (b"x", b"y" * 8200))),
    "path too long": answered(414, listed(METHOD, SCHEME, AUTHORITY, (b":path", b"/" + b"x" * 8200))),
    "too many fields": answered(431, listed(*ALL, *[(b"x", b"y")] * 201)),
}


def _split(frame: HeadersFrame) -> list[Frame]:
    """The same header block in frames of the largest size."""
    block, size = frame.data, 16384
    if len(block) <= size:
        return [frame]
    flags = [flag for flag in frame.flags if flag != "END_HEADERS"]
    parts = [block[at : at + size] for at in range(0, len(block), size)]
    frames: list[Frame] = [HeadersFrame(frame.stream_id, parts[0], flags=flags)]
    frames += [ContinuationFrame(frame.stream_id, part) for part in parts[1:]]
    frames[-1].flags.add("END_HEADERS")
    return frames


class ConformanceTests(HTTP2TestCase):
    """One test for each row, with the frames whole and cut anywhere."""

    def run_case(self, case: Case, cut: bool) -> None:
        """Send the frames and look at what comes."""
        world = self.world(seed=5, cut=cut)
        served = hello(world, replies.echo())
        slow = world.app("slow", ["slow.test"])
        slow.backend.answer(replies.never())
        world.app("paused", ["paused.test"], state="paused")
        client = self.raw(world)
        client.write(
            *(part for f in case.frames for part in (_split(f) if isinstance(f, HeadersFrame) else [f]))
        )
        world.settle()
        if case.then:
            client.write(*case.then)
            world.settle()
        if case.goaway is not None:
            self.assertEqual(client.goaway, case.goaway)
            world.advance(5)
            self.assertTrue(client.is_over)
            self.assertEqual([r.code for r in world.records].count("bad-request"), 1)
            return
        self.assertIs(client.goaway, None)
        if case.reset is not None:
            self.assertEqual(client.resets, {1: case.reset})
        elif case.status is not None:
            self.assertEqual(client.statuses_of(1), [case.status])
            self.assertEqual({k: v for k, v in client.resets.items() if v}, {})
        if not (case.then or case.status == 200):
            self.assertFalse(any(request.is_complete for request in served.backend.requests))
        self.assert_goes_on(world, client)

    def assert_goes_on(self, world: Any, client: RawClient) -> None:
        """Another stream is served."""
        client.write(head(101))
        world.settle()
        self.assertEqual(client.statuses_of(101), [200])


def _test(case: Case) -> Callable[[ConformanceTests], None]:
    def run(self: ConformanceTests) -> None:
        for cut in (False, True):
            self.run_case(case, cut)

    return run


for _table in (FRAMES, STREAMS, TYPES, REQUESTS):
    for _name, _case in _table.items():
        _run = _test(_case)
        _run.__doc__ = _name
        setattr(ConformanceTests, "test " + _name, _run)


class PrefaceTests(HTTP2TestCase):
    """RFC 9113 §3.4."""

    def reaction(self, *sent: Frame | bytes, cut: bool) -> RawClient:
        """What comes when a connection begins like this."""
        world = self.world(cut=cut)
        client = self.connect(world, RawClient())
        client.write(*sent)
        world.settle()
        return client

    def test_settings_come_first(self) -> None:
        """The server's first frame is SETTINGS, and the client's are acknowledged."""
        client = self.reaction(PREFACE, SettingsFrame(0), cut=True)
        self.assertIsInstance(client.frames[0], SettingsFrame)
        self.assertEqual(client.frames[0].settings[3], 100)
        self.assertEqual(client.frames[0].settings[8], 1)
        self.assertTrue(any(isinstance(f, SettingsFrame) and "ACK" in f.flags for f in client.frames))

    def test_wrong(self) -> None:
        """Anything else at the beginning ends the connection."""
        for cut in (False, True):
            for sent in (
                (b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n",),
                (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",),
                (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",),
                (PREFACE, PingFrame(opaque_data=b"12345678")),
                (PREFACE, head()),
                (PREFACE, SettingsFrame(0, flags=["ACK"])),
                (SettingsFrame(0),),
            ):
                client = self.reaction(*sent, cut=cut)
                self.assertEqual(client.goaway, PROTOCOL, sent)

    def test_ping(self) -> None:
        """A PING is answered with its own data (§6.7)."""
        world = self.world()
        client = self.raw(world).write(PingFrame(opaque_data=b"12345678"))
        world.settle()
        (answer,) = [frame for frame in client.frames if isinstance(frame, PingFrame)]
        self.assertEqual((answer.opaque_data, "ACK" in answer.flags), (b"12345678", True))

    def test_goaway_from_the_client(self) -> None:
        """A client that says goodbye still gets its answers (§6.8)."""
        world = self.world()
        hello(world, replies.delayed(1, replies.fixed(b"late")))
        client = self.raw(world).write(head(1), GoAwayFrame(0))
        world.advance(2)
        self.assertEqual(client.statuses_of(1), [200])
        self.assertTrue(client.is_over)
