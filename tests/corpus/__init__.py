"""Inputs as files, each with the outcome it must have.

:func:`load_cases` reads them; ``README.md`` beside the files tells the format.
``python -m tests.corpus FILE`` writes the input of one case to standard
output, for use with ``nc`` against a running proxy.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from tests.corpus.case_files import case_name, parts_of

__all__ = ["Case", "Outcome", "decode", "encode", "load_cases", "read_case"]

HERE = Path(__file__).parent

_PLAIN = rb"[rnts0\\]|x[0-9a-f]{2}"
_ESCAPE = re.compile(rb"\\(?:([rnts0\\])|x([0-9a-f]{2})|\(((?:[^\\()]|\\(?:" + _PLAIN + rb"))*)\*([0-9]+)\))")
_LETTERS = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"s": b" ", b"0": b"\0", b"\\": b"\\"}


def decode(text: str) -> bytes:
    """The bytes that escaped *text* stands for; its own line ends do not count.

    :raises ValueError: for a backslash that begins no escape.
    """
    line = text.replace("\n", "").encode("ascii")
    if b"\\" in _ESCAPE.sub(b"", line):
        raise ValueError(f"unknown escape in {text!r}")
    return _ESCAPE.sub(_unescaped, line)


def _unescaped(match: re.Match[bytes]) -> bytes:
    letter, digits, repeated, times = match.groups()
    if letter:
        return _LETTERS[letter]
    if digits:
        return bytes.fromhex(digits.decode())
    return _ESCAPE.sub(_unescaped, repeated) * int(times)


def encode(data: bytes) -> str:
    """*data* in the notation of the files, a line of text for each line of it."""
    text = "".join(map(_escaped, data)).replace("\\n", "\\n\n").rstrip("\n")
    return re.sub(r" $", r"\\s", text, flags=re.MULTILINE)


def _escaped(code: int) -> str:
    for letter, byte in _LETTERS.items():
        if byte == bytes([code]) and letter != b"s":
            return "\\" + letter.decode()
    return chr(code) if 32 <= code < 127 else f"\\x{code:02x}"


@attrs.define
class Outcome:
    """One message that must be accepted.

    :ivar line: ``METHOD TARGET HOST`` of a request, the status of a response.
    """

    line: str
    body: bytes = attrs.field(default=b"", repr=lambda body: f"{body[:80]!r} ({len(body)} bytes)")
    trailers: list[tuple[bytes, bytes]] = attrs.Factory(list)


@attrs.define
class Case:
    """One input and what must come of it.

    :ivar name: its place, such as ``requests/host/003-empty``.
    :ivar why: the reason, in a sentence.
    :ivar accepts: the messages accepted, in order.
    :ivar then: where the stream stands after them: a reason code, or a state
        of ``tests/wire/http1_streams.py``.
    :ivar methods: of the requests that a response stream answers.
    :ivar peer: who the client is for the forwarded headers, ``""`` by default.
    :ivar closed: the stream ends behind the input.
    :ivar rewritten: the heads that travel on, where the case tells them.
    """

    name: str
    why: str = ""
    accepts: list[Outcome] = attrs.Factory(list)
    then: str = ""
    methods: list[bytes] = attrs.Factory(lambda: [b"GET"])
    peer: str = ""
    closed: bool = False
    input: bytes = b""
    rewritten: bytes | None = None


def read_case(path: Path) -> Case:
    """The case in one file.

    :raises ValueError: when the file does not keep to the format.
    """
    pairs, rest = parts_of(path, "ascii")
    case = Case(case_name(path, HERE / "http1"))
    for key, value in pairs:
        _set(case, key, value)
    text, mark, rewritten = rest.partition("\n---- travels on as\n")
    case.input = decode(text)
    if mark:
        case.rewritten = decode(rewritten)
    if not (case.why and case.then and case.input):
        raise ValueError(f"{path}: why, then and an input are needed")
    return case


def _set(case: Case, key: str, value: str) -> None:
    if key == "accepts":
        case.accepts.append(Outcome(value))
    elif key == "body":
        case.accepts[-1].body = decode(value)
    elif key == "trailer":
        name, content = decode(value).split(b": ", 1)
        case.accepts[-1].trailers.append((name, content))
    elif key == "answers":
        case.methods = value.encode().split()
    elif key == "closed":
        case.closed = True
    elif key in ("why", "then", "peer"):
        setattr(case, key, value)
    else:
        raise ValueError(f"{case.name}: unknown key {key!r}")


def load_cases(kind: str) -> list[Case]:
    """Every case of ``"requests"`` or ``"responses"``, in order of their names."""
    return [read_case(path) for path in sorted((HERE / "http1" / kind).rglob("*.case"))]
