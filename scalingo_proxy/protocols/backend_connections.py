"""Connections to backends: made when needed, kept while they are of use.

Idle ones are kept per pool member and used again last-in first-out, so that
the rest can grow old and be closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from scalingo_proxy.protocols.connection_attempts import ConnectionAttempts
from scalingo_proxy.protocols.deadlines import NEVER, Deadlines
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.idle_ages import IdleAges
from scalingo_proxy.protocols.raw_backend import RawBackend, TunnelOwner
from scalingo_proxy.routing.members import Membership

if TYPE_CHECKING:
    from scalingo_proxy.protocols.exchange import Exchange

__all__ = ["BackendConnections"]

#: Seconds an unused connection is kept.  Below the 60 s and 75 s after which
#: most application servers close theirs: who closes first avoids the race.
IDLE_SECONDS = 50.0

#: Unused connections kept to one backend; and to one that may have more requests at once,
#: so many as these, but not beyond the second number.  Else those that a hundred streams of
#: HTTP/2 use in turn are closed and made again: 30 µs a request.
MAX_IDLE_PER_BACKEND = 50
_MOST_IDLE_PER_BACKEND = 512

#: Seconds a connection that is given up has for what was written to go out.
CLOSING_SECONDS = 30.0

_SERVING = Membership.SERVING


class BackendConnections:
    """All connections of one proxy to its backends.

    :param attempts: makes them.
    :param deadlines: where idle connections wait for their end.
    :param seconds: the monotonic clock.
    """

    def __init__(
        self, attempts: ConnectionAttempts, deadlines: Deadlines, seconds: Callable[[], float]
    ) -> None:
        self.attempts = attempts
        self._deadlines = deadlines
        self.seconds = seconds
        self._idle: dict[Any, list[HTTPBackend]] = {}
        self._open: set[HTTPBackend] = set()
        self._open_raw = 0
        self._closing = False
        self._ages = IdleAges()

    @property
    def open_count(self) -> int:
        """How many connections are established."""
        return len(self._open) + self._open_raw

    @property
    def busy_count(self) -> int:
        """How many are used by an exchange or a tunnel, or are being made for one."""
        return self.open_count - self.idle_count + len(self.attempts)

    @property
    def idle_count(self) -> int:
        """How many of them wait for an exchange."""
        return sum(map(len, self._idle.values()))

    def take_idle(
        self, member: Any, exchange: Exchange, must_be_alive: bool, preface: bytes = b""
    ) -> HTTPBackend | None:
        """The idle connection to *member* that was used last, now the exchange's; None if there is none.

        :param must_be_alive: make sure that the backend has not closed it.
        :param preface: what it must have begun with.
        """
        idle = self._idle.get(member)
        while idle:
            backend = idle.pop()
            # Nearly all have none: the same object.  Bytes that are compared cost 0.05 µs.
            if backend.preface is not preface and backend.preface != preface:
                idle.append(backend)
                fitting = _take_from(idle, preface)
                if fitting is None:
                    return None
                backend = fitting
            backend.deadline = NEVER
            if must_be_alive and not backend.is_alive():
                self.had_closed(backend)
                backend.abandon()
                continue
            backend.exchange = exchange
            return backend
        return None

    def connect(
        self,
        member: Any,
        exchange: Exchange,
        timeout: float,
        failed: Callable[[Failure], None],
        preface: bytes = b"",
    ) -> Callable[[], None]:
        """Begin a new connection; the exchange's ``backend_connected`` or *failed* tells how it went.

        :param preface: what is sent first of all, once.
        :return: a function that abandons the attempt.
        """
        protocol = HTTPBackend(self, member, exchange, preface)
        return self.attempts.begin(member.backend, protocol, timeout, failed)

    def connect_raw(
        self, member: Any, owner: TunnelOwner, timeout: float, failed: Callable[[Failure], None]
    ) -> Callable[[], None]:
        """Begin a new connection that will be a tunnel; never kept, but counted."""
        return self.attempts.begin(member.backend, RawBackend(self, owner), timeout, failed)

    def raw_connected(self, backend: RawBackend) -> None:
        """A connection for a tunnel was established."""
        if self.attempts.under_way:  # else it was there at once
            self.attempts.over(backend)
        self._open_raw += 1

    def raw_connection_lost(self) -> None:
        """One of them is gone."""
        self._open_raw -= 1

    def connected(self, backend: HTTPBackend) -> None:
        """A connection was established."""
        self.attempts.over(backend)
        self._open.add(backend)

    def give_back(self, backend: HTTPBackend, now: float) -> None:
        """An exchange is over and its connection can carry another."""
        member = backend.member
        if member.membership is not _SERVING or self._closing:
            self.discard(backend)
            return
        idle = self._idle.get(member)
        if idle is None:
            self._idle[member] = [backend]
        elif len(idle) < MAX_IDLE_PER_BACKEND or self._make_room(idle, backend):
            idle.append(backend)
        else:
            self.discard(backend)
            return
        backend.idle_since = now
        limit = self._ages.limit(member, IDLE_SECONDS, now) if self._ages.closes else IDLE_SECONDS
        backend.deadline = at = now + limit
        if at < backend.covered_from:
            self._deadlines.look_sooner(backend)

    def _make_room(self, idle: list[HTTPBackend], backend: HTTPBackend) -> bool:
        """Whether *backend* may join so many; one of them may be closed for it."""
        if backend.preface:
            # They fit one client each, and that of the oldest may be gone long since.
            self.discard(idle[0])
        most: int = max(MAX_IDLE_PER_BACKEND, min(backend.member.limit, _MOST_IDLE_PER_BACKEND))
        return len(idle) < most

    def closed_by_backend(self, backend: HTTPBackend) -> None:
        """The backend closed it, perhaps because nobody had used it for so long."""
        if backend in self._idle.get(backend.member, ()):
            self.had_closed(backend)

    def had_closed(self, backend: HTTPBackend) -> None:
        """The backend closed it while it was kept: keep none to it for as long, from now on."""
        now, member = self.seconds(), backend.member
        self._ages.closed(member, now - backend.idle_since, now)
        limit = self._ages.limit(member, IDLE_SECONDS, now)
        for other in self._idle.get(member, ()):
            if other is not backend:
                self._deadlines.set(other, other.idle_since + limit)

    def discard(self, backend: HTTPBackend) -> None:
        """Use it no more: let what is written go out, then close it."""
        self._forget_idle(backend)
        self._close(backend)

    def connection_lost(self, backend: HTTPBackend) -> None:
        """The connection is gone."""
        self.closed_by_backend(backend)
        self._open.discard(backend)
        self._deadlines.forget(backend)
        self._forget_idle(backend)

    def close_idle(self, member: Any) -> None:
        """Close what waits for *member*: it gets no further request, for now at least."""
        self._ages.forget(member)
        for backend in self._idle.pop(member, ()):
            self._close(backend)

    def close_some_idle(self, count: int) -> None:
        """Close up to *count* of those that wait, each member's oldest first."""
        while oldest := [idle[0] for idle in self._idle.values() if idle][:count]:
            for backend in oldest:
                self.discard(backend)
            count -= len(oldest)

    def open(self) -> None:
        """Keep connections from now on."""
        self._closing = False

    def close_all_idle(self) -> None:
        """Close every idle connection, and each other one when its exchange is over."""
        self._closing = True
        for member in list(self._idle):
            self.close_idle(member)

    def _close(self, backend: HTTPBackend) -> None:
        backend.close()
        if backend in self._open:
            self._deadlines.set(backend, self.seconds() + CLOSING_SECONDS)

    def _forget_idle(self, backend: HTTPBackend) -> None:
        idle = self._idle.get(backend.member)
        if idle is not None:
            if backend in idle:
                idle.remove(backend)
            if not idle:
                del self._idle[backend.member]


def _take_from(idle: list[HTTPBackend], preface: bytes) -> HTTPBackend | None:
    """The last one that began with *preface*."""
    for index in range(len(idle) - 1, -1, -1):
        if idle[index].preface == preface:
            return idle.pop(index)
    return None
