"""Pools by app name, and who is right about an app."""

from __future__ import annotations

import gc
from random import Random
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import AppStopped, NoBackend
from scalingo_proxy.model import App, AppState, Limits, Outcome, Route, Timeouts, TopologyChange
from scalingo_proxy.routing.members import HealthState, Member
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.routing.pools import Pools

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"


def make_app(*backends: str, name: str = "hello", **fields: Any) -> App:
    return App(name, (), backends, **fields)


def route(app: App) -> Route:
    return Route(app, "hello.localhost", "memory")


def updated(*apps: App) -> TopologyChange:
    return TopologyChange(updated=apps)


def removed(*names: str) -> TopologyChange:
    return TopologyChange(removed=names)


def addresses(pool: Pool | None) -> list[str]:
    assert pool is not None
    return [member.backend.address for member in pool.members]


class PoolsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.pools = Pools(Timeouts(), Limits(in_flight_per_backend=1), Random(1), clock=lambda: self.now)
        self.events: list[tuple[str, str, str]] = []

    def record(self, pool: Pool, member: Member, event: str) -> None:
        self.events.append((pool.app.name, member.backend.address, event))


class FirstUseTests(PoolsTestCase):
    def test_made_when_first_used(self) -> None:
        """There is no pool before a request asks for it, however many apps a feed tells of."""
        apps = [make_app(ONE, name=f"app-{number}") for number in range(100)]
        self.assertEqual((), self.pools.apply(updated(*apps), 0.0))
        self.assertEqual([], list(self.pools))
        self.assertIsNone(self.pools.get("app-7"))
        pool = self.pools.for_route(route(apps[7]))
        self.assertEqual((apps[7], [ONE]), (pool.app, addresses(pool)))
        self.assertEqual([pool], list(self.pools))
        self.assertIs(pool, self.pools.get("app-7"))

    def test_same_pool_for_the_same_app(self) -> None:
        """All routes of an app share one pool; other apps have their own."""
        app = make_app(ONE)
        pool = self.pools.for_route(route(app))
        self.assertIs(pool, self.pools.for_route(Route(app, "www.example.com")))
        self.assertIsNot(pool, self.pools.for_route(route(make_app(ONE, name="other"))))

    def test_time_comes_from_the_clock(self) -> None:
        """A pool made for a route begins now."""
        pool = self.pools.for_route(route(make_app(ONE)))
        self.assertEqual(100.0, pool.members[0].membership_since)

    def test_balancers(self) -> None:
        """An embedder's balancer is used by the name it was given under."""
        made: list[Any] = []

        class First:
            def __init__(self, random: Random) -> None:
                made.append(random)
                self.members: Any = ()

            def members_changed(self, members: Any) -> None:
                self.members = members

            def choose(self, avoid: Any) -> Any:
                return next((one for one in self.members if one.has_room and one not in avoid), None)

        random = Random(1)
        pools = Pools(Timeouts(), Limits(), random, {"first": First}, clock=lambda: 0.0)
        pool = pools.for_route(route(make_app(ONE, TWO, balancer="first")))
        for _ in range(3):
            pool.lease()
        self.assertEqual(([random], [3, 0]), (made, [member.in_flight for member in pool.members]))


class FeedTests(PoolsTestCase):
    def test_change_reaches_the_pool(self) -> None:
        """What a feed says is applied to the pool that exists, and its drains come back."""
        app = make_app(ONE)
        pool = self.pools.for_route(route(app))
        lease = pool.lease()
        assert lease is not None
        other = self.pools.for_route(route(make_app(ONE, name="other")))
        (drain,) = self.pools.apply(updated(make_app(TWO)), 5.0)
        self.assertEqual(([TWO], [ONE]), (addresses(pool), addresses(other)))
        self.assertEqual((lease.member,), drain.members)
        lease.release(Outcome.COMPLETED, 6.0)
        self.assertTrue(drain.is_done)

    def test_outdated_route(self) -> None:
        """A route that is older than what the feed said gets the pool as it is now."""
        old, new = make_app(ONE), make_app(TWO)
        self.pools.for_route(route(old))
        self.pools.apply(updated(new), 1.0)
        self.assertEqual([TWO], addresses(self.pools.for_route(route(old))))
        self.assertEqual([TWO], addresses(self.pools.for_route(route(new))))

    def test_outdated_route_makes_the_pool(self) -> None:
        """Even the first route of an app cannot bring back what the feed replaced."""
        old, new = make_app(ONE), make_app(TWO)
        self.pools.apply(updated(new), 1.0)
        self.assertIs(new, self.pools.for_route(route(old)).app)

    def test_back_to_an_earlier_app(self) -> None:
        """The very App that was replaced, or removed, counts again when the feed tells it again."""
        blue, green = make_app(ONE), make_app(TWO)
        for change in (updated(blue), updated(green), removed("hello"), updated(blue)):
            self.pools.for_route(route(blue))
            self.pools.apply(change, 1.0)
        self.assertEqual([ONE], addresses(self.pools.for_route(route(green))))
        self.assertEqual([ONE], addresses(self.pools.for_route(route(blue))))

    def test_whole_before_anybody_sees_it(self) -> None:
        """When the first callback of a change runs, every pool has changed already."""
        one, two = make_app(ONE, name="one"), make_app(ONE, name="two")
        first, second = (self.pools.for_route(route(app)) for app in (one, two))
        seen: list[list[str]] = []
        self.pools.watch(lambda pool, member, event: seen.append(addresses(first) + addresses(second)))
        self.pools.apply(updated(make_app(TWO, name="one"), make_app(TWO, name="two")), 1.0)
        self.assertEqual([[TWO, TWO]] * 6, seen)

    def test_one_failure_does_not_stop_the_others(self) -> None:
        """An app that cannot be applied is reported, after all others were."""
        one, two = make_app(ONE, name="one"), make_app(ONE, name="two")
        first, second = (self.pools.for_route(route(app)) for app in (one, two))
        nonsense = make_app(TWO, name="one", limits={"hats": 1})
        self.assertRaises(TypeError, self.pools.apply, updated(nonsense, make_app(TWO, name="two")), 1.0)
        self.assertEqual(([ONE], [TWO]), (addresses(first), addresses(second)))


