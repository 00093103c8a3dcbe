"""The configuration file and the environment, read into :class:`Settings`.

Every mistake is reported, never only the first, each in one sentence with
the file, the line and the key path.  Nothing is listened on, resolved or
started here; of the file system only what the settings name is looked at.

``SCALINGO_PROXY_<SECTION>_<KEY>`` in the environment (such as
``SCALINGO_PROXY_TIMEOUTS_CONNECT=2``) takes precedence over the file for the
plain tables, but not for ``[[listen]]``, ``[[app]]`` and lists.
"""

from __future__ import annotations

import os
import re
import time
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from scalingo_proxy.config_access import take_in_access_files
from scalingo_proxy.config_authorities import take_in_authorities
from scalingo_proxy.config_certificates import take_in_admin_certificate, take_in_certificates
from scalingo_proxy.config_environment import Overrides, read_environment
from scalingo_proxy.config_error_pages import take_in_error_pages
from scalingo_proxy.config_lines import key_lines, line_of
from scalingo_proxy.config_tables import (
    DOCUMENT,
    beside,
    default_app_doubts,
    file_findings,
    relation_findings,
)
from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.model import App, Health, Limits, Quarantine, Timeouts
from scalingo_proxy.resolvers.strict_tables import Finding, Path, path_text
from scalingo_proxy.services.reserved_settings import reserved_settings
from scalingo_proxy.settings import (
    AccessSettings,
    AdminSettings,
    ExplainSettings,
    ListenSettings,
    LogSettings,
    MetricsSettings,
    ProxySettings,
    Settings,
    TopologySettings,
    parse_app_option,
)

__all__ = ["FileMistake", "Settings", "load", "parse", "parse_app_option"]


@attrs.frozen
class FileMistake(Mistake):
    """A mistake that knows its file; as text it reads ``FILE:LINE: [TABLE] key: message``.

    :ivar filename: the file, or the environment variable, it stands in.
    :ivar column: for syntax errors, from 1; else 0.
    :ivar place: table and key as people read them.
    """

    filename: str = ""
    column: int = 0
    place: str = ""

    def __str__(self) -> str:
        where = ":".join([self.filename, *(str(number) for number in (self.line, self.column) if number)])
        return ": ".join(part for part in (where, self.place + self.message) if part)


