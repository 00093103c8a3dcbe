"""Probes in turn: evenly, bounded, by haste, and nothing left over."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.interfaces import IProbe
from scalingo_proxy.model import App, Backend, Health, ProbeResult
from scalingo_proxy.services.paced_probes import Haste, PacedProbes
from tests.services.fake_probes import FakeProbe

APP = App("app")


def advance(clock: Clock, seconds: float, step: float = 0.001) -> None:
    """Let *seconds* pass in small steps."""
    for _ in range(round(seconds / step)):
        clock.advance(step)


class PacedProbesTests(SynchronousTestCase):
    """One line for everybody."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fake = FakeProbe(self.clock)
        self.paced = PacedProbes(self.fake, self.clock, per_second=100, at_once=10)
        self.results: list[ProbeResult] = []

    def ask(self, number: int, haste: Haste = Haste.ROUTINE) -> Deferred[ProbeResult]:
        """Want one backend probed."""
        asking = self.paced.probe(Backend("10.0.0.1", number), APP, Health(), haste)
        asking.addCallback(self.results.append)
        return asking  # type: ignore[return-value]

    def test_at_once_when_free(self) -> None:
        """Nobody waits for nothing, and nothing is left behind."""
        self.ask(1)
        self.assertEqual([result.passed for result in self.results], [True])
        self.assertEqual((self.clock.getDelayedCalls(), self.paced.under_way), ([], 0))
        self.assertTrue(IProbe.providedBy(self.paced))

    def test_evenly(self) -> None:
        """However many come together, they begin one after another."""
        for number in range(1, 301):
            self.ask(number)
        advance(self.clock, 3.02)
        self.assertEqual(len(self.results), 300)
        self.assertEqual(self.fake.addresses, [f"10.0.0.1:{number}" for number in range(1, 301)])
        self.assertLessEqual(self.fake.most_within(0.1), 11)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_making_up(self) -> None:
        """Time that passed without a turn, asleep or busy, is not made up for."""
        for number in range(1, 101):
            self.ask(number)
        self.clock.advance(3600)
        self.assertEqual(len(self.results), 3)
        self.clock.advance(0.011)
        self.assertEqual(len(self.results), 4)

    def test_bounded_under_way(self) -> None:
        """Those that hang hold the others up only when there are too many of them."""
        self.fake.seconds = 2.0
        for number in range(1, 31):
            self.ask(number)
        advance(self.clock, 1)
        self.assertEqual((self.fake.under_way, self.paced.waiting), (10, 20))
        advance(self.clock, 7)
        self.assertEqual((len(self.results), self.fake.most_under_way), (30, 10))
        self.assertEqual((self.clock.getDelayedCalls(), self.paced.under_way), ([], 0))

    def test_in_order_of_haste(self) -> None:
        """What somebody waits for comes first, then what is urgent; but every fourth turn is the others'."""
        for number in range(1, 7):
            self.ask(number)
        for number in range(20, 24):
            self.ask(number, Haste.URGENT)
        for number in range(10, 13):
            self.ask(number, Haste.AWAITED)
        advance(self.clock, 1)
        self.assertEqual(
            [int(address[9:]) for address in self.fake.addresses],
            [1, 10, 11, 2, 12, 20, 21, 3, 22, 23, 4, 5, 6],
        )

    def test_all_given_up(self) -> None:
        """When the last one that waits gives up, nothing is left to come."""
        asking = [self.ask(number) for number in range(1, 6)]
        self.assertEqual((self.paced.waiting, len(self.clock.getDelayedCalls())), (4, 1))
        for one in asking[1:]:
            one.cancel()
            self.failureResultOf(one, CancelledError)
        self.assertEqual((self.paced.waiting, self.clock.getDelayedCalls()), (0, []))
        self.ask(9)
        advance(self.clock, 0.1)
        self.assertEqual(self.fake.addresses, ["10.0.0.1:1", "10.0.0.1:9"])

    def test_cancelled(self) -> None:
        """Waiting or under way, nothing is left of it, and the next ones have their turn."""
        self.fake.seconds = 0.5
        under_way, waiting, other = self.ask(1), self.ask(2), self.ask(3)
        for asking in (waiting, under_way):
            asking.cancel()
            self.failureResultOf(asking, CancelledError)
        self.assertEqual((self.fake.cancelled, self.paced.under_way, self.paced.waiting), (1, 0, 1))
        advance(self.clock, 1)
        self.assertEqual(self.fake.addresses, ["10.0.0.1:1", "10.0.0.1:3"])
        self.successResultOf(other)
        self.assertEqual((self.clock.getDelayedCalls(), self.paced.waiting), ([], 0))

    def test_bug(self) -> None:
        """A probe that raises is a result that says nothing of the backend; the others go on."""
        self.fake.broken.add("10.0.0.1:1")
        for number in (1, 2):
            self.ask(number)
        advance(self.clock, 1)
        self.assertEqual(
            [(result.passed, result.is_inconclusive) for result in self.results],
            [(False, True), (True, False)],
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.paced.results, {"pass": 1, "fail": 0, "error": 1})

    def test_counted(self) -> None:
        """Each result counts once, as what it was."""
        self.fake.failing["10.0.0.1:2"] = 503
        self.fake.poor.add("10.0.0.1:3")
        for number in (1, 2, 3, 4):
            self.ask(number)
        advance(self.clock, 1)
        self.assertEqual(self.paced.results, {"pass": 2, "fail": 1, "error": 1})
