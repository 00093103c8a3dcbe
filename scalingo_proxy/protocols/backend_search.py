"""Find a backend for one request: its app, a lease, a connection, and the next if that fails.

The first half of an exchange.  What is sent over the connection, and what
comes back, is the other half's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import BodyTooLarge, ConnectFailed, ProxyError, ResolverUnavailable
from scalingo_proxy.model import App, Limits, Outcome, Record, Route, RouteQuery, Timeouts
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.queue import Ticket
from scalingo_proxy.routing.retries import MAX_BACKENDS, is_idempotent
from scalingo_proxy.wire.http1_head import RequestHead

__all__ = ["BackendSearch"]

_log = Logger()

#: All attempts of one request to connect fit into this many ``connect`` times.
_CONNECT_BUDGET = MAX_BACKENDS


class BackendSearch:
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
        "_connect_deadline",
        "_connecting_since",
        "_env",
        "_head",
        "_last_error",
        "_lease",
        "_pool",
        "_queued_since",
        "_request_complete",
        "_resolving",
        "_reused",
        "_ticket",
        "_timed",
        "_tried",
        "phase",
        "record",
    )

    def __init__(self, env: Environment, timed: Timed, head: RequestHead, record: Record) -> None:
        self._env = env
        self._timed = timed
        self._head = head
        self.record = record
        self.phase = Phase.RESOLVING
        self._request_complete = not head.framing.has_body
        self._pool: Pool | None = None
        self._lease: Lease | None = None
        self._ticket: Ticket | None = None
        self._resolving: Deferred[Any] | None = None
        self._reused = False
        self._abandon_connect: Callable[[], None] | None = None
        self._connect_deadline = 0.0
        self._connecting_since = 0.0
        self._queued_since = 0.0
        self._tried: tuple[Member, ...] = ()
        self._last_error: ProxyError | None = None

    def _send(self, backend: HTTPBackend) -> None:
        """Use the connection that was found."""
        raise NotImplementedError

    def _redirected(self, app: App) -> bool:
        """Send the client elsewhere, if the policies of *app* say so."""
        raise NotImplementedError

    def fail(self, error: ProxyError) -> None:
        """End with an error of ours; the backend, if there is one, is not to blame."""
        raise NotImplementedError

    # -- the app -------------------------------------------------------------

    def start(self) -> None:
        """Resolve, lease, connect and send, as far as that goes at once."""
        env = self._env
        try:
            answer = env.resolver.resolve(RouteQuery(self._head.host, "http", self.record.client))
        except ProxyError as error:
            self.fail(error)
        except Exception:
            _log.failure("the resolver failed on {host!r}", host=self._head.host)
            self.fail(ResolverUnavailable())
        else:
            if type(answer) is Route:
                self._routed(answer)
            else:
                self._resolving = answer
                env.deadlines.set(self._timed, env.seconds() + env.timeouts.connect)
                answer.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, route: Route) -> None:
        self._resolving = None
        if self.phase is Phase.RESOLVING:
            self._routed(route)

    def _unresolved(self, failure: Failure) -> None:
        self._resolving = None
        if self.phase is not Phase.RESOLVING or isinstance(failure.value, CancelledError):
            return
        if isinstance(failure.value, ProxyError):
            self.fail(failure.value)
        else:
            _log.failure("the resolver failed on {host!r}", failure, host=self._head.host)
            self.fail(ResolverUnavailable())

    def _routed(self, route: Route) -> None:
        self._pool = pool = self._env.pools.for_route(route)
        app = route.app
        self.record.app = app.name
        if (app.force_https or app.canonical) and self._redirected(app):
            return
        if self._head.framing.length > pool.limits.body_bytes:
            self.fail(BodyTooLarge())
        else:
            self._find_backend(pool)

    @property
    def _timeouts(self) -> Timeouts:
        return (self._pool or self._env).timeouts

    @property
    def _limits(self) -> Limits:
        return (self._pool or self._env).limits

    # -- a lease -------------------------------------------------------------

    def _find_backend(self, pool: Pool) -> None:
        try:
            lease = pool.lease(self._tried)
            if lease is None:
                self._wait_in_queue(pool)
                return
        except ProxyError as error:
            # "No other backend" says less than what the last one did.
            self.fail(self._last_error or error)
        else:
            self._leased(lease)

    def _wait_in_queue(self, pool: Pool) -> None:
        now = self._env.seconds()
        self.phase = Phase.QUEUED
        self._queued_since = now
        self._env.deadlines.set(self._timed, now + pool.timeouts.queue)
        self._ticket = pool.enqueue(now, self._granted, self._refused, self._tried)

    def _granted(self, lease: Lease) -> None:
        self._ticket = None
        self._note_queue_time()
        self._leased(lease)

    def _refused(self, error: ProxyError) -> None:
        self._ticket = None
        self._note_queue_time()
        self.fail(self._last_error or error)

    def _note_queue_time(self) -> None:
        self.record.queue_seconds += self._env.seconds() - self._queued_since

    def _leased(self, lease: Lease) -> None:
        self._lease = lease
        self.record.backend = lease.member.backend.address
        self.record.attempts += 1
        # A request that cannot be sent twice must not meet a connection that
        # the backend has closed already.
        must_be_alive = not (self._request_complete and is_idempotent(self._head.method))
        backend = self._env.connections.take_idle(lease.member, self, must_be_alive)  # type: ignore[arg-type]
        if backend is not None:
            self._reused = True
            self._send(backend)
        else:
            self._connect()

    def _release(self, outcome: Outcome) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome, self._env.seconds())

    # -- a connection --------------------------------------------------------

    def _connect(self) -> None:
        env, pool, lease = self._env, self._pool, self._lease
        assert pool is not None and lease is not None
        now = env.seconds()
        timeout = pool.timeouts.connect
        if not self._connect_deadline:
            self._connect_deadline = now + timeout * _CONNECT_BUDGET
        self.phase = Phase.CONNECTING
        self._reused = False
        self._connecting_since = now
        env.deadlines.clear(self._timed)  # the attempt has its own
        timeout = min(timeout, self._connect_deadline - now)
        if timeout > 0:
            self._abandon_connect = env.connections.connect(
                lease.member,
                self,  # type: ignore[arg-type] # the Exchange that derives from this
                timeout,
                self._connect_failed,
            )
        else:
            self._connect_failed(None)

    def backend_connected(self, backend: HTTPBackend) -> None:
        """The connection is there."""
        self._abandon_connect = None
        self._note_connect_time()
        self._send(backend)

    def _connect_failed(self, reason: Failure | None) -> None:
        self._abandon_connect = None
        self._note_connect_time()
        self._last_error = ConnectFailed()
        self._try_another(Outcome.CONNECT_FAILED)

    def _note_connect_time(self) -> None:
        self.record.connect_seconds += self._env.seconds() - self._connecting_since

    def _try_another(self, outcome: Outcome) -> None:
        """The backend that was leased failed: ask a further one, if one may be asked."""
        lease, pool, error = self._lease, self._pool, self._last_error
        assert lease is not None and pool is not None and error is not None
        self._tried += (lease.member,)
        self._release(outcome)
        is_late = 0.0 < self._connect_deadline <= self._env.seconds()
        if len(self._tried) >= MAX_BACKENDS or is_late:
            self.fail(error)
        else:
            self._find_backend(pool)

    # -- giving up -----------------------------------------------------------

    def _stop_searching(self) -> None:
        """Cancel whatever is under way."""
        if self._resolving is not None:
            resolving, self._resolving = self._resolving, None
            resolving.cancel()
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            self._note_queue_time()
            ticket.cancel()
        if self._abandon_connect is not None:
            abandon, self._abandon_connect = self._abandon_connect, None
            self._note_connect_time()
            abandon()
