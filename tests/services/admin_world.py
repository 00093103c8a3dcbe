"""An admin API in memory, for the tests of its parts.

Every JSON answer that comes out of it is checked against ``openapi.json``.
"""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Mapping
from importlib.resources import files
from random import Random
from typing import Any

import attrs
from jsonschema import Draft202012Validator
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from scalingo_proxy.model import App, Limits, Route, Timeouts
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.resolvers.config_file import ConfigFileResolver
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.routing.policies import Policies
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.routing.topology_guard import GuardRule
from scalingo_proxy.services.access_control import AccessControl
from scalingo_proxy.services.admin import AdminService
from scalingo_proxy.services.admin_access import AccessApi
from scalingo_proxy.services.admin_explain import RequestsApi
from scalingo_proxy.services.admin_topology import TopologyApi
from scalingo_proxy.services.alarms import Alarm
from scalingo_proxy.services.certificate_control import CertificateControl
from scalingo_proxy.services.control import Control
from scalingo_proxy.services.deploys import Deploys
from scalingo_proxy.services.explain import Explain
from scalingo_proxy.services.paced_probes import PacedProbes
from scalingo_proxy.services.reload_guard import ReloadGuard
from scalingo_proxy.services.resolver_updates import ResolverUpdates
from scalingo_proxy.services.status_view import StatusView
from scalingo_proxy.services.topology_control import TopologyControl
from scalingo_proxy.services.traffic import Traffic
from tests.services.fake_probes import FakeProbe

NOW = 1_700_000_000.0
LOOPBACK = IPv4Address("TCP", "127.0.0.1", 8081)

OPENAPI: dict[str, Any] = json.loads(
    files("scalingo_proxy.services").joinpath("openapi.json").read_text("utf-8")
)


@attrs.frozen
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.document["error"]["code"])

    @property
    def mistakes(self) -> dict[str | None, str]:
        """The mistakes by their fields."""
        return {each["field"]: each["message"] for each in self.document["error"].get("mistakes", ())}


