"""The h2 library as an edge needs it: a stream's mistake costs that stream alone.

h2 keeps frames, compression and the state of streams; some mistakes of one
stream end the whole connection there, which RFC 9113 allows and a proxy for
many tenants cannot want.  Knows no requests and no transports.
"""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import InvalidBodyLengthError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame

__all__ = ["MAX_STREAMS", "EdgeConnection", "go_away"]

#: Streams a client may have open at once; the edge advice of Envoy and others.
MAX_STREAMS = 100
_MAX_HEADER_LIST_BYTES = 32768

_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    # Both are done in wire/http2_head, where a mistake costs the stream alone.
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    # What we send was checked when it was parsed.
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class EdgeConnection(H2Connection):
    """The server's side of one HTTP/2 connection."""

    def __init__(self) -> None:
        super().__init__(_CONFIG)
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADER_LIST_BYTES,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
            },
        )
        self.decoder.max_header_list_size = _MAX_HEADER_LIST_BYTES

    @property
    def open_inbound_streams(self) -> int:
        """Always 0: a stream too many is refused by whoever serves streams, not fatal.

        h2 forgets closed streams when it counts them, so they are counted all
        the same.
        """
        super().open_inbound_streams  # noqa: B018
        return 0

    @property
    def continuations(self) -> int:
        """How many frames the header block that is coming in has so far."""
        return len(self.incoming_buffer._headers_buffer)

    def _receive_frame(self, frame: Frame) -> list[Event]:
        try:
            return super()._receive_frame(frame)
        except InvalidBodyLengthError:
            # More or less body than the content-length said (RFC 9113 §8.1.1).
            stream_id: int = frame.stream_id
            length = getattr(frame, "flow_controlled_length", 0)
            if length:
                self.acknowledge_received_data(length, stream_id)
            self.reset_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return [StreamReset(stream_id, error_code=ErrorCodes.PROTOCOL_ERROR, remote_reset=False)]


def go_away(connection: Any, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> bytes:
    """A GOAWAY that lets the streams under way finish (RFC 9113 §6.8).

    Written by hand, because h2 takes the connection for closed once it has
    sent one.
    """
    frame = GoAwayFrame(0, last_stream_id=connection.highest_inbound_stream_id, error_code=error_code)
    return bytes(frame.serialize())
