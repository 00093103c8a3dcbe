"""TLS ended here: the transport that an HTTP protocol sees instead of the TCP one.

Twisted's :class:`~twisted.protocols.tls.TLSMemoryBIOProtocol` with the ends of
a connection made fit for an edge: nobody waits for ever for a client's
``close_notify``, an aborted stream never looks complete, each direction may end
on its own, and records that carry nothing do not go on for ever.  Knows no
certificate and no HTTP.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.progress import SendProgress

__all__ = ["NoCommonProtocol", "TLSTransport", "count_records"]

#: Behind our last record the client's bytes are thrown away, for so long and
#: so many; closing at once would reset the connection and could take an answer
#: or an alert with it.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * 1024 * 1024

#: What a client may send without one byte of application data in it: key
#: updates, empty records, warnings, attempts to renegotiate.
_EMPTY_BYTES = 65536

#: A record has no more, and no read more than a record.
_READ_BYTES = 16384


class NoCommonProtocol(Exception):
    """For a context's choice among ALPN offers to raise: none of them is spoken here (RFC 7301 §3.2)."""


class _NoFactory:
    """Stands where Twisted counts the wrappers of a factory; nobody counts these."""

    def registerProtocol(self, protocol: object) -> None:
        """Nothing."""

    def unregisterProtocol(self, protocol: object) -> None:
        """Nothing."""


_NO_FACTORY: Any = _NoFactory()

_RECORD_HEADER_BYTES = 5


