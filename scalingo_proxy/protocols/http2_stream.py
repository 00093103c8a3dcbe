"""One stream of an HTTP/2 connection: one request and its response, or a tunnel.

The client's side of an :class:`~scalingo_proxy.protocols.exchange.Exchange`.
Knows one stream's flow control in both directions; which stream is served
next, and when bytes go out, is the connection's business, and how a stream
ends that of :mod:`scalingo_proxy.protocols.http2_stream_ending`.
"""

from __future__ import annotations

from scalingo_proxy.errors import BadRequest, BodyTooLarge, ProxyError
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.protocols.http2_stream_ending import HTTP2StreamEnding
from scalingo_proxy.protocols.http2_stream_transport import HTTP2StreamTransport
from scalingo_proxy.protocols.relay import RelayEnd
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_body import FramingKind
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead
from scalingo_proxy.wire.http2_events import DataReceived, RequestReceived, TrailersReceived
from scalingo_proxy.wire.http2_frames import ErrorCode
from scalingo_proxy.wire.http2_head import http2_request_head, http2_trailers

__all__ = ["HTTP2Stream"]


class HTTP2Stream(HTTP2StreamEnding):
    """The client's side of one exchange over HTTP/2.

    :param frontend: the connection it belongs to.
    :param state: of the stream, as the connection sees it.
    """

    # -- the request ---------------------------------------------------------

    def begin(self, request: RequestReceived) -> None:
        """Read the request's header list and start its exchange."""
        frontend = self._frontend
        self._in.ended = ended = request.ended
        record = frontend.new_record()
        self._began_at = record.started_at
        try:
            head = http2_request_head(request.fields, ended, self._env.limits, frontend.websocket_key)
        except FramingError as error:
            self.reset(ErrorCode.PROTOCOL_ERROR)
            frontend.refused(BadRequest(str(error)), record)
            self._conclude()
            return
        except ProxyError as error:
            record.request_id = self._env.request_ids()
            self._answer(error, record, False, (b":method", b"HEAD") not in request.fields)
            frontend.refused(error, record)
            self._rest()
            return
        frontend.describe(record, head)
        self._head = head
        if ended or head.framing.has_body or head.websocket_key:
            self._start(head, record)
        else:
            # A content-length of 0, and the stream goes on: a body may still follow, and then
            # the request is malformed.  A backend would take the head alone for all of it.
            self._unstarted = record
            self._in.expected = 0
            self._env.deadlines.set(self, record.started_at + self._env.timeouts.request_body)

    def _start(self, head: RequestHead, record: Record, is_late: bool = False) -> None:
        if head.websocket_key:
            self._is_websocket = True
        if head.framing.kind is not FramingKind.CHUNKED and not self._is_websocket:
            self._in.expected = head.framing.length
            self._input_over = not head.framing.has_body
        identity = self._frontend.identity
        self._exchange = exchange = Exchange(self._env, self, head, identity, record)
        if is_late:
            exchange.leave_out_wait()
        try:
            exchange.start()
        except Exception:
            exchange.broke()  # one request's bug ends that request and no other

    def data_received(self, event: DataReceived) -> None:
        """The client sent a piece of its body."""
        incoming, exchange, payload = self._in, self._exchange, event.payload
        incoming.unacknowledged += event.length
        incoming.received += len(payload)
        incoming.ended = event.ended
        if exchange is None:
            if self._unstarted is not None:
                self._end_of_nothing()
            elif incoming.ended:
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
        incoming.hold(payload)

    def _end_of_nothing(self) -> None:
        """More came of a request that has no body: its end, or what makes it malformed."""
        record, head = self._unstarted, self._head
        assert record is not None and head is not None
        if self._in.is_too_long:
            self.reset(ErrorCode.PROTOCOL_ERROR)
            self._tell_unstarted(BadRequest("the body is not as long as the content-length"))
        elif self._in.ended:
            self._unstarted = None
            self._env.deadlines.clear(self)
            self._start(head, record, is_late=True)

    def hand_on(self) -> None:
        """Pass on what came in this turn: for each frame alone it would cost as much as for all."""
        if self._exchange is not None:
            self._hand_over()

    def trailers_received(self, event: TrailersReceived) -> None:
        """The client sent what stands behind its body."""
        incoming = self._in
        incoming.ended = event.ended
        if self._exchange is None and self._unstarted is None:
            if incoming.ended:
                self._conclude()
            return
        try:
            incoming.trailers = http2_trailers(event.fields)
        except FramingError as error:
            self._malformed(str(error))
            return
        if not incoming.ended or self._is_websocket:
            self._malformed("trailers stand where none can be")
        elif incoming.is_too_short:
            self._malformed("the body is not as long as the content-length")
        elif self._unstarted is not None:
            self._end_of_nothing()
        else:
            self._hand_over()

    def _malformed(self, why: str) -> None:
        self.reset(ErrorCode.PROTOCOL_ERROR)
        if self._exchange is not None:
            self._exchange.fail(BadRequest(why))
        else:
            self._tell_unstarted(BadRequest(why))

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
        """Pass on what is held, if that is wanted now."""
        incoming, exchange = self._in, self._exchange
        if not incoming.is_open or self._input_over or self._closed or exchange is None:
            return
        if incoming.waits_for_end:
            return  # with its last byte the request would be whole for the backend, and may yet be malformed
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
        self._rest()

    # -- tunnels -------------------------------------------------------------

    def end_output(self, closing: bool) -> None:
        """The tunnel sends nothing more; *closing*: it takes nothing more either."""
        self._reads_no_more = self._reads_no_more or closing
        if not self._closed:
            self.out.ended = True
            if self._end_sent:
                self._close_tunnel()
            else:
                self._wake()

    def abort(self) -> None:
        """End the tunnel at once."""
        end = self._relay_end
        self.reset(ErrorCode.CANCEL)
        if end is not None:
            end.connection_lost()

    def _close_tunnel(self) -> None:
        """Tell the tunnel that the client's side is gone, once both directions are."""
        end = self._relay_end
        if end is None or not self._end_sent or not (self._input_over or self._reads_no_more):
            return
        if not self._in.ended:
            self.reset(ErrorCode.NO_ERROR)
        self._closed = True
        end.connection_lost()

    def _end_was_sent(self) -> None:
        self._end_sent = True
        if self._relay_end is not None:
            self._close_tunnel()
        self._conclude()