class PullTests(PoolsTestCase):
    """A resolver that pushes nothing: the route is all there is."""

    def test_route_changes_the_pool(self) -> None:
        """The latest answer counts, also one that goes back to an earlier App."""
        blue, green = make_app(ONE), make_app(TWO)
        for app, expected in ((blue, ONE), (green, TWO), (blue, ONE)):
            self.now += 1
            pool = self.pools.for_route(route(app))
            self.assertEqual([expected], addresses(pool))
            self.assertEqual(self.now, pool.members[0].membership_since)

    def test_equal_answers(self) -> None:
        """A resolver that makes a new, equal App for each answer leaves the members alone."""
        pool = self.pools.for_route(route(make_app(ONE)))
        members = pool.members
        self.assertIs(pool, self.pools.for_route(route(make_app(ONE))))
        self.assertIs(members, pool.members)

    def test_feed_takes_over(self) -> None:
        """From the moment a feed speaks of the app, routes are not believed any more."""
        self.pools.for_route(route(make_app(ONE)))
        self.pools.apply(updated(make_app(TWO)), 1.0)
        self.assertEqual([TWO], addresses(self.pools.for_route(route(make_app(ONE)))))

    def test_taken_over_from_the_feed(self) -> None:
        """An app that the feed dropped may be answered for by another resolver."""
        dropped = make_app(ONE)
        self.pools.apply(updated(dropped), 1.0)
        self.pools.for_route(route(dropped))
        self.pools.apply(removed("hello"), 2.0)
        self.assertEqual([TWO], addresses(self.pools.for_route(route(make_app(TWO)))))


