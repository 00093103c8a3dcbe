"""HTTP/1 messages for property tests: valid, damaged, and put together from pieces.

``EXAMPLES=20000 python -m twisted.trial tests.wire`` looks longer, and at
other inputs each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.corpus import load_cases

Built = TypeVar("Built")
EXAMPLES = int(os.environ.get("EXAMPLES") or 0)


def examples(count: int) -> settings:
    """Settings of a property test: the same *count* inputs each time, unless more are asked for."""
    return settings(
        max_examples=EXAMPLES or count,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def built(build: Callable[[Random], Built]) -> st.SearchStrategy[Built]:
    """What *build* makes, by one draw.

    A request draws from a hundred strategies, each of which costs 100 us: ten times what is tested.
    """
    return st.integers(0, 2**64 - 1).map(lambda seed: build(Random(seed)))


#: Decides everything in a test, by one draw.
randoms = built(lambda by: by)


def _text(by: Random, alphabet: bytes, least: int, most: int) -> bytes:
    return bytes(by.choices(alphabet, k=by.randint(least, most)))


def _some(by: Random, build: Callable[[Random], Built], most: int) -> list[Built]:
    return [build(by) for _ in range(by.randint(0, most))]


TCHAR = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VCHAR = bytes(range(0x21, 0x7F))
#: Every byte that a value may hold inside.
VALUE = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

_IN_PATHS = VCHAR.replace(b"#", b"")
_BLANKS = (b"", b" ", b"\t", b"  \t ")
_FRAMING = (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"proxy-connection")
_NAMES = (
    b"Accept Cookie X-Forwarded-For x-real-ip X_Real_IP X-Request-ID TE "
    b"Keep-Alive Trailer Upgrade Forwarded X-Scalingo-Error".split()
)
_VALUES = (b"text/html", b"gzip, deflate", b'W/"x"', b"a=b; c=d", b"a:b", b"0")
_BODIES = (b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", b"\r\n", b"hello")
_METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
_AUTHORITIES = (b"app.test", b"APP.test:80", b"app.test.", b"[::1]:8080", b"192.0.2.1", b"a_b.test:")
_VERSIONS = (b"1.1", b"1.1", b"1.1", b"1.0")
_CONNECTIONS = (b"", b"", b"keep-alive", b"close", b"X-A, keep-alive", b"Upgrade", b"TE, Accept")
_EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b';a="b;c"', b"; a = b")
_STATUSES = (b"200", b"200", b"404", b"204", b"304", b"103", b"100", b"500")
_REASONS = (b" OK", b" ", b" Not\tso \xe9", b"")


def _field(by: Random) -> tuple[bytes, bytes]:
    name = by.choice(_NAMES)
    while by.random() < 0.5 or name.lower() in _FRAMING:
        name = _text(by, TCHAR, 1, 12)
    match by.randrange(3):
        case 0:
            return name, b""
        case 1:
            return name, _text(by, VALUE, 1, 30).strip(b" \t")
        case _:
            return name, by.choice(_VALUES)


def _body(by: Random) -> bytes:
    return by.randbytes(by.randint(0, 60)) if by.random() < 0.5 else by.choice(_BODIES)


def _chunked(by: Random) -> bytes:
    content = _body(by)
    parts: list[bytes] = []
    while content:
        size = by.randint(1, len(content))
        parts.append(by.choice((b"%x", b"%X", b"%04x")) % size + by.choice(_EXTENSIONS) + b"\r\n")
        parts.append(content[:size] + b"\r\n")
        content = content[size:]
    lines = b"".join(b"%b: %b\r\n" % field for field in _some(by, _field, 2))
    return b"".join(parts) + b"0" + by.choice(_EXTENSIONS) + b"\r\n" + lines + b"\r\n"


def _framed(by: Random, version: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Framing fields, and the body as it goes over the wire."""
    kind = by.choice(("none", "length", "chunked") if version == b"1.1" else ("none", "length"))
    if kind == "none":
        return [], b""
    if kind == "chunked":
        return [(b"Transfer-Encoding", by.choice((b"chunked", b"Chunked")))], _chunked(by)
    body = _body(by)
    return [(b"Content-Length", by.choice((b"%d", b"%03d")) % len(body))], body


def _section(by: Random, lines: list[tuple[bytes, bytes]]) -> bytes:
    """These fields in any order, with blanks around their values."""
    by.shuffle(lines)
    return b"".join(
        b"%b:%b%b%b\r\n" % (name, by.choice(_BLANKS), value, by.choice((b"", b"", b" ", b"\t")))
        for name, value in lines
    )


