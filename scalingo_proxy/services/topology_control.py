"""What is held back of the topology, and what a person may do about it.

Asks those who hold something back; what they hold, and how it comes into
effect, they know themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.resolvers.held_back import Held
from scalingo_proxy.services.resolver_updates import SourceState

__all__ = ["Guard", "NothingHeldBack", "TopologyControl", "held_record"]

#: So many names of apps are told; a list of all may be as long as the platform.
_MAX_NAMES = 50


class NothingHeldBack(ScalingoProxyError):
    """There is nothing to confirm and nothing to discard."""

    def __init__(self) -> None:
        super().__init__("no update of the topology is held back")


class Guard(Protocol):
    """Whoever may hold an update back."""

    name: str

    @property
    def held(self) -> Held | None: ...

    def confirm(self) -> Any: ...

    def discard(self) -> Any: ...


class TopologyControl:
    """The operations of the admin API on what is held back.

    :param guards: whoever may hold an update back.
    :param sources: how each source of routes stands.
    :param exclusively: runs a change while no other one is made.
    :param wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        guards: Sequence[Guard],
        *,
        sources: Callable[[], Iterable[SourceState]],
        exclusively: Callable[[Callable[[], Coroutine[Deferred[Any], Any, Any]]], Deferred[Any]],
        wall_clock: Callable[[], float],
    ) -> None:
        self._guards = tuple(guards)
        self._sources = sources
        self._exclusively = exclusively
        self._wall_clock = wall_clock

    def sentences(self) -> list[str]:
        """What is held back, for people; nothing when all is well."""
        return [
            f"{guard.held}, since {_rfc3339(guard.held.since)}"
            for guard in self._guards
            if guard.held is not None
        ]

    def states(self) -> list[tuple[tuple[str], bool]]:
        """By the name of each source, whether an update of it is held back."""
        return [((guard.name,), guard.held is not None) for guard in self._guards]

    def told(self) -> dict[str, Any]:
        """How each source stands, JSON-shaped."""
        held = {guard.name: guard.held for guard in self._guards}
        return {
            "held": any(each is not None for each in held.values()),
            "sources": [self._source(state, held.get(state.name)) for state in self._sources()],
        }

    def confirm(self) -> Deferred[list[dict[str, Any]]]:
        """Let what is held back come into effect; fires with what that was.

        Fails with NothingHeldBack, or as a reload does.
        """

        async def confirm() -> list[dict[str, Any]]:
            return self._records([await maybeDeferred(guard.confirm) for guard in self._guards])

        return self._exclusively(confirm)

    def discard(self) -> Deferred[list[dict[str, Any]]]:
        """Forget what is held back; fires with what that was, or fails with NothingHeldBack."""

        async def discard() -> list[dict[str, Any]]:
            return self._records([await maybeDeferred(guard.discard) for guard in self._guards])

        return self._exclusively(discard)

    def _records(self, held: Iterable[Held | None]) -> list[dict[str, Any]]:
        records = [held_record(each) for each in held if each is not None]
        if not records:
            raise NothingHeldBack
        return records

    def _source(self, state: SourceState, held: Held | None) -> dict[str, Any]:
        synced_at = state.synced_at
        return {
            "resolver": state.name,
            "is_up": state.is_up,
            "apps": state.apps,
            "synced_at": _rfc3339(synced_at) if synced_at else None,
            "age_seconds": round(max(self._wall_clock() - synced_at, 0.0), 1) if synced_at else None,
            "held": None if held is None else held_record(held),
        }


def held_record(held: Held) -> dict[str, Any]:
    """What is held back, JSON-shaped."""
    loss = held.loss
    return {
        "resolver": held.source,
        "since": _rfc3339(held.since),
        "reason": str(held),
        "apps_removed": len(loss.apps),
        "apps": loss.of.apps,
        "backends_removed": loss.backends,
        "backends": loss.of.backends,
        "names": list(loss.apps[:_MAX_NAMES]),
        "repeated": held.repeated,
        "confirmed_at": None if held.confirmed_at is None else _rfc3339(held.confirmed_at),
    }


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
