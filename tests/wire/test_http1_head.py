"""Heads: where they end, what they say.  What is refused stands in the corpus."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import BadRequest, BadResponse, BodyTooLarge, HeadTooLarge, ProxyError, UriTooLong
from scalingo_proxy.model import Limits
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_body import Framing, FramingKind
from scalingo_proxy.wire.http1_head import RequestHead, head_end
from scalingo_proxy.wire.http1_request import check_unfinished_request_head, parse_request_head
from scalingo_proxy.wire.http1_response import MAX_RESPONSE_HEAD_BYTES, parse_response_head
from tests.wire.http1_oracles import seen
from tests.wire.http1_strategies import cut_places, examples, pieces, request_streams, response_streams
from tests.wire.http1_streams import RequestStream, ResponseStream, fed, single_bytes

HEAD = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"


def parse(*lines: bytes, start: bytes = b"GET / HTTP/1.1", limits: Limits | None = None) -> RequestHead:
    block = b"\r\n".join([start, b"Host: app.test", *lines, b"", b""])
    return parse_request_head(block, limits or Limits())


class HeadEndTests(SynchronousTestCase):
    """Finding the end of a head."""

    def test_every_cut(self) -> None:
        """The end is found wherever the stream was cut, and not before it is there."""
        for first in range(len(HEAD)):
            for second in range(first, len(HEAD)):
                received = bytearray(HEAD[:first])
                self.assertEqual(head_end(received, 0), -1)
                received += HEAD[first:second]
                self.assertEqual(head_end(received, first), -1)
                received += HEAD[second:] + b"behind"
                self.assertEqual(head_end(received, second), len(HEAD))

    def test_bad_byte_at_every_cut(self) -> None:
        """A byte that no head can hold is found wherever the stream was cut."""
        for bad in (b"\n", b"\rX", b"\0", b"\r\r\n"):
            data = b"GET / HTTP/1.1\r\nA: b" + bad + b"c"
            for cut in range(len(data)):
                received = bytearray(data[:cut])
                try:
                    self.assertEqual(head_end(received, 0), -1)
                except FramingError:
                    continue
                received += data[cut:]
                self.assertRaises(FramingError, head_end, received, cut)

    def test_carriage_return_at_the_end(self) -> None:
        """A CR at the very end may be half of a line end; the next byte decides."""
        self.assertEqual(head_end(b"GET / HTTP/1.1\r", 0), -1)
        self.assertEqual(head_end(b"GET / HTTP/1.1\r\n", 15), -1)
        self.assertRaises(FramingError, head_end, b"GET / HTTP/1.1\rH", 15)


class UnfinishedRequestHeadTests(SynchronousTestCase):
    """Refusing a head whose end has not come."""

    limits = Limits(request_line_bytes=40, head_bytes=100)

    def check(self, received: bytes) -> None:
        """Check it in one piece and in single bytes; both must agree."""
        whole = self._verdict(received, [len(received)])
        single = self._verdict(received, list(range(1, len(received) + 1)))
        self.assertEqual(whole, single)
        if whole is not None:
            raise whole()

    def _verdict(self, received: bytes, ends: list[int]) -> type[ProxyError] | None:
        searched = 0
        for end in ends:
            try:
                check_unfinished_request_head(bytearray(received[:end]), searched, self.limits)
            except ProxyError as error:
                return type(error)
            searched = end
        return None

    def test_may_become_one(self) -> None:
        """What is within the limits is waited for."""
        for received in (b"", b"G", b"GET /", HEAD[:-1], b"GET / HTTP/1.1\r", b"x" * 40, b"x" * 41):
            self.check(received)

    def test_longest_line(self) -> None:
        """A line of exactly the limit passes, whatever of its CRLF has come."""
        line = b"GET /" + b"a" * 26 + b" HTTP/1.1"
        self.assertEqual(len(line), 40)
        for behind in (b"", b"\r", b"\r\n", b"\r\nHost"):
            self.check(line + behind)

    def test_line_too_long(self) -> None:
        """A line beyond the limit is refused before its end."""
        self.assertRaises(UriTooLong, self.check, b"GET /" + b"a" * 37)

    def test_head_too_large(self) -> None:
        """A head beyond the limit is refused before its end."""
        head = b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 81
        self.check(head)
        self.assertRaises(HeadTooLarge, self.check, head + b"b")

    def test_no_request_line(self) -> None:
        """Something else is refused with its first line, not at a deadline."""
        for line in (b"GET /\r\n", b"EHLO mail.test\r\n", b"SSH-2.0-x\r\n", b"\r\n", b"GET  / HTTP/1.1\r\n"):
            self.assertRaises(BadRequest, self.check, line)


class RequestHeadTests(SynchronousTestCase):
    """What a request head says."""

    def test_kept(self) -> None:
        """End-to-end fields travel on, Host among them, in order and case."""
        head = parse(b"aCCept: x", b"Connection: keep-alive", b"Cookie: a=b")
        self.assertEqual(head.fields, ((b"Host", b"app.test"), (b"aCCept", b"x"), (b"Cookie", b"a=b")))

    def test_special(self) -> None:
        """Fields that decide something are at hand by lower-case name, all their values."""
        head = parse(b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-for: 5.6.7.8", b"TE: trailers")
        self.assertEqual(head.special[b"x-forwarded-for"], (b"1.2.3.4", b"5.6.7.8"))
        self.assertEqual(head.special[b"te"], (b"trailers",))

    def test_keep_alive(self) -> None:
        """1.1 goes on unless it says close, 1.0 only when it says keep-alive and not close."""
        for version, line, expected in [
            (b"1.1", b"A: b", True),
            (b"1.1", b"Connection: close", False),
            (b"1.1", b"Connection: Close", False),
            (b"1.1", b"Connection: foo, CLOSE", False),
            (b"1.1", b"Connection: closed", True),
            (b"1.0", b"A: b", False),
            (b"1.0", b"Connection: keep-alive", True),
            (b"1.0", b"Connection: Keep-Alive", True),
            (b"1.0", b"Connection: keep-alive, close", False),
        ]:
            head = parse(line, start=b"GET / HTTP/" + version)
            self.assertIs(head.keep_alive, expected, (version, line))

    def test_several_connection_fields(self) -> None:
        """All Connection fields count, whatever stands in the first."""
        head = parse(b"Connection: keep-alive", b"Connection: close, X-A", b"X-A: 1")
        self.assertFalse(head.keep_alive)
        self.assertEqual(head.fields, ((b"Host", b"app.test"),))

    def test_framing(self) -> None:
        """None, a length, or chunks."""
        self.assertEqual(parse().framing, Framing(FramingKind.NONE))
        self.assertEqual(parse(b"Content-Length: 007").framing, Framing(FramingKind.LENGTH, 7))
        self.assertEqual(parse(b"Transfer-Encoding: chunked").framing, Framing(FramingKind.CHUNKED))

    def test_endless_length(self) -> None:
        """A length beyond 10^18 is refused here: no limit is that large."""
        self.assertEqual(parse(b"Content-Length: " + b"9" * 18).framing.length, 10**18 - 1)
        self.assertRaises(BodyTooLarge, parse, b"Content-Length: 1" + b"0" * 18)

    def test_malformed_line_of_the_limit(self) -> None:
        """A request line is too long beyond its limit, and malformed at it."""
        limits = Limits(request_line_bytes=20)
        self.assertRaises(BadRequest, parse, start=b"x" * 20, limits=limits)
        self.assertRaises(UriTooLong, parse, start=b"x" * 21, limits=limits)

    def test_expect(self) -> None:
        """The client waits for a 100 only when it has a body and speaks 1.1."""
        expect = b"Expect: 100-continue"
        self.assertTrue(parse(expect, b"Content-Length: 1").expect_continue)
        self.assertTrue(parse(expect, b"Transfer-Encoding: chunked").expect_continue)
        self.assertFalse(parse(expect).expect_continue)
        self.assertFalse(parse(expect, b"Content-Length: 0").expect_continue)
        self.assertFalse(parse(expect, b"Content-Length: 1", start=b"PUT / HTTP/1.0").expect_continue)

    def test_upgrade(self) -> None:
        """The protocols that are asked for, without those that are not relayed."""
        connection = b"Connection: Upgrade"
        self.assertEqual(parse(connection, b"Upgrade: a/1, b").upgrade, b"a/1, b")
        self.assertEqual(parse(connection, b"Upgrade: h2c, a, TLS/1.3, HTTP/2.0").upgrade, b"a")
        self.assertEqual(parse(connection, b"Upgrade: a", b"Upgrade: b").upgrade, b"a, b")
        self.assertEqual(parse(connection, b"Upgrade: a", b"Content-Length: 0").upgrade, b"a")
        for lines in ([b"Upgrade: a"], [connection], [connection, b"Upgrade: a", b"Content-Length: 1"]):
            self.assertEqual(parse(*lines).upgrade, b"")

    def test_limit_of_fields(self) -> None:
        """Two hundred fields, Host included."""
        parse(*[b"A: b"] * 199)
        self.assertRaises(HeadTooLarge, parse, *[b"A: b"] * 200)

    def test_limit_of_a_line(self) -> None:
        """The limit is that of a line without its CRLF."""
        limits = Limits(header_bytes=50)
        parse(b"A: " + b"b" * 47, b"C: d", limits=limits)
        self.assertRaises(HeadTooLarge, parse, b"A: " + b"b" * 48, b"C: d", limits=limits)

    def test_limit_of_the_head(self) -> None:
        """A head that comes in one piece is bounded like any other."""
        limits = Limits(head_bytes=len(HEAD))
        parse_request_head(HEAD, limits)
        self.assertRaises(HeadTooLarge, parse, b"A: b", limits=limits)

    @examples(300)
    @given(request_streams, cut_places)
    def test_cuts(self, data: bytes, places: list[float]) -> None:
        """Cutting changes neither what is accepted nor whether the rest is refused."""
        whole = fed(RequestStream(), [data])
        for parts in (pieces(data, places), single_bytes(data)):
            stream = fed(RequestStream(), parts)
            self.assertEqual(list(map(seen, stream.messages)), list(map(seen, whole.messages)))
            # Where two things are wrong, the cut may decide which is told.
            self.assertEqual(bool(stream.detail), bool(whole.detail), repr(data))
            if not stream.detail:
                self.assertEqual(stream.stands, whole.stands, repr(data))
                self.assertEqual(stream.partial_body, whole.partial_body, repr(data))


class ResponseHeadTests(SynchronousTestCase):
    """What a response head says."""

    def parse(self, *lines: bytes, method: bytes = b"GET", start: bytes = b"HTTP/1.1 200 OK") -> Framing:
        return parse_response_head(b"\r\n".join([start, *lines, b"", b""]), method).framing

    def test_framing(self) -> None:
        """A length, chunks, or the end of the connection."""
        self.assertEqual(self.parse(b"Content-Length: 5"), Framing(FramingKind.LENGTH, 5))
        self.assertEqual(self.parse(b"Transfer-Encoding: chunked"), Framing(FramingKind.CHUNKED))
        self.assertEqual(self.parse(), Framing(FramingKind.UNTIL_CLOSE))

    def test_no_body(self) -> None:
        """HEAD, 1xx, 204 and 304 have none, whatever they say."""
        length = b"Content-Length: 5"
        self.assertFalse(self.parse(length, method=b"HEAD").has_body)
        self.assertFalse(self.parse(length, start=b"HTTP/1.1 304 Not Modified").has_body)
        self.assertFalse(self.parse(length, start=b"HTTP/1.1 204 No Content").has_body)
        self.assertFalse(self.parse(start=b"HTTP/1.1 103 Early Hints").has_body)
        self.assertTrue(self.parse(length, method=b"head").has_body)

    def test_keep_alive(self) -> None:
        """The connection is used again only where the end of the body is known and nobody says close."""
        for start, line, expected in [
            (b"HTTP/1.1 200 OK", b"Content-Length: 0", True),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", True),
            (b"HTTP/1.1 200 OK", b"A: b", False),
            (b"HTTP/1.1 200 OK", b"Content-Length: 0\r\nConnection: CLOSE", False),
            (b"HTTP/1.0 200 OK", b"Content-Length: 0", False),
            (b"HTTP/1.0 200 OK", b"Content-Length: 0\r\nConnection: Keep-Alive", True),
            (b"HTTP/1.0 200 OK", b"Connection: keep-alive", False),
            (b"HTTP/1.1 204 No Content", b"A: b", True),
            (b"HTTP/1.1 204 No Content", b"Content-Length: 5", False),
            (b"HTTP/1.1 204 No Content", b"Transfer-Encoding: chunked", False),
        ]:
            head = parse_response_head(start + b"\r\n" + line + b"\r\n\r\n", b"GET")
            self.assertIs(head.keep_alive, expected, (start, line))

    def test_interim_with_body(self) -> None:
        """Nobody can tell whether what follows is its body or the answer."""
        for line in (b"Content-Length: 1", b"Transfer-Encoding: chunked"):
            self.assertRaises(BadResponse, self.parse, line, start=b"HTTP/1.1 100 Continue")

    def test_limit(self) -> None:
        """A head that comes in one piece is bounded like any other."""
        room = MAX_RESPONSE_HEAD_BYTES - len(b"HTTP/1.1 200 OK\r\nA: \r\n\r\n")
        self.parse(b"A: " + b"b" * room)
        self.assertRaises(BadResponse, self.parse, b"A: " + b"b" * (room + 1))

    def test_switched(self) -> None:
        """The protocol that a 101 names."""
        block = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n"
        self.assertEqual(parse_response_head(block, b"GET").upgrade, b"WebSocket")
        self.assertEqual(parse_response_head(b"HTTP/1.1 101 x\r\n\r\n", b"GET").upgrade, b"")

    @examples(200)
    @given(response_streams, cut_places)
    def test_cuts(self, data: bytes, places: list[float]) -> None:
        """Cutting changes neither what is accepted nor where the stream stands."""
        methods = [b"GET", b"HEAD", b"POST"]
        whole = fed(ResponseStream(methods), [data])
        for parts in (pieces(data, places), single_bytes(data)):
            stream = fed(ResponseStream(methods), parts)
            self.assertEqual(list(map(seen, stream.messages)), list(map(seen, whole.messages)))
            self.assertEqual(stream.stands, whole.stands, repr(data))
            if not stream.detail:
                self.assertEqual(stream.partial_body, whole.partial_body, repr(data))
