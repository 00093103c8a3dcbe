"""Connect to the backends that a search was given, one after another.

Which one is asked next is decided by :mod:`.backend_search`; here an attempt
begins, ends, and says whether there may be another.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from scalingo_proxy.errors import ConnectFailed, ProxyError, QueueTimeout
from scalingo_proxy.model import Outcome, Timeouts
from scalingo_proxy.protocols.deadlines import NEVER, Timed
from scalingo_proxy.protocols.detour import NO_DETOUR, Detour
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.search_notes import SearchNotes, connect_failure, is_fault_of_ours
from scalingo_proxy.routing.members import Member, Membership
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.routing.retries import MAX_BACKENDS

__all__ = ["BackendAttempts"]

#: A request turns to a further backend within this many ``connect`` times; what
#: it waits for a route or in the queue does not count.
_SEARCH_BUDGET = MAX_BACKENDS

#: So many seconds of a search may just as well have been a wait.
_NO_WAIT = 0.005


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_CONNECTING, _SERVING = Phase.CONNECTING, Membership.SERVING


class BackendAttempts(SearchNotes):
    """The attempts of one search; a base class for the reason its successor gives.

    :ivar phase: what the search waits for now.
    :ivar _connecting_since: when the last attempt was begun; not there before the first.
    """

    __slots__ = (
        "_connecting_since",
        "_detour",
        "_pool",
        "_preface",
        "_timed",
        "phase",
    )

    phase: Phase
    _timed: Timed
    _pool: Pool | None
    _connecting_since: float
    _detour: Detour
    _preface: bytes

    def _find_backend(self, pool: Pool) -> None:
        """Ask for a place at a backend that was not tried, and use it."""
        raise NotImplementedError

    def _send(self, backend: HTTPBackend, now: float) -> None:
        """Use the connection that was found, *now*."""
        raise NotImplementedError

    def fail(self, error: ProxyError) -> None:
        """End with an error of ours; the backend, if there is one, is not to blame."""
        raise NotImplementedError

    def broke(self) -> None:
        """End because of a bug of ours, which the exception being handled tells of."""
        raise NotImplementedError

    def _leave_the_way(self) -> Detour:
        """What this search keeps in mind from now on that those on the ordinary way need not."""
        detour = self._detour
        if detour is NO_DETOUR:
            detour = self._detour = Detour()
        return detour

    def leave_out_wait(self) -> None:
        """What was waited for until now, of the client or the resolver, is no part of the search."""
        waited = self._env.seconds() - self.record.started_at
        if waited > _NO_WAIT:
            self._leave_the_way().waited = waited

    @property
    def _timeouts(self) -> Timeouts:
        return (self._pool or self._env).timeouts

    def _release(self, outcome: Outcome, reason: str = "") -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome, self._env.seconds(), reason)

    def _connect(self) -> None:
        env, pool, lease = self._env, self._pool, self._lease
        assert pool is not None and lease is not None
        self.phase = _CONNECTING
        self._connecting_since = now = env.seconds()
        self._timed.deadline = NEVER  # the attempt has its own
        seconds = pool.timeouts.connect
        left = seconds * _SEARCH_BUDGET - (now - self.record.started_at - self._detour.waited)
        abandon = self._open_connection(lease.member, min(seconds, left))
        # An attempt that ends before this returns may have begun the next one, with another lease.
        if self.phase is _CONNECTING and self._lease is lease:
            # Not before: who is connected at once need not be known to be connecting (2 µs less).
            self._leave_the_way().abandon_connect = abandon
            env.connecting.setdefault(lease.member, {})[self] = None

    def _open_connection(self, member: Member, seconds: float) -> Callable[[], None]:
        """Begin a connection to *member*, and say how to abandon it."""
        connect = self._env.connections.connect
        return connect(member, self, seconds, self._connect_failed, self._preface)  # type: ignore[arg-type]

    def _seconds_left(self) -> float:
        """How long this request may still look for a backend."""
        used = self._env.seconds() - self.record.started_at - self._detour.waited
        return self._timeouts.connect * _SEARCH_BUDGET - used

    def backend_connected(self, backend: HTTPBackend) -> None:
        """The connection is there."""
        now = self._env.seconds()
        self._attempt_over(now)
        lease, pool = self._lease, self._pool
        assert lease is not None and pool is not None
        if lease.member.membership is _SERVING:
            self._send(backend, now)
        else:
            # It left the app meanwhile; its address may be somebody else's by now.
            backend.abandon()
            self._note_attempt("it left the app while it was being connected")
            self._release(Outcome.ABANDONED)
            self._find_backend(pool)

    def _connect_failed(self, reason: Failure) -> None:
        self._attempt_over(self._env.seconds())
        error = reason.value
        if isinstance(error, QueueTimeout):
            self.fail(error)  # it never came to asking the backend, which is not to blame
            return
        detour = self._leave_the_way()
        detour.last_error = error if isinstance(error, ConnectFailed) else ConnectFailed()
        detour.retried_for = "connect-failed"
        try:
            why = connect_failure(error)
            outcome = Outcome.ABANDONED if is_fault_of_ours(error) else Outcome.CONNECT_FAILED
            self._try_another(outcome, why, reason=why)
        except Exception:
            self.broke()

    def _attempt_over(self, now: float) -> Callable[[], None] | None:
        """The attempt to connect has ended, or shall: give what abandons it."""
        lease, detour = self._lease, self._detour
        abandon = detour.abandon_connect
        self.record.connect_seconds += now - self._connecting_since
        if abandon is not None:
            detour.abandon_connect = None
            by_member = self._env.connecting
            connecting = by_member.get(lease.member) if lease is not None else None
            if lease is not None and connecting is not None:
                connecting.pop(self, None)
                if not connecting:
                    del by_member[lease.member]
        return abandon

    def backend_failed_others(self) -> None:
        """The backend that it is being connected to was put aside: do not wait for it, if there is another.

        Nothing was sent.  Where there is no other, this one may still accept.
        """
        lease, pool, detour = self._lease, self._pool, self._detour
        assert lease is not None and pool is not None
        tried = (*detour.tried, lease.member)
        if lease.member.is_on_trial or len(tried) >= MAX_BACKENDS or not pool.has_other(tried):
            return
        abandon = self._attempt_over(self._env.seconds())
        if abandon is not None:
            abandon()
        detour.last_error, detour.retried_for = ConnectFailed(), "connect-failed"
        try:
            self._try_another(Outcome.ABANDONED, "it was put aside while it was being connected")
        except Exception:
            self.broke()

    def _try_another(self, outcome: Outcome, why: str = "", reason: str = "") -> None:
        """The backend that was leased failed: ask a further one, if one may be asked.

        :param why: what went wrong, for explanations.
        :param reason: the same for whoever judges the backend.
        """
        lease, pool, detour = self._lease, self._pool, self._detour
        error = detour.last_error
        assert lease is not None and pool is not None and error is not None
        detour.tried += (lease.member,)
        self._note_attempt(why or error.detail)
        self._release(outcome, reason)
        if len(detour.tried) >= MAX_BACKENDS:
            self._note_denied(f"a request is given to {MAX_BACKENDS} backends at most")
            self.fail(error)
        elif self._seconds_left() <= 0:
            self._note_denied("the time for finding a backend was over")
            self.fail(error)
        else:
            self._find_backend(pool)
