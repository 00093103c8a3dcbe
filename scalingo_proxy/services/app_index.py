"""Finding apps by name or domain, a page at a time, among very many.

Keeps names in order and what is searched in one text per app, so that a page
costs nothing and a search of 100,000 apps a few milliseconds of the reactor's
time.  Follows a feed; knows nothing of how apps are told.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import attrs

from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import App, TopologyChange

__all__ = ["AppIndex", "AppPage"]

#: A change of more apps than this is taken over by building the index anew.
_MANY = 1000


@attrs.frozen
class AppPage:
    """A part of the apps that were asked for, in the order of their names."""

    apps: tuple[App, ...]
    page: int
    per_page: int
    total: int


class AppIndex:
    """The apps of a feed, in order; built when first asked, then kept up to date."""

    def __init__(self, feed: IRouteFeed) -> None:
        self._feed = feed
        self._leave: Callable[[], None] | None = None
        self._is_built = False
        # Side by side, both in the order of names.
        self._names: list[str] = []
        self._texts: list[str] = []

    def page(self, query: str, page: int, per_page: int) -> AppPage:
        """The apps with *query* in their name or in one of their domains; case does not matter."""
        found = self.names(query)
        first = (page - 1) * per_page
        apps = self._feed.apps()
        # Another watcher of the same change may ask before this one is told.
        shown = tuple(apps[name] for name in found[first : first + per_page] if name in apps)
        return AppPage(shown, page, per_page, len(found))

    def names(self, query: str) -> Sequence[str]:
        """The names of all that *query* finds, in order; not to be kept, because changes show in it."""
        self._build()
        wanted = query.strip().lower()
        if not wanted:
            return self._names
        return [name for name, text in zip(self._names, self._texts, strict=True) if wanted in text]

    def _build(self) -> None:
        if self._leave is None:
            self._leave = self._feed.watch(self._changed)
        if not self._is_built:
            apps = self._feed.apps()
            self._names = sorted(apps)
            self._texts = [_text(apps[name]) for name in self._names]
            self._is_built = True

    def _changed(self, change: TopologyChange) -> None:
        if len(change.updated) + len(change.removed) > _MANY:
            self._is_built = False
        if not self._is_built:
            return
        for name in change.removed:
            self._replace(name, ())
        for app in change.updated:
            self._replace(app.name, (_text(app),))

    def _replace(self, name: str, texts: tuple[str, ...]) -> None:
        """Put one text or none in the place of *name*, whether it was there or not."""
        place = bisect_left(self._names, name)
        was_there = self._names[place : place + 1] == [name]
        self._names[place : place + was_there] = [name] * len(texts)
        self._texts[place : place + was_there] = texts


def _text(app: App) -> str:
    """What of an app is searched."""
    return "\n".join((app.name, *app.domains)).lower()
