"""Find a backend for one request: its app, a lease, a connection, and the next if that fails.

The first half of an exchange.  What is sent over the connection, and what
comes back, is the other half's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import (
    BackendClosed,
    BodyTooLarge,
    ConnectFailed,
    DrainTimeout,
    ProxyError,
    QueueTimeout,
    ResolverUnavailable,
)
from scalingo_proxy.model import App, Limits, Outcome, Record, Route, RouteQuery, Timeouts
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.search_notes import SearchNotes, connect_failure
from scalingo_proxy.routing.members import Member, Membership
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.queue import Ticket
from scalingo_proxy.routing.retries import IDEMPOTENT, MAX_BACKENDS
from scalingo_proxy.wire.http1_head import RequestHead

__all__ = ["BackendSearch"]

_log = Logger()

#: A request turns to a further backend within this many ``connect`` times; what
#: it waits for a route or in the queue does not count.
_SEARCH_BUDGET = MAX_BACKENDS


def _under_way() -> None:
    """Stands for what abandons an attempt, until the attempt has been begun."""


class BackendSearch(SearchNotes):
    """The way from a request head to a connection that can carry it.

    A base class, because an object of its own for each request would cost
    more than it explains: whoever derives from it says what happens with the
    connection (:meth:`_send`), with a failure (:meth:`fail`) and where an app
    wants its clients to ask (:meth:`_redirected`).

    :ivar record: what will be told of the exchange.
    :ivar phase: what it waits for now.
    """

    __slots__ = (
        "_abandon_connect",
        "_connecting_since",
        "_head",
        "_last_error",
        "_pool",
        "_preface",
        "_queued_since",
        "_request_complete",
        "_resolving",
        "_reused",
        "_ticket",
        "_timed",
        "_tried",
        "_waited",
        "phase",
    )

    _head: RequestHead
    _request_complete: bool

    def __init__(self, env: Environment, timed: Timed, record: Record) -> None:
        self._env = env
        self._timed = timed
        self.record = record
        self.phase = Phase.RESOLVING
        self._pool: Pool | None = None
        self._lease = None
        self._ticket: Ticket | None = None
        self._resolving: Deferred[Any] | None = None
        self._reused = False
        self._preface = b""
        self._abandon_connect: Callable[[], None] | None = None
        self._connecting_since = 0.0
        self._queued_since = 0.0
        self._waited = 0.0
        self._tried: tuple[Member, ...] = ()
        self._last_error: ProxyError | None = None

    def _send(self, backend: HTTPBackend) -> None:
        """Use the connection that was found."""
        raise NotImplementedError

    def _redirected(self, app: App) -> bool:
        """Send the client elsewhere, if the policies of *app* say so."""
        raise NotImplementedError

    def _preface_for(self, app: App) -> bytes:
        """What a connection begins with that *app* wants to be told by whose it is."""
        raise NotImplementedError

    def fail(self, error: ProxyError) -> None:
        """End with an error of ours; the backend, if there is one, is not to blame."""
        raise NotImplementedError

    def broke(self) -> None:
        """End because of a bug of ours, which the exception being handled tells of."""
        raise NotImplementedError

    def _leave_tunnel(self) -> None:
        """Begin to end a tunnel in order, unless that was begun before."""
        raise NotImplementedError

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
    def _timeouts(self) -> Timeouts:
        return (self._pool or self._env).timeouts

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
            self._note_choice(pool)
            if self._last_error is not None:
                self._note_denied(f"there was no other backend: {error.detail}")
            # "No other backend" says less than what the last one did.
            self.fail(self._last_error or error)
        else:
            self._leased(lease)

    def _lease_of(self, pool: Pool, now: float) -> Lease | None:
        """A place, if there is one now; for an idempotent request also at a member that wants to be tried."""
        return pool.lease(self._tried, now, self._head.method in IDEMPOTENT)

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

    def _release(self, outcome: Outcome, reason: str = "") -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome, self._env.seconds(), reason)

    # -- a connection --------------------------------------------------------

    def _connect(self) -> None:
        env, pool, lease = self._env, self._pool, self._lease
        assert pool is not None and lease is not None
        self.phase = Phase.CONNECTING
        self._reused = False
        self._connecting_since = env.seconds()
        env.deadlines.clear(self._timed)  # the attempt has its own
        # An attempt that ends before this returns may have begun the next one.
        self._abandon_connect = _under_way
        env.connecting.setdefault(lease.member, {})[self] = None
        abandon = self._open_connection(lease.member, min(pool.timeouts.connect, self._seconds_left()))
        if self._abandon_connect is _under_way:
            self._abandon_connect = abandon

    def _open_connection(self, member: Member, seconds: float) -> Callable[[], None]:
        """Begin a connection to *member*, and say how to abandon it."""
        connect = self._env.connections.connect
        return connect(member, self, seconds, self._connect_failed, self._preface)  # type: ignore[arg-type]

    def _seconds_left(self) -> float:
        """How long this request may still look for a backend."""
        used = self._env.seconds() - self.record.started_at - self._waited
        return self._timeouts.connect * _SEARCH_BUDGET - used

    def backend_connected(self, backend: HTTPBackend) -> None:
        """The connection is there."""
        self._attempt_over()
        lease, pool = self._lease, self._pool
        assert lease is not None and pool is not None
        if lease.member.membership is Membership.SERVING:
            self._send(backend)
        else:
            # It left the app meanwhile; its address may be somebody else's by now.
            backend.abandon()
            self._note_attempt("it left the app while it was being connected")
            self._release(Outcome.ABANDONED)
            self._find_backend(pool)

    def _connect_failed(self, reason: Failure) -> None:
        self._attempt_over()
        error = reason.value
        if isinstance(error, QueueTimeout):
            self.fail(error)  # it never came to asking the backend, which is not to blame
            return
        self._last_error = error if isinstance(error, ConnectFailed) else ConnectFailed()
        try:
            why = connect_failure(error)
            self._try_another(Outcome.CONNECT_FAILED, why, reason=why)
        except Exception:
            self.broke()

    def _attempt_over(self) -> Callable[[], None] | None:
        """The attempt to connect has ended, or shall: give what abandons it."""
        env, lease = self._env, self._lease
        abandon, self._abandon_connect = self._abandon_connect, None
        self.record.connect_seconds += env.seconds() - self._connecting_since
        if lease is not None:
            connecting = env.connecting.get(lease.member)
            if connecting is not None:
                connecting.pop(self, None)
                if not connecting:
                    del env.connecting[lease.member]
        return abandon

    def backend_failed_others(self) -> None:
        """The backend that it is being connected to was put aside: do not wait for it, if there is another.

        Nothing was sent.  Where there is no other, this one may still accept.
        """
        lease, pool = self._lease, self._pool
        assert lease is not None and pool is not None
        tried = (*self._tried, lease.member)
        if lease.member.is_on_trial or len(tried) >= MAX_BACKENDS or not pool.has_other(tried):
            return
        abandon = self._attempt_over()
        if abandon is not None:
            abandon()
        self._last_error = ConnectFailed()
        try:
            self._try_another(Outcome.ABANDONED, "it was put aside while it was being connected")
        except Exception:
            self.broke()

    def _try_another(self, outcome: Outcome, why: str = "", reason: str = "") -> None:
        """The backend that was leased failed: ask a further one, if one may be asked.

        :param why: what went wrong, for explanations.
        :param reason: the same for whoever judges the backend.
        """
        lease, pool, error = self._lease, self._pool, self._last_error
        assert lease is not None and pool is not None and error is not None
        self._tried += (lease.member,)
        self._note_attempt(why or error.detail)
        self._release(outcome, reason)
        if len(self._tried) >= MAX_BACKENDS:
            self._note_denied(f"a request is given to {MAX_BACKENDS} backends at most")
            self.fail(error)
        elif self._seconds_left() <= 0:
            self._note_denied("the time for finding a backend was over")
            self.fail(error)
        else:
            if outcome is Outcome.CONNECT_FAILED:
                self._env.retries["connect-failed"] += 1
            self._find_backend(pool)

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