class RemovalTests(PoolsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.app = make_app(ONE)
        self.pool = self.pools.for_route(route(self.app))

    def test_drains_and_is_forgotten(self) -> None:
        """The pool of a removed app is seen until its last request is over."""
        lease = self.pool.lease()
        assert lease is not None
        (drain,) = self.pools.apply(removed("hello", "never heard of"), 1.0)
        self.assertIsNone(self.pools.get("hello"))
        self.assertEqual(([self.pool], 1), (list(self.pools), self.pool.in_flight))
        self.assertRaises(NoBackend, self.pool.lease)
        lease.release(Outcome.COMPLETED, 2.0)
        self.assertEqual(([], True), (list(self.pools), drain.is_done))

    def test_idle_pool_is_forgotten_at_once(self) -> None:
        """Nothing is kept of an app without requests."""
        self.pools.apply(removed("hello"), 1.0)
        self.assertEqual([], list(self.pools))

    def test_earlier_drains_keep_it(self) -> None:
        """Members that left before the removal count, too."""
        lease = self.pool.lease()
        assert lease is not None
        self.pools.apply(updated(make_app(TWO)), 1.0)
        self.pools.apply(removed("hello"), 2.0)
        self.assertEqual([self.pool], list(self.pools))
        lease.release(Outcome.COMPLETED, 3.0)
        self.assertEqual([], list(self.pools))

    def test_waiters_are_refused(self) -> None:
        """Nobody goes on waiting for an app that is no more, not even if it was paused."""
        for state in (AppState.RUNNING, AppState.PAUSED):
            app = make_app(ONE, name=state.value)
            pool = self.pools.for_route(route(app))
            pool.lease()
            self.pools.apply(updated(attrs.evolve(app, state=state)), 1.0)
            errors: list[Any] = []
            pool.enqueue(0.0, errors.append, errors.append)
            self.pools.apply(removed(state.value), 1.0)
            self.assertEqual([NoBackend], [type(error) for error in errors])

    def test_outdated_route_does_not_bring_it_back(self) -> None:
        """A route of the removed app finds no backend, before and after the pool is forgotten."""
        lease = self.pool.lease()
        assert lease is not None
        self.pools.apply(removed("hello"), 1.0)
        self.assertRaises(NoBackend, self.pools.for_route(route(self.app)).lease)
        lease.release(Outcome.COMPLETED, 2.0)
        self.assertRaises(NoBackend, self.pools.for_route(route(self.app)).lease)
        self.assertEqual([], list(self.pools))

    def test_same_name_again(self) -> None:
        """An app of the same name gets a pool of its own; the old one drains beside it."""
        lease = self.pool.lease()
        assert lease is not None
        (drain,) = self.pools.apply(removed("hello"), 1.0)
        again = make_app(ONE)
        self.pools.apply(updated(again), 2.0)
        pool = self.pools.for_route(route(again))
        self.assertIsNot(self.pool, pool)
        self.assertEqual(HealthState.UNPROVEN, pool.members[0].health)
        self.assertIsNotNone(pool.lease())
        self.assertEqual([pool, self.pool], list(self.pools))
        lease.release(Outcome.COMPLETED, 3.0)
        self.assertEqual((True, [pool], 1), (drain.is_done, list(self.pools), pool.in_flight))

    def test_nothing_is_kept(self) -> None:
        """What was replaced or removed is not held on to, however many apps come and go."""
        for number in range(50):
            app = make_app(ONE, name=f"app-{number}")
            self.pools.apply(updated(app), 1.0)
            self.pools.for_route(route(app))
            self.pools.apply(updated(attrs.evolve(app, state="stopped")), 2.0)
            self.pools.apply(removed(app.name), 3.0)
        del app
        gc.collect()
        self.assertEqual(
            ([self.pool], {}, {}), (list(self.pools), self.pools._told, dict(self.pools._outdated))
        )


class DefaultsTests(PoolsTestCase):
    def test_for_all(self) -> None:
        """New defaults reach the pools there are and those to come, under the apps' own values."""
        own = self.pools.for_route(route(make_app(ONE, limits={"in_flight_per_backend": 9})))
        plain = self.pools.for_route(route(make_app(ONE, name="plain")))
        self.pools.set_defaults(Timeouts(queue=1.0), Limits(in_flight_per_backend=4))
        late = self.pools.for_route(route(make_app(ONE, name="late")))
        self.assertEqual([9, 4, 4], [pool.limits.in_flight_per_backend for pool in (own, plain, late)])
        self.assertEqual([1.0] * 3, [pool.timeouts.queue for pool in (own, plain, late)])
        self.assertEqual([9, 4, 4], [pool.members[0].limit for pool in (own, plain, late)])


class WatchTests(PoolsTestCase):
    def test_every_pool(self) -> None:
        """A watcher hears of the members of all pools, made before or after it came."""
        app = make_app(ONE)
        self.pools.for_route(route(app))
        stop = self.pools.watch(self.record)
        self.pools.for_route(route(make_app(ONE, name="other")))
        self.pools.apply(updated(make_app(TWO)), 1.0)
        self.pools.apply(removed("other"), 1.0)
        self.assertEqual(
            [
                ("other", ONE, "joined"),
                ("hello", TWO, "joined"),
                ("hello", ONE, "draining"),
                ("hello", ONE, "gone"),
                ("other", ONE, "draining"),
                ("other", ONE, "gone"),
            ],
            self.events,
        )
        stop()
        self.pools.apply(removed("hello"), 1.0)
        self.assertEqual(6, len(self.events))

    def test_watcher_may_ask_for_the_pool(self) -> None:
        """A watcher that is told of a new pool finds it, and its route leads there."""
        app = make_app(ONE)
        found: list[bool] = []
        self.pools.watch(lambda pool, member, event: found.append(self.pools.for_route(route(app)) is pool))
        self.pools.for_route(route(app))
        self.assertEqual([True], found)

    def test_callbacks_may_change_the_topology(self) -> None:
        """A waiter's callback may apply the next change; the pools end with the latest."""
        app, other = make_app(ONE), make_app(ONE, name="other")
        pool, bystander = self.pools.for_route(route(app)), self.pools.for_route(route(other))
        pool.lease()
        latest = updated(make_app(name="other", state="stopped"))
        pool.enqueue(0.0, lambda lease: self.pools.apply(latest, 2.0), lambda error: None)
        self.pools.apply(updated(make_app(ONE, TWO), make_app(TWO, name="other")), 1.0)
        self.assertIs(latest.updated[0], bystander.app)
        self.assertRaises(AppStopped, self.pools.for_route(route(other)).lease)
