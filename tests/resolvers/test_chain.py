"""Several resolvers in a row.  The contract is tested in tests/contracts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from scalingo_proxy.errors import ResolverUnavailable, UnknownHost
from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import App, Route, RouteQuery
from scalingo_proxy.resolvers.chain import ChainResolver
from scalingo_proxy.resolvers.memory import MemoryResolver

QUERY = RouteQuery("a.example")


def memory(name: str, *domains: str) -> MemoryResolver:
    return MemoryResolver([App("app", domains)], name)


@implementer(IResolver)
class Scripted:
    """Does with each query what the test says; remembers the queries."""

    name = "scripted"

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.queries: list[RouteQuery] = []

    def resolve(self, query: RouteQuery) -> Any:
        self.queries.append(query)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class ChainTests(SynchronousTestCase):
    """Who is asked, and whose answer counts."""

    def test_first_answer_wins(self) -> None:
        """The first that knows the host answers; nobody behind it is asked."""
        last = Scripted(UnknownHost())
        chain = ChainResolver(
            [memory("1", "b.example"), memory("2", "a.example"), memory("3", "a.example"), last]
        )
        route = chain.resolve(QUERY)
        assert isinstance(route, Route)
        self.assertEqual(route.resolver, "2")
        self.assertEqual(last.queries, [])

    def test_nobody(self) -> None:
        """A host that none of them knows is unknown, as is any host to an empty chain."""
        self.assertRaises(UnknownHost, ChainResolver([memory("1", "b.example")]).resolve, QUERY)
        self.assertRaises(UnknownHost, ChainResolver([]).resolve, QUERY)

    def test_late_answer(self) -> None:
        """A Deferred is waited for before the next is asked."""
        late: Deferred[Route] = Deferred()
        last = Scripted(Route(App("z"), "a.example", "last"))
        answer = ChainResolver([Scripted(late), last]).resolve(QUERY)
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        self.assertEqual(last.queries, [])
        late.errback(UnknownHost())
        self.assertEqual(self.successResultOf(answer).resolver, "last")
        self.assertEqual(last.queries, [QUERY])

    def test_several_late(self) -> None:
        """Each may be late in its turn; the last refusal counts."""
        first: Deferred[Route] = Deferred()
        second: Deferred[Route] = Deferred()
        answer = ChainResolver([Scripted(first), Scripted(second)]).resolve(QUERY)
        assert isinstance(answer, Deferred)
        first.errback(UnknownHost())
        self.assertNoResult(answer)
        second.errback(UnknownHost())
        self.failureResultOf(answer, UnknownHost)

    def test_unavailable_then_known(self) -> None:
        """One that cannot tell does not stand in the way of one that can."""
        chain = ChainResolver([Scripted(ResolverUnavailable()), memory("2", "a.example")])
        route = chain.resolve(QUERY)
        assert isinstance(route, Route)
        self.assertEqual(route.resolver, "2")

    def test_unavailable_and_unknown(self) -> None:
        """When nobody knows the host, but one could not tell, it is not said to be unknown."""
        silent = ResolverUnavailable("the directory is down")
        for resolvers in ([Scripted(silent), memory("2")], [memory("1"), Scripted(silent)]):
            error = self.assertRaises(ResolverUnavailable, ChainResolver(resolvers).resolve, QUERY)
            self.assertEqual(error.detail, "the directory is down")

    def test_unavailable_late(self) -> None:
        """The same when it says so late."""
        late: Deferred[Route] = Deferred()
        answer = ChainResolver([Scripted(late), memory("2")]).resolve(QUERY)
        assert isinstance(answer, Deferred)
        late.errback(ResolverUnavailable())
        self.failureResultOf(answer, ResolverUnavailable)

    def test_bug(self) -> None:
        """Any other error is not passed over, at once or late."""
        chain = ChainResolver([Scripted(ZeroDivisionError()), memory("2", "a.example")])
        self.assertRaises(ZeroDivisionError, chain.resolve, QUERY)
        late: Deferred[Route] = Deferred()
        answer = ChainResolver([Scripted(late), memory("2", "a.example")]).resolve(QUERY)
        assert isinstance(answer, Deferred)
        late.errback(ZeroDivisionError())
        self.failureResultOf(answer, ZeroDivisionError)

    def test_cancel(self) -> None:
        """Cancelling cancels the question that is out, and asks nobody else."""
        cancelled: list[Deferred[Route]] = []
        first: Deferred[Route] = Deferred()
        second: Deferred[Route] = Deferred(cancelled.append)
        last = Scripted(UnknownHost())
        answer = ChainResolver([Scripted(first), Scripted(second), last]).resolve(QUERY)
        assert isinstance(answer, Deferred)
        first.errback(UnknownHost())
        answer.cancel()
        self.assertEqual(cancelled, [second])
        self.assertEqual(last.queries, [])
        self.failureResultOf(answer, CancelledError)
