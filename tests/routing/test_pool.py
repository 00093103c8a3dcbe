"""Leases, and what becomes of a pool when its app changes."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import AppStopped, Maintenance, NoBackend
from scalingo_proxy.model import App, AppState, Backend, Limits, Outcome, Timeouts
from scalingo_proxy.routing.members import HealthState, Membership
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.routing.pool_settings import PoolSettings


def make_app(*backends: str | Backend, **fields: Any) -> App:
    return App("hello", ("hello.localhost",), backends, **fields)


def make_pool(app: App, in_flight_per_backend: int = 50) -> Pool:
    return Pool(app, Timeouts(), Limits(in_flight_per_backend=in_flight_per_backend), Random(1), 0.0)


class LeaseTests(SynchronousTestCase):
    def test_counts(self) -> None:
        """A lease counts at its member until it is released."""
        pool = make_pool(make_app("10.0.0.1:80"))
        lease = pool.lease()
        assert lease is not None
        (member,) = pool.members
        self.assertEqual((pool, member, member.backend), (lease.pool, lease.member, lease.backend))
        self.assertEqual((1, 1), (member.in_flight, pool.in_flight))
        lease.release(Outcome.COMPLETED, 1.0)
        self.assertEqual((0, 0), (member.in_flight, pool.in_flight))

    def test_released_once(self) -> None:
        """Releasing twice is a bug that shows, and changes no count."""
        pool = make_pool(make_app("10.0.0.1:80"))
        lease = pool.lease()
        assert lease is not None
        lease.release(Outcome.COMPLETED, 1.0)
        self.assertRaises(RuntimeError, lease.release, Outcome.COMPLETED, 1.0)
        self.assertRaises(RuntimeError, lease.become_tunnel)
        self.assertEqual((0, 0), (pool.in_flight, pool.tunnels))

    def test_tunnels_do_not_count_against_the_limit(self) -> None:
        """An upgraded connection gives its place to the next request."""
        pool = make_pool(make_app("10.0.0.1:80"), in_flight_per_backend=1)
        lease = pool.lease()
        assert lease is not None
        self.assertIsNone(pool.lease())
        lease.become_tunnel()
        self.assertEqual((0, 1), (pool.in_flight, pool.tunnels))
        self.assertIsNotNone(pool.lease())
        self.assertRaises(RuntimeError, lease.become_tunnel)
        lease.release(Outcome.COMPLETED, 1.0)
        self.assertEqual((1, 0), (pool.in_flight, pool.tunnels))

    def test_first_answer_proves(self) -> None:
        """The first completed request proves a member; one that was given up does not."""
        pool = make_pool(make_app("10.0.0.1:80"))
        for outcome, health in (
            (Outcome.ABANDONED, HealthState.UNPROVEN),
            (Outcome.BAD_RESPONSE, HealthState.UNPROVEN),
            (Outcome.COMPLETED, HealthState.UP),
        ):
            lease = pool.lease()
            assert lease is not None
            lease.release(outcome, 1.0)
            self.assertIs(health, lease.member.health)

    def test_members_take_turns(self) -> None:
        """Requests rotate over the members."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
        for _ in range(6):
            pool.lease()
        self.assertEqual([2, 2, 2], [member.in_flight for member in pool.members])

    def test_not_the_same_again(self) -> None:
        """A member that was tried is not offered again, even when all others are busy."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80"), in_flight_per_backend=2)
        one, two = pool.members
        for _ in range(2):
            lease = pool.lease((one,))
            assert lease is not None
            self.assertIs(two, lease.member)
        self.assertIsNone(pool.lease((one,)))
        lease = pool.lease()
        assert lease is not None
        self.assertIs(one, lease.member)

    def test_everybody_tried(self) -> None:
        """When every member was tried, waiting would be in vain."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80"))
        self.assertRaises(NoBackend, pool.lease, pool.members)

    def test_nobody_there(self) -> None:
        """An app without backends has no lease to give."""
        self.assertRaises(NoBackend, make_pool(make_app()).lease)

    def test_states(self) -> None:
        """A stopped app and one in maintenance say so; a paused one holds the request."""
        backends = ("10.0.0.1:80",)
        self.assertRaises(AppStopped, make_pool(make_app(*backends, state="stopped")).lease)
        self.assertRaises(Maintenance, make_pool(make_app(*backends, state="maintenance")).lease)
        self.assertIsNone(make_pool(make_app(*backends, state="paused")).lease())
        self.assertIsNone(make_pool(make_app(state="paused")).lease(), "backends may come before the resume")


