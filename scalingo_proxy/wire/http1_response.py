"""The heads of responses: strict bytes to values (RFC 9112 §4, §5, §6.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from scalingo_proxy.errors import BadResponse
from scalingo_proxy.wire.grammar import USUAL_NAMES, Fields, FramingError, parse_fields, split_list
from scalingo_proxy.wire.head_forms import Form, Key, changing, leave_blank
from scalingo_proxy.wire.http1_body import Framing, FramingKind
from scalingo_proxy.wire.http1_head import (
    ENDLESS,
    MOST_KNOWN_FIELDS,
    USUAL_CONNECTION,
    ResponseHead,
    last_lines,
    parse_length,
    plain_length,
    rewrite_field,
)
from scalingo_proxy.wire.repeated import Repeated

__all__ = ["MAX_RESPONSE_HEAD_BYTES", "forget_unused_responses", "parse_response_head"]

MAX_RESPONSE_HEAD_BYTES = 65536
MAX_RESPONSE_FIELDS = 1000

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*+))?\r\n")
_SPECIAL_RESPONSE_FIELDS = frozenset(
    b"content-length transfer-encoding connection keep-alive upgrade x-scalingo-error".split()
)
#: Most fields, so that they cost one look-up.
_USUAL_IN_RESPONSES = frozenset(name for name in USUAL_NAMES if name.lower() not in _SPECIAL_RESPONSE_FIELDS)

_LENGTH = FramingKind.LENGTH

#: What differs from answer to answer, in nearly all answers of an app.
_CHANGING = changing("Date Content-Length ETag Last-Modified Set-Cookie X-Request-Id X-Runtime")

#: Heads beyond so many bytes are read anew each time, and of shorter ones those are not kept whole.
_LONGEST = 4096
_LONGEST_WHOLE = 1024


def parse_response_head(block: bytes, method: bytes) -> ResponseHead:
    """The value of a whole response head.

    :param block: everything up to and including the empty line.
    :param method: of the request it answers, which decides the framing.
    :raises BadResponse: when it is malformed or ambiguous.
    """
    size = len(block)
    if size <= _LONGEST_WHOLE:
        # A hot answer is the same within one second: 9 µs less.
        whole = _recent_block(block) or _blocks.find_older(block)
        if whole is not None and method != b"HEAD":
            return whole
    elif size > MAX_RESPONSE_HEAD_BYTES:
        raise BadResponse("the backend sent a response head that is too large")
    key: Key = ()
    if method != b"HEAD" and size <= _LONGEST and not _forms.is_hopeless():
        # In nearly all others only a few values are new: 5 to 9 µs less.
        key, values = leave_blank(_CHANGING, block)
        known = _recent_form(key) or _forms.find_older(key)
        if known is not None:
            key = ()
            filled = known.head(values)
            if filled is not None:
                _forms.misses = 0
                _learn_block(block, filled)
                return filled
            _forms.misses += 1
    match = _STATUS_LINE.match(block)
    if match is None:
        raise BadResponse("the backend sent a malformed status line")
    try:
        fields = parse_fields(block[match.end() : -2])
    except FramingError:
        raise BadResponse("the backend sent a malformed header") from None
    if len(fields) > MAX_RESPONSE_FIELDS:
        raise BadResponse("the backend sent too many header fields")
    minor, status, reason = match.groups()
    head = ResponseHead(int(status), reason or b"", 1 if minor != b"0" else 0)
    special: dict[bytes, tuple[bytes, ...]] = {}
    kept: Fields = []
    for field in fields:
        if field[0] in _USUAL_IN_RESPONSES:
            kept.append(field)
            continue
        name = field[0].lower()
        if name in _SPECIAL_RESPONSE_FIELDS:
            special[name] = (*special.get(name, ()), field[1])
            if name == b"content-length" and head.status >= 200 and head.status != 204:
                kept.append(field)
        elif not name.startswith(b"proxy-"):
            kept.append(field)
    head.fields = kept
    _decide_response(head, special, method)
    if key and _forms.is_second(key):
        _forms.keep(key, KnownResponse(head, key))  # one that is not exact, too: it need not be made again
    return head


class KnownResponse:
    """What the head of a response means, whatever values are filled into its form.

    Not that of one to HEAD, which has no body whatever it says.

    :ivar is_exact: whether that is so.
    """

    __slots__ = (
        "_framing",
        "_has_body",
        "_keep_alive",
        "_length_at",
        "_reason",
        "_status",
        "_version",
        "form",
        "is_exact",
    )

    def __init__(self, head: ResponseHead, key: Key) -> None:
        start = b"HTTP/1.1 %d %b" % (head.status, head.reason)
        self.form = Form(start, head.fields[:MOST_KNOWN_FIELDS], key, last_lines(head))
        self._status, self._reason, self._version = head.status, head.reason, head.version
        self._keep_alive = head.keep_alive
        self._framing = head.framing
        self._has_body = head.framing.kind is _LENGTH
        names = [name.lower() for name in self.form.names]
        self._length_at = names.index(b"content-length") if b"content-length" in names else -1
        self.is_exact = (
            head.status >= 200
            and len(head.fields) <= MOST_KNOWN_FIELDS
            and self.form.is_exact
            # Of a 204 the length says more: whether what follows can be trusted.
            and not (head.status == 204 and self._length_at >= 0)
        )

    def head(self, values: Sequence[bytes]) -> ResponseHead | None:
        """The head with *values*; None: that is for others to judge."""
        if not self.is_exact:
            return None
        framing = self._framing
        if self._length_at >= 0:
            length = plain_length(values[self._length_at])
            if length is None:
                return None
            if self._has_body:
                framing = Framing(_LENGTH, length)
        head = ResponseHead(self._status, self._reason, self._version)
        head.keep_alive = self._keep_alive
        head.framing = framing
        head.fill_in(self.form, values)
        return head


def _learn_block(block: bytes, head: ResponseHead) -> None:
    if len(block) <= _LONGEST_WHOLE and _blocks.is_second(block):
        _blocks.keep(block, head)


_forms: Repeated[Key, KnownResponse] = Repeated(most=256)
_recent_form = _forms.recent.get
#: A second later they are of no use any more.
_blocks: Repeated[bytes, ResponseHead] = Repeated(most=64)
_recent_block = _blocks.recent.get


def forget_unused_responses() -> None:
    """Forget what no backend has sent since the last time but one that this was said."""
    _forms.turn()
    _blocks.turn()


def _decide_response(head: ResponseHead, special: Mapping[bytes, Sequence[bytes]], method: bytes) -> None:
    connection = special.get(b"connection", ())
    if connection and connection not in USUAL_CONNECTION:
        connection = tuple(token for value in connection for token in split_list(value))
        named = {*connection} - {b"close", b"content-length"}
        if named:
            head.fields = [field for field in head.fields if field[0].lower() not in named]
    head.keep_alive = b"close" not in connection and (head.version == 1 or b"keep-alive" in connection)
    if head.status == 101:
        head.upgrade = b", ".join(special.get(b"upgrade", ()))
    length = _response_length(head, special)
    codings = special.get(b"transfer-encoding")
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked" or head.version == 0):
        raise BadResponse("the backend sent a Transfer-Encoding that is not exactly chunked")
    if codings and length is not None:
        raise BadResponse("the backend sent Content-Length and Transfer-Encoding together")
    status = head.status
    if method == b"HEAD" or status < 200 or status == 204 or status == 304:
        if (codings or length) and (status < 200 or status == 204):
            _refuse_body_that_cannot_be(head)
    elif codings:
        head.framing = Framing(FramingKind.CHUNKED)
    elif length is not None:
        head.framing = Framing(_LENGTH, length)
    else:
        head.framing = Framing(FramingKind.UNTIL_CLOSE)
        head.keep_alive = False


def _refuse_body_that_cannot_be(head: ResponseHead) -> None:
    """A 1xx or 204 that announces a body (RFC 9112 §6.1, §6.3 rule 1).

    Whether it follows, nobody can tell: what comes next on this connection is
    never taken for another answer.
    """
    head.keep_alive = False
    if head.status < 200 and head.status != 101:
        raise BadResponse("the backend sent an interim response with a body")


def _response_length(head: ResponseHead, special: Mapping[bytes, Sequence[bytes]]) -> int | None:
    values = special.get(b"content-length")
    if not values:
        return None
    length = parse_length(values[0])
    if length is None or length == ENDLESS or len(values) > 1:
        raise BadResponse("the backend sent an ambiguous Content-Length")
    if values[0].startswith(b"0"):
        rewrite_field(head, b"content-length", b"%d" % length)
    return length
