"""The right to send one request to one member, given back exactly once.

It keeps the member's counts and tells the pool what that leads to.  What the
request is, and whether it may be tried again, it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalingo_proxy.model import Backend, Outcome
from scalingo_proxy.routing.members import Member, Membership

if TYPE_CHECKING:
    from scalingo_proxy.routing.pool import Pool

__all__ = ["Lease"]

_SERVING = Membership.SERVING
_COMPLETED = Outcome.COMPLETED

# How a lease counts at its member.
_AS_REQUEST, _AS_TUNNEL, _NO_MORE = range(3)


class Lease:
    """The right to send one request to one member; ends in :meth:`release`.

    :ivar pool: where it came from.
    :ivar member: whom it is for, also after the release.
    """

    __slots__ = ("_counts", "_verdict", "member", "pool")

    def __init__(self, pool: Pool, member: Member) -> None:
        self.pool = pool
        self.member = member
        self._counts = _AS_REQUEST
        self._verdict = member.verdict

    @property
    def backend(self) -> Backend:
        """Where to connect."""
        return self.member.backend

    def answered(self, now: float) -> None:
        """Say that the backend has begun a real answer.

        Needed only while the member's ``wants_answer`` is true, and for what
        may last: the release of a completed request says so, too.
        """
        member = self.member
        if member.wants_answer and self._verdict == member.verdict and member.membership is _SERVING:
            self.pool.answered(member, now)

    def release(self, outcome: Outcome, now: float, reason: str = "") -> None:
        """Give the place back and say how it went.

        Where the backend is to blame it is put into quarantine, unless this
        request began before that was done already.

        :param reason: what went wrong, for people.
        :raises RuntimeError: the second time.
        """
        member = self.member
        if self._counts == _AS_REQUEST:
            member.in_flight -= 1
        elif self._counts == _AS_TUNNEL:
            member.tunnels -= 1
        else:
            raise RuntimeError("this lease was released before")
        self._counts = _NO_MORE
        if member.membership is _SERVING:
            if (outcome is not _COMPLETED or member.wants_answer) and self._verdict == member.verdict:
                self.pool.judge(member, outcome, now, reason)
            if self.pool.queue.length:
                self.pool.settle()
        elif member.is_drained:
            self.pool.has_drained(member, now)

    def become_tunnel(self) -> None:
        """Stop counting as a request, because the connection was upgraded.

        :raises RuntimeError: when it is a tunnel already, or released.
        """
        if self._counts != _AS_REQUEST:
            raise RuntimeError("only a request under way becomes a tunnel")
        self._counts = _AS_TUNNEL
        member = self.member
        member.tunnels += 1
        member.in_flight -= 1
        if self.pool.queue.length:
            self.pool.settle()
