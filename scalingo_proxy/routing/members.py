"""One backend as a pool sees it, and the wait for members on their way out.

Membership (is it part of the app?) and health (does it answer?) are two
machines and never one: the topology drives the first, outcomes drive the
second.  This module reads no clock, opens no socket and chooses nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from scalingo_proxy.model import Backend
from scalingo_proxy.routing.callouts import Callouts

__all__ = ["Drain", "HealthState", "Member", "Membership"]


class Membership(enum.Enum):
    """Whether the app still has this member; it only ever moves downwards."""

    #: Part of the app: it may be given requests.
    SERVING = "serving"
    #: No longer part of the app: it finishes what it has.
    DRAINING = "draining"
    #: No request and no tunnel is left: safe to kill.
    GONE = "gone"


class HealthState(enum.Enum):
    """What is known of a member's answers."""

    #: New, and it has not answered yet.
    UNPROVEN = "unproven"
    #: It answered.
    UP = "up"
    #: It failed live requests and is left alone for a while.
    QUARANTINED = "quarantined"
    #: It fails its probes.
    DOWN = "down"


_SERVING = Membership.SERVING


class Member:
    """One backend of one pool, with what it has in hand.

    Compared and hashed by identity: an address that leaves and comes back is
    another member.

    :ivar backend: where to connect; replaced when only the weight changes.
    :ivar weight: its share among the members: that of the backend, 1 to 100,
        until the pool scales all of them because one starts slowly.
    :ivar limit: how many requests it may have at once.
    :ivar in_flight: the requests it has now.
    :ivar tunnels: the upgraded connections it has now; the limit does not
        count them.
    :ivar membership_since: when the membership last changed, on the clock
        that the pool is told the time by; ``health_since`` likewise.
    :ivar health_reason: why the health is what it is, for people.
    :ivar health_cause: the same in a word for programs: a value of Outcome or
        ``"probe-failed"``; empty where nothing failed.
    :ivar probe_due_at: when it is to be probed, or tried with a request,
        next; infinity when nothing is due.
    :ivar quarantines: failures in a row that lengthen its quarantine.
    :ivar misses: probes failed in a row while it is up; *passes*: passed in a
        row while it is not.
    :ivar verdict: counts the times it was put aside or given another start;
        who began under an earlier count has no word on it any more.
    :ivar wants_answer: whether an answer would change anything.
    :ivar is_on_trial: whether one request tries it although it is in quarantine.
    :ivar is_on_probation: whether it is back without having answered yet.
    :ivar returned_at: when it last came back from quarantine or from being
        down; ``None`` if it never did.
    """

    __slots__ = (
        "backend",
        "health",
        "health_cause",
        "health_reason",
        "health_since",
        "in_flight",
        "is_on_probation",
        "is_on_trial",
        "limit",
        "membership",
        "membership_since",
        "misses",
        "passes",
        "probe_due_at",
        "quarantines",
        "returned_at",
        "tunnels",
        "verdict",
        "wants_answer",
        "weight",
    )

    def __init__(self, backend: Backend, limit: int, now: float) -> None:
        self.use(backend)
        self.limit = limit
        self.in_flight = 0
        self.tunnels = 0
        self.membership = Membership.SERVING
        self.membership_since = now
        self.health = HealthState.UNPROVEN
        self.health_reason = "no answer yet"
        self.health_cause = ""
        self.health_since = now
        self.probe_due_at = now
        self.quarantines = 0
        self.misses = 0
        self.passes = 0
        self.verdict = 0
        self.wants_answer = True
        self.is_on_trial = False
        self.is_on_probation = False
        self.returned_at: float | None = None

    def __repr__(self) -> str:
        return (
            f"<Member {self.backend.address} {self.membership.value} {self.health.value}"
            f" in_flight={self.in_flight} tunnels={self.tunnels}>"
        )

    @property
    def has_room(self) -> bool:
        """Whether one more request fits under the limit."""
        return self.in_flight < self.limit

    @property
    def is_drained(self) -> bool:
        """Whether the app no longer has it and nothing is left on it."""
        return self.membership is not _SERVING and not self.in_flight and not self.tunnels

    @property
    def full_weight(self) -> int:
        """What the weight is by the app's description.

        A weight out of bounds counts as the nearest one: zero would stop a
        balancer, a huge one would make it count for ever.
        """
        return min(max(self.backend.weight, 1), 100)

    def use(self, backend: Backend) -> None:
        """Take over where to connect and the weight."""
        self.backend = backend
        self.weight = self.full_weight


class Drain:
    """Members that one change took out of a pool, until the last of them is gone.

    :ivar members: those members, in the order they had in the app.
    """

    __slots__ = ("_callbacks", "members")

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.members = tuple(members)
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_done(self) -> bool:
        """Whether all of them are safe to kill."""
        return all(member.membership is Membership.GONE for member in self.members)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call *callback* once, when the drain is done: now, if it is already."""
        if self.is_done:
            callback()
        else:
            self._callbacks.append(callback)

    def member_gone(self, callouts: Callouts) -> None:
        """Tell whoever waits, if that was the last one; called by the pool."""
        if self._callbacks and self.is_done:
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callouts.call(callback)
