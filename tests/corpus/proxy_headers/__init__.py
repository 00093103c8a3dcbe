"""Beginnings of connections that must begin with a PROXY header, each with the outcome it must have.

:func:`load_headers` reads them; ``README.md`` beside the files tells the format.
``python -m tests.corpus.proxy_headers`` writes bytes, or the index anew.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from scalingo_proxy.wire.proxy_header import ProxyHeader
from tests.corpus import case_files, decode
from tests.corpus.case_files import case_name, parts_of

__all__ = ["HERE", "HeaderCase", "index_of", "load_headers", "read_header"]

HERE = Path(__file__).parent


@attrs.define
class HeaderCase:
    """One beginning of a connection and what must come of it.

    :ivar name: its place, such as ``v1/leading-zero``.
    :ivar why: the reason, in a sentence.
    :ivar made_by: who sent it, or ``by hand``.
    :ivar verdict: ``accepted``, ``waits`` (need more) or ``refused``.
    :ivar header: what is read from it.
    :ivar behind: how many of the bytes come behind the header.
    """

    name: str
    why: str = ""
    made_by: str = "by hand"
    verdict: str = ""
    header: ProxyHeader = ProxyHeader()  # noqa: RUF009 - frozen
    behind: int = 0
    data: bytes = b""


def read_header(path: Path) -> HeaderCase:
    """The case in one file.

    :raises ValueError: when the file does not keep to the format.
    """
    pairs, rest = parts_of(path)
    case = HeaderCase(case_name(path, HERE), data=decode(rest))
    for key, value in pairs:
        _set(case, key, value)
    if not (case.why and case.verdict and case.data):
        raise ValueError(f"{path}: why, verdict and bytes are needed")
    return case


def _set(case: HeaderCase, key: str, value: str) -> None:
    if key in ("why", "verdict"):
        setattr(case, key, value)
    elif key == "from":
        case.made_by = value
    elif key == "behind":
        case.behind = int(value)
    elif key == "source":
        host, port = value.rsplit(" ", 1)
        case.header = attrs.evolve(case.header, source=host, source_port=int(port))
    elif key == "destination":
        host, port = value.rsplit(" ", 1)
        case.header = attrs.evolve(case.header, destination=host, destination_port=int(port))
    elif key == "local":
        case.header = attrs.evolve(case.header, is_local=True)
    elif key == "tlv":
        kind, _, content = value.partition(" ")
        tlv = (int(kind, 16), bytes.fromhex(content))
        case.header = attrs.evolve(case.header, tlvs=(*case.header.tlvs, tlv))
    else:
        raise ValueError(f"{case.name}: unknown key {key!r}")


def load_headers() -> list[HeaderCase]:
    """Every case, in order of their names."""
    return [read_header(path) for path in sorted(HERE.rglob("*.header"))]


def index_of(cases: list[HeaderCase]) -> str:
    """The index of the files, as it stands beside them."""
    return case_files.index_of((case.name, case.verdict, case.why, case.made_by) for case in cases)
