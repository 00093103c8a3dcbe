"""A header list of HTTP/2 that was read before is what reading it again would give."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import Limits
from scalingo_proxy.wire import http2_head
from scalingo_proxy.wire.grammar import Fields, FramingError
from scalingo_proxy.wire.http2_head import forget_unused_header_lists, http2_request_head
from tests.corpus.http2 import load_cases
from tests.wire.test_known_heads import SMALL, seen_of

METHODS = (b"GET", b"POST", b"OPTIONS", b"CONNECT", b"TRACE", b"BREW", b"GET /", b"")
PATHS = (b"/", b"/path?query", b"*", b"/a b", b"a", b"", b"/#", b"/" + b"x" * 90)
PSEUDO = (b":method", b":path", b":scheme", b":authority")


def forget() -> None:
    for _ in range(2):
        forget_unused_header_lists()


def told(fields: Fields, ended: bool, limits: Limits) -> Any:
    """Everything that can be seen of a head, in the backend's words, too; or the error it is."""
    try:
        return seen_of(http2_request_head(fields, ended, limits, lambda: b"a" * 24))
    except ProxyError as error:
        return type(error), error.detail
    except FramingError as error:
        return str(error)


class KnownListsTests(SynchronousTestCase):
    """Cold and warm, the same."""

    def setUp(self) -> None:
        forget()
        self.addCleanup(forget)

    def check(self, lists: list[Fields], limits: Limits, ended: bool = True) -> int:
        """Each list alone, then all in turn, several times over; gives how many were known."""
        cold = []
        for fields in lists:
            forget()
            cold.append(told(fields, ended, limits))
        forget()
        for _ in range(3):
            self.assertEqual([told(fields, ended, limits) for fields in lists], cold)
        return len(http2_head._lists.recent)

    def test_corpus(self) -> None:
        """Every case of the corpus, with every method and path, and with its fields in other places."""
        source, known = Random(1), 0
        for case in load_cases():
            forget()
            regular = [field for field in case.fields if field[0] not in PSEUDO]
            rest = [field for field in case.fields if field[0] in PSEUDO[2:]]
            lists = [case.fields]
            for method in METHODS:
                for path in PATHS:
                    pseudo = [(b":method", method), (b":path", path), *rest]
                    source.shuffle(pseudo)
                    lists.append(pseudo + regular)
                    if source.random() < 0.1:  # a pseudo-header somewhere behind
                        lists.append(pseudo[1:] + regular[:1] + pseudo[:1] + regular[1:])
            known += self.check(lists, Limits())
            known += self.check(source.sample(lists, len(lists) // 4), SMALL)
            known -= self.check(lists[:3], Limits(), ended=False)
        self.assertGreater(known, 100)

    def test_corpus_together(self) -> None:
        """All cases in one go: none gets what another was found to be."""
        lists = [case.fields for case in load_cases()]
        self.assertGreater(self.check(lists, Limits()), 10)
        self.check(lists, SMALL)

    def test_limits_are_those_of_today(self) -> None:
        """What was known under wide limits is judged by narrow ones."""
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]
        large = [*fields, (b"x", b"y" * 200)]
        for _ in range(3):
            told(large, True, Limits())
        self.assertEqual(len(http2_head._lists.recent), 1)
        self.assertNotIsInstance(told(large, True, SMALL), dict)

    def test_nothing_is_kept_of_what_is_large(self) -> None:
        """Large lists, and those that decide more, are read each time."""
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]
        for more in ([(b"x", b"y" * 3000)], [(b"x", b"y")] * 60, [(b"content-length", b"0")]):
            for _ in range(3):
                self.assertIsInstance(told([*fields, *more], True, Limits()), dict)
        self.assertEqual(http2_head._lists.recent, {})
