"""Tests of scalingo_proxy.protocols.idle_ages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.idle_ages import IdleAges


class IdleAgesTests(SynchronousTestCase):
    def test_nothing_known(self) -> None:
        """Whoever has closed nothing is kept as long as everybody."""
        ages = IdleAges()
        self.assertFalse(ages.closes)
        self.assertEqual(50.0, ages.limit("a", 50.0, 0.0))

    def test_learned(self) -> None:
        """Connections are given up clearly before the age at which one was closed."""
        for age, limit in ((5.0, 4.5), (2.0, 1.75), (30.0, 27.0), (75.0, 50.0)):
            ages = IdleAges()
            ages.closed("a", age, 100.0)
            self.assertEqual(limit, ages.limit("a", 50.0, 101.0))
            self.assertEqual(50.0, ages.limit("b", 50.0, 101.0))

    def test_shortest(self) -> None:
        """Of several ages the shortest counts."""
        ages = IdleAges()
        for age, now in ((5.2, 100.0), (5.0, 110.0), (9.0, 120.0)):
            ages.closed("a", age, now)
        self.assertEqual(4.5, ages.limit("a", 50.0, 121.0))

    def test_restart(self) -> None:
        """Connections of all ages closed at once say nothing of a setting; of one age they do."""
        ages = IdleAges()
        for age in (3.0, 9.0, 20.0):
            ages.closed("a", age, 100.0)
        self.assertEqual(50.0, ages.limit("a", 50.0, 101.0))
        ages.closed("a", 5.0, 110.0)
        ages.closed("a", 5.1, 110.2)
        self.assertEqual(4.5, ages.limit("a", 50.0, 111.0))

    def test_accidents(self) -> None:
        """A connection closed within a second says nothing."""
        ages = IdleAges()
        ages.closed("a", 0.4, 100.0)
        self.assertFalse(ages.closes)

    def test_forgotten(self) -> None:
        """After ten minutes, or when told so, nothing is known any more."""
        ages = IdleAges()
        ages.closed("a", 5.0, 100.0)
        self.assertEqual(4.5, ages.limit("a", 50.0, 699.0))
        self.assertEqual(50.0, ages.limit("a", 50.0, 701.0))
        self.assertFalse(ages.closes)
        ages.closed("a", 5.0, 800.0)
        ages.forget("a")
        self.assertFalse(ages.closes)
