"""A head that was read before is what reading it again would give, and nobody can change it for others."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ProxyError, UriTooLong
from scalingo_proxy.model import Limits
from scalingo_proxy.wire import http1_response, known_requests, repeated
from scalingo_proxy.wire.http1_body import Framing, FramingKind
from scalingo_proxy.wire.http1_forwarding import (
    ClientIdentity,
    informational_head,
    request_head_for_backend,
    response_head_for_client,
)
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead, rewrite_field
from scalingo_proxy.wire.http1_request import parse_request_head
from scalingo_proxy.wire.http1_response import forget_unused_responses, parse_response_head
from scalingo_proxy.wire.known_requests import LONGEST_WHOLE, forget_unused_requests, recent_request
from tests.corpus import load_cases
from tests.wire.http1_strategies import built, examples, request_streams, response_streams

IDENTITIES = [
    ClientIdentity("192.0.2.1", "http", 80, None),
    ClientIdentity("10.0.0.9", "https", 443, lambda address: address.startswith("10.")),
]
LARGE = Limits()
SMALL = Limits(request_line_bytes=100, head_bytes=600, header_bytes=80)

#: A section means something else behind each of these, or nothing at all.
LINES = [
    b"GET / HTTP/1.1",
    b"GET /path?query HTTP/1.1",
    b"POST /path HTTP/1.1",
    b"GET http://[::1]:80/path HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET / HTTP/1.0",
    b"GET / HTTP/1.9",
    b"GET / HTTP/2.0",
    b"CONNECT app.test:443 HTTP/1.1",
    b"GET /" + b"x" * 100 + b" HTTP/1.1",
    b"GET x HTTP/1.1",
]


def forget() -> None:
    for _ in range(2):
        forget_unused_requests()
        forget_unused_responses()


def read(block: bytes, limits: Limits) -> RequestHead:
    """What a connection does when a head comes whole."""
    head = recent_request(block) if len(block) <= LONGEST_WHOLE else None
    return head if head is not None and head.limits is limits else parse_request_head(block, limits)


def told(block: bytes, limits: Limits) -> Any:
    """Everything that can be seen of a head, in the backend's words, too; or the error it is."""
    try:
        return seen_of(read(block, limits))
    except ProxyError as error:
        return type(error), error.detail


def seen_of(head: RequestHead) -> dict[str, Any]:
    known = ("limits", "lines", "special", "words")
    names = [name for name in RequestHead.__slots__ if name[0] != "_" and name not in known]
    seen: dict[str, Any] = {name: getattr(head, name) for name in names}
    seen["special"] = dict(head.special)
    seen["fields"] = head.fields
    seen["words"] = [
        request_head_for_backend(head, identity, b"0" * 32, 1700000000.0) for identity in IDENTITIES
    ]
    return seen


def told_words(head: RequestHead) -> bytes:
    return request_head_for_backend(head, IDENTITIES[0], b"0" * 32, 1.0)


def sections(streams: Iterable[bytes]) -> list[bytes]:
    """The header section behind each first line, each with the empty line that ends it."""
    found = []
    for stream in streams:
        block, end, _rest = stream.partition(b"\r\n\r\n")
        _line, _, section = block.partition(b"\r\n")
        if end:
            found.append(section + b"\r\n\r\n" if section else b"\r\n")
    return found


