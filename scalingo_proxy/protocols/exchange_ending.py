"""How an exchange ends: answered, too late, abandoned, broken; and that it ends once.

Every end gives the lease back with a word on the backend, tells the client what
can still be told, and leaves one record.  How requests and responses are
relayed until then is the business of :mod:`scalingo_proxy.protocols.exchange`.
"""

from __future__ import annotations

from typing import cast

from twisted.logger import Logger

from scalingo_proxy.errors import (
    BackendClosed,
    ClientClosed,
    DrainTimeout,
    FirstByteTimeout,
    IdleTimeout,
    InternalError,
    ProxyError,
    RequestTimeout,
    ResolverUnavailable,
)
from scalingo_proxy.model import Outcome, Record
from scalingo_proxy.protocols.app_search import AppSearch
from scalingo_proxy.protocols.deadlines import NEVER
from scalingo_proxy.protocols.downstream import Downstream, Phase
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.own_page import SMALL_PAGE_BYTES, OwnPage
from scalingo_proxy.protocols.relay import TUNNEL_LEFT, Relay
from scalingo_proxy.protocols.upload import Upload
from scalingo_proxy.routing.members import Membership
from scalingo_proxy.routing.pool import Lease
from scalingo_proxy.routing.retries import MAX_BACKENDS, is_repeatable, may_send_again
from scalingo_proxy.wire.error_answer import ErrorAnswer, Page, wants_json
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead

__all__ = ["ExchangeEnding"]

_log = Logger()

#: A kept connection that ends within this time of the request was closed before.
_AT_ONCE_SECONDS = 1.0

_KEPT_CLOSED = "the backend had closed the connection that was kept"

_OVER = Phase.OVER


