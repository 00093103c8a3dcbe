"""Calling strangers in a row."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.callouts import Callouts


class CalloutsTests(SynchronousTestCase):
    def test_the_row_goes_on(self) -> None:
        """A call that raises does not keep the next one from being made."""
        called: list[int] = []
        callouts = Callouts()
        callouts.call(called.append, 1)
        callouts.call(int, "no number")
        callouts.call(called.append, 2)
        self.assertEqual([1, 2], called)
        self.assertRaises(ValueError, callouts.finish)

    def test_the_first_failure_counts(self) -> None:
        """The exception that comes out is that of the first call that failed, once."""
        callouts = Callouts()
        callouts.call({}.__getitem__, "missing")
        callouts.call(int, "no number")
        self.assertRaises(KeyError, callouts.finish)
        callouts.finish()

    def test_an_interrupt_is_not_kept_back(self) -> None:
        """What is no Exception, such as an interrupt, comes out at once."""

        def interrupted() -> None:
            raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, Callouts().call, interrupted)
