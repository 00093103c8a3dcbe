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

import attrs

from scalingo_proxy.wire.server_name import parse_server_name
from scalingo_proxy.wire.tls_alert import Alert, HelloRefused, alert_record
from scalingo_proxy.wire.tls_vector import take, take_whole

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

SSL_3_0, TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = range(0x0300, 0x0305)

#: One handshake message with its header.  With post-quantum keys a hello has
#: 2 to 16 kB; more than this no client sends.
MAX_HELLO_BYTES = 65536

#: Over how many records a hello may be spread.
MAX_RECORDS = 32

_MAX_RECORD_BYTES = 2**14  # RFC 8446 §5.1, for records that are not encrypted
_RECORD_HEADER_BYTES = 5
_MESSAGE_HEADER_BYTES = 4
_MAX_SESSION_ID_BYTES = 32

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA, _HEARTBEAT = range(20, 25)
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43

_HTTP_OPENINGS = (
    *(b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"PATCH "),
    *(b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PRI "),
)
_PROXY_OPENINGS = (b"PROXY ", b"\r\n\r\n\0\r\nQ")


class PlainHTTP(HelloRefused):
    """An HTTP request without TLS; a plain 400 that says so helps whoever sent it."""

    def __init__(self) -> None:
        super().__init__(None, "the client speaks plain HTTP on a port for TLS")


@attrs.frozen
class ClientHello:
    """What a hello says, as far as it decides about routes.

    :ivar server_name: the host asked for, in lower case and without a final
        dot; ``""`` when the client gave no name.
    :ivar address: the IP address that stood in place of a name, though RFC
        6066 §3 forbids it; then *server_name* is empty.
    :ivar alpn: the protocols offered, the client's favourite first.
    :ivar legacy_version: the version in the old place, such as ``0x0303``.
    :ivar supported_versions: those of the extension of that name in the
        client's order, values that mean nothing (RFC 8701) included; empty
        without the extension, and then *legacy_version* counts.
    :ivar length: how many of the received bytes are the hello, record headers
        included; whatever came behind it goes on as well.
    """

    server_name: str
    address: str
    alpn: tuple[bytes, ...]
    legacy_version: int
    supported_versions: tuple[int, ...]
    length: int

    @property
    def newest_version(self) -> int:
        """The newest version the client can speak, at most TLS 1.3; 0 for none known (RFC 8446 §4.2.1)."""
        if not self.supported_versions:
            return min(self.legacy_version, TLS_1_2)
        return max((known for known in self.supported_versions if SSL_3_0 <= known <= TLS_1_3), default=0)

    def refusal(self, alert: Alert) -> bytes:
        """The bytes that tell this client *alert*."""
        return alert_record(alert, self.legacy_version)


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
        #: The length of the whole message; 0: not known yet.
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
                    return _parse_hello(bytes(message), self._position)
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
    if len(message) < _MESSAGE_HEADER_BYTES:
        return 0
    length = _MESSAGE_HEADER_BYTES + int.from_bytes(message[1:_MESSAGE_HEADER_BYTES], "big")
    if length > MAX_HELLO_BYTES:
        raise HelloRefused(Alert.ILLEGAL_PARAMETER, "the hello is too long")
    return length


def _parse_hello(message: bytes, length: int) -> ClientHello:
    """The value of a whole handshake message (RFC 8446 §4.1.2)."""
    at = _MESSAGE_HEADER_BYTES
    if message[at : at + 1] not in (b"\x03", b""):
        raise HelloRefused(Alert.PROTOCOL_VERSION, "the hello is of no version of TLS")
    legacy_version = int.from_bytes(message[at : at + 2], "big")
    session_id, at = take(message, at + 2 + 32, 1)
    if len(session_id) > _MAX_SESSION_ID_BYTES:
        raise HelloRefused(Alert.DECODE_ERROR, "the session id is too long")
    ciphers, at = take(message, at, 2)
    if not ciphers or len(ciphers) % 2:
        raise HelloRefused(Alert.DECODE_ERROR, "the cipher suites are no list of any")
    compressions, at = take(message, at, 1)
    if not compressions:
        raise HelloRefused(Alert.DECODE_ERROR, "the list of compression methods is empty")
    if 0 not in compressions:
        raise HelloRefused(Alert.ILLEGAL_PARAMETER, "the client cannot do without compression")
    extensions = _parse_extensions(message, at)
    sni = extensions.get(_SERVER_NAME)
    name, address = parse_server_name(sni) if sni is not None else ("", "")
    alpn = _parse_alpn(extensions.get(_ALPN))
    versions = _parse_versions(extensions.get(_SUPPORTED_VERSIONS))
    return ClientHello(name, address, alpn, legacy_version, versions, length)


def _parse_extensions(message: bytes, at: int) -> dict[int, bytes]:
    if at == len(message):
        return {}  # allowed before TLS 1.3
    block, end = take(message, at, 2)
    if end != len(message):
        raise HelloRefused(Alert.DECODE_ERROR, "something follows the extensions")
    extensions: dict[int, bytes] = {}
    at, end = 0, len(block)
    # Twenty of them in each hello: take() is written out here, which costs half as much.
    while at < end:
        start = at + 4
        if start > end or (following := start + (block[at + 2] << 8 | block[at + 3])) > end:
            raise HelloRefused(Alert.DECODE_ERROR, "an extension reaches beyond the end of the hello")
        kind = block[at] << 8 | block[at + 1]
        if kind in extensions:
            raise HelloRefused(Alert.ILLEGAL_PARAMETER, "an extension stands twice in the hello")
        extensions[kind] = block[start:following]
        at = following
    return extensions


def _parse_alpn(content: bytes | None) -> tuple[bytes, ...]:
    """The names in the extension (RFC 7301 §3.1)."""
    if content is None:
        return ()
    names = take_whole(content, 2)
    protocols: list[bytes] = []
    at = 0
    while at < len(names):
        name, at = take(names, at, 1)
        if not name:
            raise HelloRefused(Alert.DECODE_ERROR, "an application protocol has an empty name")
        protocols.append(name)
    return tuple(protocols)


def _parse_versions(content: bytes | None) -> tuple[int, ...]:
    """The versions in the extension (RFC 8446 §4.2.1)."""
    if content is None:
        return ()
    versions = take_whole(content, 1)
    if len(versions) % 2:
        raise HelloRefused(Alert.DECODE_ERROR, "the supported versions are no list")
    return tuple(int.from_bytes(versions[at : at + 2], "big") for at in range(0, len(versions), 2))
