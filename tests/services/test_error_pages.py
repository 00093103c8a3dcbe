"""The pages of apps: fetched once and in the background, kept within bounds."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import AppStopped, BackendClosed, FirstByteTimeout
from scalingo_proxy.model import App
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.services import error_pages
from scalingo_proxy.services.error_pages import ErrorPages
from scalingo_proxy.services.page_fetch import PageRefused
from scalingo_proxy.wire.error_answer import Page

ONE, TWO = "https://pages.test/one", "https://pages.test/two"


class FakeFetcher:
    """Gives what it has, or leaves it to the test."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pages: dict[str, bytes | str] = {}
        self.open: dict[str, Deferred[Page]] = {}
        self.cancelled: list[str] = []

    def fetch(self, source: str) -> Deferred[Page]:
        self.asked.append(source)
        there = self.pages.get(source)
        if isinstance(there, bytes):
            return succeed(Page(there))
        if isinstance(there, str):
            return fail(PageRefused(there))
        self.open[source] = waiting = Deferred(lambda _: self.cancelled.append(source))
        return waiting

    def give(self, source: str, body: bytes) -> None:
        self.open.pop(source).callback(Page(body))

    def refuse(self, source: str, why: str) -> None:
        self.open.pop(source).errback(Failure(PageRefused(why)))


class ErrorPagesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fetcher = FakeFetcher()
        self.feed = MemoryResolver()
        self.file_apps: dict[str, App] = {}
        self.pages = ErrorPages(self.fetcher, self.feed, lambda: self.file_apps)

    def start(self, *apps: App) -> None:
        for app in apps:
            self.feed.set_app(app)
        self.pages.startService()
        self.addCleanup(self.pages.stopService)

    def app(self, name: str = "hello", **pages: str) -> App:
        return App(name, [f"{name}.test"], error_pages=pages)

    def body(self, app: App, error: type[AppStopped] = AppStopped) -> bytes | None:
        page = self.pages.page_for(app, error())
        return page.body if page else None

    def test_fetched_at_the_start(self) -> None:
        """Each page is there when it was fetched, and until then there is none."""
        app = self.app(stopped=ONE, error=TWO)
        self.start(app)
        self.assertEqual(sorted(self.fetcher.asked), [ONE, TWO])
        self.assertIsNone(self.body(app))
        self.fetcher.give(ONE, b"stopped")
        self.assertEqual(self.body(app), b"stopped")
        self.assertIsNone(self.pages.page_for(app, BackendClosed()))
        self.assertIsNone(self.pages.page_for(app, FirstByteTimeout()))
        self.assertEqual(self.pages.told(), {"pages": 1, "bytes": 7, "failed": 0})

    def test_fetched_when_told(self) -> None:
        """An app that gets a page has it fetched; other changes of it fetch nothing."""
        self.start()
        app = self.app(stopped=ONE)
        self.feed.set_app(app)
        self.fetcher.give(ONE, b"x")
        self.feed.set_app(App("hello", ["hello.test"], ["a:1"], error_pages=app.error_pages))
        self.assertEqual(self.fetcher.asked, [ONE])

    def test_shared(self) -> None:
        """Apps that have the same page share it; it goes with the last of them."""
        first, second = self.app("a", stopped=ONE), self.app("b", stopped=ONE)
        self.start(first, second)
        self.assertEqual(self.fetcher.asked, [ONE])
        self.fetcher.give(ONE, b"x")
        self.feed.remove_app("a")
        self.assertEqual(self.body(second), b"x")
        self.feed.set_app(self.app("b"))
        self.assertEqual(self.pages.told(), {"pages": 0, "bytes": 0, "failed": 0})

    def test_bad_fetch(self) -> None:
        """It is told why, nothing is sent, and the next change of the app is another chance."""
        app = self.app(stopped=ONE)
        self.start(app)
        self.fetcher.refuse(ONE, "answered 500")
        self.assertIsNone(self.body(app))
        (doubt,) = self.pages.doubts(app)
        self.assertEqual(doubt, f'error_pages.stopped: "{ONE}" answered 500; the proxy\'s own page is sent')
        self.feed.set_app(App("hello", ["hello.test"], ["a:1"], error_pages=app.error_pages))
        self.fetcher.give(ONE, b"at last")
        self.assertEqual((self.body(app), list(self.pages.doubts(app))), (b"at last", []))

    def test_fetched_again(self) -> None:
        """A reload fetches anew; the page from before serves meanwhile, and when that fails."""
        app = self.app(stopped=ONE)
        self.start(app)
        self.fetcher.give(ONE, b"old")
        self.pages.fetch_again()
        self.pages.fetch_again()
        self.assertEqual(self.fetcher.asked, [ONE, ONE])
        self.assertEqual(self.body(app), b"old")
        self.fetcher.refuse(ONE, "broke off")
        self.assertEqual(self.body(app), b"old")
        self.assertIn("broke off; the page from before is sent", next(self.pages.doubts(app)))
        self.pages.fetch_again()
        self.fetcher.give(ONE, b"newer")
        self.assertEqual((self.body(app), self.pages.told()["bytes"]), (b"newer", 5))

    def test_bound(self) -> None:
        """What does not fit beside the others is not kept, and told."""
        self.patch(error_pages, "MAX_TOTAL_BYTES", 10)
        app = self.app(stopped=ONE, error=TWO)
        self.start(app)
        self.fetcher.give(ONE, b"123456")
        self.fetcher.give(TWO, b"12345")
        self.assertIsNone(self.pages.page_for(app, BackendClosed()))
        self.assertIn("does not fit", next(self.pages.doubts(app)))

    def test_few_at_once(self) -> None:
        """A server of pages that hangs holds up four fetches, not thousands."""
        self.start(*(self.app(f"app-{n}", stopped=f"{ONE}/{n}") for n in range(10)))
        self.assertEqual(len(self.fetcher.asked), 4)
        self.fetcher.refuse(f"{ONE}/0", "did not answer")
        self.assertEqual(len(self.fetcher.asked), 5)

    def test_many_that_are_there(self) -> None:
        """Thousands of pages that come at once are no problem."""
        apps = [self.app(f"app-{n}", stopped=f"{ONE}/{n}") for n in range(3000)]
        self.fetcher.pages = {f"{ONE}/{n}": b"x" if n % 2 else "is bad" for n in range(3000)}
        self.start(*apps)
        self.assertEqual(self.pages.told(), {"pages": 1500, "bytes": 1500, "failed": 1500})

    def test_given_up(self) -> None:
        """An app that goes while its page is fetched, and the stop, give the fetch up."""
        app = self.app(stopped=ONE)
        self.start(app)
        self.feed.remove_app("hello")
        self.assertEqual(self.fetcher.cancelled, [ONE])
        self.feed.set_app(self.app(stopped=TWO))
        self.pages.stopService()
        self.assertEqual(self.fetcher.cancelled, [ONE, TWO])
        self.assertEqual(self.pages.told()["pages"], 0)
        self.pages.startService()

    def test_files_are_for_the_configuration_file(self) -> None:
        """Nobody makes the proxy read a file by telling its name; what the file says may be said again."""
        path = "/etc/scalingo-proxy/stopped.html"
        self.start()
        (mistake,) = self.pages.mistakes(self.app(stopped="/etc/shadow", error=ONE))
        self.assertEqual(mistake.path, "error_pages.stopped")
        self.assertIn("only the configuration file may name", mistake.message)
        self.file_apps["hello"] = self.app(stopped=path)
        self.assertEqual(list(self.pages.mistakes(self.app(stopped=path))), [])
        self.assertEqual(len(list(self.pages.mistakes(self.app("other", stopped=path)))), 1)
        self.feed.set_app(self.app(stopped=path))
        del self.file_apps["hello"]
        self.assertEqual(list(self.pages.mistakes(self.app(timeout=path))), [])
