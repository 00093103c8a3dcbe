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
  member other than those it tried when there is none that may be used.

Callbacks may call back into the pool in any way.  They own what they are
given from the moment they are called, and should not raise: what one of them
raises comes out of the call that caused it, after all others had their turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

from scalingo_proxy.errors import AppStopped, Maintenance, NoBackend, ProxyError, QueueFull
from scalingo_proxy.interfaces import IBalancer
from scalingo_proxy.model import App, AppState, Health, Limits, Quarantine, Timeouts
from scalingo_proxy.routing.balancers import BALANCERS
from scalingo_proxy.routing.callouts import Callouts
from scalingo_proxy.routing.judged import JudgedMembers
from scalingo_proxy.routing.leases import Lease
from scalingo_proxy.routing.members import Drain, Member
from scalingo_proxy.routing.pool_settings import PoolSettings
from scalingo_proxy.routing.queue import Queue, Ticket
from scalingo_proxy.routing.retry_budget import RetryBudget
from scalingo_proxy.routing.roster import MemberEvent

__all__ = ["Lease", "MemberEvent", "Pool"]

_RUNNING = AppState.RUNNING

_REFUSALS: Mapping[AppState, type[ProxyError]] = {
    AppState.STOPPED: AppStopped,
    AppState.MAINTENANCE: Maintenance,
}


