"""A TLS connection that ends at a backend: found by its hello, then carried as it is.

Takes over a client's connection when its app is known, finds a backend as a
request does, replays what the client has sent so far, byte for byte, and is
a tunnel from then on.  Until a backend is there, the client can still be told
by an alert why there is none; afterwards every byte is the backend's.  How it
ends is the business of :mod:`scalingo_proxy.protocols.tls_passthrough_ending`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import Quarantined
from scalingo_proxy.model import Route
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.relay import Relay
from scalingo_proxy.protocols.sent_proxy_header import proxy_header_bytes
from scalingo_proxy.protocols.tls_passthrough_ending import PassthroughEnding
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import Lease, Pool

__all__ = ["Passthrough"]

#: Bytes read ahead of the backend before reading stops.  Until then reading
#: goes on, since only a reader notices that the client left.
_READ_AHEAD_BYTES = 65536


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_TUNNEL, _OVER = Phase.TUNNEL, Phase.OVER


@implementer(IHalfCloseableProtocol, IPushProducer)
class Passthrough(PassthroughEnding):
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

    __slots__ = ()

    # -- find a backend ------------------------------------------------------

    def start_routed(self, route: Route) -> None:
        """Look for a backend of the app that was found; the record tells of both already."""
        env, record = self._env, self.record
        record.tls = "passthrough"
        record.request_id = env.request_ids()
        # How long the client took for its hello is not the search's time.
        self.leave_out_wait()
        self.transport.registerProducer(self, True)
        self._pool = pool = env.pools.for_route(route)
        app = route.app
        try:
            if (app.access or app.rate_limit) and not self._is_admitted(app):
                return
            lease = pool.lease_at_once()
            if lease is not None:
                self._note_lease(lease)
                self._connect()
            else:
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
            return pool.lease(self._detour.tried, now)
        except Quarantined:
            # What a client wants of the backend is sealed.  It tries one in quarantine when the
            # choice is between that and nothing.
            return pool.lease(self._detour.tried, now, idempotent=True)

    def _leased(self, lease: Lease) -> None:
        self._note_lease(lease)
        retried_for = self._detour.retried_for
        if retried_for:
            self._env.retries[retried_for] += 1
        self._connect()

    def _open_connection(self, member: Member, seconds: float) -> Callable[[], None]:
        return self._env.connections.connect_raw(member, self, seconds, self._connect_failed)

    def _send(self, backend: Any, now: float) -> None:
        """Become a tunnel: nothing was sent before, so nothing can be sent twice."""
        pool, lease = self._pool, self._lease
        assert pool is not None and lease is not None
        if pool.app.send_proxy:
            backend.transport.write(self._proxy_header(pool.app.send_proxy))
        self.phase = _TUNNEL
        lease.become_tunnel()
        env = self._env
        env.deadlines.set(self._timed, now + pool.timeouts.first_byte)
        self._relay = relay = Relay(
            self.transport, backend.transport, self._alive, self._tunnel_ended, env.pipes
        )
        backend.join(relay.backend)
        held, self._ahead = bytes(self._ahead), b""
        if len(held) > _READ_AHEAD_BYTES and not self._client_ended:
            self.transport.resumeProducing()
        relay.client.begin_with(held)
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

    def backend_ended(self) -> None:
        """The backend sends no more; without a single byte it did not serve this client."""
        relay = self._relay
        if relay is not None and not relay.backend.received and not self._client_ended:
            self._backend_failed = True

    # -- what the client's transport tells ------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._relay is not None:
            self._relay.client.data_received(data)
        elif self.phase is not _OVER:
            if type(self._ahead) is bytes:
                self._ahead = bytearray(self._ahead)
            self._ahead += data
            if len(self._ahead) > _READ_AHEAD_BYTES:
                self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """The client has said all it will say; whether it still listens shows when it is written to."""
        self._client_ended = True
        if self._relay is not None:
            self._relay.client.read_closed()
        elif self.phase is _OVER:
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
        if self._over is not None:
            self._leave()

    def pauseProducing(self) -> None:
        if self._relay is not None:
            self._relay.client.pause_peer()

    def resumeProducing(self) -> None:
        if self._relay is not None:
            self._relay.client.resume_peer()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the same."""
