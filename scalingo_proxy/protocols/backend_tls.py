"""TLS towards a backend: a handshake before anybody is told of the connection.

The protocol inside sees an ordinary transport whose peer is the backend it
asked for, proven by its certificate, or it never hears of it.  Whom to trust
is the business of :mod:`scalingo_proxy.protocols.backend_trust`; nothing of
HTTP is known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import ConnectFailed
from scalingo_proxy.protocols.backend_trust import Expectation

__all__ = ["BackendTLSTransport", "TLSAttempt"]

_log = Logger()

#: Reasons of OpenSSL that mean: these bytes are no TLS at all.
_NO_TLS = {"wrong version number", "packet length too long", "http request", "record layer failure"}


class _NoFactory:
    """Stands where Twisted counts the wrappers of a factory; nobody counts these."""

    wrappedFactory = None

    def registerProtocol(self, protocol: object) -> None:
        """Nothing."""

    def unregisterProtocol(self, protocol: object) -> None:
        """Nothing."""


_NO_FACTORY: Any = _NoFactory()


@implementer(ISSLTransport)
class BackendTLSTransport(TLSMemoryBIOProtocol):
    """The client's end of one TLS connection.

    The backend's ``close_notify`` comes out as the end of a TCP stream does; a
    stream that ends without one is a lost connection, whatever it carried.

    :param inner: who speaks over it; may be exchanged while it lives.
    """

    transport: Any
    wrappedProtocol: Any

    def __init__(self, expectation: Expectation, inner: Protocol, judged: Callable[[str], None]) -> None:
        super().__init__(_NO_FACTORY, inner, _connectWrapped=False)  # type: ignore[no-untyped-call]
        self._expectation = expectation
        self._judged = judged
        self._has_ended = False
        #: Sent before the handshake, in clear.
        self.preface = b""

    def makeConnection(self, transport: Any) -> None:
        """Begin the handshake."""
        self._tlsConnection = self._expectation.begin(self, self._judged)
        self._appSendBuffer: list[bytes] = []
        Protocol.makeConnection(self, transport)  # type: ignore[no-untyped-call]
        if self.preface:
            transport.write(self.preface)
        self._checkHandshakeStatus()  # type: ignore[no-untyped-call]

    def getHandle(self) -> Any:
        """The socket, which tells whether the peer has gone."""
        return self.transport.getHandle()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        """Tell of ``close_notify`` when it comes, not when the TCP connection is gone, too."""
        connection: SSL.Connection | None = self._tlsConnection
        if self._has_ended or connection is None:
            return
        if connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
            self._has_ended = True
            if self._handshakeDone and not self._aborted:
                inner = IHalfCloseableProtocol(self.wrappedProtocol, None)
                if inner is not None:
                    inner.readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # What happens to TCP after close_notify changes nothing of what was said.
        super().connectionLost(Failure(CONNECTION_DONE) if self._has_ended else reason)  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        """Close at once.  No ``close_notify``: the backend must not take the stream for complete."""
        self._aborted = self.disconnecting = True
        self.transport.abortConnection()


@implementer(IHandshakeListener)
class TLSAttempt(Protocol):
    """One attempt: the TCP connection, then the handshake, within one time.

    :ivar transport_protocol: what is to be connected over TCP.

    :param protocol: told of the connection when it is proven to be the right one;
        its ``preface``, if it has one, goes before the handshake.
    :param timeout: seconds for all of it, from now.
    :param failed: told of everything else.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        expectation: Expectation,
        protocol: Protocol,
        timeout: float,
        failed: Callable[[Failure], None],
    ) -> None:
        self.transport_protocol = BackendTLSTransport(expectation, self, self._judged)
        self.transport_protocol.preface = getattr(protocol, "preface", b"")
        self._protocol = protocol
        self._failed: Callable[[Failure], None] | None = failed
        self._complaint: str | None = None
        self._connecting: Callable[[], None] | None = None
        self._timeout = reactor.callLater(timeout, self._timed_out)

    def connect(self, connecting: Callable[[], None]) -> Callable[[], None]:
        """Take over an attempt over TCP, given by what abandons it; gives what abandons both."""
        self._connecting = connecting
        return self.abandon

    def connect_failed(self, reason: Failure) -> None:
        """There is no TCP connection to begin with."""
        self._end(reason)

    def abandon(self) -> None:
        """Nobody wants the connection any more; means nothing once it was handed over."""
        if self._failed is not None:
            self._failed = None
            self._stop()

    # -- called by the transport ---------------------------------------------

    def _judged(self, complaint: str) -> None:
        self._complaint = self._complaint or complaint

    def handshakeCompleted(self) -> None:
        """Hand the connection over, if its certificate was seen and is right."""
        if self._failed is None:
            return
        if self._complaint != "":
            self._fail(self._sentence(None))
            return
        self._failed = None
        self._timeout.cancel()
        transport = self.transport_protocol
        transport.wrappedProtocol = self._protocol
        self._protocol.makeConnection(transport)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The handshake came to no good end."""
        self._fail(self._sentence(reason.value))

    # -- failure -------------------------------------------------------------

    def _timed_out(self) -> None:
        is_connected = self.transport_protocol.transport is not None
        what = "TLS handshake with" if is_connected else "connection to"
        self._fail(f"the {what} the backend took too long")

    def _sentence(self, error: Any) -> str:
        """What went wrong, without a byte of the peer's."""
        if self._complaint:
            return f"the backend's certificate {self._complaint}"
        reasons = {str(item[-1]) for item in error.args[0]} if _is_ssl_error(error) else set()
        if reasons & _NO_TLS:
            return "the TLS handshake with the backend failed: it does not answer in TLS"
        return "the TLS handshake with the backend failed"

    def _fail(self, sentence: str) -> None:
        self._end(Failure(ConnectFailed(sentence)))  # type: ignore[no-untyped-call]

    def _end(self, reason: Failure) -> None:
        failed, self._failed = self._failed, None
        self._stop()
        if failed is not None:
            failed(reason)

    def _stop(self) -> None:
        if self._timeout.active():
            self._timeout.cancel()
        connecting, self._connecting = self._connecting, None
        if self.transport_protocol.transport is not None:
            self.transport_protocol.abortConnection()
        elif connecting is not None:
            connecting()


def _is_ssl_error(error: Any) -> bool:
    return isinstance(error, SSL.Error) and bool(error.args) and isinstance(error.args[0], list)
