"""The pages that apps have of their own for errors: fetched once, kept in memory.

Each source, a file or a URL, is fetched when the first app names it, when the
proxy starts, and at each reload.  A page that cannot be had is told in the log
and the admin API, and the proxy's own is sent instead (or the one from before).
Nothing waits for a page: neither the start nor a reload nor a request.  How one
is fetched, and when it is sent, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import Mistake, ProxyError
from scalingo_proxy.model import App, TopologyChange
from scalingo_proxy.resolvers.strict_tables import shown
from scalingo_proxy.routing.own_pages import is_url, page_source, page_sources
from scalingo_proxy.wire.error_answer import Page

__all__ = ["MAX_TOTAL_BYTES", "ErrorPages", "Fetcher"]

_log = Logger()

#: All pages together.
MAX_TOTAL_BYTES = 64 * 1024 * 1024

#: How many are fetched at the same time.
_AT_ONCE = 4


class Fetcher(Protocol):
    """What gets a page."""

    def fetch(self, source: str) -> Deferred[Page]:
        """The page; fails with what has a sentence that lacks its subject."""


@attrs.define(eq=False)
class _Kept:
    """One source and what is known of its page.

    :ivar apps: the names of the apps that have it.
    :ivar problem: why the last attempt failed, or ``""``.
    """

    apps: set[str] = attrs.field(factory=set)
    page: Page | None = None
    problem: str = ""
    fetching: Deferred[Page] | None = None


class ErrorPages(Service):
    """Keeps the pages of all apps.

    :param fetcher: gets a page.
    :param feed: an :class:`~scalingo_proxy.interfaces.IRouteFeed`, whose apps
        these are.
    :param apps_of_the_file: those whose pages may be files.
    """

    name = "error pages"

    def __init__(
        self, fetcher: Fetcher, feed: Any, apps_of_the_file: Callable[[], Mapping[str, App]]
    ) -> None:
        self._fetcher = fetcher
        self._feed = feed
        self._apps_of_the_file = apps_of_the_file
        self._sources: dict[str, _Kept] = {}
        self._of_app: dict[str, frozenset[str]] = {}
        # Ordered, and each source once.
        self._line: dict[str, None] = {}
        self._fetching = 0
        self._is_going_on = False
        self._total = 0
        self._stop_watching: Callable[[], None] | None = None

    # -- IService ------------------------------------------------------------

    def startService(self) -> None:
        """Begin to fetch every page; nobody waits for them."""
        super().startService()  # type: ignore[no-untyped-call]
        self._stop_watching = self._feed.watch(self._topology_changed)
        self._topology_changed(TopologyChange(tuple(self._feed.apps().values())))

    def stopService(self) -> None:
        """Give up what is being fetched; the pages that are there are sent to the end."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        self._line.clear()
        for kept in self._sources.values():
            if kept.fetching is not None:
                kept.fetching.cancel()

    # -- what is asked -------------------------------------------------------

    def page_for(self, app: App, error: ProxyError) -> Page | None:
        """The page of *app* for *error*, if it has one and that is there."""
        kept = self._sources.get(page_source(app, error))
        return kept.page if kept is not None else None

    def mistakes(self, app: App) -> Iterator[Mistake]:
        """What makes *app* one that cannot be told through the admin API: files it had not before."""
        known: set[str] = set()
        for apps in (self._apps_of_the_file(), self._feed.apps()):
            if app.name in apps:
                known |= page_sources(apps[app.name])
        for kind, source in app.error_pages.items():
            if source and not is_url(source) and source not in known:
                yield Mistake(
                    f"error_pages.{kind}",
                    f"{shown(source)} is a file, which only the configuration file may name; "
                    "give a URL that begins with https:// or http://",
                )

    def doubts(self, app: App) -> Iterator[str]:
        """Which pages of *app* are not there, in sentences."""
        for kind, source in sorted(app.error_pages.items()):
            kept = self._sources.get(source)
            if kept is not None and kept.problem:
                instead = "the page from before" if kept.page is not None else "the proxy's own page"
                yield f"error_pages.{kind}: {shown(source)} {kept.problem}; {instead} is sent"

    def told(self) -> dict[str, int]:
        """Counts for the status."""
        kept = self._sources.values()
        return {
            "pages": sum(each.page is not None for each in kept),
            "bytes": self._total,
            "failed": sum(bool(each.problem) for each in kept),
        }

    def fetch_again(self) -> None:
        """Fetch every page anew, as at a reload; those that are there serve meanwhile."""
        for source in self._sources:
            self._want(source)
        self._go_on()

    # -- which pages there are -----------------------------------------------

    def _topology_changed(self, change: TopologyChange) -> None:
        for app in change.updated:
            self._use(app.name, page_sources(app))
        for name in change.removed:
            self._use(name, frozenset())
        self._go_on()

    def _use(self, name: str, sources: frozenset[str]) -> None:
        before = self._of_app.pop(name, frozenset())
        if sources:
            self._of_app[name] = sources
        for source in before - sources:
            kept = self._sources[source]
            kept.apps.discard(name)
            if not kept.apps:
                self._forget(source)
        for source in sorted(sources):
            kept = self._sources.setdefault(source, _Kept())
            kept.apps.add(name)
            if kept.page is None:  # new, or failed before
                self._want(source)

    def _forget(self, source: str) -> None:
        kept = self._sources.pop(source)
        self._replace(kept, None)
        if kept.fetching is not None:
            kept.fetching.cancel()

    def _replace(self, kept: _Kept, page: Page | None) -> None:
        self._total += (len(page.body) if page else 0) - (len(kept.page.body) if kept.page else 0)
        kept.page = page

    # -- fetching ------------------------------------------------------------

    def _want(self, source: str) -> None:
        if self._sources[source].fetching is None:
            self._line[source] = None

    def _go_on(self) -> None:
        if self._is_going_on:
            return  # a page that is there at once shall not make the stack grow
        self._is_going_on = True
        while self._line and self._fetching < _AT_ONCE and self.running:
            source = next(iter(self._line))
            del self._line[source]
            kept = self._sources.get(source)
            if kept is not None and kept.fetching is None:
                self._fetch(source, kept)
        self._is_going_on = False

    def _fetch(self, source: str, kept: _Kept) -> None:
        self._fetching += 1
        fetching = self._fetcher.fetch(source)
        if not fetching.called:
            kept.fetching = fetching
        fetching.addCallbacks(self._fetched, self._failed, (source, kept), {}, (source, kept))
        fetching.addErrback(lambda failure: _log.failure("an error page was not taken in", failure))
        fetching.addBoth(lambda _: self._go_on())

    def _is_wanted(self, source: str, kept: _Kept) -> bool:
        self._fetching -= 1
        kept.fetching = None
        return self._sources.get(source) is kept and bool(self.running)

    def _fetched(self, page: Page, source: str, kept: _Kept) -> None:
        if not self._is_wanted(source, kept):
            return
        room = MAX_TOTAL_BYTES - self._total + (len(kept.page.body) if kept.page else 0)
        if len(page.body) > room:
            self._tell(source, kept, f"does not fit: pages have {MAX_TOTAL_BYTES >> 20} MB together")
        else:
            self._replace(kept, page)
            kept.problem = ""
            _log.info("error page {source}: {size} bytes", source=source, size=len(page.body))

    def _failed(self, failure: Failure, source: str, kept: _Kept) -> None:
        if self._is_wanted(source, kept):
            self._tell(source, kept, str(failure.value))

    def _tell(self, source: str, kept: _Kept, problem: str) -> None:
        kept.problem = problem
        apps = sorted(kept.apps)
        _log.warn(
            "error page {source} of {apps} {problem}",
            source=source,
            apps=", ".join(apps[:3]) + (f" and {len(apps) - 3} more" if len(apps) > 3 else ""),
            problem=problem,
        )
