"""The request of an exchange on its way to a backend, with the body that belongs to it.

Which backend that is was found before; what it answers is the business of
:mod:`scalingo_proxy.protocols.exchange`.
"""

from __future__ import annotations

from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.exchange_ending import ExchangeEnding
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.kept_body import KeptBody
from scalingo_proxy.protocols.upload import Upload
from scalingo_proxy.routing.retries import is_repeatable
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_forwarding import relayed_trailers, request_head_for_backend

__all__ = ["ExchangeRequest"]

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_WAITING = Phase.WAITING


class ExchangeRequest(ExchangeEnding):
    """The sending half of an exchange."""

    __slots__ = ()

    def _send(self, backend: HTTPBackend, now: float) -> None:
        self._backend = backend
        head, record, upload = self._head, self.record, self._upload
        words = request_head_for_backend(
            head, self._identity, record.request_id.encode("ascii"), record.wall_time
        )
        record.sent_bytes = len(words)
        # All is in order before the first byte goes out: an answer may come inside the call.
        if upload is None:
            # Nothing but a head, as most are.
            timed = self._timed
            self.phase = _WAITING
            timed.deadline = at = now + self._pool.timeouts.first_byte  # type: ignore[union-attr]
            if at < timed.covered_from:
                self._env.deadlines.look_sooner(timed)
            backend.send_request(head, words)
            return
        was_complete = upload.is_complete
        if was_complete:
            self._request_sent(upload)
        else:
            self.phase = Phase.SENDING
            self.alive()
        backend.send_request(head, words)
        if upload.kept is not None:
            self._repeat_body(backend, upload, upload.kept)
        if self._backend is backend and not was_complete:
            self._downstream.open_upload()

    def _repeat_body(self, backend: HTTPBackend, upload: Upload, kept: KeptBody) -> None:
        """Send what another backend was sent before, and has not answered."""
        payload = kept.payload
        if self._backend is backend:
            self.record.sent_bytes += len(payload)
            if upload.is_complete:
                backend.end_request(relayed_trailers(kept.trailers), payload)
            else:
                backend.send_payload(payload)

    def _keep(self, upload: Upload, payload: bytes) -> KeptBody:
        """Keep a piece of the body, if the request may be sent again."""
        kept = upload.kept
        if kept is None:
            wanted = is_repeatable(self._head.method, self._head.fields) and not self.response_begun
            kept = upload.kept = KeptBody(wanted)
        kept.add(payload)
        return kept

    def _request_sent(self, upload: Upload) -> None:
        if self.response_begun or upload.is_paused:
            return  # a paused one is sent when the backend has taken the rest
        self.phase = _WAITING
        self._env.deadlines.set(self._timed, self._env.seconds() + self._timeouts.first_byte)

    def request_payload(self, payload: bytes) -> None:
        """The client sent a piece of its body."""
        upload = self._upload
        assert upload is not None
        self._keep(upload, payload)
        upload.waits_for_continue = False
        self.alive()
        if self._backend is not None:
            self.record.sent_bytes += len(payload)
            self._backend.send_payload(payload)

    def request_ended(self, trailers: Fields, payload: bytes = b"") -> None:
        """The client's body is complete with *payload*."""
        upload = self._upload
        assert upload is not None
        upload.is_complete = True
        self._keep(upload, payload).trailers = trailers
        upload.waits_for_continue = False
        if self._backend is not None:
            self.record.sent_bytes += len(payload)
            self._backend.end_request(relayed_trailers(trailers), payload)
        if self.phase is Phase.SENDING:
            self._request_sent(upload)
        else:
            self.alive()

    def pause_upload(self) -> None:
        """The backend does not keep up with the request."""
        upload = self._upload
        if upload is not None:
            upload.is_paused = True
            if not upload.is_complete:
                self._downstream.close_upload()
        self.alive()

    def resume_upload(self) -> None:
        """The backend has caught up."""
        upload = self._upload
        if upload is None:
            self.alive()
            return
        upload.is_paused = False
        self.alive()
        if not upload.is_complete:
            self._downstream.open_upload()
        elif self.phase is Phase.SENDING:
            self._request_sent(upload)

    def alive(self) -> None:
        """Something moved: the wait begins anew."""
        timeouts, upload = self._timeouts, self._upload
        if upload is not None and self.phase is Phase.SENDING:
            if upload.is_paused:
                wait = timeouts.idle  # a backend that takes nothing is silence, not the client's stall
            elif upload.waits_for_continue:
                wait = timeouts.first_byte
            else:
                wait = timeouts.request_body
        elif self.phase is Phase.RESPONDING or self.phase is Phase.TUNNEL:
            wait = timeouts.idle
        else:
            return
        self._env.deadlines.set(self._timed, self._env.seconds() + wait)
