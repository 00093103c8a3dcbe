"""Hellos that are read in one go: what comes of them is what comes of them step by step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.client_hello import ClientHello, ClientHelloReader, HelloRefused
from scalingo_proxy.wire.hello_message import whole_hello
from tests.corpus.hellos import load_hellos
from tests.wire.hello_builder import alpn, message, record, server_name, versions
from tests.wire.http1_strategies import examples

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
    @given(st.sampled_from(HELLOS), st.data())
    def test_damaged(self, hello: object, draw: st.DataObject) -> None:
        """Whatever byte is changed, cut out or put in."""
        data: bytes = hello.data  # type: ignore[attr-defined]
        at = draw.draw(st.integers(0, len(data) - 1))
        cut = draw.draw(st.integers(0, 2))
        self.same(data[:at] + draw.draw(st.binary(max_size=2)) + data[at + cut :])

    @examples(300)
    @given(
        st.lists(
            st.sampled_from([*USUAL, alpn(), versions(), server_name(b""), server_name(b"127.0.0.1")])
            | st.tuples(st.integers(0, 60), st.binary(max_size=6)),
            max_size=8,
        ),
        st.binary(max_size=2),
    )
    def test_extensions(self, extensions: list[tuple[int, bytes]], behind: bytes) -> None:
        """Any extensions in any order, some twice, some empty or wrong inside."""
        self.same(record(message(*extensions)) + behind)

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
