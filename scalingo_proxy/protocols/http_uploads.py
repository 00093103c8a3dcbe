"""Request bodies of an HTTP/1 connection: read as fast as the backend takes them.

What comes before it is wanted, a body or the next request, is kept up to a
bound.  Whose body it is and where it goes is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalingo_proxy.errors import BadRequest, BodyTooLarge
from scalingo_proxy.protocols.http_ending import HTTPEnding
from scalingo_proxy.protocols.passing_bodies import pass_upload
from scalingo_proxy.transports.splice import Splice
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_body import BodyReader
from scalingo_proxy.wire.http1_exchange import Event

if TYPE_CHECKING:
    pass

__all__ = ["READ_AHEAD_BYTES", "HTTPUploads"]

#: Bytes read ahead of the exchange under way before reading stops.  Until
#: then reading goes on, since only a reader notices that the client left.
READ_AHEAD_BYTES = 65536

#: What is less than this is quickly read, however small its chunks are.
_CRUMBS_BYTES = 4096


class HTTPUploads(HTTPEnding):
    """The reading of request bodies."""

    _body_bytes = 0
    #: Whether the body comes in chunks so small that most of it is framing.
    _crumbles = False
    #: Whether what was received waits for a later turn.
    _is_put_off = False

    _body: BodyReader | None
    _upload_open: bool
    #: What the rest of the body passes through without coming in.
    _passing: Splice | None

    def take_turn(self) -> None:
        """Go on with what one turn had no time for."""
        raise NotImplementedError

    def _put_off(self) -> None:
        """Let others have their turn first."""
        if not self._is_put_off:
            self._is_put_off = True
            self._env.turns.put_off(self)

    def _read_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > READ_AHEAD_BYTES:
            self._pause_reading()

    def open_upload(self) -> None:
        """Hand over the request body, what was read ahead of it first."""
        self._upload_open = True
        if self._ahead and self._body is not None:
            data = bytes(self._ahead)
            self._ahead.clear()
            self._receive_body(data)
        if self._upload_open or self._body is None:
            self._resume_reading()

    def close_upload(self) -> None:
        """The backend takes no more of the request body for now: take no more from the client."""
        self._upload_open = False
        self._pause_reading()

    def hold_upload(self) -> None:
        """Keep what comes of the request body, until the upload is opened for another backend."""
        self._upload_open = False
        self._stop_passing()
        if len(self._ahead) <= READ_AHEAD_BYTES:
            self._resume_reading()

    def _receive_body(self, data: bytes) -> None:
        body, exchange = self._body, self._exchange
        assert body is not None and exchange is not None
        try:
            payload = body.receive(data)
        except FramingError as error:
            exchange.fail(BadRequest(str(error)))
            return
        if len(data) > _CRUMBS_BYTES:
            self._crumbles = len(payload) * 4 < len(data)
        if payload:
            self._body_bytes += len(payload)
            exchange.record.bytes_in = self._body_bytes
            if self._body_bytes > exchange.body_limit:
                exchange.fail(BodyTooLarge())
                return
        if not body.done:
            if payload:
                exchange.request_payload(payload)
                if self._upload_open and self._passing is None and self._body is body:
                    self._passing = pass_upload(
                        exchange, body, self.transport, self._upload_moved, self._upload_held
                    )
            return
        # Before the last piece goes out, since the answer may come inside that call.
        self._body = None
        self._crumbles = False
        self._stop_passing()
        self._ahead += body.excess
        self._upload_open = False
        self._cycle.on_request(Event.END)
        exchange.request_ended(body.trailers, payload)
        self._resume_reading()

    def _upload_moved(self, count: int) -> None:
        self._body_bytes += count
        assert self._exchange is not None
        self._exchange.record.bytes_in = self._body_bytes

    def _upload_held(self, is_held: bool) -> None:
        # The transport is paused and resumed by what the body passes through.
        self._reading_paused = is_held
        if is_held:
            self._env.hangups.watch(self)
        assert self._exchange is not None
        self._exchange.upload_held(is_held)

    def _stop_passing(self) -> None:
        passing, self._passing = self._passing, None
        if passing is not None:
            passing.stop()

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()
            self._env.hangups.watch(self)

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._lost:
            self._reading_paused = False
            self.transport.resumeProducing()
