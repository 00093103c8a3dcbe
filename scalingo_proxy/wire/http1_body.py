"""How many bytes belong to this message, and which (RFC 9112 §6, §7).

A reader takes bytes as they come and gives back the payload in them.  Chunked
bodies are decoded and written anew, so that nothing a peer hides in chunk
lines travels on.  No Twisted, no limits on the whole body: the caller counts.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from scalingo_proxy.wire.grammar import NEVER_IN_A_HEAD, TOKEN, Fields, FramingError, parse_fields

__all__ = [
    "NO_BODY",
    "BodyReader",
    "ChunkedReader",
    "Framing",
    "FramingKind",
    "LengthReader",
    "UntilCloseReader",
    "encode_chunk",
    "encode_last_chunk",
]


class FramingKind(enum.Enum):
    """The ways RFC 9112 §6.3 ends a message."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_CHUNKED, _UNTIL_CLOSE = FramingKind.CHUNKED, FramingKind.UNTIL_CLOSE


class Framing:
    """How one message ends.

    :ivar kind: which of the ways.
    :ivar length: the payload's bytes where the head tells, else 0.
    :ivar has_body: whether there is anything to read behind the head.
    """

    __slots__ = ("has_body", "kind", "length")

    def __init__(self, kind: FramingKind, length: int = 0) -> None:
        self.kind = kind
        self.length = length
        self.has_body = length > 0 or kind is _CHUNKED or kind is _UNTIL_CLOSE

    def __repr__(self) -> str:
        return f"Framing({self.kind.value}, {self.length})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Framing):
            return NotImplemented
        return self.kind is other.kind and self.length == other.length

    def __hash__(self) -> int:
        return hash((self.kind, self.length))

    def reader(self) -> BodyReader:
        """A reader for one body framed like this."""
        if self.kind is FramingKind.LENGTH:
            return LengthReader(self.length)
        if self.kind is FramingKind.CHUNKED:
            return ChunkedReader()
        if self.kind is FramingKind.UNTIL_CLOSE:
            return UntilCloseReader()
        return LengthReader(0)


NO_BODY: Final = Framing(FramingKind.NONE)


class BodyReader:
    """Takes the bytes behind a head, gives the payload in them.

    :ivar done: the body is complete.
    :ivar excess: what came behind the end of the body; it belongs to whatever
        is next on the connection.
    :ivar trailers: the fields behind a chunked body.
    """

    __slots__ = ("done", "excess", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.excess = b""
        self.trailers: Fields = []

    def receive(self, data: bytes) -> bytes:
        """The payload in *data*, which follows what was received before.

        :raises FramingError: when the body is malformed; nothing behind that
            point can be trusted.
        """
        raise NotImplementedError

    def closed(self) -> bool:
        """The peer ended the stream; whether the body is complete with that."""
        return self.done


class LengthReader(BodyReader):
    """A body of a length told beforehand."""

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        super().__init__()
        self.remaining = length
        self.done = length == 0

    def receive(self, data: bytes) -> bytes:
        remaining = self.remaining - len(data)
        if remaining > 0:
            self.remaining = remaining
            return data
        end = self.remaining
        self.remaining = 0
        self.done = True
        if remaining < 0:
            self.excess = data[end:]
            return data[:end]
        return data


class UntilCloseReader(BodyReader):
    """A response body that ends with the connection (RFC 9112 §6.3 rule 8)."""

    __slots__ = ()

    def receive(self, data: bytes) -> bytes:
        return data

    def closed(self) -> bool:
        self.done = True
        return True


_MAX_LINE_BYTES = 4096
_MAX_EXTENSION_BYTES = 16384
_MAX_TRAILER_BYTES = 32768
_MAX_TRAILER_FIELDS = 100

#: Blanks before the semicolon are refused, although RFC 9112 §7.1.1 reads over
#: them: nobody sends them, and most peers take them for something else.
_EXTENSION = (
    rb";[ \t]*+[" + TOKEN + rb"]++"
    rb"(?:[ \t]*+=[ \t]*+(?:[" + TOKEN + rb"]++"
    rb'|"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"))?+'
)
_MAX_SIZE_DIGITS = 16
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16}+)((?:" + _EXTENSION + rb")*+)\r\n")
_SIZE_LINE_START = re.compile(rb"[0-9A-Fa-f]{1,16}+(?:[;\r]|\Z)")


