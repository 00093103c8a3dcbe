"""Heads as HTTP/2 carries them (RFC 9113 §8), to and from the values of HTTP/1.

Everything behind the edge knows one kind of head, so a header list becomes a
:class:`~scalingo_proxy.wire.http1_head.RequestHead` here, by rules at least as
strict as those for HTTP/1: what is written to a backend later could otherwise
be split into two requests.  Knows no frames, no streams and no compression.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

from scalingo_proxy.errors import BadRequest, ExpectationFailed, HeadTooLarge, MethodNotAllowed, UriTooLong
from scalingo_proxy.model import Limits
from scalingo_proxy.wire.grammar import TOKEN, Fields, FramingError
from scalingo_proxy.wire.host import parse_authority
from scalingo_proxy.wire.http1_body import NO_BODY, Framing, FramingKind
from scalingo_proxy.wire.http1_head import (
    MOST_KNOWN_FIELDS,
    RequestHead,
    ResponseHead,
    parse_length,
    rewrite_field,
)
from scalingo_proxy.wire.http1_request import MAX_FIELDS, sort_request_fields
from scalingo_proxy.wire.http2_compression import LeanEncoder
from scalingo_proxy.wire.known_requests import is_told_by_section, without_line
from scalingo_proxy.wire.repeated import Repeated

__all__ = [
    "forget_unused_header_lists",
    "http2_request_head",
    "http2_response_block",
    "http2_response_fields",
    "http2_trailers",
    "trailers_for_http2",
    "websocket_refusal",
]

#: A name in lower case, as RFC 9113 §8.2.1 wants it.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
#: A value without control characters, and without blanks at its ends.
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[" + TOKEN + rb"]{1,64}+")
_PATH = re.compile(rb"[\x21\x22\x24-\x7e]++")

_MAX_TRAILERS = 100

_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
#: Fields that only have a meaning on one connection (RFC 9113 §8.2.2).
_CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)


def http2_request_head(
    fields: Sequence[tuple[bytes, bytes]],
    ended: bool,
    limits: Limits,
    websocket_key: Callable[[], bytes] | None = None,
) -> RequestHead:
    """The value of a request's header list.

    An extended CONNECT for a WebSocket (RFC 8441) becomes the GET with an
    Upgrade that an HTTP/1 backend understands.

    :param ended: no body follows.
    :param websocket_key: makes a ``Sec-WebSocket-Key``; without it no extended
        CONNECT is taken.
    :raises FramingError: when the list is malformed: a stream error of type
        PROTOCOL_ERROR (RFC 9113 §8.1.1).
    :raises ProxyError: when it is well-formed, but refused.
    """
    rest, method, path = _rest_of(fields) if ended else _NO_REST
    if rest:
        # Of a list that came before, only the method and the path are looked at (14 µs less for a browser's).
        known = _recent_list(rest) or _lists.find_older(rest)
        if known is not None and known.fits(method, path, limits):
            return known.head.again(method, path)
    pseudo, regular = _part(fields)
    _check_size(pseudo, regular, limits)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if _METHOD.fullmatch(method) is None:
        raise FramingError("there is no valid :method")
    is_websocket = False
    if method == b"CONNECT":
        is_websocket = pseudo.get(b":protocol") == b"websocket" and websocket_key is not None
        if not is_websocket:
            raise MethodNotAllowed()
    elif b":protocol" in pseudo:
        raise FramingError(":protocol stands beside another method than CONNECT")
    if pseudo.get(b":scheme") not in (b"http", b"https"):
        raise FramingError("there is no valid :scheme")
    if _PATH.fullmatch(path) is None or not (path[0] == 47 or (path == b"*" and method == b"OPTIONS")):
        raise FramingError("there is no valid :path")
    if method == b"TRACE":
        raise MethodNotAllowed()
    head = RequestHead(b"GET" if is_websocket else method, path, 1)
    authority, regular = _authority(pseudo, regular)
    sort_request_fields(head, [(b"host", authority), *regular])
    head.host = parse_authority(authority)
    head.keep_alive = True
    if is_websocket and websocket_key is not None:
        _ask_for_websocket(head, websocket_key())
    else:
        head.framing = _framing(head, ended)
        _decide_expect(head)
        if rest and head.framing is NO_BODY and _lists.is_second(rest) and is_told_by_section(head):
            known = _KnownList(head, regular)
            if known.head_bytes <= _LONGEST:
                _lists.keep(rest, known)
    return head


#: All of a header list but its method and its path.
_Rest = tuple[tuple[bytes, bytes], ...]
_NO_REST: tuple[_Rest, bytes, bytes] = ((), b"", b"")


def _rest_of(fields: Sequence[tuple[bytes, bytes]]) -> tuple[_Rest, bytes, bytes]:
    """What to know a header list by, its method and its path; nothing unless it begins as it usually does.

    With four pseudo-header fields in front, it does not matter in which order.
    """
    if not 4 <= len(fields) <= MOST_KNOWN_FIELDS:
        return _NO_REST
    method = path = None
    others = []
    for field in fields[:4]:
        name = field[0]
        if name == b":method":
            method = field[1]
        elif name == b":path":
            path = field[1]
        elif name == b":authority" or name == b":scheme":
            others.append(field)
    if method is None or path is None or len(others) != 2:
        return _NO_REST
    return (*others, *fields[4:]), method, path


class _KnownList:
    """What a header list without a body means with any method and path that it may be told from.

    :ivar head: that; ``again`` adds the method and the path.
    :ivar head_bytes: how many bytes its fields would have as lines.
    """

    __slots__ = ("_longest", "head", "head_bytes")

    def __init__(self, head: RequestHead, regular: Fields) -> None:
        self.head = without_line(head)
        lengths = [len(name) + len(value) + len(": ") for name, value in regular]
        self._longest = max(lengths, default=0)
        self.head_bytes = sum(lengths) + 2 * len(lengths)

    def fits(self, method: bytes, path: bytes, limits: Limits) -> bool:
        """Whether the rules for all requests leave nothing to be looked at."""
        line = len(method) + len(path) + len("  HTTP/1.1")
        return (
            line <= limits.request_line_bytes
            and self._longest <= limits.header_bytes
            and line + self.head_bytes <= limits.head_bytes
            and path[:1] == b"/"
            and _PATH.fullmatch(path) is not None
            and method in _USUAL_METHODS
        )


#: Methods that decide nothing.
_USUAL_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))

#: Lists beyond so many bytes are read anew each time.
_LONGEST = 2048

_lists: Repeated[_Rest, _KnownList] = Repeated(most=512)
_recent_list = _lists.recent.get


def forget_unused_header_lists() -> None:
    """Forget what nobody has sent since the last time but one that this was said."""
    _lists.turn()


def _part(fields: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-header fields and the others, each checked (RFC 9113 §8.2, §8.3)."""
    pseudo: dict[bytes, bytes] = {}
    regular: Fields = []
    cookies: list[bytes] = []
    for name, value in fields:
        if _VALUE.fullmatch(value) is None:
            raise FramingError("a header value is malformed")
        if name[:1] == b":":
            if regular or cookies:
                raise FramingError("a pseudo-header stands behind a header")
            if name not in _PSEUDO or name in pseudo:
                raise FramingError("a pseudo-header is unknown or stands twice")
            pseudo[name] = value
            continue
        check_name(name)
        if name == b"te" and value.lower() != b"trailers":
            raise FramingError("te allows trailers only")
        if name == b"cookie":
            if not cookies:
                regular.append((name, b""))  # where the crumbs are joined
            cookies.append(value)
        else:
            regular.append((name, value))
    if cookies:
        whole = b"; ".join(cookies)
        regular = [(name, whole) if name == b"cookie" else (name, value) for name, value in regular]
    return pseudo, regular


