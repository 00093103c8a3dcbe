"""A head that was read before is what reading it again would give, and nobody can change it for others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import Limits
from scalingo_proxy.wire import http1_head
from scalingo_proxy.wire.http1_forwarding import ClientIdentity, request_head_for_backend
from scalingo_proxy.wire.http1_head import (
    RequestHead,
    forget_unused_heads,
    parse_request_head,
    rewrite_field,
)
from tests.corpus import load_cases
from tests.wire.http1_strategies import examples, request_streams

IDENTITIES = [
    ClientIdentity("192.0.2.1", "http", 80, None),
    ClientIdentity("10.0.0.9", "https", 443, lambda address: address.startswith("10.")),
]
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
    forget_unused_heads()
    forget_unused_heads()


def told(block: bytes, limits: Limits) -> Any:
    """Everything that can be seen of a head, in the backend's words, too; or the error it is."""
    try:
        head = parse_request_head(block, limits)
    except ProxyError as error:
        return type(error), error.detail
    names = [name for name in RequestHead.__slots__ if name not in ("_fields", "lines", "special")]
    seen = {name: getattr(head, name) for name in names}
    seen["special"] = dict(head.special)
    seen["fields"] = head.fields
    seen["words"] = [
        request_head_for_backend(head, identity, b"0" * 32, 1700000000.0) for identity in IDENTITIES
    ]
    return seen


def sections(streams: Iterable[bytes]) -> list[bytes]:
    """The header section behind each first line, each with the empty line that ends it."""
    found = []
    for stream in streams:
        block, end, _rest = stream.partition(b"\r\n\r\n")
        _line, _, section = block.partition(b"\r\n")
        if end:
            found.append(section + b"\r\n\r\n" if section else b"\r\n")
    return found


class KnownHeadsTests(SynchronousTestCase):
    """Cold and warm, the same."""

    def setUp(self) -> None:
        forget()
        self.addCleanup(forget)

    def check(self, blocks: list[bytes], limits: Limits) -> int:
        """Each block alone, then all of them in turn, several times over; gives how many were known."""
        cold = []
        for block in blocks:
            forget()
            cold.append(told(block, limits))
        forget()
        for _ in range(4):
            self.assertEqual([told(block, limits) for block in blocks], cold)
        return len(http1_head._sections.recent)

    def test_corpus(self) -> None:
        """Every case of the corpus, as it is and behind every other request line."""
        cases = [case.input for case in load_cases("requests")]
        known = 0
        for section in sections(cases):
            forget()
            known += self.check([line + b"\r\n" + section for line in LINES], Limits())
        self.assertGreater(known, 100)

    def test_corpus_together(self) -> None:
        """All cases in one go: none gets what another was found to be."""
        cases = [case.input for case in load_cases("requests")]
        blocks = [b"GET / HTTP/1.1\r\n" + section for section in sections(cases)]
        self.check(blocks, Limits())
        self.check(blocks, SMALL)

    @given(st.lists(request_streams, min_size=1, max_size=4), st.sampled_from([Limits(), SMALL]))
    @examples(300)
    def test_random(self, streams: list[bytes], limits: Limits) -> None:
        """Whatever comes, behind any line and in any company."""
        self.check([line + b"\r\n" + section for section in sections(streams) for line in LINES], limits)

    def test_limits(self) -> None:
        """What is known is held against the limits of whoever asks."""
        block = b"GET / HTTP/1.1\r\nHost: app.test\r\nA: " + b"x" * 100 + b"\r\n\r\n"
        cold = told(block, SMALL)
        for _ in range(3):
            self.assertIsInstance(told(block, Limits()), dict)
        self.assertEqual(told(block, SMALL), cold)


class SharingTests(SynchronousTestCase):
    """What several requests are given cannot be changed by one of them."""

    BLOCK = b"GET / HTTP/1.1\r\nHost: app.test\r\nCookie: a\r\nX-Real-IP: 1\r\n\r\n"

    def setUp(self) -> None:
        forget()
        self.addCleanup(forget)
        for _ in range(2):
            parse_request_head(self.BLOCK, Limits())
        self.first = parse_request_head(self.BLOCK, Limits())
        self.second = parse_request_head(self.BLOCK, Limits())

    def test_shared(self) -> None:
        """The second sighting is kept, and the third is given what was kept."""
        self.assertIs(self.first.fields, self.second.fields)
        self.assertTrue(self.first.lines)

    def test_rewritten(self) -> None:
        """Whoever rewrites a field has a head of his own, whose lines are written anew."""
        rewrite_field(self.first, b"cookie", b"b")
        self.assertIn(b"Cookie: b\r\n", self.words(self.first))
        self.assertIn(b"Cookie: a\r\n", self.words(self.second))
        self.assertIn(b"Cookie: a\r\n", self.words(parse_request_head(self.BLOCK, Limits())))

    def test_frozen(self) -> None:
        """Nothing of it can be changed in place."""
        self.assertIsInstance(self.first.fields, tuple)
        with self.assertRaises(TypeError):
            self.first.special[b"x-real-ip"] = (b"2",)  # type: ignore[index]
        self.assertIsInstance(self.first.special[b"x-real-ip"], tuple)

    def words(self, head: RequestHead) -> bytes:
        return request_head_for_backend(head, IDENTITIES[0], b"0" * 32, 1.0)