class ChangeTests(SynchronousTestCase):
    def test_members_by_address(self) -> None:
        """Backends that stay keep their member and its counts; new ones join unproven."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80"))
        one, two = pool.members
        lease = pool.lease((one,))
        assert lease is not None
        pool.apply(make_app("10.0.0.2:80", "10.0.0.3:80"), 1.0)
        self.assertIs(two, pool.members[0])
        self.assertEqual(1, two.in_flight)
        self.assertEqual((HealthState.UNPROVEN, 1.0), (pool.members[1].health, pool.members[1].health_since))
        self.assertIs(Membership.GONE, one.membership)

    def test_drain(self) -> None:
        """A member that left finishes its requests and tunnels, gets no new ones, and then is gone."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80"))
        one, two = pool.members
        request, tunnel = pool.lease((two,)), pool.lease((two,))
        assert request is not None and tunnel is not None
        tunnel.become_tunnel()
        drain = pool.apply(make_app("10.0.0.2:80"), 1.0)
        told: list[str] = []
        drain.when_done(lambda: told.append("done"))
        self.assertEqual(((one,), (one,), (two,)), (drain.members, pool.draining, pool.members))
        self.assertEqual((1, 1), (pool.in_flight, pool.tunnels))
        for _ in range(4):
            lease = pool.lease()
            assert lease is not None
            self.assertIs(two, lease.member)
        request.release(Outcome.COMPLETED, 2.0)
        self.assertEqual((Membership.DRAINING, False, []), (one.membership, drain.is_done, told))
        tunnel.release(Outcome.COMPLETED, 3.0)
        self.assertEqual((Membership.GONE, 3.0), (one.membership, one.membership_since))
        self.assertEqual((True, ["done"], ()), (drain.is_done, told, pool.draining))

    def test_address_comes_back_while_draining(self) -> None:
        """The address serves again at once as a new member; the old drain ends with the old requests."""
        app = make_app("10.0.0.1:80")
        pool = make_pool(app, in_flight_per_backend=1)
        (old,) = pool.members
        lease = pool.lease()
        assert lease is not None
        drain = pool.apply(make_app(), 1.0)
        self.assertRaises(NoBackend, pool.lease)
        pool.apply(app, 2.0)
        (new,) = pool.members
        other = pool.lease((old,))
        assert other is not None
        self.assertIs(new, other.member)
        self.assertEqual((1, 1, False), (old.in_flight, new.in_flight, drain.is_done))
        lease.release(Outcome.COMPLETED, 3.0)
        self.assertEqual((Membership.GONE, True, 1), (old.membership, drain.is_done, new.in_flight))
        self.assertEqual((new,), pool.members)

    def test_drains_are_apart(self) -> None:
        """Each change waits for its own members."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80"))
        one, two = pool.members
        leases = [pool.lease((two,)), pool.lease((one,))]
        first = pool.apply(make_app("10.0.0.2:80"), 1.0)
        second = pool.apply(make_app(), 2.0)
        assert leases[1] is not None
        leases[1].release(Outcome.COMPLETED, 3.0)
        self.assertEqual((False, True), (first.is_done, second.is_done))

    def test_weights(self) -> None:
        """A weight that changes counts from the next request on."""
        pool = make_pool(make_app(Backend("10.0.0.1", 80), Backend("10.0.0.2", 80)))
        pool.apply(make_app(Backend("10.0.0.1", 80, 3), Backend("10.0.0.2", 80)), 1.0)
        for _ in range(8):
            pool.lease()
        self.assertEqual([6, 2], [member.in_flight for member in pool.members])

    def test_limits(self) -> None:
        """A lowered limit stops new requests and keeps the old ones; the app's own value counts."""
        pool = make_pool(make_app("10.0.0.1:80"))
        leases = [pool.lease() for _ in range(3)]
        pool.apply(make_app("10.0.0.1:80", limits={"in_flight_per_backend": 2}), 1.0)
        self.assertEqual((2, 50), (pool.limits.in_flight_per_backend, pool.limits.queue_per_backend))
        self.assertIsNone(pool.lease())
        for lease in leases[:2]:
            assert lease is not None
            self.assertIsNone(pool.lease())
            lease.release(Outcome.COMPLETED, 1.0)
        self.assertIsNotNone(pool.lease())

    def test_limit_of_draining_members(self) -> None:
        """Joining and draining members follow the limit as it is."""
        pool = make_pool(make_app("10.0.0.1:80"))
        pool.lease()
        pool.apply(make_app("10.0.0.2:80", limits={"in_flight_per_backend": 7}), 1.0)
        self.assertEqual([7, 7], [member.limit for member in (*pool.members, *pool.draining)])

    def test_timeouts(self) -> None:
        """Timeouts are the defaults with the app's own over them, and both may change."""
        pool = make_pool(make_app(timeouts={"queue": 3.0}))
        self.assertEqual(Timeouts(queue=3.0), pool.timeouts)
        pool.set_defaults(PoolSettings(Timeouts(connect=1.0), Limits(body_bytes=9)), 0.0)
        self.assertEqual(
            (Timeouts(connect=1.0, queue=3.0), Limits(body_bytes=9)), (pool.timeouts, pool.limits)
        )
        pool.apply(make_app(), 1.0)
        self.assertEqual(Timeouts(connect=1.0), pool.timeouts)

    def test_nonsense_changes_nothing(self) -> None:
        """An override that does not exist is refused before anything changes."""
        app = make_app("10.0.0.1:80")
        pool = make_pool(app)
        self.assertRaises(TypeError, pool.apply, make_app(limits={"hats": 1}), 1.0)
        self.assertIs(app, pool.app)
        self.assertEqual(1, len(pool.members))
        self.assertIsNotNone(pool.lease())

    def test_other_balancer(self) -> None:
        """The balancer that the app names is used from the next request on."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80"))
        one, two = pool.members
        for _ in range(5):
            pool.lease((two,))
        pool.apply(make_app("10.0.0.1:80", "10.0.0.2:80", balancer="least_requests"), 1.0)
        for _ in range(5):
            pool.lease()
        self.assertEqual([5, 5], [one.in_flight, two.in_flight])

    def test_unknown_balancer(self) -> None:
        """A balancer nobody knows does not stop an app: its members rotate."""
        pool = make_pool(make_app("10.0.0.1:80", "10.0.0.2:80", balancer="dice"))
        for _ in range(4):
            pool.lease()
        self.assertEqual([2, 2], [member.in_flight for member in pool.members])

    def test_equal_app(self) -> None:
        """An equal description is adopted without touching anything."""
        app = make_app("10.0.0.1:80")
        pool = make_pool(app)
        members = pool.members
        again = attrs.evolve(app)
        self.assertEqual((), pool.apply(again, 1.0).members)
        self.assertIs(again, pool.app)
        self.assertIs(members, pool.members)

    def test_state_keeps_the_turn(self) -> None:
        """Stopping and starting does not touch members or rotation."""
        app = make_app("10.0.0.1:80", "10.0.0.2:80")
        pool = make_pool(app)
        first = pool.lease()
        pool.apply(attrs.evolve(app, state=AppState.STOPPED), 1.0)
        self.assertRaises(AppStopped, pool.lease)
        pool.apply(app, 2.0)
        second = pool.lease()
        assert first is not None and second is not None
        self.assertIsNot(first.member, second.member)


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = make_pool(make_app("10.0.0.1:80"))
        self.events: list[tuple[str, str]] = []
        self.stop = self.pool.watch(lambda member, event: self.events.append((member.backend.address, event)))
        self.pool.announce()

    def test_from_the_start(self) -> None:
        """Whoever watches before the first announcement hears of the first members."""
        self.assertEqual([("10.0.0.1:80", "joined")], self.events)

    def test_whole_life(self) -> None:
        """A member's watcher hears of it joining, draining and being gone, each when it happens."""
        lease = self.pool.lease()
        assert lease is not None
        self.pool.apply(make_app("10.0.0.2:80"), 1.0)
        self.assertEqual([("10.0.0.2:80", "joined"), ("10.0.0.1:80", "draining")], self.events[1:])
        lease.release(Outcome.COMPLETED, 2.0)
        self.assertEqual(("10.0.0.1:80", "gone"), self.events[-1])

    def test_stop(self) -> None:
        """A watcher that stopped hears nothing."""
        self.stop()
        self.pool.apply(make_app(), 1.0)
        self.assertEqual(1, len(self.events))

    def test_reentrance(self) -> None:
        """A watcher may change the pool again; both changes are whole."""

        def replace_again(member: Any, event: str) -> None:
            if (member.backend.address, event) == ("10.0.0.2:80", "joined"):
                self.pool.apply(make_app("10.0.0.3:80"), 2.0)

        self.pool.watch(replace_again)
        self.pool.apply(make_app("10.0.0.2:80"), 1.0)
        self.assertEqual(["10.0.0.3:80"], [member.backend.address for member in self.pool.members])
        self.assertEqual((), self.pool.draining)
        life = ["joined", "draining", "gone"]
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            self.assertEqual(life, [event for where, event in self.events if where == address])
