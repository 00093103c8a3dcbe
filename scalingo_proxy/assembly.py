"""The one module that names every concrete class: settings in, one service out.

Read from top to bottom it is the whole proxy.  Nothing listens or connects
before the service is started, and stopping it is a drain.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

import twisted
from scalingo_proxy.model import TopologyChange, join_host_port
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.factories import HTTPProxyFactory, make_environment
from scalingo_proxy.protocols.proxy_header import ProxyHeaderFactory
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_factory import TLSProxyFactory
from scalingo_proxy.resolvers.config_file import ConfigFileResolver
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services import gauges
from scalingo_proxy.services.access_log import AccessLog
from scalingo_proxy.services.admin import AdminService
from scalingo_proxy.services.banner import BannerDoor, banner
from scalingo_proxy.services.broadcast import Broadcast
from scalingo_proxy.services.control import Control
from scalingo_proxy.services.demo import DEMO_DOMAIN, DemoBackends
from scalingo_proxy.services.listeners import Listener, ListenersService
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.store_service import StoreService
from scalingo_proxy.settings import ListenSettings, Settings
from scalingo_proxy.version import VERSION

__all__ = ["Proxy", "assemble"]

_log = Logger()


def assemble(
    reactor: Any,
    settings: Settings,
    read_again: Callable[[], Settings] | None = None,
    seed: int | None = None,
) -> Proxy:
    """Build the whole proxy as one service.

    :param reactor: the reactor that everything runs on.
    :param read_again: reads the configuration for a reload; without it a
        reload changes nothing.
    :param seed: makes every random choice repeatable.
    """
    randomness = random.Random(seed)
    access_log = AccessLog(reactor, settings.log.requests, settings.log.destination, settings.log.query)
    metrics = Metrics(settings.metrics.max_apps)

    store = StoreResolver(settings.proxy.state, reactor)
    file = ConfigFileResolver()
    demo = MemoryResolver(name="demo")
    resolver = LayeredResolver([store, file, demo] if settings.demo else [store, file])
    file.replace(settings.apps)

    pools = Pools(settings.timeouts, settings.limits, randomness, clock=reactor.seconds)
    env = make_environment(
        resolver,
        reactor,
        pools=pools,
        observer=Broadcast(metrics, access_log),
        timeouts=settings.timeouts,
        limits=settings.limits,
    )
    certificates = CertificateIndex(time.time)
    proxy = Proxy(
        reactor, settings, read_again, env, file, resolver, store, Contexts(certificates), access_log, metrics
    )
    control = Control(
        resolver=resolver,
        store=store,
        pools=pools,
        reactor=reactor,
        reload=proxy.reload,
        clock=reactor.seconds,
    )
    admin = AdminService(
        reactor,
        settings.admin.endpoint,
        control=control,
        metrics_text=metrics.exposition,
        unready=proxy.unready,
        facts=proxy.facts,
        token_file=settings.admin.token_file,
    )
    proxy.control, proxy.admin = control, admin
    gauges.add_pools(metrics, pools)
    gauges.add_routes(metrics, lambda: resolver.table.domain_count)
    gauges.add_resolvers(metrics, proxy.resolver_states)
    gauges.add_log_lines_dropped(metrics, lambda: access_log.dropped)
    gauges.add_process_start_time(metrics, time.time())
    gauges.add_build_info(metrics, _build(settings))

    proxy.store_service = StoreService(store)
    # Stopped in the reverse order, one after the other: the doors close and
    # drain first, and the log hears of the last request before it ends.
    services: Sequence[IService] = [
        access_log,
        proxy.store_service,
        *([DemoBackends(reactor, demo)] if settings.demo else []),
        admin,
        proxy.listeners,
    ]
    for service in services:
        service.setServiceParent(proxy)  # type: ignore[no-untyped-call]
    return proxy


def _build(settings: Settings) -> Mapping[str, str]:
    return {
        "name": settings.proxy.name,
        "region": settings.proxy.region,
        "version": VERSION,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
    }


def _url(address: Any, name: str = "", protocol: str = "http") -> str:
    """What to type to reach *address*; *name* instead of an address that means this machine."""
    host = getattr(address, "host", None)
    if host is None:
        return f"unix:{os.fsdecode(getattr(address, 'name', None) or b'')}"
    is_local = host in ("", "::", "0.0.0.0", "127.0.0.1", "::1")
    scheme = "https" if protocol == "tls" else "http"
    return f"{scheme}://{join_host_port((name if is_local else '') or _reachable(host), address.port)}/"


def _reachable(host: str) -> str:
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, host)


class Proxy(MultiService):
    """The proxy as one service, and what can be asked of it as a whole.

    :ivar settings: as they are in effect.
    :ivar control: the operations on the topology.
    :ivar admin: the admin API's service.
    :ivar listeners: the doors.
    """

    control: Control
    admin: AdminService
    store_service: StoreService

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        read_again: Callable[[], Settings] | None,
        env: Environment,
        file: ConfigFileResolver,
        resolver: LayeredResolver,
        store: StoreResolver,
        contexts: Contexts,
        access_log: AccessLog,
        metrics: Metrics,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.settings = settings
        self._reactor = reactor
        self._read_again = read_again
        self._env = env
        self._file = file
        self._resolver = resolver
        self._store = store
        self._contexts = contexts
        self._access_log = access_log
        self._metrics = metrics
        self._is_stopping = False
        self.listeners = ListenersService(
            reactor, self._doors(settings), drain_seconds=settings.timeouts.drain
        )

    def startService(self) -> None:
        self._is_stopping = False
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Stop each child when the one started after it has stopped."""
        self._is_stopping = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.running = 0
        for service in reversed(list(self)):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                _log.failure("{service!r} did not stop cleanly", service=service)
        self._env.connections.close_all_idle()

    def when_loaded(self) -> Deferred[None]:
        """Fire once every source of routes has answered, or fail with why one cannot."""
        return self.store_service.when_loaded()

    def banner(self) -> str:
        """What a person who starts the proxy sees first; to be asked for when it runs."""
        reactor = type(self._reactor).__name__.removesuffix("Reactor").lower()
        mode = ", demo" if self.settings.demo else ""
        title = f"scalingo-proxy {VERSION}  Twisted {twisted.__version__}, {reactor}, 1 worker{mode}"
        remark = "2 demo backends, round robin" if self.settings.demo else ""
        name = DEMO_DOMAIN if self.settings.demo else ""
        doors = [
            BannerDoor(port.name, _url(port.address, name, port.name), remark)
            for port in self.listeners.ports
        ]
        tries = [f"curl {doors[0].address}"] if self.settings.demo and doors else []
        doors.append(BannerDoor("admin", _url(self.admin.address), "API under /api/v1, /metrics"))
        return banner(title, doors, tries)

    # -- what the admin API asks ---------------------------------------------

    def unready(self) -> Sequence[str]:
        """Why the proxy should get no traffic now."""
        reasons = []
        if self._is_stopping:
            reasons.append("the proxy is stopping")
        if not self._store.is_loaded:
            reasons.append("the store is not loaded")
        if not self.listeners.ports:
            reasons.append("the listeners are not open")
        return reasons

    def facts(self) -> Mapping[str, Any]:
        """What the status tells beside the counts."""
        return {
            **_build(self.settings),
            "reactor": type(self._reactor).__name__,
            "listeners": [{"protocol": port.name, "address": port.text} for port in self.listeners.ports],
            "client_connections": self._env.client_connections,
            "backend_connections": self._env.connections.open_count,
            "warnings": list(self.settings.warnings),
            "conflicts": [str(conflict) for conflict in self._resolver.conflicts],
        }

    def resolver_states(self) -> Sequence[tuple[str, bool]]:
        """Whether each source of routes can answer."""
        return [(layer.name, getattr(layer, "is_loaded", True)) for layer in self._resolver.layers]

    # -- reload --------------------------------------------------------------

    def reload(self) -> Deferred[Mapping[str, Any]]:
        """Read the configuration again and put it into effect, as a whole or not at all.

        Connections and tunnels stay; listeners that have not changed are not
        touched.  Also opens the log file anew and reads the admin token.

        :return: what changed.  Fails with ConfigurationError or DomainTaken
            after changing nothing.
        """
        return Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> Mapping[str, Any]:
        if self._read_again is None:
            self._access_log.reopen()
            return self._report(TopologyChange(), [])
        try:
            # In a thread: a file of many apps takes seconds to read.
            pool = self._reactor.getThreadPool()
            settings: Settings = await deferToThreadPool(self._reactor, pool, self._read_again)
            difference = await self._change_to(settings)
        except Exception as error:
            self._metrics.config_reloaded(False)
            _log.error("reload refused, nothing has changed: {error}", error=error)
            raise
        restart_needed = self._take_over(settings)
        self._metrics.config_reloaded(True)
        report = self._report(difference, restart_needed)
        _log.info("configuration reloaded: {report}", report=report)
        for warning in settings.warnings:
            _log.warn("{warning}", warning=warning)
        return report

    async def _change_to(self, settings: Settings) -> TopologyChange:
        """Do everything that can be refused; what was done before a refusal is undone."""
        described = {app.name for app in settings.apps}
        removed = tuple(name for name in self._file.apps() if name not in described)
        self._resolver.check(TopologyChange(settings.apps, removed), self._file)
        if settings.admin == self.settings.admin:
            self.admin.read_token()
        log = settings.log
        prepared = self._access_log.prepare(log.requests, log.destination, log.query)
        try:
            await self.listeners.reconcile(self._doors(settings))
            difference = self._file.replace(settings.apps)
        except BaseException:
            prepared.discard()
            raise
        prepared.commit()
        return difference

    def _report(self, difference: TopologyChange, restart_needed: list[str]) -> Mapping[str, Any]:
        updated = [app.name for app in difference.updated]
        return {
            "apps": {"updated": updated, "removed": list(difference.removed)},
            "listeners": [port.text for port in self.listeners.ports],
            "restart_needed": restart_needed,
        }

    def _take_over(self, settings: Settings) -> list[str]:
        """Put the plain values into effect; tells which sections wait for a restart."""
        before, self.settings = self.settings, settings
        self._env.timeouts = settings.timeouts
        self._env.limits = settings.limits
        self._env.pools.set_defaults(settings.timeouts, settings.limits)
        self.listeners.drain_seconds = settings.timeouts.drain
        fixed = ("proxy", "admin", "metrics")
        return [f"[{name}]" for name in fixed if getattr(settings, name) != getattr(before, name)]

    def _doors(self, settings: Settings) -> list[Listener]:
        """One door for each listener of the settings, each with a factory of its own."""
        return [
            Listener(
                listen.protocol,
                listen.endpoint,
                self._factory(listen, settings),
                setting=listen.option or f"{settings.filename}: [[listen]] #{number} endpoint",
            )
            for number, listen in enumerate(settings.listens, 1)
        ]

    def _factory(self, listen: ListenSettings, settings: Settings) -> Any:
        """What serves one door: HTTP, perhaps inside TLS, perhaps behind a PROXY header."""
        factory: Any = HTTPProxyFactory(
            env=self._env,
            listener=listen.protocol,
            trusted_proxies=listen.trusted_proxies,
            public_port=listen.public_port,
            note_agents=settings.log.requests == "combined",
        )
        if listen.protocol == "tls":
            factory = TLSProxyFactory(factory, self._contexts, default_app=listen.default_app)
        if listen.proxy_protocol:
            factory = ProxyHeaderFactory(
                factory,
                self._env,
                listener=listen.protocol,
                trusted_proxies=listen.trusted_proxies,
            )
        return factory
