"""How a tunnel that passes through ends: carried to its end, refused, too late, cut; and that it ends once.

Until a backend has said anything the client is told by an alert what went
wrong; afterwards an end that is not the peers' own cuts both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from scalingo_proxy.errors import (
    BackendClosed,
    ClientClosed,
    Denied,
    DrainTimeout,
    FirstByteTimeout,
    IdleTimeout,
    InternalError,
    ProxyError,
    UnknownHost,
)
from scalingo_proxy.model import Outcome, Record
from scalingo_proxy.protocols.backend_search import BackendSearch
from scalingo_proxy.protocols.deadlines import NEVER, Timed
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.protocols.relay import TUNNEL_LEFT, Relay
from scalingo_proxy.wire.client_hello import ClientHello
from scalingo_proxy.wire.tls_alert import Alert

__all__ = ["PassthroughEnding", "alert_for"]

_log = Logger()

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


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_TUNNEL, _OVER, _COMPLETED = Phase.TUNNEL, Phase.OVER, Outcome.COMPLETED


class PassthroughEnding(BackendSearch):
    """The ends of a tunnel, and what is told of it."""

    __slots__ = (
        "_ahead",
        "_backend_failed",
        "_client_ended",
        "_hello",
        "_lost",
        "_over",
        "_progress",
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
        BackendSearch.__init__(self, env, timed, record)  # super() is an object more (0.1 µs less)
        self.transport = transport
        self._hello = hello
        self._over: Callable[[], None] | None = over
        self._ahead: bytes | bytearray = received
        self._relay: Relay | None = None
        self._client_ended = False
        self._backend_failed = False
        self._lost = False
        #: How far either side reads; asked only of a tunnel that is silent.
        self._progress: tuple[SendProgress, SendProgress] | None = None

    def _alive(self) -> None:
        """Bytes moved.  Until the backend's first, only that is waited for."""
        relay = self._relay
        if relay is None or self.phase is not _TUNNEL or not relay.backend.received:
            return
        env, record, timed, pool = self._env, self.record, self._timed, self._pool
        assert pool is not None
        now = env.seconds()
        if record.first_byte_at is None:
            record.first_byte_at = now
            lease = self._lease
            if lease is not None and lease.member.wants_answer:
                lease.answered(now)
        timed.deadline = at = now + pool.timeouts.idle
        if at < timed.covered_from:
            env.deadlines.look_sooner(timed)

    def _tunnel_ended(self) -> None:
        """Both sides of the tunnel are gone."""
        if self.phase is not _OVER:
            self.phase = _OVER
            if self._backend_failed:
                self.record.code = BackendClosed.code
                self.record.cause = "the backend closed without a byte"
                self._release(Outcome.CLOSED)
            else:
                # A backend that has said nothing to a client who left is proved neither good nor bad.
                relay = self._relay
                has_answered = relay is not None and relay.backend.received
                self._release(_COMPLETED if has_answered else Outcome.ABANDONED)
            self._tell()
        self._leave()

    def deadline_reached(self) -> None:
        """The current wait took too long."""
        phase, relay, detour = self.phase, self._relay, self._detour
        if relay is not None and relay.is_leaving and phase is not _OVER:
            self._leave_further(relay)
        elif phase is Phase.QUEUED:
            assert detour.ticket is not None
            if self._client_ended:
                self.client_left()
            else:
                self._end(detour.last_error or detour.ticket.expired_error(), Outcome.ABANDONED)
        elif phase is _OVER:
            self.transport.abortConnection()
        elif relay is None:
            self._end(detour.last_error or InternalError(), Outcome.ABANDONED)
        elif not relay.backend.received:
            self._end(FirstByteTimeout(), Outcome.TIMED_OUT)
        else:
            # A peer that reads slowly is not silent.
            of_client, of_backend = self._progress = self._progress or (SendProgress(), SendProgress())
            moved = of_client.has_moved(self.transport)
            if of_backend.has_moved(relay.backend.transport) or moved:
                self._alive()
            else:
                self._end(IdleTimeout(), Outcome.ABANDONED)

    def _leave_tunnel(self) -> None:
        relay = self._relay
        assert relay is not None
        if not relay.is_leaving:
            self.record.code, self.record.cause = DrainTimeout.code, TUNNEL_LEFT
            seconds = relay.leave()
            if self.phase is not _OVER:
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
        if self.phase is _OVER:
            self.transport.abortConnection()
        else:
            self._end(DrainTimeout(), Outcome.ABANDONED)

    def broke(self) -> None:
        _log.failure("the tunnel {request_id} failed", request_id=self.record.request_id)
        self._end(InternalError(), Outcome.ABANDONED)

    def _end(self, error: ProxyError, outcome: Outcome) -> None:
        """End because of *error*: with an alert while that can be read, else by cutting both sides."""
        if self.phase is _OVER:
            return
        self.phase = _OVER  # before anybody else is called: none of them can end it again
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
        self._ahead = b""
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
            record.sent_bytes = sent = relay.client.received
            record.bytes_in += sent
            record.bytes_out += relay.backend.received
        record.finished_at = env.seconds()
        self._timed.deadline = NEVER
        env.finished(record)

    def _leave(self) -> None:
        """Say that nothing is left, when that is so."""
        if self.phase is _OVER and self._lost and self._over is not None:
            over, self._over = self._over, None
            over()
