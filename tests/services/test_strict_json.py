"""Tests for :mod:`scalingo_proxy.services.strict_json`."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.strict_json import MAX_DEPTH, strict_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Surrogates are no characters, and are not drawn.
    | st.text(st.characters(codec="utf-8")),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), children, max_size=3)
    ),
    max_leaves=20,
)


class StrictJSONTests(SynchronousTestCase):
    """What is read, and what is refused with a sentence."""

    def refused(self, data: bytes) -> str:
        return str(self.assertRaises(ValueError, strict_json, data))

    @settings(deadline=None)
    @given(VALUES)
    def test_reads_what_json_writes(self, value: object) -> None:
        """Every document that json writes without escapes to the side is read as it was."""
        self.assertEqual(value, strict_json(json.dumps(value, ensure_ascii=False).encode("utf-8")))

    @settings(deadline=None)
    @given(st.binary(max_size=60))
    def test_anything_else_is_a_value_error(self, data: bytes) -> None:
        """No bytes make it fail in any other way."""
        try:
            strict_json(data)
        except ValueError as error:
            self.assertTrue(str(error).startswith(("is ", "has ")))

    def test_tells_where_the_syntax_breaks(self) -> None:
        """A syntax error names line and column."""
        self.assertEqual(
            "is not JSON: Expecting property name enclosed in double quotes at line 2 column 1",
            self.refused(b'{"a": 1,\n}'),
        )

    def test_duplicate_keys(self) -> None:
        """Two readers could take different ones of two values, so neither is taken."""
        self.assertEqual("has the key 'a' twice in one table", self.refused(b'[{"a": 1, "b": 2, "a": 1}]'))

    def test_constants_that_are_not_json(self) -> None:
        """NaN and the infinities are JavaScript, not JSON."""
        for word in (b"NaN", b"Infinity", b"-Infinity"):
            self.assertIn("not a JSON number", self.refused(b"[" + word + b"]"))

    def test_numbers_that_overflow(self) -> None:
        """A float beyond the largest and an integer of many digits are refused."""
        self.assertEqual("has a number that is too large", self.refused(b"1e999"))
        self.assertEqual("has a number that is too large", self.refused(b"9" * 100_000))

    def test_half_of_a_surrogate_pair(self) -> None:
        """What cannot be written as UTF-8 again is refused, in keys too."""
        for data in (b'"\\ud800"', b'{"\\udc00": 1}'):
            self.assertIn("surrogate", self.refused(data))

    def test_not_utf8(self) -> None:
        """Bytes that are no text are told by their place."""
        self.assertEqual("is not UTF-8 (byte 1)", self.refused(b'"\xff"'))

    def test_depth_is_bounded(self) -> None:
        """The deepest document that is read has MAX_DEPTH levels."""
        deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
        strict_json(deepest)
        self.assertEqual(f"is nested deeper than {MAX_DEPTH} levels", self.refused(b"[" + deepest + b"]"))

    def test_depth_that_exhausts_the_stack(self) -> None:
        """A megabyte of brackets is refused like any other nesting."""
        for data in (b"[" * 500_000, b'{"a":' * 200_000):
            self.assertEqual(f"is nested deeper than {MAX_DEPTH} levels", self.refused(data))
