"""The PROXY header, versions 1 and 2: who is behind a connection that somebody else relays.

Reads one from the first bytes of a connection that must begin with it, and
writes one for a backend.  Whether there has to be a header is the door's
setting and never guessed from the bytes, and whom to believe is not known
here.  The rules are those of ``proxy-protocol.txt``, which HAProxy publishes;
where it leaves a choice, what is odd is refused.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

from scalingo_proxy.wire.proxy_tlv import TLV, ProxyHeaderRefused, TLVs, crc32c, encode_tlvs, parse_tlvs

__all__ = [
    "MAX_V1_BYTES",
    "MAX_V2_BYTES",
    "TLV",
    "ProxyHeader",
    "ProxyHeaderReader",
    "ProxyHeaderRefused",
    "encode_proxy_v1",
    "encode_proxy_v2",
]

#: The longest line of version 1, CRLF included (section 2.1).
MAX_V1_BYTES = 107

#: The longest header of version 2: what the smallest segment that every host
#: takes has room for, which the format was made for (section 2).
MAX_V2_BYTES = 536

_V1_START = b"PROXY "
_V1_LINE = re.compile(
    rb"PROXY (?:TCP(?P<family>[46]) (?P<source>[0-9A-Fa-f:.]++) (?P<destination>[0-9A-Fa-f:.]++)"
    rb" (?P<source_port>[0-9]{1,5}+) (?P<destination_port>[0-9]{1,5}+)"
    rb"|UNKNOWN(?: [^\r\n]*+)?)\r\n"
)
_BROKEN_LINE = re.compile(rb"\n|\r(?!\Z)")

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED_BYTES = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_STREAM, _DATAGRAM = 1, 2
_ADDRESS_BYTES = {_UNSPECIFIED: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_UNIX_PATH_BYTES = 108
_CHECKSUM_TLV_BYTES = 7

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class ProxyHeader:
    """What a PROXY header says.

    An address is IPv4 or IPv6 text (IPv4 mapped into IPv6 is IPv4), or
    ``unix:PATH``, or ``""`` when the header tells none: then those of the
    connection itself count.

    :ivar source: the client's address.
    :ivar destination: the address that the client connected to.
    :ivar is_local: the sender speaks for itself, as a health check does.
    :ivar tlvs: what version 2 told beside, as types and values.
    """

    source: str = ""
    source_port: int = 0
    destination: str = ""
    destination_port: int = 0
    is_local: bool = False
    tlvs: TLVs = ()

    def tlv(self, kind: int) -> bytes | None:
        """The value of the first of that type."""
        return next((value for type_, value in self.tlvs if type_ == kind), None)

    @property
    def alpn(self) -> bytes:
        """The protocol spoken on the connection, as the sender knows it."""
        return self.tlv(TLV.ALPN) or b""

    @property
    def authority(self) -> str:
        """The host name that the client asked for; not checked to be one."""
        return (self.tlv(TLV.AUTHORITY) or b"").decode("utf-8")


# -- reading -----------------------------------------------------------------


class ProxyHeaderReader:
    """Takes the first bytes of a connection until they hold a whole header.

    :ivar excess: what came behind the header; it belongs to whatever is next.
    """

    __slots__ = ("_done", "_received", "excess")

    def __init__(self) -> None:
        self._received = bytearray()
        self._done = False
        self.excess = b""

    @property
    def has_begun(self) -> bool:
        """Whether anything came at all."""
        return bool(self._received)

    def receive(self, data: bytes) -> ProxyHeader | None:
        """Take the next bytes; ``None``: need more.

        Not to be called again once there was a header or a refusal.

        :raises ProxyHeaderRefused: as soon as the bytes can never become a header.
        """
        assert not self._done, "what follows the header is not the reader's to read"
        received = self._received
        received += data
        if not received:
            return None
        try:
            end = _end_of_v1(received) if received[0] == _V1_START[0] else _end_of_v2(received)
            if not end:
                return None
            header = bytes(received[:end])
            value = _parse_v1(header) if header[0] == _V1_START[0] else _parse_v2(header)
        except ProxyHeaderRefused:
            self._done = True
            raise
        self._done = True
        self.excess = bytes(received[end:])
        return value


def _end_of_v1(received: bytearray) -> int:
    """Where the line ends; 0: need more."""
    if not _V1_START.startswith(received[: len(_V1_START)]):
        raise ProxyHeaderRefused("the connection does not begin with a PROXY header")
    end = received.find(b"\r\n", 0, MAX_V1_BYTES)
    if end >= 0:
        return end + 2
    if len(received) >= MAX_V1_BYTES:
        raise ProxyHeaderRefused("the PROXY line is too long")
    if _BROKEN_LINE.search(received):
        raise ProxyHeaderRefused("the PROXY line does not end with CRLF")
    return 0


def _parse_v1(line: bytes) -> ProxyHeader:
    """The value of a whole line (section 2.1)."""
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderRefused("the PROXY line is malformed")
    if not match["family"]:
        return ProxyHeader()
    family = ipaddress.IPv4Address if match["family"] == b"4" else ipaddress.IPv6Address
    try:
        source, destination = (family(match[end].decode("ascii")) for end in ("source", "destination"))
    except ValueError:
        raise ProxyHeaderRefused("an address in the PROXY line is not of the family told") from None
    return ProxyHeader(
        str(_unmapped(source)),
        _port(match["source_port"]),
        str(_unmapped(destination)),
        _port(match["destination_port"]),
    )


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535 or (digits.startswith(b"0") and digits != b"0"):
        raise ProxyHeaderRefused("a port in the PROXY line is none")
    return port


def _unmapped(address: _Address) -> _Address:
    return getattr(address, "ipv4_mapped", None) or address


def _end_of_v2(received: bytearray) -> int:
    """Where the header ends; 0: need more."""
    if not _SIGNATURE.startswith(received[: len(_SIGNATURE)]):
        raise ProxyHeaderRefused("the connection does not begin with a PROXY header")
    if len(received) > 12 and received[12] not in (_LOCAL, _PROXY):
        raise ProxyHeaderRefused("the PROXY header is of an unknown version or command")
    if len(received) > 13 and received[12] == _PROXY:
        if received[13] >> 4 > _UNIX or received[13] & 15 > _DATAGRAM:
            raise ProxyHeaderRefused("the PROXY header is of an unknown address family")
    if len(received) < _V2_FIXED_BYTES:
        return 0
    end = _V2_FIXED_BYTES + int.from_bytes(received[14:_V2_FIXED_BYTES], "big")
    if end > MAX_V2_BYTES:
        raise ProxyHeaderRefused("the PROXY header is too long")
    return end if len(received) >= end else 0


def _parse_v2(header: bytes) -> ProxyHeader:
    """The value of a whole header (section 2.2)."""
    if header[12] == _LOCAL:
        return ProxyHeader(is_local=True)  # whatever else it holds is to be passed over
    family = header[13] >> 4
    end = _V2_FIXED_BYTES + _ADDRESS_BYTES[family]
    if end > len(header):
        raise ProxyHeaderRefused("the PROXY header is too short for its addresses")
    tlvs = parse_tlvs(header, end)
    if family == _UNSPECIFIED or not header[13] & 15:
        return ProxyHeader(tlvs=tlvs)
    block = header[_V2_FIXED_BYTES:end]
    if family == _UNIX:
        source, destination = (_path(block[:_UNIX_PATH_BYTES]), _path(block[_UNIX_PATH_BYTES:]))
        return ProxyHeader(source, 0, destination, 0, tlvs=tlvs)
    size = (len(block) - 4) // 2
    return ProxyHeader(
        str(_unmapped(ipaddress.ip_address(block[:size]))),
        int.from_bytes(block[-4:-2], "big"),
        str(_unmapped(ipaddress.ip_address(block[size : 2 * size]))),
        int.from_bytes(block[-2:], "big"),
        tlvs=tlvs,
    )


def _path(name: bytes) -> str:
    return "unix:" + name.rstrip(b"\0").decode("utf-8", "surrogateescape")


# -- writing -----------------------------------------------------------------


def encode_proxy_v1(header: ProxyHeader) -> bytes:
    """The line that tells *header*; ``UNKNOWN`` where version 1 has no words for it."""
    addresses = None if header.is_local else _address_pair(header)
    if addresses is None:
        return b"PROXY UNKNOWN\r\n"
    source, destination = addresses
    ports = f"{header.source_port} {header.destination_port}"
    return f"PROXY TCP{source.version} {source} {destination} {ports}\r\n".encode("ascii")


def encode_proxy_v2(header: ProxyHeader, *, checksum: bool = False) -> bytes:
    """The binary header that tells *header*; of its ``tlvs``, those that fit.

    Without IP addresses it says LOCAL and no more, as HAProxy does for unix
    sockets: that every receiver has to take, but HAProxy drops connections
    whose header names a family other than IPv4 and IPv6.

    :param checksum: whether it ends with its CRC-32C.
    """
    addresses = None if header.is_local else _address_pair(header)
    if addresses is None:
        command, family, block = _LOCAL, 0, b""
    else:
        ports = header.source_port.to_bytes(2, "big") + header.destination_port.to_bytes(2, "big")
        block = addresses[0].packed + addresses[1].packed + ports
        room = MAX_V2_BYTES - _V2_FIXED_BYTES - len(block) - (_CHECKSUM_TLV_BYTES if checksum else 0)
        block += encode_tlvs(header.tlvs, room)
        command, family = _PROXY, (_INET if addresses[0].version == 4 else _INET6) << 4 | _STREAM
    if checksum:
        block += encode_tlvs(((TLV.CRC32C, bytes(4)),), _CHECKSUM_TLV_BYTES)
    encoded = b"%b%c%c%b%b" % (_SIGNATURE, command, family, len(block).to_bytes(2, "big"), block)
    return encoded[:-4] + crc32c(encoded).to_bytes(4, "big") if checksum else encoded


def _address_pair(header: ProxyHeader) -> tuple[_Address, _Address] | None:
    """Both addresses, of one family; ``None`` when they are no IP addresses."""
    try:
        source, destination = (
            _unmapped(ipaddress.ip_address(text.partition("%")[0]))
            for text in (header.source, header.destination)
        )
    except ValueError:
        return None
    if source.version == destination.version:
        return source, destination
    return _as_ipv6(source), _as_ipv6(destination)


def _as_ipv6(address: _Address) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(f"::ffff:{address}" if address.version == 4 else address.packed)
