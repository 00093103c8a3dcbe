"""The server's side of HTTP/2, alone: against the client of the h2 package, and frame by frame."""

from __future__ import annotations

from random import Random
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived as ClientGotData
from h2.events import ResponseReceived, StreamEnded
from h2.events import TrailersReceived as ClientGotTrailers
from h2.exceptions import FlowControlError
from h2.windows import WindowManager
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.http2_connection import HTTP2Connection
from scalingo_proxy.wire.http2_events import (
    ClientLeaves,
    DataReceived,
    Event,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)
from scalingo_proxy.wire.http2_frames import PREFACE, ErrorCode, FrameReader, HTTP2Error
from scalingo_proxy.wire.http2_limits import Kind
from scalingo_proxy.wire.http2_states import InWindow
from tests.protocols.http2_worlds import fields, headers_frame
from tests.wire.http1_strategies import examples, randoms

RESPONSE = [(b":status", b"200"), (b"server", b"test")]


def events_of(connection: HTTP2Connection, data: bytes) -> list[Event]:
    """What all frames in *data* mean."""
    connection.frames.add_data(data)
    return list(iter(connection.next_event, None))


def begun() -> HTTP2Connection:
    """A connection that a client has begun."""
    connection = HTTP2Connection(32768)
    connection.begin()
    events_of(connection, PREFACE + SettingsFrame(0).serialize())
    connection.data_to_send()
    return connection


def sent_frames(connection: HTTP2Connection) -> list[Frame]:
    """What it has prepared."""
    data, frames = connection.data_to_send(), []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        frames.append(frame)
        data = data[9 + length :]
    return frames


class ReaderTests(SynchronousTestCase):
    """Frames out of bytes."""

    @examples(200)
    @given(randoms)
    def test_cut_anywhere(self, by: Random) -> None:
        """The same frames come out, however the bytes came in."""
        wanted = [
            (by.choice((0, 3, 8, 190)), by.randbytes(by.randint(0, 40))) for _ in range(by.randint(0, 6))
        ]
        cuts = [by.randint(1, 30) for _ in range(by.randint(1, 6))]
        data = PREFACE + b"".join(
            len(payload).to_bytes(3, "big") + bytes((kind, 0)) + b"\x80\0\0\x05" + payload
            for kind, payload in wanted
        )
        reader, found, at = FrameReader(), [], 0
        for number in range(len(data)):
            size = cuts[number % len(cuts)]
            reader.add_data(data[at : at + size])
            at += size
            while (frame := reader.next_frame()) is not None:
                found.append(frame)
        self.assertEqual(found, [(kind, 0, 5, payload) for kind, payload in wanted])
        self.assertTrue(reader.is_between_frames)

    def test_header_block_in_pieces(self) -> None:
        """CONTINUATION frames come out as part of their HEADERS; the flags are those of the first."""
        reader = FrameReader()
        reader.add_data(PREFACE + b"\0\0\2\x01\x01\0\0\0\x01ab" + b"\0\0\1\x09\0\0\0\0\x01c")
        self.assertIsNone(reader.next_frame())
        self.assertFalse(reader.is_between_frames)
        reader.add_data(b"\0\0\1\x09\x04\0\0\0\x01d")
        self.assertEqual(reader.next_frame(), (1, 1, 1, b"abcd"))
        self.assertTrue(reader.is_between_frames)

    def test_padding_and_priority(self) -> None:
        """What surrounds a header block is taken off; what does not fit is a mistake."""
        for payload, wanted in (
            (b"\x02\0\0\0\x07\x0fabc\0\0", b"abc"),
            (b"\x00\0\0\0\x07\x0f", b""),
            (b"\x03\0\0\0\x07\x0f\0\0\0", b""),
            (b"\x04\0\0\0\x07\x0f\0\0\0", ErrorCode.PROTOCOL_ERROR),
            (b"\xff\0\0\0\x07\x0f\0\0\0", ErrorCode.PROTOCOL_ERROR),
            (b"\x00\0\0\0\x01\x0fabc", ErrorCode.PROTOCOL_ERROR),
            (b"\x00\0\0\0\x01", ErrorCode.FRAME_SIZE_ERROR),
            (b"", ErrorCode.FRAME_SIZE_ERROR),
        ):
            reader = FrameReader()
            reader.add_data(PREFACE + len(payload).to_bytes(3, "big") + b"\x01\x2c\0\0\0\x01" + payload)
            try:
                frame = reader.next_frame()
                assert frame is not None
                self.assertEqual(frame[3], wanted)
            except HTTP2Error as error:
                self.assertEqual(error.code, wanted)


class WindowTests(SynchronousTestCase):
    """What a client may send."""

    @examples(300)
    @given(randoms)
    def test_same_as_h2(self, by: Random) -> None:
        """It shuts and opens when h2's does."""
        size, most = by.choice((1, 100, 65535, 2**20)), by.choice((1, 50, 5000, 70_000))
        steps = [(by.randint(0, most), by.randint(0, most)) for _ in range(by.randint(0, 12))]
        ours, theirs, under_way = InWindow(size), WindowManager(size), 0
        for come, done in steps:
            try:
                theirs.window_consumed(come)
            except FlowControlError:
                self.assertRaises(HTTP2Error, ours.consume, come)
                return
            ours.consume(come)
            under_way += come
            done = min(done, under_way)
            under_way -= done
            self.assertEqual(ours.give_back(done), theirs.process_bytes(done) or 0)
            self.assertEqual(ours.left, theirs.current_window_size)


