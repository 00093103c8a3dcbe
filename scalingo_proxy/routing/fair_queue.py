"""A queue in which nobody stands behind somebody else's crowd.

Each who waits has an address and an app, and whose turn it is goes round: once
among the addresses, once among the apps.  So a crowd from one address, or for
one app from many addresses, lets all others pass after one of its own.  Among
those of the same address or app it is first come, first served.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Those who wait, by address and by app."""

    __slots__ = ("_addresses", "_apps", "_is_turn_of_apps", "_keys")

    def __init__(self) -> None:
        self._keys: dict[T, tuple[str, str]] = {}
        self._addresses: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._apps: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._is_turn_of_apps = False

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, whose: T, address: str, app: str) -> None:
        """Let *whose* wait, who does not yet.

        :param address: ``""`` where one address brings many clients: those of
            each app then count as one.
        """
        keys = (address or f"app {app}", app)
        self._keys[whose] = keys
        for groups, key in zip((self._addresses, self._apps), keys, strict=True):
            groups.setdefault(key, OrderedDict())[whose] = None

    def take(self) -> T:
        """Who is next; waits no longer.

        :raises StopIteration: nobody waits.
        """
        groups = self._apps if self._is_turn_of_apps else self._addresses
        self._is_turn_of_apps = not self._is_turn_of_apps
        key = next(iter(groups))
        groups.move_to_end(key)
        whose = next(iter(groups[key]))
        self.remove(whose)
        return whose

    def drop(self) -> T:
        """Who came last of the address or app that most wait for; waits no longer.

        :raises ValueError: nobody waits.
        """
        crowd = max((*self._addresses.values(), *self._apps.values()), key=len)
        whose = next(reversed(crowd))
        self.remove(whose)
        return whose

    def remove(self, whose: T) -> bool:
        """Let *whose* wait no longer; tells whether it did."""
        keys = self._keys.pop(whose, None)
        if keys is None:
            return False
        for groups, key in zip((self._addresses, self._apps), keys, strict=True):
            group = groups[key]
            del group[whose]
            if not group:
                del groups[key]
        return True
