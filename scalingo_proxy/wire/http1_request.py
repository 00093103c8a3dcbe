"""The heads of requests: strict bytes to values (RFC 9112 §3, §5, §6).

What is ambiguous is refused; see ``docs/behaviour.rst`` for the list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scalingo_proxy.errors import (
    BadRequest,
    BadVersion,
    BodyTooLarge,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotAllowed,
    NotImplementedByProxy,
    ProxyError,
    UriTooLong,
)
from scalingo_proxy.model import Limits
from scalingo_proxy.wire.grammar import (
    AS_BACKENDS_READ,
    TOKEN,
    USUAL_NAMES,
    Fields,
    FramingError,
    parse_fields,
    split_list,
)
from scalingo_proxy.wire.head_forms import Key
from scalingo_proxy.wire.host import parse_authority
from scalingo_proxy.wire.http1_body import Framing, FramingKind
from scalingo_proxy.wire.http1_forwarding import acceptable_request_id
from scalingo_proxy.wire.http1_head import ENDLESS, USUAL_CONNECTION, RequestHead, parse_length, rewrite_field
from scalingo_proxy.wire.known_requests import (
    LONGEST_SECTION,
    find_request,
    learn_request,
    learn_whole,
    recent_section,
)

__all__ = ["check_unfinished_request_head", "parse_request_head", "sort_request_fields"]

MAX_FIELDS = 200

_REQUEST_LINE = re.compile(rb"([" + TOKEN + rb"]{1,64}+) ([\x21\x22\x24-\x7e]++) HTTP/([0-9]\.[0-9])\r\n")
_FORBIDDEN_METHODS = frozenset((b"CONNECT", b"TRACE"))
_OTHER_VERSION = re.compile(rb"[^ \r\n]++ [^ \r\n]++ HTTP/[0-9]++(?:\.[0-9]++)?\r\n")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*+)([/?].*+)?", re.IGNORECASE)
_UPGRADE_TOKEN = re.compile(rb"[" + TOKEN + rb"]++(?:/[" + TOKEN + rb"]++)?")

#: Fields that decide something here or never travel on as they are.  One
#: set look-up per field; whatever is not in it is relayed untouched.
_SPECIAL_REQUEST_FIELDS = frozenset(
    b"host content-length transfer-encoding connection expect upgrade keep-alive proxy-connection te "
    b"trailer http2-settings forwarded x-forwarded-for x-forwarded-proto x-forwarded-port "
    b"x-forwarded-host x-real-ip x-request-id x-request-start proxy".split()
)
#: Most fields, so that they cost one look-up: 4 µs less for a request and its response.
_USUAL_AND_RELAYED = frozenset(name for name in USUAL_NAMES if name.lower() not in _SPECIAL_REQUEST_FIELDS)
_RESERVED_PREFIXES = (b"x-scalingo-", b"scalingo-")
#: Special, and yet relayed where they stand; the framing ones are rewritten.
_KEPT_IN_PLACE = (b"host", b"content-length", b"transfer-encoding")


def parse_request_head(block: bytes, limits: Limits) -> RequestHead:
    """The value of a whole request head.

    :param block: everything up to and including the empty line.
    :raises ProxyError: with the code of what is wrong; the connection must
        then be closed, since nothing behind *block* can be trusted.
    """
    match = _REQUEST_LINE.match(block)
    if match is None or (end := match.end()) - 2 > limits.request_line_bytes:
        raise _request_line_error(block, limits)
    if len(block) > limits.head_bytes:
        raise HeadTooLarge()
    method, target, version = match.groups()
    minor = 1 if version == b"1.1" else _minor_version(version)
    if method in _FORBIDDEN_METHODS:
        raise MethodNotAllowed()
    section = block[end:-2]
    size = len(section)
    if size > limits.header_bytes:
        _check_line_lengths(section, limits.header_bytes)
    is_usual = target[0] == 47 and minor  # 47: "/"
    key: Key = ()
    if is_usual:
        # A section that came before is not read again: 7 to 11 µs less.
        known = recent_section(section) if size <= LONGEST_SECTION else None
        if known is not None:
            head = known.again(method, target)
            learn_whole(block, head, limits)
            return head
        # And of one that differs in a few values, only those: 5 to 8 µs less.
        found, key = find_request(method, target, section)
        if found is not None:
            return found
    try:
        fields = parse_fields(section)
    except FramingError as error:
        raise BadRequest(str(error)) from None
    if len(fields) > MAX_FIELDS:
        raise HeadTooLarge("there are too many header fields")
    head = RequestHead(method, target, minor)
    sort_request_fields(head, fields)
    _decide_host(head)
    _decide_request_framing(head)
    _decide_connection(head)
    if is_usual:
        learn_request(section, key, head)
    return head


def _minor_version(version: bytes) -> int:
    if version[0] != 49:  # "1"
        raise BadVersion("only HTTP/1.0 and HTTP/1.1 are spoken here")
    return 1 if version != b"1.0" else 0


def check_unfinished_request_head(received: bytes | bytearray, searched: int, limits: Limits) -> None:
    """Refuse a request head that is wrong already, although its end has not come.

    So that memory stays bounded, and a peer that speaks something else hears
    of it at once instead of at a deadline.

    :param searched: as for :func:`head_end`.
    :raises ProxyError: with the code that the whole head would meet, too.
    """
    most = limits.request_line_bytes + 2
    if searched < most:  # else the request line has been looked at
        first = received.find(b"\r\n", 0, most)
        if first < 0 and len(received) >= most:
            raise UriTooLong()
        if first >= searched - 1 and first >= 0 and _REQUEST_LINE.match(received) is None:
            raise _request_line_error(bytes(received), limits)
    if len(received) > limits.head_bytes:
        raise HeadTooLarge()


def _request_line_error(block: bytes, limits: Limits) -> ProxyError:
    line = block[: block.find(b"\r\n") + 2]
    if len(line) - 2 > limits.request_line_bytes:
        return UriTooLong()
    if _OTHER_VERSION.fullmatch(line) and not re.search(rb" HTTP/(?:0|1\.)[0-9]*", line):
        return BadVersion("only HTTP/1.0 and HTTP/1.1 are spoken here")
    return BadRequest("the request line is malformed")


def _check_line_lengths(section: bytes, most: int) -> None:
    if max(map(len, section.split(b"\r\n"))) > most:
        raise HeadTooLarge("a header line is too long")


def sort_request_fields(head: RequestHead, fields: Fields) -> None:
    """Part the fields that decide something from those that just travel on."""
    special: dict[bytes, tuple[bytes, ...]] = {}
    kept: Fields = []
    for field in fields:
        if field[0] in _USUAL_AND_RELAYED:
            kept.append(field)
            continue
        name = field[0].translate(AS_BACKENDS_READ)
        if name in _SPECIAL_REQUEST_FIELDS:
            # An alias, such as X_Forwarded_For, of a name we manage never travels.
            if name == field[0].lower():
                special[name] = (*special.get(name, ()), field[1])
                if name in _KEPT_IN_PLACE:
                    kept.append(field)
        elif not name.startswith(_RESERVED_PREFIXES):
            kept.append(field)
    connection = special.get(b"connection")
    if connection and connection not in USUAL_CONNECTION:
        named = {token for value in connection for token in split_list(value)}
        special[b"connection"] = tuple(named)
        # Naming Host or a framing field in Connection must not remove it.
        named -= _SPECIAL_REQUEST_FIELDS
        named -= {b"close"}
        if named:
            kept = [field for field in kept if field[0].lower() not in named]
    if b"x-request-id" in special:
        head.told_id = (acceptable_request_id(special[b"x-request-id"]) or b"").decode("ascii")
    head.special = special
    head.fields = kept


def _decide_host(head: RequestHead) -> None:
    hosts = head.special.get(b"host", ())
    if len(hosts) > 1:
        raise BadRequest("there is more than one Host header")
    target = head.target
    is_absolute = target[0] != 47 and not (target == b"*" and head.method == b"OPTIONS")  # 47: "/"
    if hosts:
        if not hosts[0]:
            raise BadRequest("the Host header is empty")
        head.host = parse_authority(hosts[0])
    elif not is_absolute or head.version == 1:
        raise BadRequest("there is no Host header")
    if is_absolute:
        _decide_absolute_target(head, bool(hosts))


def _decide_absolute_target(head: RequestHead, has_host: bool) -> None:
    """Absolute-form: its authority wins and becomes the Host (RFC 9112 §3.2.2)."""
    match = _ABSOLUTE.fullmatch(head.target)
    if match is None or not match[1]:
        raise BadRequest("the request target is neither a path nor an http URL")
    authority = match[1]
    head.host = parse_authority(authority)
    path = match[2] or (b"*" if head.method == b"OPTIONS" else b"/")
    head.target = path if path[0] != 63 else b"/" + path  # "?": an empty path
    head.target_text = head.target.decode("ascii")
    if has_host:
        rewrite_field(head, b"host", authority)
    else:
        head.fields = ((b"Host", authority), *head.fields)


def _decide_request_framing(head: RequestHead) -> None:
    codings = head.special.get(b"transfer-encoding")
    lengths = head.special.get(b"content-length")
    if codings:
        if lengths:
            raise BadRequest("Content-Length and Transfer-Encoding stand together")
        if head.version == 0:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise _transfer_coding_error(codings)
        head.framing = Framing(FramingKind.CHUNKED)
        if codings[0] != b"chunked":
            rewrite_field(head, b"transfer-encoding", b"chunked")
    elif lengths:
        if len(lengths) > 1:
            raise BadRequest("there is more than one Content-Length")
        length = parse_length(lengths[0])
        if length is None:
            raise BadRequest("the Content-Length is not a number")
        if length == ENDLESS:
            raise BodyTooLarge()
        head.framing = Framing(FramingKind.LENGTH, length)
        if lengths[0].startswith(b"0"):
            rewrite_field(head, b"content-length", b"%d" % length)


def _transfer_coding_error(codings: Sequence[bytes]) -> ProxyError:
    members = b",".join(codings).split(b",")
    names = [member.strip(b" \t").lower() for member in members]
    is_chunked_last = len(codings) == 1 and names.count(b"chunked") == 1 and names[-1] == b"chunked"
    if is_chunked_last and all(re.fullmatch(rb"[" + TOKEN + rb"]++", name) for name in names):
        return NotImplementedByProxy()
    return BadRequest("the Transfer-Encoding is not exactly chunked")


def _decide_connection(head: RequestHead) -> None:
    special = head.special
    connection = special.get(b"connection", ())
    if head.version == 0:
        head.keep_alive = b"keep-alive" in connection and b"close" not in connection
        return  # no Expect and no Upgrade in HTTP/1.0 (RFC 9110 §10.1.1, §7.8)
    head.keep_alive = b"close" not in connection
    if b"expect" in special:
        if any(value.lower() != b"100-continue" for value in special[b"expect"]):
            raise ExpectationFailed()
        head.expect_continue = head.framing.has_body
    if b"upgrade" in special and b"upgrade" in connection and not head.framing.has_body:
        head.upgrade = _relayed_upgrade(head)


def _relayed_upgrade(head: RequestHead) -> bytes:
    """The protocols of an Upgrade that is relayed; the others go on as plain HTTP.

    ``h2c`` and ``TLS`` would open a channel that nobody here checks.  A
    WebSocket handshake that is none (RFC 6455 §4.1) is left to the app.
    """
    members = [member.strip(b" \t") for member in b",".join(head.special[b"upgrade"]).split(b",")]
    kept = [
        member
        for member in members
        if _UPGRADE_TOKEN.fullmatch(member) and not member.lower().startswith((b"h2", b"tls", b"http"))
    ]
    if any(member.lower() == b"websocket" for member in kept):
        names = {name.lower(): value for name, value in head.fields}
        if (
            head.method != b"GET"
            or not names.get(b"sec-websocket-key")
            or names.get(b"sec-websocket-version") != b"13"
        ):
            return b""
    return b", ".join(kept)
