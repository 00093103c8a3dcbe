"""Tests of scalingo_proxy.routing.health."""

from __future__ import annotations

from math import inf
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Backend, Health, Outcome, ProbeResult, Quarantine
from scalingo_proxy.routing.health import Verdicts
from scalingo_proxy.routing.members import HealthState, Member

UNPROVEN, UP, QUARANTINED, DOWN = HealthState

URL = "http://10.0.0.1:3000/up"
ANSWER = ProbeResult(True, "GET answered 200", URL, 200, is_answer=True)
CONNECTED = ProbeResult(True, "connected", "tcp://10.0.0.1:3000")
FAILED = ProbeResult(False, "GET answered 503", URL, 503)


class VerdictTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.verdicts = Verdicts(Random(1))
        self.member = Member(Backend("10.0.0.1", 3000), 50, 0.0)

    def up(self) -> Member:
        """A member that has answered."""
        self.verdicts.ended(self.member, Outcome.COMPLETED, 0.0)
        return self.member

    def quarantined(self, now: float = 0.0) -> Member:
        """A member whose connection was refused."""
        self.verdicts.ended(self.member, Outcome.CONNECT_FAILED, now)
        return self.member


class PassiveTests(VerdictTestCase):
    """Live requests."""

    def test_table(self) -> None:
        """Each outcome at a member that is new, and at one that is up."""
        for outcome, of_new, of_up in (
            (Outcome.COMPLETED, UP, UP),
            (Outcome.CONNECT_FAILED, QUARANTINED, QUARANTINED),
            (Outcome.CLOSED, QUARANTINED, QUARANTINED),
            (Outcome.TIMED_OUT, QUARANTINED, QUARANTINED),
            (Outcome.BAD_RESPONSE, UNPROVEN, UP),
            (Outcome.ABANDONED, UNPROVEN, UP),
        ):
            for start, expected in ((UNPROVEN, of_new), (UP, of_up)):
                self.setUp()
                if start is UP:
                    self.up()
                is_news = self.verdicts.ended(self.member, outcome, 5.0)
                self.assertIs(expected, self.member.health, (outcome, start))
                self.assertEqual(is_news, expected is not start, (outcome, start))

    def test_reason(self) -> None:
        """The verdict says what went wrong, in words and in a word, and since when."""
        self.verdicts.ended(self.member, Outcome.CLOSED, 7.0)
        told = (self.member.health_reason, self.member.health_cause, self.member.health_since)
        self.assertEqual(("closed the connection before its answer was complete", "closed", 7.0), told)
        self.verdicts.start_over(self.member, "deployed", 8.0)
        self.verdicts.ended(self.member, Outcome.CONNECT_FAILED, 9.0, "the connection was refused")
        self.assertEqual("the connection was refused", self.member.health_reason)

    def test_backoff(self) -> None:
        """It doubles with each further failure up to the maximum, never quite the same for two members."""
        waits = []
        for number in range(8):
            self.quarantined(100.0 * number)
            waits.append(self.member.probe_due_at - 100.0 * number)
        for wait, expected in zip(waits, (1, 2, 4, 8, 16, 30, 30, 30), strict=True):
            self.assertTrue(0.8 * expected <= wait <= min(1.2 * expected, 30.0), waits)
        self.assertEqual(8, len(set(waits)))

    def test_large_backoff(self) -> None:
        """A first time above the maximum is the maximum, and a thousand failures overflow nothing."""
        self.verdicts.quarantine = Quarantine(first=9.0, max=3.0)
        for _ in range(1200):
            self.quarantined()
            self.assertTrue(2.4 <= self.member.probe_due_at <= 3.0)

    def test_answer_starts_over(self) -> None:
        """A real answer brings the member back and the backoff to its beginning."""
        for _ in range(4):
            self.quarantined()
        self.assertTrue(self.verdicts.answered(self.member, 50.0))
        self.assertEqual(
            (UP, 0, inf), (self.member.health, self.member.quarantines, self.member.probe_due_at)
        )
        self.quarantined(60.0)
        self.assertTrue(self.member.probe_due_at <= 61.2)

    def test_trial(self) -> None:
        """A request that tried the member in quarantine decides, unless it was given up."""
        for outcome, health, level, is_on_trial in (
            (Outcome.ABANDONED, QUARANTINED, 1, False),
            (Outcome.CLOSED, QUARANTINED, 2, False),
            (Outcome.BAD_RESPONSE, QUARANTINED, 2, False),
            (Outcome.COMPLETED, UP, 0, False),
        ):
            self.setUp()
            self.quarantined()
            self.member.is_on_trial = True
            self.verdicts.ended(self.member, outcome, 2.0)
            told = (self.member.health, self.member.quarantines, self.member.is_on_trial)
            self.assertEqual((health, level, is_on_trial), told, outcome)


