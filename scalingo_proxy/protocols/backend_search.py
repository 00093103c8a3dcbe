"""Find a backend for one request: a lease, a connection, and the next if that fails.

The first half of an exchange, and of a tunnel that passes through.  Which app it is
for, what is sent over the connection, and what comes back, is not known here.
"""

from __future__ import annotations

from twisted.logger import Logger

from scalingo_proxy.errors import (
    BackendClosed,
    ConnectFailed,
    DrainTimeout,
    NoBackend,
    ProxyError,
)
from scalingo_proxy.model import App, Outcome, Record
from scalingo_proxy.protocols.backend_attempts import BackendAttempts
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.detour import NO_DETOUR
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.kept_body import KEPT_BYTES
from scalingo_proxy.protocols.upload import Upload
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.retries import IDEMPOTENT
from scalingo_proxy.wire.http1_head import RequestHead

__all__ = ["BackendSearch"]

_log = Logger()

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_RESOLVING = Phase.RESOLVING


class BackendSearch(BackendAttempts):
    """The way from an app's pool to a connection that can carry a request.

    A base class, because an object of its own for each request would cost
    more than it explains: whoever derives from it says what happens with the
    connection (:meth:`_send`) and with a failure (:meth:`fail`).

    :ivar record: what will be told of the exchange.
    """

    __slots__ = (
        "_head",
        "_upload",
    )

    _head: RequestHead
    _upload: Upload | None

    def __init__(self, env: Environment, timed: Timed, record: Record) -> None:
        self._env = env
        self._timed = timed
        self.record = record
        self.phase = _RESOLVING
        self._pool = None
        self._lease = None
        self._detour = NO_DETOUR
        self._preface = b""

    def _leave_tunnel(self) -> None:
        """Begin to end a tunnel in order, unless that was begun before."""
        raise NotImplementedError

    @property
    def moved_at(self) -> float:
        """When something of a tunnel moved last: its deadline tells, and costs nothing more."""
        pool = self._pool
        return self._timed.deadline - (self._env.timeouts if pool is None else pool.timeouts).idle

    # -- a lease -------------------------------------------------------------

    def _is_admitted(self, app: App) -> bool:
        """Whether *app* lets this client have one more request; it has ended if not."""
        try:
            self._env.policies.admit_to(app, self.record.client, self._env.seconds())
        except ProxyError as error:
            self.fail(error)
            return False
        return True

    def _find_backend(self, pool: Pool) -> None:
        lease = pool.lease_at_once(self._detour.tried) or self._lease_or_wait(pool)
        if lease is not None:
            self._leased(lease)

    def _lease_or_wait(self, pool: Pool) -> Lease | None:
        """A place where not everybody is well, or free: None if it is waited for, or there is none."""
        record = self.record
        # The moment it began is good enough for whoever has not waited yet, and costs no look at a clock.
        now = self._env.seconds() if record.attempts or self._detour.waited else record.started_at
        try:
            lease = self._lease_of(pool, now)
            if lease is None:
                self._wait_in_queue(pool)
            return lease
        except ProxyError as error:
            detour = self._detour
            if detour.spared is not None and isinstance(detour.last_error, ConnectFailed):
                # Nobody else is there; who only lost a kept connection still is.
                spared, detour.spared = detour.spared, None
                detour.tried = tuple(member for member in detour.tried if member is not spared)
                self._find_backend(pool)
                return None
            self._note_no_wait()
            self._note_choice(pool)
            if detour.last_error is not None:
                why = "" if isinstance(error, NoBackend) else f": {error.detail}"
                self._note_denied(f"there was no other backend{why}")
            # "No other backend" says less than what the last one did.
            self.fail(detour.last_error or error)
            return None

    def _lease_of(self, pool: Pool, now: float) -> Lease | None:
        """A place, if there is one now; also at a member to be tried, if failing there can be made good."""
        upload = self._upload
        may_try = self._head.method in IDEMPOTENT and (
            upload is None or upload.is_complete or 0 < self._head.framing.length <= KEPT_BYTES
        )
        return pool.lease(self._detour.tried, now, may_try)

    def _wait_in_queue(self, pool: Pool) -> None:
        now = self._env.seconds()
        self.phase = Phase.QUEUED
        detour = self._leave_the_way()
        detour.queued_since = now
        # All waits of one request together last as long as one may.
        left = pool.timeouts.queue - self.record.queue_seconds
        self._env.deadlines.set(self._timed, now + left)
        self._note_wait(pool, now)
        ticket = pool.enqueue(now, self._granted, self._refused, detour.tried)
        if ticket.is_waiting:
            detour.ticket = ticket

    def _granted(self, lease: Lease) -> None:
        self._detour.ticket = None
        self._note_queue_time()
        try:
            self._leased(lease)
        except Exception:
            self.broke()  # whoever gave the place has no part in it

    def _refused(self, error: ProxyError) -> None:
        detour = self._detour
        detour.ticket = None
        self._note_queue_time()
        self.fail(detour.last_error or error)

    def _note_queue_time(self) -> None:
        detour = self._detour
        seconds = self._env.seconds() - detour.queued_since
        self.record.queue_seconds += seconds
        detour.waited += seconds
        self._note_waited(seconds)

    def _leased(self, lease: Lease) -> None:
        record, pool, member = self.record, lease.pool, lease.member
        # What _note_lease does, spelled out (0.1 µs less).
        self._lease = lease
        record.backend = member.backend.address
        record.lineup = pool.lineup
        if pool.is_crowded or member.in_flight >= member.limit:
            self._note_crowd(pool, member)
        record.attempts += 1
        if self._detour is NO_DETOUR:
            now = record.started_at  # it still is that moment
        else:
            now = self._env.seconds()
            if self._is_repeated():
                self._connect()
                return
        # A request that cannot be sent twice must not meet a connection that
        # the backend has closed already.
        upload = self._upload
        must_be_alive = not ((upload is None or upload.is_complete) and self._head.method in IDEMPOTENT)
        backend = self._env.connections.take_idle(member, self, must_be_alive, self._preface)  # type: ignore[arg-type]
        if backend is not None:
            record.reused = True
            self._send(backend, now)
        else:
            self._connect()

    def _is_repeated(self) -> bool:
        """Whether it is sent again because a backend has closed on it.

        A kept connection would leave in doubt why the next one does.
        """
        detour = self._detour
        if detour.retried_for:
            self._env.retries[detour.retried_for] += 1
        return bool(detour.retried_for) and isinstance(detour.last_error, BackendClosed)

    # -- the backend leaves --------------------------------------------------

    @property
    def member(self) -> Member | None:
        """Whom it has a place at now."""
        return self._lease.member if self._lease is not None else None

    def drain_deadline_reached(self) -> None:
        """The backend left the app, and is waited for no longer; or the proxy stops.

        What was not sent yet goes elsewhere, tunnels end in order, all else is cut.
        """
        if self.phase is Phase.TUNNEL:
            self._leave_tunnel()
        elif self.phase is Phase.CONNECTING:
            pool, abandon = self._pool, self._attempt_over(self._env.seconds())
            if abandon is not None:
                abandon()
            self._note_attempt("it left the app while it was being connected")
            self._release(Outcome.ABANDONED)
            assert pool is not None
            self._find_backend(pool)
        else:
            self.fail(DrainTimeout("the backend was taken away before it had answered"))

    # -- giving up -----------------------------------------------------------

    def _stop_searching(self) -> None:
        """Cancel whatever is under way; the phase says already that it is over."""
        detour = self._detour
        if detour.resolving is not None:
            resolving, detour.resolving = detour.resolving, None
            try:
                resolving.cancel()
            except Exception:
                _log.failure("the resolver failed to cancel the search for {host!r}", host=self._head.host)
        if detour.ticket is not None:
            ticket, detour.ticket = detour.ticket, None
            self._note_queue_time()
            ticket.cancel()
        if detour.abandon_connect is not None:
            abandon = self._attempt_over(self._env.seconds())
            assert abandon is not None
            abandon()
