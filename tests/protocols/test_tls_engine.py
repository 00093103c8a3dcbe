"""OpenSSL past pyOpenSSL: the same bytes, the same ends, the same errors as Python's own client sees."""

from __future__ import annotations

import ssl
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.tls_contexts import server_context
from scalingo_proxy.protocols.tls_engine import Engine
from scalingo_proxy.wire.tls_records import RECORD_BYTES
from tests.protocols.tls_clients import certificate, client_context

A = certificate("a.example")
BOTH = (b"h2", b"http/1.1")
CONTEXTS = {protocols: server_context(A, protocols) for protocols in (BOTH, (b"http/1.1",))}
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Pair:
    """A client of Python's ssl and an engine, and nothing between them."""

    def __init__(self, *alpn: str, protocols: tuple[bytes, ...] = BOTH, version: int | None = None) -> None:
        versions = {"minimum_version": version, "maximum_version": version} if version else {}
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(*alpn, **versions)
        self.client = context.wrap_bio(self._in, self._out, server_hostname="a.example")
        self.engine = Engine(CONTEXTS[protocols])

    def shake(self) -> Pair:
        """Until both are through."""
        is_client_done = is_engine_done = False
        while not (is_client_done and is_engine_done):
            try:
                self.client.do_handshake()
                is_client_done = True
            except ssl.SSLWantReadError:
                pass
            answer = self.engine.handshake(self._out.read())
            is_engine_done = answer is None
            self.to_client(answer)
        return self

    def to_engine(self) -> None:
        data = self._out.read()
        if data:
            self.engine.receive(data)

    def to_client(self, data: bytes | None = None) -> None:
        self._in.write(self.engine.outgoing() if data is None else data)

    def told(self) -> bytes:
        """All that the client can read."""
        told = b""
        try:
            while data := self.client.read(65536):
                told += data
        except ssl.SSLWantReadError:
            pass
        return told


def read_all(engine: Engine) -> bytes:
    """All that is there."""
    told = b""
    while data := engine.read():
        told += data
    return told


class EngineTests(SynchronousTestCase):
    def test_records(self) -> None:
        """Nothing is there, then a record for each write, then nothing; an empty hand has nothing to send."""
        for version in VERSIONS:
            pair = Pair(version=version).shake()
            self.assertIs(pair.engine.read(), None)
            self.assertEqual(pair.engine.version, pair.client.version())
            for word in (b"one", b"two"):
                pair.client.write(word)
            pair.to_engine()
            self.assertEqual([pair.engine.read() for _ in range(3)], [b"one", b"two", None])
            self.assertEqual(pair.engine.outgoing(), b"")
            pair.to_client(pair.engine.write(b"three"))
            self.assertEqual(pair.told(), b"three")

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.integers(1, 3 * RECORD_BYTES), max_size=6),
        st.lists(st.integers(1, RECORD_BYTES), max_size=12),
        st.integers(0, 2**32),
    )
    def test_both_ways(self, asked: list[int], answered: list[int], seed: int) -> None:
        """Any bytes arrive whole, in any pieces, and however much has gathered."""
        random, pair = Random(seed), Pair().shake()
        question, answer = (b"".join(random.randbytes(size) for size in sizes) for sizes in (asked, answered))
        if question:
            pair.client.write(question)
        sent, heard = pair._out.read(), b""
        while sent:
            size = random.choice((1, 5, 100, 20_000, 100_000))
            pair.engine.receive(sent[:size])
            sent = sent[size:]
            heard += read_all(pair.engine)
        self.assertEqual(heard, question)
        for size in answered:
            pair.to_client(pair.engine.write(answer[:size]))
            answer = answer[size:]
        self.assertEqual((answer, pair.engine.outgoing()), (b"", b""))
        self.assertEqual(len(pair.told()), sum(answered))

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.integers(1, RECORD_BYTES), max_size=4), st.sampled_from(VERSIONS), st.integers(0, 2**32)
    )
    def test_exchange(self, sizes: list[int], version: ssl.TLSVersion, seed: int) -> None:
        """Bytes in and content out is the same in one call as in two, to the end and behind it."""
        random, pair = Random(seed), Pair(version=version).shake()
        self.assertIs(pair.engine.exchange(b""), None)
        for size in sizes:
            question = random.randbytes(size)
            pair.client.write(question)
            record = pair._out.read()
            cut = random.randrange(len(record))
            self.assertIs(pair.engine.exchange(record[:cut]), None)
            self.assertEqual(pair.engine.exchange(record[cut:]), question)
        self.assertRaises(ssl.SSLWantReadError, pair.client.unwrap)
        self.assertEqual(pair.engine.exchange(pair._out.read()), b"")
        self.assertEqual(pair.engine.exchange(b""), b"")

    def test_end(self) -> None:
        """``close_notify`` is an empty read, again and again, and ours comes behind what was written."""
        for version in VERSIONS:
            pair = Pair(version=version).shake()
            pair.client.write(b"bye")
            self.assertRaises(ssl.SSLWantReadError, pair.client.unwrap)
            pair.to_engine()
            self.assertEqual([pair.engine.read() for _ in range(3)], [b"bye", b"", b""])
            pair.to_client(pair.engine.write(b"and you"))
            pair.engine.end()
            pair.to_client()
            self.assertEqual(pair._in.pending > 0, True)

    def test_end_too_early(self) -> None:
        """In the middle of a handshake there is nothing to end."""
        engine = Engine(CONTEXTS[BOTH])
        engine.end()
        self.assertEqual(engine.outgoing(), b"")

    def test_broken(self) -> None:
        """A record that cannot be read is an error, with an alert to be sent; so is all from then on."""
        for version in VERSIONS:
            pair = Pair(version=version).shake()
            pair.engine.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
            self.assertRaises(SSL.Error, pair.engine.read)
            self.assertRaises(SSL.Error, pair.engine.exchange, b"")
            self.assertEqual(pair.engine.outgoing()[:1], b"\x15" if version == VERSIONS[0] else b"\x17")
            self.assertRaises(SSL.Error, pair.engine.read)
            self.assertIs(Pair().shake().engine.read(), None)  # and nothing of that is left for others

    def test_no_hello(self) -> None:
        """What is no TLS fails in the handshake, in OpenSSL's words."""
        engine = Engine(CONTEXTS[BOTH])
        no_hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
        error = self.assertRaises(SSL.Error, engine.handshake, no_hello)
        self.assertTrue(error.args[0][-1][2])


class ProtocolTests(SynchronousTestCase):
    """What is chosen from a client's offer."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.sampled_from(["h2", "http/1.1", "h2c", "x\x02h2", "http/1.0", "a" * 255, "h"]),
            min_size=1,
            max_size=6,
        ),
        st.sampled_from(sorted(CONTEXTS)),
    )
    def test_choice(self, offer: list[str], protocols: tuple[bytes, ...]) -> None:
        """The best of ours that is offered as such, whatever stands around it; else the alert."""
        offered = [name.encode() for name in offer]
        chosen = next((each for each in protocols if each in offered), None)
        pair = Pair(*offer, protocols=protocols)
        if chosen is None:
            error = self.assertRaises(SSL.Error, pair.shake)
            self.assertIn("no application protocol", error.args[0][-1][2])
            pair.to_client()
            alert = self.assertRaises(ssl.SSLError, pair.client.do_handshake)
            self.assertIn("no application protocol", str(alert).lower())
        else:
            pair.shake()
            self.assertEqual(pair.client.selected_alpn_protocol(), chosen.decode())
            self.assertEqual(pair.engine.alpn, chosen.decode())

    def test_again(self) -> None:
        """What was chosen for one client is chosen for the next, unless the offer is too long to be kept."""
        for offer in (("h2", "http/1.1"), ("acme/1",) * 3, ("a" * 255, "http/1.1"), ("a" * 255,)):
            for _ in range(2):
                pair = Pair(*offer)
                if offer[-1] != "http/1.1":
                    self.assertRaises(SSL.Error, pair.shake)
                else:
                    self.assertEqual(pair.shake().engine.alpn, "h2" if "h2" in offer else "http/1.1")

    def test_no_offer(self) -> None:
        """Without an offer nothing is chosen."""
        pair = Pair().shake()
        self.assertIs(pair.engine.alpn, None)
