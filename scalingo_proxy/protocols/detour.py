"""What a search for a backend keeps in mind once it has left the ordinary way.

Most searches need nothing of it: they find an app, a place and a kept connection in one call
after another.  All of those share one detour that nobody has made, which cannot be changed.
Nobody here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.queue import Ticket

__all__ = ["NO_DETOUR", "Detour"]


class Detour:
    """The waits, attempts and failures of one search.

    :ivar resolving: the resolver's answer, while it is waited for.
    :ivar ticket: the place in the queue, while there is one.
    :ivar queued_since: when that wait began.
    :ivar waited: seconds that it was not the search's doing that it took, all together.
    :ivar abandon_connect: ends the attempt to connect that is under way.
    :ivar tried: the members that are not asked again.
    :ivar spared: who was tried over a kept connection that had closed, and is not known to fail.
    :ivar retried_for: why a further backend is asked, as metrics call it; "" before.
    :ivar last_error: what the last attempt failed with.
    """

    __slots__ = (
        "abandon_connect",
        "last_error",
        "queued_since",
        "resolving",
        "retried_for",
        "spared",
        "ticket",
        "tried",
        "waited",
    )

    def __init__(self) -> None:
        self.resolving: Deferred[Any] | None = None
        self.ticket: Ticket | None = None
        self.queued_since = 0.0
        self.waited = 0.0
        self.abandon_connect: Callable[[], None] | None = None
        self.tried: tuple[Member, ...] = ()
        self.spared: Member | None = None
        self.retried_for = ""
        self.last_error: ProxyError | None = None


class _NoDetour(Detour):
    """Tells what a new one tells, and takes no change: it belongs to all searches."""

    __slots__ = ()

    def __init__(self) -> None:
        blank = Detour()
        for name in Detour.__slots__:
            object.__setattr__(self, name, getattr(blank, name))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: this detour was never made; ask the search for one of its own")


#: That of every search on the ordinary way.
NO_DETOUR: Detour = _NoDetour()
