"""An update that is held back, the alarm about it, and the time after which it counts as meant.

What is held back, and what is done when it comes into effect after all, is the
business of whoever holds it.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from scalingo_proxy.routing.topology_guard import Loss

__all__ = ["ALARM_AGAIN_SECONDS", "Held", "HeldBack"]

_log = Logger()

#: A source that is now well and now ill gives no alarm each time.
ALARM_AGAIN_SECONDS = 300.0


@attrs.frozen
class Held:
    """An update that is held back.

    :ivar source: the name of the resolver that it came from.
    :ivar since: when it came, seconds since the epoch.
    :ivar loss: what it would remove.
    :ivar repeated: how often it, or one like it, came again.
    :ivar confirmed_at: when it is taken as meant, should it stand until then;
        ``None``: never by itself.
    """

    source: str
    since: float
    loss: Loss
    repeated: int = 0
    confirmed_at: float | None = None

    def __str__(self) -> str:
        return f"an update of the topology by {self.source!r} is held back: {self.loss}"


class HeldBack:
    """The place for one update of one source.

    :param confirm_after: seconds for which an update must stand to be taken as
        meant; 0: it is never by itself.
    :param confirm: brings it into effect; called after that time.
    :param wall_clock: seconds since the epoch.
    :param alarm_again: seconds within which a further update, after one that
        was released, gives no alarm.
    :ivar held: what is there now.
    """

    def __init__(
        self,
        source: str,
        reactor: IReactorTime,
        wall_clock: Callable[[], float],
        confirm: Callable[[], object],
        confirm_after: float = 0.0,
        alarm_again: float = ALARM_AGAIN_SECONDS,
    ) -> None:
        self.held: Held | None = None
        self.confirm_after = confirm_after
        self._source = source
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._confirm = confirm
        self._confirmation: IDelayedCall | None = None
        self._alarm_again = alarm_again
        self._alarmed_at: float | None = None

    def hold(self, loss: Loss) -> Held:
        """Hold an update that would remove *loss*, instead of what is held already."""
        if self.held is not None:
            self.held = attrs.evolve(self.held, loss=loss, repeated=self.held.repeated + 1)
            return self.held
        now, delay = self._wall_clock(), self.confirm_after
        self.held = held = Held(self._source, now, loss, confirmed_at=now + delay if delay else None)
        if delay:
            self._confirmation = self._reactor.callLater(delay, self._stood_long_enough)
        self._alarm(held)
        return held

    def release(self) -> Held | None:
        """Hold nothing any more; what was held, if anything."""
        held, self.held = self.held, None
        confirmation, self._confirmation = self._confirmation, None
        if confirmation is not None:
            confirmation.cancel()
        return held

    def _alarm(self, held: Held) -> None:
        moment = self._reactor.seconds()
        if self._alarmed_at is None or moment - self._alarmed_at >= self._alarm_again:
            self._alarmed_at = moment
            _log.critical(
                "{held}; what was served before is served on; "
                "to let it come into effect: scalingo-proxy topology confirm",
                held=held,
            )

    def _stood_long_enough(self) -> None:
        self._confirmation = None
        _log.warn("{held}; it has stood for so long that it counts as meant", held=self.held)
        try:
            self._confirm()
        except Exception as error:
            _log.error("{held}; it cannot come into effect: {error}", held=self.held, error=error)
