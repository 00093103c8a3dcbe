"""The samples in the documentation, read as a program reads them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.installations import CHECKOUT

__all__ = ["Sample", "documents", "samples_in"]

_DIRECTIVE = re.compile(r"(?P<indent> *)\.\. code-block:: (?P<language>\S+)\n")
_OPTION = re.compile(r" *:(?P<name>\w+): (?P<value>.*)\n")
_FENCE = re.compile(r"```(?P<language>\w+)\n")


@attrs.frozen
class Sample:
    """One block of code.

    :ivar page: the file, below the checkout.
    :ivar line: the line of its first line of code, from 1.
    :ivar classes: what ``:class:`` says of it.
    :ivar caption: the name of the file that it shows.
    """

    page: str
    line: int
    language: str
    code: str
    classes: tuple[str, ...] = ()
    caption: str = ""

    @property
    def place(self) -> str:
        """Where it stands, as editors understand it."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[str]:
        """The commands after each prompt, lines that end in a backslash joined."""
        joined = self.code.replace("\\\n", " ")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def documents() -> list[Path]:
    """Every page, and the README."""
    pages = (path for path in (CHECKOUT / "docs").rglob("*.rst") if "changes" not in path.parts)
    return [CHECKOUT / "README.md", *sorted(pages)]


def samples_in(path: Path) -> list[Sample]:
    """The samples of one page, in order."""
    page = path.relative_to(CHECKOUT).as_posix()
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return list(_fenced(page, lines) if path.suffix == ".md" else _directives(page, lines))


def _fenced(page: str, lines: list[str]) -> Iterator[Sample]:
    for number, line in enumerate(lines):
        if found := _FENCE.fullmatch(line):
            end = lines.index("```\n", number)
            yield Sample(page, number + 2, found["language"], "".join(lines[number + 1 : end]))


def _directives(page: str, lines: list[str]) -> Iterator[Sample]:
    for number, line in enumerate(lines):
        found = _DIRECTIVE.fullmatch(line)
        if not found:
            continue
        first = number + 1
        options = {}
        while option := _OPTION.fullmatch(lines[first]):
            options[option["name"]] = option["value"]
            first += 1
        last = first
        while last < len(lines) and (
            not lines[last].strip() or lines[last].startswith(found["indent"] + "   ")
        ):
            last += 1
        while not lines[first].strip():
            first += 1
        code = textwrap.dedent("".join(lines[first:last])).rstrip() + "\n"
        classes = tuple(options.get("class", "").split())
        yield Sample(page, first + 1, found["language"], code, classes, options.get("caption", ""))
