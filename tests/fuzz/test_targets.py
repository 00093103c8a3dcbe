"""The targets of the fuzzer: every seed, and each of them damaged a little."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.__main__ import NAMES
from tests.fuzz.targets import TARGETS, seeds


class TargetTests(SynchronousTestCase):
    """None of them finds anything in what is known."""

    def test_names(self) -> None:
        """The command knows them all."""
        self.assertEqual(sorted(TARGETS), sorted(NAMES))

    def run_target(self, name: str, limit: int) -> None:
        random = Random(name)
        known = list(seeds(name))
        self.assertGreater(len(known), 1)
        for data in random.sample(known, min(limit, len(known))):
            TARGETS[name](data)
            damaged = bytearray(data)
            damaged[random.randrange(len(damaged))] = random.randrange(256)
            del damaged[random.randrange(len(damaged)) :][: random.choice((0, 0, 1, 5))]
            TARGETS[name](bytes(damaged))

    def test_requests(self) -> None:
        """The reader of requests."""
        self.run_target("requests", 1000)

    def test_responses(self) -> None:
        """The reader of responses."""
        self.run_target("responses", 1000)

    def test_hello(self) -> None:
        """The reader of hellos."""
        self.run_target("hello", 1000)

    def test_proxy_header(self) -> None:
        """The reader of PROXY headers."""
        self.run_target("proxy_header", 1000)

    def test_proxy(self) -> None:
        """A whole proxy."""
        self.run_target("proxy", 60)

    def test_http2(self) -> None:
        """A whole proxy, over HTTP/2."""
        self.run_target("http2", 60)
