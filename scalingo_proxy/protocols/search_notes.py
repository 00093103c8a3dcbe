"""What a search for a backend notes of itself, so that it can be explained later.

On the ordinary way these are a few references; everything else is noted only
when something else happened.  Nobody here decides anything.
"""

from __future__ import annotations

import errno
import os

import attrs
from twisted.internet import error as twisted_errors

from scalingo_proxy.errors import ConnectFailed
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.relay import Relay
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.pool import Lease, Pool
from scalingo_proxy.routing.trail import Attempt, Denied, PassedOver, Waited, attempt_so_far

__all__ = ["SearchNotes", "connect_failure", "is_fault_of_ours"]

#: Who is full is looked for among so many members at most, while others have
#: room: in a large pool the look would cost more than the request.
_MAX_LOOK = 64


# What this machine, not the backend's, has run out of.
_WANTS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN)
)


def connect_failure(error: BaseException | None) -> str:
    """Why no connection came about, in a sentence that has nothing of the peer in it."""
    if isinstance(error, ConnectFailed):
        return error.detail
    if isinstance(error, twisted_errors.ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, twisted_errors.TimeoutError):
        return "no connection came about in time"
    if isinstance(error, twisted_errors.NoRouteError):
        return "there is no route to it"
    if isinstance(error, twisted_errors.DNSLookupError):
        return "its name could not be resolved"
    if isinstance(error, twisted_errors.ConnectError) and error.osError:
        return f"connecting failed: {os.strerror(error.osError)}"
    return "connecting failed"


def is_fault_of_ours(error: BaseException | None) -> bool:
    """Whether no connection came about for want of something here, so that the backend is not to blame."""
    return isinstance(error, twisted_errors.ConnectError) and error.osError in _WANTS


class SearchNotes:
    """The record of a search, and how it is filled in.

    :ivar record: what will be told of the exchange.
    """

    __slots__ = ("_env", "_lease", "record")

    _env: Environment
    _lease: Lease | None
    _relay: Relay | None
    record: Record

    @property
    def carried(self) -> tuple[int, int]:
        """What a tunnel has carried that its record does not tell yet: from the client, from the backend."""
        relay = self._relay
        return (0, 0) if relay is None else (relay.client.received, relay.backend.received)

    def _note_lease(self, lease: Lease) -> None:
        """Ask this member next; all that is noted on the ordinary way."""
        self._lease = lease
        record, pool, member = self.record, lease.pool, lease.member
        record.backend = member.backend.address
        record.attempts += 1
        record.lineup = pool.lineup
        if pool.is_crowded or member.in_flight >= member.limit:
            self._note_crowd(pool, member)

    def _note_crowd(self, pool: Pool, chosen: Member) -> None:
        """Say who had no room when *chosen* was found, unless there are too many to look at."""
        if len(pool.members) <= _MAX_LOOK:
            self._note_choice(pool, chosen)

    def _note_choice(self, pool: Pool, chosen: Member | None = None) -> None:
        """Who there was to choose from, when not everybody had room or nobody was found."""
        self.record.lineup = pool.lineup
        full = pool.full_members()
        if chosen in full:
            full = tuple(each for each in full if each is not chosen)
        if full:
            why = f"had as many requests as it may ({full[0].limit})"
            self._note(PassedOver(self._env.seconds(), full, why))

    def _note_wait(self, pool: Pool, now: float) -> None:
        """It has to wait in the queue of *pool*."""
        self._note_choice(pool)
        self._note(Waited(now, None, "the app was paused" if pool.queue.is_held else "no backend had room"))

    def _note_waited(self, seconds: float) -> None:
        """The wait is over."""
        trail = self.record.trail
        if trail and isinstance(trail[-1], Waited):
            trail[-1] = attrs.evolve(trail[-1], seconds=seconds)

    def _note_no_wait(self) -> None:
        """It shall not wait after all, because there was no room in the queue either."""
        trail = self.record.trail
        if trail and isinstance(trail[-1], Waited) and trail[-1].seconds is None:
            trail.pop()

    def _note_attempt(self, end: str, is_repeated: bool = False) -> None:
        """The attempt under way has come to nothing."""
        record = self.record
        self._note(attempt_so_far(record, self._env.seconds(), end, is_repeated))
        record.sent_bytes = 0
        record.reused = False

    def _note_denied(self, why: str) -> None:
        """No further backend is asked, although this one did not do."""
        self._note(Denied(self._env.seconds(), why))

    def _note(self, step: Attempt | Denied | PassedOver | Waited) -> None:
        record = self.record
        if record.trail is None:
            record.trail = []
        record.trail.append(step)
