"""Which HTTP statuses are expected, as people write it: ``200-399`` or ``200,204,301``."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["StatusRanges", "parse_status_ranges"]

_RANGE = re.compile(r"\s*([1-5][0-9]{2})\s*(?:-\s*([1-5][0-9]{2})\s*)?", re.ASCII)
_CLASS = re.compile(r"\s*([1-5])xx\s*", re.ASCII | re.IGNORECASE)
_MAX_CHARACTERS = 1000


class StatusRanges:
    """Some statuses; ask with ``in``."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        self._ranges = ranges

    def __contains__(self, status: int) -> bool:
        return any(first <= status <= last for first, last in self._ranges)


@lru_cache(maxsize=256)
def parse_status_ranges(text: str) -> StatusRanges:
    """Read statuses and ranges of them (``200-399``, ``2xx``), with commas between.

    :raises ValueError: with a sentence that says what is wrong.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"a list of statuses has at most {_MAX_CHARACTERS} characters")
    return StatusRanges(tuple(_read(part) for part in text.split(",")))


def _read(part: str) -> tuple[int, int]:
    match = _CLASS.fullmatch(part)
    if match is not None:
        hundreds = int(match[1]) * 100
        return hundreds, hundreds + 99
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(
            f"{part.strip()!r} is no HTTP status and no range of them "
            '(expected something like "200-399" or "200,204,301")'
        )
    first = int(match[1])
    last = int(match[2] or first)
    if first > last:
        raise ValueError(f"{part.strip()!r} ends before it begins")
    return first, last
