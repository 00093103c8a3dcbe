"""Addresses, as people write them."""

from __future__ import annotations

import ipaddress

__all__ = ["join_host_port", "split_backend_address", "split_host_port"]


def split_host_port(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` or ``[IPV6]:PORT``.

    :raises ValueError: with a sentence that says what is wrong.
    """
    host, colon, digits = text.rpartition(":")
    if not colon or host.endswith(":") or (host.startswith("[") and not host.endswith("]")):
        raise ValueError(f"{text!r} has no port (expected host:port)")
    if host.startswith("["):
        host = host[1:-1]
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{text!r} has no valid IPv6 address in its brackets") from None
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:3000")
    if not host:
        raise ValueError(f"{text!r} has no host (expected host:port)")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536):
        raise ValueError(f"{text!r} has no valid port (1 to 65535)")
    return host, int(digits)


def join_host_port(host: str, port: int) -> str:
    """Write ``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_backend_address(text: str) -> tuple[str, int, bool]:
    """Split what names a backend: ``HOST:PORT``, ``http://HOST:PORT`` or ``https://HOST[:PORT]``.

    :return: the host, the port (443 where ``https://`` has none), and whether
        it is asked over TLS.
    :raises ValueError: with a sentence that says what is wrong.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return *split_host_port(text), False
    if scheme not in ("http", "https"):
        raise ValueError(f"{text!r} is neither host:port nor begins with http:// or https://")
    if "/" in rest or "?" in rest or "#" in rest or "@" in rest:
        raise ValueError(f"{text!r} says more than where to connect (expected {scheme}://host:port)")
    has_port = rest.rpartition("]")[2].count(":") == 1
    complete = f"{rest}:443" if scheme == "https" and not has_port else rest
    try:
        return *split_host_port(complete), scheme == "https"
    except ValueError as error:
        raise ValueError(str(error).replace(repr(complete), repr(text))) from None
