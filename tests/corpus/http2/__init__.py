"""Header lists and bodies of HTTP/2 as files, each with what must come of it as HTTP/1.

``README.md`` beside the files tells the format.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from tests.corpus import Outcome, decode
from tests.corpus.case_files import case_name, parts_of

__all__ = ["Case", "load_cases", "read_case"]

HERE = Path(__file__).parent

_Fields = list[tuple[bytes, bytes]]


@attrs.define
class Case:
    """One request and its verdict.

    :ivar name: its place, such as ``authority/003-userinfo``.
    :ivar why: the reason, in a sentence.
    :ivar then: ``ready``, ``reset``, ``goaway``, ``waits``, or a reason code.
    :ivar accepts: what a backend may see, if anything.
    :ivar fields: the header list.
    :ivar data: the content of each DATA frame.
    :ivar trailers: the second header list, if there is one.
    :ivar unfinished: the client never ends the stream.
    :ivar rewritten: the head that travels on, where the case tells it.
    """

    name: str
    why: str = ""
    then: str = ""
    accepts: Outcome | None = None
    fields: _Fields = attrs.Factory(list)
    data: list[bytes] = attrs.Factory(list)
    trailers: _Fields | None = None
    unfinished: bool = False
    rewritten: bytes | None = None


def read_case(path: Path) -> Case:
    """The case in one file.

    :raises ValueError: when the file does not keep to the format.
    """
    pairs, rest = parts_of(path, "ascii")
    case = Case(case_name(path, HERE))
    for key, value in pairs:
        _set(case, key, value)
    listed, *sections = rest.split("\n---- ")
    case.fields = _fields(listed)
    for section in sections:
        kind, _, text = section.partition("\n")
        if kind == "data":
            case.data.append(decode(text))
        elif kind == "trailers":
            case.trailers = _fields(text)
        elif kind == "unfinished":
            case.unfinished = True
        elif kind == "travels on as":
            case.rewritten = decode(text)
        else:
            raise ValueError(f"{path}: unknown section {kind!r}")
    if not (case.why and case.then and case.fields):
        raise ValueError(f"{path}: why, then and a header list are needed")
    return case


def _set(case: Case, key: str, value: str) -> None:
    if key in ("why", "then"):
        setattr(case, key, value)
    elif key == "accepts":
        case.accepts = Outcome(value)
    elif key in ("body", "trailer") and case.accepts is not None:
        if key == "body":
            case.accepts.body = decode(value)
        else:
            case.accepts.trailers += _fields(value)
    else:
        raise ValueError(f"{case.name}: unknown key {key!r}")


def _fields(text: str) -> _Fields:
    listed = []
    for line in text.splitlines():
        # A pseudo-header has a colon at its beginning, and one behind it.
        name, mark, value = line[1:].partition(":")
        if not mark:
            raise ValueError(f"no colon in {line!r}")
        listed.append((decode(line[:1] + name), decode(value.removeprefix(" "))))
    return listed


def load_cases() -> list[Case]:
    """Every case, in order of their names."""
    return [read_case(path) for path in sorted(HERE.rglob("*.case"))]