@implementer(IHalfCloseableProtocol)
class TLSTransport(TLSMemoryBIOProtocol, Timed):
    """The server's end of one TLS connection.

    A protocol on a TCP-like transport, and the transport of the protocol
    inside, which may be exchanged while the connection lives.  A protocol
    inside that can half-close learns of the client's ``close_notify`` as of
    the end of a TCP stream; a stream that ends without one is a lost connection.

    :ivar is_late: the handshake was not finished by its deadline.

    :param env: the deadlines and their clock.
    :param context: what the handshake is made with.
    :param inner: told of the handshake's end when it provides
        IHandshakeListener; its ``makeConnection`` is not called.
    """

    transport: Any
    wrappedProtocol: Any

    def __init__(self, env: Environment, context: SSL.Context, inner: IProtocol) -> None:
        super().__init__(_NO_FACTORY, inner, _connectWrapped=False)  # type: ignore[no-untyped-call]
        self.is_late = False
        self._context = context
        self._env = env
        self._empty_bytes = 0
        self._lingered = 0
        self._reading_is_over = False
        self._writing_is_over = False
        #: Nothing is told to the protocol inside any more but the end.
        self._is_over = False
        #: Whether what was received ends where a record ends, as far as it was followed.
        self._is_aligned = True
        #: How many records are all that can be read now; 0: unknown.
        self._records = 0
        self._progress = SendProgress()

    @property
    def connection(self) -> SSL.Connection:
        """What OpenSSL knows of it, while it is connected."""
        connection: SSL.Connection = self._tlsConnection
        return connection

    # -- called by the transport below ---------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Begin as the server; the client speaks first."""
        self._tlsConnection = connection = SSL.Connection(self._context)
        connection.set_accept_state()
        self._appSendBuffer: list[bytes] = []
        Protocol.makeConnection(self, transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.abortConnection()
            return
        self._empty_bytes += len(data)
        self._records = count_records(data) if self._is_aligned else 0
        self._is_aligned = self._records > 0
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self._empty_bytes > _EMPTY_BYTES and self._handshakeDone:
            self.abortConnection()

    def readConnectionLost(self) -> None:
        """The client's stream has ended below TLS, for those who tell of that apart from the rest."""
        if self._is_over or self._reading_is_over:
            self.loseConnection()
            self.transport.loseConnection()
        else:
            self.abortConnection()  # cut short: it was not said that this is all

    def writeConnectionLost(self) -> None:
        """Our last record has gone out."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._env.deadlines.forget(self)
        if not (self._is_over or self._reading_is_over) and reason.check(ConnectionDone):  # type: ignore[no-untyped-call]
            reason = Failure(ConnectionLost())  # type: ignore[no-untyped-call]
        inner, self.wrappedProtocol = self.wrappedProtocol, None
        reason, self._reason = self._reason or reason, None
        self._is_over = self._writing_is_over = self._lostTLSConnection = True
        self.connected = 0
        self._producer = None
        # Broken here: the connection's callbacks lead back to us.
        self._tlsConnection = None  # type: ignore[assignment]
        inner.connectionLost(reason)

    def _checkHandshakeStatus(self) -> None:
        try:
            super()._checkHandshakeStatus()  # type: ignore[no-untyped-call]
        except NoCommonProtocol:
            self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
        if self._handshakeDone:
            self._empty_bytes = 0  # a hello may be long

    def _flushReceiveBIO(self) -> None:
        connection, records = self._tlsConnection, self._records
        while not (self._is_over or self._reading_is_over):
            try:
                data = connection.recv(_READ_BYTES)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self._client_closed()
            except SSL.Error:
                self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
            else:
                self._empty_bytes = 0
                self.wrappedProtocol.dataReceived(data)
                records -= 1
                if not records:
                    break  # each gives its content once: asking again costs as much as reading
        if not self._is_over:
            self._flushSendBIO()  # type: ignore[no-untyped-call]

    def _client_closed(self) -> None:
        self._reading_is_over = True
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readConnectionLost()
        else:
            self.disconnecting = True
            self._shutdownTLS()
            self.transport.loseConnection()

    # -- called by the protocol inside ---------------------------------------

    def write(self, data: bytes) -> None:
        if not self._writing_is_over:
            super().write(data)  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:
        """Send ``close_notify`` behind what is written, and go on reading."""
        if self.connected and self._handshakeDone:
            self._end_writing()

    def loseConnection(self) -> None:
        """Close behind what is written; a producer that is paused is waited for.

        The client gets a moment to close as well.
        """
        if self.disconnecting or not self.connected:
            return
        if not self._handshakeDone:
            self.abortConnection()
            return
        self.disconnecting = True
        if self._producer is None or not self._producer._producerPaused:
            self._shutdownTLS()

    def abortConnection(self) -> None:
        """Close at once.  No ``close_notify``: the client must not take the stream for complete."""
        self._aborted = self._is_over = True
        self.disconnecting = True
        self.transport.abortConnection()

    # -- ends ----------------------------------------------------------------

    def _shutdownTLS(self) -> None:
        """Nothing more is written or read inside: wait for the client to close too, but not for long."""
        if not self._is_over:
            self._end_writing()
            self._is_over = True
            self._end_soon()

    def _tlsShutdownFinished(self, reason: Failure) -> None:
        """OpenSSL has given up: its alert goes out, and inside they hear *reason* in the end."""
        self._reason = self._reason or reason
        self._lostTLSConnection = True
        self._flushSendBIO()  # type: ignore[no-untyped-call]
        self._end_writing()
        self._is_over = True
        self._end_soon()

    def _end_writing(self) -> None:
        """End our direction, in TLS and below."""
        if self._writing_is_over:
            return
        self._writing_is_over = True
        if not self._lostTLSConnection:
            try:
                self._tlsConnection.shutdown()
            except SSL.Error:
                pass
            self._flushSendBIO()  # type: ignore[no-untyped-call]
        if self._producer is not None:
            self._producer = None
            self.transport.unregisterProducer()
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    def _end_soon(self) -> None:
        env = self._env
        env.deadlines.set(self, env.seconds() + _LINGER_SECONDS)
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.resumeProducing()
        else:
            self.transport.loseConnection()

    def deadline_reached(self) -> None:
        """The handshake was not finished in time, or the client does not close."""
        env = self._env
        is_closing = self._is_over and not self._lostTLSConnection
        if is_closing and self._progress.has_moved(self.transport):
            env.deadlines.set(self, env.seconds() + env.timeouts.idle)
        else:
            # The door has the same deadline, and may tell it a second time.
            self.is_late |= not self._is_over
            self.abortConnection()


def count_records(data: bytes) -> int:
    """How many records of TLS *data* is made of; 0, if the last one is not all there."""
    count = position = 0
    end = len(data)
    while end - position >= _RECORD_HEADER_BYTES:
        position += _RECORD_HEADER_BYTES + (data[position + 3] << 8 | data[position + 4])
        count += 1
    return count if position == end else 0
