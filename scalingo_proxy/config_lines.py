"""On which line of a TOML document each key stands.

``tomllib`` forgets lines once it has parsed, so this scanner walks over the
text again when there is something to report.  It only ever sees documents
that ``tomllib`` accepted: it finds keys and skips values, and refuses to
judge either.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

from scalingo_proxy.resolvers.strict_tables import Path

__all__ = ["key_lines", "line_of"]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"{3}(?:\\.|[^\\])*?"{3,5}(?!")'
    r"|'{3}.*?'{3,5}(?!')"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
# Numbers, dates and words: to the next thing that cannot be part of one.
_OTHER = re.compile(r"[^,\]}#\n]+")


def key_lines(document: str) -> dict[Path, int]:
    """The line, from 1, of every key, table header and list item in *document*."""
    scanner = _Scanner(document)
    try:
        scanner.scan()
    except RecursionError:
        pass  # what was found so far is still right
    return scanner.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of *path*, or of the innermost thing around it that has one; 0 for none."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


class _Scanner:
    """Walks over one document from its start to its end."""

    def __init__(self, document: str) -> None:
        self.text = document
        self.position = 0
        self.lines: dict[Path, int] = {}
        self._ends = [found.start() for found in re.finditer("\n", document)]
        #: How many tables each ``[[name]]`` has so far.
        self._counts: dict[Path, int] = {}

    def scan(self) -> None:
        table: Path = ()
        self._skip()
        while self.position < len(self.text):
            if self.text[self.position] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip()

    def _header(self) -> Path:
        start = self.position
        is_list = self.text.startswith("[[", start)
        self.position += 2 if is_list else 1
        self._skip()
        keys = self._keys()
        self._skip()
        self.position += 2 if is_list else 1
        path: Path = ()
        for depth, key in enumerate(keys):
            path = (*path, key)
            self._record(path, start)
            if depth == len(keys) - 1 and is_list:
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
                self._record(path, start)
        return path

    def _pair(self, table: Path) -> None:
        start = self.position
        path = table
        for key in self._keys():
            path = (*path, key)
            self._record(path, start)
        self._skip()
        self.position += 1  # the equals sign
        self._skip()
        self._value(path)

    def _keys(self) -> list[str]:
        """A dotted key: ``a."b c".d``."""
        keys: list[str] = []
        while True:
            bare = _BARE.match(self.text, self.position)
            found = bare or _STRING.match(self.text, self.position)
            if found is None:
                # Not TOML, so never here; moving on keeps the walk finite.
                self.position += 1
                return keys
            self.position = found.end()
            keys.append(found.group() if bare else str(tomllib.loads(f"key = {found.group()}")["key"]))
            dot = _DOT.match(self.text, self.position)
            if dot is None:
                return keys
            self.position = dot.end()

    def _value(self, path: Path) -> None:
        first = self.text[self.position : self.position + 1]
        if first == "[":
            self._list(path)
        elif first == "{":
            self._inline_table(path)
        else:
            found = _STRING.match(self.text, self.position) or _OTHER.match(self.text, self.position)
            self.position = found.end() if found else self.position + 1

    def _list(self, path: Path) -> None:
        self.position += 1
        index = 0
        while self._more("]"):
            self._record((*path, index), self.position)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        self.position += 1
        while self._more("}"):
            self._pair(path)

    def _more(self, end: str) -> bool:
        """Step over blanks and a comma, and past *end* when it is there."""
        self._skip()
        if self.text.startswith(",", self.position):
            self.position += 1
            self._skip()
        if self.position >= len(self.text) or self.text.startswith(end, self.position):
            self.position += 1
            return False
        return True

    def _skip(self) -> None:
        blank = _BLANK.match(self.text, self.position)
        if blank:
            self.position = blank.end()

    def _record(self, path: Path, position: int) -> None:
        self.lines.setdefault(path, bisect_right(self._ends, position - 1) + 1)
