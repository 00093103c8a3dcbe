"""Tests for :mod:`scalingo_proxy.services.control`, as a program uses it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError, DomainTaken, ResolverUnavailable
from scalingo_proxy.model import App, AppState, Outcome, Route, RouteQuery, TopologyChange
from scalingo_proxy.protocols.drains import AFTER_DEADLINE_SECONDS
from scalingo_proxy.services.control import DescribedByFile, NotReady, UnknownApp
from tests.services.admin_world import AdminWorld


class SlowStore:
    """Stands before a store and holds every commit until it is told to go on."""

    def __init__(self, world: AdminWorld) -> None:
        self.commits: list[Deferred[None]] = []
        self._apply = world.store.apply
        world.store.apply = self._held  # type: ignore[method-assign]

    def _held(self, change: TopologyChange) -> Deferred[None]:
        commit: Deferred[None] = Deferred()
        self.commits.append(commit)
        return commit.addCallback(lambda _: self._apply(change))

    def commit(self) -> None:
        self.commits.pop(0).callback(None)


class ChangeTests(SynchronousTestCase):
    """Changes, one after another."""

    def setUp(self) -> None:
        self.world = AdminWorld(App("filed", ("filed.localhost",)))
        self.control = self.world.control

    def host(self, name: str) -> str:
        route = self.world.resolver.resolve(RouteQuery(name))
        assert isinstance(route, Route)
        return route.app.name

    def test_done_only_when_stored_and_in_effect(self) -> None:
        """The next request finds it, and not an earlier one."""
        store = SlowStore(self.world)
        done = self.control.put_app("hello", {"domains": ["hello.localhost"]})
        self.assertNoResult(done)
        self.assertNotIn("hello", self.control.apps().apps)
        store.commit()
        self.assertTrue(self.successResultOf(done).is_new)
        self.assertEqual("hello", self.host("hello.localhost"))

    def test_a_change_is_judged_by_the_one_before(self) -> None:
        """Two patches of one app at once lose nothing."""
        store = SlowStore(self.world)
        first = self.control.patch_app("filed", {"timeouts": {"idle": 1}})
        second = self.control.patch_app("filed", {"timeouts": {"queue": 2}})
        self.assertEqual(1, len(store.commits))
        store.commit()
        self.successResultOf(first)
        store.commit()
        self.assertEqual({"idle": 1.0, "queue": 2.0}, dict(self.successResultOf(second).app.timeouts))

    def test_two_apps_that_want_one_domain(self) -> None:
        """The first that asked gets it, though its commit is not over when the second asks."""
        store = SlowStore(self.world)
        first = self.control.put_app("one", {"domains": ["a.localhost"]})
        second = self.control.put_app("two", {"domains": ["a.localhost"]})
        store.commit()
        self.successResultOf(first)
        self.assertEqual("one", self.failureResultOf(second, DomainTaken).value.owner)

    def test_a_cancelled_change_is_made_all_the_same(self) -> None:
        """The wait is given up, and the next change comes after it."""
        store = SlowStore(self.world)
        first = self.control.set_state("filed", AppState.STOPPED)
        second = self.control.set_state("filed", AppState.PAUSED)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(1, len(store.commits))
        store.commit()
        self.assertIs(AppState.STOPPED, self.control.app("filed").state)
        store.commit()
        self.assertIs(AppState.PAUSED, self.successResultOf(second).state)

    def test_a_store_that_cannot_write(self) -> None:
        """Nothing has changed, and the next change is tried."""
        self.world.store.set_app = lambda app: fail(ResolverUnavailable("the disk is full"))  # type: ignore[method-assign]
        self.failureResultOf(self.control.set_state("filed", AppState.STOPPED), ResolverUnavailable)
        self.assertIs(AppState.RUNNING, self.control.app("filed").state)
        del self.world.store.set_app
        self.successResultOf(self.control.set_state("filed", AppState.STOPPED))

    def test_a_store_that_cannot_write_is_told(self) -> None:
        """Over HTTP it is 503 with the reason."""
        self.world.start()
        self.world.store.set_app = lambda app: fail(ResolverUnavailable("the disk is full"))  # type: ignore[method-assign]
        reply = self.world.ask("POST", "/api/v1/apps/filed/stop")
        self.assertEqual((503, "store-unavailable"), (reply.status, reply.code))
        self.assertEqual("the disk is full", reply.document["error"]["message"])

    def test_mistakes_come_through_the_deferred(self) -> None:
        """A caller has one way to learn of them."""
        wrong = self.control.put_app("hello", {"domain": []})
        (mistake,) = self.failureResultOf(wrong, ConfigurationError).value.mistakes
        self.assertEqual("domain", mistake.path)
        self.failureResultOf(self.control.patch_app("nobody", {}), UnknownApp)
        self.failureResultOf(self.control.delete_app("filed"), DescribedByFile)
        self.failureResultOf(AdminWorld(loaded=False).control.put_app("hello", {}), NotReady)

    def test_reload_may_answer_in_either_way(self) -> None:
        """At once or with a Deferred."""
        for report in (1, succeed(1)):
            self.world.reload = lambda report=report: report
            self.assertEqual(1, self.successResultOf(self.control.reload()))


class DrainTests(SynchronousTestCase):
    """The wait for removed backends."""

    def setUp(self) -> None:
        self.world = AdminWorld(App("hello", ("hello.localhost",), ("127.0.0.1:1", "127.0.0.1:2")))
        self.leases = [self.world.pool("hello").lease() for _ in range(2)]

    def change(self) -> Any:
        return self.successResultOf(self.world.control.set_backends("hello", []))

    def test_true_when_all_are_gone(self) -> None:
        """The last one ends the wait."""
        drained = self.change().drained()
        for lease in self.leases:
            self.assertNoResult(drained)
            assert lease is not None
            lease.release(Outcome.COMPLETED, 0)
        self.assertIs(True, self.successResultOf(drained))
        self.assertEqual([], self.world.reactor.getDelayedCalls())

    def test_false_after_the_drain_time(self) -> None:
        """The default is 30 seconds; what ends later is of no consequence."""
        change = self.change()
        drained = change.drained()
        self.world.reactor.advance(change.drain_seconds + AFTER_DEADLINE_SECONDS)
        self.assertEqual(30, change.drain_seconds)
        self.assertIs(False, self.successResultOf(drained))
        for lease in self.leases:
            assert lease is not None
            lease.release(Outcome.COMPLETED, 0)

    def test_cancelled(self) -> None:
        """Nothing stays behind."""
        drained = self.change().drained()
        drained.cancel()
        self.failureResultOf(drained, CancelledError)
        self.assertEqual([], self.world.reactor.getDelayedCalls())
        for lease in self.leases:
            assert lease is not None
            lease.release(Outcome.COMPLETED, 0)

    def test_an_app_that_nobody_has_asked_for(self) -> None:
        """Nothing was ever sent to its backends."""
        world = AdminWorld(App("quiet", backends=("127.0.0.1:1",)))
        change = self.successResultOf(world.control.set_backends("quiet", []))
        self.assertIs(True, self.successResultOf(change.drained()))
