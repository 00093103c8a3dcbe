"""The h2 library as an edge needs it: a stream's mistake costs that stream alone.

h2 keeps frames, compression and the state of streams; some mistakes of one
stream end the whole connection there, which RFC 9113 allows and a proxy for
many tenants cannot want, and some of what a peer may send is kept without a
bound.  Knows no requests and no transports.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, StreamReset
from h2.exceptions import NoSuchStreamError, ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamInputs
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
)

from scalingo_proxy.protocols.http2_compression import LeanDecoder, LeanEncoder
from scalingo_proxy.protocols.http2_frames import FrameReader

__all__ = ["MAX_STREAMS", "EdgeConnection"]

#: Streams a client may have open at once; the edge advice of Envoy and others.
MAX_STREAMS = 100

#: Bytes of uploads that one client may have under way: of a stream, and of all together.
STREAM_WINDOW = 65535
CONNECTION_WINDOW = 1024 * 1024

#: The table that we compress with, whatever a client would let us have.
_ENCODER_TABLE_BYTES = 4096

#: Settings of a client that mean anything to us; of the others h2 would keep every one.
_KNOWN_SETTINGS = frozenset(SettingCodes)

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


#: How h2 would check what we send, if we wanted it to.
_UNUSED: Any = None

_END_STREAM = 0x1
_DATA_HEADER = struct.Struct(">HBBBL")


class _EdgeStream(H2Stream):
    """A stream whose header lists and lengths are judged elsewhere, in both directions."""

    def receive_headers(
        self, headers: Any, end_stream: bool, header_encoding: bool | str | None
    ) -> tuple[list[Frame], list[Event]]:
        events = self.state_machine.process_input(StreamInputs.RECV_HEADERS)
        heard: Any = events[0]
        heard.headers = headers
        if end_stream:
            events += self.state_machine.process_input(StreamInputs.RECV_END_STREAM)
            heard.stream_ended = events[-1]
        return [], events

    def send_headers(
        self, headers: Any, encoder: Encoder, end_stream: bool = False
    ) -> list[HeadersFrame | ContinuationFrame | PushPromiseFrame]:
        is_interim = headers[0][1][:1] == b"1" and not end_stream
        self.state_machine.process_input(
            StreamInputs.SEND_INFORMATIONAL_HEADERS if is_interim else StreamInputs.SEND_HEADERS
        )
        frames = self._build_headers_frames(headers, encoder, HeadersFrame(self.stream_id), _UNUSED)
        if end_stream:
            self.state_machine.process_input(StreamInputs.SEND_END_STREAM)
            frames[0].flags.add("END_STREAM")
        return frames

    def _track_content_length(self, length: int, end_stream: bool) -> None:
        pass


#: The largest number that a stream can have.
_LAST_STREAM_ID = 2**31 - 1


class EdgeConnection(H2Connection):
    """The server's side of one HTTP/2 connection.

    :param head_bytes: how large a request's header list may be; of twice as
        much the connection dies (CVE-2016-6581), in between it is for others to say.
    """

    MAX_CLOSED_STREAMS = 1024

    def __init__(self, head_bytes: int) -> None:
        super().__init__(_CONFIG)
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: head_bytes,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
            },
        )
        self.encoder, self.decoder = LeanEncoder(), LeanDecoder()
        self.decoder.max_header_list_size = 2 * head_bytes
        self.frames = FrameReader()
        self.incoming_buffer: Any = self.frames
        self._settings_read = False
        #: How many RST_STREAM frames we sent.
        self.resets_sent = 0

    def begin(self) -> None:
        """Prepare what a server sends first."""
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - STREAM_WINDOW)

    def received(self, data: bytes) -> Iterator[tuple[Frame, list[Event]]]:
        """Each frame that *data* completes, with what it means, before the next one is looked at.

        :raises ProtocolError: when the connection cannot go on; the GOAWAY
            that says so is prepared.
        """
        try:
            self.frames.add_data(data)
            while (frame := self.frames.next_frame()) is not None:
                yield frame, self._receive_frame(frame)
        except ProtocolError as error:
            self.give_up(error.error_code)
            raise

    def give_up(self, error_code: ErrorCodes) -> None:
        """Prepare the last GOAWAY."""
        self._terminate_connection(error_code)

    def say_goodbye(self) -> None:
        """Prepare a GOAWAY that lets the streams under way finish (RFC 9113 §6.8).

        Made by hand, because h2 takes the connection for closed once it has
        sent one.
        """
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id=self.highest_inbound_stream_id)])

    def announce_goodbye(self) -> None:
        """Prepare a GOAWAY that refuses nothing yet: the client is to begin no further streams."""
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id=_LAST_STREAM_ID)])

    def send_payload(self, stream_id: int, payload: bytes, end_stream: bool) -> None:
        """Prepare one DATA frame, which the windows and the size of frames must admit.

        What h2 does beside this for each frame costs several times as much.
        """
        stream, length = self.streams[stream_id], len(payload)
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if end_stream:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        stream.outbound_flow_control_window -= length
        self.outbound_flow_control_window -= length
        flags = _END_STREAM if end_stream else 0
        self._data_to_send += _DATA_HEADER.pack(length >> 8, length & 0xFF, 0, flags, stream_id)
        self._data_to_send += payload

    def is_open(self, stream_id: int) -> bool:
        """Whether anything may still be sent on this stream."""
        stream = self.streams.get(stream_id)
        return stream is not None and not stream.closed

    @property
    def unsent_bytes(self) -> int:
        """How much is prepared for sending."""
        return len(self._data_to_send)

    # -- where h2 is not strict, not lenient or not thrifty enough -----------

    @property
    def open_inbound_streams(self) -> int:
        """Always 0: a stream too many is refused by whoever serves streams, not fatal.

        h2 forgets closed streams when it counts them, so they are counted all
        the same.
        """
        super().open_inbound_streams  # noqa: B018
        return 0

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> H2Stream:
        if stream_id % 2 == 0:
            raise ProtocolError("a client's streams have odd numbers")
        if stream_id <= self.highest_inbound_stream_id:
            raise StreamIDTooLowError(stream_id, self.highest_inbound_stream_id)
        stream = _EdgeStream(
            stream_id,
            config=self.config,
            inbound_window_size=self.local_settings.initial_window_size,
            outbound_window_size=self.remote_settings.initial_window_size,
        )
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        self.streams[stream_id] = stream
        self.highest_inbound_stream_id = stream_id
        return stream

    def _prepare_for_sending(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._data_to_send += frame.serialize()
            if type(frame) is RstStreamFrame:
                self.resets_sent += 1

    def _receive_frame(self, frame: Frame) -> list[Event]:
        if not self._settings_read:
            if type(frame) is not SettingsFrame or "ACK" in frame.flags:
                raise ProtocolError("the preface is not followed by SETTINGS")
            self._settings_read = True
        return super()._receive_frame(frame)

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        # Priorities are left to those who schedule by them; a stream that
        # depends on itself is refused all the same (RFC 7540 §5.3.1).
        if "PRIORITY" in frame.flags:
            if frame.depends_on == frame.stream_id:
                raise ProtocolError("a stream depends on itself")
            frame.flags.discard("PRIORITY")
        try:
            return super()._receive_headers_frame(frame)
        except (StreamClosedError, StreamIDTooLowError) as error:
            if self._was_on_its_way(frame.stream_id, error):
                return [], []
            raise

    def _receive_settings_frame(self, frame: SettingsFrame) -> tuple[list[Frame], list[Event]]:
        settings = frame.settings
        if settings:
            frame.settings = {code: settings[code] for code in settings if code in _KNOWN_SETTINGS}
            table = settings.get(SettingCodes.HEADER_TABLE_SIZE, 0)
            if table > _ENCODER_TABLE_BYTES:
                frame.settings[SettingCodes.HEADER_TABLE_SIZE] = _ENCODER_TABLE_BYTES
        return super()._receive_settings_frame(frame)

    def _receive_window_update_frame(self, frame: Any) -> tuple[list[Frame], list[Event]]:
        if frame.window_increment:
            return super()._receive_window_update_frame(frame)
        stream_id: int = frame.stream_id
        try:
            if self._get_stream_by_id(stream_id).closed:
                return [], []
        except StreamClosedError:
            return [], []
        mistake = ErrorCodes.PROTOCOL_ERROR
        self.reset_stream(stream_id, mistake)
        return [], [StreamReset(stream_id=stream_id, error_code=mistake, remote_reset=False)]

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> tuple[list[Frame], list[Event]]:
        if frame.stream_id > self.highest_inbound_stream_id or frame.stream_id % 2 == 0:
            raise NoSuchStreamError(frame.stream_id)  # idle (RFC 9113 §6.4)
        return super()._receive_rst_stream_frame(frame)

    def _receive_naked_continuation(self, frame: Any) -> None:
        raise ProtocolError("a CONTINUATION that continues nothing")

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        # h2 takes the connection for closed; yet the client waits for the
        # responses under way (RFC 9113 §6.8).
        self.state_machine.process_input(ConnectionInputs.RECV_PING)
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        return [], [event]

    def _handle_data_on_closed_stream(
        self, events: list[Event], exc: StreamClosedError, frame: DataFrame
    ) -> tuple[list[Frame], list[Event]]:
        frames, events = super()._handle_data_on_closed_stream(events, exc, frame)
        if self._was_on_its_way(frame.stream_id, exc):
            frames = [answer for answer in frames if type(answer) is not RstStreamFrame]
        return frames, events

    def _was_on_its_way(self, stream_id: int, error: Exception) -> bool:
        """Whether the client cannot have known that we had reset the stream (RFC 9113 §5.1)."""
        has_reset_it_now = getattr(error, "_events", ())
        return not has_reset_it_now and self._stream_closed_by(stream_id) is StreamClosedBy.SEND_RST_STREAM
