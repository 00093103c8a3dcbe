"""Which app serves a host: a frozen table, and the difference of two.

A domain belongs to one app.  An exact name beats a wildcard, a wildcard
stands for exactly one label.  The table knows nothing about where apps come
from, who watches it, or whether an app can serve at the moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

import attrs

from scalingo_proxy.errors import ConfigurationError, DomainTaken, Mistake
from scalingo_proxy.model import App, Route, TopologyChange
from scalingo_proxy.routing.domains import normalise_domain
from scalingo_proxy.routing.sharded import SHARD_MASK, ShardedMap, differing_parts

__all__ = ["RouteTable", "difference", "normalise_domain", "normalised_app"]

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(eq=False)
class RouteTable:
    """All apps and their domains at one moment.

    A change makes a new table that shares what did not change, so that the
    cost of neither a lookup nor a change grows with the number of apps.

    :ivar resolver_name: stands in the routes as the resolver that answered.
    """

    resolver_name: str
    _apps: ShardedMap[App] = attrs.field(factory=ShardedMap)
    _exact: ShardedMap[Route] = attrs.field(factory=ShardedMap)
    # By what follows the ``*``: ``.example.com`` for ``*.example.com``.
    _wildcards: ShardedMap[Route] = attrs.field(factory=ShardedMap)

    @classmethod
    def empty(cls, resolver_name: str) -> RouteTable:
        """A table without any app."""
        return cls(resolver_name)

    @property
    def apps(self) -> Mapping[str, App]:
        """The apps by name; the mapping never changes, and iterates in order of name."""
        return self._apps

    @property
    def domain_count(self) -> int:
        """How many domains are claimed, wildcards among them."""
        return len(self._exact) + len(self._wildcards)

    def lookup(self, host: str) -> Route | None:
        """The route for *host* (lower case, no port, no trailing dot), or ``None``.

        The same Route object each time, until its app changes.
        """
        route = self._exact.shards[hash(host) & SHARD_MASK].get(host)
        if route is not None:
            return route
        dot = host.find(".")
        if dot < 1:
            return None
        parent = host[dot:]
        route = self._wildcards.shards[hash(parent) & SHARD_MASK].get(parent)
        if route is not None and "*" in host:
            return None  # a wildcard is how an app asks, never how a client does
        return route

    def owner(self, domain: str) -> str | None:
        """The name of the app that claims this very *domain*, wildcards taken literally."""
        route = self._claimed(domain)
        return None if route is None else route.app.name

    def changed(self, change: TopologyChange, labels: Mapping[str, str] = _NO_LABELS) -> RouteTable:
        """The table after *change*, which is taken as a whole or not at all.

        First *removed* goes (names that are not there are no mistake), then
        *updated* comes in, in one step: a domain may move from one app to another
        within one change.  Where nothing differs, the result is this very table.

        :param labels: by app name, the resolver named in its routes instead
            of *resolver_name*.
        :raises DomainTaken: two apps would claim one domain.
        :raises ConfigurationError: a domain is not one, or *change* describes
            one app twice; with every such mistake.
        """
        updated = self._taken_over(change, labels)
        removed = set(change.removed).difference(app.name for app in change.updated) & self._apps.keys()
        touched = updated.keys() | removed
        if not touched:
            return self
        claims = self._claims(updated, touched, labels)
        gone = [
            domain
            for name in touched
            if (app := self._apps.get(name)) is not None
            for domain in app.domains
            if domain not in claims
        ]
        return RouteTable(
            self.resolver_name,
            self._apps.changed(updated, removed),
            self._exact.changed(
                {domain: route for domain, route in claims.items() if domain[0] != "*"},
                [domain for domain in gone if domain[0] != "*"],
            ),
            self._wildcards.changed(
                {domain[1:]: route for domain, route in claims.items() if domain[0] == "*"},
                [domain[1:] for domain in gone if domain[0] == "*"],
            ),
        )

    def difference(self, old: RouteTable) -> TopologyChange:
        """What turns the apps of *old* into those of this table."""
        return difference(old._apps, self._apps)

    # -- how a change is taken over ------------------------------------------

    def _claimed(self, domain: str) -> Route | None:
        if domain.startswith("*."):
            return self._wildcards.get(domain[1:])
        return self._exact.get(domain)

    def _taken_over(self, change: TopologyChange, labels: Mapping[str, str]) -> dict[str, App]:
        """The apps of *change* that are not in the table as they are, normalised."""
        updated: dict[str, App] = {}
        seen: set[str] = set()
        mistakes: list[Mistake] = []
        for app in change.updated:
            if app.name in seen:
                mistakes.append(Mistake(app.name, "this app is described twice; give each a name of its own"))
            seen.add(app.name)
            try:
                app = normalised_app(app)
            except ConfigurationError as error:
                mistakes.extend(error.mistakes)
                continue
            if not self._holds(app, labels.get(app.name, self.resolver_name)):
                updated[app.name] = app
        if mistakes:
            raise ConfigurationError(mistakes)
        return updated

    def _holds(self, app: App, label: str) -> bool:
        held = self._apps.get(app.name)
        if held is None or held != app:
            return False
        route = self._claimed(app.domains[0]) if app.domains else None
        return route is None or route.resolver == label

    def _claims(
        self, updated: Mapping[str, App], touched: Iterable[str], labels: Mapping[str, str]
    ) -> dict[str, Route]:
        """The routes of *updated* by domain, once it is sure that nobody else has any."""
        claims: dict[str, Route] = {}
        for name, app in updated.items():
            label = labels.get(name, self.resolver_name)
            for domain in app.domains:
                rival = claims.get(domain)
                if rival is None:
                    present = self._claimed(domain)
                    if present is not None and present.app.name not in touched:
                        rival = present
                if rival is not None:
                    raise DomainTaken(domain, rival.app.name)
                claims[domain] = Route(app, domain, label)
        return claims


def normalised_app(app: App) -> App:
    """*app* with its domains normalised and each of them once; itself when they are.

    :raises ConfigurationError: with every domain that is not one.
    """
    domains: dict[str, None] = {}
    mistakes: list[Mistake] = []
    for index, text in enumerate(app.domains):
        try:
            domains[normalise_domain(text)] = None
        except ValueError as error:
            mistakes.append(Mistake(f"{app.name}.domains[{index}]", str(error)))
    if mistakes:
        raise ConfigurationError(mistakes)
    normal = tuple(domains)
    if normal == app.domains:
        return app
    # The cast: mypy cannot see through the generic ``converter=tuple`` of the field.
    return attrs.evolve(app, domains=cast(Any, normal))


def difference(old: Mapping[str, App], new: Mapping[str, App]) -> TopologyChange:
    """What turns the apps *old* into the apps *new*, in the order of names.

    Between two tables that come from each other by few changes this costs as
    little as those changes did.
    """
    updated: list[App] = []
    removed: list[str] = []
    for before, after in differing_parts(old, new):
        updated += [app for name, app in after.items() if before.get(name) != app]
        removed += [name for name in before if name not in after]
    updated.sort(key=lambda app: app.name)
    removed.sort()
    return TopologyChange(tuple(updated), tuple(removed))
