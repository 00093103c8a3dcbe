"""One request on its way: find its app, lease a backend, relay, account for it.

The same object serves every protocol at the edge: what the client speaks is
hidden behind :class:`Downstream`.  All waits of an exchange share one deadline,
that of the connection or stream it came on.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import (
    BackendClosed,
    BadResponse,
    BodyTooLarge,
    ClientClosed,
    ConnectFailed,
    DrainTimeout,
    FirstByteTimeout,
    IdleTimeout,
    InternalError,
    ProxyError,
    RequestTimeout,
    ResolverUnavailable,
)
from scalingo_proxy.model import Outcome, Record, Route, RouteQuery
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.relay import Relay
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.retries import MAX_BACKENDS, is_idempotent, may_send_again
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_forwarding import ClientIdentity, relayed_trailers, request_head_for_backend
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead

__all__ = ["Downstream", "Exchange", "Phase"]

_log = Logger()

#: All attempts of one request to connect fit into this many ``connect`` times.
_CONNECT_BUDGET = MAX_BACKENDS


class Downstream(Protocol):
    """What an exchange needs of the client's side; HTTP/1 and HTTP/2 provide it."""

    @property
    def timed(self) -> Timed:
        """What the exchange's waits are counted on."""

    def send_informational(self, head: ResponseHead) -> None:
        """Relay a 1xx response other than 101."""

    def start_response(self, head: ResponseHead, payload: bytes) -> None:
        """Begin the response; more payload follows."""

    def send_payload(self, payload: bytes) -> None:
        """Relay a piece of the response body."""

    def send_whole(self, head: ResponseHead, payload: bytes, trailers: Fields) -> None:
        """Relay a response that is complete already."""

    def end_response(self, payload: bytes, trailers: Fields) -> None:
        """Relay the last piece."""

    def send_error(self, error: ProxyError) -> None:
        """Answer with an error of ours; nothing was sent before."""

    def break_response(self) -> None:
        """Cut the response that has begun, so that it cannot be taken for complete."""

    def open_upload(self) -> None:
        """Begin or go on handing over the request body."""

    def close_upload(self) -> None:
        """Hand over no more of the request body for now."""

    def switch(self, head: ResponseHead, backend_transport: Any, alive: Callable[[], None]) -> Relay:
        """Send the 101 and become a tunnel."""

    def exchange_over(self) -> None:
        """The exchange has ended and was accounted for."""


class Phase(enum.Enum):
    """What an exchange waits for."""

    RESOLVING = "resolving"
    QUEUED = "queued"
    CONNECTING = "connecting"
    SENDING = "sending"
    WAITING = "waiting"
    RESPONDING = "responding"
    TUNNEL = "tunnel"
    OVER = "over"


