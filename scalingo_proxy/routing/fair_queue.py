"""A queue in which nobody stands behind somebody else's crowd.

Each who waits has an address and an app, and whose turn it is goes round: once
among the addresses, once among the apps.  So a crowd from one address, or for
one app from many addresses, lets all others pass after one of its own.  Among
those of the same address or app it is first come, first served.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Those who wait, by address and by app.

    Nothing takes longer when more wait, since it is a flood that makes them more.
    """

    __slots__ = ("_addresses", "_apps", "_crowds_of", "_is_turn_of_apps", "_sizes")

    def __init__(self) -> None:
        self._crowds_of: dict[T, tuple[_Crowd, _Crowd]] = {}
        self._addresses: OrderedDict[str, _Crowd] = OrderedDict()
        self._apps: OrderedDict[str, _Crowd] = OrderedDict()
        self._sizes = _Sizes()
        self._is_turn_of_apps = False

    def __len__(self) -> int:
        return len(self._crowds_of)

    def put(self, whose: T, address: str, app: str) -> None:
        """Let *whose* wait, who does not yet.

        :param address: ``""`` where one address brings many clients: those of
            each app then count as one.
        """
        crowds = (
            _crowd_of(self._addresses, address or f"app {app}"),
            _crowd_of(self._apps, app),
        )
        self._crowds_of[whose] = crowds
        for crowd in crowds:
            crowd.members[whose] = None
            self._sizes.grown(crowd)

    def take(self) -> T:
        """Who is next; waits no longer.

        :raises StopIteration: nobody waits.
        """
        groups = self._apps if self._is_turn_of_apps else self._addresses
        self._is_turn_of_apps = not self._is_turn_of_apps
        key = next(iter(groups))
        groups.move_to_end(key)
        whose: T = next(iter(groups[key].members))
        self.remove(whose)
        return whose

    def drop(self) -> T:
        """Who came last of the address or app that most wait for; waits no longer.

        Of several that as many wait for it is the one that came to so many, or
        down to so many, last.  So where no two have anything in common it is
        whoever came last of all, and crowds that are alike lose alike.

        :raises ValueError: nobody waits.
        """
        whose: T = next(reversed(self._sizes.largest().members))
        self.remove(whose)
        return whose

    def remove(self, whose: T) -> bool:
        """Let *whose* wait no longer; tells whether it did."""
        crowds = self._crowds_of.pop(whose, None)
        if crowds is None:
            return False
        for crowd, groups in zip(crowds, (self._addresses, self._apps), strict=True):
            del crowd.members[whose]
            self._sizes.shrunk(crowd)
            if not crowd.members:
                del groups[crowd.name]
        return True


class _Crowd:
    """All who wait of one address, or for one app, as they came."""

    __slots__ = ("members", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: OrderedDict[Any, None] = OrderedDict()


def _crowd_of(groups: OrderedDict[str, _Crowd], name: str) -> _Crowd:
    crowd = groups.get(name)
    if crowd is None:
        crowd = groups[name] = _Crowd(name)
    return crowd


class _Sizes:
    """Crowds by how many they are, each step of one known as it is made."""

    __slots__ = ("_by_size",)

    def __init__(self) -> None:
        # Those of each size, as they came to it.  Nobody is in the first; somebody is in the last.
        self._by_size: list[OrderedDict[_Crowd, None]] = [OrderedDict()]

    def grown(self, crowd: _Crowd) -> None:
        """One more is in *crowd*."""
        size = len(crowd.members)
        if size == len(self._by_size):
            self._by_size.append(OrderedDict())
        self._by_size[size][crowd] = None
        self._by_size[size - 1].pop(crowd, None)

    def shrunk(self, crowd: _Crowd) -> None:
        """One fewer is in *crowd*."""
        size = len(crowd.members)
        del self._by_size[size + 1][crowd]
        if size:
            self._by_size[size][crowd] = None
        if not self._by_size[-1]:
            self._by_size.pop()  # only the largest was there, and it is in the one before

    def largest(self) -> _Crowd:
        """The one that came to the largest size last.

        :raises ValueError: there is none.
        """
        if len(self._by_size) == 1:
            raise ValueError("nobody waits")
        return next(reversed(self._by_size[-1]))
