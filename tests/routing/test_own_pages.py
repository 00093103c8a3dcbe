"""Which page tells of which error."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import errors_by_code
from scalingo_proxy.model import App
from scalingo_proxy.routing.own_pages import is_url, page_source, page_sources

PAGES = {
    "stopped": "/s.html",
    "no_backend": "/n.html",
    "error": "https://e.test/",
    "timeout": "http://t.test/",
}


class OwnPagesTests(SynchronousTestCase):
    def test_every_error(self) -> None:
        """Stopped and maintenance, no backend, 502 and 504 have pages, and nothing else has."""
        app = App("hello", error_pages=PAGES)
        found = {
            code: page_source(app, error())
            for code, error in errors_by_code().items()
            if page_source(app, error())
        }
        stopped, no_backend, error, timeout = PAGES.values()
        self.assertEqual(
            found,
            {
                "app-stopped": stopped,
                "maintenance": stopped,
                "no-backend": no_backend,
                "connect-failed": error,
                "backend-closed": error,
                "bad-response": error,
                "quarantined": error,
                "first-byte-timeout": timeout,
                "idle-timeout": timeout,
                "pause-timeout": timeout,
            },
        )

    def test_none(self) -> None:
        """An app without pages has none for anything."""
        for app in (App("a"), App("a", error_pages={"stopped": ""})):
            self.assertEqual({page_source(app, error()) for error in errors_by_code().values()}, {""})
            self.assertEqual(page_sources(app), frozenset())

    def test_sources(self) -> None:
        """Each source counts once, and URLs are told from files."""
        app = App("a", error_pages={**PAGES, "error": "/s.html"})
        self.assertEqual(page_sources(app), {"/s.html", "/n.html", "http://t.test/"})
        self.assertEqual([is_url(source) for source in PAGES.values()], [False, False, True, True])
