"""Body readers and the writing of chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.grammar import Fields, FramingError
from scalingo_proxy.wire.http1_body import (
    NO_BODY,
    BodyReader,
    ChunkedReader,
    Framing,
    FramingKind,
    LengthReader,
    UntilCloseReader,
    encode_chunk,
    encode_last_chunk,
)
from tests.wire.http1_strategies import chunked, cut_places, damaged_chunked, examples, fields, pieces
from tests.wire.http1_streams import single_bytes


def read(reader: BodyReader, parts: list[bytes]) -> tuple[str, bytes, Fields, bytes]:
    """How far *reader* comes: whether it is done, payload, trailers, and what is left over."""
    payload, rest = b"", b""
    for part in parts:
        if reader.done:
            rest += part
            continue
        try:
            payload += reader.receive(part)
        except FramingError:
            return "malformed", b"", [], b""
        rest += reader.excess
    return "done" if reader.done else "more", payload, reader.trailers, rest


class FramingTests(SynchronousTestCase):
    """Ways to end a message."""

    def test_readers(self) -> None:
        """Each way has its reader."""
        for kind, reader in [
            (FramingKind.NONE, LengthReader),
            (FramingKind.LENGTH, LengthReader),
            (FramingKind.CHUNKED, ChunkedReader),
            (FramingKind.UNTIL_CLOSE, UntilCloseReader),
        ]:
            self.assertIs(type(Framing(kind, 5).reader()), reader)

    def test_no_body(self) -> None:
        """Without a body the reader is done before a byte, and takes none."""
        for framing in (NO_BODY, Framing(FramingKind.LENGTH, 0)):
            reader = framing.reader()
            self.assertTrue(reader.done)
            self.assertFalse(framing.has_body)
            self.assertEqual(reader.receive(b"next"), b"")
            self.assertEqual(reader.excess, b"next")

    def test_has_body(self) -> None:
        """There is something to read behind these heads."""
        for kind, length in [
            (FramingKind.LENGTH, 1),
            (FramingKind.CHUNKED, 0),
            (FramingKind.UNTIL_CLOSE, 0),
        ]:
            self.assertTrue(Framing(kind, length).has_body)

    def test_value(self) -> None:
        """Framings are compared by what they say."""
        self.assertEqual(Framing(FramingKind.LENGTH, 5), Framing(FramingKind.LENGTH, 5))
        self.assertNotEqual(Framing(FramingKind.LENGTH, 5), Framing(FramingKind.LENGTH, 6))
        self.assertNotEqual(NO_BODY, 0)
        self.assertEqual(len({Framing(FramingKind.CHUNKED), Framing(FramingKind.CHUNKED)}), 1)


class LengthReaderTests(SynchronousTestCase):
    """Bodies of a known length."""

    def test_exact(self) -> None:
        """The body, nothing left over; a piece inside it is given back uncopied."""
        reader = LengthReader(10)
        part = b"hello"
        self.assertIs(reader.receive(part), part)
        self.assertFalse(reader.done or reader.closed())
        self.assertIs(reader.receive(part), part)
        self.assertTrue(reader.done and reader.closed())
        self.assertEqual(reader.excess, b"")

    def test_excess(self) -> None:
        """What is behind the body belongs to the next message."""
        self.assertEqual(read(LengthReader(5), [b"helloGET"]), ("done", b"hello", [], b"GET"))

    def test_closed_early(self) -> None:
        """A stream that ends too early is no whole body."""
        reader = LengthReader(5)
        reader.receive(b"hell")
        self.assertFalse(reader.closed())

    @examples(100)
    @given(st.binary(max_size=50), st.integers(0, 50), cut_places)
    def test_cuts(self, data: bytes, length: int, places: list[float]) -> None:
        """The body is the first bytes of the stream, however it is cut."""
        state = "done" if length <= len(data) else "more"
        expected = (state, data[:length], [], data[length:])
        self.assertEqual(read(LengthReader(length), pieces(data, places)), expected)


class UntilCloseReaderTests(SynchronousTestCase):
    """Bodies that end with the connection."""

    def test_closed(self) -> None:
        """Everything is body, and whole when the stream ends."""
        reader = UntilCloseReader()
        self.assertEqual(reader.receive(b"0\r\n\r\n"), b"0\r\n\r\n")
        self.assertFalse(reader.done)
        self.assertTrue(reader.closed() and reader.done)


class ChunkedReaderTests(SynchronousTestCase):
    """Chunked bodies; the corpus holds what is malformed about them."""

    def test_large_chunk(self) -> None:
        """Pieces inside one chunk are given back uncopied."""
        reader = ChunkedReader()
        reader.receive(b"100000\r\n")
        part = bytes(65536)
        for _ in range(15):
            self.assertIs(reader.receive(part), part)
        self.assertEqual(reader.receive(part + b"\r\n0\r\n\r\n"), part)
        self.assertTrue(reader.done)

    def test_refused_at_once(self) -> None:
        """What can never become a size line is refused before its line has ended."""
        for start in (b"g", b"-", b"5 ", b"+", b"\n", b"\r", b"5\rx", b"5;a\0", b"5;a\rb", b"0" * 17, b";"):
            self.assertEqual(read(ChunkedReader(), [start])[0], "malformed", start)
            self.assertEqual(read(ChunkedReader(), single_bytes(start))[0], "malformed", start)

    def test_waits(self) -> None:
        """What may still become one is waited for."""
        for start in (
            b"",
            b"5",
            b"0" * 16,
            b"5\r",
            b"5;",
            b'5;a="b',
            b"5\r\nhello",
            b"5\r\nhello\r",
            b"0\r\n",
            b"0\r\n\r",
        ):
            reader = ChunkedReader()
            self.assertEqual(read(reader, [start])[0], "more", start)
            self.assertFalse(reader.closed())

    def test_line_limit(self) -> None:
        """A size line is at most 4096 bytes, in one piece and in single bytes."""
        line = b"1;a=" + b"x" * 4090 + b"\r\n"
        for data, state in ((line, "more"), (line.replace(b"=", b"=x"), "malformed")):
            self.assertEqual(read(ChunkedReader(), [data])[0], state)
            self.assertEqual(read(ChunkedReader(), single_bytes(data))[0], state)

    def test_endless_line(self) -> None:
        """A size line whose end never comes is refused when it is too long, not kept."""
        line = b"1;a=" + b"x" * 4092
        self.assertEqual(read(ChunkedReader(), [line])[0], "more")
        self.assertEqual(read(ChunkedReader(), [line + b"x"])[0], "malformed")
        self.assertEqual(read(ChunkedReader(), single_bytes(line + b"x"))[0], "malformed")

    def test_extension_limit(self) -> None:
        """Extensions of one body are at most 16384 bytes in all."""
        chunk = b"1;" + b"a" * 1023 + b"\r\nx\r\n"
        self.assertEqual(read(ChunkedReader(), [chunk * 16])[0], "more")
        self.assertEqual(read(ChunkedReader(), [chunk * 17])[0], "malformed")

    def test_trailer_limits(self) -> None:
        """Trailers are at most 32 KiB and 100 fields."""
        line = b"A: " + b"x" * 1019 + b"\r\n"
        ended = b"0\r\n" + line * 31 + line[:-4]
        self.assertEqual(read(ChunkedReader(), [ended + b"\r\n\r\n"])[0], "done")
        self.assertEqual(read(ChunkedReader(), [ended + b"xxx\r\n\r\n"])[0], "malformed")
        self.assertEqual(read(ChunkedReader(), [b"0\r\n" + b"A: b\r\n" * 100 + b"\r\n"])[0], "done")
        self.assertEqual(read(ChunkedReader(), [b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n"])[0], "malformed")

    def test_behind_the_end(self) -> None:
        """A reader that is done takes nothing more: its caller would mix two messages."""
        reader = ChunkedReader()
        reader.receive(b"0\r\n\r\n")
        self.assertRaises(AssertionError, reader.receive, b"X: y\r\n\r\n")

    @examples(200)
    @given(chunked, st.binary(max_size=10), cut_places)
    def test_cuts(self, body: bytes, behind: bytes, places: list[float]) -> None:
        """Payload, trailers and what is left over are the same however the stream is cut."""
        whole = read(ChunkedReader(), [body + behind])
        self.assertEqual((whole[0], whole[3]), ("done", behind))
        self.assertEqual(read(ChunkedReader(), pieces(body + behind, places)), whole)
        self.assertEqual(read(ChunkedReader(), single_bytes(body + behind)), whole)

    @examples(300)
    @given(damaged_chunked, cut_places)
    def test_damaged_cuts(self, body: bytes, places: list[float]) -> None:
        """Malformed or unfinished: the verdict does not depend on the cuts either."""
        whole = read(ChunkedReader(), [body])
        self.assertEqual(read(ChunkedReader(), pieces(body, places)), whole)
        self.assertEqual(read(ChunkedReader(), single_bytes(body)), whole)


class EncodeTests(SynchronousTestCase):
    """Writing chunks."""

    def test_chunk(self) -> None:
        """A size in hexadecimal, the payload, each with its CRLF."""
        self.assertEqual(encode_chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")

    def test_empty_chunk(self) -> None:
        """No payload is no chunk: a chunk of zero bytes would end the body."""
        self.assertEqual(encode_chunk(b""), b"")

    def test_last_chunk(self) -> None:
        """The end, with or without trailers."""
        self.assertEqual(encode_last_chunk([]), b"0\r\n\r\n")
        self.assertEqual(encode_last_chunk([(b"X-A", b"1"), (b"x-b", b"")]), b"0\r\nX-A: 1\r\nx-b: \r\n\r\n")

    @examples(100)
    @given(st.lists(st.binary(max_size=40), max_size=6), st.lists(fields, max_size=4), cut_places)
    def test_round_trip(self, parts: list[bytes], trailers: Fields, places: list[float]) -> None:
        """What is written is read again, with nothing left over."""
        words = b"".join(map(encode_chunk, parts)) + encode_last_chunk(trailers)
        expected = ("done", b"".join(parts), trailers, b"")
        self.assertEqual(read(ChunkedReader(), pieces(words, places)), expected)
