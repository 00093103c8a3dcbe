"""How a TLS connection of a client ends before it is anybody else's: refused, too late, left; once.

What cannot be served gets an alert that the client understands, and time to
read it.  What leads to the end is the business of
:mod:`scalingo_proxy.protocols.tls_frontend`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from scalingo_proxy.errors import (
    DrainTimeout,
    ProxyError,
    QueueFull,
    QueueTimeout,
    RequestTimeout,
    ResolverUnavailable,
)
from scalingo_proxy.model import Certificate, Record
from scalingo_proxy.protocols.client_connections import HANDSHAKE_SECONDS
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.downstream import UnderWay
from scalingo_proxy.protocols.http_ending import QUIET_SECONDS
from scalingo_proxy.protocols.tls_passthrough import Passthrough
from scalingo_proxy.wire.client_hello import ClientHello, ClientHelloReader
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.tls_alert import Alert

if TYPE_CHECKING:
    from scalingo_proxy.protocols.tls_factory import TLSProxyFactory

__all__ = ["Doing", "TLSEnding"]

#: How long a refused client may take to read why.
_LINGER_SECONDS = 2.0


class Doing(enum.Enum):
    """What the connection is doing."""

    HELLO = "reading the hello"
    RESOLVING = "finding the app"
    WAITING = "waiting for its turn"
    HANDED_OVER = "somebody else's"
    SILENT = "waiting for the first word behind a handshake"
    CLOSED = "closed"


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_HELLO, _HANDED_OVER = Doing.HELLO, Doing.HANDED_OVER


class TLSEnding(Protocol, Timed):
    """The ends of a client connection to a TLS listener.

    :param factory: what all connections of this door share.
    """

    transport: Any
    has_asked = False

    # What an ordinary connection has no use for, or has before anybody asks.
    _identity: ClientIdentity | None = None
    _record: Record | None = None
    _hello: ClientHello | None = None
    _resolving: Deferred[Any] | None = None
    #: When its handshake began.
    _began_at = 0.0
    #: What it shakes hands with, and what that came to.
    _certificate: Certificate
    _version = ""
    _is_cut = False
    #: What it is counted as.
    _kind = "tls"

    def __init__(self, factory: TLSProxyFactory) -> None:
        self._factory = factory
        self._env = factory.env
        self._doing = _HELLO
        #: Takes the hello where it does not come whole.
        self._reader: ClientHelloReader | None = None
        self._whole = b""
        #: What came behind it while its app was looked for.
        self._ahead: bytes | bytearray = b""
        #: Who has the connection once it is handed over: a tunnel, or a TLS engine.
        self._owner: Any = None
        self._is_accounted = False
        #: Whether the client has said all it will say.
        self._has_ended = False

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

    def closed(self) -> None:
        """The connection is gone, or counted as another kind from now on."""
        if not self._is_accounted:
            self._is_accounted = True
            self._env.deadlines.forget(self)
            self._factory.frontend_closed(self, self._kind)

    def begin_handshake(self) -> None:
        """TLS ends here, and it is this client's turn."""
        raise NotImplementedError

    def begin_http(self) -> Any:
        """The client says its first word, or may have to leave: what serves it is made."""
        raise NotImplementedError

    # -- refusing ------------------------------------------------------------

    def refuse(self, error: ProxyError, alert: Alert) -> None:
        """End the connection with an alert that the client understands."""
        self._refuse(error, self.hello.refusal(alert))

    def turn_away(self, error: ProxyError) -> None:
        """There are too many handshakes, its own or altogether."""
        self.refuse(error, Alert.INTERNAL_ERROR)

    def _refuse(self, error: ProxyError, words: bytes) -> None:
        if words:
            self.transport.write(words)
        self._end(error)
        self._close()

    def _end(self, error: ProxyError) -> None:
        """Nothing comes of this connection; tell why, once."""
        if self._doing in (Doing.CLOSED, _HANDED_OVER):
            return
        if self._doing is Doing.WAITING:
            self._env.handshakes.forget(self)
        self._doing = Doing.CLOSED
        if self._resolving is not None:
            resolving, self._resolving = self._resolving, None
            resolving.cancel()
        if self._whole or self._reader is not None:  # connected and said nothing: there is nothing to tell
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
        if self._doing is _HELLO:
            self._end(RequestTimeout("the hello did not arrive in time"))
            self.transport.abortConnection()
        elif self._doing is Doing.RESOLVING:
            self.refuse(ResolverUnavailable(), Alert.INTERNAL_ERROR)
        elif self._doing is Doing.WAITING:
            self.refuse(QueueTimeout("the TLS handshake had no turn in time"), Alert.INTERNAL_ERROR)
        elif self._doing is Doing.SILENT:
            self.leave()  # there is no request to answer
        elif self._owner is not None:
            self._owner.deadline_reached()
        else:
            self.transport.abortConnection()

    def leave(self) -> None:
        """Close in order a connection on which nothing was asked."""
        self._doing = Doing.CLOSED
        self._env.deadlines.clear(self)
        self._owner.loseConnection()

    def idle_since(self) -> float | None:
        """Since when a hello, a turn, the rest of a handshake, or a first word is waited for."""
        if self._doing is _HELLO or self._doing is Doing.WAITING:
            return self.record.started_at
        if self._doing is Doing.SILENT:
            return self.deadline - self._env.timeouts.request_head
        is_handshake = self._doing is _HANDED_OVER and not isinstance(self._owner, Passthrough)
        return self._began_at + HANDSHAKE_SECONDS if is_handshake else None

    def crawls(self, now: float) -> bool:
        """Its waits are bounded otherwise."""
        return False

    def give_up(self) -> None:
        """Close, to make room for others."""
        if self._doing is Doing.SILENT:
            self.leave()
            return
        if self._owner is not None:
            self._owner.deadline_reached()  # its handshake has taken too long
            return
        if self._doing is Doing.WAITING:  # in a crowd, then: others have their turn sooner
            self._end(QueueFull("the TLS handshake had had no turn when room was needed"))
        else:
            self._end(RequestTimeout("the hello was not there when room was needed"))
        self.transport.abortConnection()

    def drain(self) -> None:
        """The proxy stops: who is silent is waited for no longer than who has just come in needs."""
        if self._doing is Doing.SILENT:
            self.begin_http()  # which is drained with the others
        elif self._doing is _HELLO:
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
