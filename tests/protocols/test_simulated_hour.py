"""An hour of a whole busy proxy in seconds; see :mod:`tests.soak.simulation`."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from tests.soak.simulation import SimulatedHour
from tests.wire.http1_strategies import EXAMPLES


class SimulatedHourTests(SynchronousTestCase):
    """Three doors, three apps, faults, outages, deploys; and what always holds."""

    def test_hour(self) -> None:
        """Nobody notices what need not be noticed, and nothing is left."""
        began = time.process_time()
        hour = SimulatedHour(seed=1)
        hour.run()
        spent = time.process_time() - began
        verdict = hour.verdict()
        self.assertEqual(verdict.faults, [], "\n".join([*verdict.faults, *verdict.summary()]))
        # It is worth something only if much went well, and everything went wrong.
        self.assertGreater(sum(exchange.is_good for exchange in hour.exchanges), 1500)
        for kind in ("GET", "POST", "UPLOAD", "WEBSOCKET", "GET h2", "POST h2", "passed"):
            self.assertTrue(any(exchange.kind == kind for exchange in hour.exchanges), kind)
        for trouble in (
            *("BlackHole", "Refuse", "Reset", "HalfOpen", "Stall"),
            *("redeployed", "scaled", "paused", "stopped", "refused while stopped"),
        ):
            self.assertIn(trouble, hour.counts)
        self.assertLess(spent, 10.0)

    def test_clients_in_trouble(self) -> None:
        """Clients that vanish, drip and stall cost nobody else anything, and nothing of them is left."""
        hour = SimulatedHour(seed=4, seconds=900.0, pause=1.0, client_share=0.3)
        hour.run()
        executed_wrongly = [fault for fault in hour.verdict().faults if "execut" in fault]
        self.assertEqual(executed_wrongly, [])
        codes = hour.world.observer.codes
        self.assertNotIn("internal-error", codes)
        for code in ("client-closed", "idle-timeout"):
            self.assertGreater(codes.count(code), 1, code)

    def test_seeds(self) -> None:
        """The same seed replays it; another is another story, and the same holds."""
        digests = []
        for seed in (2, 3, 3):
            hour = SimulatedHour(seed, seconds=3600.0 if EXAMPLES else 300.0)
            hour.run()
            verdict = hour.verdict()
            self.assertEqual(verdict.faults, [], "\n".join([f"seed {seed}", *verdict.faults]))
            digests.append(hour.digest())
        first, second, again = digests
        self.assertNotEqual(first, second)
        self.assertEqual(second, again)
