"""What a PROXY header of version 2 can tell beside addresses, and its checksum.

``proxy-protocol.txt``, section 2.2: each thing has a type, a length and a
value.  Types that are not known are kept; those that are known keep to their
rules or the whole header is refused.
"""

from __future__ import annotations

import enum

from scalingo_proxy.errors import ScalingoProxyError

__all__ = ["TLV", "ProxyHeaderRefused", "TLVs", "crc32c", "encode_tlvs", "parse_tlvs"]

#: Types and values in the order they came in.
TLVs = tuple[tuple[int, bytes], ...]


class ProxyHeaderRefused(ScalingoProxyError):
    """What came is no PROXY header; the text says why.  The connection is closed without a word."""


class TLV(enum.IntEnum):
    """The registered types."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    NETNS = 0x30


_HEAD_BYTES = 3
_CHECKSUM_BYTES = 4
_MAX_UNIQUE_ID_BYTES = 128
_SSL_FIXED_BYTES = 5  # which elements are present, and whether the certificate was verified


def parse_tlvs(header: bytes, start: int) -> TLVs:
    """What stands in *header* from *start* to its end; padding and the checksum are left out.

    :param header: the whole header, which the checksum is about.
    :raises ProxyHeaderRefused: when lengths do not add up, the checksum is
        wrong, or something that can be there only once is there twice.
    """
    found: list[tuple[int, bytes]] = []
    known: set[int] = set()
    for kind, value, end in _split(header, start):
        if kind == TLV.NOOP:
            continue
        if kind in TLV.__members__.values():
            if kind in known:
                raise ProxyHeaderRefused(f"the PROXY header tells {TLV(kind).name} twice")
            known.add(kind)
            _check(kind, value)
        if kind == TLV.CRC32C:
            _verify(header, end - _CHECKSUM_BYTES)
        else:
            found.append((kind, value))
    return tuple(found)


def _split(data: bytes, start: int) -> list[tuple[int, bytes, int]]:
    """Type and value of each, and where it ends."""
    parts: list[tuple[int, bytes, int]] = []
    while start < len(data):
        value = start + _HEAD_BYTES
        end = value + int.from_bytes(data[start + 1 : value], "big")
        if value > len(data) or end > len(data):
            raise ProxyHeaderRefused("a length in the PROXY header reaches beyond its end")
        parts.append((data[start], data[value:end], end))
        start = end
    return parts


def _check(kind: int, value: bytes) -> None:
    """Hold a known type to its rules."""
    if kind == TLV.CRC32C and len(value) != _CHECKSUM_BYTES:
        raise ProxyHeaderRefused("the checksum of the PROXY header has the wrong length")
    if kind == TLV.UNIQUE_ID and len(value) > _MAX_UNIQUE_ID_BYTES:
        raise ProxyHeaderRefused("the unique id in the PROXY header is too long")
    if kind == TLV.AUTHORITY:
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            raise ProxyHeaderRefused("the authority in the PROXY header is no text") from None
    if kind == TLV.SSL:
        if len(value) < _SSL_FIXED_BYTES:
            raise ProxyHeaderRefused("the PROXY header tells too little of TLS")
        _split(value, _SSL_FIXED_BYTES)


def _verify(header: bytes, at: int) -> None:
    blank = header[:at] + bytes(_CHECKSUM_BYTES) + header[at + _CHECKSUM_BYTES :]
    if crc32c(blank) != int.from_bytes(header[at : at + _CHECKSUM_BYTES], "big"):
        raise ProxyHeaderRefused("the checksum of the PROXY header is wrong")


def encode_tlvs(tlvs: TLVs, room: int) -> bytes:
    """As many of *tlvs* as fit into *room* bytes, in their order."""
    encoded = b""
    for kind, value in tlvs:
        if len(encoded) + _HEAD_BYTES + len(value) <= room:
            encoded += b"%c%b%b" % (kind, len(value).to_bytes(2, "big"), value)
    return encoded


# -- the checksum ------------------------------------------------------------


def _table() -> tuple[int, ...]:
    """CRC-32C by bytes: Castagnoli's polynomial, reflected (RFC 9260 appendix A)."""
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


_CRC32C = _table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of *data*: 0.1 µs a byte, for the few bytes of a header."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = checksum >> 8 ^ _CRC32C[(checksum ^ byte) & 0xFF]
    return checksum ^ 0xFFFFFFFF
