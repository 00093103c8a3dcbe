"""The writing half of an HTTP/1 connection of a client: responses, in its words.

Knows how a response is framed towards this client and whether the connection
outlives it.  Reading, limits and the life of the connection are the other
half's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.wire.error_answer import ErrorAnswer, wants_json
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_body import FramingKind, encode_chunk, encode_last_chunk
from scalingo_proxy.wire.http1_exchange import Cycle, Event, Side
from scalingo_proxy.wire.http1_forwarding import informational_head, response_head_for_client
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead

if TYPE_CHECKING:
    from scalingo_proxy.protocols.environment import Environment
    from scalingo_proxy.protocols.factories import HTTPProxyFactory

__all__ = ["HTTPResponder"]

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_CHUNKED, _UNTIL_CLOSE = FramingKind.CHUNKED, FramingKind.UNTIL_CLOSE
_NONE, _LENGTH = FramingKind.NONE, FramingKind.LENGTH
_IDLE, _DONE = Side.IDLE, Side.DONE


class HTTPResponder(Protocol, Timed):
    """Writes what an exchange says; see :class:`~scalingo_proxy.protocols.downstream.Downstream`."""

    transport: Any

    # Of the response under way.
    _chunked_response = False
    _ends_by_close = False

    # How these begin, HTTPFrontend says, and so it is with all that derive from this one.
    _factory: HTTPProxyFactory
    _env: Environment
    _cycle: Cycle
    _head: RequestHead | None
    _exchange: Exchange | None
    _writing_paused: bool

    @property
    def ends(self) -> tuple[Any, Any]:
        """The client's address and the one it connected to."""
        return self.transport.getPeer(), self.transport.getHost()

    @property
    def raw_transport(self) -> Any:
        """Where payload may be written as it is, unless it is chunked."""
        return None if self._chunked_response else self.transport

    def send_informational(self, head: ResponseHead) -> None:
        """Relay a 1xx response other than 101."""
        self.transport.write(informational_head(head))

    def start_response(self, head: ResponseHead, payload: bytes) -> None:
        """Begin the response; more payload follows."""
        words = self._response_head(head)
        self._cycle.on_response(Event.HEAD)
        if payload:
            words += encode_chunk(payload) if self._chunked_response else payload
        self.transport.write(words)
        if self._writing_paused and self._exchange is not None:
            # It may have been since before this exchange, and not every transport says so twice.
            self._exchange.pause_response()

    def send_payload(self, payload: bytes) -> None:
        """Relay a piece of the response body."""
        self.transport.write(encode_chunk(payload) if self._chunked_response else payload)

    def send_whole(self, head: ResponseHead, payload: bytes, trailers: Fields) -> None:
        """Relay a response that is complete already, in one write."""
        request, cycle, kind = self._head, self._cycle, head.framing.kind
        assert request is not None
        if (kind is _LENGTH or kind is _NONE) and cycle.request is _DONE and cycle.response is _IDLE:
            # Nearly all are such: what is done below, and by exchange_over, comes to this (3 µs less).
            is_draining = self._factory.is_draining
            if request.keep_alive and request.version and not is_draining:
                self.transport.write((head.words or response_head_for_client(head, 1, True)) + payload)
                cycle.request = _IDLE  # both sides are where WHOLE and NEXT lead
                return
            stays = request.keep_alive and not is_draining
            self.transport.write(response_head_for_client(head, request.version, stays) + payload)
            cycle.keep_alive, cycle.response = stays, _DONE
            return
        words = self._response_head(head)
        cycle.on_response(Event.WHOLE)
        last = self._last_piece(payload, trailers) if self._chunked_response else payload
        self.transport.write(words + last)

    def end_response(self, payload: bytes, trailers: Fields) -> None:
        """Relay the last piece."""
        self._cycle.on_response(Event.END)
        words = self._last_piece(payload, trailers)
        if words:
            self.transport.write(words)

    def _response_head(self, head: ResponseHead) -> bytes:
        request, cycle = self._head, self._cycle
        assert request is not None
        kind = head.framing.kind
        unknown_length = kind is _CHUNKED or kind is _UNTIL_CLOSE
        self._chunked_response = unknown_length and request.version == 1
        self._ends_by_close = unknown_length and request.version == 0
        cycle.keep_alive = (
            request.keep_alive
            and cycle.request is _DONE  # answered early: what still comes is thrown away
            and not self._ends_by_close
            and not self._factory.is_draining  # no further request, whatever the client wants
        )
        return response_head_for_client(head, request.version, cycle.keep_alive)

    def _last_piece(self, payload: bytes, trailers: Fields) -> bytes:
        if not self._chunked_response:
            return payload
        last = encode_last_chunk(trailers)
        return encode_chunk(payload) + last if payload else last

    def send_error(self, error: ProxyError) -> None:
        """Answer with an error of ours; nothing was sent before."""
        request, cycle, exchange = self._head, self._cycle, self._exchange
        assert request is not None and exchange is not None
        cycle.keep_alive = request.keep_alive and cycle.request is Side.DONE and not self._factory.is_draining
        cycle.on_response(Event.WHOLE)
        as_json = wants_json(request.fields)
        answer = ErrorAnswer(error, exchange.record.request_id, as_json, exchange.error_fields)
        with_body = request.method != b"HEAD"
        if with_body:
            exchange.record.bytes_out = len(answer.body)
        self.transport.write(answer.http1(request.version, cycle.keep_alive, with_body))

    def break_response(self) -> None:
        """Cut the response that has begun, so that it cannot be taken for complete."""
        self._cycle.on_response(Event.BREAK)
