"""Hellos that are read in one go: what comes of them is what comes of them step by step."""

from __future__ import annotations

from random import Random

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.client_hello import ClientHello, ClientHelloReader, HelloRefused
from scalingo_proxy.wire.hello_message import whole_hello
from tests.corpus.hellos import load_hellos
from tests.wire.hello_builder import alpn, message, record, server_name, versions
from tests.wire.http1_strategies import examples, randoms

HELLOS = [each for each in load_hellos() if len(each.data) > 60]
USUAL = [server_name(b"app.test"), versions(0x0304, 0x0303), alpn(b"h2", b"http/1.1")]


def step_by_step(data: bytes) -> ClientHello | HelloRefused | None:
    """What the reader makes of it when it comes in two pieces, which is never the short way."""
    reader = ClientHelloReader()
    try:
        first = reader.receive(data[:1])
        assert first is None
        return reader.receive(data[1:])
    except HelloRefused as refused:
        return refused


class WholeHelloTests(SynchronousTestCase):
    """:func:`whole_hello` beside the reader."""

    def same(self, data: bytes) -> bool:
        """Whether *data* went the short way; both ways agree."""
        hello = whole_hello(data)
        if hello is not None:
            self.assertEqual(hello, step_by_step(data), data)
        return hello is not None

    def test_corpus(self) -> None:
        """Every file; those of clients go the short way, and some are left to the long one."""
        short = {each.name for each in HELLOS if self.same(each.data)}
        clients = {each.name for each in HELLOS if each.name.startswith("clients/")}
        self.assertGreater(len(short & clients), len(clients) // 2)
        self.assertGreater(len({each.name for each in HELLOS} - short), 10)

    @examples(300)
    @given(randoms)
    def test_damaged(self, by: Random) -> None:
        """Whatever byte is changed, cut out or put in."""
        data = by.choice(HELLOS).data
        at = by.randrange(len(data))
        self.same(data[:at] + by.randbytes(by.randint(0, 2)) + data[at + by.randint(0, 2) :])

    @examples(300)
    @given(randoms)
    def test_extensions(self, by: Random) -> None:
        """Any extensions in any order, some twice, some empty or wrong inside."""
        known = [*USUAL, alpn(), versions(), server_name(b""), server_name(b"127.0.0.1")]
        extensions = [
            by.choice((by.choice(known), (by.randint(0, 60), by.randbytes(by.randint(0, 6)))))
            for _ in range(by.randint(0, 8))
        ]
        self.same(record(message(*extensions)) + by.randbytes(by.randint(0, 2)))

    def test_again_and_again(self) -> None:
        """What is kept of hellos read before changes nothing, and what was refused is refused again."""
        for _ in range(3):
            self.assertTrue(self.same(record(message(*USUAL))))
            twice = [server_name(b"app.test"), server_name(b"app.test"), versions(0x0304)]
            self.assertFalse(self.same(record(message(*twice))))
            self.assertFalse(self.same(record(message(server_name(b"-"), versions(0x0304)))))

    def test_long_names_are_not_kept(self) -> None:
        """Nothing large is kept for the next to come."""
        protocols = alpn(*(b"x" * 100 for _ in range(5)))
        self.assertFalse(self.same(record(message(*USUAL[:2], protocols))))
