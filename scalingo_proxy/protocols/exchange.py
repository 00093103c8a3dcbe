"""One request on its way: sent to a backend, answered, accounted for.

The same object serves every protocol at the edge: what the client speaks is
hidden behind :class:`~scalingo_proxy.protocols.downstream.Downstream`.  All
waits of an exchange share one deadline, that of the connection or stream it
came on.
"""

from __future__ import annotations

from typing import Any

from scalingo_proxy.errors import BadResponse
from scalingo_proxy.model import App, Outcome
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.exchange_request import ExchangeRequest
from scalingo_proxy.protocols.relay import Relay
from scalingo_proxy.protocols.sent_proxy_header import proxy_header_bytes
from scalingo_proxy.protocols.websocket_relay import WebSocketRelay
from scalingo_proxy.routing.domain_policy import HSTS, redirect_location
from scalingo_proxy.transports.pipes import Pipes
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_forwarding import relayed_trailers
from scalingo_proxy.wire.http1_head import ResponseHead
from scalingo_proxy.wire.http2_head import websocket_refusal

__all__ = ["Exchange"]

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_WAITING, _RESPONDING, _OVER = Phase.WAITING, Phase.RESPONDING, Phase.OVER
_COMPLETED = Outcome.COMPLETED


class Exchange(ExchangeRequest):
    """One request and its response."""

    __slots__ = ()

    @property
    def body_limit(self) -> int:
        """How many bytes the request body may have."""
        return (self._pool or self._env).limits.body_bytes

    @property
    def may_wait_for_reader(self) -> bool:
        """Whether it can be the client's reading that goes on while nothing else does."""
        return self.response_begun and not self.is_leaving

    @property
    def error_fields(self) -> Fields:
        """What an error of ours says besides, as soon as the app is known."""
        pool = self._pool
        if pool is None or not pool.app.force_https or self._identity.client_scheme(self._head) != "https":
            return []
        return [(b"Strict-Transport-Security", HSTS)]

    def _redirected(self, app: App) -> bool:
        head = self._head
        scheme = self._identity.client_scheme(head)
        location = redirect_location(app, scheme, head.host, head.target.decode("ascii"))
        self._hsts = app.force_https and scheme == "https"
        if not location:
            return False
        answer = ResponseHead(301, b"Moved Permanently", 1)
        answer.fields = [(b"Location", location.encode("ascii")), (b"Content-Length", b"0")]
        answer = self._begin_response(answer)
        self._downstream.send_whole(answer, b"", [])
        if self.phase is not Phase.OVER:
            self._finish()
        return True

    def _preface_for(self, app: App) -> bytes:
        # The same for all requests of a client's connection, and so are the
        # backend connections that may carry them.
        peer, host = self._downstream.ends
        client = self.record.client
        return proxy_header_bytes(app.send_proxy, peer, host, client=client)

    # -- bodies that pass without coming in ----------------------------------

    @property
    def pipes(self) -> Pipes:
        """What they pass through."""
        return self._env.pipes

    @property
    def client_transport(self) -> Any:
        """Where the payload of the response may be written as it is; ``None`` where it may not."""
        return self._downstream.raw_transport

    @property
    def backend_transport(self) -> Any:
        """The same for the payload of the request, once none of it is kept to be sent again."""
        upload = self._upload
        if self._backend is None or upload is None or upload.kept is None or not upload.kept.is_lost:
            return None
        return self._backend.raw_transport

    def request_moved(self, count: int) -> None:
        """A piece of the request went by; 0: what had come before went on to the backend."""
        self.record.sent_bytes += count
        self.alive()

    def upload_held(self, is_held: bool) -> None:
        """The backend takes no more of the upload for now, or takes it again."""
        if self._upload is not None:
            self._upload.is_paused = is_held
        self.alive()

    def response_moved(self, count: int) -> None:
        """A piece of the response went by; 0: what had come before went on to the client."""
        self.record.bytes_out += count
        self.alive()

    def response_held(self, is_held: bool) -> None:
        """The client takes no more of the response for now, or takes it again."""
        self._response_paused = is_held
        self._downstream.writing_held(is_held)

    # -- relay the response --------------------------------------------------

    def response_bytes_seen(self) -> None:
        """A piece of a response head came: the backend has begun to answer."""
        self._note_first_byte()
        if self.phase is Phase.WAITING:
            self.phase = Phase.RESPONDING
        self.alive()

    def informational(self, head: ResponseHead) -> None:
        """An interim response; a 100 that nobody waits for goes no further."""
        if head.status == 100:
            upload = self._upload
            waited = upload is not None and upload.waits_for_continue
            if upload is not None:
                upload.waits_for_continue = False
            self.response_bytes_seen()
            self.record.first_byte_at = None  # it is no part of the answer
            if not waited:
                return
        else:
            self.response_bytes_seen()
        if self._head.version == 1:
            self._downstream.send_informational(head)

    def response_started(self, head: ResponseHead, payload: bytes) -> None:
        """The response's head is there, its end is not."""
        if self._head.websocket_key and self._is_no_websocket(head):
            return
        head = self._begin_response(head)
        self._note_answer()
        self.alive()
        self.record.bytes_out += len(payload)
        self._downstream.start_response(head, payload)

    def response_payload(self, payload: bytes) -> None:
        """A further piece of the response."""
        self.record.bytes_out += len(payload)
        self.alive()
        if payload:
            self._downstream.send_payload(payload)

    def response_whole(self, head: ResponseHead, payload: bytes, trailers: Fields, now: float) -> None:
        """The whole response came at once, *now*."""
        self._backend = None
        if self._head.websocket_key and self._is_no_websocket(head):
            return
        record = self.record
        record.status = head.status
        if record.first_byte_at is None:
            record.first_byte_at = now
        if self._hsts:
            head = self._with_hsts(head)
        self.response_begun = True
        self.phase = _RESPONDING
        record.bytes_out = len(payload)
        lease = self._lease
        if lease is not None:
            self._lease = None
            lease.release(_COMPLETED, now)
        self._downstream.send_whole(head, payload, relayed_trailers(trailers) if trailers else trailers)
        if self.phase is not _OVER:  # the client may have been lost inside the call
            self._finish_at(now)

    def response_ended(self, payload: bytes, trailers: Fields) -> None:
        """The last piece of the response."""
        self._backend = None
        self.record.bytes_out += len(payload)
        self._release(_COMPLETED)
        self._downstream.end_response(payload, relayed_trailers(trailers) if trailers else trailers)
        if self.phase is not Phase.OVER:
            self._finish()

    def _begin_response(self, head: ResponseHead) -> ResponseHead:
        """Note that an answer begins; gives the head that the client is sent."""
        record = self.record
        record.status = head.status
        if record.first_byte_at is None:
            record.first_byte_at = self._env.seconds()
        if self._hsts:
            head = self._with_hsts(head)
        self.response_begun = True
        self.phase = _RESPONDING
        return head

    @staticmethod
    def _with_hsts(head: ResponseHead) -> ResponseHead:
        """Say that the app is asked over TLS only, unless it has said so itself."""
        if any(name.lower() == b"strict-transport-security" for name, _ in head.fields):
            return head
        return head.with_field(b"Strict-Transport-Security", HSTS)

    def _note_answer(self) -> None:
        """Say that the backend answers, where that is news and the end may be far."""
        lease = self._lease
        if lease is not None and lease.member.wants_answer:
            lease.answered(self._env.seconds())
        if self._upload is not None:
            self._upload.kept = None  # what was kept of the body is not needed any more

    def _note_first_byte(self) -> None:
        if self.record.first_byte_at is None:
            self.record.first_byte_at = self._env.seconds()

    def pause_response(self) -> None:
        """The client does not keep up."""
        self._response_paused = True
        if self._backend is not None:
            self._backend.pause_response()

    def resume_response(self) -> None:
        """The client has caught up."""
        self._response_paused = False
        if self._backend is not None:
            self.alive()
            self._backend.resume_response()

    # -- tunnels -------------------------------------------------------------

    def backend_switched(self, head: ResponseHead, rest: bytes) -> None:
        """The backend answered 101: become a tunnel, if that is what was asked for."""
        asked = {token.strip().lower() for token in self._head.upgrade.split(b",")}
        backend, lease = self._backend, self._lease
        assert backend is not None and lease is not None
        if not self._head.upgrade or head.upgrade.strip().lower() not in asked:
            backend.abandon()
            self.backend_failed(BadResponse("the backend switched to a protocol nobody asked for"))
            return
        if self._head.websocket_key and self._is_no_websocket(head):
            return
        head = self._begin_response(head)
        self._note_answer()
        self.phase = Phase.TUNNEL
        self.alive()
        lease.become_tunnel()
        client = self._downstream.switch(head)
        kind = WebSocketRelay if head.upgrade.strip().lower() == b"websocket" else Relay
        self._relay = relay = kind(client, backend.transport, self.alive, self.tunnel_ended, self._env.pipes)
        self._backend = None
        backend.join(relay.backend)
        if rest:
            relay.backend.data_received(rest)
        self._downstream.join(relay.client)

    def _is_no_websocket(self, head: ResponseHead) -> bool:
        """Fail, if the backend's answer to a handshake of our own cannot be relayed as it is."""
        refusal = websocket_refusal(self._head.websocket_key, head)
        if refusal:
            self._end(BadResponse(refusal), Outcome.BAD_RESPONSE)
        return bool(refusal)

    def tunnel_ended(self) -> None:
        """Both sides of the tunnel are gone."""
        if self.phase is not Phase.OVER:
            self._count_tunnel()
            self._release(Outcome.COMPLETED)
            self._finish()