def load(path: str | None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from a file.

    :param path: the file; none means the defaults and the environment.
    :param environ: the environment; the process's own when left out.
    :raises ConfigurationError: with every mistake.
    """
    environ = os.environ if environ is None else environ
    if path is None:
        return parse("", "", environ)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise _unreadable(path or '""', error.strerror or str(error)) from None
    try:
        document = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([FileMistake("", "is not UTF-8 text", line, path)]) from None
    return parse(document, path, environ)


def parse(text: str, filename: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the text of a configuration file.

    :param filename: for messages, and the folder that relative names of
        files to be read start from.
    :param environ: the environment; none when left out.
    :raises ConfigurationError: with every mistake, in the order of lines.
    """
    document = _toml(text, filename)
    overrides = read_environment(environ or {})
    overrides.apply(document)
    given, findings = DOCUMENT.read(document)
    findings += relation_findings(given)
    findings += file_findings(given, os.path.dirname(filename))
    findings += take_in_access_files(given, os.path.dirname(filename))
    findings += take_in_authorities(given, os.path.dirname(filename))
    findings += take_in_error_pages(given, os.path.dirname(filename))
    certificates, broken, outdated = take_in_certificates(given, os.path.dirname(filename), time.time())
    findings += broken
    broken, admin_outdated = take_in_admin_certificate(given, os.path.dirname(filename), time.time())
    findings += broken
    refused, warned = reserved_settings(document)
    warned += [*outdated, *admin_outdated, *default_app_doubts(given)]
    # A value that is wrong in itself needs no second sentence.
    wrong = {finding.path[:depth] for finding in findings for depth in range(len(finding.path) + 1)}
    refused = [finding for finding in refused if finding.path not in wrong]
    sentences = _Sentences(text, filename, overrides)
    if findings or refused:
        raise ConfigurationError(sentences.mistakes(findings + refused))
    warnings = [str(mistake) for mistake in sentences.mistakes(warned)] + overrides.warnings
    return attrs.evolve(_settings(given, filename, warnings), certificates=certificates)


def _unreadable(path: str, reason: str) -> ConfigurationError:
    return ConfigurationError([FileMistake("", f"cannot be read: {reason}", filename=path)])


# -- syntax ---------------------------------------------------------------------

_PLAINER = {
    "Invalid value": "this is no value (text stands in quotes)",
    "Cannot overwrite a value": "this key is set twice",
}
_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def _toml(text: str, filename: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
    except RecursionError:
        message = "Lists or tables are nested too deeply"
    except ValueError:  # int() refuses thousands of digits, and tomllib does not expect it to
        message = "A number is too long"
    position = _POSITION.search(message)
    line, column = position.groups() if position else (None, None)
    if position:
        message = message[: position.start()]
    message = _PLAINER.get(message, message[:1].lower() + message[1:])
    where = ""
    if position and line is None:
        line, where = str(text.count("\n") + (not text.endswith("\n"))), " at the end of the file"
    mistake = FileMistake("", f"not TOML{where}: {message}", int(line or 0), filename, int(column or 0))
    raise ConfigurationError([mistake])


# -- from findings to sentences ---------------------------------------------------


class _Sentences:
    """Tells where in the file, or in which variable, each finding stands."""

    def __init__(self, text: str, filename: str, overrides: Overrides) -> None:
        self._text = text
        self._filename = filename
        self._overrides = overrides

    def mistakes(self, findings: Iterable[Finding]) -> list[FileMistake]:
        """The findings in the order of their lines."""
        findings = list(findings)
        lines = key_lines(self._text) if findings else {}
        found = [self._mistake(finding, lines) for finding in findings]
        return sorted(found, key=lambda mistake: mistake.line)

    def _mistake(self, finding: Finding, lines: dict[Path, int]) -> FileMistake:
        path, message = path_text(finding.path), finding.message
        variable = self._overrides.variable(finding.path)
        if variable:
            return FileMistake(path, message, filename=variable)
        return FileMistake(path, message, line_of(lines, finding.path), self._filename, place=_place(finding))


def _place(finding: Finding) -> str:
    """Table and key before a message: ``[health] ``, ``[[app]] #2 backends: ``."""
    path = finding.path[:-1] if finding.unknown else finding.path
    if not path:
        return ""
    if len(path) > 1 and isinstance(path[1], int):
        words, rest = [f"[[{path[0]}]] #{path[1] + 1}"], path[2:]
    else:
        words, rest = [f"[{path[0]}]"], path[1:]
    if rest and isinstance(rest[-1], int) and not finding.unknown:
        rest = rest[:-1]  # the message quotes the item
    words += [f"#{step + 1}" if isinstance(step, int) else step for step in rest]
    return " ".join(words) + (" " if finding.unknown and not rest else ": ")


# -- from tables to settings --------------------------------------------------------


def _settings(given: Mapping[str, Any], filename: str, warnings: Iterable[str]) -> Settings:
    folder = os.path.dirname(filename)
    admin = AdminSettings(**given.get("admin", {}))
    access = AccessSettings(**given.get("access", {}))
    return Settings(
        proxy=ProxySettings(**given.get("proxy", {})),
        listens=tuple(ListenSettings(**table) for table in given.get("listen", ())),
        access=attrs.evolve(access, deny_files=tuple(beside(folder, name) for name in access.deny_files)),
        admin=attrs.evolve(admin, token_file=beside(folder, admin.token_file)),
        timeouts=Timeouts(**given.get("timeouts", {})),
        limits=Limits(**given.get("limits", {})),
        health=Health(**given.get("health", {})),
        quarantine=Quarantine(**given.get("quarantine", {})),
        log=LogSettings(**given.get("log", {})),
        metrics=MetricsSettings(**given.get("metrics", {})),
        explain=ExplainSettings(**given.get("explain", {})),
        topology=TopologySettings(**given.get("topology", {})),
        apps=tuple(App(**table) for table in given.get("app", ())),
        warnings=tuple(warnings),
        filename=filename,
    )
