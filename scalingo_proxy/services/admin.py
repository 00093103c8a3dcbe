"""The admin service: the API's listener, started and stopped with the proxy.

Puts the table of operations together and opens the endpoint; what the
operations do is in :mod:`scalingo_proxy.services.control`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from zope.interface import implementer

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.model import Certificate
from scalingo_proxy.protocols.tls_contexts import server_context
from scalingo_proxy.services.admin_apps import AppsApi
from scalingo_proxy.services.admin_backends import BackendsApi
from scalingo_proxy.services.admin_certificates import CertificatesApi
from scalingo_proxy.services.admin_connections import AdminConnections
from scalingo_proxy.services.admin_drain import DrainApi
from scalingo_proxy.services.admin_guards import token_in
from scalingo_proxy.services.admin_proxy import ProxyApi
from scalingo_proxy.services.admin_requests import AdminResource, AdminSite
from scalingo_proxy.services.admin_routes import AdminRoute, AdminRoutes
from scalingo_proxy.services.admin_sessions import Sessions
from scalingo_proxy.services.admin_traffic import TrafficApi
from scalingo_proxy.services.certificate_control import CertificateControl
from scalingo_proxy.services.control import Control
from scalingo_proxy.services.endpoint_strings import ListenEndpoint, parse_endpoint
from scalingo_proxy.services.listeners import Listener, ListenersService
from scalingo_proxy.services.status_pages import Door, StatusSite
from scalingo_proxy.services.status_site import status_pages
from scalingo_proxy.services.status_stream import StatusStreams
from scalingo_proxy.services.status_view import StatusView

__all__ = ["AdminService", "admin_routes"]

#: Seconds that stopping waits for the last answers to be taken.
_STOP_SECONDS = 1.0

#: Who may open a unix socket whose endpoint does not say: its owner.
_SOCKET_MODE = "600"


@implementer(IOpenSSLServerConnectionCreator)
class AdminService(Service):
    """Serves the admin API on one endpoint.

    :param endpoint: an ENDPOINT; one that other machines can reach needs a
        token, and a unix socket without a mode is its owner's alone.
    :param metrics_page: makes the metrics page, piece by piece.
    :param unready: tells why the proxy should get no traffic now, in
        sentences; none means that it is ready.
    :param facts: what ``/status`` tells beside the counts, JSON-shaped.
    :param token_file: holds the token that requests must carry; ``""``: none.
    :param allowed_hosts: names a client may use in ``Host`` beyond those of
        loopback.
    :param others: further lines of the table.
    :param certificate: serve it over TLS with this one.
    :param status: what the status page tells; without it there is none.
    :param explain: what became of the requests of an id, for the status page.
    :param warnings: tells what is wrong although traffic may come.
    :ivar routes: the whole table.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: ListenEndpoint | str,
        *,
        control: Control,
        certificates: CertificateControl,
        metrics_page: Callable[[], Iterable[str]],
        unready: Callable[[], Sequence[str]] = tuple,
        facts: Callable[[], Mapping[str, Any]] = dict,
        token_file: str = "",
        allowed_hosts: Collection[str] = (),
        others: Sequence[AdminRoute] = (),
        certificate: Certificate | None = None,
        status: StatusView | None = None,
        explain: Callable[[str], Sequence[Mapping[str, Any]]] = lambda request_id: (),
        warnings: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._certificate = certificate
        self._reactor = reactor
        self._endpoint = endpoint if isinstance(endpoint, str) else endpoint.text
        self._token_file = token_file
        self._token = ""
        self._context: SSL.Context | None = None
        self._listening: ListenersService | None = None
        if status is not None:
            others = [*TrafficApi(status).routes(), *others]
        self.routes = admin_routes(
            reactor, control, certificates, metrics_page, unready, facts, others, warnings
        )
        sessions = Sessions(lambda: self._token, reactor.seconds)
        api = AdminResource(
            self.routes,
            lambda: self._token,
            allowed_hosts,
            lambda request: status is not None and bool(site.session_of(request)),
        )
        streams = StatusStreams(reactor)
        root: Resource = api
        if status is not None:
            site = StatusSite(reactor, status, sessions, api.admit, api.has_token, lambda: bool(self._token))
            root = Door(api, status_pages(site, control, explain, streams))

        def end_waits() -> None:
            api.cancel_pending()
            streams.end_all()

        self._connections = AdminConnections(AdminSite(root, reactor), reactor, end_waits)

    @property
    def address(self) -> IAddress | None:
        """Where it listens, or ``None`` while it does not."""
        ports = () if self._listening is None else self._listening.ports
        return ports[0].address if ports else None

    def read_token(self) -> None:
        """Read the token again, so that it can be exchanged while running.

        :raises ConfigurationError: the file cannot be used; the token stays.
        """
        if self._token_file:
            try:
                self._token = token_in(self._token_file)
            except ValueError as error:
                raise _mistake(str(error), "token_file") from None

    @property
    def is_secured(self) -> bool:
        """Whether it is served over TLS."""
        return self._certificate is not None

    def use_certificate(self, certificate: Certificate | None) -> None:
        """Serve new connections with this one; whether there is TLS at all stays as it was at the start."""
        if certificate is not None and self._certificate is not None:
            self._certificate, self._context = certificate, None

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """An IOpenSSLServerConnectionCreator's one method."""
        if self._context is None:
            assert self._certificate is not None
            self._context = server_context(self._certificate, (b"http/1.1",))
        return SSL.Connection(self._context, None)

    def startService(self) -> None:
        """Open the endpoint.

        :raises ConfigurationError: when that cannot be done.
        """
        endpoint = _parsed(self._endpoint)
        if not (endpoint.is_local or self._token_file):
            raise _mistake(f"{endpoint.text} can be reached from elsewhere, so it needs a token_file")
        self.read_token()
        factory: IProtocolFactory = self._connections
        if self._certificate is not None:
            factory = TLSMemoryBIOFactory(self, False, factory)
        listener = Listener("admin", endpoint, factory, "admin.endpoint")
        listening = ListenersService(self._reactor, [listener], drain_seconds=_STOP_SECONDS)
        # Not before privileges are shed, so that a unix socket belongs to whom it is for.
        listening.startService()
        self._listening = listening
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Answer whoever still waits with 503, and close everything.

        Stop what drains before this, so that ``/ready`` can tell of it.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        return succeed(None) if listening is None else listening.stopService()


