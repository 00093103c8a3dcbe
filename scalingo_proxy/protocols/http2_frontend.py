"""One HTTP/2 connection of a client: frames in, each for its stream.

Counts what comes for nothing, and refuses what is too much.  Knows nothing of
what the streams carry.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.errors import BadRequest, DrainTimeout, ProxyError, RateLimited
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.http2_ending import LINGER_BYTES, HTTP2Ending
from scalingo_proxy.protocols.http2_stream import HTTP2Stream
from scalingo_proxy.protocols.turns import SECONDS_AT_ONCE
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.http1_head import RequestHead
from scalingo_proxy.wire.http2_connection import MAX_STREAMS
from scalingo_proxy.wire.http2_events import (
    ClientLeaves,
    DataReceived,
    Event,
    RequestReceived,
    SettingsChanged,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from scalingo_proxy.wire.http2_frames import ErrorCode, HTTP2Error
from scalingo_proxy.wire.http2_head import http2_request_head

if TYPE_CHECKING:
    from scalingo_proxy.protocols.factories import HTTPProxyFactory

__all__ = ["HTTP2Frontend"]

_log = Logger()


#: Frames of one connection that are handled at most before others have their turn.
_FRAMES_A_TURN = 200


@implementer(IPushProducer)
class HTTP2Frontend(HTTP2Ending):
    """The proxy's end of a client connection that speaks HTTP/2 with prior knowledge or by ALPN.

    :param factory: what all connections of this door share.
    :param identity: who the client is; None: the factory says.
    """

    def __init__(self, factory: HTTPProxyFactory, identity: ClientIdentity | None = None) -> None:
        super().__init__(factory)
        self._given_identity = identity
        #: Streams whose bodies grew in this turn.
        self._fed: dict[int, HTTP2Stream] = {}

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        env, transport = self.env, self.transport
        self.identity = self._given_identity or self._factory.identify(transport)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._factory.frontend_opened(self, "h2")
        self._idle_until = env.seconds() + env.timeouts.request_head
        env.deadlines.set(self, self._idle_until)
        self.connection.begin()
        self._work()
        if self._factory.is_draining:
            self.drain()  # it came in at the last moment

    def dataReceived(self, data: bytes) -> None:
        if self._closed:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.abortConnection()
            return
        if self._is_put_off:
            self.connection.frames.add_data(data)  # decrypted with what came before
        else:
            self._take_frames(data)

    def take_turn(self) -> None:
        """Go on with the frames that one turn had no time for."""
        self._is_put_off = False
        self.transport.resumeProducing()
        if not self._closed:
            self._take_frames(b"")

    def _take_frames(self, data: bytes) -> None:
        self._busy = True
        try:
            self._receive(data)
            self._hand_on_bodies()
        finally:
            self._busy = False
        self._work()
        if not self._streams and not self._closed:
            self._watch_the_rest()

    # -- frames --------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        connection = self.connection
        resets = connection.resets_sent
        count, seconds = 0, self.env.seconds
        end = seconds() + SECONDS_AT_ONCE
        try:
            connection.frames.add_data(data)
            # Each frame is acted upon before the next one is looked at.
            while (event := connection.next_event()) is not None:
                count += 1
                kind = connection.kind
                if kind is not None and not self._floods.admits(kind, seconds()):
                    self._send_away(kind)
                    return
                handler = _HANDLERS.get(type(event))
                if handler is not None:
                    handler(self, event)
                if connection.resets_sent != resets:
                    self._note_provoked(connection.resets_sent - resets)
                    resets = connection.resets_sent
                if self._closed:
                    return
                if count >= _FRAMES_A_TURN or seconds() >= end:
                    # Whoever else is served here shall not wait for all of them.
                    self._is_put_off = True
                    self.env.turns.put_off(self)
                    self.transport.pauseProducing()
                    return
        except HTTP2Error as error:
            connection.give_up(error.code)
            self._give_up(BadRequest(f"HTTP/2: {error}"))
        except Exception as error:
            # What a peer sends must not fill the log with tracebacks.
            _log.warn("an HTTP/2 frame could not be handled: {error!r}", error=error)
            connection.give_up(ErrorCode.INTERNAL_ERROR)
            self._give_up(BadRequest("a frame could not be handled"))

    def _hand_on_bodies(self) -> None:
        """Pass on the bodies that came with the frames of this turn, each in one piece."""
        if self._fed:
            fed, self._fed = self._fed, {}
            for stream in fed.values():
                self._hand(stream, stream.hand_on)

    def _request_received(self, event: RequestReceived) -> None:
        state = event.stream
        if self._leaving or len(self._streams) >= MAX_STREAMS:
            self.connection.reset_stream(state, ErrorCode.REFUSED_STREAM)
            self._tell_refused(event)
            return
        if not self._streams and not self._leaves_at:
            self.env.deadlines.clear(self)
            self._waits_for_rest = False
        if not self.has_asked:
            self.env.clients.first_asked(self)
        self._streams[state.id] = stream = HTTP2Stream(self, state)
        self._hand(stream, stream.begin, event)

    def _tell_refused(self, event: RequestReceived) -> None:
        """Tell of a stream that is refused as it comes; its header list is read for that alone."""
        env, record = self.env, self.new_record()
        try:
            self.describe(
                record, http2_request_head(event.fields, event.ended, env.limits, self.websocket_key)
            )
        except (ProxyError, FramingError):
            pass  # it would not have been served either
        if self._leaving:
            self.refused(DrainTimeout("the connection is being closed"), record)
        else:
            self.refused(RateLimited(f"the client has {MAX_STREAMS} streams open on this connection"), record)

    def _data_received(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self.give_back(event.length, self.connection.streams.get(event.stream_id))
        else:
            self._hand(stream, stream.data_received, event)
            self._fed[event.stream_id] = stream

    def _trailers_received(self, event: TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._hand(stream, stream.trailers_received, event)

    def _stream_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._hand(stream, stream.lost if event.by_client else stream.was_reset)

    def _window_updated(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._unpark_all()
        elif (stream := self._parked.pop(event.stream_id, None)) is not None:
            self.wake(stream)

    def _settings_changed(self, event: SettingsChanged) -> None:
        self._unpark_all()

    def _client_leaves(self, event: ClientLeaves) -> None:
        self._leaving = True
        if event.is_error:
            self._lose_streams()
        if not self._streams:
            self._close()

    # -- asked by the streams ------------------------------------------------

    def describe(self, record: Record, head: RequestHead) -> None:
        """Fill in *record* what the head tells."""
        record.method = head.method_text
        record.host = head.host
        record.path = head.target_text
        record.client = self.identity.client_address(head)
        record.request_id = head.told_id or self.env.request_ids()
        if self._factory.notes_agents:
            self._factory.note_fields(record, head)

    def websocket_key(self) -> bytes:
        """A nonce for a handshake with a backend (RFC 6455 §4.1)."""
        return base64.b64encode(hashlib.sha256(self.env.request_ids().encode()).digest()[:16])

    def tunnel_opened(self) -> None:
        """A stream became a WebSocket."""
        self.env.connection_opened(self._factory.listener, "websocket")

    def tunnel_closed(self) -> None:
        """A WebSocket is over."""
        self.env.connection_closed(self._factory.listener, "websocket")


_HANDLERS: dict[type[Event], Callable[[HTTP2Frontend, Any], None]] = {
    RequestReceived: HTTP2Frontend._request_received,
    DataReceived: HTTP2Frontend._data_received,
    TrailersReceived: HTTP2Frontend._trailers_received,
    StreamReset: HTTP2Frontend._stream_reset,
    WindowUpdated: HTTP2Frontend._window_updated,
    SettingsChanged: HTTP2Frontend._settings_changed,
    ClientLeaves: HTTP2Frontend._client_leaves,
}
