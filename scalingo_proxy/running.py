"""The proxy as one service: started, asked, read again, and stopped by a drain.

What it is made of is handed in; :mod:`scalingo_proxy.assembly` alone knows
which classes those are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.model import CertificateChange, TopologyChange, join_host_port
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.resolvers.config_file import ConfigFileResolver
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.services.accept_gate import AcceptGate
from scalingo_proxy.services.access_control import AccessControl
from scalingo_proxy.services.access_log import AccessLog
from scalingo_proxy.services.admin import AdminService
from scalingo_proxy.services.alarms import Alarm
from scalingo_proxy.services.banner import BannerDoor, banner
from scalingo_proxy.services.control import Control
from scalingo_proxy.services.demo import DEMO_DOMAIN, SEALED_DOMAIN
from scalingo_proxy.services.demo_authority import DEMO_FOLDER
from scalingo_proxy.services.error_pages import ErrorPages
from scalingo_proxy.services.explain import Explain
from scalingo_proxy.services.health_checks import HealthChecksService
from scalingo_proxy.services.listeners import Listener, ListenersService
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.reload_guard import ReloadGuard, TopologyHeldBack
from scalingo_proxy.services.resolver_updates import ResolverUpdates
from scalingo_proxy.services.store_service import StoreService
from scalingo_proxy.settings import Settings

__all__ = ["Parts", "Proxy"]

_log = Logger()

_DEMO_REMARKS = {
    "http": "2 demo backends, round robin",
    "tls": f"HTTP/2, demo certificate (CA in ./{DEMO_FOLDER}/ca.pem)",
}
_TRY = {"http": "curl ", "tls": f"curl --cacert {DEMO_FOLDER}/ca.pem "}


@attrs.frozen(eq=False)
class Parts:
    """What a running proxy is made of.

    :ivar sockets: the reactor as the doors listen on it.
    :ivar make_doors: the listeners that settings ask for.
    :ivar read_again: reads the configuration for a reload; without it a
        reload changes nothing.
    :ivar build: what runs here, by name.
    """

    reactor: Any
    sockets: Any
    env: Environment
    certificates: CertificateIndex
    file: ConfigFileResolver
    resolver: LayeredResolver
    store: StoreResolver
    access: AccessControl
    resolver_updates: ResolverUpdates
    reload_guard: ReloadGuard[Settings]
    access_log: AccessLog
    metrics: Metrics
    pages: ErrorPages
    explain: Explain
    health_checks: HealthChecksService
    make_doors: Callable[[Settings], list[Listener]]
    read_again: Callable[[], Settings] | None
    build: Mapping[str, str]


class Proxy(MultiService):
    """The whole proxy, and what can be asked of it.

    :ivar settings: as they are in effect.
    :ivar listeners: the doors.
    :ivar gate: keeps clients waiting while descriptors are short.
    :ivar control: the operations on the topology.
    :ivar admin: the admin API's service.
    :ivar store_service: opens and closes the store.
    """

    control: Control
    admin: AdminService
    store_service: StoreService

    def __init__(self, settings: Settings, parts: Parts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.settings = settings
        self._parts = parts
        self._is_stopping = False
        self.gate = AcceptGate(parts.reactor, parts.env.room_for_clients, parts.env.make_room)
        self.listeners = ListenersService(
            parts.sockets,
            parts.make_doors(settings),
            drain_seconds=settings.timeouts.drain,
            gate=self.gate,
        )

    def startService(self) -> None:
        self._is_stopping = False
        super().startService()  # type: ignore[no-untyped-call]
        self.when_loaded().addCallbacks(lambda _: self._parts.access.store_loaded(), _told_elsewhere)

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
        self._parts.env.connections.close_all_idle()

    def when_loaded(self) -> Deferred[None]:
        """Fire once every source of routes has answered, or fail with why one cannot."""
        return self.store_service.when_loaded()

    # -- what people ask -----------------------------------------------------

    def banner(self) -> str:
        """What a person who starts the proxy sees first; to be asked for when it runs."""
        build, demo = self._parts.build, self.settings.demo
        reactor = type(self._parts.reactor).__name__.removesuffix("Reactor").lower()
        title = f"scalingo-proxy {build['version']}  Twisted {build['twisted']}, {reactor}, 1 worker"
        remarks = _DEMO_REMARKS if demo else {}
        name = DEMO_DOMAIN if demo else ""
        doors = [
            BannerDoor(port.name, _url(port.address, name, port.name), remarks.get(port.name, ""))
            for port in self.listeners.ports
        ]
        tries = [_TRY[door.protocol] + door.address for door in doors] if demo else []
        if demo and doors and doors[-1].protocol == "tls":
            tries.append(tries[-1].replace(DEMO_DOMAIN, SEALED_DOMAIN) + "  (passed through)")
        admin = _url(self.admin.address, protocol="tls" if self.admin.is_secured else "http")
        doors.append(BannerDoor("admin", admin, "status page, API under /api/v1, /metrics"))
        return banner(f"{title}, demo" if demo else title, doors, tries)

    def unready(self) -> Sequence[str]:
        """Why the proxy should get no traffic now."""
        reasons = []
        if self._is_stopping:
            reasons.append("the proxy is stopping")
        if not self._parts.store.is_loaded:
            reasons.append("the store is not loaded")
        if not self.listeners.ports:
            reasons.append("the listeners are not open")
        return reasons

    def warnings(self) -> Sequence[str]:
        """What is wrong although traffic may come."""
        held = self._parts.reload_guard.held
        return [] if held is None else [f"{held}; confirm or discard it: scalingo-proxy topology"]

    def facts(self) -> Mapping[str, Any]:
        """What the status tells beside the counts."""
        parts = self._parts
        return {
            **parts.build,
            "reactor": type(parts.reactor).__name__,
            "listeners": [{"protocol": port.name, "address": port.text} for port in self.listeners.ports],
            "client_connections": parts.env.client_connections,
            "backend_connections": parts.env.connections.open_count,
            "error_pages": parts.pages.told(),
            "warnings": [*self.settings.warnings, *self.warnings()],
            "conflicts": [str(conflict) for conflict in parts.resolver.conflicts],
        }

    def alarms(self) -> Iterator[Alarm]:
        """What of the proxy as a whole an operator should look at."""
        for reason in self.unready():
            yield Alarm(reason, is_urgent=True)
        if self.gate.is_paused:
            yield Alarm("new clients wait, because descriptors are short", is_urgent=True)
        if not self._parts.metrics.last_reload_successful:
            yield Alarm(
                "the configuration on file was refused at the last reload; the one before it is in effect"
            )
        for conflict in self._parts.resolver.conflicts:
            yield Alarm(str(conflict))

    # -- reload --------------------------------------------------------------

    def reload(self) -> Deferred[Mapping[str, Any]]:
        """Read the configuration again and put it into effect, as a whole or not at all.

        Connections and tunnels stay; listeners that have not changed are not
        touched.  Also opens the log file anew and reads the admin token.

        :return: what changed.  Fails with ConfigurationError, DomainTaken or
            TopologyHeldBack after changing nothing.
        """
        return Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> Mapping[str, Any]:
        parts = self._parts
        if parts.read_again is None:
            parts.access_log.reopen()
            parts.pages.fetch_again()
            return self._report(TopologyChange(), [])
        try:
            # In a thread: a file of many apps takes seconds to read.
            pool = parts.reactor.getThreadPool()
            settings: Settings = await deferToThreadPool(parts.reactor, pool, parts.read_again)
        except Exception as error:
            self._not_reloaded(error)
            raise
        return await self._put_into_effect(settings)

    def confirm_reload(self, settings: Settings) -> Deferred[Mapping[str, Any]]:
        """Put settings into effect that were held back; as :meth:`reload`."""
        return Deferred.fromCoroutine(self._put_into_effect(settings, is_confirmed=True))

    def _not_reloaded(self, error: Exception) -> None:
        parts = self._parts
        parts.metrics.config_reloaded(False)
        if isinstance(error, TopologyHeldBack):
            # The alarm was given, once.  A log that was rotated away goes on all the same.
            _log.info("reload held back: {error}", error=error)
            parts.resolver_updates.held(parts.file.name)
            parts.access_log.reopen()
        else:
            _log.error("reload refused, nothing has changed: {error}", error=error)

    async def _put_into_effect(self, settings: Settings, is_confirmed: bool = False) -> Mapping[str, Any]:
        parts = self._parts
        try:
            difference = await self._change_to(settings, is_confirmed)
        except Exception as error:
            self._not_reloaded(error)
            raise
        restart_needed = self._take_over(settings)
        await parts.access.replace_file(settings.access.all_denied, settings.access.allow)
        parts.metrics.config_reloaded(True)
        report = self._report(difference, restart_needed)
        _log.info("configuration reloaded: {report}", report=report)
        for warning in settings.warnings:
            _log.warn("{warning}", warning=warning)
        return report

    async def _change_to(self, settings: Settings, is_confirmed: bool) -> TopologyChange:
        """Do everything that can be refused; what was done before a refusal is undone."""
        parts, log = self._parts, settings.log
        described = {app.name for app in settings.apps}
        removed = tuple(name for name in parts.file.apps() if name not in described)
        parts.resolver.check(TopologyChange(settings.apps, removed), parts.file)
        if not is_confirmed:
            parts.reload_guard.admit(settings, {app.name: app for app in settings.apps})
        if settings.admin == self.settings.admin:
            self.admin.read_token()
        prepared = parts.access_log.prepare(log.requests, log.destination, log.query)
        try:
            await self.listeners.reconcile(parts.make_doors(settings))
            difference = parts.file.replace(settings.apps)
            parts.resolver_updates.synced(parts.file.name)
            parts.reload_guard.applied(is_confirmed)
        except BaseException:
            prepared.discard()
            raise
        prepared.commit()
        return difference

    def _take_over(self, settings: Settings) -> list[str]:
        """Put the plain values into effect; tells which sections wait for a restart."""
        before, self.settings = self.settings, settings
        self.admin.use_certificate(settings.admin.certificate)
        kept = {certificate.name for certificate in settings.certificates}
        gone = tuple(each.name for each in before.certificates if each.name not in kept)
        self._parts.certificates.apply(CertificateChange(settings.certificates, gone))
        env = self._parts.env
        env.timeouts = settings.timeouts
        env.limits = settings.limits
        env.pools.set_defaults(settings.timeouts, settings.limits, settings.health, settings.quarantine)
        self._parts.pages.fetch_again()
        self._parts.health_checks.defaults_changed()
        self.listeners.drain_seconds = settings.timeouts.drain
        self._parts.reload_guard.reconfigure(settings.topology.rule, settings.topology.confirm_after)
        self._parts.explain.reconfigure(settings.explain.requests, settings.log.query)
        fixed = ("proxy", "admin", "metrics")
        return [f"[{name}]" for name in fixed if getattr(settings, name) != getattr(before, name)]

    def _report(self, difference: TopologyChange, restart_needed: list[str]) -> Mapping[str, Any]:
        updated = [app.name for app in difference.updated]
        return {
            "apps": {"updated": updated, "removed": list(difference.removed)},
            "listeners": [port.text for port in self.listeners.ports],
            "restart_needed": restart_needed,
        }


def _told_elsewhere(failure: Failure) -> None:
    """Why the store cannot be loaded is whoever's business that waits for it."""


def _url(address: Any, name: str = "", protocol: str = "http") -> str:
    """What to type to reach *address*; *name* instead of an address that means this machine."""
    host = getattr(address, "host", None)
    if host is None:
        return f"unix:{os.fsdecode(getattr(address, 'name', None) or b'')}"
    is_local = host in ("", "::", "0.0.0.0", "127.0.0.1", "::1")
    reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, host)
    scheme = "https" if protocol == "tls" else "http"
    return f"{scheme}://{join_host_port((name if is_local else '') or reachable, address.port)}/"