class Conversation:
    """Our server and h2's client, with everything that one says handed to the other."""

    def __init__(self) -> None:
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.server = HTTP2Connection(32768)
        self.server.begin()
        self.client.initiate_connection()
        self.heard: list[Event] = []
        self.told: list[Any] = []
        self.pass_on()

    def pass_on(self) -> None:
        """Let each hear the other, until there is nothing more to say."""
        while data := self.client.data_to_send():
            self.heard += events_of(self.server, data)
            self.told += self.client.receive_data(self.server.data_to_send())


class OracleTests(SynchronousTestCase):
    """Whole exchanges with the client of the h2 package, which knows both sides' states."""

    @examples(100)
    @given(randoms)
    def test_exchanges(self, by: Random) -> None:
        """Requests, bodies, responses and trailers in any order within the rules."""
        talk = Conversation()
        bodies: dict[int, bytes] = {}
        answers: dict[int, bytes] = {}
        waiting: dict[int, bool] = {}
        for _ in range(by.randint(1, 12)):
            stream_id = talk.client.get_next_available_stream_id()
            body = by.randbytes(by.randint(0, 50)) * by.choice((0, 1, 300))
            talk.client.send_headers(stream_id, fields(method=b"POST"), end_stream=not body)
            if body:
                talk.client.send_data(stream_id, body, end_stream=True)
            bodies[stream_id] = body
            waiting[stream_id] = True
            talk.pass_on()
            if by.random() < 0.5:
                self.answer(talk, by, waiting, answers)
        while waiting:
            self.answer(talk, by, waiting, answers)
        got = dict.fromkeys(bodies, b"")
        for event in talk.heard:
            if isinstance(event, DataReceived):
                got[event.stream_id] += event.payload
        self.assertEqual(got, bodies)
        told = dict.fromkeys(bodies, b"")
        for each in talk.told:
            if isinstance(each, ClientGotData):
                told[each.stream_id] += each.data
        self.assertEqual(told, answers)
        for kind in (ResponseReceived, StreamEnded):
            self.assertEqual(sorted(e.stream_id for e in talk.told if isinstance(e, kind)), sorted(bodies))
        self.assertEqual(talk.server.streams, {})
        self.assertEqual(talk.client.open_outbound_streams, 0)
        self.assertEqual(talk.server.out_window, talk.client.inbound_flow_control_window)

    def answer(
        self, talk: Conversation, by: Random, waiting: dict[int, bool], answers: dict[int, bytes]
    ) -> None:
        """Answer one of those that wait."""
        stream_id = by.choice(sorted(waiting))
        del waiting[stream_id]
        server, stream = talk.server, talk.server.streams[stream_id]
        for event in talk.heard:
            if isinstance(event, DataReceived) and event.stream_id == stream_id:
                server.give_back(stream, event.length)
        body = answers[stream_id] = by.randbytes(by.randint(0, 100))
        way = by.choice(("head", "data", "trailers", "large"))
        more = [(b"x-large", b"\xff" * 20_000)] if way == "large" else []
        if way == "head":
            answers[stream_id] = b""
            server.send_headers(stream, RESPONSE, True)
        else:
            server.send_headers(stream, RESPONSE + more, False)
            server.send_payload(stream, body, way != "trailers")
        if way == "trailers":
            server.send_headers(stream, [(b"x-sum", b"1")], True)
        talk.told += talk.client.receive_data(server.data_to_send())
        if way == "trailers":
            self.assertTrue(
                any(isinstance(e, ClientGotTrailers) and e.stream_id == stream_id for e in talk.told)
            )
        talk.pass_on()


