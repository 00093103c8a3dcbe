"""The drain deadline of backends that left their app: what they still have then is ended.

Until then they finish what they have, and most never come as far as this.
Nothing is kept for a request that goes its ordinary way: when a deadline comes,
those under way are looked through.  How a request or a tunnel ends is its own
business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from scalingo_proxy.protocols.downstream import UnderWay
from scalingo_proxy.protocols.pace import Pace
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import MemberEvent, Pool

__all__ = ["AFTER_DEADLINE_SECONDS", "Drains", "oldest_first", "when_drained"]

_log = Logger()

#: Within so many seconds of the deadline everything has ended: the pace takes up
#: to five of them, a WebSocket five more to close in order or be cut.
AFTER_DEADLINE_SECONDS = 11.0

#: Deadlines this near to each other are one.
_TOGETHER_SECONDS = 0.05


def oldest_first(exchanges: Iterable[UnderWay]) -> list[UnderWay]:
    """In the order in which they began."""
    return sorted(exchanges, key=attrgetter("record.started_at"))


def when_drained(pool: Pool) -> Deferred[None]:
    """Fire when all members that are on their way out of *pool* now are safe to kill.

    That is soon after their drain deadline at the latest.  May be cancelled.
    """
    leaving = set(pool.draining)
    if not leaving:
        return succeed(None)
    drained: Deferred[None] = Deferred(lambda _: stop_watching())

    def changed(member: Member, event: MemberEvent) -> None:
        if event == "gone":
            leaving.discard(member)
            if not leaving:
                stop_watching()
                drained.callback(None)

    stop_watching = pool.watch(changed)
    return drained


class Drains:
    """Members on their way out, with the moment when that is over.

    :param clock: an IReactorTime.
    :param under_way: gives all requests and tunnels under way.
    :param pace: spreads their ends.
    """

    def __init__(self, clock: Any, under_way: Callable[[], Iterable[UnderWay]], pace: Pace) -> None:
        self._clock = clock
        self._under_way = under_way
        self._pace = pace
        self._deadlines: dict[Member, float] = {}
        self._timer: Any = None

    def member_changed(self, pool: Pool, member: Member, event: MemberEvent) -> None:
        """Told of everything that becomes of members; see :meth:`Pools.watch`."""
        if event == "draining":
            if not member.is_drained:
                at = self._clock.seconds() + pool.timeouts.drain
                self._deadlines[member] = at
                self._look_at(at)
        elif event == "gone" and self._deadlines.pop(member, None) is not None and not self._deadlines:
            self._stop_timer()

    def _look_at(self, at: float) -> None:
        timer = self._timer
        if timer is None:
            self._timer = self._clock.callLater(max(at - self._clock.seconds(), 0), self._due)
        elif timer.getTime() > at:
            timer.reset(max(at - self._clock.seconds(), 0))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        until = self._clock.seconds() + _TOGETHER_SECONDS
        due = {member for member, at in self._deadlines.items() if at <= until}
        for member in due:
            del self._deadlines[member]
        if self._deadlines:
            self._look_at(min(self._deadlines.values()))
        late = oldest_first(exchange for exchange in self._under_way() if exchange.member in due)
        if late:
            _log.info(
                "{count} requests and tunnels are ended, whose backends left their app: {backends}",
                count=len(late),
                backends=", ".join(sorted({exchange.record.backend for exchange in late})[:10]),
            )
        self._pace.spread([partial(_end, exchange, exchange.member) for exchange in late])


def _end(exchange: UnderWay, member: Member | None) -> None:
    if exchange.member is member:  # else it has ended, or went elsewhere
        exchange.drain_deadline_reached()