#: What changes from request to request, and what only seems to.
REQUEST_CHANGES = [
    (b"Host: ", [b"app.test", b"APP.test:80", b"[::1]", b"a b", b"x ", b" x", b"", b"a,b", b"%b"]),
    (b"host: ", [b"app.test"]),
    (b"HOST: ", [b"other.test"]),
    (b"Host:", [b"app.test"]),
    (b"Cookie: ", [b"a=b", b"", b"a\tb", b"\xff", b"\x7f", b"\0", b"a\nHost: x", b"x "]),
    (b"cookie: ", [b"%b%%"]),
    (b"X-Forwarded-For: ", [b"192.0.2.7", b"10.0.0.1, 192.0.2.7", b"x"]),
    (b"X-FORWARDED-FOR: ", [b"192.0.2.8"]),
    (b"x_forwarded_for: ", [b"192.0.2.9"]),
    (b"X-Request-ID: ", [b"0123456789abcdef0123456789", b"x"]),
    (b"Connection: ", [b"close", b"keep-alive", b"Cookie", b"close, Host, X-Forwarded-For", b"upgrade"]),
    (b"Upgrade: ", [b"websocket"]),
    (b"Expect: ", [b"100-continue"]),
    (b"Content-Length: ", [b"0", b"5", b"17", b"007", b"5 ", b"+5", b"", b"9" * 18, b"9" * 19]),
    (b"content-length: ", [b"3"]),
    (b"Transfer-Encoding: ", [b"chunked", b"Chunked", b"gzip"]),
    (b"TE: ", [b"trailers"]),
    (b"X-Scalingo-Error: ", [b"x"]),
    (b"Accept: ", [b"*/*", b"100%"]),
]
_REQUEST_LINES = [name + value for name, values in REQUEST_CHANGES for value in values]


def _section_of_changes(by: Random) -> bytes:
    host = [b"Host: a.test"] if by.random() < 0.5 else []
    return b"\r\n".join([*host, *by.choices(_REQUEST_LINES, k=by.randint(0, 4)), b"", b""])


sections_of_changes = built(_section_of_changes)


