"""Field lines, lists, and the bytes that no head can hold."""

from __future__ import annotations

import re
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.grammar import (
    AS_BACKENDS_READ,
    NEVER_IN_A_HEAD,
    TOKEN,
    FramingError,
    parse_fields,
    split_list,
)
from tests.wire.http1_strategies import TCHAR, VALUE, examples, fields


class ParseFieldsTests(SynchronousTestCase):
    """Lines to names and values."""

    def test_none(self) -> None:
        """A section may be empty."""
        self.assertEqual(parse_fields(b""), [])

    def test_order_and_case(self) -> None:
        """Order, case and repetition are kept."""
        section = b"B: 1\r\na:2\r\nb: 3\r\nB: 1\r\n"
        self.assertEqual(parse_fields(section), [(b"B", b"1"), (b"a", b"2"), (b"b", b"3"), (b"B", b"1")])

    def test_blanks(self) -> None:
        """Blanks around a value go, those inside it stay."""
        for written in (b"a b", b" a b", b"a b ", b"\t a b \t", b"  a b\t"):
            self.assertEqual(parse_fields(b"X:" + written + b"\r\n"), [(b"X", b"a b")])

    def test_tab_behind(self) -> None:
        """A tab behind a value goes even where no other value ends with a blank."""
        self.assertEqual(parse_fields(b"X: a\t\r\nY: b\r\n"), [(b"X", b"a"), (b"Y", b"b")])

    def test_value_of_blanks(self) -> None:
        """A value of nothing but blanks is empty."""
        self.assertEqual(parse_fields(b"X: \t \r\nY:\r\n"), [(b"X", b""), (b"Y", b"")])

    def test_malformed(self) -> None:
        """What is no line of a name, a colon and a value is refused, in any place."""
        bad = [
            b"X",
            b": a",
            b" X: a",
            b"\tX: a",
            b"X : a",
            b"X\t: a",
            b"X Y: a",
            b"",
            b"X: a\0",
            b"X: a\rb",
            b"\xe9: a",
        ]
        for line in bad:
            for section in (line, b"A: b\r\n" + line, line + b"\r\nA: b"):
                self.assertRaises(FramingError, parse_fields, section + b"\r\n")

    def test_unended_line(self) -> None:
        """A line ends with CRLF and nothing else."""
        for section in (b"A: b", b"A: b\n", b"A: b\r", b"A: b\r\nC: d", b"A: b\r\n\r\n"):
            self.assertRaises(FramingError, parse_fields, section)

    @examples(100)
    @given(st.lists(fields, max_size=6))
    def test_round_trip(self, written: list[tuple[bytes, bytes]]) -> None:
        """What is written as lines is read as it was."""
        section = b"".join(b"%b: %b\r\n" % field for field in written)
        self.assertEqual(parse_fields(section), written)

    @examples(100)
    @given(st.binary(max_size=40))
    def test_nothing_added(self, section: bytes) -> None:
        """Whatever is accepted holds no name or value that could split a line."""
        try:
            found = parse_fields(section)
        except FramingError:
            return
        for name, value in found:
            self.assertTrue(name and set(name) <= set(TCHAR))
            self.assertTrue(set(value) <= set(VALUE))


class SplitListTests(SynchronousTestCase):
    """Comma-separated values."""

    def test_members(self) -> None:
        """Members are in lower case, without blanks around them; empty ones are left out."""
        self.assertEqual(split_list(b" Keep-Alive,\t, X-A ,,"), [b"keep-alive", b"x-a"])

    def test_empty(self) -> None:
        """No member at all."""
        self.assertEqual(split_list(b" , "), [])


class CharacterTests(SynchronousTestCase):
    """The tables of characters."""

    def test_token(self) -> None:
        """The class holds the characters of RFC 9110 section 5.6.2 and no other."""
        found = bytes(code for code in range(256) if re.fullmatch(b"[" + TOKEN + b"]", bytes([code])))
        self.assertEqual(sorted(found), sorted(TCHAR))

    def test_never_in_a_head(self) -> None:
        """Control characters, a bare LF, a bare CR; not HTAB, CRLF, or a CR that may get its LF."""
        for data in (b"\0", b"\x7f", b"\x1b", b"\n", b"a\n", b"\ra", b"\r\r\n", b"\n\r"):
            self.assertIsNotNone(NEVER_IN_A_HEAD.search(data), data)
        for data in (b"", b"a\tb", b"\r\n", b"a\r", b"\r\n\r\n", b"\x80\xff"):
            self.assertIsNone(NEVER_IN_A_HEAD.search(data), data)

    def test_looks_behind_the_start(self) -> None:
        """A search that begins at the LF sees the CR in front of it."""
        self.assertIsNone(NEVER_IN_A_HEAD.search(b"a\r\n", 2))
        self.assertIsNotNone(NEVER_IN_A_HEAD.search(b"ab\n", 2))

    def test_as_backends_read(self) -> None:
        """Letters are lower, digits stay, everything else is a dash."""
        self.assertEqual(b"X_Real.IP~9".translate(AS_BACKENDS_READ), b"x-real-ip-9")
        for code in range(256):
            plain = bytes([code]).translate(AS_BACKENDS_READ)
            character = bytes([code]).lower()
            self.assertEqual(plain, character if character.isalnum() else b"-")


class OracleTests(SynchronousTestCase):
    """Fields are told apart by counting; an expression that looks at every character agrees."""

    SECTION = re.compile(rb"(?:[" + TOKEN + rb"]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
    FIELD = re.compile(rb"([^:]++):([^\r]*+)\r\n")
    PIECES = (
        *(
            b"A",
            b"Host",
            b":",
            b": ",
            b" ",
            b"\t",
            b"\r\n",
            b"\n",
            b"\r",
            b"x",
            b"\x00",
            b"\xff",
            b"v",
            b"\r\n",
        ),
        *(b"a: b\r\n", b"\x0b", b"\x7f", b"(", b"q:1\r\n"),
    )

    def test_random_sections(self) -> None:
        """Whatever stands in a section, both refuse it or both read the same."""
        random = Random(7)
        for _ in range(30_000):
            section = b"".join(random.choice(self.PIECES) for _ in range(random.randrange(8)))
            expected = None
            if self.SECTION.fullmatch(section):
                expected = [(name, value.strip(b" \t")) for name, value in self.FIELD.findall(section)]
            try:
                fields = parse_fields(section)
            except FramingError:
                fields = None
            self.assertEqual(fields, expected, section)
