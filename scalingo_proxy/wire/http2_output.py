"""What a server sends over HTTP/2: frames of responses, within windows, collected for one write.

Knows how a stream changes by what is sent on it.  What is received, and whose
turn it is to send, is the business of others.
"""

from __future__ import annotations

import struct

from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http2_compression import LeanEncoder
from scalingo_proxy.wire.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME_BYTES,
    RST_STREAM,
    WINDOW_UPDATE,
    ErrorCode,
    HTTP2Error,
    frame_bytes,
)
from scalingo_proxy.wire.http2_states import (
    CONNECTION_WINDOW,
    STREAM_WINDOW,
    ClosedStreams,
    Closing,
    InWindow,
    StreamState,
)

__all__ = ["HTTP2Output"]

_HEADER = struct.Struct(">HBBBL")
_ERROR = struct.Struct(">HBBBLL")
_GOAWAY = struct.Struct(">LL")

#: The largest number that a stream can have.
_LAST_STREAM_ID = 2**31 - 1


class HTTP2Output:
    """The sending half of a server's connection.

    :ivar streams: those that are not closed, by number.
    :ivar unsent_bytes: how much is prepared for sending.
    :ivar out_window: bytes of payload that the client takes on all streams together.
    :ivar resets_sent: how many RST_STREAM frames we sent.
    """

    def __init__(self) -> None:
        self.streams: dict[int, StreamState] = {}
        self.encoder = LeanEncoder()
        self.out_window = STREAM_WINDOW
        self.unsent_bytes = 0
        self.resets_sent = 0
        self._in_window = InWindow(CONNECTION_WINDOW)
        self._closed = ClosedStreams()
        self._max_frame_bytes = MAX_FRAME_BYTES
        self._highest_id = 0
        self._parts: list[bytes] = []

    def data_to_send(self) -> bytes:
        """What was prepared since the last call."""
        parts, self._parts = self._parts, []
        self.unsent_bytes = 0
        return b"".join(parts)

    def _prepare(self, frame: bytes) -> None:
        self._parts.append(frame)
        self.unsent_bytes += len(frame)

    # -- of a response -------------------------------------------------------

    def send_headers(self, stream: StreamState, fields: Fields, end_stream: bool) -> None:
        """Prepare a header list: an interim or the final head of a response, or its trailers.

        :raises HTTP2Error: when the stream can have none (RFC 9113 §8.1), which is a bug of ours.
        """
        if not stream.sends or (stream.has_answered and not end_stream):
            raise HTTP2Error("a head where none can be", ErrorCode.INTERNAL_ERROR)
        if end_stream or fields[0][1][:1] != b"1":
            stream.has_answered = True
        self._send_block(stream, self.encoder.encode(fields), end_stream)

    def _send_block(self, stream: StreamState, block: bytes, end_stream: bool) -> None:
        length = len(block)
        flags = END_STREAM if end_stream else 0
        if length <= self._max_frame_bytes:
            self._parts += (
                _HEADER.pack(length >> 8, length & 0xFF, HEADERS, flags | END_HEADERS, stream.id),
                block,
            )
            self.unsent_bytes += length + 9
        else:
            self._prepare_large(stream.id, flags, block)
        if end_stream:
            self._end_sent(stream)

    def _prepare_large(self, stream_id: int, flags: int, block: bytes) -> None:
        """A header block in several frames (RFC 9113 §6.10)."""
        size, kind = self._max_frame_bytes, HEADERS
        for at in range(0, len(block), size):
            if at + size >= len(block):
                flags |= END_HEADERS
            self._prepare(frame_bytes(kind, flags, stream_id, block[at : at + size]))
            kind, flags = CONTINUATION, 0

    def send_whole(self, stream: StreamState, block: bytes, payload: bytes) -> None:
        """Prepare a whole response; for *payload* the same holds as for :meth:`send_payload`.

        :param block: the final head, encoded since the last one was sent.
        :raises HTTP2Error: when the stream can have none, which is a bug of ours.
        """
        if not stream.sends or stream.has_answered:
            raise HTTP2Error("a response where none can be", ErrorCode.INTERNAL_ERROR)
        stream.has_answered = True
        self._send_block(stream, block, not payload)
        if payload:
            self.send_payload(stream, payload, True)

    def send_payload(self, stream: StreamState, payload: bytes, end_stream: bool) -> None:
        """Prepare one DATA frame.

        :param payload: what the windows admit, in a frame of a size that every
            peer must take; it may be empty.
        :raises HTTP2Error: when the stream can have none, which is a bug of ours.
        """
        if not stream.sends:
            raise HTTP2Error("a payload where none can be", ErrorCode.INTERNAL_ERROR)
        length = len(payload)
        stream.out_window -= length
        self.out_window -= length
        flags = END_STREAM if end_stream else 0
        self._parts += (_HEADER.pack(length >> 8, length & 0xFF, DATA, flags, stream.id), payload)
        self.unsent_bytes += length + 9
        if end_stream:
            self._end_sent(stream)

    def _end_sent(self, stream: StreamState) -> None:
        stream.sends = False
        if not stream.receives:
            self._close(stream, Closing.BY_END)

    def _close(self, stream: StreamState, how: Closing) -> None:
        stream.receives = stream.sends = False
        del self.streams[stream.id]
        self._closed.add(stream.id, how)

    # -- of control ----------------------------------------------------------

    def reset_stream(self, stream: StreamState, error_code: ErrorCode) -> None:
        """Prepare RST_STREAM, unless the stream is closed already."""
        if stream.receives or stream.sends:
            self._close(stream, Closing.BY_OUR_RESET)
            self._prepare_reset(stream.id, error_code)

    def _prepare_reset(self, stream_id: int, error_code: ErrorCode) -> None:
        self._prepare(_ERROR.pack(0, 4, RST_STREAM, 0, stream_id, error_code))
        self.resets_sent += 1

    def give_back(self, stream: StreamState | None, count: int) -> None:
        """Let the client send so many bytes more, now or a little later.

        :param stream: where they came; None: it is closed.
        """
        opened = self._in_window.give_back(count)
        if opened:
            self._prepare(_ERROR.pack(0, 4, WINDOW_UPDATE, 0, 0, opened))
        if stream is not None and stream.receives and stream.in_window is not None:
            opened = stream.in_window.give_back(count)
            if opened:
                self._prepare(_ERROR.pack(0, 4, WINDOW_UPDATE, 0, stream.id, opened))

    def give_up(self, error_code: ErrorCode) -> None:
        """Prepare the last GOAWAY."""
        self._prepare_goaway(self._highest_id, error_code)

    def say_goodbye(self) -> None:
        """Prepare a GOAWAY that lets the streams under way finish (RFC 9113 §6.8)."""
        self._prepare_goaway(self._highest_id, ErrorCode.NO_ERROR)

    def announce_goodbye(self) -> None:
        """Prepare a GOAWAY that refuses nothing yet: the client is to begin no further streams."""
        self._prepare_goaway(_LAST_STREAM_ID, ErrorCode.NO_ERROR)

    def _prepare_goaway(self, last_stream_id: int, error_code: ErrorCode) -> None:
        self._prepare(frame_bytes(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, error_code)))
