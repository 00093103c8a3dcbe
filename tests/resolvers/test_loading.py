"""Waiting for a source of routes."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ResolverUnavailable, UnknownHost
from scalingo_proxy.model import App, Route
from scalingo_proxy.resolvers.loading import Loading, answer_after

ROUTE = Route(App("a"), "a.example")


class LoadingTests(SynchronousTestCase):
    """Who waits for what."""

    def setUp(self) -> None:
        self.loading = Loading()

    def test_finish(self) -> None:
        """All who wait are told, in the order in which they came; later ones need not wait."""
        order: list[int] = []
        for number in range(3):
            self.loading.wait().addCallback(lambda _, number=number: order.append(number))
        self.assertFalse(self.loading.is_done)
        self.loading.finish()
        self.assertTrue(self.loading.is_done)
        self.assertEqual(order, [0, 1, 2])
        self.successResultOf(self.loading.wait())

    def test_abandon(self) -> None:
        """A failure is told to all who wait, and to later ones until it is begun again."""
        first = self.loading.wait()
        self.loading.abandon(ZeroDivisionError())
        self.failureResultOf(first, ZeroDivisionError)
        self.failureResultOf(self.loading.wait(), ZeroDivisionError)
        self.loading.begin()
        again = self.loading.wait()
        self.assertNoResult(again)
        self.loading.finish()
        self.successResultOf(again)

    def test_cancel(self) -> None:
        """Who leaves harms nobody else."""
        first, second = self.loading.wait(), self.loading.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.loading.finish()
        self.successResultOf(second)


class AnswerAfterTests(SynchronousTestCase):
    """Answers that wait."""

    def test_answer(self) -> None:
        """The answer is asked for only then."""
        loaded: Deferred[None] = Deferred()
        answer = answer_after(loaded, lambda: ROUTE)
        self.assertNoResult(answer)
        loaded.callback(None)
        self.assertIs(self.successResultOf(answer), ROUTE)

    def test_unknown(self) -> None:
        """A host that turns out to be unknown is that."""
        loaded: Deferred[None] = Deferred()

        def nobody() -> Route:
            raise UnknownHost

        answer = answer_after(loaded, nobody)
        loaded.callback(None)
        self.failureResultOf(answer, UnknownHost)

    def test_failure(self) -> None:
        """Whatever kept it from loading, routes are unavailable."""
        self.failureResultOf(answer_after(fail(OSError("disk")), lambda: ROUTE), ResolverUnavailable)

    def test_cancel(self) -> None:
        """A client that leaves is not told that routes are unavailable."""
        answer = answer_after(Deferred(), lambda: ROUTE)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
