"""How fresh each source of routes is: when it last spoke, and how often.

Listens to the sources and keeps numbers; whether a number is a reason to
worry is decided by whoever reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import attrs

from scalingo_proxy.model import TopologyChange
from scalingo_proxy.resolvers.layered import Layer
from scalingo_proxy.resolvers.loading import Loads

__all__ = ["ResolverUpdates", "SourceState"]


@attrs.frozen
class SourceState:
    """One source of routes as it stands.

    :ivar is_up: whether it can answer.
    :ivar apps: how many apps it describes.
    :ivar updates: how many changes it has told of since the process began.
    :ivar held: how many updates of it were held back.
    :ivar synced_at: when it was last known to be up to date, in seconds since
        the epoch; 0 before that.
    """

    name: str
    is_up: bool
    apps: int
    updates: int
    synced_at: float
    held: int = 0


class ResolverUpdates:
    """Follows *layers* from the beginning.

    :param wall_clock: seconds since the epoch.
    """

    def __init__(self, layers: Iterable[Layer], wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._layers = tuple(layers)
        self._updates = {layer.name: 0 for layer in self._layers}
        self._held = {layer.name: 0 for layer in self._layers}
        self._synced_at = {layer.name: 0.0 for layer in self._layers}
        for layer in self._layers:
            layer.watch(partial(self._changed, layer.name))
            if isinstance(layer, Loads):
                # Why it fails is told by whoever loads it.
                layer.when_loaded().addCallbacks(partial(self._loaded, layer.name), lambda _: None)
            else:
                self.synced(layer.name)

    def synced(self, name: str) -> None:
        """The source was asked, and what it describes is in effect; it need not have changed."""
        self._synced_at[name] = self._wall_clock()

    def held(self, name: str) -> None:
        """An update of the source was held back."""
        self._held[name] += 1

    def states(self) -> list[SourceState]:
        """Every source, the strongest first."""
        return [
            SourceState(
                layer.name,
                getattr(layer, "is_loaded", True),
                len(layer.apps()),
                self._updates[layer.name],
                self._synced_at[layer.name],
                self._held[layer.name],
            )
            for layer in self._layers
        ]

    def _loaded(self, name: str, _result: None) -> None:
        self.synced(name)

    def _changed(self, name: str, _change: TopologyChange) -> None:
        self._updates[name] += 1
        self.synced(name)
