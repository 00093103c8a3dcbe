"""What is remembered of bytes that repeat, for how long, and how much of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.repeated import Repeated
from tests.wire.http1_strategies import examples


def repeated(most_bytes: int = 100, most_entries: int = 5, longest: int = 20) -> Repeated[str]:
    return Repeated(most_bytes, most_entries, longest)


def find(known: Repeated[str], key: bytes) -> str | None:
    return known.recent.get(key) or known.find_older(key)


class RepeatedTests(SynchronousTestCase):
    """Two generations, each bounded."""

    def test_second(self) -> None:
        """Bytes are worth keeping when they come again."""
        known = repeated()
        self.assertEqual([known.is_worth_keeping(b"a") for _ in range(3)], [False, True, True])
        self.assertFalse(known.is_worth_keeping(b"b"))
        self.assertEqual(known.recent, {})

    def test_long(self) -> None:
        """Long ones never are."""
        known = repeated(longest=20)
        self.assertEqual([known.is_worth_keeping(b"x" * 21) for _ in range(3)], [False] * 3)
        self.assertEqual([known.is_worth_keeping(b"x" * 20) for _ in range(2)], [False, True])

    def test_many_different(self) -> None:
        """Who never repeats himself leaves only so many hashes."""
        known = repeated()
        for number in range(20_000):
            self.assertFalse(known.is_worth_keeping(b"%d" % number))
        self.assertLessEqual(len(known._seen), 4096)

    def test_turns(self) -> None:
        """What is asked for lives on; the rest is gone after two turns."""
        known = repeated()
        known.keep(b"a", "A")
        known.keep(b"b", "B")
        known.turn()
        self.assertEqual(find(known, b"a"), "A")
        known.turn()
        self.assertEqual(find(known, b"a"), "A")
        self.assertIsNone(find(known, b"b"))

    def test_forgotten(self) -> None:
        """After two turns nothing is held, not even the hashes."""
        known = repeated()
        known.is_worth_keeping(b"a")
        known.keep(b"a", "A")
        known.clear()
        self.assertIsNone(find(known, b"a"))
        self.assertFalse(known.is_worth_keeping(b"a"))

    def test_same_dict(self) -> None:
        """A bound ``get`` stays good for ever."""
        known = repeated()
        get = known.recent.get
        for number in range(20):
            known.keep(b"%d" % number, "x")
            self.assertEqual(get(b"%d" % number), "x")

    @given(st.lists(st.binary(max_size=30), max_size=60))
    @examples(200)
    def test_bounds(self, keys: list[bytes]) -> None:
        """Neither generation goes beyond its bounds, and no key gets the value of another."""
        known = repeated()
        for key in keys:
            value = find(known, key)
            self.assertIn(value, (None, repr(key)))
            if value is None and known.is_worth_keeping(key):
                known.keep(key, repr(key))
            for generation in (known.recent, known._older):
                self.assertLessEqual(len(generation), 5)
                self.assertLessEqual(sum(map(len, generation)), 100)
                self.assertTrue(all(len(kept) <= 20 for kept in generation))
