"""TLS ended here: the transport that an HTTP protocol sees instead of the TCP one.

What Twisted's :class:`~twisted.protocols.tls.TLSMemoryBIOProtocol` does, with our
own :class:`~scalingo_proxy.protocols.tls_engine.Engine`, and without its
``__getattr__``, with which CPython has to look anew for each attribute that is
asked for.  Records that carry nothing do not go on for ever.  Knows no
certificate and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from OpenSSL import SSL
from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    INegotiated,
    IProtocol,
    ISSLTransport,
    ISystemHandle,
)
from twisted.protocols.tls import _ProducerMembrane
from zope.interface import implementer

from scalingo_proxy.protocols.tls_engine import Engine
from scalingo_proxy.protocols.tls_transport_ending import NOTHING, TLSTransportEnding
from scalingo_proxy.wire.tls_records import RECORD_BYTES, count_records

__all__ = ["TLSTransport"]

#: What a client may send without one byte of application data in it: key
#: updates, empty records, warnings, attempts to renegotiate.
_EMPTY_BYTES = 65536

#: Records that are handed to the transport at once.
_RECORDS_AT_ONCE = 4

# What OpenSSL's buffers have held once they keep as long as the connection lives.
_RECEIVED_AT_ONCE = 16384


@implementer(IHalfCloseableProtocol, IProtocol, INegotiated, ISSLTransport, ISystemHandle)
class TLSTransport(TLSTransportEnding):
    """The server's end of one TLS connection.

    A protocol on a TCP-like transport, and the transport of the protocol
    inside, which may be exchanged while the connection lives.  A protocol
    inside that provides IHandshakeListener is told of the handshake's end; one
    that can half-close learns of the client's ``close_notify`` as of the end of
    a TCP stream; a stream that ends without one is a lost connection.
    """

    _empty_bytes = 0
    #: Whether what was received ends where a record ends, as far as it was followed.
    _is_aligned = True

    @property
    def engine(self) -> Engine:
        """What OpenSSL knows of it, while it is connected."""
        return self._engine

    @property
    def negotiatedProtocol(self) -> bytes | None:
        alpn = self._engine.alpn if self.connected else None
        return alpn.encode("ascii") if alpn is not None else None

    # -- as the transport below has it ----------------------------------------

    def getHandle(self) -> Any:
        return self.transport.getHandle()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def getPeerCertificate(self) -> None:
        """Clients are not asked for one."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(enabled)

    def getTcpNoDelay(self) -> Any:
        return self.transport.getTcpNoDelay()

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.transport.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> Any:
        return self.transport.getTcpKeepAlive()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    # -- called by the transport below ---------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Begin as the server; the client speaks first."""
        self.connected = 1
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        size = len(data)
        # A record, whole and alone, as most are: one call, and nothing to count (with write's: 2.4 µs less).
        if self._is_regular and 5 < size <= _RECEIVED_AT_ONCE and data[3] << 8 | data[4] == size - 5:
            try:
                content = self._engine.exchange(data)
            except SSL.Error:
                self._gave_up()
                return
            if content:
                self._empty_bytes = 0
                self.wrappedProtocol.dataReceived(content)
            else:
                self._empty_bytes += size
                self._read(0)
        elif size <= _RECEIVED_AT_ONCE:
            self._receive(data)
        else:
            for start in range(0, size, _RECEIVED_AT_ONCE):
                self._receive(data[start : start + _RECEIVED_AT_ONCE])

    def _receive(self, data: bytes) -> None:
        """Take in bytes of which nothing is known."""
        if self._is_over:
            self._throw_away(data)
            return
        self._empty_bytes += len(data)
        # How many records are all that can be read now; 0: unknown.
        records = count_records(data) if self._is_aligned else 0
        self._is_aligned = records > 0
        if self._is_shaken:
            self._engine.receive(data)
        elif self._shake(data):
            records = 0
        else:
            return
        if self._unwritten:
            self._write_again()
        self._read(records)
        self._is_regular = self._is_aligned and not (
            self._is_over
            or self._reading_is_over
            or self._writing_is_over
            or self.disconnecting
            or self._unwritten
        )

    def _shake(self, data: bytes) -> bool:
        """Go on with the handshake; whether it is complete."""
        try:
            answer = self._engine.handshake(data)
        except SSL.Error:
            self._gave_up()
            return False
        if answer is not None:
            if answer:
                self.transport.write(answer)
            return False
        self._is_shaken = True
        self._empty_bytes = 0  # a hello may be long
        completed = getattr(self.wrappedProtocol, "handshakeCompleted", None)
        if completed is not None:
            completed()
        return True

    def _read(self, records: int) -> None:
        """Hand in what can be read."""
        while not (self._is_over or self._reading_is_over):
            try:
                data = self._engine.read()
            except SSL.Error:
                self._gave_up()
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
            self._send()
        if self._empty_bytes > _EMPTY_BYTES:
            self.abortConnection()

    # -- called by the protocol inside ---------------------------------------

    def write(self, data: bytes) -> None:
        if self._is_regular and type(data) is bytes and 0 < len(data) <= RECORD_BYTES:
            # Nothing else need be asked, most of the time.
            try:
                record = self._engine.write(data)
            except SSL.Error as error:
                self._not_written(data, error)
            else:
                self.transport.write(record)
        elif not (self._writing_is_over or (self.disconnecting and self._producer is None)):
            self._write(bytes(data))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def _write(self, data: bytes) -> None:
        """Write as many records as it takes, a few at a time."""
        if self._is_lost:
            return
        engine, records = self._engine, []
        start = 0
        try:
            while start < len(data):
                records.append(engine.write(data[start : start + RECORD_BYTES]))
                start += RECORD_BYTES
                if len(records) == _RECORDS_AT_ONCE:
                    self.transport.write(b"".join(records))
                    records.clear()
        except SSL.Error as error:
            if records:
                self.transport.write(b"".join(records))
            self._not_written(data[start:], error)
        else:
            if records:
                self.transport.write(b"".join(records))

    def _not_written(self, data: bytes, error: SSL.Error) -> None:
        """Called where *error* is handled."""
        if isinstance(error, SSL.WantReadError):
            self._is_regular = False
            self._unwritten += (data,)
            if self._producer is not None:
                self._producer.pauseProducing()
            self._send()
        else:
            self._gave_up()

    def _write_again(self) -> None:
        """The client has sent something: perhaps that was what was waited for."""
        unwritten, self._unwritten = self._unwritten, NOTHING
        for data in unwritten:
            self._write(data)
        if self._unwritten:
            return
        if self._producer is not None:
            self._producer.resumeProducing()
        elif self.disconnecting:
            self._shut_down()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._is_lost:
            producer.stopProducing()
            return
        pulled = None
        if not streaming:
            producer = pulled = _PullToPush(producer, self)  # type: ignore[no-untyped-call]
        producer = _ProducerMembrane(producer)  # type: ignore[no-untyped-call]
        self.transport.registerProducer(producer, True)
        self._producer = producer
        if pulled is not None:
            pulled.startStreaming()  # type: ignore[no-untyped-call]

    def unregisterProducer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if isinstance(producer._producer, _PullToPush):
            producer._producer.stopStreaming()  # type: ignore[no-untyped-call]
        self.transport.unregisterProducer()
        if self.disconnecting and not self._unwritten:
            self._shut_down()
