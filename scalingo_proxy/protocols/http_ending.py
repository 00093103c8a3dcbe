"""How an HTTP/1 connection of a client ends: after its last answer, and so that this arrives.

Closing is not one thing.  A client that is still sending must be heard out for
a while; a response that broke off must not look whole; one that is read slowly
needs time, and a proxy that stops has none.  What led to the end is not known
here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from twisted.internet.interfaces import ISSLTransport

from scalingo_proxy.errors import DrainTimeout, ProxyError, RequestTimeout
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.client_connections import CRAWL_DOWN, CRAWL_SECONDS, CRAWL_UP
from scalingo_proxy.protocols.downstream import Phase, UnderWay
from scalingo_proxy.protocols.http_responder import HTTPResponder
from scalingo_proxy.protocols.progress import SendProgress, has_unread
from scalingo_proxy.transports.connection import Eager
from scalingo_proxy.wire.http1_forwarding import ClientIdentity

if TYPE_CHECKING:
    pass

__all__ = ["QUIET_SECONDS", "Doing", "HTTPEnding"]

#: After a last answer the client may still be sending; its bytes are thrown
#: away for so long and so many, because closing at once would reset the
#: connection and could take the answer with it (RFC 9112 §9.6).
LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * 1024 * 1024

#: When the proxy stops, a connection that was used less than this ago is kept
#: so long: its client may be sending a request, which a close would reset.
QUIET_SECONDS = 1.0

#: What lies in the system's buffer is read within this.
UNREAD_SECONDS = 0.2


class Doing(enum.Enum):
    """What the connection as a whole is doing."""

    WAITING = "waiting for a request"
    HEAD = "reading a head"
    EXCHANGE = "exchange under way"
    TUNNEL = "tunnel"
    LINGERING = "throwing away what still comes"
    CLOSED = "closed"


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_WAITING, _CLOSED = Doing.WAITING, Doing.CLOSED


class HTTPEnding(HTTPResponder):
    """The ways in which a client connection ends."""

    # What few connections ever have, here and below, is the class's until they have it.  With
    # more than 30 attributes of its own an object needs a dict of its own: 1.2 kB more.
    _lingered = 0
    _is_cut = False
    _leaves_when_quiet = False
    _progress: SendProgress | None = None

    _doing: Doing
    _ahead: bytearray
    _reading_paused: bool
    has_asked: bool
    _lost: bool
    _identity: ClientIdentity | None

    @property
    def progress(self) -> SendProgress:
        """How far the client reads; made when somebody wants to know."""
        if self._progress is None:
            self._progress = SendProgress()
        return self._progress

    # -- what is told of it ---------------------------------------------------

    def _unread_record(self) -> Record:
        """The record of what never became a request; it began with the first byte of its head."""
        env, identity = self._env, self._identity
        assert identity is not None
        record = Record(env.seconds(), env.wall_clock(), identity.peer, self._factory.listener)
        record.protocol, record.tls = "http/1.1", identity.tls
        if self._doing is Doing.HEAD and self._ahead:
            now, wait = record.started_at, self._env.timeouts.request_head
            waited = wait - (self.deadline - now) if self.deadline <= now + wait else wait  # it is just over
            record.started_at -= waited
            record.wall_time -= waited
        return record

    def _tell_unread(self, error: ProxyError) -> None:
        """The connection ends: tell of bytes that wait and will not become a request, if there are any."""
        if self._ahead and (self._doing is Doing.HEAD or self._doing is _WAITING):
            self._env.refused(self._unread_record(), error)
            self._ahead.clear()

    def _close(self) -> None:
        """Close once what is written has gone out, if the client takes it at all."""
        self._stop_serving(_CLOSED)
        self._wait(self._env.timeouts.idle)
        self.transport.loseConnection()

    def _break(self) -> None:
        """End a response that is not complete.

        Where only the end of the connection would end the body, it has to be
        a reset; elsewhere what was sent may go out first.
        """
        if self._ends_by_close:
            self._doing = _CLOSED
            self.transport.abortConnection()
        else:
            self._close()

    def _linger(self) -> None:
        """Close after a last answer to a client that is still sending."""
        if ISSLTransport.providedBy(self.transport) or not hasattr(self.transport, "loseWriteConnection"):
            # TLS reads on by itself until the client has answered the close alert.
            self._close()
            return
        self._stop_serving(Doing.LINGERING)
        self.progress.forget()  # so short a wait is for who has the answer; who still reads it has longer
        self._wait(LINGER_SECONDS)
        self.transport.loseWriteConnection()

    def _stop_serving(self, doing: Doing) -> None:
        transport = self.transport
        self._doing = doing
        if self._ahead:
            self._ahead.clear()
        transport.unregisterProducer()
        self._reading_paused = False
        if doing is not _CLOSED or not isinstance(transport, Eager):
            # Whoever does not read does not learn that the client has gone; who closes TCP does not read.
            transport.resumeProducing()

    def _wait(self, seconds: float) -> None:
        self._env.deadlines.set(self, self._env.seconds() + seconds)

    def _throw_away(self, data: bytes) -> None:
        """More of what nobody will read."""
        self._lingered += len(data)
        if self._lingered > _LINGER_BYTES:
            self.transport.abortConnection()

    def writing_held(self, is_held: bool) -> None:
        """What others write to our transport is not taken by the client for now, or is again."""
        self._writing_paused = is_held
        if is_held:
            self.progress.note(self.transport)

    def _end_is_late(self) -> None:
        """An end that was begun takes too long."""
        if not self._is_cut and self.progress.has_moved(self.transport):
            self._wait(self._env.timeouts.idle)  # it reads slowly, but it reads
        else:
            self.transport.abortConnection()

    def under_way(self) -> tuple[UnderWay, ...]:
        """The exchange of this connection, while there is one."""
        return () if self._exchange is None else (self._exchange,)

    # -- there are too many ---------------------------------------------------

    def idle_since(self) -> float | None:
        """Since when a request, or the rest of its head, is waited for."""
        timeouts = self._env.timeouts
        if self._doing is _WAITING and self.has_asked:
            return self.deadline - timeouts.keep_alive
        if self._doing is _WAITING or self._doing is Doing.HEAD:
            return self.deadline - timeouts.request_head
        return None

    def crawls(self, now: float) -> bool:
        """Whether its upload, or its reading, is slower than any network that people put up with."""
        if self._doing is _CLOSED:
            return self.deadline - self._env.timeouts.idle + CRAWL_SECONDS <= now  # it takes its time
        exchange = self._exchange
        if exchange is None or self._doing is not Doing.EXCHANGE:
            return False
        record = exchange.record
        seconds = now - record.started_at
        if seconds < CRAWL_SECONDS:
            return False
        if exchange.phase is Phase.SENDING:
            return record.bytes_in < seconds * CRAWL_UP
        return self._writing_paused and record.bytes_out < seconds * CRAWL_DOWN

    def give_up(self) -> None:
        """Close, to make room for others."""
        if self._doing is _WAITING:
            self._close()
        elif self._exchange is not None:
            self._exchange.deadline_reached()  # it is told what it would have been told later
        else:
            self._tell_unread(RequestTimeout("the request head was not there when room was needed"))
            self.transport.abortConnection()

    # -- the proxy stops -----------------------------------------------------

    def drain(self) -> None:
        """The proxy stops: close if nothing is under way or just about to be, else after the answer."""
        if self._doing is _WAITING and not self._leaves_when_quiet:
            since = self.idle_since()
            now = self._env.seconds()
            quiet = now - since if since is not None else 0.0
            if quiet < QUIET_SECONDS or has_unread(self.transport):
                self._leave_when_quiet(max(QUIET_SECONDS - quiet, UNREAD_SECONDS))
            else:
                self._close()

    def _leave_when_quiet(self, seconds: float = QUIET_SECONDS) -> None:
        """Close in a moment, for a request may be on its way; its answer will be the last."""
        self._leaves_when_quiet = True
        self._wait(seconds)

    def cut(self) -> None:
        """The proxy stops and waits no longer: an answer that has not begun is a 503, all else a reset."""
        self._is_cut = True
        exchange = self._exchange
        is_told = exchange is not None and not exchange.response_begun
        if exchange is not None:
            exchange.cut()
        else:
            self._tell_unread(DrainTimeout())
        if self._lost:
            return  # only the backend's end of a tunnel was left
        if is_told:
            self._wait(LINGER_SECONDS)
        else:
            self.transport.abortConnection()
