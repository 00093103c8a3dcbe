"""An edge proxy for platforms of many apps, and a library to embed it.

The whole of a program that embeds it::

    from twisted.internet import defer, endpoints, task

    from scalingo_proxy import App, HTTPProxyFactory, MemoryResolver


    async def main(reactor):
        resolver = MemoryResolver([App("hello", ["hello.localhost"], ["127.0.0.1:3000"])])
        door = endpoints.serverFromString(reactor, "tcp:8080")
        await door.listen(HTTPProxyFactory(resolver, reactor))
        await defer.Deferred()


    task.react(main)

The names below are imported when they are first asked for, so that importing
the package costs nothing and never touches a reactor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalingo_proxy.interfaces import IBalancer, IObserver, IProbe, IResolver, IRouteFeed
    from scalingo_proxy.model import (
        App,
        AppState,
        Backend,
        Limits,
        Route,
        RouteQuery,
        Timeouts,
        TopologyChange,
    )
    from scalingo_proxy.protocols.factories import HTTPProxyFactory, make_environment
    from scalingo_proxy.protocols.probes import BackendProbe
    from scalingo_proxy.protocols.tls_passthrough_factory import TLSPassthroughFactory
    from scalingo_proxy.resolvers.chain import ChainResolver
    from scalingo_proxy.resolvers.guarded import GuardedResolver
    from scalingo_proxy.resolvers.memory import MemoryResolver
    from scalingo_proxy.resolvers.saved_topology import SavedTopology
    from scalingo_proxy.services.deploys import Deploys
    from scalingo_proxy.services.health_checks import HealthChecksService
    from scalingo_proxy.services.paced_probes import PacedProbes
    from scalingo_proxy.version import VERSION

__all__ = [
    "VERSION",
    "App",
    "AppState",
    "Backend",
    "BackendProbe",
    "ChainResolver",
    "GuardedResolver",
    "Deploys",
    "HTTPProxyFactory",
    "HealthChecksService",
    "IBalancer",
    "IObserver",
    "IProbe",
    "IResolver",
    "IRouteFeed",
    "Limits",
    "MemoryResolver",
    "PacedProbes",
    "Route",
    "RouteQuery",
    "SavedTopology",
    "TLSPassthroughFactory",
    "Timeouts",
    "TopologyChange",
    "make_environment",
]

_HOMES = {
    "interfaces": "IBalancer IObserver IProbe IResolver IRouteFeed",
    "model": "App AppState Backend Limits Route RouteQuery Timeouts TopologyChange",
    "protocols.factories": "HTTPProxyFactory make_environment",
    "protocols.tls_passthrough_factory": "TLSPassthroughFactory",
    "protocols.probes": "BackendProbe",
    "resolvers.chain": "ChainResolver",
    "resolvers.guarded": "GuardedResolver",
    "resolvers.memory": "MemoryResolver",
    "resolvers.saved_topology": "SavedTopology",
    "services.deploys": "Deploys",
    "services.health_checks": "HealthChecksService",
    "services.paced_probes": "PacedProbes",
    "version": "VERSION",
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