class Connection:
    """One client connection; requests go in as bytes."""

    def __init__(self, world: AdminWorld, local: IAddress) -> None:
        self.world = world
        self.transport = StringTransport(local)
        factory = world.reactor.tcpServers[-1][1]
        self.protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 54321))
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def reply(self, method: str = "GET") -> Reply:
        """The answer so far, which must be complete."""
        data = self.transport.value()
        self.transport.clear()
        response = http.client.HTTPResponse(_Readable(data), method=method)  # type: ignore[arg-type]
        response.begin()
        return Reply(response.status, dict(response.headers), response.read())

    def leave(self) -> None:
        """The client closes the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def is_silent(self) -> bool:
        return not self.transport.value()


class _Readable:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


class AdminWorld:
    """The service, what it controls, and clients for it."""

    def __init__(self, *file_apps: App, **options: Any) -> None:
        self.reactor: Any = options.pop("reactor", None) or MemoryReactorClock()
        self.store = StoreResolver("", self.reactor)
        self.file = ConfigFileResolver()
        self.resolver = LayeredResolver([self.store, self.file])
        self.pools = Pools(Timeouts(), Limits(), Random(1), clock=self.reactor.seconds)
        self.resolver.watch(lambda change: self.pools.apply(change, self.reactor.seconds()))
        self.file.replace(file_apps)
        if options.pop("loaded", True):
            self.store.start()
        self.probe = FakeProbe(self.reactor)
        self.deploys = Deploys(self.pools, PacedProbes(self.probe, self.reactor), self.reactor)
        self.reload: Any = lambda: {"apps": {"updated": [], "removed": []}}
        self.reasons: list[str] = []
        self.certificates = CertificateIndex(self.wall_clock)
        self.certificates.follow(self.store.certificates)
        self.certificate_control = CertificateControl(
            index=self.certificates, store=self.store, apps=self.resolver.apps, wall_clock=self.wall_clock
        )
        self.access = AccessControl(policies=Policies(), store=self.store, reactor=self.reactor)
        self.control = Control(
            resolver=self.resolver,
            store=self.store,
            pools=self.pools,
            deploys=self.deploys,
            reactor=self.reactor,
            reload=lambda: self.reload(),
            judge=self.certificate_control.mistakes,
            clock=self.reactor.seconds,
            wall_clock=self.wall_clock,
        )
        self.explain = Explain(100, lambda: (), self.reactor.seconds)
        self.traffic = Traffic(self.reactor.seconds)
        self.alarms: list[Alarm] = []
        self.view = StatusView(
            control=self.control,
            pools=self.pools,
            traffic=self.traffic,
            certificates_for=self.certificate_control.served_for,
            alarms=lambda: self.alarms,
            sources=ResolverUpdates(self.resolver.layers, self.wall_clock).states,
            facts=lambda: {"name": "router-1", "region": "here", "version": "1.2.3"},
            clock=self.reactor.seconds,
            wall_clock=self.wall_clock,
        )
        if options.pop("with_status", True):
            options |= {"status": self.view, "explain": self.explain.explain}
        self.reload_guard = ReloadGuard[Any](
            self.file,
            self.resolver,
            self.reactor,
            rule=GuardRule(),
            confirm_after=0.0,
            put_into_effect=self.put_into_effect,
            wall_clock=self.wall_clock,
        )
        self.topology = TopologyControl(
            [self.reload_guard],
            sources=ResolverUpdates([self.store, self.file], self.wall_clock).states,
            exclusively=self.control.exclusively,
            wall_clock=self.wall_clock,
        )
        self.reload_guard.confirm_by_time = self.topology.confirm
        options = {
            "certificates": self.certificate_control,
            "metrics_page": lambda: ["scalingo_proxy_up 1\n"],
            "unready": lambda: self.reasons,
            "others": [
                *AccessApi(self.access).routes(),
                *RequestsApi(self.explain).routes(),
                *TopologyApi(self.topology).routes(),
            ],
            **options,
        }
        self.service = AdminService(
            self.reactor, options.pop("endpoint", "127.0.0.1:8081"), control=self.control, **options
        )

    def reload_to(self, *apps: App) -> None:
        """Have a reload make *apps* what the file says, if the guard lets it."""

        def reload() -> dict[str, Any]:
            self.reload_guard.admit(apps, {app.name: app for app in apps})
            self.file.replace(apps)
            self.reload_guard.applied()
            return {"apps": {"updated": [], "removed": []}}

        self.reload = reload

    def put_into_effect(self, apps: Any) -> Deferred[Any]:
        self.file.replace(apps)
        self.reload_guard.applied(is_confirmed=True)
        return succeed(None)

    def wall_clock(self) -> float:
        """Seconds since the epoch, by the reactor's clock."""
        return NOW + float(self.reactor.seconds())

    def start(self) -> AdminWorld:
        self.service.startService()
        return self

    def stop(self) -> Deferred[None]:
        return self.service.stopService()

    def connect(self, local: IAddress = LOOPBACK) -> Connection:
        return Connection(self, local)

    def begin(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        local: IAddress = LOOPBACK,
    ) -> Connection:
        """Send a request on a connection of its own; its answer may not be there yet."""
        connection = self.connect(local)
        connection.send(request_bytes(method, path, body, headers or {}))
        return connection

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        """Send a request as a program does, and take its answer, which must agree with ``openapi.json``."""
        headers = {"Accept": "application/json"} | dict(options.pop("headers", None) or {})
        reply = self.begin(method, path, body, headers=headers, **options).reply(method)
        if method != "HEAD":
            check_reply(method, path, reply)
        return reply

    def pool(self, name: str) -> Pool:
        """The pool of an app, made as a request for it would."""
        app = self.resolver.apps()[name]
        return self.pools.for_route(Route(app, app.domains[0]))


def request_bytes(method: str, path: str, body: Any, headers: Mapping[str, str]) -> bytes:
    """A request; a body that is not bytes goes as JSON, and says so."""
    lines = {"Host": "127.0.0.1:8081"}
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8")
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    told = "".join(f"{name}: {value}\r\n" for name, value in (lines | dict(headers)).items() if value)
    return f"{method} {path} HTTP/1.1\r\n{told}\r\n".encode("latin-1") + data


def check_reply(method: str, path: str, reply: Reply) -> None:
    """Fail when ``openapi.json`` promises something else."""
    if reply.status in (404, 405) and reply.code in ("not-found", "method-not-allowed"):
        schemas = [{"$ref": "#/components/schemas/Refusal"}]
    else:
        schemas = _promised(method, path.partition("?")[0], reply)
    for schema in schemas:
        document = {**schema, "components": OPENAPI["components"]}
        Draft202012Validator(document).validate(reply.document)


def _promised(method: str, path: str, reply: Reply) -> list[Any]:
    for template, operations in OPENAPI["paths"].items():
        if _fits(template, path) and method.lower() in operations:
            response = operations[method.lower()]["responses"][str(reply.status)]
            break
    else:
        # Refused before anybody looked at the path.
        assert reply.status in (400, 401, 403), f"{method} {path} is not described"
        return [{"$ref": "#/components/schemas/Refusal"}]
    if "$ref" in response:
        response = OPENAPI["components"]["responses"][response["$ref"].rpartition("/")[2]]
    media_type = reply.headers["Content-Type"].partition(";")[0]
    schema = response["content"][media_type]["schema"]
    return [schema] if media_type == "application/json" else []


def _fits(template: str, path: str) -> bool:
    wanted, given = template.split("/"), path.split("/")
    return len(wanted) == len(given) and all(
        one == other or one.startswith("{") for one, other in zip(wanted, given, strict=True)
    )
