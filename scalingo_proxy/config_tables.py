"""Which tables and keys a configuration file has, and how they depend on each other.

The tables themselves are read key by key; relations are checked between
those values that could be read, so that one mistake does not hide another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from scalingo_proxy.model import Limits, Quarantine
from scalingo_proxy.resolvers.app_record import (
    CERTIFICATE_FILES,
    LIMITS,
    QUARANTINE,
    TIMEOUTS,
    AppRecordReader,
    quarantine_findings,
)
from scalingo_proxy.resolvers.health_record import HEALTH
from scalingo_proxy.resolvers.strict_tables import (
    A_YEAR,
    Finding,
    Path,
    TableListReader,
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
from scalingo_proxy.services.admin_guards import token_in
from scalingo_proxy.services.endpoint_strings import ListenEndpoint, parse_endpoint
from scalingo_proxy.settings import AdminSettings, LogSettings, ProxySettings, app_clashes, endpoint_clashes

__all__ = ["DOCUMENT", "beside", "bytes_in", "default_app_doubts", "file_findings", "relation_findings"]

_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _word(value: Any) -> str:
    """A word that stands unquoted in a log line and in a metric's label."""
    written = text(value)
    if not _WORD.fullmatch(written):
        raise ValueError(f"must be 1 to 64 letters, digits, '-', '_' and '.', not {shown(written)}")
    return written


def _endpoint(value: Any) -> ListenEndpoint:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'must be text in quotes: "{value}"')
    return parse_endpoint(text(value))


def _file_name(value: Any) -> str:
    written = text(value)
    if "\0" in written:
        raise ValueError("must be the name of a file")
    return written


def _destination(value: Any) -> str:
    written = _file_name(value)
    if not written:
        raise ValueError('must be "-" for standard output, or the name of a file')
    return written


def _certificate_files(value: Any) -> Any:
    """Two files, or ``{}`` for none."""
    return CERTIFICATE_FILES(value) if value != {} else {}


_NETWORKS = list_of(network, "networks")

_LISTEN = TableReader(
    {
        "protocol": one_of(("http", "tls")),
        "endpoint": _endpoint,
        "proxy_protocol": flag,
        "trusted_proxies": _NETWORKS,
        "public_port": whole_number(0, 65535),
        "default_app": text,
    },
    required=("endpoint",),
)

#: The whole file.
DOCUMENT = TableReader(
    {
        "proxy": TableReader({"name": _word, "region": _word, "state": _file_name}),
        "listen": TableListReader("listen", _LISTEN),
        "access": TableReader(
            {"deny": _NETWORKS, "allow": _NETWORKS, "deny_files": list_of(_destination, "files")}
        ),
        "admin": TableReader(
            {"endpoint": _endpoint, "token_file": _file_name, "certificate": _certificate_files}
        ),
        "timeouts": TIMEOUTS,
        "limits": LIMITS,
        "health": HEALTH,
        "quarantine": QUARANTINE,
        "log": TableReader(
            {
                "requests": one_of(("logfmt", "json", "combined", "off")),
                "destination": _destination,
                "query": flag,
            }
        ),
        "metrics": TableReader({"max_apps": whole_number(1, 1_000_000)}),
        "explain": TableReader({"requests": whole_number(0, 1_000_000)}),
        "topology": TableReader(
            {
                "guard_share": number(1),
                "guard_floor_apps": whole_number(0, 1_000_000),
                "guard_floor_backends": whole_number(0, 1_000_000),
                "confirm_after": number(A_YEAR, or_zero=True),
            }
        ),
        "app": TableListReader("app", AppRecordReader()),
    }
)


def relation_findings(given: Mapping[str, Any]) -> list[Finding]:
    """What is wrong between values that are right each for itself."""
    return [
        *_endpoint_findings(given),
        *_default_app_findings(given),
        *_admin_findings(given),
        *_app_findings(given),
        *_limit_findings(given.get("limits", {})),
        *_quarantine_findings(given.get("quarantine", {})),
    ]


