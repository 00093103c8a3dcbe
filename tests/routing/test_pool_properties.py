"""Any sequence of calls leaves a pool true to its rules.

Hypothesis drives a pool through random requests, waits, departures and
changes, also from inside callbacks, next to a model that is a plain list of
who waits and who holds what.  POOL_EXAMPLES=2000 makes it a long search.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import (
    AppStopped,
    Maintenance,
    NoBackend,
    ProxyError,
    Quarantined,
    QueueFull,
)
from scalingo_proxy.model import App, AppState, Backend, Limits, Outcome, ProbeResult, Timeouts
from scalingo_proxy.routing.balancers import BALANCERS
from scalingo_proxy.routing.members import Drain, HealthState, Member, Membership
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.queue import Ticket

EXAMPLES = int(os.environ.get("POOL_EXAMPLES", "80"))

REFUSALS = {AppState.STOPPED: AppStopped, AppState.MAINTENANCE: Maintenance}

numbers = st.integers(0, 1000)
# Small numbers, so that places are scarce and the queue is rarely empty.
backend_sets = st.lists(
    st.builds(Backend, st.just("10.0.0.1"), st.integers(1, 4), st.integers(1, 3)), max_size=4
)
limit_sets = st.fixed_dictionaries(
    {"in_flight_per_backend": st.integers(1, 3), "queue_per_backend": st.integers(1, 4)}
)
topologies = st.one_of(
    st.fixed_dictionaries({"backends": backend_sets}),
    st.fixed_dictionaries({"limits": limit_sets}),
    st.fixed_dictionaries({"health": st.fixed_dictionaries({"slow_start": st.sampled_from([0.0, 5.0])})}),
    st.fixed_dictionaries({}, optional={"backends": backend_sets, "balancer": st.sampled_from([*BALANCERS])}),
)
states = st.fixed_dictionaries(
    {"state": st.sampled_from(AppState)}, optional={"backends": backend_sets, "limits": limit_sets}
)
actions = st.tuples(
    st.sampled_from(["release own", "release", "lease", "cancel", "tunnel", "change", "probe"]),
    numbers,
    st.one_of(topologies, topologies, states),
)
scripts = st.one_of(st.just([]), st.lists(actions, max_size=4))
Script = list[tuple[str, int, dict[str, Any]]]


def is_eligible(member: Member) -> bool:
    return member.health in (HealthState.UP, HealthState.UNPROVEN)


class Waiter:
    """One request in the model's queue, and what it does when it is called."""

    def __init__(self, tried: tuple[Member, ...], script: Script) -> None:
        self.tried = tried
        self.script = script
        self.ticket: Ticket | None = None
        self.ends: list[str] = []


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.leases: list[Lease] = []
        self.tunnels: list[Lease] = []
        self.waiting: list[Waiter] = []
        self.waiters: list[Waiter] = []
        self.drains: list[tuple[Drain, list[str]]] = []
        self.events: dict[Member, list[str]] = {}
        self.watcher_script: Script = []

    @initialize(backends=backend_sets, seed=numbers, limits=limit_sets)
    def begin(self, backends: list[Backend], seed: int, limits: dict[str, int]) -> None:
        self.app = App("hello", (), backends, limits=limits)
        self.pool = Pool(self.app, Timeouts(), Limits(client_connections=6), Random(seed), 0.0)
        self.pool.watch(self.member_event)
        self.pool.announce()

    def member_event(self, member: Member, event: str) -> None:
        self.events.setdefault(member, []).append(event)
        script, self.watcher_script = self.watcher_script, []
        self.play(script)

    # -- what may happen, also from inside callbacks --------------------------

    def pick_tried(self, number: int) -> tuple[Member, ...]:
        """Nobody for every other number, else up to two members."""
        members = (*self.pool.members, *self.pool.draining)
        if number % 2 or not members:
            return ()
        return tuple(dict.fromkeys((members[number % len(members)], members[number // 8 % len(members)])))

    def take(self, lease: Lease, tried: tuple[Member, ...]) -> None:
        """A lease was given: rightly so?"""
        member = lease.member
        assert self.app.state is AppState.RUNNING
        assert member not in tried
        assert member in self.pool.members
        assert member.in_flight <= member.limit
        assert is_eligible(member) or member.is_on_trial
        self.leases.append(lease)

    def do_lease(self, number: int, script: Script) -> None:
        tried = self.pick_tried(number)
        try:
            lease = self.pool.lease(tried, self.now, idempotent=bool(number % 3))
        except ProxyError as error:
            self.check_refusal(error, tried)
        else:
            if lease is None:
                self.do_enqueue(tried, script)
            else:
                for waiter in self.waiting if is_eligible(lease.member) else ():
                    assert lease.member in waiter.tried, "overtook a waiter"
                self.take(lease, tried)

    def do_enqueue(self, tried: tuple[Member, ...], script: Script) -> None:
        waiter = Waiter(tried, script)
        is_paused = self.app.state is AppState.PAUSED
        limits = self.pool.limits
        bound = limits.queue_per_backend * len(self.pool.members)
        if is_paused or self.pool.queue.is_behind(self.now):
            bound = limits.client_connections
        is_full = len(self.waiting) >= bound
        try:
            waiter.ticket = self.pool.enqueue(
                self.now,
                lambda lease: self.granted(waiter, lease),
                lambda error: self.refused(waiter, error),
                tried,
            )
        except QueueFull:
            assert is_full
        else:
            assert not is_full
            self.waiting.append(waiter)
            self.waiters.append(waiter)

    def granted(self, waiter: Waiter, lease: Lease) -> None:
        for older in self.waiting[: self.waiting.index(waiter)]:
            assert lease.member in older.tried, "not in order"
        self.end(waiter, "granted")
        self.take(lease, waiter.tried)
        self.play(waiter.script, lease)

    def refused(self, waiter: Waiter, error: ProxyError) -> None:
        self.check_refusal(error, waiter.tried)
        self.end(waiter, "refused")
        self.play(waiter.script)

    def check_refusal(self, error: ProxyError, tried: tuple[Member, ...]) -> None:
        if self.app.state is AppState.RUNNING:
            left = set(self.pool.members) - set(tried)
            assert isinstance(error, Quarantined if left else NoBackend)
            assert not any(is_eligible(member) for member in left)
        else:
            assert isinstance(error, REFUSALS[self.app.state])

    def end(self, waiter: Waiter, how: str) -> None:
        waiter.ends.append(how)
        self.waiting.remove(waiter)

    def do_release(self, number: int) -> None:
        held = self.leases + self.tunnels
        if held:
            lease = held[number % len(held)]
            (self.leases if lease in self.leases else self.tunnels).remove(lease)
            lease.release(list(Outcome)[number % len(Outcome)], self.now)

    def do_probe(self, number: int) -> None:
        members = (*self.pool.members, *self.pool.draining)
        if members:
            result = ProbeResult(number % 2 == 0, "probed", "tcp://10.0.0.1:1", is_answer=number % 3 == 0)
            self.pool.probed(members[number // 8 % len(members)], result, self.now)

    def do_tunnel(self, number: int) -> None:
        if self.leases:
            lease = self.leases.pop(number % len(self.leases))
            self.tunnels.append(lease)
            lease.become_tunnel()

    def do_cancel(self, number: int) -> None:
        ticketed = [waiter for waiter in self.waiters if waiter.ticket is not None]
        if ticketed:
            waiter = ticketed[number % len(ticketed)]
            if waiter in self.waiting:
                self.end(waiter, "cancelled")
            assert waiter.ticket is not None
            waiter.ticket.cancel()

    def do_change(self, changes: dict[str, Any]) -> None:
        self.app = attrs.evolve(self.app, **changes)
        told: list[str] = []
        drain = self.pool.apply(self.app, self.now)
        drain.when_done(lambda: told.append("done"))
        self.drains.append((drain, told))

    def play(self, script: Script, own: Lease | None = None) -> None:
        """What a callback does before it returns."""
        for what, number, changes in script:
            if what == "release own" and own in self.leases:
                self.leases.remove(own)
                own.release(Outcome.COMPLETED, self.now)
            elif what == "release":
                self.do_release(number)
            elif what == "lease":
                self.do_lease(number, [])
            elif what == "cancel":
                self.do_cancel(number)
            elif what == "tunnel":
                self.do_tunnel(number)
            elif what == "change":
                self.do_change(changes)
            elif what == "probe":
                self.do_probe(number)

    # -- rules -----------------------------------------------------------------

    @rule(number=numbers, script=scripts)
    def request(self, number: int, script: Script) -> None:
        self.do_lease(number, script)

    @rule(rush=st.lists(st.tuples(numbers, scripts), min_size=3, max_size=8))
    def rush(self, rush: list[tuple[int, Script]]) -> None:
        for number, script in rush:
            self.do_lease(number, script)

    @precondition(lambda self: self.leases or self.tunnels)
    @rule(number=numbers)
    def release(self, number: int) -> None:
        self.do_release(number)

    @precondition(lambda self: self.leases)
    @rule(number=numbers)
    def tunnel(self, number: int) -> None:
        self.do_tunnel(number)

    @precondition(lambda self: self.waiters)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        self.do_cancel(number)

    @rule(changes=topologies, script=scripts)
    def change(self, changes: dict[str, Any], script: Script) -> None:
        self.watcher_script = script
        self.do_change(changes)
        self.watcher_script = []

    @rule(changes=states)
    def change_state(self, changes: dict[str, Any]) -> None:
        self.do_change(changes)

    @precondition(lambda self: self.app.state is not AppState.RUNNING)
    @rule()
    def resume(self) -> None:
        self.do_change({"state": AppState.RUNNING})

    @rule(number=numbers)
    def probe(self, number: int) -> None:
        self.do_probe(number)

    @rule()
    def start_over(self) -> None:
        self.pool.start_over("redeployed", self.now)

    @rule(seconds=st.integers(1, 9))
    def later(self, seconds: int) -> None:
        self.now += seconds

    # -- what holds between calls ------------------------------------------------

    @invariant()
    def counts_are_leases(self) -> None:
        requests = Counter(lease.member for lease in self.leases)
        tunnels = Counter(lease.member for lease in self.tunnels)
        for member in {*self.events, *requests, *tunnels}:
            assert (requests[member], tunnels[member]) == (member.in_flight, member.tunnels)
            if member.membership is Membership.GONE:
                assert not requests[member] and not tunnels[member]
        assert (self.pool.in_flight, self.pool.tunnels) == (len(self.leases), len(self.tunnels))

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        assert self.pool.queued == len(self.waiting)
        if self.app.state in REFUSALS:
            assert not self.waiting
        elif self.app.state is AppState.RUNNING:
            for waiter in self.waiting:
                usable = [
                    member
                    for member in self.pool.members
                    if member not in waiter.tried and is_eligible(member)
                ]
                assert usable, "waits for nobody"
                assert not any(member.has_room for member in usable), "a place it could use is free"

    @invariant()
    def every_ticket_ends_once(self) -> None:
        for waiter in self.waiters:
            assert len(waiter.ends) == (waiter not in self.waiting)
            if waiter.ticket is not None:
                assert waiter.ticket.is_waiting == (waiter in self.waiting)

    @invariant()
    def members_are_the_backends(self) -> None:
        expected = {backend.address: backend for backend in reversed(self.app.backends)}
        assert {member.backend.address: member.backend for member in self.pool.members} == expected
        for member in self.pool.members:
            assert member.membership is Membership.SERVING
            assert member.weight >= member.backend.weight
            if not self.app.health.get("slow_start"):
                assert member.weight == member.backend.weight or not is_eligible(member)
            assert member.limit == self.pool.limits.in_flight_per_backend or member.is_on_probation

    @invariant()
    def verdicts_are_told(self) -> None:
        aside = [member for member in self.pool.members if not is_eligible(member)]
        assert [one.address for one in self.pool.sidelined] == [one.backend.address for one in aside]
        for member in self.pool.members:
            held = [lease for lease in self.leases + self.tunnels if lease.member is member]
            assert not member.is_on_trial or held, "a trial without a request"
            if member.health is HealthState.UP:
                assert member.wants_answer == bool(member.quarantines)
                assert member.probe_due_at == float("inf")
            else:
                assert member.probe_due_at <= self.now + self.pool.quarantine.max

    @invariant()
    def drains_end_with_their_members(self) -> None:
        for drain, told in self.drains:
            busy = [member for member in drain.members if member.in_flight or member.tunnels]
            assert drain.is_done == (not busy)
            assert told == ["done"] * drain.is_done
            assert set(busy) <= set(self.pool.draining)

    @invariant()
    def lives_are_told_in_order(self) -> None:
        life = {
            Membership.SERVING: ["joined"],
            Membership.DRAINING: ["joined", "draining"],
            Membership.GONE: ["joined", "draining", "gone"],
        }
        for member, events in self.events.items():
            assert [event for event in events if event != "verdict"] == life[member.membership]
        for member in (*self.pool.members, *self.pool.draining):
            assert member in self.events


class PoolPropertyTests(SynchronousTestCase):
    def test_any_sequence(self) -> None:
        """Counts, bounds, order and ends are right after any sequence of calls, nested or not."""
        run_state_machine_as_test(
            PoolMachine, settings=settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
        )
