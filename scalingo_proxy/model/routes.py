"""Whom a request is for: what a resolver is asked and answers, and how that changes."""

from __future__ import annotations

import attrs

from scalingo_proxy.model.apps import App

__all__ = ["Route", "RouteQuery", "TopologyChange"]


@attrs.frozen
class RouteQuery:
    """What a resolver is asked.

    :ivar host: the name asked for, lower case, without port and trailing dot.
    :ivar protocol: ``"http"`` or ``"tls"``.
    :ivar client: the client's address as text.
    """

    host: str
    protocol: str = "http"
    client: str = ""


@attrs.frozen
class Route:
    """A resolver's answer: this app serves the query.

    :ivar app: the app as it stood when the route was resolved; an exchange
        under way keeps it whatever the topology becomes.
    :ivar domain: the domain of the app that matched.
    :ivar resolver: the name of the resolver that answered.
    """

    app: App
    domain: str
    resolver: str = ""


@attrs.frozen
class TopologyChange:
    """The difference between two topologies.

    :ivar updated: apps that are new or differ from before.
    :ivar removed: names of apps that are no longer there.
    """

    updated: tuple[App, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.updated or self.removed)
