"""Tests of scalingo_proxy.routing.retry_budget."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.retry_budget import RetryBudget


def ask(budget: RetryBudget, count: int, now: float) -> None:
    """So many requests in one moment, counted as an exchange does it."""
    for _ in range(count):
        if now >= budget.turns_at:
            budget.turn(now)
        budget.requests += 1


def spent(budget: RetryBudget, now: float) -> int:
    """How many repetitions there are until one is refused."""
    count = 0
    while budget.spend(now):
        count += 1
    return count


class RetryBudgetTests(SynchronousTestCase):
    def test_floor(self) -> None:
        """Three in ten seconds are always allowed, then three more."""
        budget = RetryBudget()
        self.assertEqual(3, spent(budget, 100.0))
        self.assertEqual(0, spent(budget, 109.9))
        self.assertEqual(3, spent(budget, 110.0))

    def test_share(self) -> None:
        """One in five of the last ten seconds' requests, however they are spread."""
        budget = RetryBudget()
        for second in range(10):
            ask(budget, 10, 50.5 + second)
        self.assertEqual(20, spent(budget, 59.9))
        ask(budget, 10, 60.5)
        self.assertEqual(0, spent(budget, 60.5), "the requests of second 50 count no more")
        ask(budget, 100, 61.5)
        self.assertEqual(18, spent(budget, 61.5))

    def test_forgets(self) -> None:
        """After ten quiet seconds nothing of what was counts."""
        budget = RetryBudget()
        ask(budget, 1000, 5.0)
        self.assertEqual(200, spent(budget, 5.0))
        self.assertEqual(3, spent(budget, 16.0))

    def test_quiet_hours(self) -> None:
        """Long pauses between requests neither add up nor stand in the way."""
        budget = RetryBudget()
        for hour in range(30):
            ask(budget, 1, hour * 3600.0)
        self.assertEqual(3, spent(budget, 30 * 3600.0))
