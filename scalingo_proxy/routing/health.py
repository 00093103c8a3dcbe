"""Verdicts: what failures, answers and probes make of one member's health.

UNPROVEN and UP members may be given requests, QUARANTINED and DOWN ones may
not.  A live request that fails puts its member into quarantine at once, for a
time that doubles with each further failure; one good probe or one answered
request brings it back.  Time is an argument, and so is who is judged: which
members may be chosen is drawn from the verdicts by the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from scalingo_proxy.model import Health, Outcome, ProbeResult, Quarantine
from scalingo_proxy.routing.members import HealthState, Member

__all__ = ["PROBE_FAILED", "Verdicts"]

_UNPROVEN = HealthState.UNPROVEN
_UP = HealthState.UP
_QUARANTINED = HealthState.QUARANTINED
_DOWN = HealthState.DOWN

_COMPLETED = Outcome.COMPLETED

#: How far a backoff is moved at random, as a share of it: backends that failed
#: together are not asked together again.
_JITTER = 0.2

#: The cause of a verdict that a probe led to; other causes are values of Outcome.
PROBE_FAILED = "probe-failed"

# What sends a member into quarantine.  A response that is no HTTP does not: whoever sends one
# is there and answers, and others of its answers may be in order.
_FAULTS: Mapping[Outcome, str] = {
    Outcome.CONNECT_FAILED: "did not accept a connection",
    Outcome.CLOSED: "closed the connection before its answer was complete",
    Outcome.TIMED_OUT: "did not answer in time",
}
_TRIAL_FAULTS: Mapping[Outcome, str] = {**_FAULTS, Outcome.BAD_RESPONSE: "answered with what is no HTTP"}

#: Beyond this level the backoff has met any maximum.
_MOST_DOUBLINGS = 60


class Verdicts:
    """The judge of one pool's members.

    Each method says whether there is something to tell watchers of.

    :ivar health: what probes need for a verdict.
    :ivar quarantine: how long a failing member is left alone.
    """

    __slots__ = ("_random", "health", "quarantine")

    def __init__(self, random: Random) -> None:
        self._random = random
        self.health = Health()
        self.quarantine = Quarantine()

    def ended(self, member: Member, outcome: Outcome, now: float, reason: str = "") -> bool:
        """A request that began under the verdict that still stands ended with *outcome*.

        :param reason: what went wrong, for people; made of the outcome if empty.
        """
        if outcome is _COMPLETED:
            return self.answered(member, now)
        if member.health is _QUARANTINED:
            # It was the one request on trial.  Whoever abandoned it leaves the trial to the next.
            member.is_on_trial = False
            faults = _TRIAL_FAULTS
        elif member.health is _DOWN:
            return False
        else:
            faults = _FAULTS
        if outcome not in faults:
            return False
        self._quarantine(member, outcome.value, reason or faults[outcome], now)
        return True

    def answered(self, member: Member, now: float) -> bool:
        """A real answer has begun: nothing that was held against the member counts any more."""
        if member.health is _DOWN:
            return False  # its probes are the judge there
        was_up = member.health is _UP
        if not was_up:
            self._come_up(member, "answered a request", now)
        self._trust(member)
        return not was_up

    def probed(self, member: Member, result: ProbeResult, now: float) -> bool:
        """An active probe passed or failed; one that could not be made says nothing."""
        if result.is_inconclusive:
            return False
        if not result.passed:
            return self._probe_failed(member, result.reason, now)
        member.misses = 0
        if member.health is _UP:
            if result.is_answer and member.wants_answer:
                self._trust(member)
            return False
        member.passes += 1
        if member.passes < self.health.rise:
            # The passes that are still wanted come soon, and no failure makes them later.
            member.probe_due_at = now + min(self.quarantine.first, self.quarantine.max)
            return False
        self._come_up(member, result.reason, now)
        if result.is_answer or not member.quarantines:
            self._trust(member)
        else:
            # Something accepts connections there.  Whether it answers is for a request to show.
            member.wants_answer = member.is_on_probation = True
        return True

    def prove(self, member: Member, reason: str, now: float) -> bool:
        """The member was found to answer before it was given its first request."""
        changed = member.health is not _UP
        if changed:
            self._come_up(member, reason, now)
        member.returned_at = None  # it was not away
        self._trust(member)
        return changed

    def start_over(self, member: Member, reason: str, now: float) -> bool:
        """Forget everything: there may be another process behind the address."""
        if member.health is _UP or member.health is _UNPROVEN:
            return False
        self._change(member, _UNPROVEN, reason, now)
        self._trust(member)
        member.wants_answer = True
        member.probe_due_at = now
        member.returned_at = None
        return True

    # -- steps ---------------------------------------------------------------

    def _probe_failed(self, member: Member, reason: str, now: float) -> bool:
        member.passes = 0
        if member.health is _UNPROVEN or member.health is _QUARANTINED:
            self._quarantine(member, PROBE_FAILED, reason, now)
            return True
        if member.health is _UP:
            member.misses += 1
            if member.misses < self.health.fall:
                return False
            self._change(member, _DOWN, reason, now)
            member.wants_answer = False
        member.health_reason = reason
        member.health_cause = PROBE_FAILED
        self._back_off(member, now)
        return True

    def _quarantine(self, member: Member, cause: str, reason: str, now: float) -> None:
        if member.health is not _QUARANTINED:
            self._change(member, _QUARANTINED, reason, now)
        member.health_reason = reason
        member.health_cause = cause
        member.is_on_trial = False
        member.wants_answer = True
        member.passes = 0
        self._back_off(member, now)

    def _back_off(self, member: Member, now: float) -> None:
        most = self.quarantine.max
        seconds = min(self.quarantine.first * 2.0 ** min(member.quarantines, _MOST_DOUBLINGS), most)
        seconds *= 1 - _JITTER + 2 * _JITTER * self._random.random()
        if seconds > most:
            seconds = 2 * most - seconds  # mirrored, or every other one would be due at the same time
        member.quarantines += 1
        member.probe_due_at = now + seconds

    def _come_up(self, member: Member, reason: str, now: float) -> None:
        if member.health is not _UNPROVEN:
            member.returned_at = now
        self._change(member, _UP, reason, now)
        member.probe_due_at = float("inf")

    def _trust(self, member: Member) -> None:
        member.quarantines = 0
        member.wants_answer = member.is_on_probation = False

    def _change(self, member: Member, health: HealthState, reason: str, now: float) -> None:
        was_out = member.health is _QUARANTINED or member.health is _DOWN
        if was_out is not (health is _QUARANTINED or health is _DOWN) and health is not _UP:
            # What is under way began before this verdict and has no word in later ones.
            member.verdict += 1
        member.health = health
        member.health_reason = reason
        member.health_cause = ""
        member.health_since = now
        member.misses = member.passes = 0
        member.is_on_trial = member.is_on_probation = False
