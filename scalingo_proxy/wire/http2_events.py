"""What frames of a client mean to whoever serves its streams."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from scalingo_proxy.wire.http2_states import StreamState

__all__ = [
    "NOTHING",
    "ClientLeaves",
    "DataReceived",
    "Event",
    "Nothing",
    "RequestReceived",
    "SettingsChanged",
    "StreamReset",
    "TrailersReceived",
    "WindowUpdated",
]


class Event:
    """A frame's meaning."""

    __slots__ = ()


class Nothing(Event):
    """The frame is dealt with."""

    __slots__ = ()


NOTHING = Nothing()


@attrs.define(eq=False)
class RequestReceived(Event):
    """A stream began.

    :ivar fields: the header list, decoded and not judged.
    :ivar ended: no body follows.
    """

    stream: StreamState
    fields: Sequence[tuple[bytes, bytes]]
    ended: bool


@attrs.define(eq=False)
class TrailersReceived(Event):
    """A second header list came on a stream.

    :ivar fields: decoded and not judged.
    :ivar ended: nothing follows, as it should be.
    """

    stream_id: int
    fields: Sequence[tuple[bytes, bytes]]
    ended: bool


@attrs.define(eq=False)
class DataReceived(Event):
    """A piece of a body came.

    :ivar payload: without padding.
    :ivar length: what has to be given back to the windows, padding included.
    :ivar ended: nothing follows.
    """

    stream_id: int
    payload: bytes
    length: int
    ended: bool


@attrs.define(eq=False)
class StreamReset(Event):
    """A stream ended at once.

    :ivar by_client: the client wanted that; else a mistake of the client's was answered with RST_STREAM.
    """

    stream_id: int
    by_client: bool


@attrs.define(eq=False)
class WindowUpdated(Event):
    """The client takes more.

    :ivar stream_id: on this stream; 0: on the connection.
    """

    stream_id: int


class SettingsChanged(Event):
    """The windows of all streams may have changed."""

    __slots__ = ()


@attrs.define(eq=False)
class ClientLeaves(Event):
    """The client sent GOAWAY: it begins no further streams.

    :ivar is_error: it does not care for its responses either.
    """

    is_error: bool
