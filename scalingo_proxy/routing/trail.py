"""What happened to a request off the ordinary way, for whoever asks later.

A request that is given a connection at once leaves none of these: what there
is to tell of it stands in its record.  Moments are on the proxy's monotonic
clock; everything is a plain value.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from scalingo_proxy.model import Record
from scalingo_proxy.routing.members import Member

__all__ = [
    "Attempt",
    "Denied",
    "PassedOver",
    "Waited",
    "attempt_so_far",
    "attempts_in",
    "has_further_attempt",
]


@attrs.frozen
class Attempt:
    """One backend that was asked and did not do.

    :ivar backend: its address.
    :ivar at: when it was given up.
    :ivar reused: whether a connection that was kept from before was used.
    :ivar connect_seconds: how long connecting took; 0 where nobody had to.
    :ivar sent_bytes: what was handed to the operating system for it: heads, bodies.
    :ivar end: how it ended, in a sentence.
    :ivar is_repeated: whether the same backend is asked again, over another connection.
    """

    backend: str
    at: float
    reused: bool
    connect_seconds: float
    sent_bytes: int
    end: str
    is_repeated: bool = False


@attrs.frozen
class Waited:
    """One wait in the app's queue.

    :ivar at: when it began.
    :ivar seconds: how long it lasted; ``None`` while it does.
    :ivar why: what it was for, in a sentence.
    """

    at: float
    seconds: float | None
    why: str


@attrs.frozen
class PassedOver:
    """Members that could have been chosen but for *why*."""

    at: float
    members: tuple[Member, ...]
    why: str

    @property
    def backends(self) -> tuple[str, ...]:
        """Their addresses."""
        return tuple(member.backend.address for member in self.members)


@attrs.frozen
class Denied:
    """A further backend that was not asked, and *why*."""

    at: float
    why: str


def attempt_so_far(record: Record, at: float, end: str, is_repeated: bool = False) -> Attempt:
    """What there is to tell of the attempt under way, or that was the last.

    :param record: of the exchange; the attempts before stand in its trail.
    """
    earlier = attempts_in(record.trail)
    return Attempt(
        record.backend,
        at,
        record.reused,
        max(record.connect_seconds - sum(each.connect_seconds for each in earlier), 0.0),
        record.sent_bytes,
        end,
        is_repeated,
    )


def attempts_in(trail: Iterable[object] | None) -> list[Attempt]:
    """The attempts of *trail*, in their order."""
    return [step for step in trail or () if isinstance(step, Attempt)]


def has_further_attempt(record: Record) -> bool:
    """Whether an attempt is under way, or was the last, that does not stand in the trail."""
    ended = [each for each in attempts_in(record.trail) if not each.is_repeated]
    return record.attempts > len(ended)
