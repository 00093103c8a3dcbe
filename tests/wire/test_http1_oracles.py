"""Where we accept, llhttp and h11 see the same messages, or the difference stands in a list here.

A difference in what two parsers see is how requests are smuggled; most
backends are built on one of these two, or on something like them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import attrs
import httptools
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.http1_head import RequestHead
from tests.corpus import load_cases
from tests.wire.http1_oracles import Reading, Seen, h11_requests, h11_responses, llhttp_reading, seen
from tests.wire.http1_strategies import examples, request_streams, requests, response_streams, responses
from tests.wire.http1_streams import CLOSES, CUT, READY, WAITS, Message, RequestStream, ResponseStream


@attrs.frozen
class Difference:
    """A kind of message that an oracle takes otherwise, and why we keep to ours.

    :ivar applies: whether a message that we accepted is of this kind; from
        there on the oracle's reading is not comparable.
    :ivar example: a stream whose first message is of this kind.
    """

    reason: str
    applies: Callable[[Message], bool]
    example: bytes


LLHTTP_METHODS = frozenset(
    b"GET POST HEAD PUT DELETE OPTIONS PATCH COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND "
    b"REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE "
    b"MKCALENDAR LINK UNLINK SOURCE QUERY".split()
)
_HEAD = b"POST / HTTP/1.1\r\nHost: app.test\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def _special(message: Message, name: bytes) -> list[bytes]:
    return [value.lower() for field, value in seen(message).fields if field == name]


def _has_later_version(message: Message) -> bool:
    line = message.block[: message.block.index(b"\r\n")]
    return re.search(rb"HTTP/1\.[2-9]", line) is not None


def _has_blanks_in_extensions(message: Message) -> bool:
    return re.search(rb";[ \t]|[ \t]=|=[ \t]", message.raw[len(message.block) :]) is not None


def _has_framing_trailers(message: Message) -> bool:
    framing = (b"content-length", b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade")
    return any(name.lower() in framing for name, _ in message.trailers)


_LLHTTP_BOTH = [
    Difference(
        "llhttp knows 1.0 and 1.1; RFC 9110 section 2.5 has a later minor version read like the latest known",
        _has_later_version,
        b"GET / HTTP/1.2\r\nHost: app.test\r\n\r\n",
    ),
    Difference(
        "llhttp refuses the blanks in chunk extensions that RFC 9112 section 7.1.1 has recipients read over; "
        "the extension is dropped",
        _has_blanks_in_extensions,
        _CHUNKED + b"5; a=b\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        "llhttp lets trailers act like fields of the head; none of those names is relayed",
        _has_framing_trailers,
        _CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    ),
    Difference(
        "llhttp refuses a blank behind the word chunked; it travels on without",
        lambda message: re.search(rb"(?i)\ntransfer-encoding:[^\r\n]*[ \t]\r", message.block) is not None,
        _HEAD + b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "llhttp takes Proxy-Connection for Connection and reads no further behind close; it never travels on",
        lambda message: b"close" in b",".join(_special(message, b"proxy-connection")),
        _HEAD + b"Proxy-Connection: close\r\n\r\n",
    ),
]
_LLHTTP_REQUESTS = [
    *_LLHTTP_BOTH,
    Difference(
        "llhttp knows a list of methods; an unknown token is the app's to judge",
        lambda message: message.block.split(b" ")[0] not in LLHTTP_METHODS,
        b"FOO / HTTP/1.1\r\nHost: app.test\r\n\r\n",
    ),
    Difference(
        "llhttp leaves the body of an upgrade request to the new protocol; we relay no upgrade with a body",
        lambda message: message.head.framing.has_body and bool(_special(message, b"upgrade")),
        _HEAD + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhello",
    ),
]
_LLHTTP_RESPONSES = [
    *_LLHTTP_BOTH,
    Difference(
        "llhttp reads no further behind an interim response that says close; the final one says what counts",
        lambda message: message.block[9:10] == b"1" and not message.head.keep_alive,
        b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n",
    ),
    Difference(
        "llhttp goes on parsing behind a 101, or stops, as its caller wishes; for us the tunnel begins",
        lambda message: message.block[9:12] == b"101",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ),
]
_H11_BOTH = [
    Difference(
        "h11 judges the framing fields in trailers like those of a head; none of them is relayed",
        _has_framing_trailers,
        _CHUNKED + b"0\r\nTransfer-Encoding: gzip\r\n\r\n",
    ),
]
_H11_REQUESTS = [
    *_H11_BOTH,
    Difference(
        "h11 refuses a length of more than 20 digits; leading zeros are legal, and do not travel on",
        lambda message: any(len(value) > 20 for value in _special(message, b"content-length")),
        _HEAD + b"Content-Length: 000000000000000000005\r\n\r\nhello",
    ),
    Difference(
        "h11 ignores no empty line in front of a request; RFC 9112 section 2.2 asks us to",
        lambda message: message.raw.startswith(b"\r\n"),
        b"\r\nGET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
    ),
    Difference(
        "h11 closes behind every HTTP/1.0 request, kept alive or not",
        lambda message: isinstance(message.head, RequestHead) and message.head.version == 0,
        b"GET / HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n",
    ),
]
_H11_RESPONSES = [
    *_H11_BOTH,
    Difference(
        "h11 closes behind every HTTP/1.0 response, kept alive or not",
        lambda message: message.head.version == 0 and message.head.keep_alive,
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    ),
    Difference(
        "h11 refuses a 101 that no request asked for; so does the exchange, which knows the request",
        lambda message: message.block[9:12] == b"101",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ),
]


def _plain(messages: list[Seen]) -> list[Seen]:
    """h11 writes transfer codings in lower case."""
    return [
        attrs.evolve(
            message,
            fields=[(n, v.lower() if n == b"transfer-encoding" else v) for n, v in message.fields],
        )
        for message in messages
    ]


class OracleTestCase(SynchronousTestCase):
    """Compares our reading of a stream with an oracle's."""

    def agree(
        self,
        stream: RequestStream | ResponseStream,
        reading: Reading,
        differences: Sequence[Difference],
        data: bytes,
    ) -> None:
        comparable = []
        for message in stream.messages:
            if any(difference.applies(message) for difference in differences):
                break
            comparable.append(seen(message))
        ours, theirs = _plain(comparable), _plain(reading.whole)
        self.assertEqual(ours, theirs[: len(ours)], f"{data!r}: {reading.error}")
        if len(comparable) < len(stream.messages) or reading.error:
            return
        unfinished = stream.unfinished
        if unfinished is not None and any(difference.applies(unfinished) for difference in differences):
            return
        if stream.stands in (READY, WAITS, CUT):
            # Nor does the oracle see a message that is none to us.
            self.assertEqual(len(ours), len(theirs), f"{data!r}: {stream.stands}")
            self.assertEqual(stream.partial_body, reading.partial, repr(data))

    def requests_agree(self, data: bytes) -> None:
        stream = RequestStream()
        stream.receive(data)
        self.agree(stream, llhttp_reading(data), _LLHTTP_REQUESTS, data)
        self.agree(stream, h11_requests(data), _H11_REQUESTS, data)

    def responses_agree(self, data: bytes, closed: bool) -> None:
        methods = [b"GET"] * 3
        stream = ResponseStream(methods)
        stream.receive(data)
        if closed:
            stream.close()
        self.agree(stream, h11_responses(data, methods, closed), _H11_RESPONSES, data)
        reading = llhttp_reading(data, httptools.HttpResponseParser)
        if closed and stream.stands == CLOSES and len(reading.whole) < len(stream.messages):
            # httptools cannot be told that the stream is over.
            last = seen(stream.messages[-1])
            reading.whole.append(Seen(last.start, last.fields, reading.partial))
        self.agree(stream, reading, _LLHTTP_RESPONSES, data)


