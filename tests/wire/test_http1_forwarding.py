"""Heads in the words of the other side: read again, they say the same and nothing more."""

from __future__ import annotations

import httptools
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Limits
from scalingo_proxy.wire import http1_request
from scalingo_proxy.wire.grammar import AS_BACKENDS_READ, Fields, split_list
from scalingo_proxy.wire.http1_body import Framing, FramingKind, encode_chunk, encode_last_chunk
from scalingo_proxy.wire.http1_forwarding import (
    ClientIdentity,
    acceptable_request_id,
    informational_head,
    relayed_trailers,
    request_head_for_backend,
    response_head_for_client,
)
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead
from scalingo_proxy.wire.http1_request import parse_request_head
from tests.wire.http1_oracles import h11_requests, h11_responses, llhttp_reading, seen
from tests.wire.http1_strategies import examples, request_streams, requests, response_streams, responses
from tests.wire.http1_streams import CLOSES, READY, Message, RequestStream, ResponseStream, fed
from tests.wire.test_http1_oracles import LLHTTP_METHODS

REQUEST_ID = b"00000000-0000-4000-8000-000000000000"
OURS = (
    b"x-forwarded-for",
    b"x-real-ip",
    b"x-forwarded-proto",
    b"x-forwarded-port",
    b"x-request-id",
    b"x-request-start",
)
HOP_BY_HOP = (b"keep-alive", b"proxy-connection", b"trailer", b"http2-settings", b"proxy", b"expect")
LARGE = Limits(request_line_bytes=1 << 20, head_bytes=1 << 20, header_bytes=1 << 20)

untrusted = ClientIdentity("192.0.2.1", "http", 80, None)
trusted = ClientIdentity("10.0.0.9", "https", 443, lambda address: address.startswith("10."))


