"""The apps of the configuration file, replaced as a whole at each reload.

Reading and checking the file is not done here: apps come in ready made.
"""

from __future__ import annotations

from collections.abc import Iterable

from zope.interface import implementer

from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.table_feed import TableFeed

__all__ = ["ConfigFileResolver"]


@implementer(IResolver)
class ConfigFileResolver(TableFeed):
    """Answers at once from the apps that the file describes."""

    def __init__(self, name: str = "file") -> None:
        super().__init__(name)

    def resolve(self, query: RouteQuery) -> Route:
        """The route of the host that is asked for.

        :raises UnknownHost: when no app claims it.
        """
        return self._answer(query)

    def replace(self, apps: Iterable[App]) -> TopologyChange:
        """Make *apps* all there is, in one step, and tell what differs from before.

        :raises DomainTaken: two of *apps* claim one domain, or (asked through
            :meth:`guard`) another source has it; nothing is changed.
        :raises ConfigurationError: a domain is not one, or an app is described
            twice; nothing is changed.
        """
        described = tuple(apps)
        kept = {app.name for app in described}
        removed = tuple(name for name in self.table.apps if name not in kept)
        table, difference = self._planned(TopologyChange(described, removed))
        self._swap(table, difference)
        return difference
