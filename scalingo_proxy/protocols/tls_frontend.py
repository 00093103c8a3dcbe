"""One TLS connection of a client, until it is known whose it is.

Reads the hello without taking a byte away, finds the app by its name, and
hands the connection over: to a tunnel when the app speaks TLS itself, to a
TLS engine with HTTP inside when TLS ends here.  What cannot be served gets an
alert that the client understands (:mod:`scalingo_proxy.protocols.tls_ending`),
and no backend hears of it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import (
    BadRequest,
    ClientClosed,
    Denied,
    DrainTimeout,
    InternalError,
    ProxyError,
    ResolverUnavailable,
    UnknownHost,
)
from scalingo_proxy.model import Record, Route, RouteQuery
from scalingo_proxy.protocols.http_frontend import HTTPFrontend
from scalingo_proxy.protocols.silent_client import SilentClient
from scalingo_proxy.protocols.tls_ending import Doing, TLSEnding
from scalingo_proxy.protocols.tls_passthrough import Passthrough
from scalingo_proxy.protocols.tls_termination import terminate
from scalingo_proxy.wire.client_hello import TLS_1_2, ClientHello, ClientHelloReader, PlainHTTP
from scalingo_proxy.wire.error_answer import ErrorAnswer
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.known_hellos import known_hello
from scalingo_proxy.wire.tls_alert import Alert, HelloRefused

__all__ = ["TLSFrontend"]

_log = Logger()

#: What is read ahead while the app is looked up.
_READ_AHEAD_BYTES = 65536


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_HELLO, _RESOLVING, _HANDED_OVER = Doing.HELLO, Doing.RESOLVING, Doing.HANDED_OVER


@implementer(IHalfCloseableProtocol)
class TLSFrontend(TLSEnding):
    """The proxy's end of a client connection to a TLS listener.

    :param factory: what all connections of this door share.
    """

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        env, factory, transport = self._env, self._factory, self.transport
        self._identity = identity = factory.identify(transport)
        now = env.seconds()
        self._record = record = Record(now, env.wall_clock(), identity.peer, factory.listener)
        record.protocol = "tls"
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        factory.frontend_opened(self, "tls")
        env.deadlines.set(self, now + env.timeouts.request_head)
        if factory.is_draining:
            self.drain()  # it came in at the last moment

    def dataReceived(self, data: bytes) -> None:
        if self._doing is _HELLO:
            # Nearly all come whole, and need no reader (12 µs less, for one that is known).
            hello = known_hello(data) if self._reader is None and type(data) is bytes else None
            if hello is not None:
                self._whole = data
                self._hello_read(hello)
            else:
                self._receive_piece(data)
        elif self._owner is not None:
            self._owner.dataReceived(data)
        elif self._doing in (_RESOLVING, Doing.WAITING):
            if not self._ahead:
                self._ahead = bytearray()
            self._ahead += data
            if len(self._ahead) > _READ_AHEAD_BYTES:
                self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._owner):
            self._owner.readConnectionLost()
        elif self._doing is _RESOLVING:
            self._has_ended = True  # a tunnel can go on with that
        else:
            self._end(ClientClosed("the client left before its handshake began"))
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._owner):
            self._owner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._owner is not None:
            self._owner.connectionLost(reason)
        else:
            self._end(ClientClosed("the client left before its handshake began"))
            self.closed()

    # -- the hello -----------------------------------------------------------

    def _receive_piece(self, data: bytes) -> None:
        if self._reader is None:
            self._reader = ClientHelloReader()
        try:
            hello = self._reader.receive_piece(data)
        except PlainHTTP as refused:
            answer = ErrorAnswer(BadRequest(str(refused)), self._env.request_ids(), as_json=False)
            self._refuse(BadRequest(str(refused)), answer.http1(1, keep_alive=False, with_body=True))
        except HelloRefused as refused:
            self._refuse(BadRequest(str(refused)), refused.answer)
        else:
            if hello is not None:
                self._hello_read(hello)

    def _hello_read(self, hello: ClientHello) -> None:
        env, record = self._env, self._record
        assert record is not None
        self._hello = hello
        self._doing = _RESOLVING
        record.host = hello.server_name or "-"
        # Behind a trusted proxy it is not the peer whose address counts, but whom the requests name.
        if env.policies.access and not self.identity.trusted:
            try:
                env.policies.admit(record.client)
            except Denied as error:
                self.refuse(error, Alert.ACCESS_DENIED)
                return
        if not hello.server_name:
            default = self._factory.default_route()
            if default is None:
                self.refuse(UnknownHost("the client gave no server name"), Alert.UNRECOGNIZED_NAME)
            else:
                self._resolved(default)
            return
        route = env.route_at_once(hello.server_name)
        if route is not None:
            self._resolved(route)
            return
        try:
            answer = env.resolver.resolve(RouteQuery(hello.server_name, "tls", record.client))
        except ProxyError as error:
            self._refuse_resolution(error)
        except Exception:
            _log.failure("the resolver failed on {host!r}", host=hello.server_name)
            self._refuse_resolution(ResolverUnavailable())
        else:
            if type(answer) is Route:
                self._resolved(answer)
            else:
                self._resolving = answer
                env.deadlines.set(self, env.seconds() + env.timeouts.connect)
                answer.addCallbacks(self._resolved_later, self._unresolved)

    def _resolved_later(self, route: Route) -> None:
        self._resolving = None
        if self._doing is _RESOLVING:
            self._resolved(route)

    def _resolved(self, route: Route) -> None:
        record = self._record
        assert record is not None
        record.app = route.app.name
        record.route = route
        try:
            if route.app.tls == "passthrough":
                self._pass_through(route)
            else:
                self._ask_for_turn(route.app.name)
        except Exception:
            self._failed(route)

    def _unresolved(self, failure: Failure) -> None:
        self._resolving = None
        if self._doing is not _RESOLVING:
            return
        if isinstance(failure.value, ProxyError):
            self._refuse_resolution(failure.value)
        else:
            _log.failure("the resolver failed", failure)
            self._refuse_resolution(ResolverUnavailable())

    def _refuse_resolution(self, error: ProxyError) -> None:
        unknown = isinstance(error, UnknownHost)
        self.refuse(error, Alert.UNRECOGNIZED_NAME if unknown else Alert.INTERNAL_ERROR)

    # -- handing over --------------------------------------------------------

    @property
    def received(self) -> bytes:
        """Every byte that the client has sent so far."""
        received = self._whole if self._reader is None else self._reader.received
        return received + self._ahead

    def hand_over(self, owner: Any) -> None:
        """Everything the transport tells from now on is for *owner*.

        Where the transport allows it, nothing of this stays in the way.
        """
        transport = self.transport
        self._owner = owner
        self._doing = _HANDED_OVER
        if self._ahead and len(self._ahead) > _READ_AHEAD_BYTES and not self._has_ended:
            transport.resumeProducing()
        if getattr(transport, "protocol", None) is self:
            transport.protocol = owner

    def _pass_through(self, route: Route) -> None:
        hello, record = self._hello, self._record
        assert hello is not None and record is not None
        received = self._whole if not self._ahead and self._reader is None else self.received
        tunnel = Passthrough(self._env, self, self.transport, received, hello, record, self.closed)
        self.hand_over(tunnel)
        if self._has_ended:
            tunnel.readConnectionLost()
        tunnel.start_routed(route)

    def _ask_for_turn(self, app: str) -> None:
        if self._has_ended:  # in the middle of its handshake: it has left
            self._end(ClientClosed())
            self.transport.loseConnection()
            return
        env = self._env
        self._doing = Doing.WAITING
        env.deadlines.set(self, self.record.started_at + env.timeouts.request_head)
        address = self._factory.counted_address(self.transport.getPeer())
        env.handshakes.ask(self, address, app, env.limits)

    def begin_handshake(self) -> None:
        """TLS ends here, and it is this client's turn."""
        route = self.record.route
        assert route is not None
        try:
            self._terminate(route)
        except Exception:
            self._failed(route)

    def _failed(self, route: Route) -> None:
        _log.failure("a TLS connection for {app} could not be served", app=route.app.name)
        self.refuse(InternalError(), Alert.INTERNAL_ERROR)

    def _terminate(self, route: Route) -> None:
        hello, env = self.hello, self._env
        if hello.newest_version < TLS_1_2:
            self.refuse(
                BadRequest("the client speaks no version of TLS that is served"), Alert.PROTOCOL_VERSION
            )
            return
        contexts = self._factory.contexts
        found = contexts.find(hello.server_name, route.app) if contexts is not None else None
        if found is None:
            self.refuse(UnknownHost("no certificate covers this name"), Alert.UNRECOGNIZED_NAME)
            return
        self._certificate, context = found
        self._began_at = env.seconds()
        # It has until our own deadline, of which it is told.
        tls = terminate(env, self.transport, self.received, context, self._shaken, on_failed=self._not_shaken)
        self.hand_over(tls)

    def _not_shaken(self, error: ProxyError) -> None:
        self._account(DrainTimeout() if self._is_cut else error)
        self.closed()

    def _shaken(self, version: str, alpn: str | None) -> IProtocol:
        """The handshake is complete: from here on it counts as HTTP."""
        factory, env = self._factory, self._env
        self._version = version
        if alpn == "h2" or factory.is_draining:
            self.closed()
            return factory.build_http(alpn, self._http_identity())
        factory.kind_changed("tls", "http")
        self._kind, self._doing = "http", Doing.SILENT
        env.deadlines.set(self, env.seconds() + env.timeouts.request_head)
        return SilentClient(self)

    def begin_http(self) -> HTTPFrontend:
        """The client says its first word, or may have to leave: what serves it is made."""
        tls, until = self._owner, self.deadline
        self._kind, self._doing = "", _HANDED_OVER  # it is counted as what it is, and goes on to be
        self.closed()
        tls.wrappedProtocol = http = HTTPFrontend(self._factory.http, self._http_identity())
        http.take_over(tls)
        self._env.deadlines.set(http, until)
        return http

    def _http_identity(self) -> ClientIdentity:
        return self.identity.over_tls(self._version, self._certificate.covers)
