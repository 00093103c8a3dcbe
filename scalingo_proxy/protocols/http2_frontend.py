"""One HTTP/2 connection of a client: its streams, and whose turn it is.

Takes frames in, hands each to its stream, and lets the streams send by turns
as windows and the transport allow.  Who makes us work for nothing is sent
away.  Knows nothing of what the streams carry.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import BadRequest, ProxyError, RequestTimeout
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.http2_connection import MAX_STREAMS, EdgeConnection
from scalingo_proxy.protocols.http2_limits import (
    MAX_UNREAD_CONTROL_BYTES,
    SMALL_WINDOW_BYTES,
    FloodLimits,
    Kind,
    kind_of,
)
from scalingo_proxy.protocols.http2_stream import HTTP2Stream
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.protocols.secured import Secured
from scalingo_proxy.wire.http1_forwarding import ClientIdentity, acceptable_request_id
from scalingo_proxy.wire.http1_head import RequestHead

if TYPE_CHECKING:
    from scalingo_proxy.protocols.factories import HTTPProxyFactory

__all__ = ["HTTP2Frontend"]

_log = Logger()

#: Bytes of a response that may wait on one stream before its backend is paused.
_HIGH_WATER_BYTES = 65536

#: Bytes that may wait on all streams before each new piece pauses its backend.
_CONNECTION_HIGH_WATER_BYTES = 1024 * 1024

#: Frames are collected up to this before the transport gets them, and can object.
_WRITE_BYTES = 65536

#: After the last GOAWAY what still comes is thrown away for so long and so many
#: bytes; closing at once would reset the connection and take the GOAWAY with it.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * 1024 * 1024


@implementer(IPushProducer)
class HTTP2Frontend(Protocol, Timed):
    """The proxy's end of a client connection that speaks HTTP/2 with prior knowledge or by ALPN.

    :param factory: what all connections of this door share.
    :param identity: who the client is; None: the factory says.
    :param secured: what is known of the TLS below, if TLS ends here.
    :ivar pending: bytes of responses that wait on all streams together.
    :ivar is_paused: the transport takes no more for now.
    """

    transport: Any
    identity: ClientIdentity

    def __init__(
        self,
        factory: HTTPProxyFactory,
        identity: ClientIdentity | None = None,
        secured: Secured | None = None,
    ) -> None:
        self.env = env = factory.env
        self.connection = EdgeConnection(env.limits.head_bytes)
        self.pending = 0
        self.is_paused = False
        self._factory = factory
        self._given_identity = identity
        self._secured = secured
        self._streams: dict[int, HTTP2Stream] = {}
        self._ready: deque[HTTP2Stream] = deque()
        self._parked: dict[int, HTTP2Stream] = {}
        self._floods = FloodLimits()
        self._busy = False
        self._leaving = False
        self._closed = False
        self._lingered = 0
        self._unread_bytes = 0
        self._idle_until = 0.0
        self._waits_for_rest = False
        self._progress = SendProgress()

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        env, transport = self.env, self.transport
        self.identity = self._given_identity or self._factory.identify(transport, self._secured)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._factory.frontend_opened(self, "h2")
        self._idle_until = env.seconds() + env.timeouts.request_head
        env.deadlines.set(self, self._idle_until)
        self.connection.begin()
        self._work()

    def dataReceived(self, data: bytes) -> None:
        if self._closed:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.transport.abortConnection()
            return
        self._busy = True
        try:
            self._receive(data)
        finally:
            self._busy = False
        self._work()
        if not self._streams and not self._closed:
            self._watch_the_rest()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closed = True
        self._factory.frontend_closed(self, "h2")
        self._lose_streams()
        self.env.deadlines.forget(self)

    # IPushProducer: our transport asks us to stop filling it.

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self._unread_bytes = 0
        self._work()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""

    # -- frames --------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        connection = self.connection
        resets = connection.resets_sent
        try:
            for frame, events in connection.received(data):
                kind = kind_of(frame)
                if kind is not None and not self._floods.admits(kind, self.env.seconds()):
                    self._send_away(kind)
                for event in events:
                    handler = _HANDLERS.get(type(event))
                    if handler is not None:
                        handler(self, event)
                if connection.resets_sent != resets:
                    self._note_provoked(connection.resets_sent - resets)
                    resets = connection.resets_sent
                if self._closed:
                    return
        except ProtocolError as error:
            self._give_up(BadRequest(f"HTTP/2: {error}"))
        except Exception as error:
            # What a peer sends must not fill the log with tracebacks.
            _log.warn("an HTTP/2 frame could not be handled: {error!r}", error=error)
            connection.give_up(ErrorCodes.INTERNAL_ERROR)
            self._give_up(BadRequest("a frame could not be handled"))

    def _request_received(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        if self._leaving or len(self._streams) >= MAX_STREAMS:
            self.connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        if not self._streams:
            self.env.deadlines.clear(self)
        self._streams[stream_id] = stream = HTTP2Stream(self, stream_id)
        self._hand(stream, stream.begin, event)

    def _data_received(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self.give_back(event.flow_controlled_length, event.stream_id)
        else:
            self._hand(stream, stream.data_received, event)

    def _trailers_received(self, event: TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._hand(stream, stream.trailers_received, event)

    def _stream_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._hand(stream, stream.lost if event.remote_reset else stream.was_reset)

    def _window_updated(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._unpark_all(event)
        elif (stream := self._parked.pop(event.stream_id, None)) is not None:
            self.wake(stream)

    def _unpark_all(self, event: Event) -> None:
        parked, self._parked = self._parked, {}
        for stream in parked.values():
            self.wake(stream)

    def _client_leaves(self, event: ConnectionTerminated) -> None:
        self._leaving = True
        if event.error_code != ErrorCodes.NO_ERROR:
            self._lose_streams()
        if not self._streams:
            self._close()

    def _hand(self, stream: HTTP2Stream, handle: Callable[..., None], *args: Any) -> None:
        """Let *stream* handle something; its bug costs no other stream."""
        try:
            handle(*args)
        except Exception:
            _log.failure("stream {stream_id} was mishandled", stream_id=stream.id)
            stream.broke()

    # -- asked by the streams ------------------------------------------------

    @property
    def high_water(self) -> int:
        """How many bytes of a response may wait on one stream before its backend is paused."""
        if self.is_paused or self.pending > _CONNECTION_HIGH_WATER_BYTES:
            return 0
        return _HIGH_WATER_BYTES

    def new_record(self) -> Record:
        """The record of a request that begins now."""
        env = self.env
        record = Record(env.seconds(), env.wall_clock(), self.identity.peer, self._factory.listener)
        record.protocol = "h2"
        record.tls = self.identity.tls
        return record

    def describe(self, record: Record, head: RequestHead) -> None:
        """Fill in *record* what the head tells."""
        record.method = head.method.decode("ascii")
        record.host = head.host
        record.path = head.target.decode("ascii")
        record.client = self.identity.client_address(head)
        told = head.special.get(b"x-request-id")
        request_id = acceptable_request_id(told) if told else None
        record.request_id = request_id.decode("ascii") if request_id else self.env.request_ids()
        self._factory.note_fields(record, head)

    def refused(self, error: ProxyError, record: Record) -> None:
        """Tell of what never became an exchange."""
        record.status, record.code = error.status, error.code
        if record.request_id == "-":
            record.request_id = self.env.request_ids()
        record.finished_at = self.env.seconds()
        self.env.finished(record)

    def websocket_key(self) -> bytes:
        """A nonce for a handshake with a backend (RFC 6455 §4.1)."""
        return base64.b64encode(hashlib.sha256(self.env.request_ids().encode()).digest()[:16])

    def give_back(self, count: int, stream_id: int) -> None:
        """Let the client send so many bytes more."""
        if not self._closed and count:
            self.connection.acknowledge_received_data(count, stream_id)
            self._flush_soon()

    def reset(self, stream_id: int, error_code: ErrorCodes) -> None:
        """Send RST_STREAM, unless the stream is closed already."""
        if not self._closed and self.connection.is_open(stream_id):
            self.connection.reset_stream(stream_id, error_code)
            self._flush_soon()

    def sent_freely(self, count: int) -> None:
        """A DATA frame went out that no window had cut: small ones may be acknowledged one by one."""
        if count < SMALL_WINDOW_BYTES:
            self._floods.allow(Kind.SMALL_WINDOW, 2)

    def tunnel_opened(self) -> None:
        """A stream became a WebSocket."""
        self.env.connection_opened(self._factory.listener, "websocket")

    def tunnel_closed(self) -> None:
        """A WebSocket is over."""
        self.env.connection_closed(self._factory.listener, "websocket")

    def stalled(self, stream: HTTP2Stream) -> None:
        """The client did not take the end of a response in time."""
        stream.reset(ErrorCodes.CANCEL)
        self._note_provoked(1)

    def stream_over(self, stream: HTTP2Stream) -> None:
        """Nothing is left to do for *stream*."""
        del self._streams[stream.id]
        self._parked.pop(stream.id, None)
        if self._streams or self._closed:
            return
        if self._leaving:
            self._close()
            return
        env = self.env
        self._idle_until = env.seconds() + env.timeouts.keep_alive
        env.deadlines.set(self, self._idle_until)

    # -- whose turn it is to send --------------------------------------------

    def wake(self, stream: HTTP2Stream) -> None:
        """*stream* has something to send."""
        if not stream.is_ready:
            stream.is_ready = True
            self._ready.append(stream)
        if not self._busy:
            self._work()

    def _flush_soon(self) -> None:
        if not self._busy:
            self._work()

    def _work(self) -> None:
        """Let the streams send, and write it all at once."""
        if self._busy or self._closed:
            return
        self._busy = True
        try:
            self._take_turns()
            self._flush()
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
                _log.failure("stream {stream_id} could not be sent", stream_id=stream.id)
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
                self._tell(BadRequest("the client does not read what it asks for"))
                self._closed = True
                self._lose_streams()
                self.transport.abortConnection()
                return
        self.transport.write(data)

    # -- ends ----------------------------------------------------------------

    def deadline_reached(self) -> None:
        """Nothing came, or not the rest of it."""
        if self._closed:
            if self._progress.has_moved(self.transport):
                env = self.env
                env.deadlines.set(self, env.seconds() + env.timeouts.idle)
            else:
                self.transport.abortConnection()
            return
        if self._waits_for_rest:
            self._tell(RequestTimeout("the request head did not arrive in time"))
        self.connection.say_goodbye()
        self._close()

    def _watch_the_rest(self) -> None:
        """Half a frame or half a header block must not wait for as long as none."""
        env = self.env
        waits = not self.connection.frames.is_between_frames
        if waits is not self._waits_for_rest:
            self._waits_for_rest = waits
            until = min(self._idle_until, env.seconds() + env.timeouts.request_head)
            env.deadlines.set(self, until if waits else self._idle_until)

    def drain(self) -> None:
        """The proxy stops: take no new streams, and close when those under way are over."""
        if self._closed or self._leaving:
            return
        self._leaving = True
        self.connection.say_goodbye()
        if self._streams:
            self._work()
        else:
            self._close()

    def cut(self) -> None:
        """The proxy stops and waits no longer."""
        self._busy = True  # what they still say is for nobody
        for stream in list(self._streams.values()):
            stream.cut()
        self._closed = True
        self.transport.abortConnection()

    def _note_provoked(self, count: int) -> None:
        if self._leaving:
            return
        for _ in range(count):
            if not self._closed and not self._floods.admits(Kind.PROVOKED_RESET, self.env.seconds()):
                self._send_away(Kind.PROVOKED_RESET)

    def _send_away(self, kind: Kind) -> None:
        """The client makes us work for nothing."""
        if not self._closed:
            self.connection.give_up(ErrorCodes.ENHANCE_YOUR_CALM)
            self._give_up(BadRequest(f"too many frames of the kind: {kind.value}"))

    def _give_up(self, error: ProxyError) -> None:
        """The last GOAWAY is prepared: send it, read no more, and close."""
        self._tell(error)
        self.transport.write(self.connection.data_to_send())
        self._closed = True
        self._lose_streams()
        self._linger()

    def _tell(self, error: ProxyError) -> None:
        self.refused(error, self.new_record())

    def _lose_streams(self) -> None:
        for stream in list(self._streams.values()):
            self._hand(stream, stream.lost)

    def _close(self) -> None:
        """Close once what is written has gone out."""
        env, transport = self.env, self.transport
        self._flush()
        self._closed = True
        transport.unregisterProducer()
        env.deadlines.set(self, env.seconds() + env.timeouts.idle)
        transport.loseConnection()

    def _linger(self) -> None:
        """Close after a last word to a client that may still be sending."""
        env, transport = self.env, self.transport
        transport.unregisterProducer()
        env.deadlines.set(self, env.seconds() + _LINGER_SECONDS)
        if ISSLTransport.providedBy(transport) or not hasattr(transport, "loseWriteConnection"):
            transport.loseConnection()  # which lingers by itself
        else:
            transport.loseWriteConnection()


_HANDLERS: dict[type[Event], Callable[[HTTP2Frontend, Any], None]] = {
    RequestReceived: HTTP2Frontend._request_received,
    DataReceived: HTTP2Frontend._data_received,
    TrailersReceived: HTTP2Frontend._trailers_received,
    StreamReset: HTTP2Frontend._stream_reset,
    WindowUpdated: HTTP2Frontend._window_updated,
    RemoteSettingsChanged: HTTP2Frontend._unpark_all,
    ConnectionTerminated: HTTP2Frontend._client_leaves,
}