def check_name(name: bytes) -> None:
    """Refuse a field name that HTTP/2 does not allow.

    :raises FramingError: naming what is wrong.
    """
    if _NAME.fullmatch(name) is None:
        raise FramingError("a header name is malformed")
    if name in _CONNECTION_SPECIFIC:
        raise FramingError("a header belongs to HTTP/1 connections only")


def _check_size(pseudo: dict[bytes, bytes], regular: Fields, limits: Limits) -> None:
    """The limits of an HTTP/1 head, counted as its lines would be."""
    line = len(pseudo.get(b":method", b"")) + len(pseudo.get(b":path", b"")) + len("  HTTP/1.1")
    if line > limits.request_line_bytes:
        raise UriTooLong()
    lengths = [len(name) + len(value) + len(": ") for name, value in regular]
    if len(lengths) > MAX_FIELDS:
        raise HeadTooLarge("there are too many header fields")
    if lengths and max(lengths) > limits.header_bytes:
        raise HeadTooLarge("a header line is too long")
    if line + sum(lengths) + 2 * len(lengths) > limits.head_bytes:
        raise HeadTooLarge()


def _authority(pseudo: dict[bytes, bytes], regular: Fields) -> tuple[bytes, Fields]:
    """The one authority, and the fields without ``host`` (RFC 9113 §8.3.1)."""
    hosts = [value for name, value in regular if name == b"host"]
    authority = pseudo.get(b":authority", hosts[0] if hosts else b"")
    if not authority:
        raise BadRequest("there is neither :authority nor Host")
    if any(host.lower() != authority.lower() for host in hosts) or len(hosts) > 1:
        raise BadRequest(":authority and Host differ")
    return authority, [field for field in regular if field[0] != b"host"] if hosts else regular