class ActiveTests(VerdictTestCase):
    """Probes."""

    def test_new_member(self) -> None:
        """A new member is up by its first passed probe, and quarantined by a failed one."""
        self.assertTrue(self.verdicts.probed(self.member, CONNECTED, 1.0))
        self.assertEqual((UP, "connected", False), self.facts())
        self.setUp()
        self.assertTrue(self.verdicts.probed(self.member, FAILED, 1.0))
        self.assertEqual((QUARANTINED, "GET answered 503", True), self.facts())
        self.assertEqual("probe-failed", self.member.health_cause)

    def facts(self) -> tuple[HealthState, str, bool]:
        return self.member.health, self.member.health_reason, self.member.wants_answer

    def test_fall(self) -> None:
        """So many failures in a row put down a member that is up; one pass between starts over."""
        self.up()
        for result in (FAILED, FAILED, ANSWER, FAILED, FAILED):
            self.assertFalse(self.verdicts.probed(self.member, result, 1.0))
        self.assertTrue(self.verdicts.probed(self.member, FAILED, 2.0))
        self.assertEqual((DOWN, "GET answered 503", False), self.facts())
        self.assertTrue(2.8 <= self.member.probe_due_at <= 3.2)

    def test_down_is_for_probes(self) -> None:
        """Who is down neither comes back by a request nor goes elsewhere by one."""
        self.up()
        for _ in range(3):
            self.verdicts.probed(self.member, FAILED, 1.0)
        for outcome in Outcome:
            self.assertFalse(self.verdicts.ended(self.member, outcome, 2.0))
        self.assertTrue(self.verdicts.probed(self.member, ANSWER, 3.0))
        self.assertIs(UP, self.member.health)

    def test_rise(self) -> None:
        """So many passes in a row bring a member back, each due soon; a failure between starts over."""
        self.verdicts.health = Health(rise=2)
        for _ in range(6):
            self.quarantined()
        for result in (ANSWER, FAILED, ANSWER):
            self.verdicts.probed(self.member, result, 100.0)
        self.assertIs(QUARANTINED, self.member.health)
        self.assertEqual(101.0, self.member.probe_due_at)
        self.assertTrue(self.verdicts.probed(self.member, ANSWER, 101.0))
        self.assertIs(UP, self.member.health)

    def test_mere_connection(self) -> None:
        """A connection brings a member back, but neither the backoff to its beginning nor full trust."""
        for _ in range(3):
            self.quarantined()
        self.assertTrue(self.verdicts.probed(self.member, CONNECTED, 10.0))
        self.assertEqual(
            (UP, 3, True), (self.member.health, self.member.quarantines, self.member.is_on_probation)
        )
        self.quarantined(20.0)
        self.assertTrue(20 + 6.4 <= self.member.probe_due_at <= 20 + 9.6, "the fourth time in a row")
        self.verdicts.probed(self.member, CONNECTED, 30.0)
        self.assertFalse(self.verdicts.answered(self.member, 31.0), "it was up already")
        self.assertEqual(
            (0, False, False),
            (self.member.quarantines, self.member.wants_answer, self.member.is_on_probation),
        )

    def test_answer_while_up(self) -> None:
        """An HTTP probe of a member that is up again starts its backoff over."""
        self.quarantined()
        self.verdicts.probed(self.member, CONNECTED, 10.0)
        self.verdicts.probed(self.member, ANSWER, 11.0)
        self.assertEqual((0, False), (self.member.quarantines, self.member.wants_answer))

    def test_inconclusive(self) -> None:
        """A probe that could not be made says nothing."""
        self.up()
        for _ in range(9):
            result = ProbeResult(False, "no descriptors", URL, is_inconclusive=True)
            self.assertFalse(self.verdicts.probed(self.member, result, 1.0))
        self.assertEqual((UP, 0), (self.member.health, self.member.misses))

    def test_deployed(self) -> None:
        """Who was probed before it joined is up from the start, and has been nowhere else."""
        self.assertTrue(self.verdicts.prove(self.member, "passed its probe", 1.0))
        self.assertEqual((UP, "passed its probe", False), self.facts())
        self.assertIsNone(self.member.returned_at)

    def test_start_over(self) -> None:
        """Whoever is put aside gets another start; the others need none."""
        self.assertFalse(self.verdicts.start_over(self.member, "deployed", 1.0))
        self.assertFalse(self.verdicts.start_over(self.up(), "deployed", 1.0))
        self.quarantined()
        self.assertTrue(self.verdicts.start_over(self.member, "deployed", 2.0))
        self.assertEqual((UNPROVEN, "deployed", True), self.facts())
        self.assertEqual((0, 2.0), (self.member.quarantines, self.member.probe_due_at))
