"""The first message of a TLS connection: to whom the client wants to speak.

Reads a ClientHello from the first bytes of a connection, however they are cut
into segments, records and handshake fragments, and takes nothing away: what
was received goes on unchanged to whoever answers the hello.  Only the outside
of the message is judged, and of the extensions only those that decide about
routes; keys, ciphers and the rest are between the client and its server.

What two readers could take for two different names is refused (RFC 8446 §4.1.2
and §4.2, RFC 6066 §3), each time with the alert that says so.
"""

from __future__ import annotations

from scalingo_proxy.wire.hello_message import (
    MESSAGE_HEADER_BYTES,
    SSL_3_0,
    TLS_1_0,
    TLS_1_1,
    TLS_1_2,
    TLS_1_3,
    ClientHello,
    parse_hello,
)
from scalingo_proxy.wire.known_hellos import known_hello
from scalingo_proxy.wire.tls_alert import Alert, HelloRefused

__all__ = [
    "MAX_HELLO_BYTES",
    "MAX_RECORDS",
    "SSL_3_0",
    "TLS_1_0",
    "TLS_1_1",
    "TLS_1_2",
    "TLS_1_3",
    "ClientHello",
    "ClientHelloReader",
    "HelloRefused",
    "PlainHTTP",
]

#: One handshake message with its header.  With post-quantum keys a hello has
#: 2 to 16 kB; more than this no client sends.
MAX_HELLO_BYTES = 65536

#: Over how many records a hello may be spread.
MAX_RECORDS = 32

_MAX_RECORD_BYTES = 2**14  # RFC 8446 §5.1, for records that are not encrypted
_RECORD_HEADER_BYTES = 5

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA, _HEARTBEAT = range(20, 25)
_CLIENT_HELLO = 1

