"""HTTP/1 messages for property tests: valid, damaged, and put together from pieces.

``EXAMPLES=20000 python -m twisted.trial tests.wire`` looks longer, and at
other inputs each time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.corpus import load_cases

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


def _of(alphabet: bytes, least: int, most: int) -> st.SearchStrategy[bytes]:
    # One draw of bytes is many times cheaper than a draw for each of them.
    table = bytes(alphabet[code % len(alphabet)] for code in range(256))
    return st.binary(min_size=least, max_size=most).map(lambda drawn: drawn.translate(table))


TCHAR = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VCHAR = bytes(range(0x21, 0x7F))
#: Every byte that a value may hold inside.
VALUE = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

blanks = st.sampled_from([b"", b" ", b"\t", b"  \t "])
tokens = _of(TCHAR, 1, 12)
values = st.one_of(
    st.just(b""),
    _of(VALUE, 1, 30).map(lambda value: value.strip(b" \t")),
    st.sampled_from([b"text/html", b"gzip, deflate", b'W/"x"', b"a=b; c=d", b"a:b", b"0"]),
)
fields = st.tuples(
    st.one_of(
        tokens,
        st.sampled_from(
            b"Accept Cookie X-Forwarded-For x-real-ip X_Real_IP X-Request-ID TE "
            b"Keep-Alive Trailer Upgrade Forwarded X-Scalingo-Error".split()
        ),
    ),
    values,
).filter(lambda field: field[0].lower() not in _FRAMING)
_FRAMING = (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"proxy-connection")

bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", b"\r\n", b"hello"]),
)
methods = st.one_of(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"]), tokens
)
paths = _of(bytes(byte for byte in VCHAR if byte != 35), 0, 20).map(lambda path: b"/" + path)
authorities = st.sampled_from(
    [b"app.test", b"APP.test:80", b"app.test.", b"[::1]:8080", b"192.0.2.1", b"a_b.test:"]
)
targets = st.one_of(paths, st.tuples(authorities, paths).map(lambda pair: b"http://" + pair[0] + pair[1]))
versions = st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"])
connections = st.sampled_from(
    [b"", b"", b"keep-alive", b"close", b"X-A, keep-alive", b"Upgrade", b"TE, Accept"]
)
extensions = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b;c"', b"; a = b"])


@st.composite
def chunked(draw: st.DrawFn, body: st.SearchStrategy[bytes] = bodies) -> bytes:
    """A body in chunks of any sizes, with extensions and trailers."""
    content = draw(body)
    parts: list[bytes] = []
    while content:
        size = draw(st.integers(1, len(content)))
        form = draw(st.sampled_from([b"%x", b"%X", b"%04x"]))
        parts.append(form % size + draw(extensions) + b"\r\n" + content[:size] + b"\r\n")
        content = content[size:]
    trailers = draw(st.lists(fields, max_size=2))
    lines = b"".join(b"%b: %b\r\n" % field for field in trailers)
    return b"".join(parts) + b"0" + draw(extensions) + b"\r\n" + lines + b"\r\n"


@st.composite
def framed(draw: st.DrawFn, version: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Framing fields, and the body as it goes over the wire."""
    kind = draw(st.sampled_from(["none", "length", "chunked"] if version == b"1.1" else ["none", "length"]))
    if kind == "none":
        return [], b""
    if kind == "chunked":
        return [(b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"])))], draw(chunked())
    body = draw(bodies)
    return [(b"Content-Length", draw(st.sampled_from([b"%d", b"%03d"])) % len(body))], body


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One valid request."""
    version = draw(versions)
    lines, body = draw(framed(version))
    lines += [(b"Host", draw(authorities)), *draw(st.lists(fields, max_size=4))]
    if connection := draw(connections):
        lines.append((b"Connection", connection))
    if body and draw(st.booleans()):
        lines.append((b"Expect", b"100-continue"))
    return b"%b %b HTTP/%b\r\n%b\r\n%b" % (draw(methods), draw(targets), version, draw(sections(lines)), body)


@st.composite
def sections(draw: st.DrawFn, lines: list[tuple[bytes, bytes]]) -> bytes:
    """These fields in any order, with blanks around their values."""
    return b"".join(
        b"%b:%b%b%b\r\n" % (name, draw(blanks), value, draw(st.sampled_from([b"", b"", b" ", b"\t"])))
        for name, value in draw(st.permutations(lines))
    )


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """One valid response to a GET."""
    version = draw(versions)
    status = draw(st.sampled_from([b"200", b"200", b"404", b"204", b"304", b"103", b"100", b"500"]))
    reason = draw(st.sampled_from([b" OK", b" ", b" Not\tso \xe9", b""]))
    lines, body = [], b""
    if status not in (b"204", b"304", b"103", b"100"):
        lines, body = draw(framed(version))
    lines += draw(st.lists(fields, max_size=4))
    if connection := draw(connections):
        lines.append((b"Connection", connection))
    return b"HTTP/%b %b%b\r\n%b\r\n%b" % (version, status, reason, draw(sections(lines)), body)


#: What breaks parsers, for insertion anywhere.
NASTY = [
    *(bytes([byte]) for byte in b"\r\n \t:,;\0\x0b\x0c\x7f\x80\xa0+-_.0519aAxX#%\"'\\/*[]"),
    *(b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"\r\n ", b" :", b"0x", b"HTTP/1.0"),
    *(b"chunked", b"gzip, ", b", chunked", b"0\r\n\r\n", b"5\r\nhello\r\n", b"1;a=b\r\nx\r\n"),
    *(b"GET / HTTP/1.1\r\n", b"Host: app.test\r\n", b"X: y\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n"),
]
nasty = st.one_of(st.sampled_from(NASTY), st.binary(min_size=1, max_size=1))


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A stream with a few places changed: something put in, left out, doubled, or replaced."""
    data = bytearray(draw(messages))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 1, 2, 5, 20])))
        match draw(st.sampled_from(["insert", "delete", "double", "replace"])):
            case "insert":
                data[start:start] = draw(nasty)
            case "delete":
                del data[start:end]
            case "double":
                data[start:start] = data[start:end]
            case _:
                data[start:end] = draw(nasty)
    return bytes(data)


@st.composite
def spliced(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """The beginning of one stream and the end of another."""
    first, second = draw(messages), draw(messages)
    return first[: draw(st.integers(0, len(first)))] + second[draw(st.integers(0, len(second))) :]


def _streams(kind: str, one: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    short = [case.input for case in load_cases(kind) if len(case.input) < 3000]
    several = st.lists(one, min_size=1, max_size=3).map(b"".join)
    known = st.one_of(st.sampled_from(short), several)
    return st.one_of(several, damaged(known), damaged(several), spliced(known))


#: Streams of requests and of responses: some valid, most nearly so.
request_streams = _streams("requests", requests())
response_streams = _streams("responses", responses())

#: Where a stream is cut, as fractions of its length.
cut_places = st.lists(st.floats(0, 1), max_size=8).map(sorted)


def pieces(data: bytes, places: list[float]) -> list[bytes]:
    """*data* cut at *places*."""
    ends = [round(place * len(data)) for place in places]
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
