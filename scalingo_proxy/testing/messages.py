"""A second reader of HTTP/1 messages, for the fakes to judge the proxy by.

It shares no line with :mod:`scalingo_proxy.wire`: what the proxy sends is
read by somebody who does not repeat its mistakes.  It is strict, small and
slow, keeps everything in memory, and refuses to know connections.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

__all__ = ["Headers", "MalformedMessage", "Message", "Request", "RequestReader", "Response", "ResponseReader"]

Headers = tuple[tuple[bytes, bytes], ...]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)[ \t]*")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/(1\.[01])")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2}) ([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_DIGITS = re.compile(rb"[0-9]{1,15}")


class MalformedMessage(ValueError):
    """What was read is not HTTP/1 as RFC 9112 has a sender write it."""


class Message:
    """A request or a response, as far as it was read.

    :ivar start_line: the first line, without its end.
    :ivar headers: in the order and case they came in.
    :ivar trailers: fields after a chunked body.
    :ivar chunk_sizes: the sizes of the chunks it came in.
    :ivar is_complete: whether its end was read.
    """

    def __init__(self, start_line: bytes, headers: Headers) -> None:
        self.start_line = start_line
        self.headers = headers
        self.trailers: Headers = ()
        self.chunk_sizes: list[int] = []
        self.is_complete = False
        self._body = bytearray()
        self._raw = bytearray()

    @property
    def body(self) -> bytes:
        """The content, unframed, so far."""
        return bytes(self._body)

    @property
    def raw(self) -> bytes:
        """Every byte of it, so far."""
        return bytes(self._raw)

    def add(self, raw: bytes, content: bytes = b"") -> None:
        """Take in the next bytes and the content they carry."""
        self._raw += raw
        self._body += content

    def get_all(self, name: bytes) -> list[bytes]:
        """The values of every *name* field, case-insensitively."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: bytes, default: bytes = b"") -> bytes:
        """The value of the only *name* field, or *default*.

        :raises AssertionError: when there are several.
        """
        values = self.get_all(name)
        assert len(values) < 2, f"{len(values)} {name.decode()} fields: {values}"
        return values[0] if values else default

    def __repr__(self) -> str:
        state = "" if self.is_complete else ", incomplete"
        return (
            f"<{type(self).__name__} {self.start_line.decode('latin-1')!r}, {len(self._body)} bytes{state}>"
        )


class Request(Message):
    """A request; ``method``, ``target`` and ``version`` are its first line's parts."""

    def __init__(self, start_line: bytes, headers: Headers) -> None:
        super().__init__(start_line, headers)
        match = _REQUEST_LINE.fullmatch(start_line)
        if match is None:
            raise MalformedMessage(f"request line {start_line!r}")
        self.method, self.target, self.version = match.groups()

    @property
    def request_id(self) -> bytes:
        """Its X-Request-ID, or nothing."""
        return self.get(b"X-Request-ID")


class Response(Message):
    """A response; ``version``, ``status`` and ``reason`` are its first line's parts.

    :ivar ended_by_close: the end of the connection was the end of its body.
    """

    def __init__(self, start_line: bytes, headers: Headers) -> None:
        super().__init__(start_line, headers)
        match = _STATUS_LINE.fullmatch(start_line)
        if match is None:
            raise MalformedMessage(f"status line {start_line!r}")
        self.version: bytes = match[1]
        self.status = int(match[2])
        self.reason: bytes = match[3]
        self.ended_by_close = False


M = TypeVar("M", bound=Message)


def _fields(lines: Iterable[bytes]) -> Headers:
    found = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise MalformedMessage(f"field line {line!r}")
        found.append((match[1], match[2]))
    return tuple(found)


