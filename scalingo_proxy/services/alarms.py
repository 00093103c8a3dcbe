"""What an operator should look at now: sentences from whoever knows.

Each part of the proxy that can be in trouble hands in a function that tells
so; nothing is kept here but what it takes to see a counter rise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import attrs
from twisted.logger import Logger

from scalingo_proxy.model import AppState, Certificate
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.services.resolver_updates import SourceState

__all__ = [
    "EXPIRY_DAYS",
    "LAG_SECONDS",
    "MOST_ALARMS",
    "RISEN_SECONDS",
    "TOLD_ONE_BY_ONE",
    "Alarm",
    "Alarms",
    "expiring_certificates",
    "forsaken_apps",
    "late_reactor",
    "rising",
    "silent_sources",
]

#: A certificate that ends sooner than this is an alarm.
EXPIRY_DAYS = 21
#: For how long a counter that rose is an alarm.
RISEN_SECONDS = 600.0
#: More alarms than this are only counted.
MOST_ALARMS = 30
#: So many of a kind are named one by one.
TOLD_ONE_BY_ONE = 5
#: A reactor that came later than this is an alarm.
LAG_SECONDS = 0.5


@attrs.frozen
class Alarm:
    """One thing to look at.

    :ivar text: a sentence, which does not change while the trouble lasts.
    :ivar is_urgent: whether clients feel it already.
    """

    text: str
    is_urgent: bool = False


class Alarms:
    """Asks everybody."""

    _log = Logger()

    def __init__(self) -> None:
        self._sources: list[Callable[[], Iterable[Alarm]]] = []
        self._failed: set[Callable[[], Iterable[Alarm]]] = set()

    def add(self, source: Callable[[], Iterable[Alarm]]) -> None:
        """Ask *source* too; should it raise, the log tells of it once, and the others are heard."""
        self._sources.append(source)

    def now(self) -> Sequence[Alarm]:
        """All there are, urgent ones first."""
        alarms: list[Alarm] = []
        for source in self._sources:
            try:
                alarms += source()
            except Exception:
                if source not in self._failed:
                    self._failed.add(source)
                    self._log.failure("{source} cannot tell its alarms", source=source)
        alarms.sort(key=lambda alarm: not alarm.is_urgent)
        if len(alarms) > MOST_ALARMS:
            alarms[MOST_ALARMS:] = [Alarm(f"{len(alarms) - MOST_ALARMS} more alarms")]
        return alarms


def expiring_certificates(
    certificates: Iterable[Certificate], wall_clock: Callable[[], float] = time.time
) -> Callable[[], Iterable[Alarm]]:
    """Tells of certificates that have ended, or will soon: the first ones by name, and how many more."""

    def tell() -> Iterable[Alarm]:
        now = wall_clock()
        end = now + EXPIRY_DAYS * 86400
        ending = sorted(
            (each for each in certificates if each.not_after < end), key=lambda each: each.not_after
        )
        for each in ending[:TOLD_ONE_BY_ONE]:
            if each.not_after < now:
                yield Alarm(f"certificate {each.name} has expired", is_urgent=True)
                continue
            days = int((each.not_after - now) / 86400)
            yield Alarm(f"certificate {each.name} expires in {days} {'day' if days == 1 else 'days'}")
        if len(ending) > TOLD_ONE_BY_ONE:
            number = len(ending) - TOLD_ONE_BY_ONE
            yield Alarm(f"{number} more certificates have expired or expire within {EXPIRY_DAYS} days")

    return tell


def silent_sources(states: Callable[[], Iterable[SourceState]]) -> Callable[[], Iterable[Alarm]]:
    """Tells of sources of routes that cannot answer."""

    def tell() -> Iterable[Alarm]:
        for state in states():
            if not state.is_up:
                yield Alarm(f"the source of routes {state.name!r} cannot answer", is_urgent=True)

    return tell


def forsaken_apps(pools: Iterable[Pool]) -> Callable[[], Iterable[Alarm]]:
    """Tells of running apps none of whose backends may be given requests."""

    def tell() -> Iterable[Alarm]:
        # Few pools have anybody aside, so that this is cheap among very many.
        names = [
            pool.app.name
            for pool in pools
            if pool.sidelined
            and len(pool.sidelined) >= len(pool.members)
            and pool.app.state is AppState.RUNNING
        ]
        for name in names[:TOLD_ONE_BY_ONE]:
            yield Alarm(f"app {name} has no backend that may be given requests", is_urgent=True)
        if len(names) > TOLD_ONE_BY_ONE:
            yield Alarm(f"{len(names) - TOLD_ONE_BY_ONE} more apps have none", is_urgent=True)

    return tell


def late_reactor(seconds: Callable[[], float]) -> Callable[[], Iterable[Alarm]]:
    """Tells when everything had to wait."""

    def tell() -> Iterable[Alarm]:
        if seconds() >= LAG_SECONDS:
            sentence = f"the program was busy with one thing for more than {LAG_SECONDS:g} s"
            yield Alarm(sentence, is_urgent=True)

    return tell


def rising(
    count: Callable[[], float], sentence: str, clock: Callable[[], float]
) -> Callable[[], Iterable[Alarm]]:
    """Tells *sentence* for a while after *count* rose."""
    last, risen_at = count(), -RISEN_SECONDS

    def tell() -> Iterable[Alarm]:
        nonlocal last, risen_at
        number, now = count(), clock()
        if number > last:
            last, risen_at = number, now
        if now - risen_at < RISEN_SECONDS and risen_at >= 0:
            yield Alarm(sentence)

    return tell