class ChunkedReader(BodyReader):
    """A chunked body (RFC 9112 §7.1): chunk extensions are checked and dropped."""

    __slots__ = ("_extension_bytes", "_pending", "_remaining", "_state")

    _SIZE, _DATA, _DATA_END, _TRAILERS = range(4)

    def __init__(self) -> None:
        super().__init__()
        self._state = self._SIZE
        self._remaining = 0
        self._extension_bytes = 0
        # Only ever holds a line or a trailer section that is not complete.
        self._pending = bytearray()

    def receive(self, data: bytes) -> bytes:
        if self._state == self._DATA and len(data) < self._remaining:
            self._remaining -= len(data)  # the inside of a large chunk: nothing to look at
            return data
        if self._state == self._TRAILERS:
            self._receive_trailers(data)
            return b""
        if self._pending:
            if self._state == self._SIZE and b"\n" not in data:
                self._keep_line(data)
                return b""
            data = bytes(self._pending) + data
            self._pending.clear()
        return self._receive_chunks(data)

    def _receive_chunks(self, data: bytes) -> bytes:
        payload: list[bytes] = []
        position, end = 0, len(data)
        while position < end:
            if self._state == self._DATA:
                part = data[position : position + self._remaining]
                payload.append(part)
                position += len(part)
                self._remaining -= len(part)
                if self._remaining == 0:
                    self._state = self._DATA_END
            elif self._state == self._DATA_END:
                ending = data[position : position + 2]
                if not b"\r\n".startswith(ending):
                    raise FramingError("chunk data is not followed by CRLF")
                if len(ending) < 2:
                    self._pending += ending
                    break
                position += 2
                self._state = self._SIZE
            else:
                match = _SIZE_LINE.match(data, position)
                if match is None:
                    self._keep_line(data[position:])
                    break
                position = match.end()
                self._begin_chunk(match)
                if self._state == self._TRAILERS:
                    self._receive_trailers(data[position:])
                    break
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _keep_line(self, part: bytes) -> None:
        """Keep the next part of a size line that is not complete, unless none can come of it."""
        pending = self._pending
        kept = len(pending)
        pending += part
        if len(pending) > _MAX_LINE_BYTES:
            raise FramingError("a chunk size line is too long")
        # Only what is new is looked at: a line that comes in single bytes costs linear time.
        if kept <= _MAX_SIZE_DIGITS and _SIZE_LINE_START.match(pending) is None:
            raise FramingError("a chunk size is malformed")
        if NEVER_IN_A_HEAD.search(pending, max(0, kept - 1)) or b"\n" in part:
            raise FramingError("a chunk size line is malformed")

    def _begin_chunk(self, match: re.Match[bytes]) -> None:
        if match.end() - match.start() > _MAX_LINE_BYTES:
            raise FramingError("a chunk size line is too long")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > _MAX_EXTENSION_BYTES:
            raise FramingError("chunk extensions are too long")
        self._remaining = int(match[1], 16)
        self._state = self._DATA if self._remaining else self._TRAILERS

    def _receive_trailers(self, data: bytes) -> None:
        assert not self.done, "what follows the body is not the reader's to read"
        pending = self._pending
        searched = max(0, len(pending) - 3)
        pending += data
        if pending.startswith(b"\r\n"):
            end = 2
        else:
            end = pending.find(b"\r\n\r\n", searched) + 4
            if (end if end >= 4 else len(pending)) > _MAX_TRAILER_BYTES:
                raise FramingError("trailers are too long")
            if end < 4:
                if NEVER_IN_A_HEAD.search(pending, searched):
                    raise FramingError("a trailer is malformed")
                return
            self.trailers = parse_fields(bytes(pending[: end - 2]))
            if len(self.trailers) > _MAX_TRAILER_FIELDS:
                raise FramingError("there are too many trailers")
        self.excess = bytes(pending[end:])
        pending.clear()
        self.done = True


def encode_chunk(payload: bytes) -> bytes:
    """*payload* as one chunk; nothing stays nothing, since an empty chunk would be the last."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def encode_last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in trailers])
