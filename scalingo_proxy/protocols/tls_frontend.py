"""One TLS connection of a client, until it is known whose it is.

Reads the hello without taking a byte away, finds the app by its name, and
hands the connection over: to a tunnel when the app speaks TLS itself, to a
TLS engine with HTTP inside when TLS ends here.  What cannot be served gets an
alert that the client understands, and no backend hears of it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
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
    QueueFull,
    QueueTimeout,
    RequestTimeout,
    ResolverUnavailable,
    UnknownHost,
)
from scalingo_proxy.model import Record, Route, RouteQuery
from scalingo_proxy.protocols.client_connections import HANDSHAKE_SECONDS
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.downstream import UnderWay
from scalingo_proxy.protocols.http_ending import QUIET_SECONDS
from scalingo_proxy.protocols.tls_passthrough import Passthrough
from scalingo_proxy.protocols.tls_termination import terminate
from scalingo_proxy.wire.client_hello import TLS_1_2, ClientHello, ClientHelloReader, PlainHTTP
from scalingo_proxy.wire.error_answer import ErrorAnswer
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.tls_alert import Alert, HelloRefused

if TYPE_CHECKING:
    from scalingo_proxy.protocols.tls_factory import TLSProxyFactory

__all__ = ["TLSFrontend"]

_log = Logger()

#: What is read ahead while the app is looked up.
_READ_AHEAD_BYTES = 65536

#: How long a refused client may take to read why.
_LINGER_SECONDS = 2.0


class _Doing(enum.Enum):
    """What the connection is doing."""

    HELLO = "reading the hello"
    RESOLVING = "finding the app"
    WAITING = "waiting for its turn"
    HANDED_OVER = "somebody else's"
    CLOSED = "closed"


@implementer(IHalfCloseableProtocol)
class TLSFrontend(Protocol, Timed):
    """The proxy's end of a client connection to a TLS listener.

    :param factory: what all connections of this door share.
    """

    transport: Any
    has_asked = False

    def __init__(self, factory: TLSProxyFactory) -> None:
        self._factory = factory
        self._env = factory.env
        self._doing = _Doing.HELLO
        self._reader = ClientHelloReader()
        self._hello: ClientHello | None = None
        self._ahead = bytearray()
        self._identity: ClientIdentity | None = None
        self._record: Record | None = None
        self._resolving: Deferred[Any] | None = None
        #: Who has the connection once it is handed over: a tunnel, or a TLS engine.
        self._owner: Any = None
        self._is_accounted = False
        #: When its handshake began.
        self._began_at = 0.0
        #: Whether the client has said all it will say.
        self._has_ended = False
        self._is_cut = False

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        env = self._env
        self._identity = identity = self._factory.identify(self.transport)
        self._record = record = Record(env.seconds(), env.wall_clock(), identity.peer, self._factory.listener)
        record.protocol = "tls"
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._factory.frontend_opened(self, "tls")
        env.deadlines.set(self, record.started_at + env.timeouts.request_head)
        if self._factory.is_draining:
            self.drain()  # it came in at the last moment

    def dataReceived(self, data: bytes) -> None:
        if self._owner is not None:
            self._owner.dataReceived(data)
        elif self._doing is _Doing.HELLO:
            self._receive_hello(data)
        elif self._doing in (_Doing.RESOLVING, _Doing.WAITING):
            self._ahead += data
            if len(self._ahead) > _READ_AHEAD_BYTES:
                self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._owner):
            self._owner.readConnectionLost()
        elif self._doing is _Doing.RESOLVING:
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

    def _receive_hello(self, data: bytes) -> None:
        try:
            hello = self._reader.receive(data)
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
        self._doing = _Doing.RESOLVING
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
                answer.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, route: Route) -> None:
        self._resolving = None
        if self._doing is not _Doing.RESOLVING:
            return
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
        if self._doing is not _Doing.RESOLVING:
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
        return self._reader.received + bytes(self._ahead)

    @property
    def hello(self) -> ClientHello:
        """The hello, once it was read."""
        assert self._hello is not None
        return self._hello

    @property
    def identity(self) -> ClientIdentity:
        """Who the client is."""
        assert self._identity is not None
        return self._identity

    @property
    def record(self) -> Record:
        """What is told of this connection if no HTTP request comes of it."""
        assert self._record is not None
        return self._record

    def hand_over(self, owner: Any) -> None:
        """Everything the transport tells from now on is for *owner*.

        Where the transport allows it, nothing of this stays in the way.
        """
        self._owner = owner
        self._doing = _Doing.HANDED_OVER
        if len(self._ahead) > _READ_AHEAD_BYTES and not self._has_ended:
            self.transport.resumeProducing()
        if getattr(self.transport, "protocol", None) is self:
            self.transport.protocol = owner

    def closed(self) -> None:
        """The connection is gone, or counted as another kind from now on."""
        if not self._is_accounted:
            self._is_accounted = True
            self._env.deadlines.forget(self)
            self._factory.frontend_closed(self, "tls")

    def _pass_through(self, route: Route) -> None:
        tunnel = Passthrough(
            self._env, self, self.transport, self.received, self.hello, self.record, over=self.closed
        )
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
        self._doing = _Doing.WAITING
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

    def turn_away(self, error: ProxyError) -> None:
        """There are too many handshakes, its own or altogether."""
        self.refuse(error, Alert.INTERNAL_ERROR)

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
        certificate, context = found

        def build_inner(version: str, alpn: str | None) -> IProtocol:
            self.closed()  # from here on it counts as HTTP
            identity = self.identity
            identity.tls, identity.covers = version, certificate.covers
            return self._factory.build_http(alpn, identity)

        def failed(error: ProxyError) -> None:
            self._account(DrainTimeout() if self._is_cut else error)
            self.closed()

        self._began_at = env.seconds()
        # It has until our own deadline, of which it is told.
        tls = terminate(env, self.transport, self.received, context, build_inner, on_failed=failed)
        self.hand_over(tls)

    # -- refusing ------------------------------------------------------------

    def refuse(self, error: ProxyError, alert: Alert) -> None:
        """End the connection with an alert that the client understands."""
        self._refuse(error, self.hello.refusal(alert))

    def _refuse(self, error: ProxyError, words: bytes) -> None:
        if words:
            self.transport.write(words)
        self._end(error)
        self._close()

    def _end(self, error: ProxyError) -> None:
        """Nothing comes of this connection; tell why, once."""
        if self._doing in (_Doing.CLOSED, _Doing.HANDED_OVER):
            return
        if self._doing is _Doing.WAITING:
            self._env.handshakes.forget(self)
        self._doing = _Doing.CLOSED
        if self._resolving is not None:
            resolving, self._resolving = self._resolving, None
            resolving.cancel()
        if self._reader.received:  # connected and said nothing: there is nothing to tell
            self._account(error)

    def _account(self, error: ProxyError) -> None:
        self._env.refused(self.record, error)

    def _close(self) -> None:
        """Close; a client that still sends must not lose the alert to a reset."""
        env = self._env
        env.deadlines.set(self, env.seconds() + _LINGER_SECONDS)
        self.transport.resumeProducing()
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    # -- ends ----------------------------------------------------------------

    def deadline_reached(self) -> None:
        """The hello, or the app, took too long."""
        if self._doing is _Doing.HELLO:
            self._end(RequestTimeout("the hello did not arrive in time"))
            self.transport.abortConnection()
        elif self._doing is _Doing.RESOLVING:
            self.refuse(ResolverUnavailable(), Alert.INTERNAL_ERROR)
        elif self._doing is _Doing.WAITING:
            self.refuse(QueueTimeout("the TLS handshake had no turn in time"), Alert.INTERNAL_ERROR)
        elif self._owner is not None:
            self._owner.deadline_reached()
        else:
            self.transport.abortConnection()

    def idle_since(self) -> float | None:
        """Since when a hello, a turn, or the rest of a handshake is waited for."""
        if self._doing is _Doing.HELLO or self._doing is _Doing.WAITING:
            return self.record.started_at
        is_handshake = self._doing is _Doing.HANDED_OVER and not isinstance(self._owner, Passthrough)
        return self._began_at + HANDSHAKE_SECONDS if is_handshake else None

    def crawls(self, now: float) -> bool:
        """Its waits are bounded otherwise."""
        return False

    def give_up(self) -> None:
        """Close, to make room for others."""
        if self._owner is not None:
            self._owner.deadline_reached()  # its handshake has taken too long
            return
        if self._doing is _Doing.WAITING:  # in a crowd, then: others have their turn sooner
            self._end(QueueFull("the TLS handshake had had no turn when room was needed"))
        else:
            self._end(RequestTimeout("the hello was not there when room was needed"))
        self.transport.abortConnection()

    def drain(self) -> None:
        """The proxy stops: who is silent is waited for no longer than who has just come in needs."""
        if self._doing is _Doing.HELLO:
            env = self._env
            until = self.record.started_at + QUIET_SECONDS
            if until > env.seconds():
                env.deadlines.set(self, until)
            else:
                self._end(DrainTimeout())
                self.transport.loseConnection()

    def under_way(self) -> tuple[UnderWay, ...]:
        """The tunnel that this became, if it has."""
        owner = self._owner
        return (owner,) if isinstance(owner, Passthrough) else ()

    def cut(self) -> None:
        """The proxy stops and waits no longer."""
        self._is_cut = True
        owner = self._owner
        if owner is not None and hasattr(owner, "cut"):
            owner.cut()
        else:
            self._end(DrainTimeout())
            self.transport.abortConnection()