class _Reader(Generic[M]):
    """Reads one message after another; each state is a method that says whether it got on."""

    def __init__(self) -> None:
        self.current: M | None = None
        self.leftover = b""
        self.on_head: Callable[[M], None] = lambda message: None
        self.on_complete: Callable[[M], None] = lambda message: None
        self._tunnel: Callable[[bytes], None] | None = None
        self._state: Callable[[M], bool] = self._length_body
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Read *data*; the callbacks are called from here.

        :raises MalformedMessage: at the first thing that is wrong.
        """
        self.leftover += data
        while True:
            if self._tunnel is not None:
                data, self.leftover = self.leftover, b""
                if data:
                    self._tunnel(data)
                return
            if not (self._head() if self.current is None else self._state(self.current)):
                return

    def become_tunnel(self, received: Callable[[bytes], None]) -> None:
        """Hand everything from here on to *received*, unread."""
        self._tunnel = received

    def _make(self, start_line: bytes, headers: Headers) -> M:
        raise NotImplementedError

    def _framing(self, message: M) -> Callable[[M], bool] | None:
        """The state that reads the body, or ``None`` when there is none."""
        raise NotImplementedError

    def _take(self, message: M, size: int, is_content: bool = False) -> bytes:
        data, self.leftover = self.leftover[:size], self.leftover[size:]
        message.add(data, data if is_content else b"")
        return data

    def _line(self, message: M) -> bytes | None:
        end = self.leftover.find(b"\n")
        if end < 0:
            return None
        line = self._take(message, end + 1)
        if not line.endswith(b"\r\n"):
            raise MalformedMessage(f"a bare LF ends {line!r}")
        return line[:-2]

    def _head(self) -> bool:
        end = self.leftover.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self.leftover[:end].split(b"\r\n")
        message = self._make(lines[0], _fields(lines[1:]))
        self._take(message, end + 4)
        self.current = message
        framing = self._framing(message)
        self.on_head(message)
        if framing is None:
            self._complete(message)
        else:
            self._state = framing
        return True

    def _complete(self, message: M) -> bool:
        message.is_complete = True
        self.current = None
        self.on_complete(message)
        return True

    def _body_framing(self, message: M) -> Callable[[M], bool] | None:
        codings = [value.lower() for value in message.get_all(b"Transfer-Encoding")]
        lengths = message.get_all(b"Content-Length")
        if codings:
            if codings != [b"chunked"] or lengths:
                raise MalformedMessage(f"framing by {codings} and lengths {lengths}")
            return self._chunk_size
        if lengths:
            if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
                raise MalformedMessage(f"lengths {lengths}")
            self._missing = int(lengths[0])
            return self._length_body if self._missing else None
        return None

    def _length_body(self, message: M) -> bool:
        self._missing -= len(self._take(message, self._missing, is_content=True))
        return self._complete(message) if not self._missing else False

    def _close_body(self, message: M) -> bool:
        self._take(message, len(self.leftover), is_content=True)
        return False

    def _chunk_size(self, message: M) -> bool:
        line = self._line(message)
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise MalformedMessage(f"chunk size {line!r}")
        self._missing = int(match[1], 16)
        if self._missing:
            message.chunk_sizes.append(self._missing)
        self._state = self._chunk_data if self._missing else self._trailers
        return True

    def _chunk_data(self, message: M) -> bool:
        self._missing -= len(self._take(message, self._missing, is_content=True))
        if self._missing:
            return False
        self._state = self._chunk_end
        return True

    def _chunk_end(self, message: M) -> bool:
        if len(self.leftover) < 2:
            return False
        end = self._take(message, 2)
        if end != b"\r\n":
            raise MalformedMessage(f"a chunk ends with {end!r}")
        self._state = self._chunk_size
        return True

    def _trailers(self, message: M) -> bool:
        line = self._line(message)
        if line is None:
            return False
        if not line:
            return self._complete(message)
        message.trailers += _fields([line])
        return True


class RequestReader(_Reader[Request]):
    """Reads requests, as a backend does."""

    def _make(self, start_line: bytes, headers: Headers) -> Request:
        return Request(start_line, headers)

    def _framing(self, message: Request) -> Callable[[Request], bool] | None:
        if message.version == b"1.1" and len(message.get_all(b"Host")) != 1:
            raise MalformedMessage(f"{len(message.get_all(b'Host'))} Host fields")
        return self._body_framing(message)


class ResponseReader(_Reader[Response]):
    """Reads responses, as a client does.

    :ivar methods: the methods of the requests that were sent and not
        answered yet; a response beyond them is read as one to GET.
    """

    def __init__(self) -> None:
        super().__init__()
        self.methods: deque[bytes] = deque()

    def _make(self, start_line: bytes, headers: Headers) -> Response:
        return Response(start_line, headers)

    def _framing(self, message: Response) -> Callable[[Response], bool] | None:
        status = message.status
        if status < 200 and status != 101:
            return None
        method = self.methods.popleft() if self.methods else b"GET"
        if method == b"HEAD" or status in (101, 204, 304):
            return None
        if message.get_all(b"Transfer-Encoding") or message.get_all(b"Content-Length"):
            return self._body_framing(message)
        return self._close_body

    def feed_end(self) -> None:
        """The connection ended in order: that completes a body without length."""
        message = self.current
        if message is not None and self._state == self._close_body:
            message.ended_by_close = True
            self._complete(message)
