"""Where the frames of a WebSocket end, seen from outside (RFC 6455 §5.2).

Follows the lengths in the heads of frames and looks at nothing else: not at
payloads, not at fragments of messages, not at extensions, none of which move
a boundary.  Between two frames a control frame may be put, even in the middle
of a fragmented message (§5.4).
"""

from __future__ import annotations

__all__ = ["SERVICE_RESTART", "FrameBoundaries", "close_frame"]

#: The status code "Service Restart": try again, perhaps a little later
#: (IANA WebSocket Close Code Number Registry).
SERVICE_RESTART = 1012

_CLOSE = 0x8


def close_frame(code: int, reason: str) -> bytes:
    """An unmasked close frame, as only servers may send it.

    :param reason: at most 123 bytes as UTF-8.
    """
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes((0x80 | _CLOSE, len(payload))) + payload


class FrameBoundaries:
    """Knows after any byte of one direction whether it was the last of a frame.

    :ivar has_closed: the head of a close frame was seen: no frame follows it.
    """

    __slots__ = ("_head", "_left", "has_closed")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.has_closed = False

    @property
    def is_between_frames(self) -> bool:
        """Whether the last byte was the end of a frame, or none has come yet."""
        return not (self._left or self._head)

    def receive(self, data: bytes) -> None:
        """Follow *data*, of any size."""
        left = self._left
        if left >= len(data):  # within a payload: the usual case for large ones
            self._left = left - len(data)
        else:
            self._follow(data, to_boundary=False)

    def receive_to_boundary(self, data: bytes) -> int:
        """Follow *data* to the end of the frame that it goes on with, or to its own end.

        :return: how many bytes were followed; the rest is still to be.
        """
        return 0 if self.is_between_frames else self._follow(data, to_boundary=True)

    def _follow(self, data: bytes, to_boundary: bool) -> int:
        held = len(self._head)
        if held:
            data = self._head + data
            self._head = b""
        end = len(data)
        at = self._left
        while at < end and not (to_boundary and (at or not held)):
            if end - at < 2:
                size = 0
            else:
                second = data[at + 1]
                size = 2 + (second & 127) if second & 127 < 126 else _long_size(data, at, end)
            if not size:
                self._head = data[at:]
                self._left = 0
                return end - held
            if second & 128:
                size += 4  # the masking key
            if data[at] & 15 == _CLOSE:
                self.has_closed = True
            at += size
        self._left = max(at - end, 0)
        return min(at, end) - held


def _long_size(data: bytes, at: int, end: int) -> int:
    """Head and payload of a frame that says its length behind its first two bytes; 0: not yet."""
    begin = at + 2
    behind = begin + (2 if data[at + 1] & 127 == 126 else 8)
    return behind - at + int.from_bytes(data[begin:behind], "big") if behind <= end else 0