class RequestOracleTests(OracleTestCase):
    """Requests: we, llhttp and h11."""

    @examples(400)
    @given(request_streams)
    def test_streams(self, data: bytes) -> None:
        """Valid, damaged and spliced streams."""
        self.requests_agree(data)

    @examples(150)
    @given(requests)
    def test_valid_requests(self, data: bytes) -> None:
        """What is valid is accepted, and seen alike."""
        stream = RequestStream()
        stream.receive(data)
        self.assertEqual(len(stream.messages), 1, f"{data!r}: {stream.stands} {stream.detail}")
        self.requests_agree(data)

    def test_corpus(self) -> None:
        """Every case of the corpus."""
        for case in load_cases("requests"):
            self.requests_agree(case.input)


class ResponseOracleTests(OracleTestCase):
    """Responses: we, llhttp and h11."""

    @examples(300)
    @given(response_streams)
    def test_open_streams(self, data: bytes) -> None:
        """Valid, damaged and spliced streams on a connection that stays open."""
        self.responses_agree(data, closed=False)

    @examples(150)
    @given(response_streams)
    def test_closed_streams(self, data: bytes) -> None:
        """Valid, damaged and spliced streams on a connection that ends."""
        self.responses_agree(data, closed=True)

    @examples(150)
    @given(responses)
    def test_valid_responses(self, data: bytes) -> None:
        """What is valid is accepted, and seen alike."""
        stream = ResponseStream()
        stream.receive(data)
        stream.close()
        self.assertEqual(len(stream.messages), 1, f"{data!r}: {stream.stands} {stream.detail}")
        self.responses_agree(data, closed=True)

    def test_corpus(self) -> None:
        """Every case of the corpus."""
        for case in load_cases("responses"):
            if case.methods == [b"GET"]:
                self.responses_agree(case.input, case.closed)

    def test_head(self) -> None:
        """h11 agrees on responses to HEAD; llhttp cannot be told of it."""
        for case in load_cases("responses"):
            if b"HEAD" in case.methods:
                stream = ResponseStream(case.methods)
                stream.receive(case.input)
                reading = h11_responses(case.input, case.methods, closed=False)
                self.agree(stream, reading, _H11_RESPONSES, case.input)


class DifferenceTests(SynchronousTestCase):
    """The lists themselves."""

    def test_examples(self) -> None:
        """Each difference is shown by an example that we accept and it covers."""
        for difference in {*_LLHTTP_REQUESTS, *_LLHTTP_RESPONSES, *_H11_REQUESTS, *_H11_RESPONSES}:
            is_response = difference.example.startswith(b"HTTP/")
            stream = ResponseStream() if is_response else RequestStream()
            stream.receive(difference.example)
            self.assertEqual(len(stream.messages), 1, difference.reason)
            self.assertTrue(difference.applies(stream.messages[0]), difference.reason)
