"""What waits on one HTTP/2 stream: a response for its window, an upload for the backend.

Both are bounded by flow control and by whoever fills them.  Knows neither
frames nor exchanges.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from scalingo_proxy.wire.grammar import Fields

__all__ = ["Incoming", "Outgoing"]


#: No chunks yet: a deque takes 0.6 kB, and a response that goes out at once needs none.
_NONE: Any = ()


class Outgoing:
    """A response on its way to the client.

    :ivar heads: header lists still to send, interim ones included.
    :ivar size: payload bytes that wait.
    :ivar ended: nothing more will be added.
    :ivar trailers: what comes behind the payload.
    :ivar sent: payload bytes handed over so far.
    """

    __slots__ = ("_chunks", "_offset", "ended", "heads", "sent", "size", "trailers")

    def __init__(self) -> None:
        self.heads: list[Fields] = []
        self._chunks: deque[bytes] = _NONE
        self._offset = 0
        self.size = 0
        self.ended = False
        self.trailers: Fields = []
        self.sent = 0

    def add(self, payload: bytes) -> None:
        """Put *payload* behind what waits."""
        if payload:
            if self._chunks is _NONE:
                self._chunks = deque()
            self._chunks.append(payload)
            self.size += len(payload)

    def take(self, most: int) -> bytes:
        """Up to *most* of the bytes that wait, at least one if there is any."""
        chunks, offset = self._chunks, self._offset
        first = chunks[0]
        left = len(first) - offset
        if left > most:
            self._offset = offset + most
            part = first[offset : offset + most]
        elif left == self.size or left == most:
            chunks.popleft()
            self._offset = 0
            part = first[offset:] if offset else first
        else:
            part = self._join(most)
        self.size -= len(part)
        self.sent += len(part)
        return part

    def _join(self, most: int) -> bytes:
        """Several small pieces as one: a frame for each would cost more than it carries."""
        chunks, parts = self._chunks, bytearray()
        while chunks and len(parts) < most:
            first, offset = chunks[0], self._offset
            part = first[offset : offset + most - len(parts)]
            parts += part
            if offset + len(part) < len(first):
                self._offset = offset + len(part)
            else:
                chunks.popleft()
                self._offset = 0
        return bytes(parts)

    def clear(self) -> None:
        """Drop everything: nobody takes it any more."""
        self.heads.clear()
        self._chunks = _NONE
        self._offset = self.size = 0
        self.trailers = []
        self.ended = True


class Incoming:
    """A request body, or one side of a tunnel, held until it may be handed on.

    :ivar is_open: it is handed on as it comes.
    :ivar unacknowledged: flow-controlled bytes that the client has not got back.
    :ivar received: payload bytes that came so far.
    :ivar expected: how many there must be; -1: however many come.
    :ivar ended: the client has said everything.
    :ivar trailers: what came behind the payload.
    """

    __slots__ = ("_held", "ended", "expected", "is_open", "received", "trailers", "unacknowledged")

    def __init__(self, expected: int) -> None:
        self._held: list[bytes] = []
        self.is_open = False
        self.unacknowledged = 0
        self.received = 0
        self.expected = expected
        self.ended = False
        self.trailers: Fields = []

    def hold(self, payload: bytes) -> None:
        """Keep *payload* behind what is held."""
        if payload:
            self._held.append(payload)

    def take(self) -> bytes:
        """Everything that is held."""
        held = self._held
        if not held:
            return b""
        self._held = []
        return held[0] if len(held) == 1 else b"".join(held)

    @property
    def is_too_long(self) -> bool:
        """Whether more came than was announced."""
        return 0 <= self.expected < self.received

    @property
    def waits_for_end(self) -> bool:
        """Whether all came that was announced, and the client has not said that this is all."""
        return self.received == self.expected and not self.ended

    @property
    def is_too_short(self) -> bool:
        """Whether it ended before everything came that was announced."""
        return self.ended and self.received < self.expected
