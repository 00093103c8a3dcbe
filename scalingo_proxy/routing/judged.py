"""The half of a pool that knows its members: who they are, how they do, who is next.

The other half, :mod:`scalingo_proxy.routing.pool`, gives leases and keeps the
queue.  A verdict reaches the balancer once, when it changes; a request pays
for it only while somebody is not well.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from math import ceil
from random import Random
from typing import TypeAlias

from scalingo_proxy.errors import Quarantined
from scalingo_proxy.interfaces import IBalancer
from scalingo_proxy.model import App, AppState, Health, Outcome, ProbeResult, Quarantine
from scalingo_proxy.routing.balancers import BALANCERS, RoundRobin
from scalingo_proxy.routing.callouts import Callouts
from scalingo_proxy.routing.eligibility import Eligibility, Sidelined
from scalingo_proxy.routing.health import Verdicts
from scalingo_proxy.routing.members import Member, Membership
from scalingo_proxy.routing.pool_settings import PoolSettings
from scalingo_proxy.routing.roster import MemberEvent, Roster

__all__ = ["JudgedMembers", "Lineup"]

#: Who serves, who is on the way out, and who of the former may not be chosen.
Lineup: TypeAlias = tuple[tuple[Member, ...], tuple[Member, ...], tuple[Sidelined, ...]]

_SERVING = Membership.SERVING


class JudgedMembers:
    """The members of one app, and which of them may be given requests.

    :ivar app: the app as it was last applied.
    :ivar is_crowded: whether a member may have as many requests as it may; set by
        whoever gives it the last one, so that nobody else has to look.
    :ivar lineup: the members as they are, in a value that never changes: made anew
        when they do, for whoever wants to keep how it was.
    :ivar timeouts: the defaults with the app's own values over them; ``limits``,
        ``health`` and ``quarantine`` likewise.
    """

    __slots__ = (
        "_balancer",
        "_balancers",
        "_choose",
        "_defaults",
        "_eligibility",
        "_random",
        "_roster",
        "_verdicts",
        "app",
        "is_crowded",
        "limits",
        "lineup",
        "timeouts",
    )

    def __init__(
        self,
        app: App,
        defaults: PoolSettings,
        random: Random,
        balancers: Mapping[str, Callable[[Random], IBalancer]] = BALANCERS,
    ) -> None:
        self._random = random
        self._balancers = balancers
        self._roster = Roster()
        self._verdicts = Verdicts(random)
        self._eligibility = Eligibility()
        self._defaults = defaults
        self.is_crowded = False
        self.lineup: Lineup = ((), (), ())
        self.app = app
        self._use_settings(defaults.of(app))
        self._use_balancer()

    def settle(self) -> None:
        """Serve or refuse whoever waits, as far as something can be done for them."""
        raise NotImplementedError

    # -- what is learned of a member -----------------------------------------

    def judge(self, member: Member, outcome: Outcome, now: float, reason: str = "") -> None:
        """Learn from a request that began under the verdict that still stands; called by its lease."""
        self._give_verdict(member, self._verdicts.ended(member, outcome, now, reason), now)

    def answered(self, member: Member, now: float) -> None:
        """The member has begun a real answer; called by the lease."""
        self._give_verdict(member, self._verdicts.answered(member, now), now)

    def probed(self, member: Member, result: ProbeResult, now: float) -> None:
        """Learn from an active probe of *member*; one that has left is not judged any more."""
        if member.membership is _SERVING:
            self._give_verdict(member, self._verdicts.probed(member, result, now), now)

    def proved(self, identities: Container[object], reason: str, now: float) -> None:
        """Members that were found to answer before they joined begin as UP.

        :param identities: the ``identity`` of each of their backends.
        """
        self._give_verdicts(
            [
                member
                for member in self._roster.members
                if member.backend.identity in identities and self._verdicts.prove(member, reason, now)
            ],
            now,
        )

    def start_over(self, reason: str, now: float) -> None:
        """Give everybody who was put aside another start, because it was redeployed or resumed."""
        changed = [one for one in self._eligibility.aside if self._verdicts.start_over(one, reason, now)]
        self._give_verdicts(changed, now)

    # -- what there is to see ------------------------------------------------

    @property
    def health(self) -> Health:
        """How its members are probed and come back."""
        return self._verdicts.health

    @property
    def quarantine(self) -> Quarantine:
        """How long a failing member is left alone."""
        return self._verdicts.quarantine

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that serve, in the app's order, well or not."""
        return self._roster.members

    @property
    def draining(self) -> tuple[Member, ...]:
        """The members on their way out, oldest first."""
        return self._roster.draining

    @property
    def sidelined(self) -> tuple[Sidelined, ...]:
        """Who may not be given requests, and why; another tuple after each verdict."""
        return self._eligibility.sidelined

    @property
    def in_flight(self) -> int:
        """The requests under way at all members, draining ones included."""
        return sum(member.in_flight for member in self._roster.everybody())

    @property
    def tunnels(self) -> int:
        """The tunnels open at all members, draining ones included."""
        return sum(member.tunnels for member in self._roster.everybody())

    def full_members(self) -> tuple[Member, ...]:
        """The members that have as many requests as they may.

        When that are all of them, it is :attr:`members` itself, so that nothing
        is made for each of many who wait.
        """
        members = self._roster.members
        full = [member for member in members if member.in_flight >= member.limit]
        self.is_crowded = bool(full)
        return members if len(full) == len(members) else tuple(full)

    def has_other(self, tried: Container[Member]) -> bool:
        """Whether somebody who is not among *tried* may be given requests."""
        return any(member not in tried for member in self._eligibility.members)

    def has_room_beside(self, tried: Container[Member]) -> bool:
        """Whether somebody who is not among *tried* could be given a request now."""
        return self.app.state is AppState.RUNNING and any(
            member not in tried and member.in_flight < member.limit for member in self._eligibility.members
        )

    def watch(self, callback: Callable[[Member, MemberEvent], object]) -> Callable[[], None]:
        """Tell *callback* what becomes of members, until the returned function is called."""
        return self._roster.watch(callback)

    # -- for the other half --------------------------------------------------

    def announce(self) -> None:
        """Tell the watchers what happened, then serve or refuse who waits."""
        callouts = Callouts()
        callouts.call(self._roster.tell)
        callouts.call(self.settle)
        callouts.finish()

    def _trial(self, tried: Container[Member], now: float) -> Member | None:
        """A member in quarantine that an idempotent request shall try now, if there is one."""
        eligibility = self._eligibility
        if not eligibility.aside:
            return None
        member = eligibility.due(tried, now, self.health.timeout, self.has_other(tried))
        if member is not None:
            member.is_on_trial = True
        return member

    def _end_probation(self) -> bool:
        """Let everybody have more than one request, because the others do not suffice.

        :return: whether that made room.
        """
        on_probation = self._eligibility.on_probation
        for member in on_probation:
            member.is_on_probation = False
            member.limit = self.limits.in_flight_per_backend
        self._eligibility.on_probation = ()
        return bool(on_probation)

    def _quarantined(self, now: float) -> Quarantined:
        """What to tell a client when nobody may be chosen."""
        soonest = min((member.probe_due_at for member in self._eligibility.aside), default=now)
        return Quarantined(retry_after=ceil(max(1.0, min(soonest - now, self.quarantine.max))))

    def _draw(self, now: float) -> None:
        """Take up what the verdicts say by now."""
        eligibility = self._eligibility
        if eligibility.draw(self._roster.members, self.health.slow_start, now):
            self._balancer.members_changed(eligibility.members)
        self._note_lineup()
        full = self.limits.in_flight_per_backend
        for member in self._roster.members:
            if not member.is_on_probation:
                member.limit = full
            elif member.limit >= full:
                member.limit = min(full, member.in_flight + 1)

    def _note_lineup(self) -> None:
        roster = self._roster
        self.lineup = (roster.members, roster.draining, self._eligibility.sidelined)

    def _give_verdict(self, member: Member, is_news: bool, now: float) -> None:
        if is_news:
            self._give_verdicts([member], now)
        elif self._eligibility.on_probation:
            self._draw(now)
            self.settle()

    def _give_verdicts(self, members: list[Member], now: float) -> None:
        if members:
            for member in members:
                self._roster.note_verdict(member)
            self._draw(now)
            self.announce()

    def _use_settings(self, settings: PoolSettings) -> None:
        self.timeouts = settings.timeouts
        self.limits = settings.limits
        self.is_crowded = True  # for all that is known
        self._verdicts.health = settings.health
        self._verdicts.quarantine = settings.quarantine
        for member in self._roster.everybody():
            member.limit = settings.limits.in_flight_per_backend

    def _use_balancer(self) -> None:
        """Take up the balancer that the app names.

        An unknown name means round robin: whoever reads app records refuses
        it there, and here an app that answers is worth more than a complaint.
        """
        self._balancer = self._balancers.get(self.app.balancer, RoundRobin)(self._random)
        self._choose = self._balancer.choose
        self._balancer.members_changed(self._eligibility.members)
