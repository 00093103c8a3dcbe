"""Whole connections read with :mod:`scalingo_proxy.wire`, without a connection.

What a front or back protocol does with the parsers, stripped of everything
else: bytes in as they come, messages out, and where the stream stands.  It
keeps bodies, which the proxy never does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import attrs

from scalingo_proxy.errors import BadRequest, BadResponse, BodyTooLarge, ProxyError
from scalingo_proxy.model import Limits
from scalingo_proxy.wire.grammar import Fields, FramingError
from scalingo_proxy.wire.http1_body import BodyReader
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead, head_end
from scalingo_proxy.wire.http1_request import check_unfinished_request_head, parse_request_head
from scalingo_proxy.wire.http1_response import MAX_RESPONSE_HEAD_BYTES, parse_response_head

#: Between two messages; the next may come.
READY = "ready"
#: In the middle of a message; a deadline bounds the wait.
WAITS = "waits"
#: The last message of the connection was read; what follows is not looked at.
CLOSES = "closes"
#: The backend switched protocols; what follows belongs to the tunnel.
SWITCHED = "switched"
#: Response bytes that no request asked for.
UNASKED = "unasked"
#: The stream ended in the middle of a message.
CUT = "cut"
#: All of these; a stream that stands elsewhere was refused, with the reason.
STATES = frozenset((READY, WAITS, CLOSES, SWITCHED, UNASKED, CUT))


@attrs.define
class Message:
    """One whole message.

    :ivar block: the head as it came.
    :ivar raw: the whole message as it came, what stood in front of it included.
    """

    head: RequestHead | ResponseHead
    block: bytes
    body: bytes = b""
    trailers: Fields = attrs.Factory(list)
    raw: bytes = b""

    @property
    def raw_target(self) -> bytes:
        """A request's target as it was sent."""
        return self.block.split(b" ", 2)[1]


