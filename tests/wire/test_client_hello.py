"""Hellos as they come: every file of the corpus in every cut, damaged ones, and OpenSSL's view."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.wire.client_hello import (
    MAX_HELLO_BYTES,
    MAX_RECORDS,
    SSL_3_0,
    TLS_1_2,
    TLS_1_3,
    ClientHello,
    ClientHelloReader,
    HelloRefused,
    PlainHTTP,
)
from scalingo_proxy.wire.tls_alert import Alert
from tests.corpus.hellos import HERE, Hello, decode, encode, index_of, load_hellos
from tests.wire.hello_builder import alpn, message, record, records, server_name, vector, versions
from tests.wire.http1_strategies import built, examples, randoms
from tests.wire.http1_streams import cuts
from tests.wire.openssl_server import name_seen_by_openssl, name_seen_by_pyopenssl

HELLOS = load_hellos()
#: The most that may be kept, beside the piece that came last.
MOST = MAX_HELLO_BYTES + 5 * MAX_RECORDS
NAMED = (server_name(b"app.test"), versions(0x0304, 0x0303), alpn(b"h2", b"http/1.1"))


def read(pieces: Iterable[bytes]) -> tuple[ClientHelloReader, ClientHello | HelloRefused | None]:
    """What comes of the pieces; those behind a hello or a refusal are not looked at."""
    reader = ClientHelloReader()
    for piece in pieces:
        try:
            hello = reader.receive(piece)
        except HelloRefused as refused:
            return reader, refused
        assert len(reader.received) <= MOST + len(piece)
        if hello is not None:
            return reader, hello
    return reader, None


def accepted(data: bytes) -> ClientHello:
    """The hello in *data*."""
    _, hello = read([data])
    assert isinstance(hello, ClientHello), hello
    return hello


def verdict(outcome: ClientHello | HelloRefused | None) -> str:
    """In the words of the corpus."""
    if outcome is None:
        return "waits"
    if isinstance(outcome, ClientHello):
        return "accepted"
    if isinstance(outcome, PlainHTTP):
        return "http"
    return outcome.alert.text if outcome.alert is not None else "closed"


def is_same(seen: str, hello: ClientHello) -> bool:
    """Whether a name that another reader has *seen* is the one that we read."""
    bare = seen.lower().removesuffix(".")
    if hello.address:
        return ip_address(bare.strip("[]")) == ip_address(hello.address)
    return bare == hello.server_name


class CorpusTests(SynchronousTestCase):
    """Every file, whole, byte by byte and cut at random places."""

    def check(self, case: Hello) -> None:
        words = None
        for number, pieces in enumerate(cuts(case.data, random.Random(case.name))):
            reader, outcome = read(pieces)
            why = f"{case.name}, cut {number}: {case.why} ({outcome})"
            self.assertEqual(verdict(outcome), case.verdict, why)
            self.assertTrue(case.data.startswith(reader.received), why)
            if isinstance(outcome, ClientHello):
                told = (outcome.server_name, outcome.address, outcome.alpn, outcome.newest_version)
                self.assertEqual(told, (case.server_name, case.address, case.alpn, case.newest), why)
                self.assertEqual(outcome.length, len(case.data) - case.behind, why)
            # The same words and the same answer, too.
            told_before, words = words, (str(outcome), getattr(outcome, "answer", b""))
            self.assertEqual(told_before or words, words, why)

    def test_index(self) -> None:
        """The index tells of every file as it is."""
        self.assertEqual((HERE / "INDEX.md").read_text("utf-8"), index_of(HELLOS))

    def test_size(self) -> None:
        """No file was lost on the way."""
        self.assertGreaterEqual(len(HELLOS), 300)
        self.assertGreater(len([case for case in HELLOS if case.name.startswith("clients/")]), 50)

    def test_notation(self) -> None:
        """Any bytes can be written down, and are read back as they were."""
        data = bytes(range(256)) + b"\0" * 1000 + b"x" * 17 + b"\n" * 40 + b"end"
        self.assertEqual(decode(encode(data)), data)


def _test_of(case: Hello) -> Callable[[CorpusTests], None]:
    def test(self: CorpusTests) -> None:
        self.check(case)

    test.__doc__ = case.why
    return test


for _case in HELLOS:
    _name = "test_" + "".join(char if char.isalnum() else "_" for char in _case.name)
    setattr(CorpusTests, _name, _test_of(_case))


class ReaderTests(SynchronousTestCase):
    """What the corpus cannot say."""

    def test_received(self) -> None:
        """Everything that came is there to be passed on, with what came behind the hello."""
        data = records(message(*NAMED), [40, 7]) + record(b"early", kind=23)
        reader, hello = read([data])
        self.assertEqual(reader.received, data)
        self.assertIsInstance(hello, ClientHello)

    def test_nothing(self) -> None:
        """No bytes are no beginning."""
        reader = ClientHelloReader()
        self.assertIs(reader.receive(b""), None)
        self.assertEqual(reader.received, b"")

    def test_refused_for_good(self) -> None:
        """A refusal stays one, whatever comes behind it."""
        reader = ClientHelloReader()
        refused = self.assertRaises(HelloRefused, reader.receive, b"\0")
        self.assertIs(self.assertRaises(HelloRefused, reader.receive, records(message(*NAMED))), refused)
        self.assertEqual(reader.received, b"\0")

    def test_not_after_the_hello(self) -> None:
        """Whoever goes on reading with it has a bug."""
        reader, _ = read([records(message(*NAMED))])
        self.assertRaises(AssertionError, reader.receive, b"more")

    def test_one_tree(self) -> None:
        """Refusals belong to the tree of errors."""
        self.assertTrue(issubclass(PlainHTTP, HelloRefused) and issubclass(HelloRefused, ScalingoProxyError))

    def test_endless_claims(self) -> None:
        """A message of 16 MB is refused at its header, not when it was kept."""
        reader = ClientHelloReader()
        data = record(b"\x01\xff\xff\xff" + bytes(2**14 - 4))
        self.assertRaises(HelloRefused, reader.receive, data[:9])
        self.assertEqual(len(reader.received), 9)

    def test_bytewise_64_kb(self) -> None:
        """The longest hello, byte by byte, takes no longer than its bytes do."""
        filler = MAX_HELLO_BYTES - len(message(*NAMED, (21, b"")))
        data = records(message(*NAMED, (21, bytes(filler))))
        _, hello = read(bytes([code]) for code in data)
        self.assertEqual(hello, accepted(data))


class VersionTests(SynchronousTestCase):
    """What a client can speak at best."""

    def newest(self, *numbers: int, legacy_version: int = 0x0303) -> int:
        extensions = (versions(*numbers),) if numbers else ()
        return accepted(records(message(*extensions, legacy_version=legacy_version))).newest_version

    def test_extension_counts(self) -> None:
        """The extension counts and the old field does not (RFC 8446 §4.2.1)."""
        self.assertEqual(self.newest(0x0304, 0x0303, legacy_version=0x0301), TLS_1_3)
        self.assertEqual(self.newest(0x0303), TLS_1_2)

    def test_without_extension(self) -> None:
        """Without it the old field counts, and means TLS 1.2 at most."""
        self.assertEqual(self.newest(legacy_version=0x0304), TLS_1_2)
        self.assertEqual(self.newest(legacy_version=0x0300), SSL_3_0)

    def test_unknown_ones(self) -> None:
        """Values that mean nothing are passed over; alone they are nothing."""
        self.assertEqual(self.newest(0x7A7A, 0x0303, 0x7F1C), TLS_1_2)
        self.assertEqual(self.newest(0x7A7A), 0)


class AnswerTests(SynchronousTestCase):
    """What a client hears."""

    def test_version_of_the_hello(self) -> None:
        """An alert speaks the version of the hello, as far as that was read."""
        for legacy_version, spoken in ((0x0301, b"\3\1"), (0x0303, b"\3\3"), (0x0304, b"\3\3")):
            data = records(message(server_name(b"*"), legacy_version=legacy_version))
            _, refused = read([data])
            assert isinstance(refused, HelloRefused)
            self.assertEqual(refused.answer, b"\x15" + spoken + b"\0\2\2\x70")

    def test_before_the_hello(self) -> None:
        """Without any, it speaks TLS 1.2."""
        _, refused = read([record(b"x", kind=23)])
        assert isinstance(refused, HelloRefused)
        self.assertEqual(refused.answer, b"\x15\3\3\0\2\2\x0a")

    def test_nothing_for_others(self) -> None:
        """Whoever speaks no TLS would not understand."""
        for data in (b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 5):
            _, refused = read([data])
            assert isinstance(refused, HelloRefused)
            self.assertEqual(refused.answer, b"")

    def test_of_an_accepted_hello(self) -> None:
        """A hello that nobody serves is answered in its version, too."""
        hello = accepted(records(message(server_name(b"app.test"), legacy_version=0x0301)))
        self.assertEqual(hello.refusal(Alert.UNRECOGNIZED_NAME), b"\x15\3\1\0\2\2\x70")


# -- damage ------------------------------------------------------------------


_ACCEPTED = [case.data for case in HELLOS if case.verdict == "accepted" and len(case.data) < 4000]


def _damaged(by: Random) -> bytes:
    """A file of the corpus with a few bytes changed, left out, doubled or put in."""
    data = bytearray(by.choice(HELLOS).data[:4000])
    for _ in range(by.randint(1, 4)):
        # Most that matters stands in front.
        at = by.randint(0, min(len(data), by.choice((12, 90, 300, 4000))))
        piece = by.choice((b"\0", b"\xff", b"\x01", b"\0\0", *(by.randbytes(size) for size in range(4))))
        data[at : at + by.randint(0, 3)] = piece
    return bytes(data)


def _altered(by: Random) -> bytes:
    """A good hello with a few bytes of its message changed in place: all lengths around them still fit."""
    data = bytearray(by.choice(_ACCEPTED))
    for _ in range(by.randint(1, 3)):
        at = by.randint(11, len(data) - 1)
        data[at] = by.choice((by.randint(0, 255), (data[at] + 1) % 256, 0))
    return bytes(data)


def _crooked(by: Random) -> bytes:
    """A hello whose names are written down in ways that no client would."""
    lengths = (None, None, None, 0, 7, 8, 9, 10, 11, 255)
    extensions = []
    for _ in range(by.randint(0, 3)):
        entries = b""
        for _ in range(by.randint(0, 2)):
            name = by.choice((b"app.test", b"other.test", b"OTHER.test.", b"127.0.0.1", b"", b"a\0b", b"*"))
            entries += bytes([by.choice((0, 0, 0, 1))]) + vector(name, 2, by.choice(lengths))
        content = vector(entries, 2, by.choice(lengths)) + by.choice((b"", b"", b"\0"))
        extensions.append((by.choice((0, 0, 0, 0x0A0A, 21, 43, 16)), content))
    return records(message(*extensions, *NAMED[1:]))


def _label(by: Random) -> str:
    while True:
        label = "".join(by.choices("abcXYZ019_-", k=by.randint(1, 12)))
        if label.strip("-") == label:
            return label


def _honest(by: Random) -> tuple[bytes, str]:
    """A hello with well-formed parts in any order, in any records, and its name."""
    labels = [_label(by) for _ in range(by.randint(0, 4))]
    name = ".".join([*labels, by.choice(("test", "Example", "co"))])
    parts = [
        server_name(name.encode() + by.choice((b"", b"."))),
        versions(*by.choice(((0x0304, 0x0303), (0x0304,), (0x0303,)))),
    ]
    if by.random() < 0.5:
        parts.append(alpn(b"h2", b"http/1.1"))
    unknown = by.sample((21, 0x1A1A, 0xFE00, 0x7777, 0x5555), by.randint(0, 3))
    parts += [(kind, by.randbytes(by.randint(0, 40))) for kind in unknown]
    by.shuffle(parts)
    whole = message(*parts)
    sizes = [by.randint(1, len(whole)) for _ in range(by.randint(0, 6))]
    return records(whole, _within(sizes, len(whole))), name.lower()


def _within(sizes: list[int], total: int) -> list[int]:
    """As many of *sizes* as leave something for the last record."""
    kept: list[int] = []
    for size in sizes:
        if sum(kept) + size < total:
            kept.append(size)
    return kept


_ANY = built(lambda by: by.choice((_damaged, _altered, _crooked))(by))


class PropertyTests(SynchronousTestCase):
    """Nothing but hellos and refusals, whatever comes."""

    @examples(200)
    @given(_ANY, randoms)
    def test_damage(self, data: bytes, randomness: random.Random) -> None:
        """Damaged input is read or refused, in bounds, and in every cut alike."""
        outcomes = set()
        for pieces in cuts(data, randomness):
            _, outcome = read(pieces)
            outcomes.add((verdict(outcome), str(outcome)))
        self.assertEqual(len(outcomes), 1)

    @examples(300)
    @given(st.binary(max_size=300))
    def test_noise(self, data: bytes) -> None:
        """So are any bytes, alone and behind the beginning of a hello."""
        for begin in (b"", b"\x16\3\1", records(message(*NAMED))[:44]):
            _, outcome = read([begin + data])
            self.assertIn(verdict(outcome), {case.verdict for case in HELLOS})

    @examples(200)
    @given(built(_honest))
    def test_honest(self, given_hello: tuple[bytes, str]) -> None:
        """Whatever is put together by the rules is read."""
        data, name = given_hello
        self.assertEqual(accepted(data).server_name, name)

    @examples(600)
    @given(_ANY)
    def test_one_name(self, data: bytes) -> None:
        """OpenSSL never finds another name in a hello than we do."""
        _, hello = read([data])
        if isinstance(hello, ClientHello):
            seen = name_seen_by_openssl(data[: hello.length])
            self.assertTrue(seen is None or is_same(seen, hello), f"{seen!r} in {hello}")


class OracleTests(SynchronousTestCase):
    """Servers that may have to answer the hello find the same name."""

    def test_corpus(self) -> None:
        """In every hello that we take, and that they get as far as to read the name of."""
        for name_seen in (name_seen_by_openssl, name_seen_by_pyopenssl):
            compared = 0
            for case in HELLOS:
                seen = name_seen(case.data) if case.verdict == "accepted" else None
                if seen is not None:
                    self.assertTrue(is_same(seen, accepted(case.data)), case.name)
                    compared += 1
            self.assertGreater(compared, 100)

    def test_client_of_today(self) -> None:
        """What the client of this very Python sends is read."""
        client, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
        client.set_alpn_protocols(["h2", "http/1.1"])
        tls = client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="app.test")
        self.assertRaises(ssl.SSLWantReadError, tls.do_handshake)
        hello = accepted(outgoing.read())
        self.assertEqual(
            (hello.server_name, hello.alpn, hello.newest_version), ("app.test", (b"h2", b"http/1.1"), TLS_1_3)
        )