def _framing(head: RequestHead, ended: bool) -> Framing:
    lengths = head.special.get(b"content-length")
    if not lengths:
        return NO_BODY if ended else Framing(FramingKind.CHUNKED)
    length = parse_length(lengths[0])
    if length is None or len(lengths) > 1:
        raise FramingError("the content-length is not a number")
    if ended and length > 0:
        raise FramingError("the body is shorter than the content-length")
    if lengths[0].startswith(b"0"):
        rewrite_field(head, b"content-length", b"%d" % length)
    return Framing(FramingKind.LENGTH, length)


def _decide_expect(head: RequestHead) -> None:
    expectations = head.special.get(b"expect")
    if expectations:
        if any(value.lower() != b"100-continue" for value in expectations):
            raise ExpectationFailed()
        head.expect_continue = head.framing.has_body


def _ask_for_websocket(head: RequestHead, key: bytes) -> None:
    """Turn an extended CONNECT into the handshake of RFC 6455 §4.1."""
    if [value for name, value in head.fields if name == b"sec-websocket-version"] != [b"13"]:
        raise BadRequest("the version of WebSocket is not 13")
    own = (b"sec-websocket-key", b"sec-websocket-version", b"content-length")
    kept = [field for field in head.fields if field[0] not in own]
    head.fields = [*kept, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", key)]
    head.upgrade = b"websocket"
    head.websocket_key = key


_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def websocket_refusal(key: bytes, head: ResponseHead) -> str:
    """What is wrong with a backend's answer to our own handshake; empty: nothing.

    A final response is fine, too, unless its status is 2xx: in HTTP/2 that
    would say that the tunnel is there (RFC 8441 §5).
    """
    if head.status != 101:
        return "the backend did not switch to WebSocket" if head.status < 300 else ""
    told = [value for name, value in head.fields if name.lower() == b"sec-websocket-accept"]
    digest = hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    if told != [base64.b64encode(digest)]:
        return "the backend did not prove that it speaks WebSocket"
    return ""


def http2_trailers(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields of a request's trailer section.

    :raises FramingError: for a pseudo-header, a malformed field, or too many.
    """
    trailers: Fields = []
    for name, value in fields:
        if len(trailers) == _MAX_TRAILERS:
            raise FramingError("there are too many trailers")
        if name[:1] == b":" or _VALUE.fullmatch(value) is None:
            raise FramingError("a trailer is malformed")
        check_name(name)
        trailers.append((name, value))
    return trailers


def http2_response_fields(status: int, fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The header list of a response: the status and the fields, in lower case."""
    listed: Fields = [(b":status", b"%d" % status)]
    listed += [(name.lower(), value) for name, value in fields]
    return listed


def http2_response_block(head: ResponseHead, encoder: LeanEncoder) -> bytes:
    """The header block of a final response."""
    filled = head.filled
    if filled is not None:
        return encoder.encode_form(head.status, *filled)
    return encoder.encode(http2_response_fields(head.status, head.fields))


def trailers_for_http2(trailers: Fields) -> Fields:
    """A response's trailers, in lower case."""
    return [(name.lower(), value) for name, value in trailers if name.lower() not in _CONNECTION_SPECIFIC]
