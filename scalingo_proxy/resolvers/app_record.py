"""The app record: one app as TOML and JSON write it, to and from an App.

The same record stands in ``[[app]]`` of the configuration file, in the body
of the admin API and in the store.  This module knows what a record may say;
it refuses to know where the record came from, and whether another app has
its domains already.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from scalingo_proxy.model import App, AppState, Backend, split_backend_address
from scalingo_proxy.resolvers.strict_tables import (
    A_YEAR,
    Finding,
    Reader,
    Refused,
    TableReader,
    flag,
    list_of,
    network,
    number,
    one_of,
    shown,
    text,
    whole_number,
)
from scalingo_proxy.routing.balancers import BALANCERS
from scalingo_proxy.routing.table import normalise_domain
from scalingo_proxy.wire.authorities import is_pem, read_authorities

__all__ = [
    "HEALTH",
    "LIMITS",
    "QUARANTINE",
    "TIMEOUTS",
    "AppRecordReader",
    "app_from_record",
    "merge_patch",
    "quarantine_findings",
    "read_app_record",
    "record_from_app",
]


def app_from_record(record: Mapping[str, Any], *, name: str | None = None) -> App:
    """Make an App from its record.

    :param name: the name it is known by already (as in ``PUT /apps/NAME``);
        the record may then leave its own out, or must agree.
    :raises ConfigurationError: with every mistake, each with its key path
        relative to the record.
    """
    given, findings = read_app_record(record, name=name)
    if findings:
        raise Refused(findings).as_configuration_error()
    return App(**given)


def record_from_app(app: App) -> dict[str, Any]:
    """Write *app* as a record of plain values, ready for JSON.

    ``name``, ``domains``, ``backends`` and ``state`` are always told,
    everything else only where it differs from the default.
    :func:`app_from_record` makes an equal App of it.
    """
    record: dict[str, Any] = {
        "name": app.name,
        "domains": list(app.domains),
        "backends": [_backend_record(backend) for backend in app.backends],
        "state": app.state.value,
    }
    for field in attrs.fields(App):
        value = getattr(app, field.name)
        if field.name not in record and value != field.default:
            record[field.name] = _plain(value)
    return record


def merge_patch(record: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396) and return the result; neither is changed.

    ``None`` in the patch takes a key away, a nested table is merged, anything
    else replaces what was there.
    """
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(record) if isinstance(record, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def read_app_record(
    record: Any, *, name: str | None = None, may_name_files: bool = False
) -> tuple[dict[str, Any], list[Finding]]:
    """Read a record: what of it is usable, beside everything that is not.

    :param may_name_files: ``backend_tls.ca`` may be the name of a file, which
        whoever asks then reads.
    :return: arguments for :class:`~scalingo_proxy.model.App`, complete when
        there is no finding.
    """
    given, findings = (_APP_IN_A_FILE if may_name_files else _APP).read(record)
    if isinstance(record, Mapping):
        findings += _name_findings(record, given, name)
        findings += _canonical_findings(record, given)
        findings += _backend_tls_findings(given)
        given["name"] = given.get("name", name)
        overrides = given.get("quarantine", {})
        findings += [finding.below(("quarantine",)) for finding in quarantine_findings(overrides)]
    return given, findings


class AppRecordReader(TableReader):
    """:func:`read_app_record` for whoever reads records inside a configuration file."""

    def __init__(self) -> None:
        super().__init__(_APP_IN_A_FILE.fields)

    def read(self, value: Any) -> tuple[dict[str, Any], list[Finding]]:
        return read_app_record(value, may_name_files=True)


def quarantine_findings(given: Mapping[str, Any]) -> list[Finding]:
    """What is wrong between ``first`` and ``max``, when both are told."""
    if "first" in given and "max" in given and given["first"] > given["max"]:
        return [Finding(("max",), "must not be less than first")]
    return []


# -- readers -------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*")
_PROBE_PATH = re.compile(r"(/[!-~]*)?")
_MEBIBYTE = 1 << 20


def _name(value: Any) -> str:
    """An app name; what ``_none`` and ``_other`` mean in metrics stays unambiguous."""
    written = text(value)
    if not _NAME.fullmatch(written):
        raise ValueError(
            f"{shown(written)} is not a name (letters, digits, '-', '_' and '.', "
            "a letter or digit first, at most 128)"
        )
    return written


def _name_findings(record: Mapping[str, Any], given: Mapping[str, Any], name: str | None) -> list[Finding]:
    if "name" in record:
        if name is None or "name" not in given or given["name"] == name:
            return []
        return [Finding(("name",), f"{shown(given['name'])} does not agree with {shown(name)}")]
    if name is None:
        return [Finding(("name",), "is missing")]
    try:
        _name(name)
    except ValueError as error:
        return [Finding(("name",), str(error))]
    return []


def _canonical_findings(record: Mapping[str, Any], given: Mapping[str, Any]) -> list[Finding]:
    canonical = given.get("canonical")
    if not canonical or ("domains" in record and "domains" not in given):
        return []  # not told, or nothing to compare it with because the domains are wrong themselves
    if canonical not in given.get("domains", ()):
        return [Finding(("canonical",), f"{shown(canonical)} is not one of the app's domains")]
    if canonical.startswith("*."):
        return [Finding(("canonical",), f"{shown(canonical)} is a wildcard; name one domain")]
    return []


def _domain(value: Any) -> str:
    written = text(value)
    try:
        return normalise_domain(written)
    except ValueError as error:
        raise ValueError(_double_quoted(error, written)) from None


def _canonical(value: Any) -> str:
    return _domain(value) if text(value) else ""


def _backend_tls_findings(given: Mapping[str, Any]) -> list[Finding]:
    """What is wrong between the backends and how their TLS is spoken of."""
    backends = given.get("backends", ())
    if given.get("tls") == "passthrough":
        # Its TLS is the client's: nobody here could speak it a second time.
        sentence = 'is asked over TLS, but the app has tls = "passthrough"; write HOST:PORT'
        return [
            Finding(("backends", index), f"{shown(backend.address)} {sentence}")
            for index, backend in enumerate(backends)
            if backend.tls
        ]
    if given.get("backend_tls") and backends and not any(backend.tls for backend in backends):
        # Whoever writes this expects TLS; plain requests would be a nasty surprise.
        return [Finding(("backend_tls",), "is for backends written https://HOST:PORT, and there is none")]
    return []


def _address(value: Any) -> tuple[str, int, bool]:
    """Host and port of a backend, in the one way of writing them, and whether it speaks TLS."""
    written = text(value)
    try:
        host, port, tls = split_backend_address(written)
    except ValueError as error:
        raise ValueError(_double_quoted(error, written)) from None
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
        return _host(written, written) if written else ""


def _authorities(value: Any) -> str:
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


def _authorities_or_file(value: Any) -> str:
    """Certificates in PEM, or the name of a file that somebody else reads."""
    written = text(value)
    if is_pem(written):
        return _authorities(written)
    if "\0" in written:
        raise ValueError("must be the name of a file, or PEM text")
    return written


def _double_quoted(error: ValueError, written: str) -> str:
    """The sentence with the text quoted as TOML and JSON quote it."""
    return str(error).replace(repr(written), shown(written))


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(
        part.isdigit() and int(part) < 256 and str(int(part)) == part for part in parts
    )


def _backend(value: Any) -> Backend:
    """``"HOST:PORT"``, ``"https://HOST:PORT"`` or ``{"address": "HOST:PORT", "weight": 3}``."""
    if isinstance(value, Mapping):
        given = _BACKEND(value)
        host, port, tls = given["address"]
        return Backend(host, port, given.get("weight", 1), tls)
    host, port, tls = _address(value)
    return Backend(host, port, tls=tls)


def _backend_tls(authorities: Reader) -> Reader:
    """A reader of ``backend_tls``; what is empty is left out, as it means nothing."""
    read = TableReader({"ca": authorities, "name": _certificate_name})
    return lambda value: {key: item for key, item in read(value).items() if item}


def _certificate(value: Any) -> Any:
    """The name of a known certificate, or the files ``{cert, key}``."""
    return _CERTIFICATE(value) if isinstance(value, Mapping) else text(value)


def _rate_limit(value: Any) -> Any:
    """An empty table is no limit, as it is for an app that never had one."""
    return _RATE_LIMIT(value) if value != {} else {}


def _probe_path(value: Any) -> str:
    written = text(value)
    if not _PROBE_PATH.fullmatch(written):
        raise ValueError(f'must be "" or a path that begins with "/", not {shown(written)}')
    return written


def _distinct(read: Reader, tell: Callable[[Any], str]) -> Reader:
    """Refuse a list that names the same thing twice."""

    def read_distinct(value: Any) -> Any:
        items = read(value)
        seen: set[str] = set()
        findings = []
        for index, item in enumerate(items):
            told = tell(item)
            if told in seen:
                findings.append(Finding((index,), f"{shown(told)} is listed twice"))
            seen.add(told)
        if findings:
            raise Refused(findings)
        return items

    return read_distinct


_seconds = number(A_YEAR)
_seconds_or_none = number(A_YEAR, or_zero=True)

#: The keys of ``[timeouts]``, for the proxy and for one app alike.
TIMEOUTS = TableReader(
    {
        "connect": _seconds,
        "first_byte": _seconds,
        "idle": _seconds,
        "request_head": _seconds,
        "request_body": _seconds,
        "keep_alive": _seconds,
        "queue": _seconds_or_none,
        "drain": _seconds_or_none,
    }
)
#: The keys of ``[limits]``.
LIMITS = TableReader(
    {
        "request_line_bytes": whole_number(64, 16 * _MEBIBYTE),
        "head_bytes": whole_number(64, 16 * _MEBIBYTE),
        "header_bytes": whole_number(64, 16 * _MEBIBYTE),
        # Elsewhere 0 often means "no limit"; here it is refused rather than guessed.
        "body_bytes": whole_number(1, 1 << 62),
        "client_connections": whole_number(1, 10_000_000),
        "in_flight_per_backend": whole_number(1, 1_000_000),
        "queue_per_backend": whole_number(0, 1_000_000),
    }
)
#: The keys of ``[health]``.
HEALTH = TableReader(
    {
        "path": _probe_path,
        "interval": _seconds_or_none,
        "timeout": _seconds,
        "rise": whole_number(1, 1000),
        "fall": whole_number(1, 1000),
    }
)
#: The keys of ``[quarantine]``.
QUARANTINE = TableReader({"first": _seconds, "max": _seconds})

_BACKEND = TableReader({"address": _address, "weight": whole_number(1, 100)}, required=("address",))
_CERTIFICATE = TableReader({"cert": text, "key": text}, required=("cert", "key"))
_RATE_LIMIT = TableReader(
    {"requests": whole_number(1, 1_000_000_000), "per": _seconds, "burst": whole_number(0, 1_000_000_000)},
    required=("requests",),
)
_NETWORKS = list_of(network, "networks")

_APP = TableReader(
    {
        "name": _name,
        "domains": _distinct(list_of(_domain, "domains"), str),
        "backends": _distinct(list_of(_backend, "backends"), lambda backend: backend.address),
        "tls": one_of(("terminate", "passthrough")),
        "force_https": flag,
        "canonical": _canonical,
        "balancer": one_of(tuple(BALANCERS)),
        "state": one_of(tuple(state.value for state in AppState)),
        "certificate": _certificate,
        "send_proxy": one_of(("", "v1", "v2")),
        "backend_tls": _backend_tls(_authorities),
        "error_pages": TableReader(dict.fromkeys(("stopped", "no_backend", "error", "timeout"), text)),
        "rate_limit": _rate_limit,
        "access": TableReader({"deny": _NETWORKS, "allow": _NETWORKS}),
        "health": HEALTH,
        "timeouts": TIMEOUTS,
        "limits": LIMITS,
        "quarantine": QUARANTINE,
    }
)
#: The same where it may name files.
_APP_IN_A_FILE = TableReader({**_APP.fields, "backend_tls": _backend_tls(_authorities_or_file)})


# -- writing -------------------------------------------------------------------


def _backend_record(backend: Backend) -> Any:
    if backend.weight == 1:
        return backend.address
    return {"address": backend.address, "weight": backend.weight}


def _plain(value: Any) -> Any:
    """The value with nothing but plain, mutable tables and lists in it."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
