"""What an operator may do to the topology of a running proxy, as methods.

The admin API is a thin layer over this, and a program that embeds the proxy
can use it directly.  A change is reported done only after it is committed to
the store and in effect in the table.  Knows no HTTP, no file and no listener.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.model import App, AppState, TopologyChange
from scalingo_proxy.resolvers.app_record import app_from_record, merge_patch, record_from_app
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.resolvers.strict_tables import Finding
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services.app_index import AppIndex, AppPage
from scalingo_proxy.services.backend_status import BackendStatus, statuses_from_pool, statuses_from_record
from scalingo_proxy.services.control_results import (
    AppWritten,
    BackendsChange,
    DescribedByFile,
    NotReady,
    UnknownApp,
)
from scalingo_proxy.services.deploys import Deploys
from scalingo_proxy.services.pool_counts import count_pools
from scalingo_proxy.services.readiness import Tryout
from scalingo_proxy.services.ready_changes import ReadyChanges
from scalingo_proxy.services.reserved_settings import reserved_settings

__all__ = [
    "AppWritten",
    "BackendsChange",
    "Control",
    "DescribedByFile",
    "NotReady",
    "UnknownApp",
]


_T = TypeVar("_T")


class Control:
    """The operations on the topology.

    Changes are made one after another, whichever apps they concern: a domain
    may not be given to two apps at once, and the store commits one change at
    a time anyway.  Cancelling the Deferred of a change gives up the wait, not
    the change.

    :param resolver: all layers together, as requests are answered by them.
    :param store: the layer that is written to.
    :param pools: the live pools; somebody else tells them what changes.
    :param deploys: finds out whether backends are ready.
    :param reactor: for the deadline of a drain.
    :param reload: reads the configuration again; what it returns (or the
        Deferred fires with) is told as it is, and it raises
        ConfigurationError or DomainTaken after changing nothing.
    :param judge: what is wrong with an app beyond its record, in the light of
        what else there is.
    :param doubts: what does not work of an app that is in order, in sentences.
    :param clock: the monotonic clock that the pools are told the time by.
    :param wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        resolver: LayeredResolver,
        store: StoreResolver,
        pools: Pools,
        deploys: Deploys,
        reactor: IReactorTime,
        reload: Callable[[], Any],
        judge: Callable[[App], Iterable[Mistake]] = lambda app: (),
        doubts: Callable[[App], Iterable[str]] = lambda app: (),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._resolver = resolver
        self._store = store
        self._pools = pools
        self._reactor = reactor
        self._reload = reload
        self._judge = judge
        self.doubts = doubts
        self._clock = clock
        self._wall_clock = wall_clock
        self._index = AppIndex(resolver)
        self._writing = DeferredLock()
        self._deploys = deploys
        self._ready_changes = ReadyChanges(deploys, resolver)
        # When each app was last told, for those that have no pool yet.
        self._told_at: dict[str, float] = {}
        self._began_at = wall_clock()
        resolver.watch(self._note_change)

    def _note_change(self, change: TopologyChange) -> None:
        now = self._wall_clock()
        for name in change.removed:
            self._told_at.pop(name, None)
        self._told_at.update(dict.fromkeys((app.name for app in change.updated), now))

    # -- reading ---------------------------------------------------------------

    def apps(self, query: str = "", page: int = 1, per_page: int = 100) -> AppPage:
        """The apps with *query* in their name or in one of their domains.

        :raises NotReady: the store is not loaded yet; so do the others.
        """
        self._require_loaded()
        return self._index.page(query, page, per_page)

    def app_names(self, query: str = "") -> Sequence[str]:
        """The names of all apps that *query* finds, in order; not to be kept."""
        self._require_loaded()
        return self._index.names(query)

    def app(self, name: str) -> App:
        """The app as it is in effect.

        :raises UnknownApp:
        """
        self._require_loaded()
        app = self._resolver.apps().get(name)
        if app is None:
            raise UnknownApp(name)
        return app

    def source(self, name: str) -> str:
        """The name of the layer whose description of the app is in effect.

        :raises UnknownApp:
        """
        for layer in self._resolver.layers:
            if name in layer.apps():
                return str(layer.name)
        raise UnknownApp(name)

    def backends(self, name: str) -> list[BackendStatus]:
        """How each backend of the app is, those that still drain last.

        :raises UnknownApp:
        """
        return self.statuses(self.app(name), self._pools.get(name))

    def statuses(self, app: App, pool: Pool | None, most: int | None = None) -> list[BackendStatus]:
        """How the backends of *app* are, by its pool if it has one; *most* of them at most."""
        if pool is None:
            return statuses_from_record(app, self._told_at.get(app.name, self._began_at), most)
        offset = self._wall_clock() - self._clock()
        return statuses_from_pool(pool, lambda moment: moment + offset, most)

    def status(self) -> dict[str, Any]:
        """Counts over everything, and each layer with what it describes."""
        table = self._resolver.table
        return {
            "apps": len(table.apps),
            "domains": table.domain_count,
            "layers": [{"name": layer.name, "apps": len(layer.apps())} for layer in self._resolver.layers],
            **attrs.asdict(count_pools(self._pools)),
        }

    # -- changing --------------------------------------------------------------

    def put_app(self, name: str, record: Mapping[str, Any], *, ready: bool = False) -> Deferred[AppWritten]:
        """Make the app what *record* says, whatever it was.

        Fails with ConfigurationError (every mistake), DomainTaken or NotReady;
        then nothing has changed.  So do the other changes.

        :param ready: only once its backends are ready, or never: then it fails
            with BackendsNotReady or Superseded.  Cancelled before, the change
            is not made.
        """
        is_new = False

        def plan() -> App:
            nonlocal is_new
            is_new = name not in self._resolver.apps()
            return self._judged(_parsed(record, name))

        return self._deploy(plan, ready).addCallback(lambda done: AppWritten(done[0], is_new, done[1]))

    def patch_app(self, name: str, patch: Mapping[str, Any], *, ready: bool = False) -> Deferred[AppWritten]:
        """Change the app by a JSON merge patch (RFC 7396) of its record.

        Fails with UnknownApp too.  What the file described is told by the
        operator from now on.
        """

        def plan() -> App:
            record = merge_patch(record_from_app(self.app(name)), patch)
            return self._judged(_parsed(record, name))

        is_deploy = "backends" in patch
        deploying = self._deploy(plan, ready, is_deploy)
        return deploying.addCallback(lambda done: AppWritten(done[0], False, done[1]))

    def delete_app(self, name: str) -> Deferred[App | None]:
        """Take back what was told of the app here.

        Fires with the app that a lower layer describes under that name and
        that is in effect again, or ``None``.  Fails with UnknownApp, or with
        DescribedByFile when there is nothing to take back.
        """

        async def delete() -> App | None:
            self.app(name)
            if name not in self._store.apps():
                raise DescribedByFile(name, self.source(name))
            self._resolver.check(TopologyChange(removed=(name,)), self._store)
            await self._store.remove_app(name)
            return self._resolver.apps().get(name)

        return self._exclusively(delete)

    def set_backends(self, name: str, backends: Any, *, ready: bool = False) -> Deferred[BackendsChange]:
        """Replace the app's backends as one change.

        :param backends: the list as an app record has it, or a function that
            makes it of the list before.
        :param ready: as for :meth:`put_app`.
        """

        def plan() -> App:
            record = record_from_app(self.app(name))
            wanted = backends(record["backends"]) if callable(backends) else backends
            return _parsed({**record, "backends": wanted}, name)

        def done(written: tuple[App, tuple[Tryout, ...]]) -> BackendsChange:
            app, tryouts = written
            return BackendsChange(app, self._pools.get(name), self.statuses, self._reactor, tryouts)

        # Whoever takes one out deploys nothing at the addresses of the others.
        return self._deploy(plan, ready, is_deploy=not callable(backends)).addCallback(done)

    def set_state(self, name: str, state: AppState) -> Deferred[App]:
        """Run, stop or pause the app, and keep it so."""

        async def change() -> App:
            return await self._write(attrs.evolve(self.app(name), state=state))

        return self._exclusively(change)

    def reload(self) -> Deferred[Any]:
        """Read the configuration again; no change is made meanwhile."""

        async def reload() -> Any:
            return await maybeDeferred(self._reload)

        return self._exclusively(reload)

    def exclusively(self, change: Callable[[], Coroutine[Deferred[Any], Any, _T]]) -> Deferred[_T]:
        """Run *change* while no other change is made; giving up the wait does not end it."""
        return self._exclusively(change)

    # -- how -------------------------------------------------------------------

    def _deploy(
        self, plan: Callable[[], App], ready: bool, is_deploy: bool = True
    ) -> Deferred[tuple[App, tuple[Tryout, ...]]]:
        """Make the change that *plan* works out of how things stand; twice if it has to wait."""

        async def write(check: Callable[[], None], tryouts: tuple[Tryout, ...]) -> App:
            self._require_loaded()
            check()
            app = await self._write(plan())
            if is_deploy:
                self._deploys.settle(app, tryouts)
            return app

        async def at_once() -> tuple[App, tuple[Tryout, ...]]:
            return await self._exclusively(lambda: write(_nothing, ())), ()

        async def when_ready() -> tuple[App, tuple[Tryout, ...]]:
            self._require_loaded()
            planned = plan()
            self._resolver.check(TopologyChange(updated=(planned,)), self._store)
            return await self._ready_changes.make(
                planned, lambda check, tryouts: self._exclusively(lambda: write(check, tryouts))
            )

        return Deferred.fromCoroutine(when_ready() if ready else at_once())

    def _exclusively(self, change: Callable[[], Coroutine[Deferred[Any], Any, _T]]) -> Deferred[_T]:
        return _shielded(self._writing.run(change))

    def _require_loaded(self) -> None:
        if not self._store.is_loaded:
            raise NotReady("the store is still being loaded")

    def _judged(self, app: App) -> App:
        mistakes = tuple(self._judge(app))
        if mistakes:
            raise ConfigurationError(mistakes)
        return app

    async def _write(self, app: App) -> App:
        self._resolver.check(TopologyChange(updated=(app,)), self._store)
        await self._store.set_app(app)
        return self.app(app.name)


def _nothing() -> None:
    """Nothing can have come between."""


def _parsed(record: Mapping[str, Any], name: str) -> App:
    """The app that *record* describes, refused with all its mistakes at once."""
    refused, _warned = reserved_settings({"app": record})
    mistakes = [Finding(finding.path[1:], finding.message).as_mistake() for finding in refused]
    try:
        app = app_from_record(record, name=name)
    except ConfigurationError as error:
        mistakes = [*error.mistakes, *mistakes]
    if mistakes:
        raise ConfigurationError(mistakes)
    return app


def _shielded(change: Deferred[_T]) -> Deferred[_T]:
    """The end of *change*, which goes on when nobody waits for it any more."""
    end: Deferred[_T] = Deferred()
    change.addCallbacks(end.callback, end.errback)
    return end
