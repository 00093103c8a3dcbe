"""Which members of a pool may be given requests, and with what share of them.

Drawn anew from the members' health whenever that changes, so that a request
costs nothing more while everybody is well.  The verdicts themselves are made
in :mod:`scalingo_proxy.routing.health`.
"""

from __future__ import annotations

from collections.abc import Container
from math import inf

import attrs

from scalingo_proxy.routing.members import HealthState, Member

__all__ = ["Eligibility", "Sidelined", "slow_start_tenths"]

_QUARANTINED = HealthState.QUARANTINED
_ELIGIBLE = frozenset((HealthState.UP, HealthState.UNPROVEN))

_TENTHS = 10

#: How much longer than a probe takes a due quarantine is left to whoever
#: probes, before a live request tries the member although others serve; seconds.
_PATIENCE = 1.0


@attrs.frozen
class Sidelined:
    """A member that may not be given requests, as it was at its last verdict.

    :ivar health: ``"quarantined"`` or ``"down"``.
    :ivar reason: one sentence for people.
    :ivar since: when that began, on the pool's clock.
    :ivar due_at: when it is probed or tried next.
    """

    address: str
    health: str
    reason: str
    since: float
    due_at: float


class Eligibility:
    """The choice of one pool.

    :ivar members: who may be chosen, in the app's order.
    :ivar aside: the members that may not.
    :ivar sidelined: the same, told.
    :ivar on_probation: who of *members* is back but has not answered yet.
    :ivar next_step: when the shares change next because somebody starts
        slowly; infinity if nobody does.
    """

    __slots__ = ("_weights", "aside", "members", "next_step", "on_probation", "sidelined")

    def __init__(self) -> None:
        self.members: tuple[Member, ...] = ()
        self.aside: tuple[Member, ...] = ()
        self.sidelined: tuple[Sidelined, ...] = ()
        self.on_probation: tuple[Member, ...] = ()
        self.next_step = inf
        self._weights: list[int] = []

    @property
    def is_plain(self) -> bool:
        """Whether whoever chooses need not think of anything but room."""
        return not self.aside and not self.on_probation and self.next_step == inf

    def draw(self, members: tuple[Member, ...], slow_start: float, now: float) -> bool:
        """Look at everybody's health.

        :return: whether there is anything new to choose from: members, order
            or weights.
        """
        before = self.members, self._weights
        self.members = eligible = tuple(one for one in members if one.health in _ELIGIBLE)
        if len(eligible) == len(members):
            self.aside, self.sidelined = (), ()
        else:
            self.aside = tuple(one for one in members if one.health not in _ELIGIBLE)
            self.sidelined = tuple(
                Sidelined(
                    one.backend.address,
                    one.health.value,
                    one.health_reason,
                    one.health_since,
                    one.probe_due_at,
                )
                for one in self.aside
            )
        self.on_probation = tuple(one for one in eligible if one.is_on_probation)
        self._weigh(slow_start, now)
        return before != (eligible, self._weights)

    def _weigh(self, slow_start: float, now: float) -> None:
        self.next_step = inf
        tenths = [_TENTHS] * len(self.members)
        if slow_start:
            for index, member in enumerate(self.members):
                if member.returned_at is not None:
                    tenths[index], step = slow_start_tenths(now - member.returned_at, slow_start)
                    self.next_step = min(self.next_step, member.returned_at + step)
        # Scaled only while it matters: shares are whole numbers, and small ones make short cycles.
        is_ramping = self.next_step != inf
        for member, share in zip(self.members, tenths, strict=True):
            member.weight = member.full_weight * share if is_ramping else member.full_weight
        self._weights = [member.weight for member in self.members]

    def due(self, tried: Container[Member], now: float, timeout: float, has_choice: bool) -> Member | None:
        """A quarantined member that one request may try now, the longest due first.

        :param timeout: how long a probe takes at most.
        :param has_choice: whether there is an eligible member that was not tried.
        """
        latest = now - timeout - _PATIENCE if has_choice else now
        found = None
        for member in self.aside:
            if (
                member.health is _QUARANTINED
                and not member.is_on_trial
                and member.probe_due_at <= latest
                and member.in_flight < member.limit
                and member not in tried
                and (found is None or member.probe_due_at < found.probe_due_at)
            ):
                found = member
        return found


def slow_start_tenths(seconds: float, whole: float) -> tuple[int, float]:
    """The share of a member that has been back for *seconds*, in tenths from 1 to 10.

    :param whole: after how many seconds it has all of it.
    :return: the tenths, and how long after its return they change next;
        infinity when there are ten.
    """
    if seconds >= whole:
        return _TENTHS, inf
    steps = int(max(seconds, 0.0) * (_TENTHS - 1) / whole)
    return 1 + steps, whole * (steps + 1) / (_TENTHS - 1)