class KnownRequestsTests(SynchronousTestCase):
    """Cold and warm, the same."""

    def setUp(self) -> None:
        forget()
        self.addCleanup(forget)
        self.patch(repeated, "_PATIENCE", 10**9)

    def check(self, blocks: list[bytes], limits: Limits) -> int:
        """Each block alone, then all of them in turn, several times over; gives how many were known."""
        cold = []
        for block in blocks:
            forget()
            cold.append(told(block, limits))
        forget()
        for _ in range(6):
            self.assertEqual([told(block, limits) for block in blocks], cold)
        known = (known_requests._wholes, known_requests._sections.recent, known_requests._forms.recent)
        return sum(map(len, known))

    def test_corpus(self) -> None:
        """Every case of the corpus, as it is and behind every other request line."""
        cases = [case.input for case in load_cases("requests")]
        known = 0
        for section in sections(cases):
            forget()
            known += self.check([line + b"\r\n" + section for line in LINES], LARGE)
        self.assertGreater(known, 500)

    def test_corpus_together(self) -> None:
        """All cases in one go: none gets what another was found to be."""
        cases = [case.input for case in load_cases("requests")]
        blocks = [b"GET / HTTP/1.1\r\n" + section for section in sections(cases)]
        self.check(blocks, LARGE)
        self.check(blocks, SMALL)

    @given(st.lists(request_streams, min_size=1, max_size=4), st.sampled_from([LARGE, SMALL]))
    @examples(120)
    def test_random(self, streams: list[bytes], limits: Limits) -> None:
        """Whatever comes, behind any line and in any company."""
        self.check([line + b"\r\n" + section for section in sections(streams) for line in LINES], limits)

    @given(st.lists(sections_of_changes, min_size=1, max_size=5))
    @examples(250)
    def test_changes(self, changed: list[bytes]) -> None:
        """Sections that differ in what is left blank, or only look like it."""
        self.check([line + b"\r\n" + section for section in changed for line in LINES[:3]], LARGE)

    def test_filled_in(self) -> None:
        """Host, address, id and order are those of each request."""
        for number in range(5):
            told = b"%d" % number
            lines = b"Host: %b.test\r\nA: b\r\nX-Forwarded-For: %b\r\nCookie: %b\r\n\r\n" % (told, told, told)
            head = parse_request_head(b"GET / HTTP/1.1\r\n" + lines, Limits())
            self.assertEqual(bool(head.lines), number > 1)
            self.assertEqual(head.host, f"{number}.test")
            self.assertEqual(head.special, {b"host": (told + b".test",), b"x-forwarded-for": (told,)})
            self.assertEqual(head.fields, ((b"Host", told + b".test"), (b"A", b"b"), (b"Cookie", told)))

    def test_twice(self) -> None:
        """Two fields of a name that decides something are told apart; that the form is no good is known."""
        for _ in range(4):
            block = b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: a\r\nX-Forwarded-For: b\r\n\r\n"
            head = parse_request_head(block, Limits())
            self.assertEqual(head.special[b"x-forwarded-for"], (b"a", b"b"))
            known_requests._sections.recent.clear()
        ((_, known),) = known_requests._forms.recent.items()
        self.assertFalse(known.is_exact)
        self.assertGreater(known_requests._forms.misses, 0)

    def test_length(self) -> None:
        """The length of a body is that of each request."""
        for number in range(5):
            section = b"Host: app.test\r\nContent-Length: %d\r\n\r\n" % number
            head = parse_request_head(b"POST / HTTP/1.1\r\n" + section, Limits())
            self.assertEqual(bool(head.lines), number > 1)
            self.assertEqual(head.framing, Framing(FramingKind.LENGTH, number))
            self.assertIn(b"\r\nContent-Length: %d\r\n" % number, told_words(head))

    def test_no_secrets(self) -> None:
        """A form holds nothing of what was filled into it."""
        for number in range(3):
            block = b"GET / HTTP/1.1\r\nHost: app.test\r\nCookie: secret-%d\r\n\r\n" % number
            parse_request_head(block, Limits())
        ((key, known),) = known_requests._forms.recent.items()
        held = [key, known.form._fields, known.form._words, known._special]
        self.assertNotIn("secret", repr(held))
        self.assertEqual(known_requests._sections.recent, {})

    def test_limits(self) -> None:
        """What is known is held against the limits of whoever asks."""
        block = b"GET / HTTP/1.1\r\nHost: app.test\r\nA: " + b"x" * 100 + b"\r\n\r\n"
        cold = told(block, SMALL)
        for _ in range(6):
            self.assertIsInstance(told(block, LARGE), dict)
        self.assertIs(read(block, LARGE), read(block, LARGE))
        self.assertEqual(told(block, SMALL), cold)

    def test_other_limits(self) -> None:
        """Where two sets of limits take turns, each request is held against its own."""
        block = b"GET /" + b"x" * 70 + b" HTTP/1.1\r\nHost: app.test\r\n\r\n"
        tight = Limits(request_line_bytes=50)
        for _ in range(6):
            self.assertIsInstance(told(block, LARGE), dict)
            self.assertEqual(told(block, tight)[0], UriTooLong)
            self.assertIsInstance(told(block, SMALL), dict)

    def test_whole(self) -> None:
        """A request that came a few times is known by all of it, and is what it was."""
        block = b"GET /a?b HTTP/1.1\r\nHost: app.test\r\nX-Request-ID: 0123456789abcdef0123\r\n\r\n"
        for _ in range(5):
            head = read(block, LARGE)
        self.assertIs(recent_request(block), head)
        self.assertTrue(head.words)
        self.assertEqual((head.method_text, head.target_text), ("GET", "/a?b"))
        self.assertEqual(head.told_id, "0123456789abcdef0123")
        self.assertIs(read(block, LARGE), head)

    def test_whole_is_forgotten(self) -> None:
        """Nothing of it is held when a minute is over, however often it came."""
        block = b"GET /secret HTTP/1.1\r\nHost: app.test\r\n\r\n"
        for _ in range(6):
            read(block, LARGE)
        self.assertIsNotNone(recent_request(block))
        forget_unused_requests()
        self.assertIsNone(recent_request(block))
        self.assertEqual(set(known_requests._came), {0})

    def test_most_whole(self) -> None:
        """There is an end to what is known; who comes first stays, and nobody else is told wrong."""
        self.patch(known_requests, "_MOST_WHOLE", 3)
        self.patch(known_requests, "_PLACES", 8)  # so that marks take each other's place
        blocks = [b"GET /%d HTTP/1.1\r\nHost: app.test\r\n\r\n" % number for number in range(20)]
        for number, block in enumerate(blocks):
            for _ in range(5):
                self.assertEqual(read(block, LARGE).target, b"/%d" % number)
        self.assertEqual(list(known_requests._wholes), blocks[:3])
        for number, block in enumerate(blocks):
            self.assertEqual(read(block, LARGE).target, b"/%d" % number)

    def test_long(self) -> None:
        """Long heads are not kept whole."""
        block = b"GET /%b HTTP/1.1\r\nHost: app.test\r\n\r\n" % (b"x" * LONGEST_WHOLE)
        for _ in range(6):
            self.assertEqual(len(read(block, LARGE).target), LONGEST_WHOLE + 1)
        self.assertEqual(known_requests._wholes, {})


