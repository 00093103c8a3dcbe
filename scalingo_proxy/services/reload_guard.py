"""Judges what a reload would do to the topology, and keeps one that is held back.

A reload is held back as a whole, listeners and limits included: it is one
change, and half of it was never described by anybody.  How a reload is put
into effect is the business of whoever asks here first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.model import App
from scalingo_proxy.resolvers.held_back import Held, HeldBack
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.table_feed import TableFeed
from scalingo_proxy.routing.sharded import ShardedMap
from scalingo_proxy.routing.topology_guard import Census, GuardRule, TopologyGuard, census

__all__ = ["ReloadGuard", "TopologyHeldBack"]

_log = Logger()

S = TypeVar("S")


class TopologyHeldBack(ScalingoProxyError):
    """A reload would take most of the platform away; nothing of it is in effect."""

    def __init__(self, held: Held) -> None:
        self.held = held
        super().__init__(
            f"nothing has changed: {held}; to let it come into effect: scalingo-proxy topology confirm"
        )


class ReloadGuard(Generic[S]):
    """The guard of the layer that a reload replaces.

    Apps that a layer above describes too are not lost when the file drops
    them, and what only those layers have counts among all there is.

    :param file: the layer.
    :param resolver: all layers together.
    :param put_into_effect: makes settings that were held back what is in
        effect, as one change.
    :param rule: what is too much.
    :param confirm_after: seconds after which what is held back counts as meant; 0: never.
    :param wall_clock: seconds since the epoch.
    :ivar confirm_by_time: confirms what has stood for *confirm_after*; to be
        replaced where changes are made one after another.
    """

    def __init__(
        self,
        file: TableFeed,
        resolver: LayeredResolver,
        reactor: IReactorTime,
        *,
        rule: GuardRule,
        confirm_after: float,
        put_into_effect: Callable[[S], Deferred[Any]],
        wall_clock: Callable[[], float],
    ) -> None:
        self.name = file.name
        self._file = file
        self._resolver = resolver
        self._reactor = reactor
        self._put_into_effect = put_into_effect
        self._guard = TopologyGuard(rule, file.apps(), reactor.seconds())
        # Whoever reloads wants to hear of it each time.
        self._holding = HeldBack(self.name, reactor, wall_clock, self._stood, confirm_after, alarm_again=0.0)
        self._settings: S | None = None
        self.confirm_by_time: Callable[[], Deferred[Any]] = self.confirm

    @property
    def held(self) -> Held | None:
        """What is held back now."""
        return self._holding.held

    def reconfigure(self, rule: GuardRule, confirm_after: float) -> None:
        """Judge by these from now on."""
        self._guard.rule = rule
        self._holding.confirm_after = confirm_after

    def admit(self, settings: S, apps: Mapping[str, App]) -> None:
        """See whether *settings*, with these *apps*, may come into effect.

        :raises TopologyHeldBack: they may not, and are held.
        """
        whole, own = census(self._resolver.apps()), self._guard.census
        beside = Census(whole.apps - own.apps, whole.backends - own.backends)
        above = self._names_above()
        wanted = ShardedMap[App]().changed(apps)  # as the table is, so that comparing takes one walk
        loss = self._guard.judge(wanted, self._reactor.seconds(), beside, above)
        if loss is None and self._guard.rule.share < 1:
            loss = self._guard.emptied(wanted, beside, above)
        if loss is not None:
            self._settings = settings
            raise TopologyHeldBack(self._holding.hold(loss))

    def applied(self, is_confirmed: bool = False) -> None:
        """The layer was replaced; whatever was held back is outdated by that."""
        note = self._guard.accept if is_confirmed else self._guard.applied
        note(self._file.apps(), self._reactor.seconds())
        self._forget()

    def confirm(self) -> Deferred[Held | None]:
        """Put what is held back into effect; fires with what it was, or ``None``.

        Fails as a reload does, and then it is held back further.
        """
        return Deferred.fromCoroutine(self._confirmed())

    def discard(self) -> Held | None:
        """Forget what is held back; it takes another reload to bring it again."""
        return self._forget()

    async def _confirmed(self) -> Held | None:
        held, settings = self.held, self._settings
        if held is None or settings is None:
            return None
        await self._put_into_effect(settings)
        return held

    def _stood(self) -> None:
        self.confirm_by_time().addErrback(self._not_confirmed)

    def _not_confirmed(self, failure: Failure) -> None:
        _log.error("what was held back cannot come into effect: {error}", error=failure.value)

    def _forget(self) -> Held | None:
        self._settings = None
        return self._holding.release()

    def _names_above(self) -> set[str]:
        """The apps that come from stronger layers."""
        names: set[str] = set()
        for layer in self._resolver.layers:
            if layer is self._file:
                break
            names.update(layer.apps())
        return names
