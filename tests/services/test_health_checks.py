"""Who is probed, when, and that thousands of them never come at once."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Health, Limits, Outcome, Quarantine, Route, Timeouts
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.routing.members import HealthState
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services.health_checks import HealthChecksService
from scalingo_proxy.services.paced_probes import PacedProbes
from tests.services.fake_probes import FakeProbe


class HealthChecksCase(SynchronousTestCase):
    """Pools, a feed and probes that the test decides."""

    def setUp(self) -> None:
        self.use()

    def use(self, seed: int = 1, **health: Any) -> None:
        """Begin anew with these defaults."""
        self.clock = Clock()
        self.resolver = MemoryResolver()
        self.pools = Pools(
            Timeouts(),
            Limits(),
            Random(seed),
            clock=self.clock.seconds,
            health=Health(**health),
            quarantine=Quarantine(first=1.0, max=8.0),
        )
        self.resolver.watch(lambda change: self.pools.apply(change, self.clock.seconds()))
        self.probe = FakeProbe(self.clock)
        self.paced = PacedProbes(self.probe, self.clock)
        self.checks = HealthChecksService(self.pools, self.resolver, self.paced, self.clock, Random(seed))

    def start(self) -> None:
        """Start, and see at the end that nothing is left."""
        self.checks.startService()
        checks, clock, paced, probe = self.checks, self.clock, self.paced, self.probe

        def stop() -> None:
            if checks.running:
                checks.stopService()
            self.assertEqual((probe.under_way, paced.under_way, paced.waiting), (0, 0, 0))
            self.assertEqual(clock.getDelayedCalls(), [])

        self.addCleanup(stop)

    def app(self, name: str = "app", count: int = 1, net: str = "10.0.0", **fields: Any) -> App:
        """Tell of an app."""
        backends = [f"{net}.{number // 250}:{3000 + number % 250}" for number in range(count)]
        app = App(name, [f"{name}.test"], fields.pop("backends", backends), **fields)
        self.resolver.set_app(app)
        return app

    def pool(self, app: App) -> Pool:
        """Its pool, as a request would make it."""
        return self.pools.for_route(Route(app, ""))

    def pass_time(self, seconds: float, step: float = 0.005) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def fail_request(self, pool: Pool) -> None:
        """Let a real request fail at whoever is next."""
        lease = pool.lease(now=self.clock.seconds())
        assert lease is not None
        lease.release(Outcome.CONNECT_FAILED, self.clock.seconds())


class ScopeTests(HealthChecksCase):
    """Who is probed."""

    def test_nobody_who_sleeps(self) -> None:
        """A large table makes no traffic, before the start, at it and later."""
        for number in range(500):
            self.app(f"before-{number}")
        self.start()
        for number in range(500):
            self.app(f"later-{number}")
        self.pass_time(5)
        self.assertEqual(self.probe.begun, [])
        self.assertEqual((list(self.pools), self.clock.getDelayedCalls()), ([], []))

    def test_in_use(self) -> None:
        """An app in use is probed once, and no more when it is up and asks for no more."""
        app = self.app(count=3)
        self.start()
        pool = self.pool(app)
        self.pass_time(60, 0.05)
        self.assertEqual(sorted(self.probe.addresses), sorted(one.backend.address for one in pool.members))
        self.assertEqual({member.health for member in pool.members}, {HealthState.UP})
        self.assertEqual(pool.members[0].health_reason, "GET http://10.0.0.0:3000/: answered 200")

    def test_in_use_before_the_start(self) -> None:
        """Pools that exist already are found."""
        self.pool(self.app(count=2))
        self.start()
        self.pass_time(1)
        self.assertEqual(len(self.probe.begun), 2)

    def test_asks_for_it(self) -> None:
        """With an interval, an app is in use as soon as the proxy hears of it."""
        self.app("a", health={"interval": 5})
        self.app("sleeping", net="10.0.1")
        self.app("none", backends=[], health={"interval": 5})
        self.start()
        self.app("b", net="10.0.2", health={"interval": 5})
        self.pass_time(60, 0.05)
        for address in ("10.0.0.0:3000", "10.0.2.0:3000"):
            self.assertIn(self.probe.count(address), range(11, 16), address)
        self.assertEqual(set(self.probe.addresses), {"10.0.0.0:3000", "10.0.2.0:3000"})

    def test_everybody(self) -> None:
        """A default interval asks for all apps, made little by little."""
        self.use(interval=100)
        for number in range(450):
            self.app(f"app-{number}", net=f"10.{number // 250}.{number % 250}")
        self.start()
        self.pass_time(3)
        self.assertEqual(len(set(self.probe.addresses)), 450)

    def test_removed_before_it_was_made(self) -> None:
        """An app that went before its turn is not made again."""
        self.app(health={"interval": 5})
        self.start()
        self.resolver.remove_app("app")
        self.pass_time(1)
        self.assertEqual((list(self.pools), self.probe.begun), ([], []))

    def test_stopped_app(self) -> None:
        """A stopped app is left alone until it runs again."""
        app = self.app(health={"interval": 1}, state="stopped")
        self.start()
        self.pass_time(5)
        self.assertEqual(self.probe.begun, [])
        self.app(health={"interval": 1}, state="running")
        self.pass_time(1)
        self.assertEqual(self.probe.addresses[:1], [app.backends[0].address])
        self.app(health={"interval": 1}, state="stopped")
        self.probe.forget()
        self.pass_time(5)
        self.assertEqual(self.probe.begun, [])

    def test_who_left(self) -> None:
        """A member that leaves is not probed again, and a probe under way is given up."""
        self.app(count=2, health={"interval": 1})
        self.start()
        self.probe.seconds = 0.5
        self.pass_time(0.2)
        self.assertEqual(self.probe.under_way, 2)
        self.app(count=1, health={"interval": 1})
        self.assertEqual((self.probe.under_way, self.probe.cancelled), (1, 1))
        self.probe.forget()
        self.pass_time(10)
        self.assertEqual(set(self.probe.addresses), {"10.0.0.0:3000"})
        self.resolver.remove_app("app")
        self.probe.forget()
        self.pass_time(5)
        self.assertEqual((self.probe.begun, self.probe.under_way), ([], 0))


class TimeTests(HealthChecksCase):
    """When."""

    def test_interval_with_jitter(self) -> None:
        """Probes of one backend come in its interval, a tenth early or late."""
        app = self.app(health={"interval": 10})
        self.start()
        self.pool(app)
        self.pass_time(600, 0.05)
        moments = self.probe.moments[1:]  # the first one proved it
        gaps = [later - earlier for earlier, later in pairwise(moments)]
        self.assertGreater(len(gaps), 50)
        self.assertTrue(all(8.9 < gap < 11.1 for gap in gaps), gaps)
        self.assertGreater(max(gaps) - min(gaps), 0.5)

    def test_thousands_spread(self) -> None:
        """Thousands never burst: not at the start, not when they come up, not afterwards."""
        self.use(interval=30)
        for number in range(100):
            self.app(f"app-{number}", count=30, net=f"10.1.{number}")
        self.start()
        self.pass_time(21)
        self.assertEqual(len(set(self.probe.addresses)), 3000)
        self.assertLessEqual(self.probe.most_within(0.1), 21)
        self.assertLessEqual(self.probe.most_within(1.0), 201)
        self.pass_time(60)
        self.probe.forget()
        self.pass_time(30)
        # 3000 in 30 seconds are 10 in 100 ms; what chance adds stays below the cap.
        self.assertIn(len(self.probe.begun), range(2800, 3200))
        self.assertLessEqual(self.probe.most_within(0.1), 21)
        by_second = [0] * 30
        for moment in self.probe.moments:
            by_second[min(int(moment - self.probe.moments[0]), 29)] += 1
        self.assertLess(max(by_second), 150)
        self.assertGreater(min(by_second), 40)

    def test_asleep(self) -> None:
        """When everything is due at once because the machine slept, it comes evenly all the same."""
        self.use(interval=10)
        for number in range(20):
            self.app(f"app-{number}", count=50, net=f"10.1.{number}")
        self.start()
        self.pass_time(20)
        self.probe.forget()
        self.clock.advance(3600)
        self.pass_time(5)
        self.assertLessEqual(self.probe.most_within(0.1), 25)
        self.assertIn(len(self.probe.begun), range(900, 1100))

    def test_unproven_before_others(self) -> None:
        """Who is not up yet does not wait behind thousands who are."""
        self.use(interval=2)
        for number in range(40):
            self.app(f"app-{number}", count=50, net=f"10.1.{number}")
        self.start()
        self.pass_time(30)
        self.assertGreater(self.paced.waiting, 100)
        self.app("new", net="10.2.0")
        self.pass_time(0.05)
        self.assertIn("10.2.0.0:3000", self.probe.addresses)

    def test_quarantine_and_back(self) -> None:
        """A member in quarantine is probed when it is due, and comes back with its first good probe."""
        app = self.app(count=2)
        self.start()
        pool = self.pool(app)
        self.pass_time(1)
        self.probe.forget()
        self.probe.failing = {one.backend.address: 503 for one in pool.members}
        self.fail_request(pool)
        (member,) = [one for one in pool.members if one.health is HealthState.QUARANTINED]
        self.pass_time(20)
        self.assertEqual(set(self.probe.addresses), {member.backend.address})
        gaps = [later - earlier for earlier, later in pairwise(self.probe.moments)]
        self.assertTrue(gaps[0] < gaps[1] and max(gaps) <= 8.1, gaps)
        self.assertIn("answered 503", member.health_reason)
        self.probe.failing.clear()
        self.pass_time(9)
        self.assertIs(member.health, HealthState.UP)
        self.probe.forget()
        self.pass_time(30)
        self.assertEqual(self.probe.begun, [])

    def test_falls_and_rises(self) -> None:
        """As many failures as ``fall`` put it down, and it is probed on until it rises."""
        app = self.app(health={"interval": 1, "fall": 3, "rise": 2})
        self.start()
        pool = self.pool(app)
        (member,) = pool.members
        self.pass_time(3)
        self.assertIs(member.health, HealthState.UP)
        address = member.backend.address
        self.probe.failing[address] = 500
        self.probe.forget()
        for health in (HealthState.UP, HealthState.UP, HealthState.DOWN):
            count = len(self.probe.begun)
            while len(self.probe.begun) == count:
                self.pass_time(0.1)
            self.assertIs(member.health, health)
        del self.probe.failing[address]
        self.pass_time(12)
        self.assertIs(member.health, HealthState.UP)

    def test_a_verdict_meanwhile(self) -> None:
        """What a probe finds that began before a failure does not take that failure back."""
        app = self.app(health={"interval": 1})
        self.start()
        pool = self.pool(app)
        self.pass_time(1)
        self.probe.seconds = 0.5
        self.pass_time(1.2)
        while not self.probe.under_way:
            self.pass_time(0.01)
        self.fail_request(pool)
        self.assertEqual((self.probe.under_way, self.probe.cancelled), (0, 1))
        self.pass_time(0.45)
        self.assertIs(pool.members[0].health, HealthState.QUARANTINED)

    def test_a_request_was_faster(self) -> None:
        """A probe of a backend that has answered meanwhile is not broken off, nor repeated."""
        app = self.app()
        self.start()
        self.probe.seconds = 0.5
        pool = self.pool(app)
        self.pass_time(0.1)
        lease = pool.lease(now=self.clock.seconds())
        assert lease is not None
        lease.release(Outcome.COMPLETED, self.clock.seconds())
        self.pass_time(5)
        self.assertEqual((len(self.probe.begun), self.probe.cancelled), (1, 0))


class ChangeTests(HealthChecksCase):
    """Settings change while it runs."""

    def test_interval(self) -> None:
        """Another interval counts at once, and none at all ends it."""
        self.app(health={"interval": 1000})
        self.start()
        self.pass_time(2)
        self.probe.forget()
        self.app(health={"interval": 1})
        self.pass_time(5)
        self.assertIn(len(self.probe.begun), range(4, 7))
        self.app()
        self.probe.forget()
        self.pass_time(5)
        self.assertEqual(self.probe.begun, [])

    def test_same_interval(self) -> None:
        """A change of something else does not make anybody wait longer."""
        self.app(health={"interval": 10})
        self.start()
        self.pass_time(1)
        self.probe.forget()
        for number in range(100):
            self.app(health={"interval": 10}, timeouts={"idle": 60 + number})
            self.pass_time(0.2)
        self.assertIn(len(self.probe.begun), range(1, 4))

    def test_another_question(self) -> None:
        """A probe under way that asks what nobody wants to know any more is given up."""
        app = self.app(health={"interval": 10, "path": "/old"})
        self.start()
        self.pool(app)
        self.probe.seconds = 0.5
        self.pass_time(0.1)
        self.app(health={"interval": 10, "path": "/new"})
        self.assertEqual(self.probe.cancelled, 1)
        self.pass_time(1)
        self.assertEqual([health.path for health in self.probe.healths], ["/old", "/new"])

    def test_defaults(self) -> None:
        """A reload's defaults count for apps in use and for those that were not."""
        self.pool(self.app("used"))
        self.app("unused", net="10.0.1")
        self.start()
        self.pass_time(2)
        self.probe.forget()
        self.pools.set_defaults(Timeouts(), Limits(), health=Health(interval=1))
        self.checks.defaults_changed()
        self.pass_time(5)
        self.assertGreater(self.probe.count("10.0.0.0:3000"), 3)
        self.assertGreater(self.probe.count("10.0.1.0:3000"), 3)

    def test_without_a_feed(self) -> None:
        """Pools alone are enough."""
        self.checks = HealthChecksService(self.pools, None, self.paced, self.clock, Random(1))
        self.start()
        self.pool(self.app())
        self.pass_time(1)
        self.checks.defaults_changed()
        self.assertEqual(len(self.probe.begun), 1)


