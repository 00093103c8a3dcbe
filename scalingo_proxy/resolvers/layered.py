"""Several feeds seen as one: by app name, the first layer that has it wins.

So what the admin API was told stands over the configuration file, and the
file's app comes back when the API's is deleted.  Nothing here knows what the
layers are or how they learn of apps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.errors import DomainTaken, UnknownHost
from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.loading import Loads, answer_after
from scalingo_proxy.resolvers.table_feed import TableFeed
from scalingo_proxy.routing.table import normalised_app

__all__ = ["Conflict", "Layer", "LayeredResolver"]

_log = Logger()


class Layer(Protocol):
    """An IRouteFeed with a name, which its routes carry."""

    name: str

    def apps(self) -> Mapping[str, App]: ...
    def watch(self, callback: Callable[[TopologyChange], None], /) -> Callable[[], None]: ...


@runtime_checkable
class _Guarded(Protocol):
    def guard(self, check: Callable[[TopologyChange], object], /) -> Callable[[], None]: ...


@attrs.frozen
class Conflict:
    """An app that is left out, because a layer above has one of its domains.

    :ivar app: the name of the app that is left out.
    :ivar layer: the layer that has it.
    :ivar owner: the app that has *domain*.
    """

    app: str
    layer: str
    domain: str
    owner: str

    def __str__(self) -> str:
        return (
            f"app {self.app!r} of layer {self.layer!r} is left out: "
            f"domain {self.domain!r} belongs to app {self.owner!r}"
        )


@implementer(IResolver)
class LayeredResolver(TableFeed):
    """Answers from one table that merges *layers*, the first of them the strongest.

    Each layer that can be guarded asks here before it changes, and gets
    DomainTaken when the change would take a domain from an app of another
    layer, or uncover such an app.  A conflict that comes all the same (two
    sources that changed while the proxy was down) is settled in favour of the
    upper layer: the lower app is left out as a whole, until it fits again.

    Queries are answered once every layer that loads has loaded.

    :ivar layers: as they were given.
    :ivar conflicts: the apps that are left out now.
    """

    def __init__(self, layers: Sequence[Layer], name: str = "layered") -> None:
        super().__init__(name)
        self.layers = tuple(layers)
        self._unloaded = tuple(layer for layer in self.layers if isinstance(layer, Loads))
        self.conflicts: tuple[Conflict, ...] = ()
        for layer in self.layers:
            layer.watch(self._layer_changed)
            if isinstance(layer, _Guarded):
                layer.guard(partial(self.check, layer=layer))
        self._rebuild()

    def resolve(self, query: RouteQuery) -> Route | Deferred[Route]:
        """The route of the host that is asked for; it names the layer.

        :raises UnknownHost: when no app claims it.
        :raises ResolverUnavailable: (a Deferred fails with it) when a layer
            could not be loaded.
        """
        if self._unloaded:
            return self._resolve_later(query)
        route = self.table.lookup(query.host)
        if route is None:
            raise UnknownHost
        return route

    def route_at_once(self, host: str) -> Route | None:
        """What :meth:`resolve` answers for *host*, whoever asks; ``None``: it has to be asked."""
        return None if self._unloaded else self.table.lookup(host)

    def check(self, change: TopologyChange, layer: Layer) -> None:
        """See whether *change* may come to *layer*, without making it.

        :raises DomainTaken: an app of another layer has one of the domains.
        """
        self.table.changed(self._effect(change, layer)[0])

    # -- following the layers --------------------------------------------------

    def _layer_changed(self, change: TopologyChange) -> None:
        if self.conflicts:
            # Whatever changed may let an app fit again, or another one not.
            return self._rebuild()
        effect, labels = self._effect(change)
        try:
            table = self.table.changed(effect, labels)
        except DomainTaken:
            return self._rebuild()
        self._swap(table, table.difference(self.table))

    def _effect(
        self, change: TopologyChange, pending: Layer | None = None
    ) -> tuple[TopologyChange, dict[str, str]]:
        """What *change* means for the merged table, and the layers of the apps that come in.

        :param pending: the layer that *change* has not come to yet; without
            it, every layer stands as it will.
        """
        coming: dict[str, App | None] = {app.name: app for app in change.updated}
        for name in change.removed:
            coming.setdefault(name, None)
        updated: list[App] = []
        removed: list[str] = []
        labels: dict[str, str] = {}
        for name, its_app in coming.items():
            for layer in self.layers:
                app = its_app if layer is pending else layer.apps().get(name)
                if app is not None:
                    updated.append(app)
                    labels[name] = layer.name
                    break
            else:
                removed.append(name)
        return TopologyChange(tuple(updated), tuple(removed)), labels

    def _rebuild(self) -> None:
        """Merge all layers from the top, leaving out what conflicts with a layer above.

        It costs as much as there are apps: for the start, and for as long as
        there are conflicts.
        """
        labels: dict[str, str] = {}
        fitting: dict[str, App] = {}
        owners: dict[str, str] = {}
        conflicts: list[Conflict] = []
        for layer, app in self._strongest():
            taken = next((domain for domain in app.domains if domain in owners), None)
            if taken is not None:
                conflicts.append(Conflict(app.name, layer.name, taken, owners[taken]))
                continue
            fitting[app.name] = app
            labels[app.name] = layer.name
            owners.update(dict.fromkeys(app.domains, app.name))
        gone = tuple(name for name in self.table.apps if name not in fitting)
        table = self.table.changed(TopologyChange(tuple(fitting.values()), gone), labels)
        for conflict in conflicts:
            if conflict not in self.conflicts:
                _log.error("{conflict}", conflict=conflict)
        self.conflicts = tuple(conflicts)
        self._swap(table, table.difference(self.table))

    def _strongest(self) -> Iterator[tuple[Layer, App]]:
        seen: set[str] = set()
        for layer in self.layers:
            for name, app in layer.apps().items():
                if name not in seen:
                    seen.add(name)
                    yield layer, normalised_app(app)

    # -- before all have loaded ------------------------------------------------

    def _resolve_later(self, query: RouteQuery) -> Route | Deferred[Route]:
        self._unloaded = tuple(layer for layer in self._unloaded if not layer.is_loaded)
        if not self._unloaded:
            return self._answer(query)
        return answer_after(self._unloaded[0].when_loaded(), lambda: self.resolve(query))
