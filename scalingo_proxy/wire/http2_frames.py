"""Frames out of bytes (RFC 9113 §4), with every length checked before it is waited for.

Knows frames and header blocks, no streams and no windows.
"""

from __future__ import annotations

import enum
import struct

from scalingo_proxy.errors import ScalingoProxyError

__all__ = [
    "MAX_CONTINUATIONS",
    "MAX_HEADER_BLOCK_BYTES",
    "PREFACE",
    "ErrorCode",
    "FrameReader",
    "HTTP2Error",
    "frame_bytes",
    "without_padding",
]

#: What a client sends first (RFC 9113 §3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: The largest frame we take, which is the least that may be announced.
MAX_FRAME_BYTES = 16384

#: CONTINUATION frames in one header block (VU#421644), and bytes, still compressed.
MAX_CONTINUATIONS = 16
MAX_HEADER_BLOCK_BYTES = 65536

# Types (RFC 9113 §6); plain numbers, because they are compared for every frame.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

# Flags.
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

_HEADER = struct.Struct(">HBBBL")
_HEADER_BYTES = _HEADER.size
_PRIORITY_BYTES = 5


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends (RFC 9113 §7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class HTTP2Error(ScalingoProxyError):
    """A connection error (RFC 9113 §5.4.1); the text says what is wrong.

    :ivar code: what the client is told.
    """

    def __init__(self, text: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


#: Type, flags, stream, payload.
Frame = tuple[int, int, int, bytes]


class FrameReader:
    """Takes bytes as they come and gives whole frames; a header block is one HEADERS frame."""

    __slots__ = ("_at", "_block", "_block_bytes", "_block_flags", "_block_stream", "_data", "_preface_read")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._preface_read = False
        self._block: list[bytes] = []
        self._block_bytes = self._block_flags = self._block_stream = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether nothing is left of a frame or a header block that is not complete."""
        return self._at == len(self._data) and not self._block

    def add_data(self, data: bytes) -> None:
        """Take what was received.

        :raises HTTP2Error: when it does not begin as it must.
        """
        if self._at < len(self._data):
            data = self._data[self._at :] + data
        self._data, self._at = data, 0
        if not self._preface_read:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise HTTP2Error("the connection does not begin with the preface of HTTP/2")
            if len(data) >= len(PREFACE):
                self._preface_read = True
                self._at = len(PREFACE)

    def next_frame(self) -> Frame | None:
        """The next whole frame; None: need more.

        The payload of HEADERS is a whole header block, without padding and priority.

        :raises HTTP2Error: with the error code of what is wrong.
        """
        data = self._data
        while self._preface_read:
            begin = self._at + _HEADER_BYTES
            if begin > len(data):
                break
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, self._at)
            length = high << 8 | low
            if length > MAX_FRAME_BYTES:
                raise HTTP2Error(f"a frame of {length} bytes", ErrorCode.FRAME_SIZE_ERROR)
            if begin + length > len(data):
                break
            self._at = begin + length
            payload = data[begin : begin + length]
            stream_id &= 0x7FFFFFFF
            if kind == HEADERS and not self._block:
                if not stream_id:
                    raise HTTP2Error("HEADERS on stream 0")
                if flags & (PADDED | HAS_PRIORITY):
                    payload = _fragment(flags, stream_id, payload)
                if flags & END_HEADERS:
                    return kind, flags, stream_id, payload
                self._block.append(payload)
                self._block_bytes, self._block_flags, self._block_stream = length, flags, stream_id
            elif self._block:
                if kind != CONTINUATION or stream_id != self._block_stream:
                    raise HTTP2Error("a header block is not complete")
                self._continue_block(payload)
                if flags & END_HEADERS:
                    whole = b"".join(self._block)
                    self._block.clear()
                    return HEADERS, self._block_flags, stream_id, whole
            else:
                return kind, flags, stream_id, payload
        if self._at == len(data):
            self._data, self._at = b"", 0  # a large piece is not kept for nothing
        return None

    def _continue_block(self, payload: bytes) -> None:
        """Collect a header block, which nothing may come in between (RFC 9113 §6.10)."""
        self._block.append(payload)
        self._block_bytes += len(payload)
        if len(self._block) - 1 > MAX_CONTINUATIONS or self._block_bytes > MAX_HEADER_BLOCK_BYTES:
            raise HTTP2Error("a header block does not end", ErrorCode.ENHANCE_YOUR_CALM)


def without_padding(payload: bytes) -> bytes:
    """The payload of a frame with the flag PADDED, less its padding (RFC 9113 §6.1, §6.2).

    :raises HTTP2Error: when it is not as long as it says.
    """
    if not payload:
        raise HTTP2Error("a padded frame without the length of its padding", ErrorCode.FRAME_SIZE_ERROR)
    end = len(payload) - payload[0]
    if end < 1:
        raise HTTP2Error("the padding is longer than its frame")
    return payload[1:end]


def _fragment(flags: int, stream_id: int, payload: bytes) -> bytes:
    """What HEADERS carries of a header block (RFC 9113 §6.2).

    Priorities are left to those who schedule by them; a stream that depends on
    itself is refused all the same (RFC 7540 §5.3.1).
    """
    if flags & HAS_PRIORITY and len(payload) < _PRIORITY_BYTES + bool(flags & PADDED):
        raise HTTP2Error("HEADERS too short for its priority", ErrorCode.FRAME_SIZE_ERROR)
    if flags & PADDED:
        payload = without_padding(payload)
    if flags & HAS_PRIORITY:
        if len(payload) < _PRIORITY_BYTES:
            raise HTTP2Error("the padding is longer than its frame")
        check_priority(payload, stream_id)
        payload = payload[_PRIORITY_BYTES:]
    return payload


def check_priority(payload: bytes, stream_id: int) -> None:
    """Refuse a stream that depends on itself.

    :raises HTTP2Error: if it does.
    """
    if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == stream_id:
        raise HTTP2Error("a stream depends on itself")


def frame_bytes(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """A frame as it is sent."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload
