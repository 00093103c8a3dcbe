"""The door for TLS: passthrough and TLS that ends here, on one port."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, IProtocol

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import Route
from scalingo_proxy.protocols.draining_factory import DrainingFactory
from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.protocols.http2_frontend import HTTP2Frontend
from scalingo_proxy.protocols.http_frontend import HTTPFrontend
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_frontend import TLSFrontend
from scalingo_proxy.wire.http1_forwarding import ClientIdentity

__all__ = ["TLSProxyFactory"]


class TLSProxyFactory(DrainingFactory):
    """Serves TLS clients by the name in their hello; the app says where TLS ends.

    :param http: serves what comes out of TLS that ends here; resolver, pools
        and limits are those of its environment.
    :param contexts: what handshakes are made with; None: TLS never ends here,
        and an app that wants it to gets ``unrecognized_name``.
    :param default_app: the app of clients that give no name, or ``""``.
    """

    protocol_name = "tls"

    def __init__(
        self, http: HTTPProxyFactory, contexts: Contexts | None = None, *, default_app: str = ""
    ) -> None:
        super().__init__(http.env, http.listener)
        self.http = http
        self.contexts = contexts
        self._default_app = default_app

    @property
    def open_connections(self) -> int:
        """How many clients are connected through this door."""
        return super().open_connections + self.http.open_connections

    # -- called by Twisted ---------------------------------------------------

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.http.doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self.http.doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> TLSFrontend | None:
        return TLSFrontend(self) if self.has_room(addr) else None  # None: Twisted closes the connection

    def refusal(self, address: str, now: float) -> ProxyError | None:
        return self.env.handshakes.refusal(address, now) or super().refusal(address, now)

    def trusts(self, address: str) -> bool:
        return self.http.trusts(address)

    # -- called by the frontends ---------------------------------------------

    def identify(self, transport: Any) -> ClientIdentity:
        """Who is at the other end of *transport*."""
        return self.http.identify(transport, is_tls=True)

    def default_route(self) -> Route | None:
        """Who serves clients that give no name."""
        resolver: Any = self.env.resolver
        if not self._default_app or not IRouteFeed.providedBy(resolver):
            return None
        app = resolver.apps().get(self._default_app)
        return Route(app, "", getattr(resolver, "name", "")) if app is not None else None

    def build_http(self, alpn: str | None, identity: ClientIdentity) -> IProtocol:
        """The protocol inside a TLS connection that ended here."""
        kind: Any = HTTP2Frontend if alpn == "h2" else HTTPFrontend
        return kind(self.http, identity)  # type: ignore[no-any-return]

    # -- stopping ------------------------------------------------------------

    def drain(self, seconds: float) -> Deferred[Any]:
        """Let exchanges and tunnels under way finish for up to *seconds*, then cut them.

        :return: fires when no client is connected any more.
        """
        own = super().drain(seconds)  # first: who has not said a word yet goes on to the other
        return gatherResults([self.http.drain(seconds), own], consumeErrors=True)
