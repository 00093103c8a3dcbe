"""A TLS connection that ends at a backend: found by its hello, then carried as it is.

Takes over a client's connection when its app is known, finds a backend as a
request does, replays what the client has sent so far, byte for byte, and is
a tunnel from then on.  Until a backend is there, the client can still be told
by an alert why there is none; afterwards every byte is the backend's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import (
    BackendClosed,
    ClientClosed,
    Denied,
    DrainTimeout,
    FirstByteTimeout,
    IdleTimeout,
    InternalError,
    ProxyError,
    Quarantined,
    UnknownHost,
)
from scalingo_proxy.model import Outcome, Record, Route
from scalingo_proxy.protocols.backend_search import BackendSearch
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.protocols.relay import TUNNEL_LEFT, Relay
from scalingo_proxy.protocols.sent_proxy_header import proxy_header_bytes
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.wire.client_hello import ClientHello
from scalingo_proxy.wire.tls_alert import Alert

__all__ = ["Passthrough", "alert_for"]

_log = Logger()

#: Bytes read ahead of the backend before reading stops.  Until then reading
#: goes on, since only a reader notices that the client left.
_READ_AHEAD_BYTES = 65536

#: A client that was told why may take so long to close.
_LINGER_SECONDS = 2.0


def alert_for(error: ProxyError) -> Alert:
    """The alert that tells a client of *error*, before any key is agreed on.

    ``internal_error`` where nothing is wrong with what the client asked
    (RFC 8446 §6.2).  Not ``handshake_failure``, which clients take for a
    quarrel about versions and ciphers.
    """
    if isinstance(error, UnknownHost):
        return Alert.UNRECOGNIZED_NAME
    if isinstance(error, Denied):
        return Alert.ACCESS_DENIED
    return Alert.INTERNAL_ERROR


@implementer(IHalfCloseableProtocol, IPushProducer)
class Passthrough(BackendSearch):
    """One client's tunnel, from the moment its app is known.

    The transport's protocol is this from :meth:`start_routed` on: it wants
    everything that the transport tells.

    :param timed: whose deadline counts the waits; its ``deadline_reached``
        is to call the one here.
    :param transport: the client's.
    :param received: everything that the client has sent so far, the hello first.
    :param record: told of when the tunnel is over; the host is in it already.
    :param over: called once, when the record was told and the client is gone.
    """

    __slots__ = (
        "_ahead",
        "_backend_failed",
        "_backend_progress",
        "_client_ended",
        "_client_progress",
        "_hello",
        "_lost",
        "_over",
        "_relay",
        "transport",
    )

    def __init__(
        self,
        env: Environment,
        timed: Timed,
        transport: Any,
        received: bytes,
        hello: ClientHello,
        record: Record,
        over: Callable[[], None],
    ) -> None:
        super().__init__(env, timed, record)
        self.transport = transport
        self._hello = hello
        self._over: Callable[[], None] | None = over
        self._ahead = bytearray(received)
        self._relay: Relay | None = None
        self._client_ended = False
        self._backend_failed = False
        self._lost = False
        self._client_progress = SendProgress()
        self._backend_progress = SendProgress()

    # -- find a backend ------------------------------------------------------

    def start_routed(self, route: Route) -> None:
        """Look for a backend of the app that was found."""
        env, record = self._env, self.record
        record.protocol, record.tls = "tls", "passthrough"
        record.app = route.app.name
        record.route = route
        record.request_id = env.request_ids()
        # How long the client took for its hello is not the search's time.
        self._waited = env.seconds() - record.started_at
        self.transport.registerProducer(self, True)
        self._pool = pool = env.pools.for_route(route)
        app = route.app
        try:
            if (app.access or app.rate_limit) and not self._is_admitted(app):
                return
            self._find_backend(pool)
        except Exception:
            self.broke()

    def _wait_in_queue(self, pool: Pool) -> None:
        super()._wait_in_queue(pool)
        if self._client_ended and self.phase is Phase.QUEUED:
            self._wait_no_longer_than_to_connect()

    def _wait_no_longer_than_to_connect(self) -> None:
        """Bound the place in the queue of a client that will most likely never read an answer."""
        until = self._env.seconds() + self._timeouts.connect
        if self._timed.deadline > until:
            self._env.deadlines.set(self._timed, until)

    def _lease_of(self, pool: Pool, now: float) -> Lease | None:
        try:
            return pool.lease(self._tried, now)
        except Quarantined:
            # What a client wants of the backend is sealed.  It tries one in quarantine when the
            # choice is between that and nothing.
            return pool.lease(self._tried, now, idempotent=True)

    def _leased(self, lease: Lease) -> None:
        self._note_lease(lease)
        if self._retried_for:
            self._env.retries[self._retried_for] += 1
        self._connect()

    def _open_connection(self, member: Member, seconds: float) -> Callable[[], None]:
        return self._env.connections.connect_raw(member, self, seconds, self._connect_failed)

    def backend_connected(self, backend: Any) -> None:
        try:
            super().backend_connected(backend)
        except Exception:
            backend.abandon()
            self.broke()

    def _send(self, backend: Any) -> None:
        """Become a tunnel: nothing was sent before, so nothing can be sent twice."""
        pool, lease = self._pool, self._lease
        assert pool is not None and lease is not None
        if pool.app.send_proxy:
            backend.transport.write(self._proxy_header(pool.app.send_proxy))
        self.phase = Phase.TUNNEL
        lease.become_tunnel()
        self._env.deadlines.set(self._timed, self._env.seconds() + self._timeouts.first_byte)
        self._relay = relay = Relay(
            self.transport, backend.transport, self._alive, self._tunnel_ended, self._env.pipes
        )
        backend.join(relay.backend)
        held, self._ahead = bytes(self._ahead), bytearray()
        if len(held) > _READ_AHEAD_BYTES and not self._client_ended:
            self.transport.resumeProducing()
        relay.client.data_received(held)
        if self._client_ended:
            relay.client.read_closed()

    def _proxy_header(self, version: str) -> bytes:
        hello, transport = self._hello, self.transport
        return proxy_header_bytes(
            version,
            transport.getPeer(),
            transport.getHost(),
            # What is agreed on is settled behind us: this is what the client would like best.
            alpn=hello.alpn[0] if hello.alpn else b"",
            authority=hello.server_name,
        )

    # -- the tunnel ----------------------------------------------------------

    def _alive(self) -> None:
        """Bytes moved.  Until the backend's first, only that is waited for."""
        relay, env, record = self._relay, self._env, self.record
        if relay is None or self.phase is not Phase.TUNNEL or not relay.backend.received:
            return
        now = env.seconds()
        if record.first_byte_at is None:
            record.first_byte_at = now
            lease = self._lease
            if lease is not None and lease.member.wants_answer:
                lease.answered(now)
        env.deadlines.set(self._timed, now + self._timeouts.idle)

    def backend_ended(self) -> None:
        """The backend sends no more; without a single byte it did not serve this client."""
        relay = self._relay
        if relay is not None and not relay.backend.received and not self._client_ended:
            self._backend_failed = True

    def _tunnel_ended(self) -> None:
        """Both sides of the tunnel are gone."""
        if self.phase is not Phase.OVER:
            self.phase = Phase.OVER
            if self._backend_failed:
                self.record.code = BackendClosed.code
                self.record.cause = "the backend closed without a byte"
                self._release(Outcome.CLOSED)
            else:
                # A backend that has said nothing to a client who left is proved neither good nor bad.
                relay = self._relay
                has_answered = relay is not None and relay.backend.received
                self._release(Outcome.COMPLETED if has_answered else Outcome.ABANDONED)
            self._tell()
        self._leave()

    # -- what the client's transport tells ------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._relay is not None:
            self._relay.client.data_received(data)
        elif self.phase is not Phase.OVER:
            self._ahead += data
            if len(self._ahead) > _READ_AHEAD_BYTES:
                self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """The client has said all it will say; whether it still listens shows when it is written to."""
        self._client_ended = True
        if self._relay is not None:
            self._relay.client.read_closed()
        elif self.phase is Phase.OVER:
            self.transport.loseConnection()
        elif self.phase is Phase.QUEUED:
            self._wait_no_longer_than_to_connect()

    def writeConnectionLost(self) -> None:
        if self._relay is not None:
            self._relay.client.write_closed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client_ended = self._lost = True
        if self._relay is not None:
            self._relay.client.connection_lost()
        else:
            self.client_left()
        self._leave()

    def pauseProducing(self) -> None:
        if self._relay is not None:
            self._relay.client.pause_peer()

    def resumeProducing(self) -> None:
        if self._relay is not None:
            self._relay.client.resume_peer()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""

    # -- ends ----------------------------------------------------------------

    def deadline_reached(self) -> None:
        """The current wait took too long."""
        phase, relay = self.phase, self._relay
        if relay is not None and relay.is_leaving and phase is not Phase.OVER:
            self._leave_further(relay)
        elif phase is Phase.QUEUED:
            assert self._ticket is not None
            if self._client_ended:
                self.client_left()
            else:
                self._end(self._last_error or self._ticket.expired_error(), Outcome.ABANDONED)
        elif phase is Phase.OVER:
            self.transport.abortConnection()
        elif relay is None:
            self._end(self._last_error or InternalError(), Outcome.ABANDONED)
        elif not relay.backend.received:
            self._end(FirstByteTimeout(), Outcome.TIMED_OUT)
        else:
            # A peer that reads slowly is not silent.
            moved = self._client_progress.has_moved(self.transport)
            if self._backend_progress.has_moved(relay.backend.transport) or moved:
                self._alive()
            else:
                self._end(IdleTimeout(), Outcome.ABANDONED)

    def _leave_tunnel(self) -> None:
        relay = self._relay
        assert relay is not None
        if not relay.is_leaving:
            self.record.code, self.record.cause = DrainTimeout.code, TUNNEL_LEFT
            seconds = relay.leave()
            if self.phase is not Phase.OVER:
                self._env.deadlines.set(self._timed, self._env.seconds() + seconds)

    def _leave_further(self, relay: Relay) -> None:
        if not relay.leave_further():
            self._end(DrainTimeout(), Outcome.ABANDONED)

    def fail(self, error: ProxyError) -> None:
        self._end(error, Outcome.ABANDONED)

    def client_left(self) -> None:
        """The client closed before there was a tunnel."""
        self._end(ClientClosed(), Outcome.ABANDONED)

    def cut(self) -> None:
        """The proxy stops and cannot wait any longer."""
        if self.phase is Phase.OVER:
            self.transport.abortConnection()
        else:
            self._end(DrainTimeout(), Outcome.ABANDONED)

    def broke(self) -> None:
        _log.failure("the tunnel {request_id} failed", request_id=self.record.request_id)
        self._end(InternalError(), Outcome.ABANDONED)

    def _end(self, error: ProxyError, outcome: Outcome) -> None:
        """End because of *error*: with an alert while that can be read, else by cutting both sides."""
        if self.phase is Phase.OVER:
            return
        self.phase = Phase.OVER  # before anybody else is called: none of them can end it again
        relay, record = self._relay, self.record
        record.code = error.code
        record.cause = error.detail
        if relay is None:
            record.status = error.status
        try:
            self._stop_searching()
        finally:
            self._release(outcome)
        self._tell()
        if relay is not None and (relay.backend.received or isinstance(error, DrainTimeout)):
            relay.abort()
            return
        if relay is not None:
            relay.backend.abort()
        if not self._lost:
            self._refuse(error)

    def _refuse(self, error: ProxyError) -> None:
        """Send an alert and close, without losing it to a reset."""
        env, transport = self._env, self.transport
        self._ahead.clear()
        transport.unregisterProducer()
        if not self._client_ended:
            transport.resumeProducing()  # whoever does not read does not learn that the client has gone
        if not isinstance(error, ClientClosed):
            transport.write(self._hello.refusal(alert_for(error)))
        env.deadlines.set(self._timed, env.seconds() + _LINGER_SECONDS)
        if hasattr(transport, "loseWriteConnection") and not self._client_ended:
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _tell(self) -> None:
        env, record, relay = self._env, self.record, self._relay
        if relay is not None:
            record.bytes_in += relay.client.received
            record.sent_bytes = relay.client.received
            record.bytes_out += relay.backend.received
        record.finished_at = env.seconds()
        env.deadlines.clear(self._timed)
        env.finished(record)

    def _leave(self) -> None:
        """Say that nothing is left, when that is so."""
        if self.phase is Phase.OVER and self._lost and self._over is not None:
            over, self._over = self._over, None
            over()
