"""TLS hellos put together from their parts, right ones and wrong ones.

Shares nothing with the reader under test.  Every length can be made to lie:
the functions take bytes and write down what they are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "SERVER_NAME",
    "alpn",
    "message",
    "names",
    "record",
    "records",
    "server_name",
    "vector",
    "versions",
]

SERVER_NAME, ALPN, PADDING, SUPPORTED_VERSIONS = 0, 16, 21, 43

#: TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, ECDHE-RSA and ECDHE-ECDSA with AES-128-GCM.
CIPHERS = bytes.fromhex("13011302c02fc02b")

#: What a server wants to see beside the parts that decide about routes.
USUAL: tuple[tuple[int, bytes], ...] = (
    (10, bytes.fromhex("00060017001d0018")),  # supported_groups: P-256, X25519, P-384
    (11, bytes.fromhex("0100")),  # ec_point_formats
    (13, bytes.fromhex("000c040308040401050308050501")),  # signature_algorithms
    (23, b""),  # extended_master_secret
    (51, bytes.fromhex("0024001d0020") + bytes(range(1, 33))),  # key_share: X25519
)


def vector(data: bytes, width: int, length: int | None = None) -> bytes:
    """*data* with its length in *width* bytes in front, or with another *length*."""
    return (len(data) if length is None else length).to_bytes(width, "big") + data


def names(*entries: bytes, kind: int = 0) -> bytes:
    """The content of the extension ``server_name`` with these host names."""
    return vector(b"".join(bytes([kind]) + vector(entry, 2) for entry in entries), 2)


def server_name(*entries: bytes) -> tuple[int, bytes]:
    """The extension ``server_name``."""
    return SERVER_NAME, names(*entries)


def alpn(*protocols: bytes) -> tuple[int, bytes]:
    """The extension ``application_layer_protocol_negotiation``."""
    return ALPN, vector(b"".join(vector(protocol, 1) for protocol in protocols), 2)


def versions(*numbers: int) -> tuple[int, bytes]:
    """The extension ``supported_versions``."""
    return SUPPORTED_VERSIONS, vector(b"".join(number.to_bytes(2, "big") for number in numbers), 1)


def message(
    *extensions: tuple[int, bytes],
    usual: bool = True,
    legacy_version: int = 0x0303,
    session_id: bytes = vector(bytes(32), 1),
    ciphers: bytes = vector(CIPHERS, 2),
    compressions: bytes = vector(b"\0", 1),
    block: bytes | None = None,
    kind: int = 1,
    length: int | None = None,
) -> bytes:
    """A whole handshake message; *session_id* and the like come with their lengths.

    :param usual: whether :data:`USUAL` follows *extensions*.
    :param block: instead of the extensions, with their length.
    """
    if block is None:
        both = (*extensions, *(USUAL if usual else ()))
        block = vector(b"".join(number.to_bytes(2, "big") + vector(data, 2) for number, data in both), 2)
    body = legacy_version.to_bytes(2, "big") + bytes(range(32)) + session_id + ciphers + compressions + block
    return bytes([kind]) + vector(body, 3, length)


def record(data: bytes, kind: int = 22, version: int = 0x0301, length: int | None = None) -> bytes:
    """One record."""
    return bytes([kind]) + version.to_bytes(2, "big") + vector(data, 2, length)


def records(data: bytes, sizes: Sequence[int] | Iterable[int] = ()) -> bytes:
    """*data* in records of these *sizes*, and the rest in as few as it takes."""
    encoded = b""
    for size in sizes:
        encoded += record(data[:size])
        data = data[size:]
    while data:
        encoded += record(data[: 2**14])
        data = data[2**14 :]
    return encoded
