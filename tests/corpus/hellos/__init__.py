"""First flights of TLS clients, and of others, each with the outcome it must have.

:func:`load_hellos` reads them; ``README.md`` beside the files tells the format.
``python -m tests.corpus.hellos`` turns bytes into the notation and back, and
writes the index anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.corpus import case_files
from tests.corpus.case_files import case_name, parts_of

__all__ = ["HERE", "Hello", "decode", "encode", "index_of", "load_hellos", "read_hello"]

HERE = Path(__file__).parent

_LINE_LENGTH = 100
_RUN = re.compile(rb"(.)\1{15,}", re.DOTALL)


@attrs.define
class Hello:
    """One first flight and what must come of it.

    :ivar name: its place, such as ``names/wildcard``.
    :ivar why: the reason, in a sentence.
    :ivar source: what made it: a client, or ``by hand``.
    :ivar verdict: ``accepted``, ``waits`` (need more), ``http`` (plain HTTP),
        ``closed`` (refused without a word), or the alert it is refused with.
    :ivar server_name: what is read from it; and so on.
    :ivar newest: the newest version offered.
    :ivar behind: how many of the bytes come behind the hello.
    """

    name: str
    why: str = ""
    source: str = "by hand"
    verdict: str = ""
    server_name: str = ""
    address: str = ""
    alpn: tuple[bytes, ...] = ()
    newest: int = 0x0304
    behind: int = 0
    data: bytes = b""


def decode(text: str) -> bytes:
    """The bytes that the notation stands for.

    :raises ValueError: when a word is neither hexadecimal nor ``XX*COUNT``.
    """
    return b"".join(
        bytes.fromhex(word) * int(times or "1")
        for word, _, times in (item.partition("*") for item in text.split())
    )


def encode(data: bytes) -> str:
    """*data* in the notation of the files."""
    return "\n".join(_lines(data)) + "\n"


def _lines(data: bytes) -> Iterator[str]:
    line = ""
    for word in _words(data):
        if line and len(line) + 1 + len(word) > _LINE_LENGTH:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
    yield line


def _words(data: bytes) -> Iterator[str]:
    at = 0
    for run in _RUN.finditer(data):
        yield from (data[i : min(i + 16, run.start())].hex() for i in range(at, run.start(), 16))
        yield f"{run[1].hex()}*{len(run[0])}"
        at = run.end()
    yield from (data[i : i + 16].hex() for i in range(at, len(data), 16))


def read_hello(path: Path) -> Hello:
    """The case in one file.

    :raises ValueError: when the file does not keep to the format.
    """
    pairs, rest = parts_of(path)
    hello = Hello(case_name(path, HERE), data=decode(rest))
    for key, value in pairs:
        _set(hello, key, value)
    if not (hello.why and hello.verdict and hello.data):
        raise ValueError(f"{path}: why, verdict and bytes are needed")
    return hello


def _set(hello: Hello, key: str, value: str) -> None:
    if key in ("why", "verdict", "address"):
        setattr(hello, key, value)
    elif key == "from":
        hello.source = value
    elif key == "name":
        hello.server_name = value
    elif key == "alpn":
        hello.alpn = tuple(bytes.fromhex(word) for word in value.split())
    elif key == "newest":
        hello.newest = int(value, 16)
    elif key == "behind":
        hello.behind = int(value)
    else:
        raise ValueError(f"{hello.name}: unknown key {key!r}")


def load_hellos() -> list[Hello]:
    """Every case, in order of their names."""
    return [read_hello(path) for path in sorted(HERE.rglob("*.hello"))]


def index_of(hellos: list[Hello]) -> str:
    """The index of the files, as it stands beside them."""
    return case_files.index_of((hello.name, hello.verdict, hello.why, hello.source) for hello in hellos)
