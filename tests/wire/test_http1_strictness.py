"""What fast or lenient parsers let through or leave to their caller, and we may not.

Each input of the first table is accepted by at least one of llhttp, h11 and
``twisted.web``, or was in one of their earlier releases.  The second part goes
through what llhttp leaves to whoever uses it.
"""

from __future__ import annotations

import random

import httptools
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Limits
from scalingo_proxy.wire.http1_request import parse_request_head
from scalingo_proxy.wire.http1_response import parse_response_head
from tests.wire.http1_oracles import llhttp_reading
from tests.wire.http1_streams import READY, RequestStream, ResponseStream, cuts

_POST = b"POST / HTTP/1.1\r\nHost: app.test\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_GET = b"GET / HTTP/1.1\r\nHost: app.test\r\n"

#: name -> input, reason code.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "length, then chunked": (
        _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad-request",
    ),
    "chunked, then length": (
        _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "bad-request",
    ),
    "two differing lengths": (
        _POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "bad-request",
    ),
    "signed length": (_POST + b"Content-Length: +5\r\n\r\nhello", "bad-request"),
    "list of lengths": (_POST + b"Content-Length: 5,6\r\n\r\nhello!", "bad-request"),
    "list of equal lengths": (_POST + b"Content-Length: 5, 5\r\n\r\nhello", "bad-request"),
    "empty length": (_POST + b"Content-Length:\r\n\r\n", "bad-request"),
    "hexadecimal length": (_POST + b"Content-Length: 0x5\r\n\r\nhello", "bad-request"),
    "underscored length": (_POST + b"Content-Length: 1_0\r\n\r\n0123456789", "bad-request"),
    "gzip, chunked": (_POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "not-implemented"),
    "chunked, identity": (_POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "bad-request"),
    "chunked in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad-request",
    ),
    "space before colon": (_GET + b"X-A : b\r\n\r\n", "bad-request"),
    "NUL in a value": (_GET + b"X-A: a\0b\r\n\r\n", "bad-request"),
    "bare CR in a value": (_GET + b"X-A: a\rb\r\n\r\n", "bad-request"),
    "name beyond ASCII": (_GET + b"X-\xc3\xa9: a\r\n\r\n", "bad-request"),
    "folded line": (_GET + b"X-A: a\r\n b\r\n\r\n", "bad-request"),
    "bare LF line ends": (b"GET / HTTP/1.1\nHost: app.test\n\n", "bad-request"),
    "one bare LF": (b"GET / HTTP/1.1\r\nHost: app.test\nX-A: b\r\n\r\n", "bad-request"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", "bad-request"),
    "two Hosts": (_GET + b"Host: other.test\r\n\r\n", "bad-request"),
    "bad chunk size": (_CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", "bad-request"),
    "negative chunk size": (_CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", "bad-request"),
    "chunk extension with LF": (_CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n", "bad-request"),
    "no CRLF behind the data": (_CHUNKED + b"5\r\nhello0\r\n\r\n", "bad-request"),
    "two odd bytes behind the data": (_CHUNKED + b"5\r\nhelloXX0\r\n\r\n", "bad-request"),
    "header of 300 kB": (_GET + b"X-A: " + b"a" * 300_000 + b"\r\n\r\n", "head-too-large"),
    "5000 headers": (_GET + b"X-A: b\r\n" * 5000 + b"\r\n", "head-too-large"),
    "request line of 300 kB": (b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n", "uri-too-long"),
    "no version": (b"GET /\r\n\r\n", "bad-request"),
}


class HostileInputTests(SynchronousTestCase):
    """Inputs that pass elsewhere."""

    def test_refused(self) -> None:
        """Each is refused with its code, however it is cut, and yields no message."""
        for name, (data, code) in HOSTILE.items():
            for pieces in cuts(data[:40_000], _randomness(name)):
                stream = RequestStream()
                for piece in pieces:
                    stream.receive(piece)
                self.assertEqual((stream.stands, stream.messages), (code, []), name)

    def test_passes_elsewhere(self) -> None:
        """Several of them are whole requests for llhttp, so a backend may take them, too."""
        passing = {name for name, (data, _) in HOSTILE.items() if llhttp_reading(data).whole}
        self.assertIn("no Host", passing)
        self.assertIn("header of 300 kB", passing)


class LeftToTheCallerTests(SynchronousTestCase):
    """What llhttp leaves to whoever uses it."""

    def test_head_responses(self) -> None:
        """A length told for HEAD swallows nothing of the next response."""
        stream = ResponseStream([b"HEAD", b"GET"])
        stream.receive(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
        self.assertEqual([message.body for message in stream.messages], [b"", b"ok"])

    def test_h2c_upgrade(self) -> None:
        """``curl --http2`` on a plain port goes on as HTTP/1.1, and so does what follows."""
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        stream = RequestStream()
        stream.receive(_GET + upgrade + _GET + b"\r\n")
        self.assertEqual((len(stream.messages), stream.stands), (2, READY))
        head = parse_request_head(_GET + upgrade, Limits())
        self.assertEqual((head.upgrade, head.fields), (b"", ((b"Host", b"app.test"),)))

    def test_upgrade_with_body(self) -> None:
        """An upgrade with a body is an ordinary request, its body is read."""
        stream = RequestStream()
        stream.receive(_POST + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhello")
        self.assertEqual(stream.messages[0].body, b"hello")
        self.assertEqual(llhttp_reading(stream.messages[0].raw).whole[0].body, b"")

    def test_limits(self) -> None:
        """Line, head and number of fields are bounded, for a head in one piece, too."""
        for limits in (Limits(head_bytes=100), Limits(header_bytes=60)):
            stream = RequestStream(limits)
            stream.receive(_GET + b"X-A: " + b"a" * 70 + b"\r\n\r\n")
            self.assertEqual(stream.stands, "head-too-large")
        stream = RequestStream(Limits(request_line_bytes=20))
        stream.receive(b"GET /aaaaaaaa HTTP/1.1\r\nHost: app.test\r\n\r\n")
        self.assertEqual(stream.stands, "uri-too-long")

    def test_body_limit(self) -> None:
        """A body without a length is counted as it comes."""
        stream = RequestStream(Limits(body_bytes=8))
        stream.receive(_CHUNKED + b"5\r\nhello\r\n4\r\noops\r\n0\r\n\r\n")
        self.assertEqual((stream.stands, stream.messages), ("body-too-large", []))

    def test_trailing_blanks(self) -> None:
        """Blanks behind a value are no part of it."""
        stream = RequestStream()
        stream.receive(_GET + b"X-A: a \t\r\n\r\n")
        self.assertEqual(stream.messages[0].head.fields[1], (b"X-A", b"a"))

    def test_rtsp(self) -> None:
        """Another protocol of the same shape is refused."""
        for line in (b"DESCRIBE rtsp://app.test/x RTSP/1.0", b"DESCRIBE rtsp://app.test/x HTTP/1.1"):
            stream = RequestStream()
            stream.receive(line + b"\r\nHost: app.test\r\n\r\n")
            self.assertEqual(stream.stands, "bad-request")

    def test_trailers(self) -> None:
        """Trailers are kept apart from the fields of the head."""
        stream = RequestStream()
        stream.receive(_CHUNKED + b"0\r\nHost: evil.test\r\n\r\n")
        self.assertEqual(stream.messages[0].trailers, [(b"Host", b"evil.test")])
        self.assertNotIn((b"Host", b"evil.test"), stream.messages[0].head.fields)

    def test_unknown_methods(self) -> None:
        """A method that llhttp does not know is the app's to judge."""
        stream = RequestStream()
        stream.receive(b"FOO / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        self.assertEqual(stream.stands, READY)
        self.assertEqual(llhttp_reading(b"FOO / HTTP/1.1\r\nHost: app.test\r\n\r\n").whole, [])

    def test_raw_utf8(self) -> None:
        """A target beyond ASCII is 400, as in llhttp."""
        stream = RequestStream()
        stream.receive("GET /é HTTP/1.1\r\nHost: app.test\r\n\r\n".encode())
        self.assertEqual(stream.stands, "bad-request")

    def test_http2_preface(self) -> None:
        """The preface of HTTP/2 is answered with 505 at its first line's head."""
        stream = RequestStream()
        stream.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.assertEqual(stream.stands, "bad-version")

    def test_pipelined(self) -> None:
        """Pipelined requests are taken one by one, not all in one call."""
        two = (_GET + b"\r\n") * 2
        head = parse_request_head(two[: len(two) // 2], Limits())
        self.assertEqual(head.host, "app.test")
        self.assertEqual(len(llhttp_reading(two).whole), 2)

    def test_response_to_options(self) -> None:
        """The method of the request is all that a response head needs to be framed."""
        block = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        self.assertEqual(parse_response_head(block, b"OPTIONS").framing.length, 5)
        self.assertEqual(parse_response_head(block, b"HEAD").framing.length, 0)
        self.assertEqual(llhttp_reading(block, httptools.HttpResponseParser).whole, [])


def _randomness(name: str) -> random.Random:
    return random.Random(name)
