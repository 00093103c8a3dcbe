"""The model of latencies adds up."""

from __future__ import annotations

import statistics

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmarks.latency_model import Choice, latencies


class LatenciesTests(SynchronousTestCase):
    """A few thousand requests each."""

    def test_alone(self) -> None:
        """A request that meets nobody takes what its steps take together."""
        took = latencies(Choice("", 1000), 10.0, 2000)
        self.assertEqual(len(took), 2000)
        steps = 40 + 22 + 2 * (6 + 10) + 14 + (9 + 24) / 2
        self.assertApproximates(statistics.median(took) * 1e6, steps, 2)

    def test_order(self) -> None:
        """At half load, idle moments help most those who wait longest, and answers first help, too."""
        choices = Choice("", 16), Choice("", 256, 16), Choice("", 256, 16, True)
        at_once, idle, answers_first = (latencies(each, 8000.0, 20_000)[19_800] for each in choices)
        self.assertLess(idle, at_once)
        self.assertLess(answers_first, idle)