class Pool(JudgedMembers):
    """What serves one app.

    Whoever watches from the start hears of the first members, too, with the
    first :meth:`announce`.

    :ivar queue: who waits.
    :ivar budget: how often its requests may be sent again.
    :ivar takes_any_request: what its app says of that, asked for once.
    """

    __slots__ = ("_is_open", "_is_served", "_is_settling", "budget", "queue", "takes_any_request")

    def __init__(
        self,
        app: App,
        timeouts: Timeouts,
        limits: Limits,
        random: Random,
        now: float,
        balancers: Mapping[str, Callable[[Random], IBalancer]] = BALANCERS,
        *,
        health: Health = Health(),  # noqa: B008 - frozen
        quarantine: Quarantine = Quarantine(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(app, PoolSettings(timeouts, limits, health, quarantine), random, balancers)
        self.queue = Queue()
        self.budget = RetryBudget()
        self._is_settling = False
        # Whether whoever comes may choose without another look at the queue: the
        # app runs, the rules above hold, and there may be room (there is none
        # while anybody waits who could use every member).
        self._is_served = False
        # The same, and nobody's health needs a thought either.
        self._is_open = False
        self._become(app, now)
        self.settle()

    # -- what an exchange asks for -------------------------------------------

    def lease_at_once(self, tried: tuple[Member, ...] = ()) -> Lease | None:
        """A place at a member that is not among *tried*, while everybody is well and somebody has room.

        :return: ``None`` when that is not so; then :meth:`lease` is next.
        """
        if self._is_open:
            choose = self._choose
            member: Member | None = choose(tried)
            if member is not None:
                member.in_flight += 1
                return Lease(self, member)
        return None

    def lease(
        self, tried: tuple[Member, ...] = (), now: float = 0.0, idempotent: bool = False
    ) -> Lease | None:
        """A place at a member that is not among *tried*, if there is one now.

        :param now: may be left out by whoever does not care for slow starts
            and trials.
        :param idempotent: whether this request may be the one that tries a
            member in quarantine when that is due: at once if nobody else may
            be chosen, otherwise when nobody has probed it for a while.
        :return: ``None`` when all of them are busy or the app is paused; then
            :meth:`enqueue` is next.
        :raises AppStopped: and ``Maintenance``, as the app's state says.
        :raises NoBackend: when no member is left to try.
        :raises Quarantined: when those that are left are in quarantine or down.
        """
        member: Member | None
        if self._is_open:
            member = self._choose(tried)
        else:
            member = self._choose_with_care(tried, now, idempotent)
        if member is not None:
            member.in_flight += 1
            return Lease(self, member)
        refusal = self._refusal_for(tried, now)
        if refusal is not None:
            try:
                raise refusal
            finally:
                del refusal  # its traceback holds this frame
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
        lease = self.lease(tried, now)
        if lease is None and self.queue.length >= self._queue_bound(now):
            raise QueueFull()
        ticket = self.queue.add(now, granted, refused, tried)
        if lease is not None:
            ticket.grant(lease)
        elif not tried:
            self._is_served = self._is_open = False
        return ticket

    # -- what a lease tells --------------------------------------------------

    def has_drained(self, member: Member, now: float) -> None:
        """A member on its way out has nothing left."""
        self._roster.let_go(member, now)
        self._note_lineup()
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
        self._is_served = self._is_open = False
        try:
            while self.queue.length and self._serve_one(callouts):
                pass
        finally:
            self._is_settling = False
        self._is_served = self.app.state is _RUNNING and not self.queue.has_line(())
        self._is_open = self._is_served and self._eligibility.is_plain
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
        self._use_settings(self._defaults.of(app))
        return self._become(app, now)

    def set_defaults(self, defaults: PoolSettings, now: float) -> None:
        """Take other defaults under the app's own values."""
        self._defaults = defaults
        self._use_settings(defaults.of(self.app))
        self._draw(now)
        self.settle()

    # -- what there is to see ------------------------------------------------

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self.queue.length

    # -- the queue -----------------------------------------------------------

    def _choose_with_care(self, tried: tuple[Member, ...], now: float, idempotent: bool) -> Member | None:
        """Choose while somebody waits, is not well, or starts slowly."""
        if self.app.state is not _RUNNING:
            return None
        eligibility = self._eligibility
        if now >= eligibility.next_step:
            self._draw(now)
        if idempotent:
            trial = self._trial(tried, now)
            if trial is not None:
                return trial
        if not self._is_served:
            # While a change is being made, places may be free that waiters have a
            # right to; they are served before the change is over.
            if self.queue.length:
                return None
            self._is_served = not self._is_settling
        self._is_open = self._is_served and eligibility.is_plain
        member: Member | None = self._choose(tried)
        if member is None and self._end_probation():
            member = self._choose(tried)
        return member

    def _refusal_for(self, tried: tuple[Member, ...], now: float = math.inf) -> ProxyError | None:
        """Why waiting would be in vain, or ``None``."""
        if self.queue.is_held:
            return None
        if self.app.state is not _RUNNING:
            return _REFUSALS[self.app.state]()
        if not all(member in tried for member in self._eligibility.members):
            return None
        if all(member in tried for member in self._eligibility.aside):
            return NoBackend()
        return self._quarantined(now)

    def _queue_bound(self, now: float) -> int:
        if self.queue.is_held or self.queue.is_behind(now):
            return self.limits.client_connections
        return self.limits.queue_per_backend * len(self._roster.members)

    def _serve_one(self, callouts: Callouts) -> bool:
        """Grant or refuse the oldest ticket that something can be done for, if any."""
        is_running = self.app.state is _RUNNING
        self._end_probation()
        eligible = self._eligibility.members
        free = [one for one in eligible if one.in_flight < one.limit] if is_running else ()
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
        self._is_served = self._is_open = False
        is_started = app.state is _RUNNING and self.app.state is not _RUNNING
        self.queue.hold(app.state is AppState.PAUSED, now + self.timeouts.queue)
        is_other_balancer = app.balancer != self.app.balancer
        self.app = app
        self.takes_any_request = app.takes_any_request
        drain = self._roster.replace(app.backends, self.limits.in_flight_per_backend, now)
        if is_started:
            # Who was stopped meanwhile could not answer; what runs there now has done nothing wrong.
            for member in self._roster.members:
                if self._verdicts.start_over(member, "the app was started again", now):
                    self._roster.note_verdict(member)
        self._draw(now)
        if is_other_balancer:
            self._use_balancer()
        return drain
