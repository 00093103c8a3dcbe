"""Little servers to look at the proxy with, on ports of their own.

What ``--demo`` serves when nothing else is there yet; not meant for more: two
web servers behind HTTP and HTTPS that ends at the proxy, and one that speaks
TLS itself, behind passthrough.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from OpenSSL import crypto
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.ssl import CertificateOptions
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from scalingo_proxy.model import App
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_certificates import load_certificate
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.services.demo_authority import DEMO_FOLDER, demo_authority

__all__ = ["DEMO_APP", "DEMO_DOMAIN", "SEALED_APP", "SEALED_DOMAIN", "DemoBackends"]

DEMO_APP, DEMO_DOMAIN = "hello", "hello.localhost"
#: The app whose TLS passes through.
SEALED_APP, SEALED_DOMAIN = "sealed", "sealed.localhost"
_COUNT = 2


class DemoBackends(Service):
    """Listens on loopback, and tells a resolver of itself and an index of its certificate.

    :param reactor: an IReactorTCP and IReactorSSL.
    :param resolver: learns of the apps when the servers are up.
    :param certificates: gets the certificate of the app whose TLS ends at the proxy.
    :param folder: where the demo's own authority is kept.
    :param wall_clock: seconds since the epoch.
    """

    name = "demo"

    def __init__(
        self,
        reactor: Any,
        resolver: MemoryResolver,
        certificates: CertificateIndex,
        folder: str = DEMO_FOLDER,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._certificates = certificates
        self._folder = folder
        self._wall_clock = wall_clock
        self._ports: list[Any] = []

    def startService(self) -> None:
        """Open the servers.

        :raises ConfigurationError: the authority cannot be kept.
        """
        super().startService()  # type: ignore[no-untyped-call]
        now = self._wall_clock()
        authority = demo_authority(self._folder, self._wall_clock)
        chain, key = authority.issue([DEMO_DOMAIN, f"*.{DEMO_DOMAIN}"], now)
        self._certificates.set(load_certificate(f"demo:{DEMO_DOMAIN}", chain, key, now))
        plain = [self._listen(f"demo-{number}") for number in range(1, _COUNT + 1)]
        self._resolver.set_app(App(name=DEMO_APP, domains=[DEMO_DOMAIN], backends=plain))
        sealed = self._listen("demo-sealed", _tls_options(*authority.issue([SEALED_DOMAIN], now)))
        self._resolver.set_app(
            App(name=SEALED_APP, domains=[SEALED_DOMAIN], backends=[sealed], tls="passthrough")
        )

    def stopService(self) -> Deferred[Any]:
        super().stopService()  # type: ignore[no-untyped-call]
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])

    def _listen(self, name: str, tls: Any = None) -> str:
        """One server; its address."""
        site = _SilentSite(_Hello(name))  # type: ignore[no-untyped-call]
        if tls is None:
            port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
        else:
            port = self._reactor.listenSSL(0, site, tls, interface="127.0.0.1")
        self._ports.append(port)
        return f"127.0.0.1:{port.getHost().port}"


def _tls_options(chain: bytes, key: bytes) -> Any:
    return CertificateOptions(
        privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, key),
        certificate=crypto.load_certificate(crypto.FILETYPE_PEM, chain),
    )


class _SilentSite(Site):
    """Leaves the log to the proxy, which tells of the same requests."""

    noisy = False

    def log(self, request: object) -> None:
        """Nothing."""


class _Hello(Resource):
    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name

    def render(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")  # type: ignore[no-untyped-call]
        request_id = request.getHeader(b"X-Request-ID") or b"-"
        return b"hello from %b (request %b)\n" % (self._name.encode(), request_id)
