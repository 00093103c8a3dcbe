"""What every route feed owes the proxy: one suite for all of them.

Mix :class:`FeedContract` into a trial ``TestCase`` that says how one is made
and changed, beside
:class:`~scalingo_proxy.testing.resolver_contract.ResolverContract` where the
feed answers queries too::

    class DirectoryFeedTests(FeedContract, TestCase):
        async def make_source(self, apps):
            directory = await a_directory_of(apps)
            return Source(DirectoryFeed(directory), directory.write)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from scalingo_proxy.errors import DomainTaken
from scalingo_proxy.interfaces import IResolver, IRouteFeed
from scalingo_proxy.model import App, TopologyChange
from scalingo_proxy.testing.resolver_contract import an_app, ask, owner_of
from scalingo_proxy.testing.trial_case import MixedIntoTestCase

__all__ = ["FeedContract", "Source"]


@attrs.frozen
class Source:
    """A route feed to be tested, and the hand that changes what it tells.

    :ivar feed: provides IRouteFeed; where it provides IResolver too, its
        answers are tested along with what it tells.
    :ivar change: makes what lies behind the feed take over a TopologyChange;
        may return a Deferred.  Done means served and told.  It raises (or
        fails with) DomainTaken when two apps would claim one domain.
    """

    feed: Any
    change: Callable[[TopologyChange], Any]


class FeedContract(MixedIntoTestCase):
    """What IRouteFeed promises, and its answers where it provides IResolver too."""

    async def make_source(self, apps: tuple[App, ...]) -> Source:
        """A feed that begins with *apps*; clean up after it by ``addCleanup``."""
        raise NotImplementedError

    async def source(self, *apps: App) -> Source:
        """A feed that begins with *apps*."""
        return await self.make_source(apps)

    async def change(self, source: Source, *updated: App, removed: tuple[str, ...] = ()) -> None:
        """Let the source take a change over, and wait until it is served."""
        await maybeDeferred(source.change, TopologyChange(updated, removed))

    async def assert_served(self, source: Source, owners: Mapping[str, str]) -> None:
        """Each host of *owners* leads to its app, or nowhere, as far as the feed answers at all."""
        if IResolver.providedBy(source.feed):
            for host, owner in owners.items():
                self.assertEqual(await owner_of(source.feed, host), owner, host)

    async def assert_refused(self, source: Source, *updated: App) -> DomainTaken:
        """*updated* is refused as a whole: nothing changes, nobody is told."""
        before, told = dict(source.feed.apps()), _told_by(source)
        try:
            await self.change(source, *updated)
        except DomainTaken as error:
            self.assertEqual(dict(source.feed.apps()), before)
            self.assertEqual(told, [])
            return error
        raise self.failureException("the change was not refused")

    async def test_feed_interface(self) -> None:
        """It provides IRouteFeed."""
        verifyObject(IRouteFeed, (await self.source()).feed)

    async def test_apps(self) -> None:
        """The topology as it stands is told by app name."""
        a, b = an_app("a", "a.example"), an_app("b", "b.example")
        self.assertEqual(dict((await self.source(a, b)).feed.apps()), {"a": a, "b": b})
        self.assertEqual(dict((await self.source()).feed.apps()), {})

    async def test_apps_is_a_snapshot(self) -> None:
        """What apps() gave stays as it was, whatever happens later."""
        source = await self.source(an_app("a", "a.example"))
        before = source.feed.apps()
        await self.change(source, an_app("b", "b.example"), removed=("a",))
        self.assertEqual((list(before), list(source.feed.apps())), (["a"], ["b"]))

    async def test_add(self) -> None:
        """A new app is told and served."""
        source = await self.source(an_app("a", "a.example"))
        told, new = _told_by(source), an_app("b", "b.example", "*.b.example")
        await self.change(source, new)
        self.assertEqual(told, [TopologyChange((new,))])
        self.assertEqual(source.feed.apps()["b"], new)
        await self.assert_served(source, {"a.example": "a", "b.example": "b", "x.b.example": "b"})

    async def test_remove(self) -> None:
        """An app that goes is told and served no more."""
        source = await self.source(an_app("a", "a.example"), an_app("b", "b.example"))
        told = _told_by(source)
        await self.change(source, removed=("a",))
        self.assertEqual(told, [TopologyChange((), ("a",))])
        self.assertEqual(list(source.feed.apps()), ["b"])
        await self.assert_served(source, {"a.example": "", "b.example": "b"})

    async def test_update(self) -> None:
        """An app that differs is told, and only its new domains lead to it."""
        source = await self.source(an_app("a", "old.example", "kept.example"))
        told, new = _told_by(source), an_app("a", "kept.example", "new.example", port=3001)
        await self.change(source, new)
        self.assertEqual(told, [TopologyChange((new,))])
        await self.assert_served(source, {"old.example": "", "kept.example": "a", "new.example": "a"})

    async def test_only_what_differs(self) -> None:
        """Of a change that repeats what is known, only the rest is told; of no difference, nothing."""
        a, b = an_app("a", "a.example"), an_app("b", "b.example")
        source = await self.source(a)
        told = _told_by(source)
        await self.change(source, a, removed=("nobody",))
        self.assertEqual(told, [])
        await self.change(source, a, b, removed=("nobody",))
        self.assertEqual(told, [TopologyChange((b,))])

    async def test_one_change_at_once(self) -> None:
        """A change of many apps is told as one."""
        source = await self.source(an_app("a", "a.example"), an_app("b", "b.example"))
        told, updated = _told_by(source), (an_app("b", "b2.example"), an_app("c", "c.example"))
        await self.change(source, *updated, removed=("a",))
        self.assertEqual(told, [TopologyChange(updated, ("a",))])

    async def test_told_after_the_swap(self) -> None:
        """Whoever is told of a change finds it in force already."""
        source = await self.source(an_app("a", "a.example"))
        seen: list[tuple[list[str], Deferred[str] | None]] = []

        def watcher(change: TopologyChange) -> None:
            asked = None
            if IResolver.providedBy(source.feed):
                asked = Deferred.fromCoroutine(owner_of(source.feed, "b.example"))
            seen.append((list(source.feed.apps()), asked))

        source.feed.watch(watcher)
        await self.change(source, an_app("b", "b.example"), removed=("a",))
        ((names, asked),) = seen
        self.assertEqual(names, ["b"])
        if asked is not None:
            self.assertEqual(await asked, "b")

    async def test_unsubscribe(self) -> None:
        """A watcher that left is told nothing more; it may leave twice; others stay."""
        source = await self.source()
        gone: list[TopologyChange] = []
        leave, told = source.feed.watch(gone.append), _told_by(source)
        await self.change(source, an_app("a", "a.example"))
        leave()
        leave()
        await self.change(source, an_app("b", "b.example"))
        self.assertEqual((len(gone), len(told)), (1, 2))

    async def test_leaves_while_told(self) -> None:
        """A watcher may leave when it is told, and another may come."""
        source = await self.source()
        told: list[str] = []
        late: list[TopologyChange] = []

        def once(change: TopologyChange) -> None:
            told.append("once")
            leave()
            source.feed.watch(late.append)

        leave = source.feed.watch(once)
        source.feed.watch(lambda change: told.append("always"))
        await self.change(source, an_app("a", "a.example"))
        await self.change(source, an_app("b", "b.example"))
        self.assertEqual(told, ["once", "always", "always"])
        self.assertEqual(late[-1:], [TopologyChange((an_app("b", "b.example"),))])

    async def test_watcher_fails(self) -> None:
        """A watcher that raises is logged; the change holds and others are told."""
        source = await self.source()

        def broken(change: TopologyChange) -> None:
            raise ZeroDivisionError

        source.feed.watch(broken)
        told = _told_by(source)
        await self.change(source, an_app("a", "a.example"))
        self.assertEqual(len(told), 1)
        self.assertEqual(list(source.feed.apps()), ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_domain_taken(self) -> None:
        """A domain of another app is refused, naming that app; a wildcard is a domain like any."""
        source = await self.source(an_app("a", "a.example", "*.a.example"))
        for domain in ("a.example", "*.a.example"):
            error = await self.assert_refused(source, an_app("b", domain))
            self.assertEqual((error.domain, error.owner), (domain, "a"))
        await self.assert_served(source, {"a.example": "a", "x.a.example": "a"})

    async def test_refused_as_a_whole(self) -> None:
        """One app that cannot be taken refuses the others of its change."""
        source = await self.source(an_app("a", "a.example"))
        await self.assert_refused(source, an_app("good", "good.example"), an_app("bad", "a.example"))
        await self.assert_served(source, {"good.example": "", "a.example": "a"})

    async def test_domain_twice_in_one_change(self) -> None:
        """Two apps of one change cannot claim the same domain."""
        source = await self.source()
        error = await self.assert_refused(source, an_app("a", "x.example"), an_app("b", "x.example"))
        self.assertEqual(error.domain, "x.example")

    async def test_refused_then_fixed(self) -> None:
        """After a refusal the next good change is taken."""
        source = await self.source(an_app("a", "a.example"))
        await self.assert_refused(source, an_app("b", "a.example"))
        await self.change(source, an_app("b", "b.example"))
        await self.assert_served(source, {"a.example": "a", "b.example": "b"})

    async def test_domains_move(self) -> None:
        """Within one change apps may trade domains, and take over those of an app that goes."""
        source = await self.source(
            an_app("a", "1.example"), an_app("b", "2.example"), an_app("c", "3.example")
        )
        await self.change(
            source, an_app("a", "2.example"), an_app("b", "1.example", "3.example"), removed=("c",)
        )
        await self.assert_served(source, {"1.example": "b", "2.example": "a", "3.example": "b"})
        self.assertEqual(list(source.feed.apps()), ["a", "b"])

    async def test_route_in_hand(self) -> None:
        """A route that somebody holds keeps its app, whatever becomes of it."""
        old = an_app("a", "a.example")
        source = await self.source(old)
        if not IResolver.providedBy(source.feed):
            return
        route = await ask(source.feed, "a.example")
        await self.change(source, an_app("a", "a.example", port=3001))
        self.assertEqual(route.app, old)
        self.assertEqual((await ask(source.feed, "a.example")).app.backends[0].port, 3001)


def _told_by(source: Source) -> list[TopologyChange]:
    """What the feed tells from now on."""
    told: list[TopologyChange] = []
    source.feed.watch(told.append)
    return told
