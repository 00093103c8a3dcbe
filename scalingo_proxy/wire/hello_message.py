"""The message inside the records of a hello: what it says, as far as it decides about routes.

See :mod:`scalingo_proxy.wire.client_hello`, which takes it out of its records.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import attrs

from scalingo_proxy.wire.server_name import parse_server_name
from scalingo_proxy.wire.tls_alert import Alert, HelloRefused, alert_record
from scalingo_proxy.wire.tls_vector import take, take_whole

__all__ = [
    "DECISIVE",
    "MESSAGE_HEADER_BYTES",
    "SSL_3_0",
    "TLS_1_0",
    "TLS_1_1",
    "TLS_1_2",
    "TLS_1_3",
    "ClientHello",
    "parse_hello",
    "whole_hello",
]

SSL_3_0, TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = range(0x0300, 0x0305)

MESSAGE_HEADER_BYTES = 4
_MAX_SESSION_ID_BYTES = 32
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43

#: The extensions that are looked into.
DECISIVE = frozenset((_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS))

#: A hello of up to so many bytes is read in one go if nothing about it is unusual.
_USUAL_BYTES = 4096

#: Extensions of up to so many bytes are said again by the next client, and read once.
_REPEATED_BYTES = 256

#: Of the record and the message, up to the length of the session id.
_BEGINNING = struct.Struct(">HxHIH32xB").unpack_from
_TWO_LENGTHS = struct.Struct(">HH").unpack_from
_LENGTH = struct.Struct(">H").unpack_from

_HANDSHAKE_RECORD = 0x1603
_CLIENT_HELLO = 1 << 24
_WITHOUT_COMPRESSION = 0x0100


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
    :ivar newest_version: the newest that the client can speak, at most TLS 1.3; 0 for
        none known (RFC 8446 §4.2.1).
    :ivar length: how many of the received bytes are the hello, record headers
        included; whatever came behind it goes on as well.
    """

    server_name: str
    address: str
    alpn: tuple[bytes, ...]
    legacy_version: int
    supported_versions: tuple[int, ...]
    length: int
    newest_version: int = attrs.field(init=False, eq=False, repr=False)

    @newest_version.default
    def _newest_version(self) -> int:
        # Once for all clients that say the same (2 µs less for each).
        if not self.supported_versions:
            return min(self.legacy_version, TLS_1_2)
        return max((known for known in self.supported_versions if SSL_3_0 <= known <= TLS_1_3), default=0)

    def refusal(self, alert: Alert) -> bytes:
        """The bytes that tell this client *alert*."""
        return alert_record(alert, self.legacy_version)


def whole_hello(data: bytes) -> ClientHello | None:
    """The hello that *data* consists of: one record, and nothing unusual in it, as most are.

    ``None`` is no judgement: whoever reads it step by step says what is wrong,
    if anything is (17 µs less than that, for a browser's).
    """
    size = len(data)
    if not 60 < size <= _USUAL_BYTES:
        return None
    opening, record, message, version, session = _BEGINNING(data)
    if (
        opening != _HANDSHAKE_RECORD
        or record != size - 5
        or message != size - 9 + _CLIENT_HELLO
        or version != TLS_1_2
        or session > _MAX_SESSION_ID_BYTES
    ):
        return None
    read = _TWO_LENGTHS
    try:
        at = 44 + session
        (ciphers,) = _LENGTH(data, at)
        at += 2 + ciphers
        kind, length = read(data, at)
        at += 4
        # Without compression, and nothing behind the extensions.
        if not ciphers or ciphers % 2 or kind != _WITHOUT_COMPRESSION or at + length != size:
            return None
        places: dict[int, int] = {}
        while at < size:
            kind, length = read(data, at)
            if kind in places:
                return None
            places[kind] = at
            at += 4 + length
        if at != size:
            return None
        name, versions = _content(data, places[_SERVER_NAME]), _content(data, places[_SUPPORTED_VERSIONS])
        alpn = _content(data, places[_ALPN]) if _ALPN in places else None
        if len(name) + len(versions) + len(alpn or b"") > _REPEATED_BYTES:
            return None
        return _known_hello(name, alpn, versions, size)
    except (KeyError, struct.error, HelloRefused):
        return None


def _content(data: bytes, at: int) -> bytes:
    """Of the extension that begins there."""
    return data[at + 4 : at + 4 + (data[at + 2] << 8 | data[at + 3])]


def parse_hello(message: bytes, length: int) -> ClientHello:
    """The value of a whole handshake message (RFC 8446 §4.1.2)."""
    at = MESSAGE_HEADER_BYTES
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


# What the next client says again is read once; what is refused is not kept.
_known_name = lru_cache(maxsize=4096)(parse_server_name)
_known_alpn = lru_cache(maxsize=256)(_parse_alpn)
_known_versions = lru_cache(maxsize=256)(_parse_versions)


@lru_cache(maxsize=4096)
def _known_hello(server_name: bytes, alpn: bytes | None, versions: bytes, length: int) -> ClientHello:
    name, address = _known_name(server_name)
    return ClientHello(name, address, _known_alpn(alpn), TLS_1_2, _known_versions(versions), length)
