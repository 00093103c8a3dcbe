"""Many deadlines on one timer."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.deadlines import GRANULARITY, Deadlines, Timed


class Recorder(Timed):
    """Notes when it was told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: list[float] = []

    def deadline_reached(self) -> None:
        self.told.append(self.clock.seconds())


class DeadlinesTests(SynchronousTestCase):
    """Each object is told once, never early, and soon."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)

    def run_to(self, moment: float) -> None:
        """Advance in small steps, as a reactor does."""
        while self.clock.seconds() < moment:
            self.clock.advance(0.01)

    def test_told_once_and_soon(self) -> None:
        """A deadline is noticed within the granularity and only once."""
        timed = Recorder(self.clock)
        self.deadlines.set(timed, 1.0)
        self.run_to(5.0)
        self.assertEqual(len(timed.told), 1)
        self.assertGreaterEqual(timed.told[0], 1.0)
        self.assertLessEqual(timed.told[0], 1.0 + GRANULARITY + 0.02)

    def test_moved_later(self) -> None:
        """Only the last moment that was set counts when it moved later."""
        timed = Recorder(self.clock)
        self.deadlines.set(timed, 1.0)
        self.deadlines.set(timed, 3.0)
        self.run_to(2.9)
        self.assertEqual(timed.told, [])
        self.run_to(3.2)
        self.assertEqual(len(timed.told), 1)

    def test_moved_earlier(self) -> None:
        """A moment that moved earlier is noticed at the earlier one."""
        timed = Recorder(self.clock)
        self.deadlines.set(timed, 60.0)
        self.deadlines.set(timed, 1.0)
        self.run_to(1.2)
        self.assertEqual(len(timed.told), 1)

    def test_cleared(self) -> None:
        """A cleared deadline is never told, and can be set again."""
        timed = Recorder(self.clock)
        self.deadlines.set(timed, 1.0)
        self.deadlines.clear(timed)
        self.run_to(2.0)
        self.assertEqual(timed.told, [])
        self.deadlines.set(timed, 2.5)
        self.run_to(3.0)
        self.assertEqual(len(timed.told), 1)

    def test_forgotten(self) -> None:
        """A forgotten object is not told, and the timer goes when stopped."""
        timed = Recorder(self.clock)
        self.deadlines.set(timed, 1.0)
        self.deadlines.stop()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadlines.forget(timed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_timer(self) -> None:
        """A thousand objects share one delayed call."""
        for number in range(1000):
            self.deadlines.set(Recorder(self.clock), 1.0 + number / 10)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_failure_of_one(self) -> None:
        """An object that raises takes nobody else's deadline with it."""

        class Broken(Timed):
            def deadline_reached(self) -> None:
                raise ZeroDivisionError

        timed = Recorder(self.clock)
        self.deadlines.set(Broken(), 1.0)
        self.deadlines.set(timed, 1.0)
        self.run_to(1.3)
        self.assertEqual(len(timed.told), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_late(self) -> None:
        """After a standstill whoever has something to read may read first, once."""
        busy, idle = Recorder(self.clock), Recorder(self.clock)
        self.deadlines.set(busy, 5.0)
        self.deadlines.set(idle, 5.0)
        # The clock jumps; what came meanwhile is read in the turn after the timers'.
        self.clock.rightNow = 65.0
        self.clock.calls[0].func()
        self.assertEqual((busy.told, idle.told), ([], []))
        self.deadlines.set(busy, 70.0)
        self.clock.advance(0)
        self.assertEqual((busy.told, idle.told), ([], [65.0]))
        self.run_to(70.2)
        self.assertEqual(len(busy.told), 1)

    def test_late_again(self) -> None:
        """A clock that always jumps puts nobody off for ever."""
        timed = Recorder(self.clock)
        self.deadlines.set(timed, 5.0)
        for _ in range(2):
            self.clock.rightNow += 30.0
            self.clock.calls.pop(0).func()
        self.assertEqual(len(timed.told), 1)

    def test_spelled_out(self) -> None:
        """What every request does in place of a call has the effect of the call, whatever the moments."""
        source = random.Random(5)
        for start in (0.0, 0.3, 1e5 + 0.7, 3e6):
            clock = Clock()
            clock.advance(start)
            called, spelled = Deadlines(clock), Deadlines(clock)
            ones, others = [Recorder(clock) for _ in range(5)], [Recorder(clock) for _ in range(5)]
            for _ in range(600):
                number = source.randrange(5)
                at = clock.seconds() + source.choice((0.0, 0.1, 0.2, 0.3, 1.0, source.uniform(0, 2)))
                called.set(ones[number], at)
                other = others[number]
                other.deadline = at
                if at < other.covered_from:
                    spelled.look_sooner(other)
                clock.advance(source.choice((0.0, 0.01, 0.05, 0.3)))
            self.assertEqual([one.told for one in ones], [other.told for other in others])
            self.assertGreater(sum(len(one.told) for one in ones), 20)

    def test_moved_a_little(self) -> None:
        """Whoever is moved within its slot, or later, stays where it is."""
        moved = []
        timed = Recorder(self.clock)
        self.deadlines.set(timed, 5.03)
        self.patch(self.deadlines, "_insert", lambda timed, at: moved.append(at))
        for at in (5.031, 5.0999, 5.001, 60.0, 5.0):
            self.deadlines.set(timed, at)
        self.assertEqual(moved, [])
        self.deadlines.set(timed, 4.99)
        self.assertEqual(moved, [4.99])

    def test_like_a_model(self) -> None:
        """Random settings are told as an exact timer would, give or take the granularity."""
        randomness = random.Random(5)
        objects = [Recorder(self.clock) for _ in range(30)]
        expected: dict[Recorder, float] = {}
        told: dict[Recorder, int] = dict.fromkeys(objects, 0)
        for _ in range(2000):
            timed = randomness.choice(objects)
            action = randomness.random()
            if action < 0.7:
                moment = self.clock.seconds() + randomness.uniform(0.0, 3.0)
                self.deadlines.set(timed, moment)
                expected[timed] = moment
            elif action < 0.85:
                self.deadlines.clear(timed)
                expected.pop(timed, None)
            else:
                self.deadlines.forget(timed)
                expected.pop(timed, None)
            self.clock.advance(0.01)
            now = self.clock.seconds()
            for other, moment in list(expected.items()):
                if len(other.told) > told[other]:
                    self.assertGreaterEqual(now, moment)
                    told[other] = len(other.told)
                    del expected[other]
                else:
                    self.assertLess(now, moment + GRANULARITY + 0.02)
            for other in objects:
                self.assertEqual(len(other.told), told[other])

    def test_nothing_is_left(self) -> None:
        """Of those that came and went no slot remains, but for the one that the next may wait in."""
        for number in range(200):
            timed = Recorder(self.clock)
            self.deadlines.set(timed, self.clock.seconds() + 10 + number % 3)
            self.deadlines.forget(timed)
            self.assertLessEqual(len(self.deadlines._slots), 1)
            self.clock.advance(0.05)
        self.assertEqual(timed.told, [])
        self.deadlines.stop()
        self.assertEqual((self.deadlines._slots, self.clock.getDelayedCalls()), ({}, []))

    def test_one_ends_others(self) -> None:
        """Whoever is told may forget, set and move others of the same slot, or of a later one that is due."""
        others = [Recorder(self.clock) for _ in range(3)]
        deadlines, clock = self.deadlines, self.clock

        class Ending(Timed):
            def deadline_reached(self) -> None:
                deadlines.forget(others[0])
                deadlines.set(others[1], clock.seconds() + 1)
                deadlines.set(others[2], clock.seconds() - 0.05)
                deadlines.forget(others[2])
                deadlines.set(others[2], clock.seconds() - 0.05)

        deadlines.set(Ending(), 1.0)
        deadlines.set(others[0], 1.0)
        deadlines.set(others[1], 1.0)
        deadlines.set(others[2], 1.15)
        clock.advance(1.5)
        self.run_to(4.0)
        self.assertEqual([len(each.told) for each in others], [0, 1, 1])
        self.assertGreaterEqual(others[1].told[0], 2.5)
        self.assertEqual(len(deadlines._slots), 0)
