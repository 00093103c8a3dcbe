"""Tests of scalingo_proxy.routing.judged: verdicts as leases, balancers, queue and watchers meet them."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import NoBackend, ProxyError, Quarantined
from scalingo_proxy.model import App, Health, Limits, Outcome, ProbeResult, Timeouts
from scalingo_proxy.routing.balancers import BALANCERS
from scalingo_proxy.routing.members import HealthState, Member
from scalingo_proxy.routing.pool import Lease, Pool

CONNECTED = ProbeResult(True, "connected", "tcp://10.0.0.1:3000")
FAILED = ProbeResult(False, "refused", "tcp://10.0.0.1:3000")


class JudgedTestCase(SynchronousTestCase):
    def pool(self, count: int = 2, limit: int = 50, health: Health | None = None, **fields: Any) -> Pool:
        backends = [f"10.0.0.{number}:80" for number in range(1, count + 1)]
        app = App("hello", ("hello.test",), backends, **fields)
        limits = Limits(in_flight_per_backend=limit)
        return Pool(app, Timeouts(), limits, Random(1), 0.0, health=health or Health())

    def lease(self, pool: Pool, now: float = 0.0, *tried: Member, idempotent: bool = False) -> Lease:
        lease = pool.lease(tried, now, idempotent)
        assert lease is not None
        return lease

    def refuse(self, pool: Pool, member: Member, now: float = 0.0) -> None:
        """Let *member* refuse a connection."""
        others = [one for one in pool.members if one is not member]
        self.lease(pool, now, *others).release(Outcome.CONNECT_FAILED, now)


class LeaseTests(JudgedTestCase):
    def test_only_who_is_well(self) -> None:
        """A member in quarantine gets no request; the others take its turns, for every balancer."""
        for balancer in BALANCERS:
            pool = self.pool(3, balancer=balancer)
            self.refuse(pool, pool.members[1])
            chosen = Counter(self.lease(pool, 0.5).member for _ in range(20))
            self.assertEqual({pool.members[0], pool.members[2]}, set(chosen), balancer)

    def test_one_crash_is_one_step(self) -> None:
        """Requests that began before the quarantine neither lengthen nor end it."""
        pool = self.pool(1)
        leases = [self.lease(pool) for _ in range(10)]
        (member,) = pool.members
        for number, lease in enumerate(leases[:8]):
            lease.release(Outcome.CLOSED, number / 10)
        self.assertEqual((1, 0.0), (member.quarantines, member.health_since))
        leases[8].answered(1.0)
        leases[8].release(Outcome.COMPLETED, 1.0)
        self.assertIs(HealthState.QUARANTINED, member.health)
        pool.probed(member, CONNECTED, 1.0)
        leases[9].release(Outcome.CLOSED, 1.5)
        self.assertIs(HealthState.UP, member.health, "its failure was known before")

    def test_nobody_left(self) -> None:
        """All in quarantine: refused at once, with the time until one is looked at again."""
        pool = self.pool(2)
        for member in pool.members:
            self.refuse(pool, member)
        error = self.assertRaises(Quarantined, pool.lease, (), 0.1, False)
        self.assertTrue(1 <= error.retry_after <= 2)
        self.assertRaises(Quarantined, pool.enqueue, 0.1, None, None)
        self.assertRaises(NoBackend, pool.lease, pool.members, 0.1)

    def test_trial(self) -> None:
        """When it is due one idempotent request tries, and nobody else until that has ended."""
        pool = self.pool(1)
        (member,) = pool.members
        self.refuse(pool, member)
        self.assertRaises(Quarantined, pool.lease, (), 0.7, True)
        self.assertRaises(Quarantined, pool.lease, (), 9.0, False)
        trial = self.lease(pool, 9.0, idempotent=True)
        self.assertRaises(Quarantined, pool.lease, (), 9.0, True)
        trial.release(Outcome.CLOSED, 10.0)
        self.assertRaises(Quarantined, pool.lease, (), 11.5, True)
        trial = self.lease(pool, 12.5, idempotent=True)
        trial.answered(13.0)
        self.assertIs(HealthState.UP, member.health)
        self.lease(pool, 13.0)
        trial.release(Outcome.COMPLETED, 14.0)

    def test_trial_beside_others(self) -> None:
        """While others serve, a request tries only what nobody has probed in time."""
        pool = self.pool(2, health=Health(timeout=2.0))
        bad, good = pool.members
        self.refuse(pool, bad)
        for now in (2.0, 3.7):
            self.assertIs(good, self.lease(pool, now, idempotent=True).member)
        self.assertIs(good, self.lease(pool, 9.0).member)
        self.assertIs(bad, self.lease(pool, 9.0, idempotent=True).member)
        self.assertIs(good, self.lease(pool, 9.0, idempotent=True).member)

    def test_probation(self) -> None:
        """Back by a mere connection, it gets one request until that is answered, unless it is needed."""
        pool = self.pool(2, limit=3)
        bad, good = pool.members
        self.refuse(pool, bad)
        pool.probed(bad, CONNECTED, 1.0)
        leases = [self.lease(pool, 1.0) for _ in range(4)]
        self.assertEqual({bad: 1, good: 3}, dict(Counter(lease.member for lease in leases)))
        self.assertIs(bad, self.lease(pool, 1.0).member, "the others are full")
        self.refuse(pool, bad, 2.0)
        pool.probed(bad, CONNECTED, 5.0)
        trial = self.lease(pool, 5.0)
        self.assertEqual((bad, 3), (trial.member, bad.in_flight))
        self.assertIsNone(pool.lease((), 5.0), "its place is all there is")

    def test_probation_passed(self) -> None:
        """The first answer gives it all its places."""
        pool = self.pool(2)
        bad = pool.members[0]
        self.refuse(pool, bad)
        pool.probed(bad, CONNECTED, 1.0)
        self.assertEqual(1, bad.limit)
        self.lease(pool, 1.0, pool.members[1]).answered(1.0)
        self.assertEqual((50, 0), (bad.limit, bad.quarantines))

    def test_slow_start(self) -> None:
        """Who is back gets a growing share of the requests."""
        for balancer in BALANCERS:
            pool = self.pool(2, limit=10_000, balancer=balancer, health=Health(slow_start=90.0))
            bad = pool.members[0]
            self.refuse(pool, bad)
            pool.probed(bad, ProbeResult(True, "200", "http://x/", 200, is_answer=True), 100.0)
            shares = []
            for now in (100.0, 140.0, 300.0):
                before = bad.in_flight
                leases = [self.lease(pool, now) for _ in range(1100)]
                shares.append(bad.in_flight - before)
                for lease in leases:
                    lease.release(Outcome.COMPLETED, now)
            self.assertTrue(60 <= shares[0] <= 250, (balancer, shares))
            self.assertTrue(shares[0] < shares[1] < shares[2], (balancer, shares))
            self.assertTrue(500 <= shares[2] <= 600, (balancer, shares))

    def test_turns_are_kept(self) -> None:
        """A member that leaves for a while does not make the rotation start over."""
        pool = self.pool(4)
        order = [self.lease(pool).member for _ in range(4)]
        self.refuse(pool, order[1])
        pool.lease((), 0.5)
        rest = [self.lease(pool, 0.5).member for _ in range(3)]
        self.assertEqual(3, len(set(rest)))
        self.assertNotIn(order[1], rest)


class QueueTests(JudgedTestCase):
    def test_last_one_goes(self) -> None:
        """Whoever waits when the last member goes is refused at once."""
        pool = self.pool(1, limit=1)
        lease = self.lease(pool)
        refused: list[ProxyError] = []
        for _ in range(3):
            pool.enqueue(0.0, lambda lease: None, refused.append)
        lease.release(Outcome.CLOSED, 1.0)
        self.assertEqual([Quarantined] * 3, [type(error) for error in refused])

    def test_who_comes_back_serves(self) -> None:
        """A member that comes back takes from the queue at once."""
        pool = self.pool(2, limit=1)
        bad = pool.members[0]
        self.refuse(pool, bad)
        self.lease(pool, 0.5)
        granted: list[Lease] = []
        pool.enqueue(0.5, granted.append, lambda error: None)
        self.assertEqual([], granted)
        pool.probed(bad, CONNECTED, 1.0)
        self.assertEqual([bad], [lease.member for lease in granted])

    def test_resume_is_another_start(self) -> None:
        """What failed while the app was paused has another start when it is resumed."""
        for state in ("paused", "stopped", "maintenance"):
            pool = self.pool(1)
            lease = self.lease(pool)
            running = pool.app
            pool.apply(App("hello", ("hello.test",), ["10.0.0.1:80"], state=state), 1.0)
            lease.release(Outcome.CLOSED, 2.0)
            self.assertIs(HealthState.QUARANTINED, pool.members[0].health)
            pool.apply(running, 3.0)
            self.assertIs(HealthState.UNPROVEN, pool.members[0].health)
            self.lease(pool, 3.0)


class WatchTests(JudgedTestCase):
    def test_verdicts_are_told(self) -> None:
        """Each piece of news of a member's health is told once, when the choice has changed already."""
        pool = self.pool(2)
        bad = pool.members[0]
        told: list[tuple[str, HealthState, int]] = []
        pool.watch(lambda member, event: told.append((event, member.health, len(pool.sidelined))))
        pool.announce()
        told.clear()
        self.refuse(pool, bad)
        pool.probed(bad, FAILED, 1.0)
        pool.probed(bad, CONNECTED, 2.0)
        self.lease(pool, 2.0, pool.members[1]).release(Outcome.COMPLETED, 2.0)
        self.assertEqual(
            [
                ("verdict", HealthState.QUARANTINED, 1),
                ("verdict", HealthState.QUARANTINED, 1),
                ("verdict", HealthState.UP, 0),
            ],
            told,
        )

    def test_proved(self) -> None:
        """Members named by their backends' identity begin as up."""
        pool = self.pool(2)
        pool.proved({pool.members[1].backend.identity}, "passed its probe", 0.0)
        self.assertEqual([HealthState.UNPROVEN, HealthState.UP], [member.health for member in pool.members])

    def test_who_has_left_is_not_judged(self) -> None:
        """Neither probes nor requests of a member that drains are news."""
        pool = self.pool(2)
        lease = self.lease(pool)
        member = lease.member
        pool.apply(App("hello", ("hello.test",)), 1.0)
        told: list[str] = []
        pool.watch(lambda member, event: told.append(event))
        pool.probed(member, FAILED, 2.0)
        lease.release(Outcome.CLOSED, 2.0)
        self.assertEqual(["gone"], told)
