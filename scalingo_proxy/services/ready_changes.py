"""Changes of an app that are made only once the backends they bring answer.

While it waits, everything else may change: nothing is locked.  A change that
has been overtaken by another one of the same app's backends is not made, and
neither is one that nobody waits for any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import App, TopologyChange
from scalingo_proxy.services.deploys import Deploys
from scalingo_proxy.services.readiness import Tryout

__all__ = ["ReadyChanges", "Superseded"]


class Superseded(ScalingoProxyError):
    """The app's backends were changed otherwise, while the new ones were still being probed."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"nothing has changed: the backends of app {name!r} were changed by somebody else "
            "before the new ones were ready"
        )


class _Wait:
    """One change that waits."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.ready: Deferred[tuple[Tryout, ...]] | None = None
        self.is_superseded = False

    def supersede(self) -> None:
        self.is_superseded = True
        if self.ready is not None:
            self.ready.cancel()


class ReadyChanges:
    """Makes changes when they are ready, the last one of each app.

    :param deploys: finds out when that is.
    :param feed: tells what each app is, and of changes.
    """

    def __init__(self, deploys: Deploys, feed: Any) -> None:
        self._deploys = deploys
        self._feed = IRouteFeed(feed)
        self._waits: dict[str, _Wait] = {}
        feed.watch(self._topology_changed)

    async def make(
        self,
        planned: App,
        change: Callable[[Callable[[], None], tuple[Tryout, ...]], Deferred[App]],
    ) -> tuple[App, tuple[Tryout, ...]]:
        """Wait until the new backends of *planned* are ready, then make the change.

        :param change: makes it.  It is given what raises Superseded if
            something came between, to be called when nothing can any more, and
            how the backends did.
        :return: the app as it is in effect, and how its new backends did.
        :raises BackendsNotReady: and nothing has changed.
        :raises Superseded: likewise.
        """
        name = planned.name
        wait = _Wait(self._backends(name))
        previous, self._waits[name] = self._waits.get(name), wait
        if previous is not None:
            previous.supersede()

        def check() -> None:
            if wait.is_superseded:
                raise Superseded(name)

        try:
            wait.ready = self._deploys.ready(planned)
            tryouts = await wait.ready
            app = await change(check, tryouts)
        except CancelledError:
            check()
            raise
        finally:
            if self._waits.get(name) is wait:
                del self._waits[name]
        return app, tryouts

    def _topology_changed(self, change: TopologyChange) -> None:
        if not self._waits:
            return
        for name in (*change.removed, *(app.name for app in change.updated)):
            wait = self._waits.get(name)
            if wait is not None and wait.before != self._backends(name):
                wait.supersede()

    def _backends(self, name: str) -> Any:
        app = self._feed.apps().get(name)
        return None if app is None else app.backends
