"""The program, as far as it needs no process of its own to be looked at."""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.tap import spare_what_is_loaded


class SpareWhatIsLoadedTests(SynchronousTestCase):
    """The garbage collector while the proxy starts."""

    def setUp(self) -> None:
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)

    def test_loaded(self) -> None:
        """It rests until all is loaded, and never looks at that again."""
        loading: Deferred[str] = Deferred()
        spare_what_is_loaded(loading)
        self.assertFalse(gc.isenabled())
        loading.callback("table")
        self.assertTrue(gc.isenabled())
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertEqual(self.successResultOf(loading), "table")

    def test_failed(self) -> None:
        """It works again, and whoever waits is told."""
        loading: Deferred[str] = Deferred()
        spare_what_is_loaded(loading)
        loading.errback(ZeroDivisionError())
        self.assertTrue(gc.isenabled())
        self.failureResultOf(loading, ZeroDivisionError)
