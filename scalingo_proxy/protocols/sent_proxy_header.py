"""The PROXY header that a backend is sent: who is behind a connection of ours.

Whether an app wants one, and in which version, its ``send_proxy`` says.
"""

from __future__ import annotations

from typing import Any

from scalingo_proxy.routing.networks import plain_address
from scalingo_proxy.wire.proxy_header import TLV, ProxyHeader, encode_proxy_v1, encode_proxy_v2

__all__ = ["proxy_header_bytes"]


def proxy_header_bytes(
    version: str, peer: Any, host: Any, *, client: str = "", alpn: bytes = b"", authority: str = ""
) -> bytes:
    """The header about a client, as bytes.

    :param version: ``"v1"`` or ``"v2"``.
    :param peer: the client's address, as a transport tells it.
    :param host: the address that the client connected to, likewise.
    :param client: the client's address, where *peer* is a proxy that told of it.
    :param alpn: told in version 2, like *authority*, when it is not empty.
    """
    source, source_port = _address(peer)
    if client and client != (source or "unix:"):
        source, source_port = client, 0
    destination, destination_port = _address(host)
    if version == "v1":
        return encode_proxy_v1(ProxyHeader(source, source_port, destination, destination_port))
    told = ((TLV.ALPN, alpn), (TLV.AUTHORITY, authority.encode("ascii")))
    tlvs = tuple((int(kind), value) for kind, value in told if value)
    return encode_proxy_v2(ProxyHeader(source, source_port, destination, destination_port, tlvs=tlvs))


def _address(address: Any) -> tuple[str, int]:
    """Address and port as a PROXY header tells them; nothing for a unix socket without a name."""
    host = getattr(address, "host", None)
    if host:
        return plain_address(host), address.port
    name = getattr(address, "name", None)
    return (f"unix:{name.decode('utf-8', 'surrogateescape')}" if name else ""), 0
