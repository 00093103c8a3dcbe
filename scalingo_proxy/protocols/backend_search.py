"""Find a backend for one request: its app, a lease, a connection, and the next if that fails.

The first half of an exchange.  What is sent over the connection, and what
comes back, is the other half's business.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import (
    BackendClosed,
    BodyTooLarge,
    ConnectFailed,
    DrainTimeout,
    Misdirected,
    NoBackend,
    ProxyError,
    ResolverUnavailable,
)
from scalingo_proxy.model import App, Limits, Outcome, Record, Route, RouteQuery
from scalingo_proxy.protocols.backend_attempts import BackendAttempts
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.kept_body import KEPT_BYTES
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.queue import Ticket
from scalingo_proxy.routing.retries import IDEMPOTENT
from scalingo_proxy.wire.http1_head import RequestHead

__all__ = ["BackendSearch"]

_log = Logger()

_ENDS_TLS_ITSELF = "the app of this host ends TLS itself; ask it over a TLS connection of its own"


class BackendSearch(BackendAttempts):
    """The way from a request head to a connection that can carry it.

    A base class, because an object of its own for each request would cost
    more than it explains: whoever derives from it says what happens with the
    connection (:meth:`_send`), with a failure (:meth:`fail`) and where an app
    wants its clients to ask (:meth:`_redirected`).

    :ivar record: what will be told of the exchange.
    """

    __slots__ = (
        "_head",
        "_queued_since",
        "_request_complete",
        "_resolving",
        "_ticket",
    )

    _head: RequestHead
    _request_complete: bool

    def __init__(self, env: Environment, timed: Timed, record: Record) -> None:
        self._env = env
        self._timed = timed
        self.record = record
        self.phase = Phase.RESOLVING
        self._pool = None
        self._lease = None
        self._ticket: Ticket | None = None
        self._resolving: Deferred[Any] | None = None
        self._reused = False
        self._retried_for = ""
        self._preface = b""
        self._abandon_connect = None
        self._connecting_since = 0.0
        self._queued_since = 0.0
        self._waited = 0.0
        self._tried = ()
        self._spared = None
        self._last_error = None

    def _redirected(self, app: App) -> bool:
        """Send the client elsewhere, if the policies of *app* say so."""
        raise NotImplementedError

    def _preface_for(self, app: App) -> bytes:
        """What a connection begins with that *app* wants to be told by whose it is."""
        raise NotImplementedError

    def _leave_tunnel(self) -> None:
        """Begin to end a tunnel in order, unless that was begun before."""
        raise NotImplementedError

    @property
    def moved_at(self) -> float:
        """When something of a tunnel moved last: its deadline tells, and costs nothing more."""
        pool = self._pool
        return self._timed.deadline - (self._env.timeouts if pool is None else pool.timeouts).idle

    # -- the app -------------------------------------------------------------

    def start(self) -> None:
        """Resolve, lease, connect and send, as far as that goes at once."""
        env = self._env
        try:
            answer = env.resolver.resolve(RouteQuery(self._head.host, "http", self.record.client))
        except ProxyError as error:
            self.fail(error)
        except Exception as error:
            self._resolver_failed(error)
        else:
            if type(answer) is Route:
                self._routed(answer)
            elif isinstance(answer, Deferred):
                self._resolving = answer
                env.deadlines.set(self._timed, env.seconds() + env.timeouts.connect)
                answer.addCallbacks(self._resolved, self._unresolved)
            else:
                self._resolved(answer)

    def _resolved(self, answer: Any) -> None:
        self._resolving = None
        if self.phase is not Phase.RESOLVING:
            return
        self._waited = self._env.seconds() - self.record.started_at
        if not isinstance(answer, Route):
            self._resolver_failed(TypeError(f"{type(answer).__name__} is no Route"))
            return
        try:
            self._routed(answer)
        except Exception:
            self.broke()

    def _unresolved(self, failure: Failure) -> None:
        self._resolving = None
        if self.phase is not Phase.RESOLVING:
            return
        if isinstance(failure.value, ProxyError):
            self.fail(failure.value)
        else:
            self._resolver_failed(failure)

    def _resolver_failed(self, reason: Failure | Exception) -> None:
        failure = reason if isinstance(reason, Failure) else Failure(reason)  # type: ignore[no-untyped-call]
        _log.failure("the resolver failed on {host!r}", failure, host=self._head.host)
        self.fail(ResolverUnavailable())

    def _routed(self, route: Route) -> None:
        self._pool = pool = self._env.pools.for_route(route)
        app = route.app
        self.record.app = app.name
        self.record.route = route
        if (app.access or app.rate_limit) and not self._is_admitted(app):
            return
        if (app.force_https or app.canonical) and self._redirected(app):
            return
        if app.tls == "passthrough":
            # Its backends speak TLS with the client alone; a request in clear would only
            # fail there, and be held against them.
            self.fail(Misdirected(_ENDS_TLS_ITSELF))
            return
        if app.send_proxy:
            self._preface = self._preface_for(app)
        # One request more that others may be repeated for.
        budget = pool.budget
        if self.record.started_at >= budget.turns_at:
            budget.turn(self.record.started_at)
        budget.requests += 1
        if self._head.framing.length > pool.limits.body_bytes:
            self.fail(BodyTooLarge())
        else:
            self._find_backend(pool)

    def _is_admitted(self, app: App) -> bool:
        """Whether *app* lets this client have one more request; it has ended if not."""
        try:
            self._env.policies.admit_to(app, self.record.client, self._env.seconds())
        except ProxyError as error:
            self.fail(error)
            return False
        return True

    @property
    def _limits(self) -> Limits:
        return (self._pool or self._env).limits

    # -- a lease -------------------------------------------------------------

    def _find_backend(self, pool: Pool) -> None:
        record = self.record
        # The moment it began is good enough for whoever has not waited yet, and costs no look at a clock.
        now = self._env.seconds() if record.attempts or self._waited else record.started_at
        try:
            lease = self._lease_of(pool, now)
            if lease is None:
                self._wait_in_queue(pool)
                return
        except ProxyError as error:
            if self._spared is not None and isinstance(self._last_error, ConnectFailed):
                # Nobody else is there; who only lost a kept connection still is.
                spared, self._spared = self._spared, None
                self._tried = tuple(member for member in self._tried if member is not spared)
                self._find_backend(pool)
                return
            self._note_no_wait()
            self._note_choice(pool)
            if self._last_error is not None:
                why = "" if isinstance(error, NoBackend) else f": {error.detail}"
                self._note_denied(f"there was no other backend{why}")
            # "No other backend" says less than what the last one did.
            self.fail(self._last_error or error)
        else:
            self._leased(lease)

    def _lease_of(self, pool: Pool, now: float) -> Lease | None:
        """A place, if there is one now; also at a member to be tried, if failing there can be made good."""
        may_try = self._head.method in IDEMPOTENT and (
            self._request_complete or 0 < self._head.framing.length <= KEPT_BYTES
        )
        return pool.lease(self._tried, now, may_try)

    def _wait_in_queue(self, pool: Pool) -> None:
        now = self._env.seconds()
        self.phase = Phase.QUEUED
        self._queued_since = now
        # All waits of one request together last as long as one may.
        left = pool.timeouts.queue - self.record.queue_seconds
        self._env.deadlines.set(self._timed, now + left)
        self._note_wait(pool, now)
        ticket = pool.enqueue(now, self._granted, self._refused, self._tried)
        if ticket.is_waiting:
            self._ticket = ticket

    def _granted(self, lease: Lease) -> None:
        self._ticket = None
        self._note_queue_time()
        try:
            self._leased(lease)
        except Exception:
            self.broke()  # whoever gave the place has no part in it

    def _refused(self, error: ProxyError) -> None:
        self._ticket = None
        self._note_queue_time()
        self.fail(self._last_error or error)

    def _note_queue_time(self) -> None:
        seconds = self._env.seconds() - self._queued_since
        self.record.queue_seconds += seconds
        self._waited += seconds
        self._note_waited(seconds)

    def _leased(self, lease: Lease) -> None:
        self._note_lease(lease)
        if self._retried_for:
            self._env.retries[self._retried_for] += 1
            if isinstance(self._last_error, BackendClosed):
                self._connect()  # one backend has closed on it; a kept connection would leave in doubt why
                return
        # A request that cannot be sent twice must not meet a connection that
        # the backend has closed already.
        must_be_alive = not (self._request_complete and self._head.method in IDEMPOTENT)
        backend = self._env.connections.take_idle(lease.member, self, must_be_alive, self._preface)  # type: ignore[arg-type]
        if backend is not None:
            self._reused = self.record.reused = True
            self._send(backend)
        else:
            self._connect()

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
            pool, abandon = self._pool, self._attempt_over()
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
        if self._resolving is not None:
            resolving, self._resolving = self._resolving, None
            try:
                resolving.cancel()
            except Exception:
                _log.failure("the resolver failed to cancel the search for {host!r}", host=self._head.host)
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            self._note_queue_time()
            ticket.cancel()
        if self._abandon_connect is not None:
            abandon = self._attempt_over()
            assert abandon is not None
            abandon()
