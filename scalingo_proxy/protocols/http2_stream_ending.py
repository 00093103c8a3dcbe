"""How one stream of an HTTP/2 connection ends: answered, reset, too late, cut; and that it ends once.

A request may end before its exchange has begun, and a stream goes on after its
exchange: what waits is sent, and what the client still sends is waited for.
How requests and responses are relayed is the business of
:mod:`scalingo_proxy.protocols.http2_stream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from scalingo_proxy.errors import (
    BadRequest,
    ClientClosed,
    DrainTimeout,
    InternalError,
    ProxyError,
    RequestTimeout,
)
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.client_connections import CRAWL_DOWN, CRAWL_SECONDS, CRAWL_UP
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.http2_flow import Incoming
from scalingo_proxy.protocols.http2_responder import HTTP2Responder
from scalingo_proxy.wire.error_answer import wants_json
from scalingo_proxy.wire.http2_frames import ErrorCode
from scalingo_proxy.wire.http2_states import StreamState

if TYPE_CHECKING:
    from scalingo_proxy.protocols.http2_frontend import HTTP2Frontend

__all__ = ["HTTP2StreamEnding"]

_log = Logger()

#: After a whole response a client that still sends its request is given so
#: long to stop by itself; some take RST_STREAM for the loss of the response.
_LINGER_SECONDS = 2.0

_STALLED = RequestTimeout("the request body stalled")


class HTTP2StreamEnding(HTTP2Responder):
    """The ends of a stream.

    :param frontend: the connection it belongs to.
    :param state: of the stream, as the connection sees it.
    """

    #: The record of a request of which only the end of the stream is missing.
    _unstarted: Record | None = None
    _input_over = False
    _is_websocket = False
    _is_tunnel = False
    _reads_no_more = False
    _is_over = False
    _began_at = 0.0

    def __init__(self, frontend: HTTP2Frontend, state: StreamState) -> None:
        super().__init__(frontend, state)
        self._frontend = frontend
        self._env = frontend.env
        self._in = Incoming(-1)

    def _tell_unstarted(self, error: ProxyError) -> None:
        """Nothing comes of the request whose end is waited for."""
        record, self._unstarted = self._unstarted, None
        if record is not None:
            self._frontend.refused(error, record)
        self._conclude()

    def _refuse_unstarted(self, error: ProxyError) -> None:
        """The same, and the client is told."""
        record, head = self._unstarted, self._head
        assert record is not None and head is not None
        self._answer(error, record, wants_json(head.fields), head.method != b"HEAD")
        self._tell_unstarted(error)
        self._rest()

    def _rest(self) -> None:
        """What is left is to send what waits."""
        if not self._closed and not self._end_sent:
            self._wait_for_client()
        self._conclude()

    def lost(self) -> None:
        """The client has reset the stream, or is gone altogether."""
        self._drop()
        if self._relay_end is not None:
            self._relay_end.connection_lost()
        elif self._exchange is not None:
            self._exchange.client_left()
        else:
            self._tell_unstarted(ClientClosed())

    def was_reset(self) -> None:
        """A mistake of the client's was answered with RST_STREAM."""
        self._drop()
        if self._exchange is not None:
            self._exchange.fail(BadRequest("a frame came where none of its kind may be"))
        else:
            self._tell_unstarted(BadRequest("a frame came where none of its kind may be"))

    def crawls(self, now: float) -> bool:
        """Whether the client sends, or takes, so little that it hardly can be meant well."""
        seconds, exchange = now - self._began_at, self._exchange
        if seconds < CRAWL_SECONDS or self._is_tunnel:
            return False
        if exchange is not None:
            if exchange.phase is Phase.SENDING:
                return self._in.received < seconds * CRAWL_UP
            if not self._source_paused:
                return False  # it is the backend that takes its time
        elif self._unstarted is not None:
            return True
        return self.out.sent < seconds * CRAWL_DOWN

    def give_up(self) -> None:
        """Make room for others: the client is told what it would have been told later."""
        if self._exchange is not None:
            self._exchange.deadline_reached()
        elif self._unstarted is not None:
            self._refuse_unstarted(_STALLED)

    def cut(self) -> None:
        """The proxy stops and waits no longer."""
        if self._exchange is not None:
            self._exchange.cut()
        elif self._unstarted is not None:
            self._refuse_unstarted(DrainTimeout())
        else:
            self.lost()

    def broke(self) -> None:
        """End because of a bug of ours, which the exception being handled tells of."""
        if self._exchange is not None:
            self._exchange.broke()
        else:
            _log.failure("stream {stream_id} failed", stream_id=self.id)
            self.reset(ErrorCode.INTERNAL_ERROR)
            self._tell_unstarted(InternalError())

    def deadline_reached(self) -> None:
        """Whatever this stream waits for took too long."""
        exchange = self._exchange
        if self._unstarted is not None:
            self._refuse_unstarted(_STALLED)
        elif not (exchange is not None and exchange.is_leaving) and self._client_is_slow():
            self._wait_for_client()
        elif exchange is not None:
            waits_for_client = bool(self.out.size or self.out.heads)
            try:
                exchange.deadline_reached()
            except Exception:
                exchange.broke()
            if waits_for_client:
                self._frontend.note_stalled()
        else:
            if self._end_sent:
                self.reset(ErrorCode.NO_ERROR)  # the response did not need the rest (RFC 9113 §8.1)
            else:
                self._frontend.stalled(self)
            self._conclude()

    def _wait_for_client(self) -> None:
        env = self._env
        env.deadlines.set(self, env.seconds() + env.timeouts.idle)

    def _conclude(self) -> None:
        """Leave the connection, if there is nothing left to do."""
        if self._exchange is not None or self._is_over:
            return
        if not self._closed:
            if not self._end_sent:
                return
            if not self._in.ended:
                env = self._env
                env.deadlines.set(self, env.seconds() + _LINGER_SECONDS)
                return
        self._is_over = True
        self._acknowledge()
        self._env.deadlines.forget(self)
        self._frontend.stream_over(self)

    def _acknowledge(self) -> None:
        count, self._in.unacknowledged = self._in.unacknowledged, 0
        if count:
            self._frontend.give_back(count, self.state)
