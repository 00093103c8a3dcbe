"""Waiting for a place: order, bounds, ends, and callbacks that meddle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import AppStopped, Maintenance, NoBackend, PauseTimeout, QueueFull, QueueTimeout
from scalingo_proxy.model import App, AppState, Limits, Outcome, Timeouts
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.pool_settings import PoolSettings
from scalingo_proxy.routing.queue import Ticket

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"


class QueueTestCase(SynchronousTestCase):
    """A pool with one place per backend, and a list of how waits ended."""

    def setUp(self) -> None:
        self.ends: list[tuple[str, str]] = []
        self.leases: dict[str, Lease] = {}

    def use(self, *backends: str, queue_per_backend: int = 50, **fields: Any) -> Pool:
        limits = Limits(in_flight_per_backend=1, queue_per_backend=queue_per_backend, client_connections=4)
        self.app = App("hello", (), backends, **fields)
        self.pool = Pool(self.app, Timeouts(), limits, Random(1), 0.0)
        return self.pool

    def change(self, **fields: Any) -> None:
        self.app = attrs.evolve(self.app, **fields)
        self.pool.apply(self.app, 1.0)

    def lease(self, *tried: Member) -> Lease:
        lease = self.pool.lease(tried)
        assert lease is not None
        return lease

    def wait(self, name: str, *tried: Member, then: Callable[[], object] = lambda: None) -> Ticket:
        """Queue under a name; *then* runs inside the callback."""

        def granted(lease: Lease) -> None:
            self.leases[name] = lease
            self.ends.append((name, lease.backend.address))
            then()

        def refused(error: Exception) -> None:
            self.ends.append((name, type(error).__name__))
            then()

        return self.pool.enqueue(0.0, granted, refused, tried)

    def release(self, lease: Lease) -> None:
        lease.release(Outcome.COMPLETED, 1.0)


class OrderTests(QueueTestCase):
    def test_first_come_first_served(self) -> None:
        """Each place that becomes free goes to whoever has waited longest."""
        self.use(ONE)
        lease = self.lease()
        self.wait("first")
        self.wait("second")
        self.assertEqual(2, self.pool.queued)
        self.release(lease)
        self.assertEqual([("first", ONE)], self.ends)
        self.release(self.leases["first"])
        self.assertEqual([("first", ONE), ("second", ONE)], self.ends)
        self.assertEqual((0, 1), (self.pool.queued, self.pool.in_flight))

    def test_nobody_overtakes(self) -> None:
        """While somebody waits, a newcomer has no lease either."""
        self.use(ONE)
        lease = self.lease()
        self.wait("first")
        self.assertIsNone(self.pool.lease())
        self.release(lease)
        self.assertIsNone(self.pool.lease())
        self.assertEqual([("first", ONE)], self.ends)

    def test_who_cannot_use_it_does_not_block(self) -> None:
        """A waiter that tried the free member is passed over, and keeps its place."""
        pool = self.use(ONE, TWO)
        one, two = pool.members
        on_one, on_two = self.lease(two), self.lease(one)
        self.wait("picky", one)
        self.wait("plain")
        self.wait("late")
        self.release(on_one)
        self.assertEqual([("plain", ONE)], self.ends)
        self.release(on_two)
        self.assertEqual([("plain", ONE), ("picky", TWO)], self.ends)

    def test_newcomer_may_use_what_no_waiter_can(self) -> None:
        """A free place that is of no use to anybody in the queue is given at once."""
        pool = self.use(ONE, TWO)
        one, two = pool.members
        on_one, _ = self.lease(two), self.lease(one)
        self.wait("picky", one)
        self.release(on_one)
        self.assertEqual([], self.ends)
        self.assertIs(one, self.lease().member)

    def test_oldest_of_all_lines(self) -> None:
        """A place that several can use goes to the oldest of them, whatever each of them tried."""
        one, _ = self.use(ONE, TWO).members
        self.lease(), self.lease()
        leaving = self.wait("leaving", one)
        self.wait("older")
        self.wait("younger", one)
        leaving.cancel()
        self.change(backends=(ONE, TWO, "10.0.0.3:80"))
        self.assertEqual([("older", "10.0.0.3:80")], self.ends)

    def test_leaving(self) -> None:
        """A client that leaves gives up its place in the queue, and is never called."""
        self.use(ONE)
        lease = self.lease()
        leaving = self.wait("leaving")
        self.wait("staying")
        leaving.cancel()
        self.assertEqual(1, self.pool.queued)
        self.release(lease)
        self.assertEqual([("staying", ONE)], self.ends)

    def test_queue_empties_by_leaving(self) -> None:
        """After the last waiter left, whoever comes finds the place."""
        self.use(ONE)
        lease = self.lease()
        self.wait("leaving").cancel()
        self.assertIsNone(self.pool.lease())
        self.release(lease)
        self.assertIs(self.pool.members[0], self.lease().member)

    def test_place_of_a_tunnel(self) -> None:
        """The place of a request that became a tunnel goes to a waiter."""
        self.use(ONE)
        lease = self.lease()
        self.wait("waiter")
        lease.become_tunnel()
        self.assertEqual([("waiter", ONE)], self.ends)
        self.assertEqual((1, 1), (self.pool.in_flight, self.pool.tunnels))

    def test_place_became_free_before_waiting(self) -> None:
        """Whoever enqueues although there is room is served before enqueue returns."""
        self.use(ONE)
        self.assertFalse(self.wait("lucky").is_waiting)
        self.assertEqual([("lucky", ONE)], self.ends)

    def test_draining_members_serve_nobody(self) -> None:
        """A place at a member on its way out is not given to anybody."""
        self.use(ONE, TWO)
        leases = [self.lease(), self.lease()]
        self.wait("waiter")
        self.change(backends=(TWO,))
        for lease in leases:
            if lease.backend.address == ONE:
                self.release(lease)
        self.assertEqual([], self.ends)
        for lease in leases:
            if lease.backend.address == TWO:
                self.release(lease)
        self.assertEqual([("waiter", TWO)], self.ends)

    def test_balancer_that_chooses_nobody(self) -> None:
        """A balancer that breaks its contract makes everybody wait, and does no other harm."""

        class Nobody:
            members_changed = choose = staticmethod(lambda members: None)

        app = App("hello", (), (ONE,), balancer="nobody")
        self.pool = Pool(app, Timeouts(), Limits(), Random(1), 0.0, {"nobody": lambda random: Nobody()})
        self.assertIsNone(self.pool.lease())
        ticket = self.wait("waiter")
        self.pool.set_defaults(PoolSettings(Timeouts(), Limits(in_flight_per_backend=9)), 0.0)
        self.assertTrue(ticket.is_waiting)
        ticket.cancel()
        self.assertEqual((0, []), (self.pool.queued, self.ends))


class BoundTests(QueueTestCase):
    def test_by_members(self) -> None:
        """The bound is so many waiters for each serving member, shrinking and growing with them."""
        self.use(ONE, TWO, queue_per_backend=1)
        self.lease(), self.lease()
        self.wait("first")
        ticket = self.wait("second")
        self.assertRaises(QueueFull, self.wait, "third")
        ticket.cancel()
        self.wait("third")
        self.change(backends=(TWO,))
        self.assertEqual(2, self.pool.queued, "nobody is sent away when it shrinks")
        self.assertRaises(QueueFull, self.wait, "fourth")

    def test_while_paused(self) -> None:
        """A paused app holds as many requests as there may be client connections."""
        self.use(ONE, queue_per_backend=1, state="paused")
        for name in "abcd":
            self.wait(name)
        self.assertRaises(QueueFull, self.wait, "e")

    def test_after_a_pause(self) -> None:
        """What a pause has collected fills no queue: who comes behind it waits, until it is gone."""
        self.use(ONE, queue_per_backend=1, state="paused")
        for name in "abc":
            self.wait(name)
        self.change(state=AppState.RUNNING)
        self.assertEqual([("a", ONE)], self.ends)
        for name in "de":
            self.wait(name)
        self.assertRaises(QueueFull, self.wait, "f")  # there is a bound all the same
        for name in "abcd":
            self.release(self.leases[name])
        self.assertEqual([(name, ONE) for name in "abcde"], self.ends)
        self.assertEqual(0, self.pool.queued)
        self.wait("g")
        self.assertRaises(QueueFull, self.wait, "h")

    def test_refused_like_a_lease(self) -> None:
        """Waiting for what cannot come is refused at once."""
        pool = self.use(ONE)
        self.assertRaises(NoBackend, self.wait, "tried all", *pool.members)
        self.change(state=AppState.STOPPED)
        self.assertRaises(AppStopped, self.wait, "stopped")
        self.assertEqual(([], 0), (self.ends, pool.queued))

    def test_too_late(self) -> None:
        """Who waited too long is told whether the app was paused."""
        self.use(ONE)
        self.lease()
        ticket = self.wait("waiter")
        self.assertIsInstance(ticket.expired_error(), QueueTimeout)
        self.change(state=AppState.PAUSED)
        self.assertIsInstance(ticket.expired_error(), PauseTimeout)


class ChangeWhileWaitingTests(QueueTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.use(ONE)
        self.held = self.lease()
        for name in ("first", "second"):
            self.wait(name)

    def test_new_members(self) -> None:
        """Members that join take waiters at once, in order."""
        self.change(backends=(ONE, TWO))
        self.assertEqual([("first", TWO)], self.ends)

    def test_higher_limit(self) -> None:
        """A limit that is raised lets waiters in at once, whoever raised it."""
        self.change(limits={"in_flight_per_backend": 2})
        self.assertEqual([("first", ONE)], self.ends)
        self.change(limits={})
        self.pool.set_defaults(PoolSettings(Timeouts(), Limits(in_flight_per_backend=3)), 0.0)
        self.assertEqual([("first", ONE), ("second", ONE)], self.ends)

    def test_last_member_leaves(self) -> None:
        """When no member is left, all waiters are refused."""
        self.change(backends=())
        self.assertEqual([("first", "NoBackend"), ("second", "NoBackend")], self.ends)
        self.assertEqual(0, self.pool.queued)

    def test_only_tried_members_left(self) -> None:
        """Who tried everybody that is left is refused at once, also from behind others."""
        self.change(backends=(ONE, TWO))
        self.wait("retry", self.pool.members[0])
        self.ends.clear()
        self.change(backends=(ONE,))
        self.assertEqual([("retry", "NoBackend")], self.ends)
        self.assertEqual(1, self.pool.queued)

    def test_only_a_tried_member_left_that_is_free(self) -> None:
        """A free place does not keep a waiter that must not use it."""
        one = self.use(ONE, TWO).members[0]
        self.lease(one)
        self.wait("retry", one)
        self.change(backends=(ONE,))
        self.assertEqual([("retry", "NoBackend")], self.ends)

    def test_stop(self) -> None:
        """Stopping the app refuses all waiters; requests under way go on."""
        self.change(state=AppState.STOPPED)
        self.assertEqual([("first", "AppStopped"), ("second", "AppStopped")], self.ends)
        self.assertEqual(1, self.pool.in_flight)

    def test_maintenance(self) -> None:
        """Maintenance refuses all waiters with its own error."""
        self.change(state=AppState.MAINTENANCE)
        self.assertEqual([("first", "Maintenance"), ("second", "Maintenance")], self.ends)
        self.assertRaises(Maintenance, self.pool.lease)

    def test_pause_and_resume(self) -> None:
        """A pause holds everybody, whatever becomes free; resuming serves them in order."""
        self.change(state=AppState.PAUSED)
        self.release(self.held)
        self.change(backends=())
        self.change(backends=(TWO,))
        self.assertEqual([], self.ends)
        self.assertIsNone(self.pool.lease())
        self.wait("third")
        self.change(state=AppState.RUNNING)
        self.assertEqual([("first", TWO)], self.ends)
        self.assertEqual(2, self.pool.queued)

    def test_stop_while_paused(self) -> None:
        """Stopping a paused app refuses whom the pause held."""
        self.change(state=AppState.PAUSED)
        self.change(state=AppState.STOPPED)
        self.assertEqual([("first", "AppStopped"), ("second", "AppStopped")], self.ends)

    def test_resume_without_members(self) -> None:
        """Resuming an app that lost its members in the pause refuses the waiters."""
        self.change(state=AppState.PAUSED, backends=())
        self.change(state=AppState.RUNNING)
        self.assertEqual([("first", "NoBackend"), ("second", "NoBackend")], self.ends)


class ReentranceTests(QueueTestCase):
    def test_release_at_once(self) -> None:
        """Waiters that give the place back inside their callback are served one after another."""
        self.use(ONE)
        held = self.lease()
        for name in "abc":
            self.wait(name, then=lambda name=name: self.release(self.leases[name]))
        self.release(held)
        self.assertEqual([("a", ONE), ("b", ONE), ("c", ONE)], self.ends)
        self.assertEqual((0, 0), (self.pool.queued, self.pool.in_flight))
        self.lease()

    def test_thousands_in_a_row(self) -> None:
        """Such a row does not grow the stack."""
        self.use(ONE, queue_per_backend=5000)
        held = self.lease()
        for number in range(5000):
            name = str(number)
            self.wait(name, then=lambda name=name: self.release(self.leases[name]))
        self.release(held)
        self.assertEqual(5000, len(self.ends))

    def test_lease_inside_a_callback(self) -> None:
        """Whoever asks from inside a callback does not overtake those who wait."""
        self.use(ONE)
        self.lease()
        asked: list[Lease | None] = []
        self.wait("first", then=lambda: asked.append(self.pool.lease()))
        self.wait("second")
        self.change(limits={"in_flight_per_backend": 3})
        self.assertEqual([None], asked)
        self.assertEqual([("first", ONE), ("second", ONE)], self.ends)

    def test_lease_inside_a_picky_callback(self) -> None:
        """Nor is one overtaken who waits for certain members only."""
        one, two = self.use(ONE, TWO).members
        self.lease(two), self.lease(one)
        asked: list[Lease | None] = []
        self.wait("first", one, then=lambda: asked.append(self.pool.lease((one,))))
        self.wait("second", one)
        self.pool.set_defaults(PoolSettings(Timeouts(), Limits(in_flight_per_backend=3)), 0.0)
        self.assertEqual([None], asked)
        self.assertEqual([("first", TWO), ("second", TWO)], self.ends)

    def test_lease_inside_a_watcher(self) -> None:
        """Whoever is told of a new member first does not overtake those who wait for it."""
        one, two = self.use(ONE, TWO).members
        self.lease(two), self.lease(one)
        self.wait("first", one)
        self.pool.announce()
        asked: list[Lease | None] = []
        self.pool.watch(lambda member, event: asked.append(self.pool.lease()))
        self.change(backends=(ONE, TWO, "10.0.0.3:80"))
        self.assertEqual([None], asked)
        self.assertEqual([("first", "10.0.0.3:80")], self.ends)

    def test_lease_behind_those_who_joined_inside_a_callback(self) -> None:
        """A callback that takes a place, fills the queue and frees places is no way to overtake."""
        one, two = self.use(ONE, TWO).members
        on_one, on_two = self.lease(two), self.lease(one)

        def meddle() -> None:
            self.release(on_two)
            self.release(self.lease())
            spare = self.lease()
            self.wait("picky", one)
            self.release(spare)
            self.assertIsNone(self.pool.lease((one,)))

        self.wait("first", then=meddle)
        self.release(on_one)
        self.assertEqual([("first", ONE), ("picky", TWO)], self.ends)

    def test_enqueue_inside_a_callback(self) -> None:
        """Whoever joins the queue from inside a callback is served in the same round."""
        self.use(ONE)
        held = self.lease()
        self.wait("first", then=lambda: (self.wait("joined"), self.release(self.leases["first"])))
        self.wait("second", then=lambda: self.release(self.leases["second"]))
        self.release(held)
        self.assertEqual([("first", ONE), ("second", ONE), ("joined", ONE)], self.ends)

    def test_cancel_inside_a_callback(self) -> None:
        """A ticket that another's callback cancels is neither granted nor refused."""
        for state in (AppState.RUNNING, AppState.STOPPED):
            self.ends.clear()
            self.use(ONE, limits={"in_flight_per_backend": 1})
            self.lease()
            tickets: list[Ticket] = []
            self.wait("first", then=lambda tickets=tickets: tickets[0].cancel())
            tickets.append(self.wait("second"))
            self.wait("third")
            self.change(state=state, limits={"in_flight_per_backend": 3})
            self.assertEqual(["first", "third"], [name for name, _ in self.ends])

    def test_start_again_inside_a_refusal(self) -> None:
        """A callback that starts the app again saves those not refused yet."""
        self.use(ONE)
        held = self.lease()
        self.wait("first", then=lambda: self.change(state=AppState.RUNNING))
        self.wait("second")
        self.change(state=AppState.STOPPED)
        self.assertEqual([("first", "AppStopped")], self.ends)
        self.release(held)
        self.assertEqual([("first", "AppStopped"), ("second", ONE)], self.ends)

    def test_stop_inside_a_grant(self) -> None:
        """A callback that stops the app has those behind it refused, not granted."""
        self.use(ONE)
        self.lease()
        self.wait("first", then=lambda: self.change(state=AppState.STOPPED))
        self.wait("second")
        self.change(limits={"in_flight_per_backend": 3})
        self.assertEqual([("first", ONE), ("second", "AppStopped")], self.ends)

    def test_member_leaves_inside_a_grant(self) -> None:
        """A callback may remove the member it was just given; its lease drains."""
        self.use(ONE)
        held = self.lease()
        self.wait("first", then=lambda: self.change(backends=(TWO,)))
        self.wait("second")
        self.release(held)
        self.assertEqual([("first", ONE), ("second", TWO)], self.ends)
        self.assertEqual([1], [member.in_flight for member in self.pool.draining])
        self.release(self.leases["first"])
        self.assertEqual((), self.pool.draining)

    def test_a_callback_that_raises(self) -> None:
        """Its exception comes out in the end; those behind it are served all the same."""
        self.use(ONE)
        self.lease()
        self.wait("first", then=partial(int, "no number"))
        self.wait("second")
        raises = partial(self.change, limits={"in_flight_per_backend": 3})
        self.assertRaises(ValueError, raises)
        self.assertEqual([("first", ONE), ("second", ONE)], self.ends)
        self.release(self.leases["first"])
        self.lease()

    def test_an_interrupt_leaves_the_pool_usable(self) -> None:
        """After an interrupt inside a callback, the next event serves the queue."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        self.use(ONE)
        held = self.lease()
        self.wait("first", then=interrupt)
        self.wait("second")
        self.assertRaises(KeyboardInterrupt, self.release, held)
        self.release(self.leases["first"])
        self.assertEqual([("first", ONE), ("second", ONE)], self.ends)
