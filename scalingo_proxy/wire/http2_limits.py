"""How often a peer may do what costs us more than it costs them.

Each kind of frame that can be sent for nothing has a bucket: it holds so many
at once and refills so many a second.  An empty bucket ends the connection with
ENHANCE_YOUR_CALM; other connections notice nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["MAX_UNREAD_CONTROL_BYTES", "SMALL_DATA_BYTES", "SMALL_WINDOW_BYTES", "FloodLimits", "Kind"]

#: Bytes of answers to control frames that wait for a peer that does not read.
MAX_UNREAD_CONTROL_BYTES = 65536


class Kind(enum.Enum):
    """What is counted."""

    #: RST_STREAM from the client (rapid reset, CVE-2023-44487).
    RESET = "reset"
    #: RST_STREAM that the client made us send (CVE-2025-8671).
    PROVOKED_RESET = "provoked reset"
    PING = "ping"
    SETTINGS = "settings"
    #: PRIORITY, GOAWAY, and the frames of extensions that we do not speak.
    PRIORITY = "priority"
    EMPTY_DATA = "empty data"
    #: Bodies a few bytes at a time: each frame costs as much as one of 16 kB.
    SMALL_DATA = "small data"
    #: Windows opened by a few bytes at a time, and those of closed streams.
    SMALL_WINDOW = "small window update"
    #: Responses whose windows stay shut until we give them up.
    STALLED = "window that is not opened"

    # Looked up for many frames; that of Enum is a function in Python (1 µs less for a response).
    __hash__ = object.__hash__


#: A WINDOW_UPDATE that opens less than this is small.
SMALL_WINDOW_BYTES = 256

#: A DATA frame with less than this is small.
SMALL_DATA_BYTES = 16

#: kind -> (how many at once, how many a second).  Generous for browsers, which
#: cancel a page's worth of requests at a click; of the order that sozu uses.
_RATES: Mapping[Kind, tuple[int, float]] = {
    Kind.RESET: (200, 20.0),
    Kind.PROVOKED_RESET: (100, 5.0),
    Kind.PING: (100, 10.0),
    Kind.SETTINGS: (50, 2.0),
    Kind.PRIORITY: (500, 100.0),
    Kind.EMPTY_DATA: (100, 10.0),
    # Streams of short messages do send a few hundred a second.
    Kind.SMALL_DATA: (5000, 1000.0),
    Kind.SMALL_WINDOW: (1000, 100.0),
    # A page of paused downloads may well have a few.
    Kind.STALLED: (20, 1.0),
}


class FloodLimits:
    """The buckets of one connection."""

    __slots__ = ("_filled_at", "_room")

    def __init__(self) -> None:
        self._room: dict[Kind, float] = {}
        self._filled_at: dict[Kind, float] = {}

    def admits(self, kind: Kind, now: float) -> bool:
        """Count one more; False: that was one too many.

        :param now: seconds on the monotonic clock.
        """
        capacity, rate = _RATES[kind]
        room = self._room.get(kind, float(capacity))
        room = min(float(capacity), room + (now - self._filled_at.get(kind, now)) * rate)
        self._filled_at[kind] = now
        self._room[kind] = room - 1.0
        return room >= 1.0

    def allow(self, kind: Kind, count: int) -> None:
        """Expect *count* more, because something of ours calls for them."""
        room = self._room.get(kind)
        if room is not None:
            self._room[kind] = min(float(_RATES[kind][0]), room + count)
