"""Requests that wait for a place: in order of arrival, easy to leave.

The queue keeps order and nothing else: who is served, and when, is the pool's
decision.  It reads no clock; whoever waits keeps the deadline and cancels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from scalingo_proxy.errors import PauseTimeout, ProxyError, QueueTimeout
from scalingo_proxy.routing.members import Member

if TYPE_CHECKING:
    from scalingo_proxy.routing.pool import Lease

__all__ = ["Queue", "Ticket"]


class Ticket:
    """One request's place in the queue; it ends exactly once.

    It is granted, or refused, or cancelled by its owner; after that it holds
    nothing of the owner any more.

    :ivar since: when it began to wait.
    :ivar tried: the members this request must not be given.
    :ivar number: its place in the order of arrival.
    :ivar is_waiting: whether it has not ended yet.
    """

    __slots__ = ("_granted", "_queue", "_refused", "is_waiting", "number", "since", "tried")

    def __init__(
        self,
        queue: Queue,
        number: int,
        since: float,
        granted: Callable[[Lease], None],
        refused: Callable[[ProxyError], None],
        tried: tuple[Member, ...],
    ) -> None:
        self._queue = queue
        self._granted: Callable[[Lease], None] | None = granted
        self._refused: Callable[[ProxyError], None] | None = refused
        self.number = number
        self.since = since
        self.tried = tried
        self.is_waiting = True

    def cancel(self) -> None:
        """Leave the queue, calling nobody; without effect once it has ended."""
        if self.is_waiting:
            self._end()

    def expired_error(self) -> ProxyError:
        """What to tell a client whose wait took too long: pause or lack of places."""
        return PauseTimeout() if self._queue.is_held else QueueTimeout()

    def grant(self, lease: Lease) -> None:
        """End with a lease, which is the owner's from here on; called by the pool."""
        granted = self._granted
        self._end()
        assert granted is not None
        granted(lease)

    def refuse(self, error: ProxyError) -> None:
        """End without a lease; called by the pool."""
        refused = self._refused
        self._end()
        assert refused is not None
        refused(error)

    def _end(self) -> None:
        self.is_waiting = False
        self._granted = self._refused = None
        self._queue.discard(self)


class Queue:
    """Tickets in order of arrival, in one line for each set of members tried.

    All tickets of a line can use the same members, so only the first of each
    line is ever looked at: a free place finds its taker without walking past
    those who cannot use it, however many they are.

    :ivar length: how many tickets wait.
    :ivar is_held: whether nobody is served because the app is paused.
    """

    __slots__ = ("_behind_until", "_lines", "_number", "is_held", "length")

    def __init__(self) -> None:
        # An OrderedDict and not a dict: finding the first key of a dict walks
        # over all that were removed before it.
        self._lines: dict[tuple[Member, ...], OrderedDict[int, Ticket]] = {}
        self._number = 0
        self.length = 0
        self.is_held = False
        self._behind_until = -math.inf

    def hold(self, is_held: bool, behind_until: float) -> None:
        """Serve nobody, or serve again.

        :param behind_until: until when at most those who waited may stand in
            the way of others.
        """
        if self.is_held and not is_held:
            self._behind_until = behind_until
        self.is_held = is_held

    def is_behind(self, now: float) -> bool:
        """Whether it is as long as it is because nobody was served for a while.

        So it is until nobody waits: who came meanwhile waits behind those who
        waited before.  To be asked each time somebody comes.
        """
        if now < self._behind_until and self.length:
            return True
        self._behind_until = -math.inf
        return False

    def add(
        self,
        now: float,
        granted: Callable[[Lease], None],
        refused: Callable[[ProxyError], None],
        tried: tuple[Member, ...],
    ) -> Ticket:
        """Put a new ticket behind all others."""
        self._number += 1
        ticket = Ticket(self, self._number, now, granted, refused, tried)
        line = self._lines.get(tried)
        if line is None:
            line = self._lines[tried] = OrderedDict()
        line[ticket.number] = ticket
        self.length += 1
        return ticket

    def discard(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it stands."""
        line = self._lines[ticket.tried]
        del line[ticket.number]
        if not line:
            del self._lines[ticket.tried]
        self.length -= 1

    def has_line(self, tried: tuple[Member, ...]) -> bool:
        """Whether anybody waits who tried exactly these."""
        return tried in self._lines

    def heads(self) -> list[Ticket]:
        """The first ticket of each line, oldest first."""
        heads = [next(iter(line.values())) for line in self._lines.values()]
        if len(heads) > 1:
            heads.sort(key=_arrival)
        return heads


def _arrival(ticket: Ticket) -> int:
    return ticket.number
