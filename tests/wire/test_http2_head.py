"""Header lists of HTTP/2: what becomes a request head, and what never does."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotAllowed,
    ProxyError,
    UriTooLong,
)
from scalingo_proxy.model import Limits
from scalingo_proxy.wire.grammar import Fields, FramingError
from scalingo_proxy.wire.http1_body import FramingKind
from scalingo_proxy.wire.http1_forwarding import ClientIdentity, request_head_for_backend
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead
from scalingo_proxy.wire.http1_request import parse_request_head
from scalingo_proxy.wire.http2_head import (
    http2_request_head,
    http2_response_fields,
    http2_trailers,
    trailers_for_http2,
    websocket_refusal,
)
from tests.wire.http1_strategies import examples

LIMITS = Limits()
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def listed(*more: tuple[bytes, bytes], **pseudo: bytes) -> Fields:
    """A good request with *more* behind its pseudo-headers, some of which are replaced."""
    usual = {"method": b"GET", "scheme": b"https", "authority": b"hello.test", "path": b"/"} | pseudo
    return [(b":" + name.encode(), value) for name, value in usual.items()] + list(more)


def read(fields: Fields, ended: bool = True, limits: Limits = LIMITS) -> RequestHead:
    """The head of a list, WebSockets admitted."""
    return http2_request_head(fields, ended, limits, lambda: KEY)


def words(head: RequestHead) -> bytes:
    """The head as a backend reads it."""
    return request_head_for_backend(head, ClientIdentity("192.0.2.1", "https", 443, None), b"id", 0.0)


class RequestTests(SynchronousTestCase):
    def test_usual(self) -> None:
        """Method, target, host and fields are those of the list, in its order."""
        head = read(listed((b"accept", b"*/*"), (b"x", b""), authority=b"Hello.TEST:8443", path=b"/a?b"))
        self.assertEqual((head.method, head.target, head.host), (b"GET", b"/a?b", "hello.test"))
        self.assertEqual(head.fields, ((b"host", b"Hello.TEST:8443"), (b"accept", b"*/*"), (b"x", b"")))
        self.assertIs(head.framing.kind, FramingKind.NONE)

    def test_cookies(self) -> None:
        """Crumbs are joined where the first one stood (RFC 9113 §8.2.3)."""
        crumbs = [(b"a", b"1"), (b"cookie", b"x=1"), (b"b", b"2"), (b"cookie", b"y=2"), (b"cookie", b"z")]
        head = read(listed(*crumbs))
        expected = [(b"a", b"1"), (b"cookie", b"x=1; y=2; z"), (b"b", b"2")]
        self.assertEqual(list(head.fields[1:]), expected)

    def test_framing(self) -> None:
        """A body of known length, of unknown length, none."""
        for value, ended, kind, length in (
            (b"5", False, FramingKind.LENGTH, 5),
            (b"0", True, FramingKind.LENGTH, 0),
            (b"00000005", False, FramingKind.LENGTH, 5),
            (None, False, FramingKind.CHUNKED, 0),
            (None, True, FramingKind.NONE, 0),
        ):
            more = [(b"content-length", value)] if value is not None else []
            head = read(listed(*more, method=b"POST"), ended)
            self.assertEqual((head.framing.kind, head.framing.length), (kind, length), (value, ended))

    def test_length_is_rewritten(self) -> None:
        """No second reading of a length reaches a backend."""
        head = read(listed((b"content-length", b"007"), method=b"POST"), ended=False)
        self.assertEqual(head.fields[-1], (b"content-length", b"7"))

    def test_chunked_words(self) -> None:
        """A body of unknown length is announced as chunked."""
        head = read(listed(method=b"POST"), ended=False)
        self.assertIn(b"\r\nTransfer-Encoding: chunked\r\n", words(head))

    def test_managed_fields(self) -> None:
        """What only the proxy may say does not travel on, in no spelling."""
        names = (
            b"x-forwarded-for",
            b"x_forwarded_for",
            b"x-real-ip",
            b"x-scalingo-error",
            b"proxy",
            b"forwarded",
        )
        head = read(listed(*((name, b"evil") for name in names)))
        self.assertNotIn(b"evil", words(head))

    def test_expect(self) -> None:
        """100-continue with a body is waited for; anything else is refused."""
        self.assertTrue(read(listed((b"expect", b"100-Continue"), method=b"PUT"), False).expect_continue)
        self.assertFalse(read(listed((b"expect", b"100-continue"))).expect_continue)
        self.assertRaises(ExpectationFailed, read, listed((b"expect", b"200-ok")))

    def test_refused(self) -> None:
        """Well-formed lists that are answered with an error."""
        for error, fields in (
            (BadRequest, listed(authority=b"a@hello.test")),
            (BadRequest, listed(authority=b"")),
            (BadRequest, listed(authority=b"hello.test/x")),
            (BadRequest, listed(authority=b"hello.test:99999")),
            (BadRequest, listed((b"host", b"other.test"))),
            (BadRequest, listed((b"host", b"hello.test"), (b"host", b"hello.test"))),
            (MethodNotAllowed, listed(method=b"TRACE")),
            (MethodNotAllowed, [(b":method", b"CONNECT"), (b":authority", b"hello.test:443")]),
            (UriTooLong, listed(path=b"/" + b"x" * 8192)),
            (HeadTooLarge, listed((b"x", b"y" * 8192))),
            (HeadTooLarge, listed(*[(b"x", b"y")] * 201)),
            (HeadTooLarge, listed(*[(b"x", b"y" * 8000)] * 5)),
        ):
            self.assertRaises(error, read, fields)

    def test_limits(self) -> None:
        """The limits are those that HTTP/1 is held to."""
        small = Limits(request_line_bytes=20, head_bytes=100, header_bytes=30)
        self.assertEqual(read(listed(path=b"/123456"), limits=small).target, b"/123456")
        self.assertRaises(UriTooLong, read, listed(path=b"/1234567"), limits=small)
        self.assertRaises(HeadTooLarge, read, listed((b"x", b"y" * 28)), limits=small)
        self.assertRaises(HeadTooLarge, read, listed(*[(b"x", b"y" * 20)] * 4), limits=small)


class WebSocketTests(SynchronousTestCase):
    def connect(self, *more: tuple[bytes, bytes], protocol: bytes = b"websocket") -> RequestHead:
        """The head of an extended CONNECT."""
        return read(listed(*more, method=b"CONNECT", protocol=protocol), ended=False)

    def test_handshake(self) -> None:
        """It becomes the GET of RFC 6455, whatever key the client made up."""
        head = self.connect(
            (b"sec-websocket-key", b"mine"), (b"sec-websocket-version", b"13"), (b"origin", b"x")
        )
        self.assertEqual((head.method, head.upgrade, head.websocket_key), (b"GET", b"websocket", KEY))
        self.assertFalse(head.framing.has_body)
        text = words(head)
        self.assertIn(b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", text)
        self.assertEqual(text.count(b"sec-websocket-key: "), 1)
        self.assertIn(b"\r\nsec-websocket-key: %b\r\n" % KEY, text)
        self.assertIn(b"\r\nsec-websocket-version: 13\r\n", text)
        parsed = parse_request_head(text, LIMITS)
        self.assertEqual(parsed.upgrade, b"websocket")

    def test_versions(self) -> None:
        """A version that nobody speaks is refused here: the backend would be told another one."""
        for version in ((), ((b"sec-websocket-version", b"8"),), ((b"sec-websocket-version", b"13"),) * 2):
            self.assertRaises(BadRequest, self.connect, *version)

    def test_others(self) -> None:
        """Other protocols are not spoken, and none where WebSockets are not admitted."""
        self.assertRaises(MethodNotAllowed, self.connect, protocol=b"connect-udp")
        asked = listed(method=b"CONNECT", protocol=b"websocket")
        self.assertRaises(MethodNotAllowed, http2_request_head, asked, False, LIMITS)

    def test_answers(self) -> None:
        """Only a 101 with the right proof accepts, and no 2xx is mistaken for it."""
        proof = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.assertEqual(proof, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")  # the example of RFC 6455 §1.3
        for status, accepts, is_fine in (
            (101, [proof], True),
            (101, [], False),
            (101, [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOO="], False),
            (101, [proof, proof], False),
            (200, [proof], False),
            (204, [], False),
            (302, [], True),
            (403, [], True),
            (500, [], True),
        ):
            head = ResponseHead(status, b"", 1)
            head.fields = [(b"Sec-WebSocket-Accept", accept) for accept in accepts]
            self.assertEqual(not websocket_refusal(KEY, head), is_fine, (status, accepts))


class TrailerTests(SynchronousTestCase):
    def test_good(self) -> None:
        """Trailers keep their order."""
        trailers = [(b"x-b", b"1"), (b"x-a", b"2")]
        self.assertEqual(http2_trailers(trailers), trailers)

    def test_bad(self) -> None:
        """Pseudo-headers, bad names and values, and too many of them."""
        for trailers in (
            [(b":path", b"/")],
            [(b"X", b"y")],
            [(b"x", b" y")],
            [(b"x", b"a\nb")],
            [(b"connection", b"close")],
            [(b"x", b"y")] * 101,
        ):
            self.assertRaises(FramingError, http2_trailers, trailers)


class ResponseTests(SynchronousTestCase):
    def test_fields(self) -> None:
        """The status comes first, names are in lower case."""
        self.assertEqual(
            http2_response_fields(200, [(b"Content-Type", b"text/HTML"), (b"ETag", b"X")]),
            [(b":status", b"200"), (b"content-type", b"text/HTML"), (b"etag", b"X")],
        )

    def test_trailers(self) -> None:
        """Likewise, without what belongs to a connection."""
        self.assertEqual(trailers_for_http2([(b"X-Sum", b"1"), (b"Connection", b"x")]), [(b"x-sum", b"1")])


names = st.one_of(
    st.sampled_from((b":method", b":path", b":authority", b":scheme", b":x", b"host", b"cookie", b"te")),
    st.sampled_from((b"content-length", b"transfer-encoding", b"connection", b"x-forwarded-for", b"expect")),
    st.binary(max_size=4),
    st.text("abc-_", min_size=1, max_size=5).map(str.encode),
)
values = st.one_of(
    st.binary(max_size=10),
    st.sampled_from(
        (b"", b"GET", b"POST", b"/", b"https", b"hello.test", b"trailers", b"5", b"\r\n", b"a b")
    ),
)


class PropertyTests(SynchronousTestCase):
    @examples(200)
    @given(st.lists(st.tuples(names, values), max_size=6), st.booleans(), st.booleans())
    def test_one_reading(self, more: Fields, ended: bool, is_good: bool) -> None:
        """Whatever is taken reads the same as one HTTP/1 request, and never as two."""
        try:
            head = read(listed(*more) if is_good else more, ended)
        except (FramingError, ProxyError):
            return
        text = words(head)
        self.assertEqual(text.index(b"\r\n\r\n") + 4, len(text))
        parsed = parse_request_head(text, Limits(head_bytes=10**6))
        self.assertEqual((parsed.method, parsed.target, parsed.host), (head.method, head.target, head.host))
        self.assertEqual(parsed.framing, head.framing)

    @examples(100)
    @given(st.binary(max_size=12))
    def test_values(self, value: bytes) -> None:
        """A value is taken exactly when it has no control characters but HTAB, and no blanks around it."""
        is_good = value == value.strip(b" \t") and not any((c < 32 and c != 9) or c == 127 for c in value)
        try:
            head = read(listed((b"x", value)))
        except FramingError:
            self.assertFalse(is_good)
        else:
            self.assertTrue(is_good)
            self.assertEqual(head.fields[-1], (b"x", value))