class _Stream:
    """The loop both directions share: a head, then its body, then the next."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.stands = READY
        self.detail = ""
        self._received = bytearray()
        self._raw = bytearray()
        self._searched = 0
        self._head: RequestHead | ResponseHead | None = None
        self._block = b""
        self._reader: BodyReader | None = None
        self._body: list[bytes] = []

    @property
    def partial_body(self) -> bytes:
        """What has come of the body of a message that is not whole."""
        return b"".join(self._body)

    @property
    def unfinished(self) -> Message | None:
        """The message whose body is on its way."""
        if self._reader is None or self._head is None:
            return None
        return Message(self._head, self._block, self.partial_body, raw=bytes(self._raw))

    def receive(self, data: bytes) -> None:
        """Take the next bytes; nothing happens once the stream stands still."""
        try:
            while data and self.stands in (READY, WAITS):
                count = len(self.messages)
                rest = self._receive_body(data) if self._reader is not None else self._receive_head(data)
                self._raw += data[: len(data) - len(rest)]
                if len(self.messages) > count:
                    self.messages[-1].raw = bytes(self._raw)
                    self._raw.clear()
                data = rest
        except ProxyError as error:
            self.stands = error.code
            self.detail = error.detail

    def close(self) -> None:
        """The peer ended the stream."""
        if self.stands == WAITS:
            if self._reader is not None and self._reader.closed():
                self._message_complete()
            else:
                self.stands = CUT

    def _receive_head(self, data: bytes) -> bytes:
        self.stands = WAITS
        self._received += data
        if not self._skip_empty_line():
            return b""
        try:
            end = head_end(self._received, self._searched)
        except FramingError as error:
            raise self._malformed(str(error)) from None
        if end < 0:
            self._check_unfinished()
            self._searched = len(self._received)
            return b""
        self._block, rest = bytes(self._received[:end]), bytes(self._received[end:])
        self._received.clear()
        self._searched = 0
        self._head = self._parse(self._block)
        self._body = []
        self._reader = self._head.framing.reader()
        if self._reader.done:
            self._message_complete()
        return rest

    def _receive_body(self, data: bytes) -> bytes:
        reader = self._reader
        assert reader is not None
        try:
            payload = reader.receive(data)
        except FramingError as error:
            raise self._malformed(str(error)) from None
        if payload:
            self._body.append(payload)
            self._check_body()
        if reader.done:
            rest = reader.excess
            self._message_complete()
            return rest
        return b""

    def _message_complete(self) -> None:
        assert self._head is not None and self._reader is not None
        self.messages.append(Message(self._head, self._block, self.partial_body, self._reader.trailers))
        self._body = []
        self._reader = None
        self.stands = self._after(self._head)

    def _skip_empty_line(self) -> bool:
        return True

    def _check_body(self) -> None:
        pass

    def _check_unfinished(self) -> None:
        raise NotImplementedError

    def _parse(self, block: bytes) -> RequestHead | ResponseHead:
        raise NotImplementedError

    def _after(self, head: RequestHead | ResponseHead) -> str:
        raise NotImplementedError

    def _malformed(self, detail: str) -> ProxyError:
        raise NotImplementedError


class RequestStream(_Stream):
    """Requests as a client sends them; an upgrade is never granted here."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.limits = limits
        self._body_bytes = 0
        self._empty_line_skipped = False

    def _skip_empty_line(self) -> bool:
        # One empty line in front of a request is ignored (RFC 9112 §2.2).
        if not self._empty_line_skipped and b"\r\n".startswith(self._received[:2]):
            if len(self._received) < 2:
                self._searched = 0
                return False
            del self._received[:2]
            self._empty_line_skipped = True
            if not self._received:
                self.stands = READY
                return False
        return True

    def _check_unfinished(self) -> None:
        check_unfinished_request_head(self._received, self._searched, self.limits)

    def _parse(self, block: bytes) -> RequestHead:
        head = parse_request_head(block, self.limits)
        self._empty_line_skipped = False
        self._body_bytes = 0
        if head.framing.length > self.limits.body_bytes:
            raise BodyTooLarge()
        return head

    def _check_body(self) -> None:
        self._body_bytes += len(self._body[-1])
        if self._body_bytes > self.limits.body_bytes:
            raise BodyTooLarge()

    def _after(self, head: RequestHead | ResponseHead) -> str:
        return READY if head.keep_alive else CLOSES

    def _malformed(self, detail: str) -> ProxyError:
        return BadRequest(detail)


class ResponseStream(_Stream):
    """Responses to requests of the given methods, in order."""

    def __init__(self, methods: Sequence[bytes] = (b"GET",)) -> None:
        super().__init__()
        self._methods = list(methods)

    def _receive_head(self, data: bytes) -> bytes:
        if not self._methods:
            self.stands = UNASKED
            return b""
        return super()._receive_head(data)

    def _check_unfinished(self) -> None:
        if len(self._received) > MAX_RESPONSE_HEAD_BYTES:
            raise BadResponse("the backend sent a response head that is too large")

    def _parse(self, block: bytes) -> ResponseHead:
        return parse_response_head(block, self._methods[0])

    def _after(self, head: RequestHead | ResponseHead) -> str:
        assert isinstance(head, ResponseHead)
        if head.status == 101:
            return SWITCHED
        if head.status < 200:
            return WAITS
        self._methods.pop(0)
        return READY if head.keep_alive else CLOSES

    def _malformed(self, detail: str) -> ProxyError:
        return BadResponse(detail)


_AnyStream = TypeVar("_AnyStream", bound=_Stream)


def fed(stream: _AnyStream, parts: Iterable[bytes]) -> _AnyStream:
    """*stream*, with *parts* received."""
    for part in parts:
        stream.receive(part)
    return stream


def single_bytes(data: bytes) -> list[bytes]:
    """*data* cut everywhere."""
    return [data[index : index + 1] for index in range(len(data))]


def cuts(data: bytes, randomness: random.Random) -> Iterator[list[bytes]]:
    """*data* whole, in single bytes, and cut at random places."""
    yield [data]
    yield single_bytes(data)
    for most in (2, 5, 40):
        places = sorted(randomness.randrange(len(data) + 1) for _ in range(most))
        yield [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
