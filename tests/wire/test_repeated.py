"""What is remembered of bytes that repeat, for how long, and how much of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.repeated import Repeated
from tests.wire.http1_strategies import examples


def find(known: Repeated[bytes, str], key: bytes) -> str | None:
    return known.recent.get(key) or known.find_older(key)


class RepeatedTests(SynchronousTestCase):
    """Two generations, each bounded."""

    def test_second(self) -> None:
        """Bytes are known to have come before when they come again."""
        known: Repeated[bytes, str] = Repeated(5)
        self.assertEqual([known.is_second(b"a") for _ in range(3)], [False, True, True])
        self.assertFalse(known.is_second(b"b"))
        self.assertEqual(known.recent, {})

    def test_many_different(self) -> None:
        """Who never repeats himself leaves only so many hashes."""
        known: Repeated[bytes, str] = Repeated(5)
        for number in range(20_000):
            self.assertFalse(known.is_second(b"%d" % number))
        self.assertLessEqual(len(known._seen), 4096)

    def test_turns(self) -> None:
        """What is asked for lives on; the rest is gone after two turns."""
        known: Repeated[bytes, str] = Repeated(5)
        known.keep(b"a", "A")
        known.keep(b"b", "B")
        known.turn()
        self.assertEqual(find(known, b"a"), "A")
        known.turn()
        self.assertEqual(find(known, b"a"), "A")
        self.assertIsNone(find(known, b"b"))

    def test_forgotten(self) -> None:
        """After two turns nothing is held, not even the hashes."""
        known: Repeated[bytes, str] = Repeated(5)
        known.is_second(b"a")
        known.keep(b"a", "A")
        known.turn()
        known.turn()
        self.assertIsNone(find(known, b"a"))
        self.assertFalse(known.is_second(b"a"))

    def test_same_dict(self) -> None:
        """A bound ``get`` stays good for ever."""
        known: Repeated[bytes, str] = Repeated(5)
        get = known.recent.get
        for number in range(20):
            known.keep(b"%d" % number, "x")
            self.assertEqual(get(b"%d" % number), "x")

    def test_in_vain(self) -> None:
        """When nothing is found for long, few look-ups are made; one that finds something changes that."""
        known: Repeated[bytes, str] = Repeated(5)
        known.keep(b"a", "A")
        known.turn()
        for number in range(64):
            self.assertFalse(known.is_hopeless())
            self.assertIsNone(find(known, b"%d" % number))
        self.assertEqual([known.is_hopeless() for _ in range(128)].count(False), 2)
        self.assertEqual(find(known, b"a"), "A")
        self.assertFalse(known.is_hopeless())

    @given(st.lists(st.binary(max_size=2), max_size=60))
    @examples(200)
    def test_bounds(self, keys: list[bytes]) -> None:
        """Neither generation goes beyond its bound, and no key gets the value of another."""
        known: Repeated[bytes, str] = Repeated(5)
        for key in keys:
            value = find(known, key)
            self.assertIn(value, (None, repr(key)))
            if value is None and known.is_second(key):
                known.keep(key, repr(key))
            self.assertLessEqual(len(known.recent), 5)
            self.assertLessEqual(len(known._older), 5)
