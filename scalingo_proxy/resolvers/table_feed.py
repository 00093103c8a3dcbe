"""What every resolver with a route table of its own has in common.

The table is swapped by one assignment and whoever watches is told after it.
Where the apps come from, and how long that takes, is the resolver's matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.errors import UnknownHost
from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.subscriptions import Subscriptions
from scalingo_proxy.routing.table import RouteTable

__all__ = ["TableFeed"]

_log = Logger()


@implementer(IRouteFeed)
class TableFeed:
    """A route table, those who must agree to a change, and those who are told of it.

    :ivar name: stands in the routes as the resolver that answered.
    :ivar table: what is answered now; replaced as a whole, never changed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = RouteTable.empty(name)
        self._guards = Subscriptions[Callable[[TopologyChange], object]]()
        self._watchers = Subscriptions[Callable[[TopologyChange], object]]()
        self._untold: deque[TopologyChange] = deque()
        self._is_telling = False

    def apps(self) -> Mapping[str, App]:
        """The apps as they stand, by name; the mapping never changes."""
        return self.table.apps

    def watch(self, callback: Callable[[TopologyChange], object]) -> Callable[[], None]:
        """Call *callback* after each change, until the returned function is called.

        It is told only of what differs, in the order in which it happened.
        """
        return self._watchers.add(callback)

    def guard(self, check: Callable[[TopologyChange], object]) -> Callable[[], None]:
        """Call *check* before each change, until the returned function is called.

        What it raises refuses the change as a whole: nothing is changed and
        nobody told, and whoever asked for the change gets the error.
        """
        return self._guards.add(check)

    def _answer(self, query: RouteQuery) -> Route:
        route = self.table.lookup(query.host)
        if route is None:
            raise UnknownHost
        return route

    def _planned(self, change: TopologyChange) -> tuple[RouteTable, TopologyChange]:
        """The table after *change* and what differs in it, when nobody objects."""
        table = self.table.changed(change)
        difference = table.difference(self.table)
        if difference:
            for check in self._guards:
                check(difference)
        return table, difference

    def _swap(self, table: RouteTable, difference: TopologyChange) -> None:
        self.table = table
        self._tell(difference)

    def _tell(self, difference: TopologyChange) -> None:
        if difference:
            self._untold.append(difference)
        if self._is_telling:
            return  # a watcher made this change: the loop below gets to it, and all hear of both in order
        self._is_telling = True
        try:
            while self._untold:
                difference = self._untold.popleft()
                for callback in self._watchers:
                    try:
                        callback(difference)
                    except Exception:
                        # The table is swapped already: others must hear of it.
                        _log.failure("a watcher of {name} failed", name=self.name)
        finally:
            self._is_telling = False
