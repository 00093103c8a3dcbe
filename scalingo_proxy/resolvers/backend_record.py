"""The backends of an app record, and how those that are asked over TLS are verified.

Knows how they are written; whether anybody answers there is none of its
business, and no file is read here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from scalingo_proxy.model import Backend, split_backend_address
from scalingo_proxy.resolvers.strict_tables import (
    Finding,
    Reader,
    TableReader,
    double_quoted,
    shown,
    text,
    whole_number,
)
from scalingo_proxy.wire.authorities import is_pem, read_authorities

__all__ = [
    "authorities",
    "authorities_or_file",
    "backend",
    "backend_record",
    "backend_tls",
    "backend_tls_findings",
]

_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*")


def backend_tls_findings(given: Mapping[str, Any]) -> list[Finding]:
    """What is wrong between the backends and how their TLS is spoken of."""
    backends = given.get("backends", ())
    if given.get("tls") == "passthrough":
        # Its TLS is the client's: nobody here could speak it a second time.
        sentence = 'is asked over TLS, but the app has tls = "passthrough"; write HOST:PORT'
        found = [
            Finding(("backends", index), f"{shown(item.address)} {sentence}")
            for index, item in enumerate(backends)
            if item.tls
        ]
        if given.get("backend_tls"):
            found.append(Finding(("backend_tls",), 'is of no use with tls = "passthrough"'))
        return found
    if given.get("backend_tls") and backends and not any(item.tls for item in backends):
        # Whoever writes this expects TLS; plain requests would be a nasty surprise.
        return [Finding(("backend_tls",), "is for backends written https://HOST:PORT, and there is none")]
    return []


def _address(value: Any) -> tuple[str, int, bool]:
    """Host and port of a backend, in the one way of writing them, and whether it speaks TLS."""
    written = text(value)
    try:
        host, port, tls = split_backend_address(written)
    except ValueError as error:
        raise ValueError(double_quoted(error, written)) from None
    return _host(host, written), port, tls


def _host(host: str, written: str) -> str:
    """A host name or an address, without brackets, as it is compared."""
    if ":" in host:
        return host
    host = host.lower()
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{shown(written)} has no valid host name or address")
    if host.rpartition(".")[2].isdigit() and not _is_ipv4(host):
        # No top-level domain is a number, so it was meant as an address (WHATWG URL, "ends in a number").
        raise ValueError(f"{shown(written)} has no valid IPv4 address")
    return host


def _certificate_name(value: Any) -> str:
    """The name that a certificate must have: one name, or one address."""
    written = text(value)
    if "*" in written:
        raise ValueError(f"{shown(written)} is a wildcard; write the one name that is asked for")
    try:
        return str(ipaddress.ip_address(written.removeprefix("[").removesuffix("]")))
    except ValueError:
        if ":" in written:
            raise ValueError(f"{shown(written)} is no name alone; write it without a port") from None
        return _host(written, written) if written else ""


def authorities(value: Any) -> str:
    """Certificates in PEM, or nothing for the trust store of the system."""
    written = text(value)
    if not written:
        return ""
    if not is_pem(written):
        raise ValueError(
            f"{shown(written)} is not PEM text (-----BEGIN CERTIFICATE-----); "
            "only a configuration file may name a file"
        )
    read_authorities(written)
    return written


def authorities_or_file(value: Any) -> str:
    """Certificates in PEM, or the name of a file that somebody else reads."""
    written = text(value)
    if is_pem(written):
        return authorities(written)
    if "\0" in written:
        raise ValueError("must be the name of a file, or PEM text")
    return written


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(
        part.isdigit() and int(part) < 256 and str(int(part)) == part for part in parts
    )


def backend(value: Any) -> Backend:
    """``"HOST:PORT"``, ``"https://HOST:PORT"`` or ``{"address": "HOST:PORT", "weight": 3}``."""
    if isinstance(value, Mapping):
        given = _BACKEND(value)
        host, port, tls = given["address"]
        return Backend(host, port, given.get("weight", 1), tls)
    host, port, tls = _address(value)
    return Backend(host, port, tls=tls)


def backend_tls(ca: Reader) -> Reader:
    """A reader of ``backend_tls``; what is empty is left out, as it means nothing.

    :param ca: reads the authorities.
    """
    read = TableReader({"ca": ca, "name": _certificate_name})
    return lambda value: {key: item for key, item in read(value).items() if item}


def backend_record(told: Backend) -> Any:
    """What :func:`backend` reads as an equal backend."""
    if told.weight == 1:
        return told.address
    return {"address": told.address, "weight": told.weight}


_BACKEND = TableReader({"address": _address, "weight": whole_number(1, 100)}, required=("address",))
