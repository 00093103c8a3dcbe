"""Routes set from code: for embedding, for tests, and for the demo."""

from __future__ import annotations

from collections.abc import Iterable

from zope.interface import implementer

from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.table_feed import TableFeed

__all__ = ["MemoryResolver"]


@implementer(IResolver)
class MemoryResolver(TableFeed):
    """Answers at once from apps that a program hands in.

    :raises DomainTaken: when two of *apps* claim one domain.
    :raises ConfigurationError: when a domain is not one, or two of *apps*
        have the same name.
    """

    def __init__(self, apps: Iterable[App] = (), name: str = "memory") -> None:
        super().__init__(name)
        self.apply(TopologyChange(tuple(apps)))

    def resolve(self, query: RouteQuery) -> Route:
        """The route of the host that is asked for.

        :raises UnknownHost: when no app claims it.
        """
        return self._answer(query)

    def apply(self, change: TopologyChange) -> None:
        """Take over *change* as a whole; it holds from the next query on.

        :raises DomainTaken: two apps would claim one domain; nothing is changed.
        :raises ConfigurationError: a domain is not one, or an app is described
            twice; nothing is changed.
        """
        self._swap(*self._planned(change))

    def set_app(self, app: App) -> None:
        """Add *app*, or replace the one of that name.

        :raises DomainTaken: another app has one of its domains.
        :raises ConfigurationError: one of its domains is not one.
        """
        self.apply(TopologyChange((app,)))

    def remove_app(self, name: str) -> None:
        """Forget the app called *name*.

        :raises KeyError: when there is none.
        """
        if name not in self.table.apps:
            raise KeyError(name)
        self.apply(TopologyChange((), (name,)))
