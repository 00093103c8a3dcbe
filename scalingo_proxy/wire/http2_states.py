"""The state of one HTTP/2 stream, and the windows of both directions (RFC 9113 §5.1, §5.2).

Knows neither frames nor what the streams carry.
"""

from __future__ import annotations

import enum
from collections import OrderedDict

from scalingo_proxy.wire.http2_frames import ErrorCode, HTTP2Error

__all__ = [
    "CONNECTION_WINDOW",
    "MAX_WINDOW",
    "STREAM_WINDOW",
    "ClosedStreams",
    "Closing",
    "InWindow",
    "StreamState",
]

#: The largest window there is (RFC 9113 §6.9.1).
MAX_WINDOW = 2**31 - 1

#: Bytes of uploads that one client may have under way: of a stream, and of all together.
STREAM_WINDOW = 65535
CONNECTION_WINDOW = 1024 * 1024

#: So many closed streams are remembered, to tell frames that were on their way from mistakes.
_MAX_CLOSED_STREAMS = 1024


class Closing(enum.Enum):
    """How a stream was closed, which decides what a frame that comes later is."""

    BY_END = "end"
    BY_THEIR_RESET = "their reset"
    BY_OUR_RESET = "our reset"


class InWindow:
    """What the other side may still send, and what is to be given back.

    :ivar left: bytes that may come.
    """

    __slots__ = ("_most", "_taken", "left")

    def __init__(self, size: int) -> None:
        self.left = self._most = size
        self._taken = 0

    def consume(self, count: int) -> None:
        """So many bytes came.

        :raises HTTP2Error: when there was no room for them.
        """
        self.left -= count
        if self.left < 0:
            raise HTTP2Error("more data than the window admits", ErrorCode.FLOW_CONTROL_ERROR)

    def give_back(self, count: int) -> int:
        """So many bytes were dealt with; by how much to open the window now, 0: later.

        It is opened by halves, so that small frames do not cost one
        WINDOW_UPDATE each; one that is shut by what is little.
        """
        self._taken += count
        taken, most = self._taken, self._most
        if taken >= most // 2 or (not self.left and taken > min(1024, most // 4)):
            self._taken = 0
            opened = min(taken, most - self.left)
            self.left += opened
            return opened
        return 0


class StreamState:
    """One stream that a client began, while it is not closed.

    :ivar id: its number.
    :ivar receives: the client may still send; else it is half-closed (remote).
    :ivar sends: we may still send; else it is half-closed (local).
    :ivar has_answered: the final response's head was sent.
    :ivar out_window: bytes of payload that the client takes; SETTINGS can make it negative.
    """

    __slots__ = ("has_answered", "has_trailers", "id", "in_window", "out_window", "receives", "sends")

    def __init__(self, stream_id: int, receives: bool, out_window: int) -> None:
        self.id = stream_id
        self.receives = receives
        self.sends = True
        self.has_answered = self.has_trailers = False
        self.out_window = out_window
        #: Made when something comes: most requests have no body.
        self.in_window: InWindow | None = None


class ClosedStreams:
    """The last streams that were closed."""

    __slots__ = ("_how",)

    def __init__(self) -> None:
        self._how: OrderedDict[int, Closing] = OrderedDict()

    def add(self, stream_id: int, how: Closing) -> None:
        """Remember this one."""
        self._how[stream_id] = how
        if len(self._how) > _MAX_CLOSED_STREAMS:
            self._how.popitem(last=False)

    def how(self, stream_id: int) -> Closing | None:
        """How it was closed; None: it never was open, or that is long ago."""
        return self._how.get(stream_id)