class StreamTests(SynchronousTestCase):
    """How the state of a stream decides what a frame is; the table of conformance has the rest."""

    def test_request_and_trailers(self) -> None:
        """A second header list is the trailers, a third a mistake."""
        connection = begun()
        request, trailers = events_of(
            connection,
            headers_frame(1, fields()).serialize() + headers_frame(1, [(b"x", b"y")]).serialize(),
        )
        assert isinstance(request, RequestReceived) and isinstance(trailers, TrailersReceived)
        self.assertEqual((request.stream.id, request.ended, trailers.ended), (1, False, False))
        self.assertEqual(list(request.fields), fields())
        self.assertRaises(HTTP2Error, events_of, connection, headers_frame(1, [(b"x", b"y")]).serialize())

    def test_late_frames(self) -> None:
        """What was on its way when we reset a stream is dropped, and given back."""
        connection = begun()
        (request,) = events_of(connection, headers_frame(1, fields()).serialize())
        assert isinstance(request, RequestReceived)
        connection.reset_stream(request.stream, ErrorCode.CANCEL)
        connection.reset_stream(request.stream, ErrorCode.CANCEL)
        self.assertEqual([type(frame) for frame in sent_frames(connection)], [RstStreamFrame])
        late = [DataFrame(1, b"x" * 16384).serialize()] * 40 + [headers_frame(1, [(b"x", b"y")]).serialize()]
        events_of(connection, b"".join(late))
        given_back = [frame for frame in sent_frames(connection) if isinstance(frame, WindowUpdateFrame)]
        self.assertEqual([(f.stream_id, f.window_increment) for f in given_back], [(0, 32 * 16384)])
        self.assertEqual(connection.resets_sent, 1)

    def test_their_reset(self) -> None:
        """After a client's RST_STREAM, whatever it sends is a mistake of that stream."""
        connection = begun()
        frames = headers_frame(1, fields()).serialize() + RstStreamFrame(1, 8).serialize() * 2
        _, reset, again = events_of(connection, frames)
        assert isinstance(reset, StreamReset)
        self.assertTrue(reset.by_client)
        self.assertNotIsInstance(again, StreamReset)
        events_of(connection, DataFrame(1, b"x").serialize())
        self.assertEqual([f.error_code for f in sent_frames(connection)], [ErrorCode.STREAM_CLOSED])  # type: ignore[attr-defined]

    def test_closed_streams_are_forgotten(self) -> None:
        """A thousand of them are remembered; HEADERS on older ones are a number that goes back."""
        for stream_id, code in ((2101, ErrorCode.STREAM_CLOSED), (1, ErrorCode.PROTOCOL_ERROR)):
            connection = begun()
            for number in range(1, 2200, 2):
                (event,) = events_of(connection, headers_frame(number, fields(), "END_STREAM").serialize())
                assert isinstance(event, RequestReceived)
                connection.send_headers(event.stream, RESPONSE, True)
            with self.assertRaises(HTTP2Error) as caught:
                events_of(connection, headers_frame(stream_id, fields()).serialize())
            self.assertEqual(caught.exception.code, code)

    def test_our_own_bugs(self) -> None:
        """A head or a payload where none can be is not sent."""
        connection = begun()
        (event,) = events_of(connection, headers_frame(1, fields(), "END_STREAM").serialize())
        assert isinstance(event, RequestReceived)
        connection.send_headers(event.stream, [(b":status", b"103")], False)
        connection.send_headers(event.stream, RESPONSE, False)
        self.assertRaises(HTTP2Error, connection.send_headers, event.stream, RESPONSE, False)
        connection.send_payload(event.stream, b"", True)
        self.assertRaises(HTTP2Error, connection.send_headers, event.stream, RESPONSE, True)
        self.assertRaises(HTTP2Error, connection.send_payload, event.stream, b"x", True)
        self.assertEqual(len(sent_frames(connection)), 3)

    def test_goaway(self) -> None:
        """An error is told from a goodbye."""
        for code in (0, 2, 0x1000000):
            (event,) = events_of(begun(), b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0" + code.to_bytes(4, "big"))
            assert isinstance(event, ClientLeaves)
            self.assertEqual(event.is_error, code != 0)

    def test_settings(self) -> None:
        """Windows follow INITIAL_WINDOW_SIZE, below 0 if need be; the size of frames is kept to."""
        connection = begun()
        (event,) = events_of(connection, headers_frame(1, fields()).serialize())
        assert isinstance(event, RequestReceived)
        connection.send_headers(event.stream, RESPONSE, False)
        connection.send_payload(event.stream, b"x" * 100, False)
        events_of(connection, SettingsFrame(0, {4: 10, 5: 20_000}).serialize())
        self.assertEqual(event.stream.out_window, -90)
        connection.data_to_send()
        connection.send_headers(event.stream, [(b"x", b"y" * 30_000)], True)
        self.assertEqual(
            [(type(f).__name__, f.body_len, sorted(f.flags)) for f in sent_frames(connection)],
            [("HeadersFrame", 20_000, ["END_STREAM"]), ("ContinuationFrame", 10_007, ["END_HEADERS"])],
        )

    def test_kinds(self) -> None:
        """Each frame is counted as what it is."""
        connection = begun()
        for frame, kind in (
            (headers_frame(1, fields()), None),
            (DataFrame(1, b"x" * 16), None),
            (DataFrame(1, b"x" * 15), Kind.SMALL_DATA),
            (DataFrame(1, b"", flags=["PADDED"], pad_length=200), Kind.EMPTY_DATA),
            (WindowUpdateFrame(1, 255), Kind.SMALL_WINDOW),
            (WindowUpdateFrame(0, 256), None),
            (SettingsFrame(0, flags=["ACK"]), Kind.SETTINGS),
            (DataFrame(1, b"", flags=["END_STREAM"]), None),
            (RstStreamFrame(1), Kind.RESET),
            (HeadersFrame(3, headers_frame(3, fields()).data, flags=["END_HEADERS"]), None),
        ):
            events_of(connection, frame.serialize())
            self.assertIs(connection.kind, kind, frame)