def _request(by: Random) -> bytes:
    version = by.choice(_VERSIONS)
    lines, body = _framed(by, version)
    lines += [(b"Host", by.choice(_AUTHORITIES)), *_some(by, _field, 4)]
    if connection := by.choice(_CONNECTIONS):
        lines.append((b"Connection", connection))
    if body and by.random() < 0.5:
        lines.append((b"Expect", b"100-continue"))
    method = by.choice(_METHODS) if by.random() < 0.5 else _text(by, TCHAR, 1, 12)
    target = b"/" + _text(by, _IN_PATHS, 0, 20)
    if by.random() < 0.5:
        target = b"http://" + by.choice(_AUTHORITIES) + target
    return b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, target, version, _section(by, lines), body)


def _response(by: Random) -> bytes:
    version, status = by.choice(_VERSIONS), by.choice(_STATUSES)
    lines, body = [], b""
    if status not in (b"204", b"304", b"103", b"100"):
        lines, body = _framed(by, version)
    lines += _some(by, _field, 4)
    if connection := by.choice(_CONNECTIONS):
        lines.append((b"Connection", connection))
    start = b"HTTP/%b %b%b\r\n" % (version, status, by.choice(_REASONS))
    return b"%b%b\r\n%b" % (start, _section(by, lines), body)


#: One field that has nothing to do with framing.
fields = built(_field)
#: A body in chunks of any sizes, with extensions and trailers.
chunked = built(_chunked)
#: One valid request.
requests = built(_request)
#: One valid response to a GET.
responses = built(_response)

#: What breaks parsers, for insertion anywhere.
NASTY = [
    *(bytes([byte]) for byte in b"\r\n \t:,;\0\x0b\x0c\x7f\x80\xa0+-_.0519aAxX#%\"'\\/*[]"),
    *(b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"\r\n ", b" :", b"0x", b"HTTP/1.0"),
    *(b"chunked", b"gzip, ", b", chunked", b"0\r\n\r\n", b"5\r\nhello\r\n", b"1;a=b\r\nx\r\n"),
    *(b"GET / HTTP/1.1\r\n", b"Host: app.test\r\n", b"X: y\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n"),
]


def _nasty(by: Random) -> bytes:
    return by.choice(NASTY) if by.random() < 0.5 else by.randbytes(1)


def _damaged(by: Random, message: bytes) -> bytes:
    """A stream with a few places changed: something put in, left out, doubled, or replaced."""
    data = bytearray(message)
    for _ in range(by.randint(1, 3)):
        start = by.randint(0, len(data))
        end = min(len(data), start + by.choice((0, 1, 1, 2, 5, 20)))
        match by.choice(("insert", "delete", "double", "replace")):
            case "insert":
                data[start:start] = _nasty(by)
            case "delete":
                del data[start:end]
            case "double":
                data[start:start] = data[start:end]
            case _:
                data[start:end] = _nasty(by)
    return bytes(data)


#: A chunked body with a few places changed.
damaged_chunked = built(lambda by: _damaged(by, _chunked(by)))


def _streams(kind: str, one: Callable[[Random], bytes]) -> st.SearchStrategy[bytes]:
    short = [case.input for case in load_cases(kind) if len(case.input) < 3000]

    def several(by: Random) -> bytes:
        return b"".join(one(by) for _ in range(by.randint(1, 3)))

    def known(by: Random) -> bytes:
        return by.choice(short) if by.random() < 0.5 else several(by)

    def stream(by: Random) -> bytes:
        match by.randrange(4):
            case 0:
                return several(by)
            case 1:
                return _damaged(by, known(by))
            case 2:
                return _damaged(by, several(by))
            case _:  # the beginning of one stream and the end of another
                first, second = known(by), known(by)
                return first[: by.randint(0, len(first))] + second[by.randint(0, len(second)) :]

    return built(stream)


#: Streams of requests and of responses: some valid, most nearly so.
request_streams = _streams("requests", _request)
response_streams = _streams("responses", _response)

#: Where a stream is cut, as fractions of its length.
cut_places = built(
    lambda by: sorted(by.choice((0.0, 1.0, by.random(), by.random())) for _ in range(by.randint(0, 8)))
)


def pieces(data: bytes, places: list[float]) -> list[bytes]:
    """*data* cut at *places*."""
    ends = [round(place * len(data)) for place in places]
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
