"""What the files of every corpus have in common: a header of ``key: value``, an empty line, the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["case_name", "index_of", "parts_of"]


def case_name(path: Path, here: Path) -> str:
    """The place of a case below *here*, such as ``names/wildcard``."""
    return str(path.relative_to(here).with_suffix(""))


def parts_of(path: Path, encoding: str = "utf-8") -> tuple[Iterator[tuple[str, str]], str]:
    """The keys of the header, each with its value or ``""``, and everything behind the empty line."""
    header, _, rest = path.read_text(encoding).partition("\n\n")
    pairs = (line.partition(": ") for line in header.splitlines())
    return ((key, value) for key, _, value in pairs), rest


def index_of(rows: Iterable[tuple[str, str, str, str]]) -> str:
    """The index that stands beside the files.

    :param rows: name, verdict, why, and what made it, of each case.
    """
    lines = [f"| `{name}` | {verdict} | {why} | {made_by} |" for name, verdict, why, made_by in rows]
    return (
        "\n".join(["# Index", "", "| file | verdict | why | made |", "| --- | --- | --- | --- |", *lines])
        + "\n"
    )