def admin_routes(
    reactor: IReactorTime,
    control: Control,
    certificates: CertificateControl,
    metrics_page: Callable[[], Iterable[str]],
    unready: Callable[[], Sequence[str]] = tuple,
    facts: Callable[[], Mapping[str, Any]] = dict,
    others: Sequence[AdminRoute] = (),
    warnings: Callable[[], Sequence[str]] = tuple,
) -> AdminRoutes:
    """The whole table of the API."""
    others = [
        *AppsApi(control, certificates).routes(),
        *BackendsApi(control).routes(),
        *DrainApi(control).routes(),
        *CertificatesApi(certificates).routes(),
        *others,
    ]
    proxy = ProxyApi(reactor, control, metrics_page, unready, facts, warnings)
    return AdminRoutes([*proxy.routes(others), *others])


def _parsed(text: str) -> ListenEndpoint:
    try:
        if text.startswith("unix:"):
            try:
                return parse_endpoint(f"{text}:mode={_SOCKET_MODE}")
            except ValueError:
                pass  # it names a mode itself, or has a mistake that is told below
        return parse_endpoint(text)
    except ValueError as error:
        raise _mistake(str(error)) from None


def _mistake(sentence: str, key: str = "endpoint") -> ConfigurationError:
    return ConfigurationError([Mistake(f"admin.{key}", sentence)])
