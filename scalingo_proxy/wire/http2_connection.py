"""The server's side of one HTTP/2 connection: frames in, their meaning out (RFC 9113 §5, §6).

A stream's mistake costs that stream alone wherever that is allowed, and nothing
that a peer may send is kept without a bound.  Knows no requests, no transports
and no time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from scalingo_proxy.wire.http2_compression import TABLE_BYTES, LeanDecoder
from scalingo_proxy.wire.http2_events import (
    NOTHING,
    ClientLeaves,
    DataReceived,
    Event,
    RequestReceived,
    SettingsChanged,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from scalingo_proxy.wire.http2_frames import (
    ACK,
    END_STREAM,
    MAX_FRAME_BYTES,
    PADDED,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    FrameReader,
    HTTP2Error,
    check_priority,
    frame_bytes,
    without_padding,
)
from scalingo_proxy.wire.http2_limits import SMALL_DATA_BYTES, SMALL_WINDOW_BYTES, Kind
from scalingo_proxy.wire.http2_output import HTTP2Output
from scalingo_proxy.wire.http2_states import (
    CONNECTION_WINDOW,
    MAX_WINDOW,
    STREAM_WINDOW,
    Closing,
    InWindow,
    StreamState,
)

__all__ = ["MAX_STREAMS", "HTTP2Connection"]

#: Streams a client may have open at once; the edge advice of Envoy and others.
MAX_STREAMS = 100

_SETTING = struct.Struct(">HL")
_NUMBER = struct.Struct(">L")

# Settings (RFC 9113 §6.5.2, RFC 8441 §3).
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_CONCURRENT_STREAMS = 1, 2, 3
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE, _MAX_HEADER_LIST_SIZE, _ENABLE_CONNECT_PROTOCOL = 4, 5, 6, 8


class HTTP2Connection(HTTP2Output):
    """What is received and what is sent on one connection.

    :param head_bytes: how large a request's header list may be; of twice as
        much the connection dies (CVE-2016-6581), in between it is for others to say.
    :ivar kind: what the frame that came last counts as; None: it is not one that comes for nothing.
    """

    def __init__(self, head_bytes: int) -> None:
        super().__init__()
        self.kind: Kind | None = None
        self.frames = FrameReader()
        self._head_bytes = head_bytes
        self._decoder = LeanDecoder(2 * head_bytes)
        self._settings_read = False
        self._first_window = STREAM_WINDOW

    def begin(self) -> None:
        """Prepare what a server sends first."""
        settings = (
            (_HEADER_TABLE_SIZE, TABLE_BYTES),
            (_ENABLE_PUSH, 0),
            (_INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (_MAX_FRAME_SIZE, MAX_FRAME_BYTES),
            (_ENABLE_CONNECT_PROTOCOL, 1),
            (_MAX_CONCURRENT_STREAMS, MAX_STREAMS),
            (_MAX_HEADER_LIST_SIZE, self._head_bytes),
        )
        self._prepare(frame_bytes(SETTINGS, 0, 0, b"".join([_SETTING.pack(*each) for each in settings])))
        self._prepare(frame_bytes(WINDOW_UPDATE, 0, 0, _NUMBER.pack(CONNECTION_WINDOW - STREAM_WINDOW)))

    def next_event(self) -> Event | None:
        """What the next whole frame means; None: need more.

        :raises HTTP2Error: when the connection cannot go on; the GOAWAY that
            says so is for the caller to prepare.
        """
        frame = self.frames.next_frame()
        if frame is None:
            return None
        kind, flags, stream_id, payload = frame
        if not self._settings_read:
            if kind != SETTINGS or flags & ACK:
                raise HTTP2Error("the preface is not followed by SETTINGS")
            self._settings_read = True
        self.kind = None
        if kind >= len(_HANDLERS):
            self.kind = Kind.PRIORITY  # an extension that we do not speak (RFC 9113 §5.5)
            return NOTHING
        return _HANDLERS[kind](self, flags, stream_id, payload)

    # -- streams -------------------------------------------------------------

    def _is_idle(self, stream_id: int) -> bool:
        """Whether no such stream was ever begun; stream 0 and a server's never are."""
        return stream_id > self._highest_id or not stream_id & 1

    def _headers(self, flags: int, stream_id: int, block: bytes) -> Event:
        fields = self._decoder.decode(block)  # whatever becomes of it: the table is shared by all streams
        ended = bool(flags & END_STREAM)
        if stream_id > self._highest_id:
            if not stream_id & 1:
                raise HTTP2Error("a client's streams have odd numbers")
            self._highest_id = stream_id
            self.streams[stream_id] = stream = StreamState(stream_id, not ended, self._first_window)
            return RequestReceived(stream, fields, ended)
        known = self.streams.get(stream_id)
        if known is None:
            return self._headers_too_late(stream_id)
        if not known.receives:
            return self._mistake(known, ErrorCode.STREAM_CLOSED)
        if known.has_trailers:
            raise HTTP2Error("trailers stand where none can be")
        known.has_trailers = True
        if ended:
            self._end_received(known)
        return TrailersReceived(stream_id, fields, ended)

    def _headers_too_late(self, stream_id: int) -> Event:
        how = self._closed.how(stream_id)
        if how is None:
            raise HTTP2Error("a stream's number goes back")  # RFC 9113 §5.1.1
        if how is Closing.BY_END:
            raise HTTP2Error("HEADERS on a closed stream", ErrorCode.STREAM_CLOSED)
        if how is Closing.BY_THEIR_RESET:
            self._prepare_reset(stream_id, ErrorCode.STREAM_CLOSED)
        return NOTHING  # else the client cannot have known that it was reset (RFC 9113 §5.1)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> Event:
        length = len(payload)
        if flags & PADDED:
            payload = without_padding(payload)
        if not flags & END_STREAM and len(payload) < SMALL_DATA_BYTES:
            self.kind = Kind.SMALL_DATA if payload else Kind.EMPTY_DATA
        stream = self.streams.get(stream_id)
        if stream is None and self._is_idle(stream_id):
            raise HTTP2Error("DATA on a stream that was not begun")
        self._in_window.consume(length)
        if stream is None:
            self.give_back(None, length)
            if self._closed.how(stream_id) is not Closing.BY_OUR_RESET:
                self._prepare_reset(stream_id, ErrorCode.STREAM_CLOSED)
            return NOTHING
        if not stream.receives:
            self.give_back(None, length)
            return self._mistake(stream, ErrorCode.STREAM_CLOSED)
        if stream.in_window is None:
            stream.in_window = InWindow(STREAM_WINDOW)
        stream.in_window.consume(length)
        ended = bool(flags & END_STREAM)
        if ended:
            self._end_received(stream)
        return DataReceived(stream_id, payload, length, ended)

    def _end_received(self, stream: StreamState) -> None:
        stream.receives = False
        if not stream.sends:
            self._close(stream, Closing.BY_END)

    def _mistake(self, stream: StreamState, error_code: ErrorCode) -> StreamReset:
        """A stream error (RFC 9113 §5.4.2)."""
        self.reset_stream(stream, error_code)
        return StreamReset(stream.id, by_client=False)

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> Event:
        self.kind = Kind.RESET
        _check_length("RST_STREAM", payload, 4)
        if self._is_idle(stream_id):
            raise HTTP2Error("RST_STREAM for a stream that was not begun")
        stream = self.streams.get(stream_id)
        if stream is None:
            return NOTHING
        self._close(stream, Closing.BY_THEIR_RESET)
        return StreamReset(stream_id, by_client=True)

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> Event:
        _check_length("WINDOW_UPDATE", payload, 4)
        increment = _NUMBER.unpack(payload)[0] & MAX_WINDOW
        if increment < SMALL_WINDOW_BYTES:
            self.kind = Kind.SMALL_WINDOW
        if not stream_id:
            if not increment:
                raise HTTP2Error("a window that is opened by 0")
            self.out_window += increment
            if self.out_window > MAX_WINDOW:
                raise HTTP2Error("the window is too large", ErrorCode.FLOW_CONTROL_ERROR)
            return WindowUpdated(0)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise HTTP2Error("WINDOW_UPDATE for a stream that was not begun")
            return NOTHING
        if not increment:
            return self._mistake(stream, ErrorCode.PROTOCOL_ERROR)
        if stream.out_window + increment > MAX_WINDOW:
            return self._mistake(stream, ErrorCode.FLOW_CONTROL_ERROR)
        stream.out_window += increment
        return WindowUpdated(stream_id)

    # -- the connection ------------------------------------------------------

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> Event:
        self.kind = Kind.SETTINGS
        if stream_id:
            raise HTTP2Error("SETTINGS on a stream")
        if len(payload) % _SETTING.size or (flags & ACK and payload):
            raise HTTP2Error("SETTINGS of a wrong length", ErrorCode.FRAME_SIZE_ERROR)
        if flags & ACK:
            return NOTHING
        for code, value in _SETTING.iter_unpack(payload):
            self._set(code, value)
        self._prepare(frame_bytes(SETTINGS, ACK, 0, b""))
        return SettingsChanged()

    def _set(self, code: int, value: int) -> None:
        """Heed one setting; those that mean nothing to us are not kept."""
        if code == _HEADER_TABLE_SIZE:
            self.encoder.resize(value)
        elif code == _INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise HTTP2Error("INITIAL_WINDOW_SIZE is too large", ErrorCode.FLOW_CONTROL_ERROR)
            more, self._first_window = value - self._first_window, value
            for stream in self.streams.values():
                stream.out_window += more  # RFC 9113 §6.9.2
                if stream.out_window > MAX_WINDOW:
                    raise HTTP2Error("a window is too large", ErrorCode.FLOW_CONTROL_ERROR)
        elif code == _MAX_FRAME_SIZE:
            if not MAX_FRAME_BYTES <= value < 2**24:
                raise HTTP2Error("MAX_FRAME_SIZE is out of bounds")
            self._max_frame_bytes = value
        elif code in (_ENABLE_PUSH, _ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise HTTP2Error("a setting is neither 0 nor 1")

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> Event:
        self.kind = Kind.PRIORITY
        if not stream_id:
            raise HTTP2Error("PRIORITY on stream 0")
        _check_length("PRIORITY", payload, 5)
        check_priority(payload, stream_id)
        return NOTHING

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> Event:
        raise HTTP2Error("PUSH_PROMISE from a client")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> Event:
        self.kind = Kind.PING
        if stream_id:
            raise HTTP2Error("PING on a stream")
        _check_length("PING", payload, 8)
        if not flags & ACK:
            self._prepare(frame_bytes(PING, ACK, 0, payload))
        return NOTHING

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> Event:
        self.kind = Kind.PRIORITY
        if stream_id:
            raise HTTP2Error("GOAWAY on a stream")
        if len(payload) < 8:
            raise HTTP2Error("GOAWAY of a wrong length", ErrorCode.FRAME_SIZE_ERROR)
        # The client still waits for the responses under way (RFC 9113 §6.8).
        return ClientLeaves(is_error=any(payload[4:8]))

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> Event:
        raise HTTP2Error("a CONTINUATION that continues nothing")


def _check_length(name: str, payload: bytes, length: int) -> None:
    if len(payload) != length:
        raise HTTP2Error(f"{name} of a wrong length", ErrorCode.FRAME_SIZE_ERROR)


#: By type, in the order of RFC 9113 §6.
_HANDLERS: tuple[Callable[[HTTP2Connection, int, int, bytes], Event], ...] = (
    HTTP2Connection._data,
    HTTP2Connection._headers,
    HTTP2Connection._priority,
    HTTP2Connection._rst_stream,
    HTTP2Connection._settings,
    HTTP2Connection._push_promise,
    HTTP2Connection._ping,
    HTTP2Connection._goaway,
    HTTP2Connection._window_update,
    HTTP2Connection._continuation,
)
