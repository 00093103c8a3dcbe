"""The writing half of an HTTP/2 connection: whose turn it is, and when bytes go out.

Streams that have something to send stand in line; each sends one frame and
goes to the end of it.  A stream whose window is shut waits aside, and while
the transport takes nothing, all do.  Knows nothing of what they send.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.protocol import Protocol

from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.http2_responder import HTTP2Responder
from scalingo_proxy.protocols.http2_stream import HTTP2Stream
from scalingo_proxy.wire.http2_connection import HTTP2Connection
from scalingo_proxy.wire.http2_frames import ErrorCode
from scalingo_proxy.wire.http2_limits import (
    MAX_UNREAD_CONTROL_BYTES,
    SMALL_WINDOW_BYTES,
    FloodLimits,
    Kind,
)
from scalingo_proxy.wire.http2_states import StreamState

__all__ = ["HTTP2Sender"]

#: Bytes of a response that may wait on one stream before its backend is paused.
_HIGH_WATER_BYTES = 65536

#: Bytes that may wait on all streams before each new piece pauses its backend.
_CONNECTION_HIGH_WATER_BYTES = 1024 * 1024

#: Frames are collected up to this before the transport gets them, and can object.
_WRITE_BYTES = 65536


class HTTP2Sender(Protocol, Timed):
    """Lets streams send by turns.

    :param head_bytes: how large a request's header list may be.
    :ivar connection: frames, compression and windows.
    :ivar pending: bytes of responses that wait on all streams together.
    :ivar is_paused: the transport takes no more for now.
    """

    transport: Any
    env: Environment

    def __init__(self, head_bytes: int) -> None:
        self.connection = HTTP2Connection(head_bytes)
        self.pending = 0
        self.is_paused = False
        self._streams: dict[int, HTTP2Stream] = {}
        self._ready: deque[HTTP2Responder] = deque()
        self._parked: dict[int, HTTP2Responder] = {}
        self._floods = FloodLimits()
        self._busy = False
        self._closed = False
        self._unread_bytes = 0
        self._work_call: Any = None

    def _stopped_reading(self) -> None:
        """The client does not read what it makes us say."""
        raise NotImplementedError

    # -- IPushProducer: our transport asks us to stop filling it -------------

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self._unread_bytes = 0
        self._work()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""

    # -- asked by the streams ------------------------------------------------

    @property
    def high_water(self) -> int:
        """How many bytes of a response may wait on one stream before its backend is paused."""
        if self.is_paused or self.pending > _CONNECTION_HIGH_WATER_BYTES:
            return 0
        return _HIGH_WATER_BYTES

    def give_back(self, count: int, stream: StreamState | None) -> None:
        """Let the client send so many bytes more."""
        if not self._closed and count:
            self.connection.give_back(stream, count)
            self._flush_soon()

    def reset(self, stream: StreamState, error_code: ErrorCode) -> None:
        """Send RST_STREAM, unless the stream is closed already."""
        if not self._closed:
            self.connection.reset_stream(stream, error_code)
            self._flush_soon()

    def sent_freely(self, count: int) -> None:
        """A DATA frame went out that no window had cut: small ones may be acknowledged one by one."""
        if count < SMALL_WINDOW_BYTES:
            self._floods.allow(Kind.SMALL_WINDOW, 2)

    def sent_whole(self, stream: StreamState, size: int) -> None:
        """A response was prepared without a turn of its own; it goes out when this turn is over."""
        if size and stream.out_window and self.connection.out_window:
            self.sent_freely(size)
        self._work_soon()

    # -- whose turn it is to send --------------------------------------------

    def has_room(self, stream: StreamState, size: int) -> bool:
        """Whether so many bytes may go out on *stream* before anything else."""
        connection = self.connection
        return (
            not self._ready
            and not self.is_paused
            and size <= stream.out_window
            and size <= connection.out_window
            and connection.unsent_bytes <= _WRITE_BYTES
        )

    def wake(self, stream: HTTP2Responder) -> None:
        """*stream* has something to send."""
        if not stream.is_ready:
            stream.is_ready = True
            self._ready.append(stream)
        self._work_soon()

    def _work_soon(self) -> None:
        """When this turn of the reactor is over: answers that come together go out together.

        In one record of TLS and one system call, that is.
        """
        if not self._busy and self._work_call is None:
            self._work_call = self.env.reactor.callLater(0, self._work_called)

    def _work_called(self) -> None:
        self._work_call = None
        self._work()

    def _forget_work(self) -> None:
        """Nothing is sent any more."""
        call, self._work_call = self._work_call, None
        if call is not None:
            call.cancel()

    def _flush_soon(self) -> None:
        if not self._busy:
            self._work()

    def _work(self) -> None:
        """Let the streams send, and write it all at once."""
        if self._busy or self._closed:
            return
        self._busy = True
        try:
            while True:
                self._take_turns()
                self._flush()
                if not (self._ready or self.connection.unsent_bytes) or self.is_paused or self._closed:
                    break  # else the transport took it all, and wants more, already
        finally:
            self._busy = False

    def _take_turns(self) -> None:
        ready = self._ready
        while ready and not self.is_paused and not self._closed:
            stream = ready.popleft()
            stream.is_ready = False
            if stream.id not in self._streams:
                continue
            try:
                has_more = stream.send_turn()
            except Exception:
                stream.reset(ErrorCode.INTERNAL_ERROR)  # nobody knows how much of it went out
                stream.broke()
                continue
            if has_more:
                if not stream.is_ready:
                    stream.is_ready = True
                    ready.append(stream)
            elif stream.out.size:
                self._parked[stream.id] = stream
            if self.connection.unsent_bytes > _WRITE_BYTES:
                self._flush()

    def _flush(self) -> None:
        data = self.connection.data_to_send()
        if not data or self._closed:
            return
        if self.is_paused:
            # Streams are silent now: these are answers to control frames.
            self._unread_bytes += len(data)
            if self._unread_bytes > MAX_UNREAD_CONTROL_BYTES:
                self._stopped_reading()
                return
        self.transport.write(data)

    def _unpark_all(self) -> None:
        """The window of the connection, or those of all streams, have grown."""
        parked, self._parked = self._parked, {}
        for stream in parked.values():
            self.wake(stream)
