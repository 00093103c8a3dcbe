"""Work that is put off: by turns, and never more of it than a turn of the reactor has time for."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.turns import SECONDS_AT_ONCE, Turns


class Worker:
    """Has so many turns' worth of work, each of which takes its time."""

    def __init__(self, test: TurnsTests, name: str, work: int) -> None:
        self._test = test
        self.name = name
        self.work = work

    def take_turn(self) -> None:
        if self._test.breaks:
            raise RuntimeError(self.name)
        self._test.done.append(self.name)
        self._test.clock.rightNow += SECONDS_AT_ONCE
        self.work -= 1
        if self.work:
            self._test.turns.put_off(self)


class TurnsTests(SynchronousTestCase):
    """A clock that goes on while somebody works."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.done: list[str] = []
        self.breaks = False

    def put_off(self, name: str, work: int = 1) -> Worker:
        worker = Worker(self, name, work)
        self.turns.put_off(worker)
        return worker

    def turn_of_the_reactor(self, *calls: IDelayedCall) -> None:
        """Make the calls that are due now, and none that comes of them."""
        for call in calls:
            self.clock.calls.remove(call)
            call.func()

    def test_by_turns(self) -> None:
        """Everybody's first before anybody's second, two in each turn of the reactor."""
        for name in "abc":
            self.put_off(name, 2)
        told = []
        while calls := self.clock.getDelayedCalls():
            self.turn_of_the_reactor(*calls)
            told.append("".join(self.done))
        self.assertEqual(told, ["ab", "abca", "abcabc"])

    def test_no_turn_for_who_came_meanwhile(self) -> None:
        """Who is put off again waits for the next turn of the reactor, even if there is time."""

        def take_turn(worker: Worker) -> None:
            self.done.append(worker.name)
            if len(self.done) < 3:
                self.turns.put_off(worker)

        self.patch(Worker, "take_turn", take_turn)
        self.put_off("a")
        for count in (1, 2, 3):
            self.turn_of_the_reactor(*self.clock.getDelayedCalls())
            self.assertEqual(len(self.done), count)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forgotten(self) -> None:
        """Who has gone is not called, and no timer is left for nobody."""
        one, two = self.put_off("one"), self.put_off("two")
        self.turns.forget(one)
        self.clock.advance(0)
        self.assertEqual(self.done, ["two"])
        three = self.put_off("three")
        self.turns.forget(three)
        self.turns.forget(two)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_breaks(self) -> None:
        """A mistake of one keeps nobody else from working."""
        self.put_off("one")
        self.put_off("two")
        self.breaks = True
        with self.assertRaises(RuntimeError):
            self.clock.advance(0)
        self.breaks = False
        self.clock.advance(0)
        self.assertEqual(self.done, ["two"])
