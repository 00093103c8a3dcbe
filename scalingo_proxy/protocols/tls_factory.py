"""The door for TLS: passthrough and TLS that ends here, on one port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory

from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import Route
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.protocols.http2_frontend import HTTP2Frontend
from scalingo_proxy.protocols.http_frontend import HTTPFrontend
from scalingo_proxy.protocols.secured import Secured
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_frontend import TLSFrontend
from scalingo_proxy.protocols.tls_termination import Negotiated
from scalingo_proxy.wire.http1_forwarding import ClientIdentity

__all__ = ["TLSProxyFactory"]


class TLSProxyFactory(Factory):
    """Serves TLS clients by the name in their hello; the app says where TLS ends.

    :param http: serves what comes out of TLS that ends here; resolver, pools
        and limits are those of its environment.
    :param contexts: what handshakes are made with; None: TLS never ends here,
        and an app that wants it to gets ``unrecognized_name``.
    :param default_app: the app of clients that give no name, or ``""``.
    """

    noisy = False

    def __init__(
        self, http: HTTPProxyFactory, contexts: Contexts | None = None, *, default_app: str = ""
    ) -> None:
        self.http = http
        self.env: Environment = http.env
        self.contexts = contexts
        self.listener = http.listener
        self._default_app = default_app
        self._frontends: dict[TLSFrontend, None] = {}
        self._drained: Deferred[None] | None = None
        self._drain_timer: Any = None

    @property
    def open_connections(self) -> int:
        """How many clients are connected through this door."""
        return len(self._frontends) + self.http.open_connections

    # -- called by Twisted ---------------------------------------------------

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.http.doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self.http.doStop()  # type: ignore[no-untyped-call]

    def startFactory(self) -> None:
        self.env.begin(self)

    def stopFactory(self) -> None:
        if not self._frontends:
            self.env.end(self)

    def buildProtocol(self, addr: IAddress | None) -> TLSFrontend | None:
        if self.env.client_connections >= self.env.limits.client_connections:
            self.env.connection_opened(self.listener, "refused")
            self.env.connection_closed(self.listener, "refused")
            return None  # Twisted closes the connection
        return TLSFrontend(self)

    # -- called by the frontends ---------------------------------------------

    def identify(self, transport: Any) -> ClientIdentity:
        """Who is at the other end of *transport*."""
        return self.http.identify(transport)

    def default_route(self) -> Route | None:
        """Who serves clients that give no name."""
        resolver: Any = self.env.resolver
        if not self._default_app or not IRouteFeed.providedBy(resolver):
            return None
        app = resolver.apps().get(self._default_app)
        return Route(app, "", getattr(resolver, "name", "")) if app is not None else None

    def build_http(self, negotiated: Negotiated, covers: Callable[[str], bool]) -> IProtocol:
        """The protocol inside a TLS connection that ended here."""
        secured = Secured(negotiated.version, covers)
        frontend: Any = HTTPFrontend(self.http, secured)
        if negotiated.alpn == "h2":
            frontend = HTTP2Frontend(self.http, secured=secured)
        return frontend  # type: ignore[no-any-return]

    def frontend_opened(self, frontend: TLSFrontend, kind: str) -> None:
        self._frontends[frontend] = None
        self.env.client_connections += 1
        self.env.connection_opened(self.listener, kind)

    def frontend_closed(self, frontend: TLSFrontend, kind: str) -> None:
        self._frontends.pop(frontend, None)
        self.env.client_connections -= 1
        self.env.connection_closed(self.listener, kind)
        if not self._frontends:
            if not self.numPorts:
                self.env.end(self)
            self._end_drain()

    # -- stopping ------------------------------------------------------------

    def drain(self, seconds: float) -> Deferred[Any]:
        """Let exchanges and tunnels under way finish for up to *seconds*, then cut them.

        :return: fires when no client is connected any more.
        """
        return gatherResults([self.http.drain(seconds), self._drain_own(seconds)])

    def _drain_own(self, seconds: float) -> Deferred[None]:
        for frontend in list(self._frontends):
            frontend.drain()
        if not self._frontends:
            return succeed(None)
        if self._drained is None:
            self._drained = Deferred()
            self._drain_timer = self.env.reactor.callLater(seconds, self._cut)
        waiter: Deferred[None] = Deferred()
        self._drained.addCallback(lambda _: waiter.callback(None))
        return waiter

    def _cut(self) -> None:
        for frontend in list(self._frontends):
            frontend.cut()

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        timer, self._drain_timer = self._drain_timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if drained is not None:
            drained.callback(None)
