"""PROXY headers: every file of the corpus in every cut, damaged ones, and what is written for backends."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.wire.proxy_header import (
    MAX_V2_BYTES,
    TLV,
    ProxyHeader,
    ProxyHeaderReader,
    ProxyHeaderRefused,
    encode_proxy_v1,
    encode_proxy_v2,
)
from scalingo_proxy.wire.proxy_tlv import crc32c
from tests.corpus.proxy_headers import HERE, HeaderCase, index_of, load_headers
from tests.wire.http1_strategies import built, examples, randoms
from tests.wire.http1_streams import cuts

CASES = load_headers()
V4 = ProxyHeader("192.0.2.1", 56324, "198.51.100.2", 443)
V6 = ProxyHeader("2001:db8::1", 56324, "2001:db8::2", 443)


def read(pieces: Iterable[bytes]) -> tuple[str, ProxyHeader | None, bytes]:
    """Verdict, header and what came behind it."""
    reader = ProxyHeaderReader()
    header = None
    excess = b""
    for piece in pieces:
        if header is not None:
            excess += piece
            continue
        try:
            header = reader.receive(piece)
        except ProxyHeaderRefused:
            return "refused", None, b""
        excess = reader.excess
    return ("accepted" if header is not None else "waits"), header, excess


class CorpusTests(SynchronousTestCase):
    """Every file, whole, byte by byte and cut at random places."""

    def check(self, case: HeaderCase) -> None:
        behind = case.data[len(case.data) - case.behind :] if case.verdict == "accepted" else b""
        for number, pieces in enumerate(cuts(case.data, random.Random(case.name))):
            outcome = read(pieces)
            expected = (case.verdict, case.header if case.verdict == "accepted" else None, behind)
            self.assertEqual(outcome, expected, f"{case.name}, cut {number}: {case.why}")

    def test_index(self) -> None:
        """The index tells of every file as it is."""
        self.assertEqual((HERE / "INDEX.md").read_text("utf-8"), index_of(CASES))

    def test_size(self) -> None:
        """No file was lost on the way."""
        self.assertGreaterEqual(len(CASES), 159)


def _test_of(case: HeaderCase) -> Callable[[CorpusTests], None]:
    def test(self: CorpusTests) -> None:
        self.check(case)

    test.__doc__ = case.why
    return test


for _case in CASES:
    _name = "test_" + "".join(char if char.isalnum() else "_" for char in _case.name)
    setattr(CorpusTests, _name, _test_of(_case))


class ReaderTests(SynchronousTestCase):
    """What the corpus cannot say."""

    def test_nothing(self) -> None:
        """No bytes are no beginning."""
        reader = ProxyHeaderReader()
        self.assertIs(reader.receive(b""), None)
        self.assertFalse(reader.has_begun)
        reader.receive(b"P")
        self.assertTrue(reader.has_begun)

    def test_not_after_the_header(self) -> None:
        """Whoever goes on reading with it has a bug."""
        reader = ProxyHeaderReader()
        reader.receive(encode_proxy_v1(V4))
        self.assertRaises(AssertionError, reader.receive, b"x")

    def test_not_after_a_refusal(self) -> None:
        """Neither after a refusal."""
        reader = ProxyHeaderReader()
        self.assertRaises(ProxyHeaderRefused, reader.receive, b"x")
        self.assertRaises(AssertionError, reader.receive, b"PROXY UNKNOWN\r\n")

    def test_bounds(self) -> None:
        """Nothing is kept that is longer than a header may be."""
        for begin in (b"PROXY UNKNOWN ", encode_proxy_v2(V4)[:14] + b"\x02\x08"):
            reader = ProxyHeaderReader()
            count = len(begin)
            reader.receive(begin)
            try:
                while reader.receive(b"\x01") is None:
                    count += 1
            except ProxyHeaderRefused:
                pass
            self.assertLess(count, MAX_V2_BYTES)

    def test_one_tree(self) -> None:
        """Refusals belong to the tree of errors."""
        self.assertTrue(issubclass(ProxyHeaderRefused, ScalingoProxyError))

    def test_values(self) -> None:
        """What is known beside the addresses has names."""
        header = ProxyHeader(tlvs=((TLV.ALPN, b"h2"), (TLV.AUTHORITY, b"app.test"), (TLV.NETNS, b"blue")))
        self.assertEqual((header.alpn, header.authority, header.tlv(0x30)), (b"h2", "app.test", b"blue"))
        self.assertEqual((V4.alpn, V4.authority, V4.tlv(0x30)), (b"", "", None))


class EncodeV1Tests(SynchronousTestCase):
    """The line for backends that want version 1."""

    def test_addresses(self) -> None:
        """Both families."""
        self.assertEqual(encode_proxy_v1(V4), b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n")
        self.assertEqual(encode_proxy_v1(V6), b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n")

    def test_mixed(self) -> None:
        """One of each travels as IPv6."""
        line = encode_proxy_v1(ProxyHeader("192.0.2.1", 1, "2001:db8::2", 2))
        self.assertTrue(line.startswith(b"PROXY TCP6 ::ffff:"), line)
        self.assertEqual(read([line])[1], ProxyHeader("192.0.2.1", 1, "2001:db8::2", 2))

    def test_mapped(self) -> None:
        """IPv4 mapped into IPv6, as a door for both hears it, travels as IPv4."""
        header = ProxyHeader("::ffff:192.0.2.1", 56324, "::ffff:198.51.100.2", 443)
        self.assertEqual(encode_proxy_v1(header), encode_proxy_v1(V4))
        self.assertEqual(encode_proxy_v2(header), encode_proxy_v2(V4))

    def test_zone(self) -> None:
        """A zone means nothing to the backend."""
        header = ProxyHeader("fe80::1%eth0", 1, "fe80::2%eth0", 2)
        self.assertEqual(encode_proxy_v1(header), b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n")

    def test_unknown(self) -> None:
        """What version 1 has no words for."""
        for header in (ProxyHeader(), ProxyHeader(is_local=True), ProxyHeader("unix:/a", 0, "unix:/b", 0)):
            self.assertEqual(encode_proxy_v1(header), b"PROXY UNKNOWN\r\n")


class EncodeV2Tests(SynchronousTestCase):
    """The header for backends that want version 2."""

    def test_local(self) -> None:
        """A probe of our own tells nothing."""
        self.assertEqual(encode_proxy_v2(ProxyHeader(is_local=True)), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")

    def test_without_addresses(self) -> None:
        """Neither does a connection whose addresses are none of IP: HAProxy would drop anything else."""
        local = encode_proxy_v2(ProxyHeader(is_local=True))
        tlvs = ((TLV.AUTHORITY, b"app.test"),)
        for header in (
            ProxyHeader(),
            ProxyHeader("unix:/a", 0, "unix:/b", 0),
            ProxyHeader("unix:", 0, "192.0.2.1", 443, tlvs=tlvs),
        ):
            self.assertEqual(encode_proxy_v2(header), local)

    def test_local_with_checksum(self) -> None:
        """The checksum alone, as HAProxy's own health checks have it."""
        encoded = encode_proxy_v2(ProxyHeader(is_local=True), checksum=True)
        sent = next(case for case in CASES if case.name == "senders/haproxy-v2-check")
        self.assertEqual(encoded, sent.data)

    def test_too_much(self) -> None:
        """A value that would make it too long is left out, and those that fit are told."""
        tlvs = ((TLV.ALPN, b"x" * 600), (TLV.AUTHORITY, b"app.test"))
        header = ProxyHeader("192.0.2.1", 1, "192.0.2.2", 2, tlvs=tlvs)
        told = read([encode_proxy_v2(header)])[1]
        assert told is not None
        self.assertEqual(told.tlvs, tlvs[1:])

    def test_room(self) -> None:
        """The longest header is as long as we take it, with and without its checksum."""
        for checksum, room in ((False, 505), (True, 498)):
            header = ProxyHeader("192.0.2.1", 1, "192.0.2.2", 2, tlvs=((0xE0, b"x" * room),))
            encoded = encode_proxy_v2(header, checksum=checksum)
            self.assertEqual(len(encoded), MAX_V2_BYTES)
            self.assertEqual(read([encoded])[1], header)

    def test_checksum(self) -> None:
        """CRC-32C, by the check value of the catalogues."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(b""), 0)


# -- properties --------------------------------------------------------------


def _address(by: random.Random) -> str:
    bits = by.choice((32, 128))
    number = by.choice((0, 1, 2**bits - 1, by.getrandbits(bits), by.getrandbits(bits)))
    address = IPv4Address(number) if bits == 32 else IPv6Address(number)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _port(by: random.Random) -> int:
    return by.choice((0, 65535, by.getrandbits(16), by.getrandbits(16)))


def _header(by: random.Random) -> ProxyHeader:
    characters = by.choices("ab.0-\0\x7f\xe9\u20ac\U0001f600", k=by.randint(0, 40))
    tlvs = [
        (int(TLV.AUTHORITY), "".join(characters).encode()),
        (int(TLV.ALPN), by.randbytes(by.randint(0, 20))),
        (int(TLV.UNIQUE_ID), by.randbytes(by.randint(0, 128))),
        *((kind, by.randbytes(by.randint(0, 20))) for kind in by.sample(range(0xE0, 0xF0), 3)),
    ]
    some = tuple(by.sample(tlvs, by.randint(0, 4)))
    return ProxyHeader(_address(by), _port(by), _address(by), _port(by), tlvs=some)


def _damaged(by: random.Random) -> bytes:
    """A file of the corpus with a few bytes changed, left out, doubled or put in."""
    data = bytearray(by.choice(CASES).data[:800])
    for _ in range(by.randint(1, 3)):
        at = by.randint(0, min(len(data), by.choice((20, 60, 800))))
        data[at : at + by.randint(0, 2)] = by.randbytes(by.randint(0, 2))
    return bytes(data)


headers, damaged = built(_header), built(_damaged)


class PropertyTests(SynchronousTestCase):
    """What is written is read, and nothing but headers and refusals comes of anything."""

    @examples(300)
    @given(headers, st.booleans(), st.binary(max_size=20))
    def test_round_trip(self, header: ProxyHeader, checksum: bool, behind: bytes) -> None:
        """A header of version 2 is read as it was written, in every cut."""
        data = encode_proxy_v2(header, checksum=checksum) + behind
        for pieces in cuts(data, random.Random(1)):
            self.assertEqual(read(pieces), ("accepted", header, behind))

    @examples(200)
    @given(built(lambda by: ProxyHeader(_address(by), _port(by), _address(by), _port(by))))
    def test_round_trip_v1(self, header: ProxyHeader) -> None:
        """So is a line of version 1."""
        self.assertEqual(read([encode_proxy_v1(header)]), ("accepted", header, b""))

    @examples(400)
    @given(damaged, randoms)
    def test_damage(self, data: bytes, randomness: random.Random) -> None:
        """Damaged input is read or refused, and in every cut alike."""
        outcomes = {repr(read(pieces)) for pieces in cuts(data or b"x", randomness)}
        self.assertEqual(len(outcomes), 1)

    @examples(200)
    @given(st.binary(max_size=100))
    def test_noise(self, data: bytes) -> None:
        """So are any bytes, alone and behind the beginning of a header."""
        for begin in (b"", b"PROXY ", b"PROXY TCP4 ", encode_proxy_v2(V4)[:13], encode_proxy_v2(V4)):
            read([begin + data])

    @examples(300)
    @given(headers)
    def test_twisted_agrees(self, header: ProxyHeader) -> None:
        """Twisted's parser reads the same addresses in what we write."""
        for encoded, parse in (
            (encode_proxy_v2(header, checksum=True), V2Parser.parse),
            (encode_proxy_v1(header), lambda line: V1Parser.parse(line[:-2])),
        ):
            info = parse(encoded)
            _, ours, _ = read([encoded])
            assert ours is not None
            for theirs, text, port in (
                (info.source, ours.source, ours.source_port),
                (info.destination, ours.destination, ours.destination_port),
            ):
                self.assertTrue(is_same(theirs, text, port), f"{theirs} is not {text} {port}")

    @examples(400)
    @given(damaged)
    def test_stricter_than_twisted(self, data: bytes) -> None:
        """What Twisted refuses in version 2, we refuse, too."""
        verdict, header, excess = read([data])
        if verdict == "accepted" and data.startswith(b"\r\n"):
            try:
                V2Parser.parse(data[: len(data) - len(excess)])
            except InvalidProxyHeader:
                self.fail(f"{data!r} was taken for {header}")


def is_same(theirs: Any, text: str, port: int) -> bool:
    """Whether an address of Twisted's is the one told by *text* and *port*."""
    told = read([encode_proxy_v1(ProxyHeader(theirs.host, theirs.port, theirs.host, theirs.port))])[1]
    return told is not None and (told.source, told.source_port) == (text, port)
