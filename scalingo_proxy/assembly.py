"""The one module that names every concrete class: settings in, one service out.

Read from top to bottom it is the whole proxy.  Nothing listens or connects
before the service is started, and stopping it is a drain.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import IService

import twisted
from scalingo_proxy.model import CertificateChange
from scalingo_proxy.protocols.backend_connector import BackendConnector
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.factories import HTTPProxyFactory, make_environment
from scalingo_proxy.protocols.probes import BackendProbe
from scalingo_proxy.protocols.proxy_header import ProxyHeaderFactory
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_certificates import stored_certificate
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_factory import TLSProxyFactory
from scalingo_proxy.resolvers.config_file import ConfigFileResolver
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.running import Parts, Proxy
from scalingo_proxy.services import gauges, pool_gauges
from scalingo_proxy.services.access_control import AccessControl
from scalingo_proxy.services.access_log import AccessLog
from scalingo_proxy.services.admin import AdminService
from scalingo_proxy.services.admin_access import AccessApi
from scalingo_proxy.services.admin_explain import RequestsApi
from scalingo_proxy.services.admin_topology import TopologyApi
from scalingo_proxy.services.alarms import (
    Alarm,
    Alarms,
    expiring_certificates,
    forsaken_apps,
    late_reactor,
    rising,
    silent_sources,
)
from scalingo_proxy.services.batches import Batches
from scalingo_proxy.services.broadcast import Broadcast
from scalingo_proxy.services.certificate_control import CertificateControl
from scalingo_proxy.services.control import Control
from scalingo_proxy.services.demo import DemoBackends
from scalingo_proxy.services.deploys import Deploys
from scalingo_proxy.services.error_pages import ErrorPages
from scalingo_proxy.services.explain import Explain
from scalingo_proxy.services.health_checks import HealthChecksService
from scalingo_proxy.services.listeners import Listener
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.paced_probes import PacedProbes
from scalingo_proxy.services.page_fetch import PageFetcher
from scalingo_proxy.services.reactor_lag import ReactorLag
from scalingo_proxy.services.reload_guard import ReloadGuard
from scalingo_proxy.services.resolver_updates import ResolverUpdates
from scalingo_proxy.services.status_view import StatusView
from scalingo_proxy.services.store_service import StoreService
from scalingo_proxy.services.topology_control import TopologyControl
from scalingo_proxy.services.traffic import Traffic
from scalingo_proxy.services.verdicts import VerdictLog
from scalingo_proxy.settings import ListenSettings, Settings
from scalingo_proxy.transports.eager import eager
from scalingo_proxy.version import VERSION

__all__ = ["assemble"]


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
    metrics = Metrics(settings.metrics.max_apps, reactor.seconds)
    traffic = Traffic(reactor.seconds, metrics.open_connections)
    explain = Explain(settings.explain.requests, lambda: env.under_way(), reactor.seconds, settings.log.query)

    observers = Batches(reactor, Broadcast(metrics, access_log, explain, traffic))
    for reader in (metrics, access_log, explain, traffic):
        reader.catch_up = observers.catch_up

    store = StoreResolver(settings.proxy.state, reactor, read_certificate=stored_certificate)
    file = ConfigFileResolver()
    demo = MemoryResolver(name="demo")
    resolver = LayeredResolver([store, file, demo] if settings.demo else [store, file])
    resolver_updates = ResolverUpdates(resolver.layers, time.time)
    file.replace(settings.apps)
    reload_guard = ReloadGuard[Settings](
        file,
        resolver,
        reactor,
        rule=settings.topology.rule,
        confirm_after=settings.topology.confirm_after,
        put_into_effect=lambda held: proxy.confirm_reload(held),
        wall_clock=time.time,
    )
    reactor_lag = ReactorLag(reactor)

    sockets = eager(reactor)
    pools = Pools(
        settings.timeouts,
        settings.limits,
        randomness,
        clock=reactor.seconds,
        health=settings.health,
        quarantine=settings.quarantine,
    )
    verdicts = VerdictLog(pools, reactor.seconds, metrics.app_label, metrics.has_series)
    env = make_environment(
        resolver,
        reactor,
        pools=pools,
        connect=BackendConnector(sockets),
        observer=observers,
        timeouts=settings.timeouts,
        limits=settings.limits,
    )
    certificates = CertificateIndex(time.time)
    certificates.follow(store.certificates)
    certificates.apply(CertificateChange(settings.certificates))
    certificate_control = CertificateControl(index=certificates, store=store, apps=resolver.apps)
    access = AccessControl(
        policies=env.policies,
        store=store,
        reactor=reactor,
        deny=settings.access.all_denied,
        allow=settings.access.allow,
    )
    contexts = Contexts(certificates)
    pages = ErrorPages(PageFetcher(reactor), resolver, file.apps)
    env.page_for = pages.page_for
    probes = PacedProbes(BackendProbe(reactor), reactor)
    health_checks = HealthChecksService(pools, resolver, probes, reactor, random.Random(randomness.random()))
    build = _build(settings)
    parts = Parts(
        reactor=reactor,
        sockets=sockets,
        env=env,
        certificates=certificates,
        file=file,
        resolver=resolver,
        store=store,
        resolver_updates=resolver_updates,
        reload_guard=reload_guard,
        access_log=access_log,
        metrics=metrics,
        pages=pages,
        access=access,
        explain=explain,
        health_checks=health_checks,
        make_doors=lambda wanted: _doors(wanted, env, contexts),
        read_again=read_again,
        build=build,
    )
    proxy = Proxy(settings, parts)
    control = Control(
        resolver=resolver,
        store=store,
        pools=pools,
        deploys=Deploys(pools, probes, reactor),
        reactor=reactor,
        reload=proxy.reload,
        judge=lambda app: [*certificate_control.mistakes(app), *pages.mistakes(app)],
        doubts=pages.doubts,
        clock=reactor.seconds,
    )
    topology = TopologyControl(
        [reload_guard],
        sources=resolver_updates.states,
        exclusively=control.exclusively,
        wall_clock=time.time,
    )
    reload_guard.confirm_by_time = topology.confirm
    admin = AdminService(
        reactor,
        settings.admin.endpoint,
        control=control,
        certificates=certificate_control,
        metrics_page=metrics.pieces,
        unready=proxy.unready,
        facts=proxy.facts,
        warnings=proxy.warnings,
        token_file=settings.admin.token_file,
        certificate=settings.admin.certificate,
        status=StatusView(
            control=control,
            pools=pools,
            traffic=traffic,
            certificates_for=certificate_control.served_for,
            alarms=_alarms(proxy, parts, reactor_lag).now,
            sources=resolver_updates.states,
            facts=lambda: build,
            clock=reactor.seconds,
        ),
        explain=explain.explain,
        others=[*AccessApi(access).routes(), *RequestsApi(explain).routes(), *TopologyApi(topology).routes()],
    )
    proxy.control, proxy.admin = control, admin
    pool_gauges.add_pools(metrics, pools)
    pool_gauges.add_verdicts(metrics, pools, lambda moment: time.time() - reactor.seconds() + moment)
    gauges.add_retries(metrics, lambda: env.retries, lambda: env.retries_refused)
    gauges.add_quarantines(metrics, verdicts.counts)
    gauges.add_accepting(metrics, lambda: proxy.gate.is_paused, lambda: proxy.gate.pauses)
    gauges.add_descriptors(metrics, lambda: env.descriptors())
    gauges.add_health_checks(metrics, probes.results)
    gauges.add_routes(metrics, lambda: resolver.table.domain_count)
    gauges.add_resolvers(metrics, resolver_updates.states)
    gauges.add_topology_held(metrics, topology.states)
    gauges.add_certificates(metrics, certificates)
    gauges.add_clients(metrics, env.clients.refused, lambda: env.clients.given_up)
    gauges.add_handshakes(metrics, env.handshakes.refused, lambda: env.handshakes.waiting)
    gauges.add_denied(metrics, env.policies.denied)
    gauges.add_log_lines_dropped(metrics, lambda: access_log.dropped)
    gauges.add_process_start_time(metrics, time.time())
    gauges.add_build_info(metrics, build)
    gauges.add_reactor_lag(metrics, lambda: reactor_lag.seconds)
    # One process serves, and no certificate is ordered: both are true of this version, and
    # dashboards may rely on the names.
    gauges.add_workers(metrics, lambda: [("0", True)])
    gauges.add_acme_orders(metrics, lambda: {"success": 0, "failure": 0})

    proxy.store_service = StoreService(store)
    # Stopped in the reverse order, one after the other: the doors close and
    # drain first, and the log hears of the last request before it ends.
    services: Sequence[IService] = [
        access_log,
        reactor_lag,
        proxy.store_service,
        pages,
        *([DemoBackends(reactor, demo, certificates)] if settings.demo else []),
        health_checks,
        admin,
        proxy.listeners,
    ]
    for service in services:
        service.setServiceParent(proxy)  # type: ignore[no-untyped-call]
    return proxy


def _alarms(proxy: Proxy, parts: Parts, reactor_lag: ReactorLag) -> Alarms:
    """Everything that an operator should look at, as the status page tells it."""
    alarms = Alarms()
    alarms.add(proxy.alarms)
    alarms.add(forsaken_apps(parts.env.pools))
    alarms.add(silent_sources(parts.resolver_updates.states))
    alarms.add(expiring_certificates(parts.certificates))
    alarms.add(
        rising(lambda: parts.access_log.dropped, "lines of the request log were lost", parts.reactor.seconds)
    )
    alarms.add(lambda: [Alarm(sentence, is_urgent=True) for sentence in proxy.warnings()])
    alarms.add(late_reactor(lambda: reactor_lag.seconds))
    return alarms


def _build(settings: Settings) -> Mapping[str, str]:
    return {
        "name": settings.proxy.name,
        "region": settings.proxy.region,
        "version": VERSION,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
    }


def _doors(settings: Settings, env: Environment, contexts: Contexts) -> list[Listener]:
    """One door for each listener of the settings, each with a factory of its own."""
    return [
        Listener(
            listen.protocol,
            listen.endpoint,
            _factory(listen, settings, env, contexts),
            setting=listen.option or f"{settings.filename}: [[listen]] #{number} endpoint",
        )
        for number, listen in enumerate(settings.listens, 1)
    ]


def _factory(listen: ListenSettings, settings: Settings, env: Environment, contexts: Contexts) -> Any:
    """What serves one door: HTTP, perhaps inside TLS, perhaps behind a PROXY header."""
    factory: Any = HTTPProxyFactory(
        env=env,
        listener=listen.protocol,
        trusted_proxies=listen.trusted_proxies,
        public_port=listen.public_port,
        note_agents=settings.log.requests == "combined",
    )
    if listen.protocol == "tls":
        factory = TLSProxyFactory(factory, contexts, default_app=listen.default_app)
    if listen.proxy_protocol:
        factory = ProxyHeaderFactory(
            factory, env, listener=listen.protocol, trusted_proxies=listen.trusted_proxies
        )
    return factory
