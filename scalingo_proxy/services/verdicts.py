"""Tells operators of backends that fail, stay away and come back: log lines and counts.

Listens to the pools; judges nothing.  A backend that keeps failing while it
is away is one line, not one for each attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite

from twisted.logger import Logger, LogLevel

from scalingo_proxy.routing.members import HealthState, Member
from scalingo_proxy.routing.pool import MemberEvent, Pool
from scalingo_proxy.routing.pools import Pools

__all__ = ["VerdictLog"]

_AWAY = (HealthState.QUARANTINED, HealthState.DOWN)


class VerdictLog:
    """One line for each change of a backend's health, and how many quarantines there were.

    :param pools: whose verdicts are told.
    :param seconds: the pools' clock.
    :param app_label: what the label ``app`` of metrics says for an app.
    :param has_series: whether that label is on the page of metrics now.
    :ivar quarantines: by app label and cause.
    """

    _log = Logger()

    def __init__(
        self,
        pools: Pools,
        seconds: Callable[[], float],
        app_label: Callable[[str], str],
        has_series: Callable[[str], bool],
    ) -> None:
        self.quarantines: dict[tuple[str, str], int] = {}
        self._seconds = seconds
        self._app_label = app_label
        self._has_series = has_series
        # What each member was when it was last told.
        self._told: dict[Member, HealthState] = {}
        pools.watch(self.member_changed)

    def member_changed(self, pool: Pool, member: Member, event: MemberEvent) -> None:
        """Something became of *member*."""
        if event == "gone":
            self._told.pop(member, None)
        if event != "verdict":
            return
        before = self._told.get(member, HealthState.UNPROVEN)
        now = member.health
        if now is before:
            return
        self._told[member] = now
        if now is HealthState.QUARANTINED:
            key = self._app_label(pool.app.name), member.health_cause
            self.quarantines[key] = self.quarantines.get(key, 0) + 1
        if before in _AWAY or now in _AWAY:
            self._tell(pool, member, before)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """For the metrics page: of apps that are on it."""
        return {key: count for key, count in self.quarantines.items() if self._has_series(key[0])}

    def _tell(self, pool: Pool, member: Member, before: HealthState) -> None:
        wait = member.probe_due_at - self._seconds()
        again = f"; looked at again in {max(wait, 0.0):.1f} s" if isfinite(wait) and wait > 0 else ""
        self._log.emit(
            LogLevel.warn if member.health in _AWAY else LogLevel.info,
            "app {app}: backend {backend} was {before} and is {after}: {reason}{again}",
            app=pool.app.name,
            backend=member.backend.address,
            before=before.value,
            after=member.health.value,
            reason=member.health_reason,
            again=again,
        )
