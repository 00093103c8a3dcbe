"""The settings that a pool acts by: the proxy's defaults, an app's own values over them."""

from __future__ import annotations

import attrs

from scalingo_proxy.model import App, Health, Limits, Quarantine, Timeouts

__all__ = ["PoolSettings"]


@attrs.frozen
class PoolSettings:
    """What apps may override."""

    timeouts: Timeouts
    limits: Limits
    health: Health = attrs.field(factory=Health)
    quarantine: Quarantine = attrs.field(factory=Quarantine)

    def of(self, app: App) -> PoolSettings:
        """These, with what *app* sets for itself.

        :raises TypeError: for an override that does not exist.
        """
        if not (app.timeouts or app.limits or app.health or app.quarantine):
            return self
        return PoolSettings(
            attrs.evolve(self.timeouts, **app.timeouts),
            attrs.evolve(self.limits, **app.limits),
            attrs.evolve(self.health, **app.health),
            attrs.evolve(self.quarantine, **app.quarantine),
        )
