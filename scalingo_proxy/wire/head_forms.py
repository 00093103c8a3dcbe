"""A head with its changing values left blank, as on a printed form.

What a backend answers with differs from answer to answer in a date, a length, a
tag; what browsers ask with, in a referer and a cookie.  The rest repeats, and
with it all that a head was found to mean.  The values that are left blank
decide nothing, or are looked at each time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scalingo_proxy.wire.grammar import Fields

__all__ = ["Form", "Key", "changing", "leave_blank"]

#: What is left on the form, in turn a text and a name.
Key = tuple[bytes, ...]


def changing(names: str) -> re.Pattern[bytes]:
    """Finds the lines of these fields, as most write them: a blank behind the colon, none at the end.

    :param names: separated by blanks; in this case and in lower case.
    """
    spelled = [*names.split(), *names.lower().split()]
    words = "|".join(map(re.escape, spelled)).encode("ascii")
    return re.compile(rb"\n((?:" + words + rb"): )((?! )[ -~\x80-\xff]++(?<! ))\r")


def leave_blank(names: re.Pattern[bytes], head: bytes) -> tuple[Key, list[bytes]]:
    """What is left of *head* without its changing values, and these.

    No two heads leave the same, unless they differ in those values only.
    """
    parts = names.split(head)
    values = parts[2::3]
    del parts[2::3]
    return tuple(parts), values


class Form:
    """Fields, of which some are filled in anew each time.

    :param start: stands in front of them.
    :param fields: as they were read, the values that change included.
    :param key: what :func:`leave_blank` left of the head they were read from.
    :ivar is_exact: whether every blank is one field and nothing else looks like
        one; the form is good for nothing if not.
    :ivar names: of the blanks, in order.
    """

    __slots__ = ("_blanks", "_fields", "_lines", "is_exact", "names")

    def __init__(self, start: bytes, fields: Sequence[tuple[bytes, bytes]], key: Key) -> None:
        self.names = [name[:-2] for name in key[1::2]]
        self._fields = tuple(fields)
        self._blanks = [place for place, (name, _) in enumerate(fields) if name in self.names]
        self.is_exact = [fields[place][0] for place in self._blanks] == self.names
        pieces = [start.replace(b"%", b"%%")]
        for place, field in enumerate(fields):
            line = b": ".join(field).replace(b"%", b"%%")
            pieces.append(field[0] + b": %b" if place in self._blanks else line)
        self._lines = b"\r\n".join([*pieces, b""] if start else [*pieces[1:], b""])

    def lines(self, values: Sequence[bytes]) -> bytes:
        """The start and all fields with *values*, each line with its end."""
        return self._lines % tuple(values)

    def fields(self, values: Sequence[bytes]) -> Fields:
        """All fields with *values*."""
        fields = list(self._fields)
        for place, value in zip(self._blanks, values, strict=True):
            fields[place] = (fields[place][0], value)
        return fields