class Exchange:
    """One request and its response.

    :ivar record: what will be told of it.
    :ivar phase: what it waits for now.
    :ivar response_begun: a byte of a final response went to the client.
    """

    __slots__ = (
        "_abandon_connect",
        "_backend",
        "_body_taken",
        "_connect_deadline",
        "_connecting_since",
        "_downstream",
        "_env",
        "_head",
        "_identity",
        "_last_error",
        "_lease",
        "_pool",
        "_queued_since",
        "_relay",
        "_request_complete",
        "_resolving",
        "_reused",
        "_ticket",
        "_timed",
        "_tried",
        "_upload_paused",
        "_waits_for_continue",
        "phase",
        "record",
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
        self._env = env
        self._downstream = downstream
        self._timed = downstream.timed
        self._head = head
        self._identity = identity
        self.record = record
        self.phase = Phase.RESOLVING
        self.response_begun = False
        self._request_complete = not head.framing.has_body
        self._waits_for_continue = head.expect_continue
        self._body_taken = False
        self._upload_paused = False
        self._pool: Pool | None = None
        self._lease: Lease | None = None
        self._ticket: Any = None
        self._resolving: Deferred[Any] | None = None
        self._backend: HTTPBackend | None = None
        self._reused = False
        self._abandon_connect: Callable[[], None] | None = None
        self._connect_deadline = 0.0
        self._connecting_since = 0.0
        self._queued_since = 0.0
        self._tried: tuple[Any, ...] = ()
        self._last_error: ProxyError | None = None
        self._relay: Relay | None = None

    # -- find the app --------------------------------------------------------

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
        self.record.app = route.app.name
        if self._head.framing.length > pool.limits.body_bytes:
            self.fail(BodyTooLarge())
        else:
            self._find_backend(pool)

    @property
    def body_limit(self) -> int:
        """How many bytes the request body may have."""
        return (self._pool or self._env).limits.body_bytes

    # -- lease a backend -----------------------------------------------------

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
        self.record.queue_seconds += self._env.seconds() - self._queued_since
        self._leased(lease)

    def _refused(self, error: ProxyError) -> None:
        self._ticket = None
        self.record.queue_seconds += self._env.seconds() - self._queued_since
        self.fail(self._last_error or error)

    def _leased(self, lease: Lease) -> None:
        self._lease = lease
        self.record.backend = lease.backend.address
        self.record.attempts += 1
        # A request that cannot be sent twice must not meet a connection that
        # the backend has closed already.
        must_be_alive = not (self._request_complete and is_idempotent(self._head.method))
        backend = self._env.connections.take_idle(lease.member, self, must_be_alive)
        if backend is not None:
            self._reused = True
            self._send(backend)
        else:
            self._connect()

    # -- connect -------------------------------------------------------------

    def _connect(self) -> None:
        env, pool, lease = self._env, self._pool, self._lease
        assert pool is not None and lease is not None
        now = env.seconds()
        timeout = pool.timeouts.connect
        if not self._connect_deadline:
            self._connect_deadline = now + timeout * _CONNECT_BUDGET
        timeout = min(timeout, self._connect_deadline - now)
        if timeout <= 0:
            self._connect_failed(None)
            return
        self.phase = Phase.CONNECTING
        self._reused = False
        self._connecting_since = now
        env.deadlines.clear(self._timed)  # the attempt has its own
        self._abandon_connect = env.connections.connect(lease.member, self, timeout, self._connect_failed)

    def _connect_failed(self, reason: Failure | None) -> None:
        self._abandon_connect = None
        self._note_connect_time()
        self._last_error = ConnectFailed()
        self._try_another(Outcome.CONNECT_FAILED)

    def backend_connected(self, backend: HTTPBackend) -> None:
        """The connection is there."""
        self._abandon_connect = None
        self._note_connect_time()
        self._send(backend)

    def _note_connect_time(self) -> None:
        self.record.connect_seconds += self._env.seconds() - self._connecting_since

    def _try_another(self, outcome: Outcome) -> None:
        lease, pool = self._lease, self._pool
        assert lease is not None and pool is not None
        self._lease = None
        self._tried += (lease.member,)
        error = self._last_error
        lease.release(outcome, self._env.seconds())
        if len(self._tried) >= MAX_BACKENDS or self._is_connect_time_over():
            assert error is not None
            self.fail(error)
        else:
            self._find_backend(pool)

    def _is_connect_time_over(self) -> bool:
        return bool(self._connect_deadline) and self._env.seconds() >= self._connect_deadline

    # -- send the request ----------------------------------------------------

    def _send(self, backend: HTTPBackend) -> None:
        env = self._env
        self._backend = backend
        record = self.record
        words = request_head_for_backend(
            self._head, self._identity, record.request_id.encode("ascii"), record.wall_time
        )
        backend.send_request(self._head, words)
        if self._request_complete:
            self._request_sent()
            return
        self.phase = Phase.SENDING
        timeouts = self._timeouts
        wait = timeouts.first_byte if self._waits_for_continue else timeouts.request_body
        env.deadlines.set(self._timed, env.seconds() + wait)
        self._downstream.open_upload()

    @property
    def _timeouts(self) -> Any:
        return (self._pool or self._env).timeouts

    def _request_sent(self) -> None:
        if self.response_begun:
            return
        self.phase = Phase.WAITING
        self._env.deadlines.set(self._timed, self._env.seconds() + self._timeouts.first_byte)

    def request_payload(self, payload: bytes) -> None:
        """The client sent a piece of its body."""
        self._body_taken = True
        self._waits_for_continue = False
        self._alive()
        if self._backend is not None:
            self._backend.send_payload(payload)

    def request_ended(self, trailers: Fields) -> None:
        """The client's body is complete."""
        self._request_complete = True
        self._body_taken = True
        if self._backend is not None:
            self._backend.end_request(relayed_trailers(trailers))
        self._request_sent()

    def pause_upload(self) -> None:
        """The backend does not keep up with the upload."""
        self._upload_paused = True
        self._downstream.close_upload()
        self._alive()

    def resume_upload(self) -> None:
        """The backend has caught up."""
        self._upload_paused = False
        self._alive()
        if not self._request_complete:
            self._downstream.open_upload()

    def _alive(self) -> None:
        """Something moved: the wait begins anew."""
        timeouts = self._timeouts
        if self.phase is Phase.SENDING:
            # A stalled client has its own limit; a backend that takes nothing is silence.
            wait = timeouts.idle if self._upload_paused else timeouts.request_body
        elif self.phase is Phase.RESPONDING or self.phase is Phase.TUNNEL:
            wait = timeouts.idle
        else:
            return
        self._env.deadlines.set(self._timed, self._env.seconds() + wait)

    # -- relay the response --------------------------------------------------

    def response_bytes_seen(self) -> None:
        """A piece of a response head came: the backend has begun to answer."""
        self._note_first_byte()
        if self.phase is Phase.WAITING:
            self.phase = Phase.RESPONDING
        self._alive()

    def informational(self, head: ResponseHead) -> None:
        """An interim response; a 100 that nobody waits for goes no further."""
        if head.status == 100:
            if not self._waits_for_continue:
                return
            self._waits_for_continue = False  # from here on the client is waited for
            self._alive()
        else:
            self.response_bytes_seen()
        if self._head.version == 1:
            self._downstream.send_informational(head)

    def response_started(self, head: ResponseHead, payload: bytes) -> None:
        """The response's head is there, its end is not."""
        self._begin_response(head)
        self.record.bytes_out += len(payload)
        self._downstream.start_response(head, payload)

    def response_payload(self, payload: bytes) -> None:
        """A further piece of the response."""
        self.record.bytes_out += len(payload)
        self._alive()
        if payload:
            self._downstream.send_payload(payload)

    def response_whole(self, head: ResponseHead, payload: bytes, trailers: Fields) -> None:
        """The whole response came at once."""
        self._backend = None
        self._begin_response(head)
        self.record.bytes_out += len(payload)
        self._release(Outcome.COMPLETED)
        self._downstream.send_whole(head, payload, relayed_trailers(trailers) if trailers else trailers)
        self._finish()

    def response_ended(self, payload: bytes, trailers: Fields) -> None:
        """The last piece of the response."""
        self._backend = None
        self.record.bytes_out += len(payload)
        self._release(Outcome.COMPLETED)
        self._downstream.end_response(payload, relayed_trailers(trailers) if trailers else trailers)
        self._finish()

    def _begin_response(self, head: ResponseHead) -> None:
        self._note_first_byte()
        self.record.status = head.status
        self.response_begun = True
        self.phase = Phase.RESPONDING
        self._alive()

    def _note_first_byte(self) -> None:
        if self.record.first_byte_at is None:
            self.record.first_byte_at = self._env.seconds()

    def pause_response(self) -> None:
        """The client does not keep up."""
        if self._backend is not None:
            self._backend.pause_response()

    def resume_response(self) -> None:
        """The client has caught up."""
        if self._backend is not None:
            self._alive()
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
        self._backend = None
        self._begin_response(head)
        self.phase = Phase.TUNNEL
        lease.become_tunnel()
        self._alive()
        self._relay = relay = self._downstream.switch(head, backend.transport, self._alive)
        backend.exchange = None
        backend.relay_end = relay.backend
        if rest:
            relay.backend.data_received(rest)

    def tunnel_ended(self) -> None:
        """Both sides of the tunnel are gone."""
        relay = self._relay
        if relay is None:
            return  # it was cut by us, and accounted for
        self.record.bytes_in += relay.client.received
        self.record.bytes_out += relay.backend.received
        self._release(Outcome.COMPLETED)
        self._finish()

    # -- failure -------------------------------------------------------------

    def backend_lost(self, backend: HTTPBackend, response_begun: bool) -> None:
        """The backend closed before its response was complete.

        :param response_begun: a byte of a response had come, interim ones included.
        """
        self._backend = None
        self._last_error = BackendClosed()
        if self.response_begun:
            self._end(self._last_error, Outcome.CLOSED)
        elif may_send_again(self._head.method, True, self._body_taken, response_begun):
            self._downstream.close_upload()
            if self._reused:
                # Most likely it closed while idle: the same backend, freshly connected.
                self._connect()
            else:
                self._try_another(Outcome.CLOSED)
        else:
            self._end(self._last_error, Outcome.CLOSED)

    def backend_failed(self, error: ProxyError) -> None:
        """What the backend sent is unusable."""
        self._backend = None
        self._end(error, Outcome.BAD_RESPONSE)

    def deadline_reached(self) -> None:
        """The current wait took too long."""
        phase = self.phase
        if phase is Phase.RESOLVING:
            self._end(ResolverUnavailable(), Outcome.ABANDONED)
        elif phase is Phase.QUEUED:
            self._end(self._ticket.expired_error(), Outcome.ABANDONED)
        elif phase is Phase.SENDING and not self._upload_paused:
            if self._waits_for_continue:
                self._end(FirstByteTimeout(), Outcome.TIMED_OUT)
            else:
                self._end(RequestTimeout("the request body stalled"), Outcome.ABANDONED)
        elif phase is Phase.WAITING:
            self._end(FirstByteTimeout(), Outcome.TIMED_OUT)
        else:
            self._end(IdleTimeout(), Outcome.TIMED_OUT)

    def fail(self, error: ProxyError) -> None:
        """End with an error of ours; the backend, if there is one, is not to blame."""
        self._end(error, Outcome.ABANDONED)

    def client_left(self) -> None:
        """The client closed: cancel everything, tell nobody but the log."""
        self._end(ClientClosed(), Outcome.ABANDONED)

    def cut(self) -> None:
        """The proxy stops and cannot wait any longer."""
        self._end(DrainTimeout(), Outcome.ABANDONED)

    def broke(self) -> None:
        """A bug of ours surfaced while this exchange was handled."""
        self._end(InternalError(), Outcome.ABANDONED)

    def _end(self, error: ProxyError, outcome: Outcome) -> None:
        if self.phase is Phase.OVER:
            return
        self.record.code = error.code
        if not self.response_begun:
            self.record.status = error.status
        self._let_go()
        self._release(outcome)
        if self._relay is not None:
            relay, self._relay = self._relay, None
            self.record.bytes_in += relay.client.received
            self.record.bytes_out += relay.backend.received
            relay.abort()
        elif type(error) is ClientClosed:
            pass
        elif self.response_begun:
            self._downstream.break_response()
        else:
            self._downstream.send_error(error)
        self._finish()

    def _let_go(self) -> None:
        """Cancel whatever is under way for this exchange."""
        if self._resolving is not None:
            resolving, self._resolving = self._resolving, None
            resolving.cancel()
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            self.record.queue_seconds += self._env.seconds() - self._queued_since
            ticket.cancel()
        if self._abandon_connect is not None:
            abandon, self._abandon_connect = self._abandon_connect, None
            self._note_connect_time()
            abandon()
        if self._backend is not None:
            backend, self._backend = self._backend, None
            backend.abandon()

    def _release(self, outcome: Outcome) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome, self._env.seconds())

    def _finish(self) -> None:
        if self.phase is Phase.OVER:
            return
        env = self._env
        self.phase = Phase.OVER
        self.record.finished_at = env.seconds()
        env.deadlines.clear(self._timed)
        env.observer.exchange_finished(self.record)
        self._downstream.exchange_over()
