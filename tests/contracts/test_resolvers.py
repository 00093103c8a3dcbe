"""Each of our resolvers and feeds keeps the contract."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.chain import ChainResolver
from scalingo_proxy.resolvers.config_file import ConfigFileResolver
from scalingo_proxy.resolvers.guarded import GuardedResolver
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.resolvers.saved_topology import SavedTopology
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.testing.feed_contract import FeedContract, Source
from scalingo_proxy.testing.resolver_contract import ResolverContract


class MemoryResolverTests(ResolverContract, FeedContract, TestCase):
    """MemoryResolver: answers and tells at once."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> MemoryResolver:
        return MemoryResolver(apps)

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        memory = MemoryResolver(apps)
        return Source(memory, memory.apply)


class ConfigFileResolverTests(ResolverContract, FeedContract, TestCase):
    """ConfigFileResolver: replaced as a whole, told as a difference."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> ConfigFileResolver:
        resolver = ConfigFileResolver()
        resolver.replace(apps)
        return resolver

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        resolver = await self.make_resolver(apps)

        def change(change: TopologyChange) -> None:
            described = {name: app for name, app in resolver.apps().items() if name not in change.removed}
            described.update((app.name, app) for app in change.updated)
            resolver.replace(described.values())

        return Source(resolver, change)


class StoreInMemoryTests(ResolverContract, FeedContract, TestCase):
    """StoreResolver without a file: no thread, and no reactor that runs."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> StoreResolver:
        store = StoreResolver("", Clock())
        await store.start()
        await store.apply(TopologyChange(apps))
        return store

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        store = await self.make_resolver(apps)
        return Source(store, store.apply)


class StoreTests(ResolverContract, FeedContract, TestCase):
    """StoreResolver on a file."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> StoreResolver:
        store = StoreResolver(self.mktemp(), reactor)
        self.addCleanup(store.stop)
        await store.start()
        await store.apply(TopologyChange(apps))
        return store

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        store = await self.make_resolver(apps)
        return Source(store, store.apply)


class ReopenedStoreTests(ResolverContract, FeedContract, TestCase):
    """StoreResolver with what an earlier one left in the file."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> StoreResolver:
        path = self.mktemp()
        earlier = StoreResolver(path, reactor)
        await earlier.start()
        await earlier.apply(TopologyChange(apps))
        await earlier.stop()
        store = StoreResolver(path, reactor)
        self.addCleanup(store.stop)
        await store.start()
        return store

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        store = await self.make_resolver(apps)
        return Source(store, store.apply)


class GuardedFeedTests(ResolverContract, FeedContract, TestCase):
    """GuardedResolver around a feed that is well: nobody notices."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> GuardedResolver:
        return GuardedResolver(MemoryResolver(apps), Clock())

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        memory = MemoryResolver(apps)
        return Source(GuardedResolver(memory, Clock()), memory.apply)


class SavedFeedTests(ResolverContract, FeedContract, TestCase):
    """GuardedResolver with what an earlier one saved, and its feed well again."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> GuardedResolver:
        return (await self.make_source(apps)).feed  # type: ignore[no-any-return]

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        path = self.mktemp()
        earlier = GuardedResolver(MemoryResolver(apps), reactor, saved=SavedTopology(path, reactor))
        await earlier.start()
        await earlier.stop()
        memory = MemoryResolver(apps)
        feed = GuardedResolver(memory, reactor, saved=SavedTopology(path, reactor))
        self.addCleanup(feed.stop)
        await feed.start()
        return Source(feed, memory.apply)


class SavedAloneTests(ResolverContract, TestCase):
    """GuardedResolver with what an earlier one saved, and a feed that is down."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> GuardedResolver:
        path = self.mktemp()
        earlier = GuardedResolver(MemoryResolver(apps), reactor, saved=SavedTopology(path, reactor))
        await earlier.start()
        await earlier.stop()
        later = GuardedResolver(MemoryResolver(), reactor, saved=SavedTopology(path, reactor))
        self.addCleanup(later.stop)
        await later.start()
        return later


class GuardedLookupTests(ResolverContract, TestCase):
    """GuardedResolver around one that answers later and tells of nothing."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> GuardedResolver:
        return GuardedResolver(LateResolver(apps), reactor)


class LoadingStoreTests(ResolverContract, TestCase):
    """StoreResolver asked before it has loaded: answers with Deferreds."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> StoreResolver:
        path = self.mktemp()
        earlier = StoreResolver(path, reactor)
        await earlier.start()
        await earlier.apply(TopologyChange(apps))
        await earlier.stop()
        store = StoreResolver(path, reactor)
        self.addCleanup(store.stop)
        store.start()
        return store


class LayeredUpperTests(ResolverContract, FeedContract, TestCase):
    """LayeredResolver whose upper layer changes."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> LayeredResolver:
        return LayeredResolver([MemoryResolver(apps, "upper"), MemoryResolver(name="lower")])

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        upper = MemoryResolver(apps, "upper")
        layered = LayeredResolver([upper, MemoryResolver(name="lower")])
        return Source(layered, upper.apply)


class LayeredLowerTests(FeedContract, TestCase):
    """LayeredResolver whose lower layer changes."""

    timeout = 30

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        lower = MemoryResolver(apps, "lower")
        layered = LayeredResolver([MemoryResolver(name="upper"), lower])
        return Source(layered, lower.apply)


class LayeredOnStoreTests(ResolverContract, FeedContract, TestCase):
    """LayeredResolver over a store and a file, as a proxy has them."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> LayeredResolver:
        store, file = StoreResolver("", Clock()), ConfigFileResolver()
        layered = LayeredResolver([store, file])
        file.replace(apps[1:])
        await store.start()
        await store.apply(TopologyChange(apps[:1]))
        return layered

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        store = StoreResolver("", Clock())
        layered = LayeredResolver([store, ConfigFileResolver()])
        await store.start()
        await store.apply(TopologyChange(apps))
        return Source(layered, store.apply)


@implementer(IResolver)
class LateResolver:
    """Answers on a later turn of the reactor, as a remote directory would."""

    name = "late"

    def __init__(self, apps: tuple[App, ...]) -> None:
        self._memory = MemoryResolver(apps, "late")

    def resolve(self, query: RouteQuery) -> Deferred[Route]:
        return deferLater(reactor, 0.001, self._memory.resolve, query)


class LateResolverTests(ResolverContract, TestCase):
    """The suite itself takes answers that come later."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> LateResolver:
        return LateResolver(apps)


class ChainTests(ResolverContract, TestCase):
    """ChainResolver of resolvers that answer at once."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> ChainResolver:
        # Exact and wildcard stay together: which of two resolvers wins is the chain's order.
        return ChainResolver([MemoryResolver(name="first"), MemoryResolver(apps, "second")])


class LateChainTests(ResolverContract, TestCase):
    """ChainResolver of resolvers that answer late."""

    timeout = 30

    async def make_resolver(self, apps: tuple[App, ...]) -> ChainResolver:
        return ChainResolver([LateResolver(()), MemoryResolver(name="second"), LateResolver(apps)])
