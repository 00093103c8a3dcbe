"""The name in a Host field, as the key that routes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import BadRequest
from scalingo_proxy.wire.host import parse_authority
from tests.wire.http1_strategies import examples


class ParseAuthorityTests(SynchronousTestCase):
    """What is a name, and which."""

    def test_names(self) -> None:
        """Lower case, no port, no final dot."""
        for written in (
            b"app.test",
            b"APP.Test",
            b"app.test.",
            b"app.test:80",
            b"App.test.:8080",
            b"app.test:",
        ):
            self.assertEqual(parse_authority(written), "app.test")

    def test_single_label(self) -> None:
        """A name may be one label."""
        self.assertEqual(parse_authority(b"localhost.:3000"), "localhost")

    def test_addresses(self) -> None:
        """An IPv4 address is a name; an IPv6 address has one form, in brackets."""
        self.assertEqual(parse_authority(b"192.0.2.1:80"), "192.0.2.1")
        for written in (b"[::1]", b"[0:0:0:0:0:0:0:1]:80", b"[0000::0001]:"):
            self.assertEqual(parse_authority(written), "[::1]")
        self.assertEqual(parse_authority(b"[2001:DB8::A]"), "[2001:db8::a]")

    def test_longest(self) -> None:
        """A label of 63 bytes and a name of 253 are the longest; a final dot does not count."""
        name = b".".join([b"a" * 63] * 3 + [b"a" * 61])
        self.assertEqual(len(name), 253)
        self.assertEqual(parse_authority(name + b".:80"), name.decode())
        self.assertRaises(BadRequest, parse_authority, name + b"a")
        self.assertRaises(BadRequest, parse_authority, b"a" * 64 + b".test")

    def test_ports(self) -> None:
        """Up to five digits, at most 65535."""
        for port in (
            b"65536",
            b"99999",
            b"000080",
            b"-1",
            b"+80",
            b"8 0",
            b"80 ",
            b"0x50",
            b"\xd9\xa5",
            b"80:80",
        ):
            self.assertRaises(BadRequest, parse_authority, b"app.test:" + port)
            self.assertRaises(BadRequest, parse_authority, b"[::1]:" + port)
        self.assertEqual(parse_authority(b"app.test:00080"), "app.test")

    def test_empty_labels(self) -> None:
        """A label is not empty, and one final dot is enough."""
        for written in (b"", b".", b"..", b".app.test", b"app..test", b"app.test..", b":80", b".:80"):
            self.assertRaises(BadRequest, parse_authority, written)

    def test_never_decoded(self) -> None:
        """A percent sign stays one: nothing can be hidden behind it."""
        self.assertEqual(parse_authority(b"app%2etest"), "app%2etest")

    def test_literal_asterisk(self) -> None:
        """An asterisk is a character like another, for routing to refuse."""
        self.assertEqual(parse_authority(b"*.app.test"), "*.app.test")

    @examples(200)
    @given(st.binary(max_size=20))
    def test_any_bytes(self, written: bytes) -> None:
        """Whatever is accepted is plain, not empty, and reads the same again."""
        try:
            name = parse_authority(written)
        except BadRequest:
            return
        self.assertTrue(name and name == name.lower() and name.isascii() and name.isprintable())
        self.assertFalse(set(name) & set(" /?#@\\\"'<>,"))
        self.assertEqual(parse_authority(name.encode()), name)
