"""JSON from strangers, read so that nobody can mean two things by it.

Refuses what the standard library lets through: duplicate keys, ``NaN`` and
``Infinity``, numbers that overflow, unpaired surrogates, deep nesting.
Knows nothing of HTTP and of what the document is about.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["MAX_DEPTH", "strict_json"]

#: How deep tables and lists may be nested; an app record needs four levels.
MAX_DEPTH = 32


def strict_json(data: bytes) -> Any:
    """Parse one JSON document (RFC 8259).

    :raises ValueError: with a sentence that lacks its subject, such as
        ``is not JSON: … at line 3 column 7``.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_table_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_int,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_tree(value)
    return value


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


def _table_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise ValueError(f"has the key {key[:80]!r} twice in one table")
            seen.add(key)
    return table


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"has {word}, which is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("has a number that is too large")
    return number


def _short_int(digits: str) -> int:
    # Nothing here counts beyond 64 bits, and int() of a long text is quadratic.
    if len(digits) > 20:
        raise ValueError("has a number that is too large")
    return int(digits)


def _check_tree(value: Any) -> None:
    """Refuse what is too deep or cannot be written as UTF-8 again."""
    level = [value]
    depth = 0
    while level:
        following: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict | list):
                if depth == MAX_DEPTH:
                    raise ValueError(_TOO_DEEP)
                following.extend(item)
                if isinstance(item, dict):
                    following.extend(item.values())
        level = following
        depth += 1


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("has half of a surrogate pair in a text, which is no character") from None
