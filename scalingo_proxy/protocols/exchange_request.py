"""The request of an exchange on its way to a backend, with the body that belongs to it.

Which backend that is was found before; what it answers is the business of
:mod:`scalingo_proxy.protocols.exchange`.
"""

from __future__ import annotations

from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.exchange_ending import ExchangeEnding
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.kept_body import KeptBody
from scalingo_proxy.routing.retries import is_repeatable
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_forwarding import relayed_trailers, request_head_for_backend

__all__ = ["ExchangeRequest"]

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_WAITING = Phase.WAITING


class ExchangeRequest(ExchangeEnding):
    """The sending half of an exchange."""

    __slots__ = ()

    def _send(self, backend: HTTPBackend) -> None:
        self._backend = backend
        head, record = self._head, self.record
        words = request_head_for_backend(
            head, self._identity, record.request_id.encode("ascii"), record.wall_time
        )
        record.sent_bytes = len(words)
        # All is in order before the first byte goes out: an answer may come inside the call.
        if self._request_complete and self._kept is None and not self._upload_paused:
            # Nothing but a head, as most are.
            env, timed, pool = self._env, self._timed, self._pool
            assert pool is not None
            self.phase = _WAITING
            timed.deadline = at = env.seconds() + pool.timeouts.first_byte
            if at < timed.covered_from:
                env.deadlines.look_sooner(timed)
            backend.send_request(head, words)
            return
        if self._request_complete:
            self._request_sent()
            backend.send_request(head, words)
            if self._kept is not None:
                self._repeat_body(backend, self._kept)
            return
        self.phase = Phase.SENDING
        self.alive()
        backend.send_request(head, words)
        if self._kept is not None:
            self._repeat_body(backend, self._kept)
        if self._backend is backend:
            self._downstream.open_upload()

    def _repeat_body(self, backend: HTTPBackend, kept: KeptBody) -> None:
        """Send what another backend was sent before, and has not answered."""
        payload = kept.payload
        if self._backend is backend:
            self.record.sent_bytes += len(payload)
            if self._request_complete:
                backend.end_request(relayed_trailers(kept.trailers), payload)
            else:
                backend.send_payload(payload)

    def _keep(self, payload: bytes) -> KeptBody:
        """Keep a piece of the body, if the request may be sent again."""
        kept = self._kept
        if kept is None:
            wanted = is_repeatable(self._head.method, self._head.fields) and not self.response_begun
            kept = self._kept = KeptBody(wanted)
        kept.add(payload)
        return kept

    def _request_sent(self) -> None:
        if self.response_begun or self._upload_paused:
            return  # a paused one is sent when the backend has taken the rest
        self.phase = _WAITING
        self._env.deadlines.set(self._timed, self._env.seconds() + self._timeouts.first_byte)

    def request_payload(self, payload: bytes) -> None:
        """The client sent a piece of its body."""
        self._keep(payload)
        self._waits_for_continue = False
        self.alive()
        if self._backend is not None:
            self.record.sent_bytes += len(payload)
            self._backend.send_payload(payload)

    def request_ended(self, trailers: Fields, payload: bytes = b"") -> None:
        """The client's body is complete with *payload*."""
        self._request_complete = True
        self._keep(payload).trailers = trailers
        self._waits_for_continue = False
        if self._backend is not None:
            self.record.sent_bytes += len(payload)
            self._backend.end_request(relayed_trailers(trailers), payload)
        if self.phase is Phase.SENDING:
            self._request_sent()
        else:
            self.alive()

    def pause_upload(self) -> None:
        """The backend does not keep up with the upload."""
        self._upload_paused = True
        if not self._request_complete:
            self._downstream.close_upload()
        self.alive()

    def resume_upload(self) -> None:
        """The backend has caught up."""
        self._upload_paused = False
        self.alive()
        if not self._request_complete:
            self._downstream.open_upload()
        elif self.phase is Phase.SENDING:
            self._request_sent()

    def alive(self) -> None:
        """Something moved: the wait begins anew."""
        timeouts = self._timeouts
        if self.phase is Phase.SENDING:
            if self._upload_paused:
                wait = timeouts.idle  # a backend that takes nothing is silence, not the client's stall
            elif self._waits_for_continue:
                wait = timeouts.first_byte
            else:
                wait = timeouts.request_body
        elif self.phase is Phase.RESPONDING or self.phase is Phase.TUNNEL:
            wait = timeouts.idle
        else:
            return
        self._env.deadlines.set(self._timed, self._env.seconds() + wait)
