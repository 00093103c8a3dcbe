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
from scalingo_proxy.protocols.tls_engine import RECORD_BYTES, Engine

__all__ = ["TLSTransport", "count_records"]

#: Behind our last record the client's bytes are thrown away, for so long and
#: so many; closing at once would reset the connection and could take an answer
#: or an alert with it.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * 1024 * 1024

#: What a client may send without one byte of application data in it: key
#: updates, empty records, warnings, attempts to renegotiate.
_EMPTY_BYTES = 65536

#: Records that are handed to the transport at once.
_RECORDS_AT_ONCE = 4

# What OpenSSL's buffers have held once they keep as long as the connection lives.
_RECEIVED_AT_ONCE = 16384

_RECORD_HEADER_BYTES = 5

#: Whose stream ends without a ``close_notify`` has lost its connection.
_CUT_SHORT = Failure(ConnectionLost())  # type: ignore[no-untyped-call]


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

    is_late = False
    _engine: Any = None
    _empty_bytes = 0
    _lingered = 0
    _reading_is_over = False
    _writing_is_over = False
    #: Nothing is told to the protocol inside any more but the end.
    _is_over = False
    #: Whether what was received ends where a record ends, as far as it was followed.
    _is_aligned = True
    _progress: SendProgress | None = None

    def __init__(self, env: Environment, context: SSL.Context, inner: IProtocol) -> None:
        # Not Twisted's, which counts the wrappers of a factory: nobody counts these.
        self._env = env
        self._engine = Engine(context)
        self._appSendBuffer: list[bytes] = []
        self.wrappedProtocol = inner

    @property
    def engine(self) -> Engine:
        """What OpenSSL knows of it, while it is connected."""
        engine: Engine = self._engine
        return engine

    @property
    def negotiatedProtocol(self) -> bytes | None:
        alpn = self._engine.alpn if self._engine is not None else None
        return alpn.encode("ascii") if alpn is not None else None

    def getHandle(self) -> Any:
        return self.transport.getHandle()

    def getPeerCertificate(self) -> None:
        """Clients are not asked for one."""

    # -- called by the transport below ---------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Begin as the server; the client speaks first."""
        Protocol.makeConnection(self, transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        if len(data) > _RECEIVED_AT_ONCE:
            for start in range(0, len(data), _RECEIVED_AT_ONCE):
                self.dataReceived(data[start : start + _RECEIVED_AT_ONCE])
            return
        if self._is_over:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.abortConnection()
            return
        self._empty_bytes += len(data)
        # How many records are all that can be read now; 0: unknown.
        records = count_records(data) if self._is_aligned else 0
        self._is_aligned = records > 0
        self._engine.receive(data)
        if not self._handshakeDone:
            records = 0
            self._checkHandshakeStatus()
            if not self._handshakeDone:
                return
        if self._appSendBuffer:
            self._unbufferPendingWrites()  # type: ignore[no-untyped-call]
        self._read(records)
        if self._empty_bytes > _EMPTY_BYTES:
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
        if not (self._is_over or self._reading_is_over) and isinstance(reason.value, ConnectionDone):
            reason = _CUT_SHORT
        inner, self.wrappedProtocol = self.wrappedProtocol, None
        reason, self._reason = self._reason or reason, None
        self._is_over = self._writing_is_over = self._lostTLSConnection = True
        self.connected = 0
        self._producer = None
        # OpenSSL's memory goes now, whoever still holds us.
        del self._engine
        inner.connectionLost(reason)

    def _checkHandshakeStatus(self) -> None:
        try:
            self._handshakeDone = self._engine.handshake()
        except SSL.Error:
            self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
            return
        if not self._handshakeDone:
            self._flushSendBIO()
            return
        self._empty_bytes = 0  # a hello may be long
        completed = getattr(self.wrappedProtocol, "handshakeCompleted", None)
        if completed is not None:
            completed()

    def _read(self, records: int) -> None:
        """Hand in what can be read."""
        engine = self._engine
        while not (self._is_over or self._reading_is_over):
            try:
                data = engine.read()
            except SSL.Error:
                self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
                return
            if data:
                self._empty_bytes = 0
                self.wrappedProtocol.dataReceived(data)
                records -= 1
                if not records:
                    return  # each gave its content: nothing was in them that OpenSSL answers
            elif data is None:
                break
            else:
                self._client_closed()
        if not self._is_over:
            self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        data = self._engine.outgoing()
        if data:
            self.transport.write(data)

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
        if not (self._writing_is_over or (self.disconnecting and self._producer is None)):
            self._write(data)

    def _write(self, data: bytes) -> None:
        # Called by Twisted as well, with what could not be written before.
        if self._lostTLSConnection or not data:
            return
        if type(data) is not bytes:
            data = bytes(data)
        if len(data) > RECORD_BYTES:
            self._write_much(data)
            return
        try:
            words = self._engine.write(data)
        except SSL.WantReadError:
            self._bufferedWrite(data)  # type: ignore[no-untyped-call]
            self._flushSendBIO()
        except SSL.Error:
            self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
        else:
            self.transport.write(words)

    def _write_much(self, data: bytes) -> None:
        """Several records, taken out of OpenSSL one by one and sent a few at a time."""
        engine, records, failure = self._engine, [], None
        try:
            for start in range(0, len(data), RECORD_BYTES):
                rest = start
                records.append(engine.write(data[start : start + RECORD_BYTES]))
                if len(records) == _RECORDS_AT_ONCE:
                    self.transport.write(b"".join(records))
                    records.clear()
        except SSL.WantReadError:
            self._bufferedWrite(data[rest:])  # type: ignore[no-untyped-call]
            records.append(engine.outgoing())
        except SSL.Error:
            failure = Failure()  # type: ignore[no-untyped-call]
        words = b"".join(records)
        if words:
            self.transport.write(words)
        if failure is not None:
            self._tlsShutdownFinished(failure)

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
        self._flushSendBIO()
        self._end_writing()
        self._is_over = True
        self._end_soon()

    def _end_writing(self) -> None:
        """End our direction, in TLS and below."""
        if self._writing_is_over:
            return
        self._writing_is_over = True
        if not self._lostTLSConnection:
            self._engine.end()
            self._flushSendBIO()
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
        if self._progress is None:
            self._progress = SendProgress()
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
