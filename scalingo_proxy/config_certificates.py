"""The certificates that apps of a configuration file, and the admin API's, name by their files.

Read and judged when the file is: a broken one is a mistake at its line, and a
reload that meets one keeps what was served before.  One whose time has run out
is served with a warning: all other apps must come up all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scalingo_proxy.config_tables import beside
from scalingo_proxy.errors import CertificateMistake
from scalingo_proxy.model import Certificate
from scalingo_proxy.protocols.tls_certificates import date_mistakes, read_certificate, trial_context
from scalingo_proxy.resolvers.strict_tables import Finding, shown

__all__ = ["take_in_admin_certificate", "take_in_certificates"]

#: A chain and a key are far smaller; whatever is larger is something else.
_MAX_FILE_BYTES = 1024 * 1024

#: What a mistake of a certificate is about, by the key that names its file.
_KEYS = {"certificate": "cert", "key": "key"}


def take_in_certificates(
    given: Mapping[str, Any], folder: str, now: float
) -> tuple[tuple[Certificate, ...], list[Finding], list[Finding]]:
    """Read each pair of files.

    :return: the certificates, what is wrong with them, and what is to be warned of.

    :param given: the whole document, as far as it could be read; names of
        files in it become whole paths, by which apps and certificates find
        each other.
    :param folder: where relative names start from.
    :param now: seconds since the epoch.
    """
    return _take_in(_tables(given), folder, now)


def _take_in(
    tables: Iterable[tuple[tuple[str | int, ...], dict[str, Any]]], folder: str, now: float
) -> tuple[tuple[Certificate, ...], list[Finding], list[Finding]]:
    found: dict[str, Certificate] = {}
    findings: list[Finding] = []
    warned: list[Finding] = []
    trial = trial_context()
    for place, table in tables:
        written = {key: shown(table[key]) for key in ("cert", "key")}
        table.update({key: beside(folder, table[key]) for key in ("cert", "key")})
        contents, unread = _read(table, written, place)
        findings += unread
        if unread:
            continue
        try:
            certificate = read_certificate(f"file:{table['cert']}", contents["cert"], contents["key"], trial)
        except CertificateMistake as error:
            for mistake in error.mistakes:
                key = _KEYS.get(mistake.path, "cert")
                findings.append(Finding((*place, key), f"{written[key]} {mistake.message}"))
        else:
            found[certificate.name] = certificate
            warned += [
                Finding((*place, "cert"), f"{written['cert']} {mistake.message}")
                for mistake in date_mistakes(certificate, now)
            ]
    return tuple(found.values()), findings, warned


def take_in_admin_certificate(
    given: Mapping[str, Any], folder: str, now: float
) -> tuple[list[Finding], list[Finding]]:
    """Put the certificate of the admin API in the place of its files.

    :return: what is wrong with it, and what is to be warned of.
    """
    admin = given.get("admin") or {}
    if not admin.get("certificate"):
        admin.pop("certificate", None)
        return [], []
    certificates, findings, warned = _take_in([(("admin", "certificate"), admin["certificate"])], folder, now)
    admin["certificate"] = certificates[0] if certificates else None
    return findings, warned


def _tables(given: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    for index, app in enumerate(given.get("app", ())):
        table = app.get("certificate")
        if isinstance(table, dict) and table.get("cert") and table.get("key"):
            yield ("app", index, "certificate"), table


def _read(
    table: Mapping[str, str], written: Mapping[str, str], place: tuple[str | int, ...]
) -> tuple[dict[str, bytes], list[Finding]]:
    contents: dict[str, bytes] = {}
    findings: list[Finding] = []
    for key in ("cert", "key"):
        try:
            with open(table[key], "rb") as file:
                contents[key] = file.read(_MAX_FILE_BYTES)
        except OSError as error:
            reason = error.strerror or error
            findings.append(Finding((*place, key), f"{written[key]} cannot be read: {reason}"))
    return contents, findings