def told_of(block: bytes, method: bytes) -> Any:
    """Everything that can be seen of a response head; or the error it is."""
    try:
        head = parse_response_head(block, method)
    except ProxyError as error:
        return type(error), error.detail
    names = [name for name in ResponseHead.__slots__ if name[0] != "_" and name != "words"]
    seen: dict[str, Any] = {name: getattr(head, name) for name in names}
    # Before the fields were asked for, and after.
    words = [words_of(head)]
    seen["fields"] = head.fields
    words.append(words_of(head))
    seen["words"] = words
    return seen


def words_of(head: ResponseHead) -> list[bytes]:
    """A response head in all words that a client may read."""
    ways = [(version, keep_alive) for version in (0, 1) for keep_alive in (False, True)]
    return [informational_head(head), *[response_head_for_client(head, *way) for way in ways]]


#: What changes from answer to answer, and what only seems to.
CHANGES = [
    (
        b"Date: ",
        [b"Fri, 27 Nov 2026 15:00:00 GMT", b"x", b"", b"x ", b" x", b"%b%%", b"a\tb", b"\xff", b"\x7f"],
    ),
    (b"date:", [b"x", b" x"]),
    (
        b"Content-Length: ",
        [b"0", b"5", b"123", b"007", b"5 ", b" 5", b"-1", b"", b"1_0", b"9" * 18, b"9" * 19],
    ),
    (b"content-length: ", [b"0", b"17", b"00"]),
    (b"CONTENT-LENGTH: ", [b"3"]),
    (b"ETag: ", [b'"%d"', b'W/"x"']),
    (b"Set-Cookie: ", [b"a=b", b"a=b; path=/"]),
    (b"Connection: ", [b"close", b"keep-alive", b"close, Date", b"ETag"]),
    (b"Transfer-Encoding: ", [b"chunked"]),
    (b"X-Scalingo-Error: ", [b"x"]),
    (b"Server: ", [b"nginx", b"100%"]),
]
_LINES = [name + value for name, values in CHANGES for value in values]
_STATUS_LINES = [
    *(b"HTTP/1.1 %b" % words for words in (b"200 OK", b"200 100%b", b"204 x", b"304 x", b"103 x", b"500")),
    b"HTTP/1.0 200 OK",
]
heads = built(
    lambda by: b"\r\n".join([by.choice(_STATUS_LINES), *by.choices(_LINES, k=by.randint(0, 5)), b"", b""])
)


