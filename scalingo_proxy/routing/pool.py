"""The members of one app, who may use them now, and who has to wait.

A pool gives leases while its members have room, keeps everybody else in a
queue, and turns into what each new description of the app says.  It opens no
connection and reads no clock; what a lease is used for is not its business.

Three rules hold whenever no call of a pool is under way, and everything else
follows from them:

* a member's ``in_flight`` is the number of leases on it, never above its
  limit (unless the limit was lowered meanwhile);
* nobody in the queue could use a place that is free, so that whoever comes
  and finds one overtakes nobody who was waiting for it;
* nobody in the queue waits for what cannot come: for a stopped app, or for a
  member other than those it tried when there is none.

Callbacks may call back into the pool in any way.  They own what they are
given from the moment they are called, and should not raise: what one of them
raises comes out of the call that caused it, after all others had their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import attrs

from scalingo_proxy.errors import AppStopped, Maintenance, NoBackend, ProxyError, QueueFull
from scalingo_proxy.interfaces import IBalancer
from scalingo_proxy.model import App, AppState, Limits, Timeouts
from scalingo_proxy.routing.balancers import BALANCERS, RoundRobin
from scalingo_proxy.routing.callouts import Callouts
from scalingo_proxy.routing.leases import Lease
from scalingo_proxy.routing.members import Drain, Member
from scalingo_proxy.routing.queue import Queue, Ticket
from scalingo_proxy.routing.roster import MemberEvent, Roster

__all__ = ["Lease", "MemberEvent", "Pool"]

_RUNNING = AppState.RUNNING

_REFUSALS: Mapping[AppState, type[ProxyError]] = {
    AppState.STOPPED: AppStopped,
    AppState.MAINTENANCE: Maintenance,
}


class Pool:
    """What serves one app.

    Whoever watches from the start hears of the first members, too, with the
    first :meth:`announce`.

    :ivar app: the app as it was last applied.
    :ivar timeouts: the defaults with the app's own values over them; ``limits``
        likewise.
    :ivar queue: who waits.
    :ivar is_crowded: whether a member may have as many requests as it may; set by
        whoever gives it the last one, so that nobody else has to look.
    """

    __slots__ = (
        "_balancer",
        "_balancers",
        "_choose",
        "_defaults",
        "_is_open",
        "_is_settling",
        "_random",
        "_roster",
        "app",
        "is_crowded",
        "limits",
        "queue",
        "timeouts",
    )

    def __init__(
        self,
        app: App,
        timeouts: Timeouts,
        limits: Limits,
        random: Random,
        now: float,
        balancers: Mapping[str, Callable[[Random], IBalancer]] = BALANCERS,
    ) -> None:
        self._random = random
        self._balancers = balancers
        self.queue = Queue()
        self._roster = Roster()
        self._is_settling = False
        self.is_crowded = False
        # Whether lease() may choose without another look: the app runs, the
        # rules above hold, and there may be room (there is none while anybody
        # waits who could use every member).
        self._is_open = False
        self._defaults = (timeouts, limits)
        self.app = app
        self._use_settings(*self._settings_for(app))
        self._use_balancer()
        self._become(app, now)
        self.settle()

    # -- what an exchange asks for -------------------------------------------

    def lease(self, tried: tuple[Member, ...] = ()) -> Lease | None:
        """A place at a member that is not among *tried*, if there is one now.

        :return: ``None`` when all of them are busy or the app is paused; then
            :meth:`enqueue` is next.
        :raises AppStopped: and ``Maintenance``, as the app's state says.
        :raises NoBackend: when no member is left to try.
        """
        if self._is_open or self._may_open():
            member: Member | None = self._choose(tried)
            if member is not None:
                member.in_flight += 1
                return Lease(self, member)
        refusal = self._refusal_for(tried)
        if refusal is not None:
            raise refusal
        return None

    def enqueue(
        self,
        now: float,
        granted: Callable[[Lease], None],
        refused: Callable[[ProxyError], None],
        tried: tuple[Member, ...] = (),
    ) -> Ticket:
        """Wait for a place: one of the two is called, once, unless cancelled before.

        Should a place be free after all, *granted* is called before this
        returns, and the ticket returned has ended.

        :raises QueueFull: and whatever :meth:`lease` raises.
        """
        lease = self.lease(tried)
        if lease is None and self.queue.length >= self._queue_bound(now):
            raise QueueFull()
        ticket = self.queue.add(now, granted, refused, tried)
        if lease is not None:
            ticket.grant(lease)
        elif not tried:
            self._is_open = False
        return ticket

    # -- what a lease tells --------------------------------------------------

    def has_drained(self, member: Member, now: float) -> None:
        """A member on its way out has nothing left."""
        self._roster.let_go(member, now)
        self._roster.tell()

    def settle(self) -> None:
        """Serve the queue, oldest first, until nothing can be done for anybody in it.

        Each callback may change anything, so nothing is remembered from one
        turn to the next.  A call from inside such a callback does nothing:
        the loop that made the callback looks at everything again.
        """
        if self._is_settling:
            return
        callouts = Callouts()
        self._is_settling = True
        self._is_open = False
        try:
            while self.queue.length and self._serve_one(callouts):
                pass
        finally:
            self._is_settling = False
        self._is_open = self.app.state is _RUNNING and not self.queue.has_line(())
        callouts.finish()

    # -- what the topology says ----------------------------------------------

    def apply(self, app: App, now: float) -> Drain:
        """Become what *app* says; backends are compared by their address.

        An address that comes back while its former member still drains is a
        new member: the old one finishes and goes by itself, and for that time
        the address may have up to the limit of requests from either.

        :return: the drain of the members that *app* no longer has.
        """
        drain = self.change_to(app, now)
        self.announce()
        return drain

    def change_to(self, app: App, now: float) -> Drain:
        """The first half of :meth:`apply`: change everything, call nobody.

        With :meth:`announce` for each of them afterwards, several pools take
        part in one change before the first callback can look at any.

        :raises TypeError: for an override that does not exist; nothing has
            changed then.
        """
        if app == self.app:
            self.app = app
            return Drain()
        self._use_settings(*self._settings_for(app))
        return self._become(app, now)

    def announce(self) -> None:
        """The second half: tell the watchers, then serve or refuse who waits."""
        callouts = Callouts()
        callouts.call(self._roster.tell)
        callouts.call(self.settle)
        callouts.finish()

    def set_defaults(self, timeouts: Timeouts, limits: Limits) -> None:
        """Take other defaults under the app's own values."""
        self._defaults = (timeouts, limits)
        self._use_settings(*self._settings_for(self.app))
        self.settle()

    # -- what there is to see ------------------------------------------------

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that serve, in the app's order."""
        return self._roster.members

    @property
    def draining(self) -> tuple[Member, ...]:
        """The members on their way out, oldest first."""
        return self._roster.draining

    @property
    def lineup(self) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
        """The members that serve and those on their way out, as one value that never changes."""
        return self._roster.lineup

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self.queue.length

    @property
    def in_flight(self) -> int:
        """The requests under way at all members, draining ones included."""
        return sum(member.in_flight for member in self._roster.everybody())

    @property
    def tunnels(self) -> int:
        """The tunnels open at all members, draining ones included."""
        return sum(member.tunnels for member in self._roster.everybody())

    def full_members(self) -> tuple[Member, ...]:
        """The members that have as many requests as they may."""
        full = tuple([member for member in self._roster.members if member.in_flight >= member.limit])
        self.is_crowded = bool(full)
        return full

    def watch(self, callback: Callable[[Member, MemberEvent], object]) -> Callable[[], None]:
        """Tell *callback* what becomes of members, until the returned function is called."""
        return self._roster.watch(callback)

    # -- the queue -----------------------------------------------------------

    def _may_open(self) -> bool:
        # While a change is being made, places may be free that waiters have a
        # right to; they are served before the change is over.
        if self.queue.length or self.app.state is not _RUNNING:
            return False
        self._is_open = not self._is_settling
        return True

    def _refusal_for(self, tried: tuple[Member, ...]) -> ProxyError | None:
        """Why waiting would be in vain, or ``None``."""
        if self.queue.is_held:
            return None
        if self.app.state is not _RUNNING:
            return _REFUSALS[self.app.state]()
        members = self._roster.members
        if len(tried) >= len(members) and all(member in tried for member in members):
            return NoBackend()
        return None

    def _queue_bound(self, now: float) -> int:
        if self.queue.is_held or self.queue.is_behind(now):
            return self.limits.client_connections
        return self.limits.queue_per_backend * len(self._roster.members)

    def _serve_one(self, callouts: Callouts) -> bool:
        """Grant or refuse the oldest ticket that something can be done for, if any."""
        is_running = self.app.state is _RUNNING
        free = [one for one in self._roster.members if one.in_flight < one.limit] if is_running else ()
        for ticket in self.queue.heads():
            tried = ticket.tried
            if any(member not in tried for member in free):
                member: Member | None = self._choose(tried)
                if member is not None:
                    member.in_flight += 1
                    callouts.call(ticket.grant, Lease(self, member))
                    return True
            else:
                refusal = self._refusal_for(tried)
                if refusal is not None:
                    callouts.call(ticket.refuse, refusal)
                    return True
        return False

    # -- a change ------------------------------------------------------------

    def _become(self, app: App, now: float) -> Drain:
        self._is_open = False
        self.queue.hold(app.state is AppState.PAUSED, now + self.timeouts.queue)
        is_other_balancer = app.balancer != self.app.balancer
        self.app = app
        changed, drain = self._roster.replace(app.backends, self.limits.in_flight_per_backend, now)
        if is_other_balancer:
            self._use_balancer()
        elif changed:
            self._balancer.members_changed(self._roster.members)
        return drain

    def _settings_for(self, app: App) -> tuple[Timeouts, Limits]:
        timeouts, limits = self._defaults
        if app.timeouts:
            timeouts = attrs.evolve(timeouts, **app.timeouts)
        if app.limits:
            limits = attrs.evolve(limits, **app.limits)
        return timeouts, limits

    def _use_settings(self, timeouts: Timeouts, limits: Limits) -> None:
        self.timeouts = timeouts
        self.limits = limits
        self.is_crowded = True  # for all that is known
        for member in self._roster.everybody():
            member.limit = limits.in_flight_per_backend

    def _use_balancer(self) -> None:
        """Take up the balancer that the app names.

        An unknown name means round robin: whoever reads app records refuses
        it there, and here an app that answers is worth more than a complaint.
        """
        self._balancer = self._balancers.get(self.app.balancer, RoundRobin)(self._random)
        self._choose = self._balancer.choose
        self._balancer.members_changed(self._roster.members)