_HTTP_OPENINGS = (
    *(b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"PATCH "),
    *(b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PRI "),
)
_PROXY_OPENINGS = (b"PROXY ", b"\r\n\r\n\0\r\nQ")


class PlainHTTP(HelloRefused):
    """An HTTP request without TLS; a plain 400 that says so helps whoever sent it."""

    def __init__(self) -> None:
        super().__init__(None, "the client speaks plain HTTP on a port for TLS")


class ClientHelloReader:
    """Takes the first bytes of a connection until they hold a whole hello.

    Keeps at most ``MAX_HELLO_BYTES``, the headers of ``MAX_RECORDS`` records
    and what came in one call behind the hello.
    """

    __slots__ = ("_expected", "_fragment", "_message", "_position", "_received", "_records", "_refused")

    def __init__(self) -> None:
        self._received = bytearray()
        #: How many of the received bytes were looked at.
        self._position = 0
        self._records = 0
        #: What is still to come of the record begun last.
        self._fragment = 0
        self._message = bytearray()
        #: The length of the whole message; 0: not known yet, -1: it was read.
        self._expected = 0
        self._refused: HelloRefused | None = None

    @property
    def received(self) -> bytes:
        """Everything that came, as it came."""
        return bytes(self._received)

    def receive(self, data: bytes) -> ClientHello | None:
        """Take the next bytes; ``None``: need more.

        Not to be called again once there was a hello.

        :raises HelloRefused: as soon as the bytes can never become a hello
            that is taken here, and again on each further call.
        """
        if not self._received and type(data) is bytes and (hello := known_hello(data)) is not None:
            self._received += data
            self._expected = -1  # nothing more
            return hello
        return self.receive_piece(data)

    def receive_piece(self, data: bytes) -> ClientHello | None:
        """As :meth:`receive`, for what is no whole hello without anything unusual, as its caller knows."""
        if self._refused is not None:
            raise self._refused
        self._received += data
        try:
            return self._read()
        except HelloRefused as refused:
            message = self._message
            if len(message) > 5 and message[4] == 3:
                refused.version = 0x0300 | message[5]
            self._refused = refused
            raise

    def _read(self) -> ClientHello | None:
        received, message = self._received, self._message
        assert not self._expected or len(message) < self._expected, "the hello was read already"
        while self._position < len(received):
            if not self._fragment and not self._begin_record():
                return None
            piece = received[self._position : self._position + self._fragment]
            message += piece
            self._position += len(piece)
            self._fragment -= len(piece)
            if not self._expected and message:
                self._expected = _message_length(message)
            if self._expected:
                # Nothing may share the last record with the hello (RFC 8446 §5.1): the
                # server could not have answered yet, so no client has more to say in it.
                if len(message) + self._fragment > self._expected:
                    raise HelloRefused(Alert.UNEXPECTED_MESSAGE, "something follows the hello in its record")
                if len(message) == self._expected:
                    return parse_hello(bytes(message), self._position)
        return None

    def _begin_record(self) -> bool:
        """Read the header of a record; False: need more."""
        header = bytes(self._received[self._position : self._position + _RECORD_HEADER_BYTES])
        if header[0] != _HANDSHAKE:
            if not self._position:
                return _refuse_opening(bytes(self._received[:9]))
            raise HelloRefused(Alert.UNEXPECTED_MESSAGE, "another record interrupts the hello")
        if len(header) > 1 and header[1] != 3:
            raise HelloRefused(Alert.PROTOCOL_VERSION, "the record is of no version of TLS")
        if len(header) < _RECORD_HEADER_BYTES:
            return False
        length = int.from_bytes(header[3:], "big")
        if not length:
            raise HelloRefused(Alert.DECODE_ERROR, "a record of the hello is empty")
        if length > _MAX_RECORD_BYTES:
            raise HelloRefused(Alert.RECORD_OVERFLOW, "a record of the hello is too long")
        self._records += 1
        if self._records > MAX_RECORDS:
            raise HelloRefused(Alert.DECODE_ERROR, "the hello is spread over too many records")
        self._position += _RECORD_HEADER_BYTES
        self._fragment = length
        return True


# -- what is no hello --------------------------------------------------------


def _refuse_opening(start: bytes) -> bool:
    """Say what else the first bytes of a connection are; False: need more.

    The same bytes lead to the same words however they are cut.
    """
    first = start[0]
    if first in (_CHANGE_CIPHER_SPEC, _ALERT, _APPLICATION_DATA, _HEARTBEAT):
        if len(start) < 2:
            return False
        if start[1] == 3:
            # An alert is never answered with another one (RFC 8446 §6.2).
            alert = None if first == _ALERT else Alert.UNEXPECTED_MESSAGE
            raise HelloRefused(alert, "the connection does not begin with a hello")
    elif first & 0x80:
        if len(start) < 3 or (start[2] == _CLIENT_HELLO and len(start) < 5):
            return False
        if start[2] == _CLIENT_HELLO and start[3] in (0, 3):
            # Old clients that know more wrap it like this (RFC 5246 §E.2); others know no alerts of TLS.
            alert = Alert.PROTOCOL_VERSION if start[3] == 3 else None
            raise HelloRefused(alert, "the client sent a hello of SSL 2")
    else:
        if start.startswith(_HTTP_OPENINGS):
            raise PlainHTTP()
        if start.startswith(_PROXY_OPENINGS):
            raise HelloRefused(None, "there is a PROXY header where none is expected")
        if any(opening.startswith(start) for opening in _HTTP_OPENINGS + _PROXY_OPENINGS):
            return False
    raise HelloRefused(None, "the client does not speak TLS")


# -- the message -------------------------------------------------------------


def _message_length(message: bytearray) -> int:
    """The length of the message that begins so, header included; 0: not known yet."""
    if message[0] != _CLIENT_HELLO:
        raise HelloRefused(Alert.UNEXPECTED_MESSAGE, "the first handshake message is no hello")
    if len(message) < MESSAGE_HEADER_BYTES:
        return 0
    length = MESSAGE_HEADER_BYTES + int.from_bytes(message[1:MESSAGE_HEADER_BYTES], "big")
    if length > MAX_HELLO_BYTES:
        raise HelloRefused(Alert.ILLEGAL_PARAMETER, "the hello is too long")
    return length
