"""Reads TOML- and JSON-shaped tables strictly, and keeps every mistake.

A *reader* is a function from a plain value (text, number, list, table) to
the value the program works with.  It raises ``ValueError`` with one sentence,
or :class:`Refused` with several findings and where each of them stands.
Nothing is converted silently: ``true`` is not 1, ``"5"`` is not 5.

This module knows no key of ours; :mod:`.app_record` and
:mod:`scalingo_proxy.config` say which keys there are.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from scalingo_proxy.errors import ConfigurationError, Mistake

__all__ = [
    "A_YEAR",
    "Finding",
    "Path",
    "Reader",
    "Refused",
    "TableListReader",
    "TableReader",
    "did_you_mean",
    "double_quoted",
    "findings_of",
    "flag",
    "list_of",
    "network",
    "number",
    "one_of",
    "path_text",
    "shown",
    "text",
    "whole_number",
]

#: Where a value stands: keys of tables and indices of lists, from the root.
Path = tuple[str | int, ...]
Reader = Callable[[Any], Any]

#: The longest time that may be configured, in seconds.
A_YEAR = 365 * 86400


def path_text(path: Path) -> str:
    """Write a path as people read it, such as ``app[2].backends[0]``."""
    written = ""
    for step in path:
        if isinstance(step, int):
            written += f"[{step}]"
        else:
            written += f".{step}" if written else step
    return written


@attrs.frozen
class Finding:
    """One thing wrong, and where.

    :ivar unknown: the last step of the path is a key that nobody knows, and
        the message names it already.
    """

    path: Path
    message: str
    unknown: bool = False

    def below(self, path: Path) -> Finding:
        """The same finding, seen from further up."""
        return attrs.evolve(self, path=path + self.path)

    def as_mistake(self) -> Mistake:
        """The finding as the rest of the program reports it."""
        return Mistake(path_text(self.path), self.message)


class Refused(ValueError):
    """A value with mistakes at one or more places inside."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(finding.message for finding in self.findings))

    def as_configuration_error(self) -> ConfigurationError:
        """The same, for those who know nothing of readers."""
        return ConfigurationError(finding.as_mistake() for finding in self.findings)


def findings_of(error: ValueError) -> tuple[Finding, ...]:
    """What a reader complained about, relative to the value it was given."""
    return error.findings if isinstance(error, Refused) else (Finding((), str(error)),)


#: Unknown keys of one table that are told one by one; looking for what was meant takes its time.
_UNKNOWN_KEYS = 20
#: Likewise of a list; a megabyte of nonsense would take a second to judge.
_MISTAKES_IN_A_LIST = 20
#: And how much of each is told.
_KEY_CHARACTERS = 60


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean "…"?`` when one of *known* is close or *word* is a part of it, else nothing."""
    choices = list(known)
    close = (
        difflib.get_close_matches(word, choices, 1)
        or difflib.get_close_matches(word.lower(), choices, 1)
        or [choice for choice in choices if len(word) > 2 and word.lower() in choice]
    )
    return f'; did you mean "{close[0]}"?' if close else ""


def shown(value: Any) -> str:
    """Show a value in a sentence, short."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str | bool | int | float):
        written = json.dumps(value, ensure_ascii=False)
        return written if len(written) <= 80 else f"{written[:77]}..."
    return "nothing" if value is None else str(value)


def double_quoted(error: ValueError, written: str) -> str:
    """The sentence with the text quoted as TOML and JSON quote it."""
    return str(error).replace(repr(written), shown(written))


# -- readers of single values ---------------------------------------------------


