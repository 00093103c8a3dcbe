"""The app record: one app as TOML and JSON write it, to and from an App.

The same record stands in ``[[app]]`` of the configuration file, in the body
of the admin API and in the store.  This module knows what a record may say;
it refuses to know where the record came from, and whether another app has
its domains already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from scalingo_proxy.model import App, AppState
from scalingo_proxy.resolvers.backend_record import (
    authorities,
    authorities_or_file,
    backend,
    backend_record,
    backend_tls,
    backend_tls_findings,
)
from scalingo_proxy.resolvers.health_record import HEALTH
from scalingo_proxy.resolvers.strict_tables import (
    A_YEAR,
    Finding,
    Reader,
    Refused,
    TableReader,
    double_quoted,
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

__all__ = [
    "CERTIFICATE_FILES",
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
        "backends": [backend_record(item) for item in app.backends],
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
        findings += backend_tls_findings(given)
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
_URL_REST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,300}([/?][!-~]{0,1700})?")
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
        raise ValueError(double_quoted(error, written)) from None


def _canonical(value: Any) -> str:
    return _domain(value) if text(value) else ""


def _certificate(value: Any) -> Any:
    """The name of a known certificate, or the files ``{cert, key}``."""
    return CERTIFICATE_FILES(value) if isinstance(value, Mapping) else text(value)


def _access(value: Any) -> Any:
    """Empty lists are none, so that only apps with lists are asked about them."""
    return {key: networks for key, networks in _ACCESS(value).items() if networks}


def _rate_limit(value: Any) -> Any:
    """An empty table is no limit, as it is for an app that never had one."""
    given = _RATE_LIMIT(value)
    if given and "requests" not in given and ("total" not in given or len(given) > 1):
        raise Refused([Finding(("requests",), "is missing")])
    return given


def _page(value: Any) -> str:
    """Where a page comes from: a URL or a file; whether it may be a file is whoever asks' business."""
    written = text(value)
    scheme, mark, rest = written.partition("://")
    if "\0" in written:
        raise ValueError("must be a URL or the name of a file")
    if not mark:
        return written
    if scheme not in ("http", "https"):
        raise ValueError(f"{shown(written)} begins with neither http:// nor https://")
    if not _URL_REST.fullmatch(rest):
        raise ValueError(f"{shown(written)} is not a URL to fetch (no spaces, no user and password)")
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
        "connections_per_address": whole_number(1, 10_000_000),
        "handshakes_per_address": whole_number(1, 1_000_000),
        "handshake_queue": whole_number(1, 1_000_000),
        "in_flight_per_backend": whole_number(1, 1_000_000),
        "queue_per_backend": whole_number(0, 1_000_000),
    }
)
#: The keys of ``[quarantine]``.
QUARANTINE = TableReader({"first": _seconds, "max": _seconds})

#: The two files of a certificate.
CERTIFICATE_FILES = TableReader({"cert": text, "key": text}, required=("cert", "key"))
_RATE = {"requests": whole_number(1, 1_000_000_000), "per": _seconds, "burst": whole_number(0, 1_000_000_000)}
_RATE_LIMIT = TableReader(
    {**_RATE, "total": TableReader(_RATE, required=("requests",))},
)
_NETWORKS = list_of(network, "networks")
_ACCESS = TableReader({"deny": _NETWORKS, "allow": _NETWORKS})

_APP = TableReader(
    {
        "name": _name,
        "domains": _distinct(list_of(_domain, "domains"), str),
        "backends": _distinct(list_of(backend, "backends"), lambda item: item.address),
        "tls": one_of(("terminate", "passthrough")),
        "force_https": flag,
        "canonical": _canonical,
        "balancer": one_of(tuple(BALANCERS)),
        "state": one_of(tuple(state.value for state in AppState)),
        "certificate": _certificate,
        "send_proxy": one_of(("", "v1", "v2")),
        "backend_tls": backend_tls(authorities),
        "error_pages": TableReader(dict.fromkeys(("stopped", "no_backend", "error", "timeout"), _page)),
        "rate_limit": _rate_limit,
        "access": _access,
        "health": HEALTH,
        "timeouts": TIMEOUTS,
        "limits": LIMITS,
        "quarantine": QUARANTINE,
    }
)
#: The same where it may name files.
_APP_IN_A_FILE = TableReader({**_APP.fields, "backend_tls": backend_tls(authorities_or_file)})


# -- writing -------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """The value with nothing but plain, mutable tables and lists in it."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
