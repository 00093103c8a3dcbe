"""The suites find out who does not keep the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from scalingo_proxy.errors import DomainTaken, UnknownHost
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.routing.table import RouteTable
from scalingo_proxy.testing.feed_contract import FeedContract, Source
from scalingo_proxy.testing.resolver_contract import ResolverContract


class WildcardReachesApex(MemoryResolver):
    def resolve(self, query: RouteQuery) -> Route:
        return super().resolve(RouteQuery(query.host if self.table.lookup(query.host) else "x." + query.host))


class TellsNobodyKnown(MemoryResolver):
    def resolve(self, query: RouteQuery) -> Any:
        try:
            return super().resolve(query)
        except UnknownHost:
            return None


class TellsBeforeTheSwap(MemoryResolver):
    def _swap(self, table: RouteTable, difference: TopologyChange) -> None:
        self._tell(difference)
        self.table = table


class TellsEverything(MemoryResolver):
    def _swap(self, table: RouteTable, difference: TopologyChange) -> None:
        super()._swap(table, TopologyChange(tuple(table.apps.values()), difference.removed))


class TakesWhatFits(MemoryResolver):
    def apply(self, change: TopologyChange) -> None:
        super().apply(TopologyChange((), change.removed))
        refused = None
        for app in change.updated:
            try:
                super().apply(TopologyChange((app,)))
            except DomainTaken as error:
                refused = error
        if refused is not None:
            raise refused


class NeverLetsGo(MemoryResolver):
    def watch(self, callback: Callable[[TopologyChange], object]) -> Callable[[], None]:
        super().watch(callback)
        return lambda: None


class SuiteTests(SynchronousTestCase):
    """Broken providers under the suites."""

    def failing(self, provider: type[MemoryResolver]) -> set[str]:
        """The names of the tests that *provider* does not pass."""

        class Case(ResolverContract, FeedContract, TestCase):
            async def make_resolver(self, apps: tuple[App, ...]) -> MemoryResolver:
                return provider(apps)

            async def make_source(self, apps: tuple[App, ...]) -> Source:
                feed = provider(apps)
                return Source(feed, feed.apply)

        failing = set()
        for name in dir(Case):
            if name.startswith("test_"):
                result: list[object] = []
                Deferred.fromCoroutine(getattr(Case(name), name)()).addErrback(result.append)
                if result:
                    failing.add(name)
        self.flushLoggedErrors()
        return failing

    def test_sound(self) -> None:
        """A sound provider passes everything."""
        # One test looks into the log of the case that runs it, which is not run here.
        self.assertEqual(self.failing(MemoryResolver), {"test_watcher_fails"})

    def test_broken(self) -> None:
        """Each way of breaking the contract is found by the test that is there for it."""
        for provider, test in (
            (WildcardReachesApex, "test_wildcard"),
            (TellsNobodyKnown, "test_unknown_host"),
            (TellsBeforeTheSwap, "test_told_after_the_swap"),
            (TellsEverything, "test_only_what_differs"),
            (TakesWhatFits, "test_refused_as_a_whole"),
            (TakesWhatFits, "test_domains_move"),
            (NeverLetsGo, "test_unsubscribe"),
        ):
            self.assertIn(test, self.failing(provider), provider.__name__)
