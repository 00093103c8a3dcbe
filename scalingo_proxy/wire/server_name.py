"""The name in a TLS hello, by which the app is found (RFC 6066 §3).

As strict as the domains that an app can claim: what can be no domain is
refused here, so that it is never looked up, logged or passed on as a name.
"""

from __future__ import annotations

import ipaddress
import re

from scalingo_proxy.wire.tls_alert import Alert, HelloRefused
from scalingo_proxy.wire.tls_vector import take, take_whole

__all__ = ["parse_server_name"]

_HOST_NAME = 0

# Underscores are no host name characters, yet apps have such domains.
_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_\-]{0,61}[A-Za-z0-9_])?+"
_NAME = re.compile(rb"(" + _LABEL + rb"(?:\." + _LABEL + rb")*+)\.?")
_MAX_NAME_BYTES = 253
_IPV6 = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Fa-f:.]{2,45})")


def parse_server_name(content: bytes) -> tuple[str, str]:
    """The name in the extension (RFC 6066 §3), or the address in its place.

    Exactly one entry of the one type there is.  The extension could hold more,
    but no client can rely on it, and a second name is only ever a trick.
    """
    entries = take_whole(content, 2)
    if entries[0] != _HOST_NAME:
        raise HelloRefused(Alert.ILLEGAL_PARAMETER, "the server name is of an unknown type")
    name, end = take(entries, 1, 2)
    if not name:
        raise HelloRefused(Alert.DECODE_ERROR, "the server name is empty")
    if end != len(entries):
        raise HelloRefused(Alert.ILLEGAL_PARAMETER, "there is more than one server name")
    return _judge_name(name)


def _judge_name(name: bytes) -> tuple[str, str]:
    """The name in the form in which routes are looked up, or an address."""
    address = b""
    if (match := _NAME.fullmatch(name)) and len(match[1]) <= _MAX_NAME_BYTES:
        address = match[1]
        # A last label that is a number makes it an address to some readers (RFC 1123 §2.1).
        if not address.rpartition(b".")[2].isdigit():
            return address.decode("ascii").lower(), ""
    elif match := _IPV6.fullmatch(name):
        address = match[1] or match[2]
    try:
        return "", str(ipaddress.ip_address(address.decode("ascii")))
    except ValueError:
        raise HelloRefused(Alert.UNRECOGNIZED_NAME, "the server name is not a host name") from None
