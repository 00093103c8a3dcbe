"""Tests of scalingo_proxy.routing.eligibility."""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Backend
from scalingo_proxy.routing.eligibility import Eligibility, Sidelined, slow_start_tenths
from scalingo_proxy.routing.members import HealthState, Member


def members(*weights: int) -> tuple[Member, ...]:
    return tuple(
        Member(Backend("10.0.0.1", 3000 + number, weight), 50, 0.0) for number, weight in enumerate(weights)
    )


class SlowStartTests(SynchronousTestCase):
    def test_steps(self) -> None:
        """From a tenth to all of it in nine equal steps."""
        self.assertEqual((1, 10.0), slow_start_tenths(0.0, 90.0))
        self.assertEqual((1, 10.0), slow_start_tenths(-5.0, 90.0))
        self.assertEqual((2, 20.0), slow_start_tenths(10.0, 90.0))
        self.assertEqual((9, 90.0), slow_start_tenths(89.0, 90.0))
        self.assertEqual((10, inf), slow_start_tenths(90.0, 90.0))


class EligibilityTests(SynchronousTestCase):
    def test_everybody_is_well(self) -> None:
        """New and answering members may be chosen, and nobody needs a thought."""
        one, two = members(1, 3)
        two.health = HealthState.UP
        eligibility = Eligibility()
        self.assertTrue(eligibility.draw((one, two), 0.0, 1.0))
        self.assertEqual(
            ((one, two), (), True), (eligibility.members, eligibility.aside, eligibility.is_plain)
        )
        self.assertFalse(eligibility.draw((one, two), 0.0, 2.0), "nothing is new")

    def test_put_aside(self) -> None:
        """Members in quarantine and those that are down may not, and it is told why."""
        one, two, three = members(1, 1, 1)
        two.health, two.health_reason, two.health_since = HealthState.QUARANTINED, "refused", 5.0
        two.probe_due_at = 6.0
        three.health = HealthState.DOWN
        eligibility = Eligibility()
        eligibility.draw((one, two, three), 0.0, 5.0)
        self.assertEqual(((one,), (two, three)), (eligibility.members, eligibility.aside))
        self.assertEqual(
            Sidelined("10.0.0.1:3001", "quarantined", "refused", 5.0, 6.0), eligibility.sidelined[0]
        )
        self.assertFalse(eligibility.is_plain)
        self.assertIs(two, eligibility.due((), 6.0, 2.0, has_choice=False))

    def test_due(self) -> None:
        """One in quarantine is tried when due if there is no choice, else when nobody has probed it."""
        (one,) = members(1)
        one.health, one.probe_due_at = HealthState.QUARANTINED, 10.0
        eligibility = Eligibility()
        eligibility.draw((one,), 0.0, 5.0)
        for now, has_choice, expected in (
            (9.9, False, None),
            (10.0, False, one),
            (10.0, True, None),
            (12.9, True, None),
            (13.0, True, one),
        ):
            self.assertIs(expected, eligibility.due((), now, 2.0, has_choice), (now, has_choice))
        self.assertIsNone(eligibility.due((one,), 99.0, 2.0, has_choice=False), "tried before")
        one.is_on_trial = True
        self.assertIsNone(eligibility.due((), 99.0, 2.0, has_choice=False), "somebody tries it")
        one.is_on_trial, one.health = False, HealthState.DOWN
        self.assertIsNone(eligibility.due((), 99.0, 2.0, has_choice=False), "its probes decide")

    def test_slow_start(self) -> None:
        """Who is back has a tenth of its share at first; when it has all of it, weights are small again."""
        one, two = members(1, 2)
        one.returned_at = 100.0
        eligibility = Eligibility()
        shares = []
        for now in (100.0, 110.0, 150.0, 190.0):
            eligibility.draw((one, two), 90.0, now)
            shares.append((one.weight, two.weight, eligibility.next_step))
        self.assertEqual([(1, 20, 110.0), (2, 20, 120.0), (6, 20, 160.0), (1, 2, inf)], shares)
        self.assertTrue(eligibility.is_plain)

    def test_no_slow_start(self) -> None:
        """Without it, who is back has its share at once."""
        one, two = members(1, 2)
        one.returned_at = 100.0
        Eligibility().draw((one, two), 0.0, 100.0)
        self.assertEqual((1, 2), (one.weight, two.weight))
