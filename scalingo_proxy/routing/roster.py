"""Who belongs to a pool, who is on the way out, and telling those who watch.

It compares backends by identity and counts nothing: whether a member may be
given a request is the pool's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

from scalingo_proxy.model import Backend
from scalingo_proxy.routing.callouts import Callouts
from scalingo_proxy.routing.members import Drain, Member, Membership

__all__ = ["MemberEvent", "Roster"]

#: What a watcher is told about a member: the first three once each, in this
#: order, and "verdict" whenever there is news of its health.
MemberEvent = Literal["joined", "draining", "gone", "verdict"]


class Roster:
    """The members of one pool.

    :ivar members: who serves, in the app's order.
    """

    __slots__ = ("_draining", "_events", "_is_telling", "_watchers", "members")

    def __init__(self) -> None:
        self.members: tuple[Member, ...] = ()
        self._draining: dict[Member, Drain] = {}
        self._events: deque[tuple[Member, MemberEvent, Drain | None]] = deque()
        self._is_telling = False
        self._watchers: dict[object, Callable[[Member, MemberEvent], object]] = {}

    @property
    def draining(self) -> tuple[Member, ...]:
        """The members on their way out, oldest first."""
        return tuple(self._draining)

    def everybody(self) -> tuple[Member, ...]:
        """Serving and draining members."""
        return (*self.members, *self._draining)

    def replace(self, backends: Iterable[Backend], limit: int, now: float) -> Drain:
        """Keep, add and drain members so that they are the given *backends*.

        Nobody is told before :meth:`tell`.

        :return: the drain of those who left.
        """
        former = {member.backend.identity: member for member in self.members}
        members: dict[object, Member] = {}
        for backend in backends:
            identity = backend.identity
            if identity in members:
                continue  # said twice: the first counts
            member = former.pop(identity, None)
            if member is None:
                member = Member(backend, limit, now)
                self._events.append((member, "joined", None))
            elif member.backend != backend:
                member.use(backend)
            members[identity] = member
        self.members = tuple(members.values())
        return self._drain(former.values(), now)

    def _drain(self, leaving: Iterable[Member], now: float) -> Drain:
        drain = Drain(leaving)
        for member in drain.members:
            member.membership = Membership.DRAINING
            member.membership_since = now
            self._draining[member] = drain
            self._events.append((member, "draining", None))
            if member.is_drained:
                self.let_go(member, now)
        return drain

    def let_go(self, member: Member, now: float) -> None:
        """A draining member has nothing left."""
        member.membership = Membership.GONE
        member.membership_since = now
        self._events.append((member, "gone", self._draining.pop(member)))

    def note_verdict(self, member: Member) -> None:
        """There is news of a member's health."""
        self._events.append((member, "verdict", None))

    def watch(self, callback: Callable[[Member, MemberEvent], object]) -> Callable[[], None]:
        """Tell *callback* of every event, until the returned function is called."""
        key = object()
        self._watchers[key] = callback

        def stop() -> None:
            self._watchers.pop(key, None)

        return stop

    def tell(self) -> None:
        """Tell what happened, in the order it happened, whoever calls whom meanwhile."""
        if self._is_telling:
            return
        callouts = Callouts()
        self._is_telling = True
        try:
            while self._events:
                member, event, drain = self._events.popleft()
                for watcher in tuple(self._watchers.values()):
                    callouts.call(watcher, member, event)
                if drain is not None:
                    drain.member_gone(callouts)
        finally:
            self._is_telling = False
        callouts.finish()