class FaultTests(HealthChecksCase):
    """Things that go wrong."""

    def test_bugs(self) -> None:
        """A probe that raises, or a result that cannot be used, stops nobody else."""
        app = self.app(count=3, health={"interval": 1})
        self.start()
        pool = self.pool(app)
        broken, cursed, well = pool.members
        self.probe.broken.add(broken.backend.address)
        probed = pool.probed

        def watch(member: Any, event: str) -> None:
            if member is cursed and event == "verdict":
                raise RuntimeError("a bug in a watcher")

        pool.watch(watch)
        self.pass_time(5)
        self.assertGreater(len(self.flushLoggedErrors(RuntimeError)), 3)
        for member in pool.members:
            self.assertGreater(self.probe.count(member.backend.address), 3)
        self.assertIs(well.health, HealthState.UP)
        self.assertIs(broken.health, HealthState.UNPROVEN)
        self.assertEqual(probed, pool.probed)

    def test_our_own_want(self) -> None:
        """A probe that could not be made is no verdict, and is made again."""
        app = self.app()
        self.start()
        (member,) = self.pool(app).members
        self.probe.poor.add(member.backend.address)
        self.pass_time(5)
        self.assertIs(member.health, HealthState.UNPROVEN)
        self.assertIn(len(self.probe.begun), range(4, 7))
        self.probe.poor.clear()
        self.pass_time(2)
        self.assertIs(member.health, HealthState.UP)

    def test_stopped_and_started(self) -> None:
        """Stopping gives everything up; starting again begins anew."""
        app = self.app(count=5, health={"interval": 1})
        self.start()
        self.pool(app)
        self.probe.seconds = 0.5
        self.pass_time(0.02)
        self.assertGreater(self.probe.under_way, 0)
        self.checks.stopService()
        self.assertEqual((self.probe.under_way, self.paced.waiting), (0, 0))
        self.pass_time(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.app(count=2, health={"interval": 1})
        self.probe.forget()
        self.checks.startService()
        self.pass_time(2)
        self.assertEqual(len(set(self.probe.addresses)), 2)
