"""One stream of an HTTP/2 connection: one request and its response, or a tunnel.

The client's side of an :class:`~scalingo_proxy.protocols.exchange.Exchange`.
Knows one stream's flow control in both directions; which stream is served
next, and when bytes go out, is the connection's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, TrailersReceived

from scalingo_proxy.errors import BadRequest, BodyTooLarge, ProxyError
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.protocols.http2_flow import Incoming, Outgoing
from scalingo_proxy.protocols.http2_stream_transport import HTTP2StreamTransport
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.protocols.relay import RelayEnd
from scalingo_proxy.wire.error_answer import ErrorAnswer, wants_json
from scalingo_proxy.wire.grammar import Fields, FramingError
from scalingo_proxy.wire.http1_body import FramingKind
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead
from scalingo_proxy.wire.http2_head import (
    http2_request_head,
    http2_response_fields,
    http2_trailers,
    trailers_for_http2,
)

if TYPE_CHECKING:
    from scalingo_proxy.protocols.http2_frontend import HTTP2Frontend

__all__ = ["HTTP2Stream"]

#: No stream sends more than this before another one has its turn.
_TURN_BYTES = 16384

#: A response that has shrunk to this is asked to go on.
_LOW_WATER_BYTES = 16384

#: A client is slow, and not gone, when it takes so much in ``idle`` seconds.
_PROGRESS_BYTES = 1024


class HTTP2Stream(Timed):
    """The client's side of one exchange over HTTP/2.

    :ivar id: the number of the stream.
    :ivar out: the response that waits for its window and its turn.
    :ivar is_ready: it stands in the connection's line of those with something to send.
    """

    def __init__(self, frontend: HTTP2Frontend, stream_id: int) -> None:
        self.id = stream_id
        self.timed: Timed = self
        self.out = Outgoing()
        self.is_ready = False
        self._frontend = frontend
        self._env = frontend.env
        self._connection = frontend.connection
        self._in = Incoming(-1)
        self._head: RequestHead | None = None
        self._is_websocket = False
        self._exchange: Exchange | None = None
        self._relay_end: RelayEnd | None = None
        self._input_over = False
        self._end_sent = False
        self._is_tunnel = False
        self._closing = False  # a tunnel that reads no more
        self._closed = False
        self._is_over = False
        self._source_paused = False
        self._sent_before = 0
        self._progress: SendProgress | None = None

    # -- the request ---------------------------------------------------------

    def begin(self, request: RequestReceived) -> None:
        """Read the request's header list and start its exchange."""
        frontend = self._frontend
        ended = request.stream_ended is not None
        self._in.ended = ended
        record = frontend.new_record()
        try:
            head = http2_request_head(request.headers, ended, self._env.limits, frontend.websocket_key)
        except FramingError as error:
            self.reset(ErrorCodes.PROTOCOL_ERROR)
            frontend.refused(BadRequest(str(error)), record)
            self._conclude()
            return
        except ProxyError as error:
            frontend.refused(error, record)
            self._answer(error, record, False, (b":method", b"HEAD") not in request.headers)
            self._conclude()
            return
        frontend.describe(record, head)
        self._head = head
        self._start(head, record)

    def _start(self, head: RequestHead, record: Record) -> None:
        self._is_websocket = bool(head.websocket_key)
        if head.framing.kind is not FramingKind.CHUNKED and not self._is_websocket:
            self._in.expected = head.framing.length
            self._input_over = not head.framing.has_body
        identity = self._frontend.identity
        self._exchange = exchange = Exchange(self._env, self, head, identity, record)
        try:
            exchange.start()
        except Exception:
            exchange.broke()  # one request's bug ends that request and no other

    def data_received(self, event: DataReceived) -> None:
        """The client sent a piece of its body."""
        incoming, exchange, payload = self._in, self._exchange, event.data
        incoming.unacknowledged += event.flow_controlled_length
        incoming.received += len(payload)
        incoming.ended = event.stream_ended is not None
        if exchange is None:
            if incoming.ended:
                self._conclude()
            return  # answered already: the window stays shut
        if incoming.is_too_long or incoming.is_too_short:
            self._malformed("the body is not as long as the content-length")
            return
        if not self._is_websocket:
            exchange.record.bytes_in = incoming.received
            if incoming.received > exchange.body_limit and not self._input_over:
                exchange.fail(BodyTooLarge())
                return
        incoming.receive(payload)
        self._hand_over()

    def trailers_received(self, event: TrailersReceived) -> None:
        """The client sent what stands behind its body."""
        incoming = self._in
        incoming.ended = event.stream_ended is not None
        if self._exchange is None:
            if incoming.ended:
                self._conclude()
            return
        try:
            incoming.trailers = http2_trailers(event.headers)
        except FramingError as error:
            self._malformed(str(error))
            return
        if not incoming.ended or self._is_websocket:
            self._malformed("trailers stand where none can be")
        elif incoming.is_too_short:
            self._malformed("the body is not as long as the content-length")
        else:
            self._hand_over()

    def _malformed(self, why: str) -> None:
        exchange = self._exchange
        assert exchange is not None
        self.reset(ErrorCodes.PROTOCOL_ERROR)
        exchange.fail(BadRequest(why))

    def open_upload(self) -> None:
        """Hand over the request body, what was held first."""
        self._in.is_open = True
        self._hand_over()

    def close_upload(self) -> None:
        """The backend takes no more for now: nothing is acknowledged."""
        self._in.is_open = False

    def hold_upload(self) -> None:
        """Keep what comes of the request body, until the upload is opened for another backend."""
        self._in.is_open = False

    def _hand_over(self) -> None:
        incoming, exchange = self._in, self._exchange
        if not incoming.is_open or self._input_over or exchange is None:
            return
        payload = incoming.take()
        if payload:
            if self._relay_end is not None:
                self._relay_end.data_received(payload)
            else:
                exchange.request_payload(payload)
        if not incoming.is_open or self._exchange is not exchange:
            return
        if incoming.ended:
            self._input_over = True
            if self._relay_end is not None:
                self._relay_end.read_closed()
                self._close_tunnel()
            else:
                exchange.request_ended(incoming.trailers)
        self._acknowledge()

    def _acknowledge(self) -> None:
        count, self._in.unacknowledged = self._in.unacknowledged, 0
        if count:
            self._frontend.give_back(count, self.id)

    # -- the response: called by the exchange --------------------------------

    def send_informational(self, head: ResponseHead) -> None:
        """Relay a 1xx response other than 101."""
        self._send_head(head.status, head.fields)
        self._wake()

    def start_response(self, head: ResponseHead, payload: bytes) -> None:
        """Begin the response; more payload follows."""
        self._send_head(head.status, head.fields)
        self.send_payload(payload)

    def send_payload(self, payload: bytes) -> None:
        """Relay a piece of the response body."""
        if self._closed:
            return
        self.out.add(payload)
        self._frontend.pending += len(payload)
        self._wake()
        if self.out.size > self._frontend.high_water and not self._source_paused:
            self._source_paused = True
            if self._relay_end is not None:
                self._relay_end.pause_peer()
            elif self._exchange is not None:
                self._exchange.pause_response()

    def send_whole(self, head: ResponseHead, payload: bytes, trailers: Fields) -> None:
        """Relay a response that is complete already."""
        self._send_head(head.status, head.fields)
        self.end_response(payload, trailers)

    def end_response(self, payload: bytes, trailers: Fields) -> None:
        """Relay the last piece."""
        if self._closed:
            return
        out = self.out
        out.add(payload)
        self._frontend.pending += len(payload)
        out.trailers = trailers_for_http2(trailers) if trailers else trailers
        out.ended = True
        self._wake()

    def send_error(self, error: ProxyError) -> None:
        """Answer with an error of ours; nothing was sent before."""
        head, exchange = self._head, self._exchange
        assert head is not None and exchange is not None
        self._answer(error, exchange.record, wants_json(head.fields), head.method != b"HEAD")

    def _answer(self, error: ProxyError, record: Record, as_json: bool, with_body: bool) -> None:
        answer = ErrorAnswer(error, record.request_id, as_json)
        body = answer.body if with_body else b""
        record.bytes_out = len(body)
        self._send_head(answer.status, answer.fields)
        self.end_response(body, [])

    def break_response(self) -> None:
        """Cut the response that has begun, so that it cannot be taken for complete."""
        self.reset(ErrorCodes.INTERNAL_ERROR)

    def switch(self, head: ResponseHead) -> HTTP2StreamTransport:
        """Accept the WebSocket as HTTP/2 does (RFC 8441 §5) and give the client's end of the tunnel."""
        self._frontend.tunnel_opened()
        self._is_tunnel = True
        fields = [field for field in head.fields if field[0].lower() != b"sec-websocket-accept"]
        self._send_head(200, fields)
        self._wake()
        return HTTP2StreamTransport(self, self._frontend.transport)

    def join(self, end: RelayEnd) -> None:
        """Hand everything to *end* from now on, what was held first."""
        self._relay_end = end
        self.open_upload()

    def exchange_over(self) -> None:
        """The exchange has ended and was accounted for."""
        if self._is_tunnel:
            self._frontend.tunnel_closed()
        self._exchange = self._relay_end = None
        self._in.take()
        if not self._closed and not self._end_sent:
            self._wait_for_client()
        self._conclude()

    def _send_head(self, status: int, fields: Fields) -> None:
        if not self._closed:
            self.out.heads.append(http2_response_fields(status, fields))

    def _wake(self) -> None:
        if not self._closed:
            self._frontend.wake(self)

    # -- the response: called by the connection ------------------------------

    def send_turn(self) -> bool:
        """Send what one turn allows; whether another one could send more."""
        out, connection = self.out, self._connection
        while out.heads:
            fields = out.heads.pop(0)
            is_last = out.ended and not (out.heads or out.size or out.trailers)
            connection.send_headers(self.id, fields, end_stream=is_last)
            if is_last:
                self._end_was_sent()
                return False
        if out.size:
            window = connection.local_flow_control_window(self.id)
            if window <= 0:
                return False
            self._send_data(min(window, _TURN_BYTES), window)
        elif out.ended and not self._end_sent:
            if out.trailers:
                connection.send_headers(self.id, out.trailers, end_stream=True)
            else:
                connection.end_stream(self.id)
            self._end_was_sent()
        return out.size > 0 or (out.ended and not self._end_sent and not self._closed)

    def _send_data(self, most: int, window: int) -> None:
        out = self.out
        part = out.take(most)
        self._frontend.pending -= len(part)
        is_last = out.ended and not (out.size or out.trailers)
        self._connection.send_data(self.id, part, end_stream=is_last)
        if len(part) < window:
            self._frontend.sent_freely(len(part))
        if is_last:
            self._end_was_sent()
        elif self._source_paused and out.size <= min(_LOW_WATER_BYTES, self._frontend.high_water):
            self._source_paused = False
            if self._relay_end is not None:
                self._relay_end.resume_peer()
            elif self._exchange is not None:
                self._exchange.resume_response()

    def _end_was_sent(self) -> None:
        self._end_sent = True
        if self._relay_end is not None:
            self._close_tunnel()
        self._conclude()

    # -- tunnels -------------------------------------------------------------

    def end_output(self, closing: bool) -> None:
        """The tunnel sends nothing more; *closing*: it takes nothing more either."""
        self._closing = self._closing or closing
        if not self._closed:
            self.out.ended = True
            if self._end_sent:
                self._close_tunnel()
            else:
                self._wake()

    def abort(self) -> None:
        """End the tunnel at once."""
        end = self._relay_end
        self.reset(ErrorCodes.CANCEL)
        if end is not None:
            end.connection_lost()

    def _close_tunnel(self) -> None:
        """Tell the tunnel that the client's side is gone, once both directions are."""
        end = self._relay_end
        if end is None or not self._end_sent or not (self._input_over or self._closing):
            return
        if not self._in.ended:
            self.reset(ErrorCodes.NO_ERROR)
        self._closed = True
        end.connection_lost()

    # -- ends ----------------------------------------------------------------

    def reset(self, error_code: ErrorCodes) -> None:
        """End the stream at once; what waits is dropped."""
        if not self._closed:
            self._drop()
            self._frontend.reset(self.id, error_code)

    def _drop(self) -> None:
        self._closed = True
        self._frontend.pending -= self.out.size
        self.out.clear()

    def lost(self) -> None:
        """The client has reset the stream, or is gone altogether."""
        self._drop()
        if self._relay_end is not None:
            self._relay_end.connection_lost()
        elif self._exchange is not None:
            self._exchange.client_left()
        else:
            self._conclude()

    def was_reset(self) -> None:
        """A mistake of the client's made h2 reset the stream."""
        self._drop()
        if self._exchange is not None:
            self._exchange.fail(BadRequest("a frame came where none of its kind may be"))
        else:
            self._conclude()

    def cut(self) -> None:
        """The proxy stops and waits no longer."""
        if self._exchange is not None:
            self._exchange.cut()
        else:
            self.lost()

    def broke(self) -> None:
        """A bug of ours surfaced while this stream was handled."""
        if self._exchange is not None:
            self._exchange.broke()
        else:
            self.reset(ErrorCodes.INTERNAL_ERROR)
            self._conclude()

    def deadline_reached(self) -> None:
        """Whatever this stream waits for took too long."""
        exchange = self._exchange
        if self._client_is_slow():
            self._wait_for_client()
        elif exchange is not None:
            try:
                exchange.deadline_reached()
            except Exception:
                exchange.broke()
        else:
            self._frontend.stalled(self)
            self._conclude()

    def _wait_for_client(self) -> None:
        env = self._env
        env.deadlines.set(self, env.seconds() + env.timeouts.idle)

    def _client_is_slow(self) -> bool:
        """Whether the client takes what waits for it, if only little by little."""
        out = self.out
        moved, self._sent_before = out.sent - self._sent_before, out.sent
        if not out.size:
            return False
        if moved >= _PROGRESS_BYTES:
            return True
        if self._progress is None:
            self._progress = SendProgress()
        return self._frontend.is_paused and self._progress.has_moved(self._frontend.transport)

    def _conclude(self) -> None:
        """Leave the connection, if there is nothing left to do."""
        if self._exchange is not None or self._is_over:
            return
        if not self._closed:
            if not self._end_sent:
                return
            if not self._in.ended:
                self.reset(ErrorCodes.NO_ERROR)  # the response does not need the rest (RFC 9113 §8.1)
        self._is_over = True
        self._acknowledge()
        self._env.deadlines.forget(self)
        self._frontend.stream_over(self)