def _endpoint_findings(given: Mapping[str, Any]) -> Iterator[Finding]:
    places: list[tuple[Path, str, ListenEndpoint]] = [
        (("listen", index, "endpoint"), f"[[listen]] #{index + 1}", listen["endpoint"])
        for index, listen in enumerate(given.get("listen", ()))
        if "endpoint" in listen
    ]
    admin = given.get("admin", {}).get("endpoint", AdminSettings().endpoint)
    places.append((("admin", "endpoint"), "[admin]", admin))
    for index, sentence in endpoint_clashes((words, endpoint) for _path, words, endpoint in places):
        yield Finding(places[index][0], sentence)


def _default_app_findings(given: Mapping[str, Any]) -> Iterator[Finding]:
    for index, listen in enumerate(given.get("listen", ())):
        if listen.get("default_app") and listen.get("protocol", "http") == "http":
            yield Finding(("listen", index, "default_app"), 'is for protocol = "tls" alone')


def default_app_doubts(given: Mapping[str, Any]) -> Iterator[Finding]:
    """Default apps that a file of apps does not have; they may be told to the admin API later."""
    names = {app.get("name") for app in given.get("app", ())}
    for index, listen in enumerate(given.get("listen", ())):
        name = listen.get("default_app")
        if names and name and name not in names:
            sentence = f"there is no app {shown(name)} yet; until then clients without a name get an alert"
            yield Finding(("listen", index, "default_app"), sentence)


def _admin_findings(given: Mapping[str, Any]) -> Iterator[Finding]:
    mistake = AdminSettings(**given.get("admin", {})).mistake()
    if mistake:
        yield Finding(("admin", "endpoint"), mistake)


def _app_findings(given: Mapping[str, Any]) -> Iterator[Finding]:
    apps = [(app.get("name") or "", app.get("domains", ())) for app in given.get("app", ())]
    for index, position, sentence in app_clashes(apps):
        where = ("name",) if position is None else ("domains", position)
        yield Finding(("app", index, *where), sentence)


def _limit_findings(given: Mapping[str, Any]) -> Iterator[Finding]:
    whole = given.get("head_bytes", Limits().head_bytes)
    for key in ("request_line_bytes", "header_bytes"):
        if given.get(key, 0) > whole:
            yield Finding(("limits", key), f"must not be more than head_bytes ({whole})")


def _quarantine_findings(given: Mapping[str, Any]) -> list[Finding]:
    defaults = Quarantine()
    effective = {"first": defaults.first, "max": defaults.max, **given}
    found = quarantine_findings(effective) if given else []
    return [finding.below(("quarantine",)) for finding in found]


# -- the file system --------------------------------------------------------------


def beside(folder: str, name: str) -> str:
    """The path of a file to be read: relative names start from the configuration file's folder."""
    return os.path.join(folder, name) if name else ""


def bytes_in(path: str, most: int) -> bytes:
    """What is in a file, but no more than *most* bytes of it.

    :raises ValueError: with a sentence that lacks its subject.
    """
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None


def file_findings(given: Mapping[str, Any], folder: str) -> list[Finding]:
    """What is wrong with the files that are named.

    Files to be read are looked for beside the configuration file; files to
    be written stay relative to the working directory.
    """
    proxy = ProxySettings(**given.get("proxy", {}))
    log = LogSettings(**given.get("log", {}))
    token_file = given.get("admin", {}).get("token_file", "")
    return [
        *_folder_findings(("proxy", "state"), proxy.state),
        *_folder_findings(("log", "destination"), log.destination if log.destination != "-" else ""),
        *_token_findings(beside(folder, token_file)),
    ]


def _folder_findings(path: tuple[str, str], name: str) -> Iterator[Finding]:
    folder = os.path.dirname(name)
    if folder and not os.path.isdir(folder):
        yield Finding(path, f"there is no folder {shown(folder)}")
    elif name and os.path.isdir(name):
        yield Finding(path, f"{shown(name)} is a folder")


def _token_findings(name: str) -> Iterator[Finding]:
    if not name:
        return
    try:
        token_in(name)
    except ValueError as error:
        yield Finding(("admin", "token_file"), str(error))