class ExchangeEnding(AppSearch):
    """The ends of an exchange.

    :ivar response_begun: a byte of a final response went to the client.
    """

    __slots__ = (
        "_backend",
        "_downstream",
        "_hsts",
        "_relay",
        "_response_paused",
        "response_begun",
    )

    def __init__(
        self,
        env: Environment,
        downstream: Downstream,
        head: RequestHead,
        identity: ClientIdentity,
        record: Record,
    ) -> None:
        AppSearch.__init__(self, env, downstream, record)  # type: ignore[arg-type]
        self._head = head
        self._upload = Upload(head.expect_continue) if head.framing.has_body else None
        self._downstream = downstream
        self._identity = identity
        record.tls = identity.tls
        self._hsts = False
        self.response_begun = False
        self._response_paused: bool | None = None  # None: never was
        self._backend: HTTPBackend | None = None
        self._relay: Relay | None = None

    def backend_lost(self, backend: HTTPBackend, response_begun: bool) -> None:
        """The backend closed before its response was complete.

        :param response_begun: a byte of a response had come, interim ones included.
        """
        self._backend = None
        env, lease, pool, detour = self._env, self._lease, self._pool, self._leave_the_way()
        detour.last_error = error = BackendClosed()
        assert lease is not None and pool is not None
        had_closed = not response_begun and self._had_closed_before()
        if had_closed:
            env.connections.had_closed(backend)
        # Who waited for the client, or met a connection that was closed already, has done nothing wrong.
        upload = self._upload
        is_waiting = upload is not None and not upload.is_complete
        is_blameless = had_closed or is_waiting or self._response_paused is not None
        outcome = Outcome.ABANDONED if is_blameless else Outcome.CLOSED
        if self.response_begun or not may_send_again(
            True,
            is_repeatable(self._head.method, self._head.fields),
            upload is not None and upload.kept is not None and upload.kept.is_lost,
            response_begun,
        ):
            if not self.response_begun:
                self._note_denied("the backend may have executed it, so it is not sent again")
            self._end(error, outcome)
            return
        member = lease.member
        if had_closed and self._seconds_left() > 0 and self._ask_beside_kept(lease):
            pass
        elif member.is_on_probation or member.is_on_trial or pool.budget.spend(env.seconds()):
            # Who tried a backend that is back from quarantine did so on our account, and one at a time.
            detour.retried_for = "backend-closed"
            self._hold_upload()
            self._try_another(outcome)
        else:
            env.retries_refused += 1
            self._note_denied("the app's budget for sending requests again was spent")
            self._end(error, outcome)

    def _ask_beside_kept(self, lease: Lease) -> bool:
        """Ask somebody else, or the same backend again if nobody else has room.

        Nothing says that the backend has failed, and a kept connection is lost only once: the app's
        budget is not for that.
        """
        pool, member, detour = lease.pool, lease.member, self._detour
        if len(detour.tried) + 1 < MAX_BACKENDS and pool.has_room_beside((*detour.tried, member)):
            self._hold_upload()
            detour.retried_for, detour.spared = "kept-connection", member
            self._try_another(Outcome.ABANDONED, _KEPT_CLOSED)
        elif member.membership is Membership.SERVING:
            self._hold_upload()
            self._env.retries["kept-connection"] += 1
            self._note_attempt(_KEPT_CLOSED, is_repeated=True)
            self._connect()
        else:
            return False
        return True

    def _had_closed_before(self) -> bool:
        """Whether the backend most likely closed while the connection was kept, before it saw the request.

        Then it is told at once, and not after the request was worked on for a while.
        """
        if not self.record.reused:
            return False
        if self.phase is not Phase.WAITING:
            return True
        until_late = self._timed.deadline - self._env.seconds()
        return self._timeouts.first_byte - until_late < _AT_ONCE_SECONDS

    def _hold_upload(self) -> None:
        upload = self._upload
        if upload is not None:
            upload.is_paused = False
            if not upload.is_complete:
                self._downstream.hold_upload()

    def backend_failed(self, error: ProxyError) -> None:
        """What the backend sent is unusable."""
        self._backend = None
        self._end(error, Outcome.BAD_RESPONSE)

    def deadline_reached(self) -> None:
        """The current wait took too long."""
        phase, upload = self.phase, self._upload
        if phase is Phase.RESOLVING:
            self._end(ResolverUnavailable(), Outcome.ABANDONED)
        elif phase is Phase.QUEUED:
            detour = self._detour
            assert detour.ticket is not None
            self._end(detour.last_error or detour.ticket.expired_error(), Outcome.ABANDONED)
        elif phase is Phase.WAITING:
            self._end(FirstByteTimeout(), Outcome.TIMED_OUT)
        elif phase is Phase.SENDING and upload is not None and upload.waits_for_continue:
            # Backends need not say that they will read; a client that insists on it waits by its own will.
            self._end(FirstByteTimeout(), Outcome.ABANDONED)
        elif phase is Phase.SENDING and not (upload is not None and upload.is_paused):
            self._end(RequestTimeout("the request body stalled"), Outcome.ABANDONED)
        elif self.is_leaving:
            self._leave_further()
        else:
            # Silence in an answer is the app's way to answer; before it, the backend takes or gives nothing.
            is_blameless = self.response_begun or self._client_is_silent
            self._end(IdleTimeout(), Outcome.ABANDONED if is_blameless else Outcome.TIMED_OUT)

    @property
    def _client_is_silent(self) -> bool:
        """Whether it is the client that the silence comes from: the backend is not to blame then."""
        upload = self._upload
        stalls = upload is not None and not upload.is_complete and not upload.is_paused
        return stalls or bool(self._response_paused) or self.phase is Phase.TUNNEL

    def fail(self, error: ProxyError) -> None:
        """End with an error of ours; the backend, if there is one, is not to blame."""
        self._end(error, Outcome.ABANDONED)

    def client_left(self) -> None:
        """The client closed: cancel everything, tell nobody but the log."""
        self._end(ClientClosed(), Outcome.ABANDONED)

    @property
    def is_leaving(self) -> bool:
        """Whether it is a tunnel that is being ended."""
        return self._relay is not None and self._relay.is_leaving

    def _leave_tunnel(self) -> None:
        relay = self._relay
        assert relay is not None
        if not relay.is_leaving:
            self.record.code, self.record.cause = DrainTimeout.code, TUNNEL_LEFT
            self._wait_for_end(relay.leave())

    def _leave_further(self) -> None:
        relay = self._relay
        assert relay is not None
        seconds = relay.leave_further()
        if seconds or self.phase is Phase.OVER:
            self._wait_for_end(seconds)
        else:
            self._end(DrainTimeout(), Outcome.ABANDONED)

    def _wait_for_end(self, seconds: float) -> None:
        if self.phase is not Phase.OVER:
            self._env.deadlines.set(self._timed, self._env.seconds() + seconds)

    def cut(self) -> None:
        """The proxy stops and cannot wait any longer."""
        self._end(DrainTimeout(), Outcome.ABANDONED)

    def broke(self) -> None:
        """End because of a bug of ours, which the exception being handled tells of."""
        _log.failure("request {request_id} failed", request_id=self.record.request_id)
        self._end(InternalError(), Outcome.ABANDONED)

    def _count_tunnel(self) -> None:
        relay = self._relay
        assert relay is not None
        self.record.bytes_in += relay.client.received
        self.record.sent_bytes += relay.client.received
        self.record.bytes_out += relay.backend.received

    def _end(self, error: ProxyError, outcome: Outcome) -> None:
        if self.phase is Phase.OVER:
            return
        self.phase = Phase.OVER  # before anybody else is called: none of them can end it again
        self.record.code = error.code
        self.record.cause = error.detail
        if not self.response_begun:
            self.record.status = error.status
        # Whatever fails on the way, all of it is done.
        try:
            self._let_go(outcome)
        finally:
            is_over = True
            try:
                is_over = self._tell_client(error)
            finally:
                if is_over and self.record.finished_at is None:
                    self._finish()

    def _let_go(self, outcome: Outcome) -> None:
        try:
            self._stop_searching()
            if self._backend is not None:
                backend, self._backend = self._backend, None
                backend.abandon()
        finally:
            self._release(outcome)

    def _tell_client(self, error: ProxyError) -> bool:
        """Say what can still be said; False: a large page is on its way, which ends the exchange."""
        if self._relay is not None:
            self._count_tunnel()
            self._relay.abort()
        elif type(error) is ClientClosed:
            pass
        elif self.response_begun:
            self._downstream.break_response()
        else:
            page = self._own_page(error)
            if page is not None:
                return self._send_page(error, page)
            self._downstream.send_error(error)
        return True

    # -- an app's own page ---------------------------------------------------

    def _own_page(self, error: ProxyError) -> Page | None:
        """The page that the app has for *error* and that can be sent now."""
        pool, find = self._pool, self._env.page_for
        if pool is None or find is None or not pool.app.error_pages or wants_json(self._head.fields):
            return None
        page, upload = find(pool.app, error), self._upload
        if page is not None and len(page.body) > SMALL_PAGE_BYTES and upload is not None:
            if not upload.is_complete:
                return None  # the client may read nothing before it has sent everything
        return page

    @property
    def error_fields(self) -> Fields:
        """What an error of ours says besides, as soon as the app is known."""
        raise NotImplementedError

    def _send_page(self, error: ProxyError, page: Page) -> bool:
        answer = ErrorAnswer(error, self.record.request_id, False, self.error_fields, page)
        head = ResponseHead(answer.status, answer.reason, 1)
        head.fields = answer.fields
        body = answer.body if self._head.method != b"HEAD" else b""
        self.response_begun = True
        if len(body) <= SMALL_PAGE_BYTES:
            self.record.bytes_out = len(body)
            self._downstream.send_whole(head, body, [])
            return True
        self.phase = Phase.RESPONDING
        source = OwnPage(self, body)
        self._backend = cast("HTTPBackend", source)
        self._env.deadlines.set(self._timed, self._env.seconds() + self._timeouts.idle)
        self._downstream.start_response(head, b"")
        source.go_on()
        return False

    def response_payload(self, payload: bytes) -> None:
        """A further piece of the response."""
        raise NotImplementedError

    def response_ended(self, payload: bytes, trailers: Fields) -> None:
        """The last piece of the response."""
        raise NotImplementedError

    def _finish(self) -> None:
        self._finish_at(self._env.seconds())

    def _finish_at(self, now: float) -> None:
        self.phase = _OVER
        record = self.record
        record.finished_at = now
        self._timed.deadline = NEVER
        self._env.finished(record)
        self._downstream.exchange_over()
