"""Minutes of trouble in seconds, on the running program; see :mod:`tests.soak`."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.soak.run import Soak
from tests.soak.stop import StopUnderLoad


class SoakTests(SynchronousTestCase):
    """The short form; by hand: ``python -m tests.soak --minutes 10``."""

    timeout = 170

    def test_soak(self) -> None:
        """Whatever happens to backends, what a client cannot know does not reach it, and nothing is left."""
        soak = Soak(seed=1, seconds=5.0, every=0.35)
        soak.run()
        sys.stdout.write("\n" + "\n".join(soak.lines) + "\n")
        self.assertEqual(soak.faults, [], "\n".join(soak.faults))
        self.assertGreater(soak.exchange_count, 500)
        self.assertGreater(soak.trouble_count, 3)

    def test_stop_under_load(self) -> None:
        """SIGTERM: what was begun over any protocol ends well, none is reset, and the process in time."""
        soak = StopUnderLoad(seed=1, seconds=2.0)
        soak.run()
        sys.stdout.write("\n" + "\n".join(soak.lines) + "\n")
        self.assertEqual(soak.faults, [], "\n".join(soak.faults))
        self.assertGreater(soak.exchange_count, 200)
