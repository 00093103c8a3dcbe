"""How a backend is told to people and programs: plain values out of a pool.

Reads members, never changes them.  Knows no HTTP; times go in as moments of
the pools' clock and come out as RFC 3339.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from scalingo_proxy.model import App
from scalingo_proxy.routing.members import HealthState, Member, Membership
from scalingo_proxy.routing.pool import Pool

__all__ = ["BackendStatus", "rfc3339", "statuses_from_pool", "statuses_from_record"]


@attrs.frozen
class BackendStatus:
    """One backend of an app, as it stands.

    :ivar state: one word for people, of membership and health together.
    :ivar reason: why it is in that state, one sentence.
    :ivar since: when that began, RFC 3339.
    """

    address: str
    weight: int
    membership: str
    health: str
    state: str
    reason: str
    since: str
    in_flight: int
    tunnels: int
    is_drained: bool

    def told(self) -> dict[str, Any]:
        """The status as the admin API gives it."""
        return attrs.asdict(self)


def statuses_from_record(app: App, told_at: float, most: int | None = None) -> list[BackendStatus]:
    """The backends of an app that nobody has asked for yet.

    :param told_at: when the proxy was told of the app as it is, in seconds
        since the epoch.
    """
    return [
        BackendStatus(
            backend.address,
            backend.weight,
            membership="serving",
            health="unproven",
            state="unproven",
            reason="no request has reached this app yet",
            since=rfc3339(told_at),
            in_flight=0,
            tunnels=0,
            is_drained=False,
        )
        for backend in app.backends[:most]
    ]


def statuses_from_pool(
    pool: Pool, wall_time: Callable[[float], float], most: int | None = None
) -> list[BackendStatus]:
    """Serving members in the app's order, then those that still drain.

    :param wall_time: turns a moment of the pools' clock into seconds since
        the epoch.
    :param most: so many are enough; where there are more, those come first
        that drain or may not be given requests.
    """
    members: Sequence[Member] = (*pool.members, *pool.draining)
    if most is not None and len(members) > most:
        members = sorted(members, key=_is_ordinary)[:most]
    return [_status(member, wall_time) for member in members]


def _is_ordinary(member: Member) -> bool:
    return member.membership is Membership.SERVING and member.health in (HealthState.UP, HealthState.UNPROVEN)


def _status(member: Member, wall_time: Callable[[float], float]) -> BackendStatus:
    is_serving = member.membership is Membership.SERVING
    since = member.health_since if is_serving else member.membership_since
    return BackendStatus(
        member.backend.address,
        member.backend.weight,
        membership=member.membership.value,
        health=member.health.value,
        state=_state(member),
        reason=_reason(member),
        since=rfc3339(wall_time(since)),
        in_flight=member.in_flight,
        tunnels=member.tunnels,
        is_drained=member.is_drained,
    )


def _state(member: Member) -> str:
    if member.is_drained:
        return "drained"
    if member.membership is not Membership.SERVING:
        return "draining"
    if member.health in (HealthState.UP, HealthState.UNPROVEN) and not member.has_room:
        return "full"
    return member.health.value


def _reason(member: Member) -> str:
    state = _state(member)
    if state == "drained":
        return "no longer a backend of the app; nothing is open, so it is safe to kill"
    if state == "draining":
        return f"no longer a backend of the app; {_still_open(member)}"
    if state == "full":
        return f"serves as many requests as it may ({member.limit})"
    return member.health_reason or "no request has been answered by it yet"


def _still_open(member: Member) -> str:
    counts = ((member.in_flight, "request"), (member.tunnels, "tunnel"))
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count]
    return f"{' and '.join(parts)} still open"


def rfc3339(seconds: float) -> str:
    """A moment since the epoch, as everywhere in the API."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
