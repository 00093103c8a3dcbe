"""Two transports joined: every byte of one goes to the other, and so does each end.

What the tunnel carries is nobody's business here.  Half-close travels through;
each side pauses the other when it cannot keep up.  Where both are plain TCP
the bytes do not even come here, but for the first of them (see
:mod:`scalingo_proxy.transports.splice`), and all the rest stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import ISSLTransport

from scalingo_proxy.transports.connection import Eager
from scalingo_proxy.transports.pipes import Pipes
from scalingo_proxy.transports.splice import Splice, begin_splice

__all__ = ["CLOSING_SECONDS", "NEVER", "SPLICE_AFTER", "TUNNEL_LEFT", "Relay", "RelayEnd"]

#: A direction is spliced from its next piece on when it has carried more than so many
#: bytes.  Even messages of a few bytes were measured to cost half of what they cost
#: otherwise; yet many a tunnel carries but one each way, for which it does not pay.
SPLICE_AFTER = 0

#: How long what was written before a close may take to go out.
CLOSING_SECONDS = 2.0

#: Why a tunnel ends that is asked to leave, for people.
TUNNEL_LEFT = "its backend left the app, or the proxy stopped, and the time to drain was over"

#: As a number of bytes to splice after: not at all.
NEVER = math.inf


class RelayEnd:
    """One side of a relay; a protocol hands everything it is told to this.

    :ivar received: bytes that came in on this side.
    """

    __slots__ = (
        "_closed",
        "_is_closing",
        "_peer_eof",
        "_read_eof",
        "_relay",
        "_splice",
        "_splice_at",
        "peer",
        "received",
        "transport",
    )

    peer: RelayEnd

    def __init__(self, relay: Relay, transport: Any, splice_at: float) -> None:
        self._relay = relay
        self.transport = transport
        self.received = 0
        #: What carries the bytes that come in here to the other side.
        self._splice: Splice | None = None
        self._splice_at = splice_at
        self._read_eof = False
        self._peer_eof = False
        self._closed = False
        self._is_closing = False

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        before = self.received
        self.received = before + len(data)
        self._relay.alive()
        if not self.peer._closed:
            self.peer.transport.write(data)
            if before > self._splice_at:
                self._begin_splice()

    def begin_with(self, data: bytes) -> None:
        """As :meth:`data_received`, of what came in before the relay was there: it prolongs nothing."""
        self.received = len(data)
        self.peer.transport.write(data)

    def _begin_splice(self) -> None:
        self._splice_at = NEVER
        pipes = self._relay.pipes
        assert pipes is not None
        self._splice = begin_splice(self.transport, self.peer.transport, pipes, self._moved)

    def _moved(self, count: int) -> None:
        self.received += count
        self._relay.alive()

    def read_closed(self) -> None:
        """The peer of this side has said all it will say."""
        self._read_eof = True
        peer = self.peer
        if peer._read_eof:
            # So has the other: both directions are over.
            peer.close()
            peer._peer_eof = True
            self.close()
        else:
            peer._close_writing()

    def write_closed(self) -> None:
        """Our half-close has gone out; connectionLost follows when it matters."""

    def connection_lost(self) -> None:
        """Gone altogether."""
        self._closed = self._read_eof = True
        peer = self.peer
        if self._splice is not None:
            self._splice.source_lost()
        if peer._splice is not None:
            peer._splice.stop()
        if not peer._is_closing:
            peer.close()
        if peer._closed:
            self._relay.both_closed()

    def pause_peer(self) -> None:
        """The buffer of this side is full."""
        if not self.peer._closed:
            self.peer.transport.pauseProducing()

    def resume_peer(self) -> None:
        """The buffer of this side has room again."""
        self._relay.alive()
        if not self.peer._closed and not self.peer._read_eof:
            self.peer.transport.resumeProducing()

    def _close_writing(self) -> None:
        """Tell this side that nothing more will come, keeping its other direction."""
        if self._closed or self._peer_eof:
            return
        self._peer_eof = True
        transport = self.transport
        transport.unregisterProducer()
        if isinstance(transport, Eager) and not transport.TLS:
            transport.end_writing()  # in this turn instead of the next
        elif ISSLTransport.providedBy(transport):
            self.close()  # TLS streams of Twisted know no half-close
        else:
            transport.loseWriteConnection()

    def close(self) -> None:
        """Close once what is written has gone out."""
        if self._closed or self._is_closing:
            return
        self._is_closing = True
        transport = self.transport
        if not self._peer_eof:  # else it was done then
            transport.unregisterProducer()
        if not isinstance(transport, Eager):
            # A reader that was paused would never see the end come.
            transport.resumeProducing()
        transport.loseConnection()

    def abort(self) -> None:
        """Close at once."""
        if not self._closed:
            self.transport.abortConnection()

    @property
    def is_over(self) -> bool:
        return self._closed

    @property
    def can_be_written(self) -> bool:
        """Whether this side still expects bytes."""
        return not (self._closed or self._peer_eof)


class Relay:
    """A tunnel between a client and a backend.

    :ivar is_leaving: it is being ended, and nothing that moves prolongs it.
    :param alive: called for every piece of data, to move the idle deadline.
    :param ended: called once, when both sides are gone.
    :param pipes: what to splice through; without them nothing is spliced.
    :param splice_after: of a direction that has carried more bytes, all but the next piece is spliced.
    """

    __slots__ = ("_ended", "alive", "backend", "client", "is_leaving", "pipes")

    def __init__(
        self,
        client_transport: Any,
        backend_transport: Any,
        alive: Callable[[], None],
        ended: Callable[[], None],
        pipes: Pipes | None = None,
        splice_after: int = SPLICE_AFTER,
    ) -> None:
        self.alive = alive
        self._ended: Callable[[], None] | None = ended
        self.pipes = pipes
        self.is_leaving = False
        splice_at = splice_after if pipes is not None else NEVER
        self.client = RelayEnd(self, client_transport, splice_at)
        self.backend = RelayEnd(self, backend_transport, splice_at)
        self.client.peer, self.backend.peer = self.backend, self.client

    def both_closed(self) -> None:
        """All is gone: tell of it once."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def leave(self) -> float:
        """Begin to end in order.

        :return: after how many seconds :meth:`leave_further` is next, if the
            tunnel has not ended by then.
        """
        self.begin_leaving()
        self.close()
        return CLOSING_SECONDS

    def leave_further(self) -> float:
        """Go on ending; as :meth:`leave`, or 0: only :meth:`abort` is left."""
        return 0.0

    def begin_leaving(self) -> None:
        """Nothing that moves prolongs the tunnel any more."""
        self.is_leaving = True
        self.alive = _ignored

    def close(self) -> None:
        """Close both sides once what is written has gone out."""
        self.client.close()
        self.backend.close()

    def abort(self) -> None:
        """Cut both sides."""
        self.client.abort()
        self.backend.abort()


def _ignored() -> None:
    """Stands for what prolongs a tunnel."""
