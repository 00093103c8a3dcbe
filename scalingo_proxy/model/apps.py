"""Apps and their backends, and what can be set of them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from scalingo_proxy.model.addresses import join_host_port, split_backend_address

__all__ = ["App", "AppState", "Backend", "BackendTrust", "Health", "Limits", "Quarantine", "Timeouts"]


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

    @property
    def takes_any_request(self) -> bool:
        """Whether it says nothing of who may ask it, how often, by which name and in which way."""
        return not (
            self.access
            or self.rate_limit
            or self.force_https
            or self.canonical
            or self.send_proxy
            or self.tls == "passthrough"
        )

    def __attrs_post_init__(self) -> None:
        if any(backend.tls for backend in self.backends):
            trust = BackendTrust(**self.backend_tls)
            backends = (
                attrs.evolve(backend, trust=trust) if backend.tls else backend for backend in self.backends
            )
            object.__setattr__(self, "backends", tuple(backends))
