"""Two little web servers to look at the proxy with, on ports of their own.

What ``--demo`` serves when nothing else is there yet; not meant for more.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from scalingo_proxy.model import App
from scalingo_proxy.resolvers.memory import MemoryResolver

__all__ = ["DEMO_APP", "DEMO_DOMAIN", "DemoBackends"]

DEMO_APP = "hello"
DEMO_DOMAIN = "hello.localhost"
_COUNT = 2


class DemoBackends(Service):
    """Listens on loopback and tells a resolver of itself.

    :param reactor: an IReactorTCP.
    :param resolver: learns of the app ``hello`` when the servers are up.
    """

    name = "demo"

    def __init__(self, reactor: Any, resolver: MemoryResolver) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._ports: list[Any] = []

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        for number in range(1, _COUNT + 1):
            site = _SilentSite(_Hello(f"demo-{number}"))  # type: ignore[no-untyped-call]
            self._ports.append(self._reactor.listenTCP(0, site, interface="127.0.0.1"))
        backends = [f"127.0.0.1:{port.getHost().port}" for port in self._ports]
        self._resolver.set_app(App(name=DEMO_APP, domains=[DEMO_DOMAIN], backends=backends))

    def stopService(self) -> Deferred[Any]:
        super().stopService()  # type: ignore[no-untyped-call]
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])


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
