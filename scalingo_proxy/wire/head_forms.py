"""A head with its changing values left blank, as on a printed form.

What a backend answers with differs from answer to answer in a date, a length, a
tag; what browsers ask with, in a referer and a cookie.  The rest repeats, and
with it all that a head was found to mean.  The values that are left blank
decide nothing, or are looked at each time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

__all__ = ["Form", "Key", "changing", "leave_blank"]

#: What is left on the form, in turn a text and a name.
Key = tuple[bytes, ...]


def changing(names: str) -> re.Pattern[bytes]:
    """Finds the lines of these fields, as most write them: a blank behind the colon, none at the end.

    :param names: separated by blanks; in this case and in lower case.
    """
    spelled = sorted({*names.split(), *names.lower().split()})
    # By their first letters, of which most lines have none: 0.2 µs less.
    words = "|".join(
        f"{first}(?:{'|'.join(re.escape(name[1:]) for name in group)})"
        for first, group in itertools.groupby(spelled, lambda name: name[0])
    )
    # What a value may not hold in its middle is looked for in all of them at once: 0.8 µs less.
    return re.compile(rb"\n((?:" + words.encode("ascii") + rb"): )([^\x00- \x7f][^\r]*+)(?<! )\r")


#: Each costs more memory than its bytes.
_MOST_BLANKS = 50

#: HTAB and LF among them, so that no blank is left at an end, and no line in a value.
_CONTROLS = bytes(range(32)) + b"\x7f"


def leave_blank(names: re.Pattern[bytes], head: bytes) -> tuple[Key, Sequence[bytes]]:
    """What is left of *head* without its changing values, and these.

    No two heads leave the same, unless they differ in those values only.

    :return: an empty key, if a value holds what has to be looked at, or there are very many.
    """
    parts = names.split(head)
    values = parts[2::3]
    told = b"".join(values)
    if len(told.translate(None, _CONTROLS)) != len(told) or len(values) > _MOST_BLANKS:
        return (), ()
    del parts[2::3]
    return tuple(parts), values


class Form:
    """Fields, of which some are filled in anew each time.

    :param start: stands in front of them, or nothing.
    :param fields: as they were read, the values that change included.
    :param key: what :func:`leave_blank` left of the head they were read from.
    :param end: stands behind them, or nothing.
    :ivar names: of all blanks, in order.
    :ivar encoded: what HTTP/2 makes of all that is printed on it, once that was asked for.
    :ivar is_exact: whether a blank of each name that is among the fields is
        one of them, and nothing else is; the form is good for nothing if not.
    """

    __slots__ = ("_blanks", "_fields", "_used", "_words", "encoded", "is_exact", "names")

    def __init__(
        self, start: bytes, fields: Sequence[tuple[bytes, bytes]], key: Key, end: bytes = b""
    ) -> None:
        self.names = [name[:-2] for name in key[1::2]]
        self._blanks = [place for place, (name, _) in enumerate(fields) if name in self.names]
        relayed = {name for name, _ in fields}
        self._used = [place for place, name in enumerate(self.names) if name in relayed]
        self.is_exact = [fields[place][0] for place in self._blanks] == [
            self.names[place] for place in self._used
        ]
        # The values of whoever came first are nobody else's business.
        self._fields = [(name, b"" if name in self.names else value) for name, value in fields]
        pieces = [start.replace(b"%", b"%%")] if start else []
        for place, field in enumerate(fields):
            line = b": ".join(field).replace(b"%", b"%%")
            pieces.append(field[0] + b": %b" if place in self._blanks else line)
        self._words = b"\r\n".join([*pieces, end.replace(b"%", b"%%")])
        self.encoded: list[bytes] | None = None

    def words(self, values: Sequence[bytes]) -> bytes:
        """The start, all fields with *values*, each line with its end, and the end."""
        return self._words % self.relayed(values)

    def fields(self, values: Sequence[bytes]) -> tuple[tuple[bytes, bytes], ...]:
        """All fields with *values*."""
        fields = self._fields.copy()
        for place, value in zip(self._blanks, self.relayed(values), strict=True):
            fields[place] = (fields[place][0], value)
        return tuple(fields)

    def parts(self) -> list[tuple[bytes, bytes | None]]:
        """All fields, the blanks among them without a value."""
        blanks = self._blanks
        return [
            (name, None if place in blanks else value) for place, (name, value) in enumerate(self._fields)
        ]

    def relayed(self, values: Sequence[bytes]) -> tuple[bytes, ...]:
        """The values of those blanks that are among the fields."""
        if len(self._used) == len(values):
            return tuple(values)
        return tuple([values[place] for place in self._used])
