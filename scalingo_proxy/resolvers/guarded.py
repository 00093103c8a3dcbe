"""A feed that cannot talk the proxy into an outage.

Wraps any resolver or feed.  What the feed says is served while it is credible;
when it fails, talks nonsense, or would take most of the platform away at once,
the last good topology is served on until it speaks sense again, or until
somebody confirms that it was meant.  What is too much is decided in
:mod:`scalingo_proxy.routing.topology_guard`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import ConfigurationError, DomainTaken, ResolverUnavailable, UnknownHost
from scalingo_proxy.interfaces import IResolver, IRouteFeed
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.held_back import Held, HeldBack
from scalingo_proxy.resolvers.last_answers import LastAnswers
from scalingo_proxy.resolvers.loading import Loading, Loads, answer_after
from scalingo_proxy.resolvers.saved_topology import Saved, SavedTopology
from scalingo_proxy.resolvers.table_feed import TableFeed
from scalingo_proxy.routing.table import RouteTable
from scalingo_proxy.routing.topology_guard import Census, GuardRule, Loss, TopologyGuard

__all__ = ["GuardedResolver"]

_log = Logger()


@implementer(IResolver)
class GuardedResolver(TableFeed):
    """Serves the last good topology of *inner*, and asks *inner* about all other hosts.

    Without *saved* it serves at once what *inner* has; with it, call
    :meth:`start`.  A feed that loads should have ``is_loaded`` and
    ``when_loaded()``, so that its beginning is not taken for an answer.

    :param inner: provides IResolver, IRouteFeed, or both.
    :param reactor: for waits; its clock counts the guard's window.
    :param rule: what is too much.
    :param confirm_after: seconds for which an update that is held back must
        stand to be taken as meant; 0 waits for :meth:`confirm`.
    :param holds_empty: hold back an update that leaves no backend at all where
        several apps had some, however few they were.
    :param beside: what the platform has from other sources.
    :param saved: where the topology survives a restart.
    :param patience: seconds after which a resolver that does not answer is
        answered for, if it has answered that question before.

    :ivar synced_at: when the topology was last known to be true, seconds since
        the epoch; 0 before that.
    :ivar results: how many updates came to which end: ``applied``, ``held``,
        ``garbage`` (no update at all) or ``refused`` (domains of others).
    """

    def __init__(
        self,
        inner: Any,
        reactor: Any,
        *,
        name: str = "",
        rule: GuardRule = GuardRule(),  # noqa: B008 - frozen
        confirm_after: float = 0.0,
        holds_empty: bool = True,
        beside: Callable[[], Census] = Census,
        saved: SavedTopology | None = None,
        patience: float = 1.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name or str(getattr(inner, "name", "guarded")))
        self._inner = inner
        self._reactor = reactor
        self._holds_empty = holds_empty
        self._beside = beside
        self._saved = saved
        self._wall_clock = wall_clock
        self._wanted: RouteTable | None = self.table
        self._guard = TopologyGuard(rule, self.table.apps, reactor.seconds())
        self._answers = LastAnswers(inner, reactor, patience) if IResolver.providedBy(inner) else None
        self._loading = Loading()
        self._holding = HeldBack(self.name, reactor, wall_clock, self.confirm, confirm_after)
        self._has_complained = False
        self._is_started = False
        self._leave: Callable[[], None] = lambda: None
        self._held_table: RouteTable | None = None
        self.synced_at = 0.0
        self.results = {"applied": 0, "held": 0, "garbage": 0, "refused": 0}
        if saved is None:
            self._follow()

    @property
    def held(self) -> Held | None:
        """What is held back now."""
        return self._holding.held

    # -- beginning and end -----------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether there is a topology to serve."""
        return self._loading.is_done

    def when_loaded(self) -> Deferred[None]:
        """Fires once there is a topology to serve."""
        return self._loading.wait()

    def start(self) -> Deferred[None]:
        """Serve what was saved, then follow the feed."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        if self._saved is not None and not self._is_started:
            self._serve_saved(await self._saved.load())
        self._follow()

    def stop(self) -> Deferred[Any]:
        """Follow the feed no more; fires when the topology is saved."""
        self._leave()
        self._is_started = False
        self._forget_held()
        saved = self._saved
        return Deferred.fromCoroutine(_nothing()) if saved is None else saved.flush()

    def _serve_saved(self, saved: Saved | None) -> None:
        if saved is None or not saved.apps:
            return
        try:
            table = RouteTable.empty(self.name).changed(TopologyChange(saved.apps))
        except (ConfigurationError, DomainTaken) as error:
            _log.error("the saved topology of {name} cannot be used: {error}", name=self.name, error=error)
            return
        self.synced_at = saved.synced_at
        self._guard.accept(table.apps, self._reactor.seconds())
        self._swap(table, table.difference(self.table))
        self._loading.finish()
        _log.info("{name}: {count} apps as they were saved", name=self.name, count=len(saved.apps))

    def _follow(self) -> None:
        if self._is_started:
            return
        self._is_started = True
        inner = self._inner
        if not IRouteFeed.providedBy(inner):
            self._loading.finish()
            return
        self._leave = inner.watch(self._told)
        if isinstance(inner, Loads) and not inner.is_loaded:
            self._wanted = None
            inner.when_loaded().addCallbacks(lambda _: self._resync(), self._not_loaded)
        else:
            self._resync(is_first=True)
            if not self.is_loaded:
                self._loading.abandon(ResolverUnavailable("the routes are not known yet"))

    def _not_loaded(self, failure: Failure) -> None:
        self._complain(f"it could not be loaded: {failure.value}")
        if not self.is_loaded and isinstance(failure.value, Exception):
            self._loading.abandon(failure.value)

    # -- what the feed says -----------------------------------------------------

    def _told(self, change: Any) -> None:
        """The feed tells of *change*, whatever that is."""
        if self._wanted is None:
            return self._resync()
        if not _is_change(change):
            return self._garbage(f"it told {type(change).__name__} where a change was due")
        try:
            wanted = self._wanted.changed(change)
        except Exception as error:
            return self._garbage(f"its change cannot be made: {error}")
        self._want(wanted)

    def _resync(self, is_first: bool = False) -> None:
        """Take the whole topology of the feed, because the way to it is not known."""
        try:
            apps = tuple(self._inner.apps().values())
            wanted = RouteTable.empty(self.name).changed(TopologyChange(apps)) if _are_apps(apps) else None
        except Exception as error:
            return self._garbage(f"its apps cannot be told: {error}")
        if wanted is None:
            return self._garbage("its apps are no apps")
        if is_first and not wanted.apps and self.table.apps:
            self._wanted = wanted  # it has not begun to answer
            return
        self._want(wanted)

    def _garbage(self, why: str) -> None:
        self.results["garbage"] += 1
        self._wanted = None  # whatever it says next, what it means as a whole has to be asked
        self._complain(why)

    def _want(self, wanted: RouteTable) -> None:
        self._wanted = wanted
        loss = self._too_much(wanted)
        if loss is None:
            self._serve(wanted)
        else:
            self._hold(wanted, loss)

    def _too_much(self, wanted: RouteTable) -> Loss | None:
        beside = self._beside()
        loss = self._guard.judge(wanted.apps, self._reactor.seconds(), beside)
        if loss is None and self._holds_empty:
            loss = self._guard.emptied(wanted.apps, beside)
        return loss

    def _serve(self, table: RouteTable) -> None:
        difference = table.difference(self.table)
        try:
            self._ask_guards(difference)
        except Exception as error:
            self.results["refused"] += 1
            self._complain(f"its change is refused: {error}")
            return
        if self.held is not None:
            _log.info("{name} says what can be served again", name=self.name)
            self._forget_held()
        self.results["applied"] += 1
        self._has_complained = False
        self.synced_at = self._wall_clock()
        self._guard.applied(table.apps, self._reactor.seconds())
        self._swap(table, difference)
        self._loading.finish()
        if self._saved is not None:
            self._saved.save(table.apps, self.synced_at)

    def _ask_guards(self, difference: TopologyChange) -> None:
        if difference:
            for check in self._guards:
                check(difference)

    # -- what is held back ------------------------------------------------------

    def confirm(self) -> Held | None:
        """Serve what is held back: it was meant.

        :return: what was held back, or ``None`` when nothing was.
        :raises DomainTaken: another source has one of its domains by now; it
            is held back further.
        """
        held, table = self.held, self._held_table
        if held is None or table is None:
            return None
        self._ask_guards(table.difference(self.table))
        self._serve(table)
        self._guard.accept(self.table.apps, self._reactor.seconds())
        return held

    def discard(self) -> Held | None:
        """Forget what is held back: it was not meant.

        Later changes of the feed count from what is served.
        """
        held = self.held
        self._forget_held()
        if held is not None:
            self._wanted = self.table
        return held

    def _hold(self, table: RouteTable, loss: Loss) -> None:
        self.results["held"] += 1
        self._held_table = table
        self._holding.hold(loss)

    def _forget_held(self) -> None:
        self._holding.release()
        self._held_table = None

    def _complain(self, why: str) -> None:
        """Tell the log, once until the feed is well again."""
        if not self._has_complained:
            self._has_complained = True
            _log.warn("{name}: {why}; what was served before is served on", name=self.name, why=why)

    # -- answering --------------------------------------------------------------

    def resolve(self, query: RouteQuery) -> Route | Deferred[Route]:
        """The route of the host that is asked for.

        :raises UnknownHost: when nobody claims it.
        :raises ResolverUnavailable: (or the Deferred fails with it) when
            *inner* cannot tell, and has not told before.
        """
        route = self.table.lookup(query.host)
        if route is not None:
            return route
        if not self._loading.is_done:
            return answer_after(self._loading.wait(), lambda: self.resolve(query))
        if self._answers is None:
            raise UnknownHost
        return self._answers.resolve(query, self._is_held_back)

    def _is_held_back(self, app: App) -> bool:
        """Whether the feed speaks of *app* only in what is held back, or speaks of it otherwise."""
        wanted = self._wanted
        return app.name in self.table.apps or (wanted is not None and app.name in wanted.apps)


async def _nothing() -> None:
    """There is nothing to wait for."""


def _is_change(change: Any) -> bool:
    return (
        isinstance(change, TopologyChange)
        and _are_apps(change.updated)
        and all(isinstance(name, str) for name in change.removed)
    )


def _are_apps(apps: Any) -> bool:
    return all(isinstance(app, App) for app in apps)