class KnownResponsesTests(SynchronousTestCase):
    """The same for what backends send."""

    def setUp(self) -> None:
        forget()
        self.addCleanup(forget)
        self.patch(repeated, "_PATIENCE", 10**9)

    def check(self, blocks: list[bytes]) -> int:
        asked = [(block, method) for block in blocks for method in (b"GET", b"HEAD", b"POST")]
        cold = []
        for block, method in asked:
            forget()
            cold.append(told_of(block, method))
        forget()
        for _ in range(3):
            self.assertEqual([told_of(*one) for one in asked], cold)
        return len(http1_response._forms.recent)

    def test_corpus(self) -> None:
        """Every case of the corpus, alone and all together."""
        inputs = [case.input for case in load_cases("responses")]
        blocks = [start + end for start, end, _ in (data.partition(b"\r\n\r\n") for data in inputs)]
        self.assertGreater(self.check(blocks), 20)
        for block in blocks:
            self.check([block])

    @given(st.lists(response_streams, min_size=1, max_size=4))
    @examples(120)
    def test_random(self, streams: list[bytes]) -> None:
        """Whatever comes."""
        self.check([start + end for start, end, _ in (data.partition(b"\r\n\r\n") for data in streams)])

    @given(st.lists(heads, min_size=1, max_size=6))
    @examples(400)
    def test_changes(self, blocks: list[bytes]) -> None:
        """Heads that differ in what is left blank, or only look like it."""
        self.check(blocks)

    def test_filled_in(self) -> None:
        """The length, the date and the order are those of each answer."""
        for number in range(5):
            block = b"HTTP/1.1 200 OK\r\nDate: %d\r\nA: b\r\nContent-Length: %d\r\n\r\n" % (number, number)
            head = parse_response_head(block, b"GET")
            self.assertEqual(bool(head.words), number > 1)
            self.assertEqual(head.framing.length, number)
            self.assertEqual(response_head_for_client(head, 1, True), block)
            told = b"%d" % number
            self.assertEqual(head.fields, ((b"Date", told), (b"A", b"b"), (b"Content-Length", told)))

    def test_no_content(self) -> None:
        """A 204 that announces a body is not taken for one that does not."""
        for length, keep_alive in [(b"0", True), (b"0", True), (b"0", True), (b"5", False), (b"0", True)]:
            head = parse_response_head(b"HTTP/1.1 204 x\r\nContent-Length: %b\r\n\r\n" % length, b"GET")
            self.assertIs(head.keep_alive, keep_alive)

    def test_further_field(self) -> None:
        """A field that is added goes out, too, and to nobody else."""
        block = b"HTTP/1.1 200 OK\r\nDate: 1\r\n\r\n"
        for _ in range(4):
            head = parse_response_head(block, b"GET")
            self.assertEqual(head.fields, ((b"Date", b"1"),))
            further = head.with_field(b"A", b"b")
            self.assertIsNone(further.filled)
            for words in words_of(further):
                self.assertIn(b"\r\nA: b\r\n", words)

    def test_shared(self) -> None:
        """A whole head that came before is the same for all, and its fields cannot be changed."""
        block = b"HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 0\r\n\r\n"
        for _ in range(4):
            parse_response_head(block, b"GET")
        head = parse_response_head(block, b"GET")
        self.assertIs(parse_response_head(block, b"POST"), head)
        with self.assertRaises(AttributeError):
            head.fields = ()
        self.assertRaises(AttributeError, rewrite_field, head, b"date", b"2")
        self.assertIsNot(parse_response_head(block, b"HEAD"), head)


class SharingTests(SynchronousTestCase):
    """What several requests are given cannot be changed by one of them."""

    BLOCK = b"GET / HTTP/1.1\r\nHost: app.test\r\nCookie: a\r\nX-Real-IP: 1\r\n\r\n"

    def setUp(self) -> None:
        forget()
        self.addCleanup(forget)
        for _ in range(2):
            parse_request_head(self.BLOCK, Limits())
        self.first = parse_request_head(self.BLOCK, LARGE)
        self.second = parse_request_head(self.BLOCK, LARGE)

    def test_shared(self) -> None:
        """The second sighting is kept, and the third is given what was kept."""
        self.assertIs(self.first.special, self.second.special)
        self.assertTrue(self.first.lines)
        self.assertEqual(self.first.fields, self.second.fields)

    def test_rewritten(self) -> None:
        """Of a head whose section is shared, a field can be rewritten, and nobody else sees it."""
        rewrite_field(self.first, b"cookie", b"b")
        self.assertIn(b"Cookie: b\r\n", told_words(self.first))
        third = parse_request_head(self.BLOCK.replace(b"GET /", b"GET /other"), LARGE)
        self.assertIn(b"Cookie: a\r\n", told_words(third))

    def test_frozen(self) -> None:
        """Nothing of what is shared can be changed in place."""
        self.assertIsInstance(self.first.fields, tuple)
        with self.assertRaises(TypeError):
            self.first.special[b"x-real-ip"] = (b"2",)  # type: ignore[index]
        self.assertIsInstance(self.first.special[b"x-real-ip"], tuple)
        self.assertIs(recent_request(self.BLOCK), self.second)
        with self.assertRaises(AttributeError):
            self.second.fields = ()
