"""What a command prints: lines, tables that pipe well, JSON.

Never colours, and never a control character: a name that came from elsewhere
must not move the cursor.  Knows no command.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, TextIO

__all__ = ["CommandMistake", "NotInTime", "Output", "printable", "table_lines"]


class CommandMistake(Exception):
    """What was asked for cannot be done as it was written.

    :ivar lines: one sentence for each thing that is wrong.
    """

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("; ".join(lines))


class NotInTime(CommandMistake):
    """What was waited for did not happen in the time given."""


class Output:
    """Where a command speaks: results on one stream, complaints on the other."""

    def __init__(self, results: TextIO, complaints: TextIO) -> None:
        self._results = results
        self._complaints = complaints

    def line(self, text: str) -> None:
        """One line of the result."""
        self._results.write(f"{printable(text)}\n")

    def complain(self, text: str) -> None:
        """One line about what went wrong."""
        self._complaints.write(f"{printable(text)}\n")

    def progress(self, text: str) -> None:
        """What is going on, for a person who waits at a terminal; nobody else needs it."""
        if self._complaints.isatty():
            self.complain(text)

    def document(self, value: Any) -> None:
        """The result for programs."""
        self._results.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns under their heads, two spaces apart; the last one is not padded."""
        for line in table_lines(heads, rows):
            self.line(line)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at the results as they come."""
        return self._results.isatty()


def table_lines(
    heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> list[str]:
    """Columns under their heads, two spaces apart.

    :param right: the numbers of columns that are aligned at their right end.
    """
    lines = [heads, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def printable(text: str) -> str:
    """*text* with whatever is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
