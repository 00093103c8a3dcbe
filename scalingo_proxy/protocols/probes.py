"""Probing a backend: connects, shakes hands or asks, as the app's health says.

The same addresses, certificates and PROXY headers as for requests, on a
connection of the probe's own.  When and how often is not decided here.
"""

from __future__ import annotations

import re
from functools import cache, partial
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.interfaces import IProbe
from scalingo_proxy.model import App, Backend, Health, ProbeResult, join_host_port
from scalingo_proxy.protocols.backend_connector import BackendConnector, Connect
from scalingo_proxy.protocols.backend_tls import TLSAttempt
from scalingo_proxy.protocols.probe_attempt import ProbeAttempt
from scalingo_proxy.protocols.probe_protocols import ConnectProbe, GetProbe
from scalingo_proxy.wire.proxy_header import ProxyHeader, encode_proxy_v1, encode_proxy_v2
from scalingo_proxy.wire.status_ranges import parse_status_ranges

__all__ = ["BackendProbe", "probe_kind", "probe_url"]

_log = Logger()

USER_AGENT = "scalingo-proxy-probe"

_OURSELVES = ProxyHeader(is_local=True)
_PREFACES = {"v1": encode_proxy_v1(_OURSELVES), "v2": encode_proxy_v2(_OURSELVES)}

_WRITABLE = re.compile(r"[!-~]+")


@cache
def _believing() -> CertificateOptions:
    return CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2)


class _AnyCertificate:
    """Begins handshakes and believes every certificate: it is the app's matter, not the proxy's."""

    def __init__(self, name: str) -> None:
        self._name = name.encode("ascii")

    def begin(self, protocol: Any, judged: Any) -> SSL.Connection:
        """A client's state before its first byte."""
        connection: SSL.Connection = _believing().clientConnectionForTLS(protocol)
        if self._name:
            connection.set_tlsext_host_name(self._name)
        connection.set_connect_state()
        judged("")
        return connection


@implementer(IProbe)
class BackendProbe:
    """Makes probes on a reactor.

    :param reactor: an IReactorTime and IReactorTCP.
    :param connect: makes connections; by default a connector that keeps its
        complaints to itself, because each result says why.
    """

    def __init__(self, reactor: Any, connect: Connect | None = None) -> None:
        self._reactor = reactor
        self._connect = connect or BackendConnector(reactor, is_quiet=True)

    def probe(self, backend: Backend, app: App, health: Health) -> Deferred[ProbeResult]:
        """Probe *backend* of *app* once, as *health* says; see :class:`~scalingo_proxy.interfaces.IProbe`."""
        url = probe_url(backend, app, health)
        attempt: ProbeAttempt | None = None
        try:
            attempt = ProbeAttempt(self._reactor, _doing(backend, app, health, url), url, health.timeout)
            self._begin(attempt, backend, app, health)
        except Exception:
            _log.failure("{url} cannot be probed", url=url)
            if attempt is not None:
                attempt.result.addErrback(lambda _: None)
                attempt.result.cancel()
            return succeed(ProbeResult(False, f"{url} cannot be probed; the log says why", url))
        return attempt.result

    def _begin(self, attempt: ProbeAttempt, backend: Backend, app: App, health: Health) -> None:
        kind = probe_kind(backend, app, health)
        preface = _PREFACES.get(app.send_proxy, b"")
        if kind == "http":
            request, expected = _request(backend, app, health), parse_status_ranges(health.status)
            protocol: ConnectProbe = GetProbe(attempt, preface, request, expected)
        else:
            protocol = ConnectProbe(attempt, preface, "completed" if kind == "tls" else "connected")
        timeout, failed = health.timeout, attempt.connect_failed
        if backend.tls and kind != "tcp":
            attempt.begin(partial(self._connect, backend, protocol, timeout, failed))
            return
        plain = attrs.evolve(backend, tls=False)
        if kind == "tls" or (kind == "http" and app.tls == "passthrough"):
            expectation: Any = _AnyCertificate(_server_name(app, health))
            handshake = TLSAttempt(self._reactor, expectation, protocol, timeout, failed)
            attempt.begin(
                lambda: handshake.connect(
                    self._connect(plain, handshake.transport_protocol, timeout, handshake.connect_failed)
                )
            )
        else:
            attempt.begin(partial(self._connect, plain, protocol, timeout, failed))


def probe_kind(backend: Backend, app: App, health: Health) -> str:
    """``"tcp"``, ``"http"`` or ``"tls"``: what health says, or else what fits.

    A backend that TLS passes through to may speak anything inside it, so
    nothing but a connection is asked of it unless its app says so.
    """
    if health.kind:
        return health.kind
    if app.tls == "passthrough":
        return "tcp"
    if health.path:
        return "http"
    return "tls" if backend.tls else "tcp"


def probe_url(backend: Backend, app: App, health: Health) -> str:
    """What is probed, as a URL."""
    kind = probe_kind(backend, app, health)
    address = join_host_port(backend.host, backend.port)
    if kind == "http":
        scheme = "https" if backend.tls or app.tls == "passthrough" else "http"
        return f"{scheme}://{address}{health.path or '/'}"
    if kind == "tls":
        return f"{'https' if backend.tls else 'tls'}://{address}"
    return f"tcp://{address}"


def _doing(backend: Backend, app: App, health: Health, url: str) -> str:
    kind = probe_kind(backend, app, health)
    if kind == "http":
        return f"GET {url}"
    if kind == "tls":
        return f"TLS handshake with {url}"
    return f"connection to {join_host_port(backend.host, backend.port)}"


def _own_domain(app: App) -> str:
    """The first domain that is a name and not a pattern of names."""
    return next((domain for domain in app.domains if not domain.startswith("*")), "")


def _server_name(app: App, health: Health) -> str:
    """What the hello asks for; an IP address is never said there (RFC 6066 §3)."""
    if health.host.startswith("["):
        return ""
    name = health.host.partition(":")[0] or _own_domain(app)
    return "" if isIPAddress(name) else name


def _request(backend: Backend, app: App, health: Health) -> bytes:
    """The request of an HTTP probe.

    :raises ValueError: what health says cannot stand in a request.
    """
    path = health.path or "/"
    host = health.host or _own_domain(app) or join_host_port(backend.host, backend.port)
    if not (_WRITABLE.fullmatch(path) and _WRITABLE.fullmatch(host)):
        raise ValueError(f"no request can be made of path {path!r} and host {host!r}")
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: {USER_AGENT}",
        "Accept: */*",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii")