def head_of(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead:
    return parse_request_head(b"\r\n".join([start, b"Host: app.test", *lines, b"", b""]), LARGE)


def framed(framing: Framing, body: bytes, trailers: Fields) -> bytes:
    """A body as it is sent on."""
    if framing.kind is FramingKind.NONE or framing.kind is FramingKind.LENGTH:
        return body
    return encode_chunk(body) + encode_last_chunk(relayed_trailers(trailers))


class RequestRewritingTests(SynchronousTestCase):
    """The request head that a backend reads."""

    def setUp(self) -> None:
        # With our six fields a request of the most fields has more than the most.
        self.patch(http1_request, "MAX_FIELDS", 1_000)

    def check(self, message: Message, identity: ClientIdentity) -> None:
        head = message.head
        assert isinstance(head, RequestHead)
        words = request_head_for_backend(head, identity, REQUEST_ID, 1.5)
        words += framed(head.framing, message.body, message.trailers)
        stream = fed(RequestStream(LARGE), [words])
        self.assertEqual((len(stream.messages), stream.stands), (1, READY), (words, stream.detail))
        again = stream.messages[0]
        reread = again.head
        assert isinstance(reread, RequestHead)
        self.assertEqual(
            (reread.method, reread.target, reread.host, reread.version, reread.framing),
            (head.method, head.target, head.host, 1, head.framing),
        )
        self.assertEqual((reread.upgrade, reread.expect_continue), (head.upgrade, head.expect_continue))
        self.assertEqual((again.body, again.trailers), (message.body, relayed_trailers(message.trailers)))
        self.check_fields(message, seen(again).fields, head)
        self.check_oracles(words, again)

    def check_fields(self, message: Message, sent: Fields, head: RequestHead) -> None:
        read = [name.translate(AS_BACKENDS_READ) for name, _ in sent]
        for name in (*OURS, b"host"):
            self.assertEqual(read.count(name), 1, (name, message.raw))
        for name in HOP_BY_HOP:
            self.assertEqual(
                read.count(name), name == b"expect" and head.expect_continue, (name, message.raw)
            )
        self.assertFalse([name for name in read if name.startswith((b"x-scalingo-", b"scalingo-"))])
        values = dict(sent)
        self.assertIn(values.get(b"connection", b""), (b"", b"upgrade", b"TE"))
        self.assertIn(values.get(b"te", b"trailers"), (b"trailers",))
        self.assertEqual(values.get(b"upgrade", b""), head.upgrade)
        came = seen(message).fields
        named = {token for name, value in came if name == b"connection" for token in split_list(value)}
        special = {*OURS, *HOP_BY_HOP, b"te", b"connection", b"upgrade", b"content-length", b"host"}
        special |= {b"transfer-encoding", b"forwarded", b"x-forwarded-host", b"close"}
        expected = [
            field
            for field in came
            if field[0].translate(AS_BACKENDS_READ) not in special
            and not field[0].translate(AS_BACKENDS_READ).startswith((b"x-scalingo-", b"scalingo-"))
            and field[0] not in named
        ]
        self.assertEqual([field for field in sent if field[0] not in special], expected)

    def check_oracles(self, words: bytes, again: Message) -> None:
        self.assertEqual(h11_requests(words).whole, [seen(again)], words)
        if again.head.method in LLHTTP_METHODS:  # type: ignore[union-attr]
            self.assertEqual(llhttp_reading(words).whole, [seen(again)], words)

    @examples(200)
    @given(requests, st.sampled_from([untrusted, trusted]))
    def test_valid(self, data: bytes, identity: ClientIdentity) -> None:
        """Read again, by us, llhttp and h11: the same request, hop-by-hop gone, ours there once."""
        for message in fed(RequestStream(), [data]).messages:
            self.check(message, identity)

    @examples(300)
    @given(request_streams, st.sampled_from([untrusted, trusted]))
    def test_any(self, data: bytes, identity: ClientIdentity) -> None:
        """Whatever was accepted travels on as a strictly valid request."""
        for message in fed(RequestStream(), [data]).messages:
            self.check(message, identity)

    def test_chunked_by_us(self) -> None:
        """A body that another protocol framed goes on in chunks."""
        head = RequestHead(b"POST", b"/", 1)
        head.framing = Framing(FramingKind.CHUNKED)
        words = request_head_for_backend(head, untrusted, REQUEST_ID, 1.5)
        self.assertEqual(words.count(b"Transfer-Encoding: chunked\r\n"), 1)

    def test_chunked_once(self) -> None:
        """A chunked request says so once, where the client did."""
        head = head_of(b"Transfer-Encoding: CHUNKED", b"A: b", start=b"POST / HTTP/1.1")
        words = request_head_for_backend(head, untrusted, REQUEST_ID, 1.5)
        self.assertIn(b"\r\nTransfer-Encoding: chunked\r\nA: b\r\n", words)
        self.assertEqual(words.lower().count(b"transfer-encoding"), 1)

    def test_start(self) -> None:
        """The time is in seconds, with milliseconds."""
        words = request_head_for_backend(head_of(), untrusted, REQUEST_ID, 1_700_000_000.1234)
        self.assertIn(b"X-Request-Start: t=1700000000.123\r\n", words)


class ClientIdentityTests(SynchronousTestCase):
    """Who the client is."""

    def test_untrusted(self) -> None:
        """The peer, whatever it says."""
        head = head_of(b"X-Forwarded-For: 198.51.100.7", b"X-Forwarded-Proto: https")
        self.assertFalse(untrusted.trusted)
        self.assertEqual(untrusted.client_address(head), "192.0.2.1")
        self.assertEqual(untrusted.client_scheme(head), "http")

    def test_trusted(self) -> None:
        """The right-most address that is not trusted."""
        for told, expected in [
            (b"198.51.100.7", "198.51.100.7"),
            (b"203.0.113.1, 198.51.100.7", "198.51.100.7"),
            (b"198.51.100.7, 10.1.1.1, 10.2.2.2", "198.51.100.7"),
            (b"10.1.1.1,10.2.2.2", "10.1.1.1"),
            (b"198.51.100.7, nonsense, 10.2.2.2", "10.2.2.2"),
            (b"nonsense", "10.0.0.9"),
            (b",, ", "10.0.0.9"),
            (b"2001:DB8::0007", "2001:db8::7"),
            (b"::ffff:198.51.100.7", "198.51.100.7"),
            (b"::ffff:10.1.1.1", "10.1.1.1"),
            (b"fe80::1%eth0", "10.0.0.9"),
            (b"[2001:db8::7]:443", "10.0.0.9"),
            (b"198.51.100.7:443", "10.0.0.9"),
            (b"198.51.100.007", "10.0.0.9"),
            (b"\xd9\xa1.2.3.4", "10.0.0.9"),
        ]:
            head = head_of(b"X-Forwarded-For: " + told)
            self.assertEqual(trusted.client_address(head), expected, told)
            self.assertIn(b"X-Real-IP: " + expected.encode() + b"\r\n", trusted.lines(head))

    def test_scheme(self) -> None:
        """A trusted peer tells how it was asked, if it says so in plain words."""
        for told, expected in [
            (b"http", "http"),
            (b"HTTPS", "https"),
            (b"ws", "https"),
            (b"http, x", "https"),
        ]:
            self.assertEqual(trusted.client_scheme(head_of(b"X-Forwarded-Proto: " + told)), expected)
        self.assertEqual(trusted.client_scheme(head_of()), "https")

    @examples(100)
    @given(st.binary(max_size=30))
    def test_any_chain(self, told: bytes) -> None:
        """Whatever stands in the chain: lines that can be sent, and an address that is one."""
        head = RequestHead(b"GET", b"/", 1)
        head.special = {b"x-forwarded-for": [told.translate(None, bytes(range(32)) + b"\x7f")]}
        lines = trusted.lines(head)
        self.assertEqual(lines.count(b"\r\n"), 4)
        self.assertTrue(lines.isascii())
        self.assertIn(b", 10.0.0.9\r\n" if b", " in lines else b"10.0.0.9\r\n", lines)

    def test_no_address(self) -> None:
        """The peer of a unix socket has none, and none is made up."""
        local = ClientIdentity("", "http", 80, None)
        self.assertEqual(local.lines(head_of()), b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\n")
        self.assertEqual(local.client_address(head_of()), "")


class RequestIdTests(SynchronousTestCase):
    """Which ids of a client are kept."""

    def test_kept(self) -> None:
        """20 to 128 of A-Za-z0-9+=/-, the first that is."""
        for value in (b"a" * 20, b"A" * 128, b"aZ09+=/-" * 3):
            self.assertEqual(acceptable_request_id([b"bad", value, b"b" * 20]), value)

    def test_replaced(self) -> None:
        """Anything else is not."""
        for value in (b"", b"a" * 19, b"a" * 129, b"a" * 20 + b"_", b"a" * 20 + b" b", b"\xe9" * 20):
            self.assertIsNone(acceptable_request_id([value]))
        self.assertIsNone(acceptable_request_id([]))


class ResponseRewritingTests(SynchronousTestCase):
    """The response head that a client reads."""

    def check(self, message: Message) -> None:
        head = message.head
        assert isinstance(head, ResponseHead)
        if head.status < 200:
            words = informational_head(head)
            stream = fed(ResponseStream(), [words])
            self.assertEqual(seen(stream.messages[0]).start, seen(message).start)
            return
        for keep_alive in (True, False):
            words = response_head_for_client(head, 1, keep_alive)
            words += framed(head.framing, message.body, message.trailers)
            stream = fed(ResponseStream(), [words])
            expected = (1, READY if keep_alive else CLOSES)
            self.assertEqual((len(stream.messages), stream.stands), expected, (words, stream.detail))
            again = stream.messages[0]
            self.assertEqual(seen(again).start, seen(message).start)
            self.assertEqual((again.body, again.trailers), (message.body, relayed_trailers(message.trailers)))
            self.check_fields(message, again, keep_alive)
            self.assertEqual(h11_responses(words, [b"GET"], closed=False).whole, [seen(again)], words)
            self.assertEqual(llhttp_reading(words, httptools.HttpResponseParser).whole, [seen(again)], words)

    def check_fields(self, message: Message, again: Message, keep_alive: bool) -> None:
        sent = seen(again).fields
        names = [name for name, _ in sent]
        self.assertEqual(names.count(b"connection"), not keep_alive)
        self.assertFalse(
            [
                name
                for name in names
                if name in (b"keep-alive", b"upgrade", b"x-scalingo-error", b"proxy-connection")
            ]
        )
        came = seen(message).fields
        named = {token for name, value in came if name == b"connection" for token in split_list(value)}
        ours = {b"connection", b"content-length", b"transfer-encoding"}
        dropped = ours | named | {b"keep-alive", b"upgrade", b"x-scalingo-error"}
        expected = [field for field in came if field[0] not in dropped and not field[0].startswith(b"proxy-")]
        self.assertEqual([field for field in sent if field[0] not in ours], expected)

    @examples(200)
    @given(responses)
    def test_valid(self, data: bytes) -> None:
        """Read again, by us, llhttp and h11: the same response, hop-by-hop gone."""
        stream = fed(ResponseStream(), [data])
        stream.close()
        for message in stream.messages:
            self.check(message)

    @examples(200)
    @given(response_streams)
    def test_any(self, data: bytes) -> None:
        """Whatever was accepted travels on as a strictly valid response."""
        stream = fed(ResponseStream([b"GET"] * 3), [data])
        stream.close()
        for message in stream.messages:
            self.check(message)

    def test_http10_client(self) -> None:
        """An HTTP/1.0 client gets no chunks: a body without a length ends with the connection."""
        head = ResponseHead(200, b"OK", 1)
        head.framing = Framing(FramingKind.CHUNKED)
        words = response_head_for_client(head, 0, keep_alive=False)
        self.assertEqual(words, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")

    def test_http10_client_goes_on(self) -> None:
        """An HTTP/1.0 client must be told that the connection goes on."""
        head = ResponseHead(200, b"OK", 1)
        head.fields = [(b"Content-Length", b"0")]
        head.framing = Framing(FramingKind.LENGTH)
        self.assertIn(b"Connection: keep-alive\r\n", response_head_for_client(head, 0, keep_alive=True))

    def test_last_lines(self) -> None:
        """Lines of ours stand behind those of the backend."""
        head = ResponseHead(200, b"", 1)
        head.fields = [(b"A", b"b")]
        head.framing = Framing(FramingKind.UNTIL_CLOSE)
        words = b"HTTP/1.1 200 \r\nA: b\r\nTransfer-Encoding: chunked\r\n"
        self.assertEqual(response_head_for_client(head, 1, keep_alive=True), words + b"\r\n")
        self.assertEqual(
            response_head_for_client(head, 1, keep_alive=False), words + b"Connection: close\r\n\r\n"
        )

    def test_switch(self) -> None:
        """A 101 names the protocol, and itself hop-by-hop."""
        head = ResponseHead(101, b"Switching Protocols", 1)
        head.fields = [(b"Sec-WebSocket-Accept", b"x")]
        head.upgrade = b"websocket"
        self.assertEqual(
            informational_head(head),
            b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n"
            b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        )


class TrailerTests(SynchronousTestCase):
    """Which trailers travel on."""

    def test_relayed(self) -> None:
        """Order, case and repetition are kept."""
        trailers = [(b"X-B", b"1"), (b"server-timing", b"x"), (b"X-B", b"2"), (b"grpc-status", b"0")]
        self.assertEqual(relayed_trailers(trailers), trailers)

    def test_stay_behind(self) -> None:
        """Names that frame, route or authenticate, in any spelling."""
        names = (
            b"Transfer-Encoding CONTENT-LENGTH host connection Authorization Cookie set-cookie TE Trailer "
            b"X-Forwarded-For x_forwarded_for X.Real.IP X~Request~ID X-Scalingo-Error scalingo-x Proxy "
            b"Proxy-Authorization WWW-Authenticate Expect Keep-Alive Location Content-Type Upgrade Forwarded"
        ).split()
        self.assertEqual(relayed_trailers([(name, b"x") for name in names]), [])
