"""One backend as a pool sees it, and the wait for members on their way out.

Membership (is it part of the app?) and health (does it answer?) are two
machines and never one: the topology drives the first, outcomes drive the
second.  This module reads no clock, opens no socket and chooses nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from scalingo_proxy.model import Backend, Outcome
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
_UNPROVEN = HealthState.UNPROVEN
_COMPLETED = Outcome.COMPLETED


class Member:
    """One backend of one pool, with what it has in hand.

    Compared and hashed by identity: an address that leaves and comes back is
    another member.

    :ivar backend: where to connect; replaced when only the weight changes.
    :ivar weight: its share among the members, 1 to 100.
    :ivar limit: how many requests it may have at once.
    :ivar in_flight: the requests it has now.
    :ivar tunnels: the upgraded connections it has now; the limit does not
        count them.
    :ivar membership_since: when the membership last changed, on the clock
        that the pool is told the time by; ``health_since`` likewise.
    :ivar health_reason: why the health is what it is, for people.
    """

    __slots__ = (
        "backend",
        "health",
        "health_reason",
        "health_since",
        "in_flight",
        "limit",
        "membership",
        "membership_since",
        "tunnels",
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
        self.health_since = now

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

    def use(self, backend: Backend) -> None:
        """Take over where to connect and the weight.

        A weight out of bounds counts as the nearest one: zero would stop a
        balancer, a huge one would make it count for ever.
        """
        self.backend = backend
        self.weight = min(max(backend.weight, 1), 100)

    def judge(self, outcome: Outcome, now: float) -> None:
        """Learn from how a lease ended; a first whole answer proves the member."""
        if outcome is _COMPLETED and self.health is _UNPROVEN:
            self.health = HealthState.UP
            self.health_reason = "answered a request"
            self.health_since = now


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
