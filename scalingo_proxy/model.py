"""The shared vocabulary: frozen values that every layer may hold.

Nothing here does I/O, knows a clock or changes after it was made.  Times are
seconds, sizes are bytes.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

__all__ = [
    "App",
    "AppState",
    "Backend",
    "BackendTrust",
    "Certificate",
    "CertificateChange",
    "Health",
    "Limits",
    "Outcome",
    "ProbeResult",
    "Quarantine",
    "Record",
    "Route",
    "RouteQuery",
    "Timeouts",
    "TopologyChange",
    "join_host_port",
    "split_backend_address",
    "split_host_port",
]


def split_host_port(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` or ``[IPV6]:PORT``.

    :raises ValueError: with a sentence that says what is wrong.
    """
    host, colon, digits = text.rpartition(":")
    if not colon or host.endswith(":") or (host.startswith("[") and not host.endswith("]")):
        raise ValueError(f"{text!r} has no port (expected host:port)")
    if host.startswith("["):
        host = host[1:-1]
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{text!r} has no valid IPv6 address in its brackets") from None
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:3000")
    if not host:
        raise ValueError(f"{text!r} has no host (expected host:port)")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536):
        raise ValueError(f"{text!r} has no valid port (1 to 65535)")
    return host, int(digits)


def join_host_port(host: str, port: int) -> str:
    """Write ``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_backend_address(text: str) -> tuple[str, int, bool]:
    """Split what names a backend: ``HOST:PORT``, ``http://HOST:PORT`` or ``https://HOST[:PORT]``.

    :return: the host, the port (443 where ``https://`` has none), and whether
        it is asked over TLS.
    :raises ValueError: with a sentence that says what is wrong.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return *split_host_port(text), False
    if scheme not in ("http", "https"):
        raise ValueError(f"{text!r} is neither host:port nor begins with http:// or https://")
    if "/" in rest or "?" in rest or "#" in rest or "@" in rest:
        raise ValueError(f"{text!r} says more than where to connect (expected {scheme}://host:port)")
    has_port = rest.rpartition("]")[2].count(":") == 1
    complete = f"{rest}:443" if scheme == "https" and not has_port else rest
    try:
        return *split_host_port(complete), scheme == "https"
    except ValueError as error:
        raise ValueError(str(error).replace(repr(complete), repr(text))) from None


@attrs.frozen
class BackendTrust:
    """Who a backend must prove to be before it is asked anything over TLS.

    :ivar ca: the certificates that are trusted, PEM; ``""`` is the system's
        trust store.
    :ivar name: the name (or the IP address) that the certificate must have,
        and which is sent as server name; ``""`` is the backend's own host.
    """

    ca: str = attrs.field(default="", repr=False)
    name: str = ""


_USUAL_TRUST = BackendTrust()


@attrs.frozen
class Backend:
    """One container of an app: where to connect.

    :ivar host: an IPv4 or IPv6 address, or a host name.
    :ivar port: the TCP port.
    :ivar weight: its share among the backends of the app, 1 to 100.
    :ivar tls: whether it is asked over TLS.
    :ivar trust: whom its certificate is verified against; set by the App that
        has the backend, from its ``backend_tls``.
    :ivar address: as people write it: ``10.0.0.1:3000``, or
        ``https://10.0.0.1:8443`` with TLS.
    """

    host: str
    port: int
    weight: int = 1
    tls: bool = False
    trust: BackendTrust = _USUAL_TRUST
    address: str = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        address = join_host_port(self.host, self.port)
        object.__setattr__(self, "address", f"https://{address}" if self.tls else address)

    @property
    def identity(self) -> object:
        """What makes it another backend when it changes; the weight does not.

        Whoever is verified by another rule is somebody else: connections that
        were verified by the old one are used no more.
        """
        return (self.address, self.trust) if self.tls else self.address

    @classmethod
    def parse(cls, text: str, weight: int = 1) -> Backend:
        """Make one from text; see :func:`split_backend_address`.

        :raises ValueError: with a sentence that says what is wrong.
        """
        host, port, tls = split_backend_address(text)
        return cls(host, port, weight, tls)


class AppState(enum.Enum):
    """What an operator wants of an app."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    MAINTENANCE = "maintenance"


@attrs.frozen
class Timeouts:
    """How long each wait may last, in seconds (``[timeouts]``)."""

    connect: float = 5.0
    first_byte: float = 30.0
    idle: float = 60.0
    request_head: float = 10.0
    request_body: float = 30.0
    keep_alive: float = 60.0
    queue: float = 30.0
    drain: float = 30.0


@attrs.frozen
class Limits:
    """How much of each thing is admitted (``[limits]``)."""

    request_line_bytes: int = 8192
    head_bytes: int = 32768
    header_bytes: int = 8192
    body_bytes: int = 75_000_000
    client_connections: int = 10_000
    connections_per_address: int = 5_000
    handshakes_per_address: int = 100
    handshake_queue: int = 1_000
    in_flight_per_backend: int = 50
    queue_per_backend: int = 50


@attrs.frozen
class Health:
    """How backends are probed (``[health]``), and how they come back; times in seconds.

    :ivar path: what an HTTP probe asks for.
    :ivar host: its ``Host``; ``""`` is the app's first domain without a wildcard.
    :ivar status: the statuses that pass, as in ``"200-399"`` or ``"200,204"``.
    :ivar kind: ``"tcp"``, ``"http"`` or ``"tls"``; ``""``: what the path and the
        backend's address make of it.
    :ivar interval: between two probes of a backend that is up; 0: none.
    :ivar timeout: for one probe, connecting and answer together.
    :ivar rise: how many probes in a row must pass before a backend is up.
    :ivar fall: how many in a row must fail before it is down.
    :ivar slow_start: how long its share grows after it came back; 0: at once.
    """

    path: str = ""
    host: str = ""
    status: str = "200-399"
    kind: str = ""
    interval: float = 0.0
    timeout: float = 2.0
    rise: int = 1
    fall: int = 3
    slow_start: float = 0.0


@attrs.frozen
class ProbeResult:
    """What one probe of one backend found.

    :ivar reason: what was done and what happened, one sentence for people.
    :ivar url: what was probed.
    :ivar status: the status of an HTTP answer; 0 when there was none.
    :ivar seconds: from the first attempt to connect to the verdict.
    :ivar is_answer: the app itself answered, over HTTP; that a connection was
        accepted or a handshake completed says much less.
    :ivar is_inconclusive: the proxy could not make the probe, for want of
        descriptors or the like: nothing is known of the backend.
    """

    passed: bool
    reason: str
    url: str
    status: int = 0
    seconds: float = 0.0
    is_answer: bool = False
    is_inconclusive: bool = False


@attrs.frozen
class Quarantine:
    """How long a failing backend is left alone, in seconds (``[quarantine]``)."""

    first: float = 1.0
    max: float = 30.0


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _frozen_mapping(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value)) if value else _NOTHING


def _overrides() -> Any:
    return attrs.field(default=_NOTHING, converter=_frozen_mapping, hash=False)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _backends(values: Iterable[Backend | str]) -> tuple[Backend, ...]:
    return tuple(Backend.parse(value) if isinstance(value, str) else value for value in values)


@attrs.frozen
class App:
    """One app as configuration, admin API, store and feeds describe it.

    ``timeouts``, ``limits``, ``health`` and ``quarantine`` hold only what the
    app sets for itself; everything else comes from the proxy's defaults.

    :ivar name: unique; letters, digits, ``-``, ``_`` and ``.``.
    :ivar domains: normalised names; ``*.example.com`` matches one label.
    :ivar backends: where its containers listen; text is parsed.
    :ivar backend_tls: how backends that are asked over TLS are verified:
        ``ca`` and ``name`` of :class:`BackendTrust`.
    """

    name: str
    domains: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    backends: tuple[Backend, ...] = attrs.field(default=(), converter=_backends)
    tls: str = "terminate"
    force_https: bool = False
    canonical: str = ""
    balancer: str = "round_robin"
    state: AppState = attrs.field(default=AppState.RUNNING, converter=AppState)
    certificate: str | Mapping[str, str] = attrs.field(default="", hash=False)
    send_proxy: str = ""
    backend_tls: Mapping[str, str] = _overrides()
    error_pages: Mapping[str, Any] = _overrides()
    rate_limit: Mapping[str, Any] = _overrides()
    access: Mapping[str, Any] = _overrides()
    health: Mapping[str, Any] = _overrides()
    timeouts: Mapping[str, Any] = _overrides()
    limits: Mapping[str, Any] = _overrides()
    quarantine: Mapping[str, Any] = _overrides()

    def __attrs_post_init__(self) -> None:
        if any(backend.tls for backend in self.backends):
            trust = BackendTrust(**self.backend_tls)
            backends = (
                attrs.evolve(backend, trust=trust) if backend.tls else backend for backend in self.backends
            )
            object.__setattr__(self, "backends", tuple(backends))


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


@attrs.frozen
class Certificate:
    """A certificate with its key, ready to be served.

    Nothing but the name, the domains, the dates and the fingerprint is ever
    told to anybody.

    :ivar name: unique; what apps, the admin API and the metrics call it.
    :ivar chain: PEM, the server's own certificate first.
    :ivar key: PEM, not encrypted.
    :ivar domains: the names it covers, as an app's domains are written.
    :ivar not_before: seconds since the epoch.
    :ivar not_after: seconds since the epoch.
    :ivar fingerprint: SHA-256 of the server's own certificate, as ``AB:CD:…``.
    """

    name: str
    chain: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)
    domains: tuple[str, ...]
    not_before: float
    not_after: float
    fingerprint: str

    def covers(self, host: str) -> bool:
        """Whether *host*, lower case and without port, is one of its names (RFC 9525 §6.3)."""
        if host in self.domains:
            return "*" not in host
        first, dot, rest = host.partition(".")
        return bool(first and dot) and f"*.{rest}" in self.domains


@attrs.frozen
class CertificateChange:
    """What became different among certificates.

    :ivar updated: those that are new or exchanged.
    :ivar removed: names of those that are gone.
    """

    updated: tuple[Certificate, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.updated or self.removed)


class Outcome(enum.Enum):
    """How a lease ended: what the backend is judged by."""

    COMPLETED = "completed"
    CONNECT_FAILED = "connect-failed"
    CLOSED = "closed"
    BAD_RESPONSE = "bad-response"
    TIMED_OUT = "timed-out"
    #: The client's doing, or the proxy's own: the backend is not to blame.
    ABANDONED = "abandoned"


class Record:
    """What there is to tell of one exchange or tunnel, filled in as it goes.

    A plain slotted object, because one is made for every request.  Moments
    are on the proxy's monotonic clock; a moment that never came is ``None``.

    :ivar wall_time: when it began, seconds since the epoch.
    :ivar code: the reason code of an error of ours, or ``"-"``.
    :ivar cause: what exactly was wrong, one sentence, with that code.
    :ivar route: the Route that was resolved.
    :ivar lineup: the pool's members when it last chose: those that served, those
        that drained, and who of the former could not be chosen, with the reason.
    :ivar reused: whether the last attempt used a connection that was kept.
    :ivar sent_bytes: what the last attempt handed over for its backend.
    :ivar trail: what happened off the ordinary way (:mod:`scalingo_proxy.routing.trail`).
    """

    __slots__ = (
        "app",
        "attempts",
        "backend",
        "bytes_in",
        "bytes_out",
        "cause",
        "client",
        "code",
        "connect_seconds",
        "finished_at",
        "first_byte_at",
        "host",
        "lineup",
        "listener",
        "method",
        "path",
        "protocol",
        "queue_seconds",
        "referer",
        "request_id",
        "reused",
        "route",
        "sent_bytes",
        "started_at",
        "status",
        "tls",
        "trail",
        "user_agent",
        "wall_time",
    )

    def __init__(self, started_at: float, wall_time: float, client: str, listener: str) -> None:
        self.started_at = started_at
        self.wall_time = wall_time
        self.client = client
        self.listener = listener
        self.method = "-"
        self.host = "-"
        self.path = "-"
        self.protocol = "-"
        self.request_id = "-"
        self.app = ""
        self.backend = ""
        self.status = 0
        self.code = "-"
        self.bytes_in = 0
        self.bytes_out = 0
        self.attempts = 0
        self.queue_seconds = 0.0
        self.connect_seconds = 0.0
        self.first_byte_at: float | None = None
        self.finished_at: float | None = None
        self.tls = "-"
        self.referer = ""
        self.user_agent = ""
        self.cause = ""
        self.route: Route | None = None
        self.lineup: tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]] | None = None
        self.reused = False
        self.sent_bytes = 0
        self.trail: list[object] | None = None