def text(value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, not {shown(value)}")
    return value


def flag(value: Any) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {shown(value)}")
    return value


def whole_number(lowest: int, highest: int) -> Reader:
    """A reader of whole numbers from *lowest* to *highest*."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}, not {shown(value)}")
        return value

    return read


def number(highest: int, *, or_zero: bool = False) -> Reader:
    """A reader of numbers above 0, up to *highest*; they come out as floats.

    :param or_zero: 0 is admitted too.
    """
    wanted = f"must be a number, {'0 or more' if or_zero else 'greater than 0'} and at most {highest}"

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{wanted}, not {shown(value)}")
        # Not-a-number is in no order with anything, so it fails here too.
        if not 0 <= value <= highest or (value == 0 and not or_zero):
            raise ValueError(f"{wanted}, not {shown(value)}")
        return float(value)

    return read


def one_of(words: Sequence[str]) -> Reader:
    """A reader of one word out of *words*."""
    choices = ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            hint = did_you_mean(value, words) if isinstance(value, str) else ""
            raise ValueError(f"must be {choices}, not {shown(value)}{hint}")
        return value

    return read


def network(value: Any) -> str:
    """An IPv4 or IPv6 network such as ``10.0.0.0/8``, as text in its usual form.

    A lone address is a network of one.
    """
    written = text(value)
    try:
        found = ipaddress.ip_network(written, strict=False)
    except ValueError:
        raise ValueError(
            f"{shown(written)} is not a network (expected one such as 10.0.0.0/8 or 2001:db8::/32)"
        ) from None
    if "/" in written and ipaddress.ip_interface(written).ip != found.network_address:
        raise ValueError(f'{shown(written)} has bits set beyond its prefix; did you mean "{found}"?')
    if (
        isinstance(found, ipaddress.IPv6Network)
        and found.network_address.ipv4_mapped
        and found.prefixlen >= 96
    ):
        # Peers are told by their IPv4 address, so this one would never match.
        raise ValueError(f"{shown(written)} is an IPv4 network in disguise; write it as IPv4")
    return str(found)


# -- readers of what holds several values ----------------------------------------


def list_of(reader: Reader, what: str) -> Reader:
    """A reader of lists whose items *reader* reads; they come out as a tuple.

    :param what: the plural that a sentence uses, such as ``"domains"``.
    """

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list of {what} in brackets, not {shown(value)}")
        items: list[Any] = []
        findings: list[Finding] = []
        for index, item in enumerate(value):
            try:
                items.append(reader(item))
            except ValueError as error:
                findings += [finding.below((index,)) for finding in findings_of(error)]
                if len(findings) >= _MISTAKES_IN_A_LIST and index + 1 < len(value):
                    left = len(value) - index - 1
                    findings.append(Finding((), f"has {left} further {what}, which were not looked at"))
                    break
        if findings:
            raise Refused(findings)
        return tuple(items)

    return read


class TableReader:
    """Reads a table with known keys, each by a reader of its own.

    :param fields: the reader of each key.
    :param required: the keys that must be there.
    """

    def __init__(self, fields: Mapping[str, Reader], required: Sequence[str] = ()) -> None:
        self.fields = fields
        self.required = required

    def __call__(self, value: Any) -> dict[str, Any]:
        """Read all of it; only the keys that are given come out.

        :raises Refused: with every finding.
        """
        given, findings = self.read(value)
        if findings:
            raise Refused(findings)
        return given

    def read(self, value: Any) -> tuple[dict[str, Any], list[Finding]]:
        """What could be read, beside what could not.

        Of a nested table, or a list of them, the part that could be read is
        kept; any other value with a mistake inside is left out.
        """
        given: dict[str, Any] = {}
        if not isinstance(value, Mapping):
            return given, [Finding((), f"must be a table, not {shown(value)}")]
        findings: list[Finding] = []
        unknown = 0
        for key, item in value.items():
            reader = self.fields.get(key)
            if reader is None:
                unknown += 1
                if unknown <= _UNKNOWN_KEYS:
                    findings.append(self._unknown(key))
                continue
            if isinstance(reader, TableReader | TableListReader):
                given[key], inside = reader.read(item)
                findings += [finding.below((key,)) for finding in inside]
                continue
            try:
                given[key] = reader(item)
            except ValueError as error:
                findings += [finding.below((key,)) for finding in findings_of(error)]
        if unknown > _UNKNOWN_KEYS:
            findings.append(Finding((), f"has {unknown - _UNKNOWN_KEYS} further unknown keys"))
        findings += [Finding((key,), "is missing") for key in self.required if key not in value]
        return given, findings

    def _unknown(self, key: Any) -> Finding:
        # What is long is no name that somebody mistyped: a text, or a secret, in the wrong place.
        name = str(key) if len(str(key)) <= _KEY_CHARACTERS else f"{str(key)[: _KEY_CHARACTERS - 3]}..."
        hint = did_you_mean(name, self.fields)
        return Finding((name,), f'unknown key "{name}"{hint}', unknown=True)


class TableListReader:
    """Reads a TOML array of tables, such as all of ``[[listen]]``.

    :param name: what stands in the double brackets.
    """

    def __init__(self, name: str, table: TableReader) -> None:
        self.name = name
        self.table = table

    def __call__(self, value: Any) -> list[dict[str, Any]]:
        """Read all of it.

        :raises Refused: with every finding.
        """
        given, findings = self.read(value)
        if findings:
            raise Refused(findings)
        return given

    def read(self, value: Any) -> tuple[list[dict[str, Any]], list[Finding]]:
        """What could be read of each table, beside what could not."""
        if not isinstance(value, list):
            wanted = (
                f"must be written [[{self.name}]], in double brackets" if isinstance(value, Mapping) else ""
            )
            return [], [Finding((), wanted or f"must be a list of tables, not {shown(value)}")]
        tables: list[dict[str, Any]] = []
        findings: list[Finding] = []
        for index, item in enumerate(value):
            given, inside = self.table.read(item)
            tables.append(given)
            findings += [finding.below((index,)) for finding in inside]
        return tables, findings
