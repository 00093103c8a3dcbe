"""Would this update take the platform away?  Two topologies in, a loss or nothing out.

What an app loses is counted by numbers: backends that are replaced are no
loss, whatever their addresses, because a platform may move all its
containers at once.  Time is an argument, and what happens with an update that
would lose too much is the caller's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

import attrs

from scalingo_proxy.model import App
from scalingo_proxy.routing.sharded import ShardedMap, differing_parts

__all__ = ["Census", "GuardRule", "Loss", "TopologyGuard", "census"]

#: So many moments of the last window are remembered.
_MOMENTS = 12


@attrs.frozen
class GuardRule:
    """What is too much to lose at once (``[topology]``).

    :ivar share: the part of all live apps, or of all backends, above which an
        update is held back; 0 to 1, and 1 never holds one back for its share.
    :ivar floor_apps: an update that removes fewer apps, and fewer than
        *floor_backends* backends, is never held back.
    :ivar window: the seconds in which several updates count as one.
    """

    share: float = 0.5
    floor_apps: int = 10
    floor_backends: int = 20
    window: float = 60.0


@attrs.frozen
class Census:
    """How much there is: apps that have a backend, and their backends."""

    apps: int = 0
    backends: int = 0

    def __add__(self, other: Census) -> Census:
        return Census(self.apps + other.apps, self.backends + other.backends)


_NOBODY: ShardedMap[App] = ShardedMap()


def census(apps: Mapping[str, App]) -> Census:
    """Count *apps*; it looks at each of them."""
    counts = [
        len(app.backends)
        for _, part in differing_parts(_NOBODY, apps)
        for app in part.values()
        if app.backends
    ]
    return Census(len(counts), sum(counts))


@attrs.frozen
class Loss:
    """What an update would take away.

    :ivar apps: the names of the apps that would be gone, or have no backend left.
    :ivar backends: how many backends would be gone.
    :ivar of: how much there was on the whole platform.
    :ivar concerned: how many apps would lose anything.
    """

    apps: tuple[str, ...]
    backends: int
    of: Census
    concerned: int

    def __str__(self) -> str:
        return (
            f"it would remove {len(self.apps)} of {self.of.apps} apps"
            f" and {self.backends} of {self.of.backends} backends"
        )

    def is_too_much(self, rule: GuardRule) -> bool:
        """Whether an update that loses this is held back.

        What concerns one app alone is ordinary, however much that is.
        """
        if self.concerned < 2 or (len(self.apps) < rule.floor_apps and self.backends < rule.floor_backends):
            return False
        return len(self.apps) > rule.share * self.of.apps or self.backends > rule.share * self.of.backends


class TopologyGuard:
    """Judges updates by what was served during the last window.

    An update is compared with what is served, and, when it takes anything
    away, with what was served before: a bad answer that comes in slices is
    one bad answer.

    :param apps: what is served at the moment *now*.
    """

    def __init__(self, rule: GuardRule, apps: Mapping[str, App], now: float) -> None:
        self.rule = rule
        self._history: deque[tuple[float, Mapping[str, App], Census]] = deque()
        self.accept(apps, now)

    @property
    def census(self) -> Census:
        """How much is served."""
        return self._history[-1][2]

    def judge(
        self,
        wanted: Mapping[str, App],
        now: float,
        beside: Census = Census(),
        safe: Collection[str] = (),
    ) -> Loss | None:
        """What *wanted* would lose, if that is too much.

        :param beside: what the platform has besides, and keeps.
        :param safe: names of apps that are not lost, whatever *wanted* says.
        """
        self._forget(now)
        loss = self._loss(wanted, self._history[-1], beside, safe)
        if not loss.concerned:
            return None
        if loss.is_too_much(self.rule):
            return loss
        for moment in tuple(self._history)[:-1]:
            in_sum = self._loss(wanted, moment, beside, safe)
            if in_sum.is_too_much(self.rule):
                return in_sum
        return None

    def loss(self, wanted: Mapping[str, App], beside: Census = Census()) -> Loss:
        """What *wanted* would lose of what is served, much or little."""
        return self._loss(wanted, self._history[-1], beside)

    def emptied(
        self, wanted: Mapping[str, App], beside: Census = Census(), safe: Collection[str] = ()
    ) -> Loss | None:
        """What *wanted* would lose, if that is every backend of all apps there are, and of more than one.

        However few that are: no platform scales all its apps to none at once.
        """
        loss = self._loss(wanted, self._history[-1], beside, safe)
        is_all = loss.concerned > 1 and len(loss.apps) == self.census.apps
        return loss if is_all and not census(wanted).apps else None

    def applied(self, apps: Mapping[str, App], now: float) -> None:
        """*apps* is what is served from now on."""
        since, before, count = self._history[-1]
        moment = (now, apps, _census_after(before, count, apps))
        if len(self._history) > 1 and now - since < self.rule.window / _MOMENTS:
            self._history[-1] = (since, *moment[1:])
        else:
            self._history.append(moment)
        self._forget(now)

    def accept(self, apps: Mapping[str, App], now: float) -> None:
        """*apps* is what is served, and somebody answers for it: nothing before counts."""
        self._history.clear()
        self._history.append((now, apps, census(apps)))

    def _forget(self, now: float) -> None:
        history = self._history
        while len(history) > 1 and history[1][0] <= now - self.rule.window:
            history.popleft()

    def _loss(
        self,
        wanted: Mapping[str, App],
        moment: tuple[float, Mapping[str, App], Census],
        beside: Census,
        safe: Collection[str] = (),
    ) -> Loss:
        _, before, count = moment
        emptied: list[str] = []
        backends = concerned = 0
        for old, new in differing_parts(before, wanted):
            for name, app in old.items():
                kept = new.get(name)
                left = 0 if kept is None else len(kept.backends)
                lost = len(app.backends) - left
                if lost > 0 and name not in safe:
                    concerned += 1
                    backends += lost
                    if not left:
                        emptied.append(name)
        return Loss(tuple(sorted(emptied)), backends, count + beside, concerned)


def _census_after(before: Mapping[str, App], count: Census, after: Mapping[str, App]) -> Census:
    """The census of *after*, by what differs."""
    apps, backends = count.apps, count.backends
    for old, new in differing_parts(before, after):
        was, now = census(old), census(new)
        apps += now.apps - was.apps
        backends += now.backends - was.backends
    return Census(apps, backends)
