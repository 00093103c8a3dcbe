"""Pages of an app's own with real programs: fetched from files and from good and bad servers."""

from __future__ import annotations

import os
import signal
import socket
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from scalingo_proxy.services import page_fetch
from scalingo_proxy.services.page_fetch import PageFetcher, PageRefused
from scalingo_proxy.wire.error_answer import Page
from tests.authorities import Authority
from tests.integration.programs import IntegrationTestCase, free_port, wait_for
from tests.integration.servers import SocketServer, read_head
from tests.integration.test_https_backends import TLSServer, answering

MEGABYTE = 1024 * 1024


def answer(status: str, body: bytes = b"", *lines: str) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines))
    return head.encode() + b"\r\n\r\n" + body


def serve(connection: socket.socket) -> None:
    """One answer by the path."""
    head, _ = read_head(connection)
    path = head.split(b" ")[1].decode()
    if path == "/hang":
        time.sleep(30)
    elif path == "/drip":
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(300):
            connection.sendall(b"x")
            time.sleep(0.1)
    elif path == "/endless":
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * MEGABYTE)
    elif path == "/short":
        connection.sendall(answer("200 OK", b"xxxx").replace(b"Length: 4", b"Length: 9"))
    elif path == "/garbage":
        connection.sendall(b"garbage\r\n\r\n")
    elif path != "/close":
        connection.sendall(_ANSWERS[path])


_ANSWERS = {
    "/page": answer("200 OK", b"<h1>Own</h1>", "Content-Type: text/html; charset=latin-1"),
    "/plain": answer("200 OK", b"plain"),
    "/odd": answer("200 OK", b"odd", "Content-Type: nonsense"),
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "/until-close": b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "/moved": answer("302 Found", b"", "Location: /page"),
    "/loop": answer("302 Found", b"", "Location: /loop"),
    "/nowhere": answer("302 Found"),
    "/file": answer("302 Found", b"", "Location: file:///etc/passwd"),
    "/missing": answer("404 Not Found", b"no"),
    "/empty": answer("204 No Content"),
    "/packed": answer("200 OK", b"xx", "Content-Encoding: gzip"),
    "/large": answer("200 OK", b"").replace(b"Length: 0", b"Length: 10485761"),
}


class FetchTests(TestCase):
    """The fetching alone."""

    def setUp(self) -> None:
        self.server = SocketServer(serve)
        self.addCleanup(self.server.close)
        self.patch(page_fetch, "FETCH_SECONDS", 1.0)

    def fetch(self, path: str) -> Deferred[object]:
        return PageFetcher(reactor).fetch(f"http://{self.server.address}{path}")

    @inlineCallbacks
    def test_good(self):  # type: ignore[no-untyped-def]
        """Whole answers with 200 are pages, redirected or not, with a usable Content-Type."""
        html = b"text/html; charset=utf-8"
        for path, body, kind in (
            ("/page", b"<h1>Own</h1>", b"text/html; charset=latin-1"),
            ("/moved", b"<h1>Own</h1>", b"text/html; charset=latin-1"),
            ("/plain", b"plain", html),
            ("/odd", b"odd", html),
            ("/chunked", b"abc", html),
            ("/until-close", b"until the end", html),
        ):
            page = yield self.fetch(path)
            self.assertEqual((page.body, page.content_type), (body, kind), path)

    @inlineCallbacks
    def test_bad(self):  # type: ignore[no-untyped-def]
        """Everything else is one sentence, within the time."""
        for path, told in (
            ("/loop", "leads on more than 5 times"),
            ("/nowhere", "answered 302 without a usable Location"),
            ("/file", "answered 302 without a usable Location"),
            ("/missing", "answered 404"),
            ("/empty", "answered 204"),
            ("/packed", "is encoded (gzip)"),
            ("/large", "has more than 10 MB"),
            ("/endless", "has more than 10 MB"),
            ("/short", "broke off"),
            ("/close", "cannot be fetched"),
            ("/garbage", "cannot be fetched"),
            ("/hang", "did not answer whole within 1 seconds"),
            ("/drip", "did not answer whole within 1 seconds"),
        ):
            failure = yield self.assertFailure(self.fetch(path), PageRefused)
            self.assertIn(told, str(failure), path)

    @inlineCallbacks
    def test_nobody(self):  # type: ignore[no-untyped-def]
        """Nobody there, nothing that can be read."""
        fetcher = PageFetcher(reactor)
        failure = yield self.assertFailure(fetcher.fetch(f"http://127.0.0.1:{free_port()}/"), PageRefused)
        self.assertIn("cannot be connected to", str(failure))
        failure = yield self.assertFailure(fetcher.fetch("/nowhere/page.html"), PageRefused)
        self.assertEqual(str(failure), "cannot be read: No such file or directory")

    @inlineCallbacks
    def test_https(self):  # type: ignore[no-untyped-def]
        """A server is verified, its name among the rest, and nothing leads away from https."""
        authority = Authority()
        trusted = trustRootFromCertificates([Certificate.loadPEM(authority.pem)])
        trusting = PageFetcher(reactor, Agent(reactor, BrowserLikePolicyForHTTPS(trusted)))

        def fetch(fetcher: PageFetcher, name: str, answer: bytes = _ANSWERS["/plain"]) -> Deferred[Page]:
            server = TLSServer(authority.issue([name]), answering(answer))
            self.addCleanup(server.close)
            return fetcher.fetch(f"{server.url}/")

        page = yield fetch(trusting, "127.0.0.1")
        self.assertEqual(page.body, b"plain")
        for fetcher, name in ((trusting, "other.test"), (PageFetcher(reactor), "127.0.0.1")):
            failure = yield self.assertFailure(fetch(fetcher, name), PageRefused)
            self.assertIn("has a certificate that cannot be verified", str(failure))
        away = answer("302 Found", b"", "Location: http://127.0.0.1/")
        failure = yield self.assertFailure(fetch(trusting, "127.0.0.1", away), PageRefused)
        self.assertEqual(str(failure), "leads from https to http://127.0.0.1/")
        self.flushLoggedErrors()
        until = time.monotonic() + 5
        while any(isinstance(each, Client) for each in reactor.getReaders()) and time.monotonic() < until:
            yield deferLater(reactor, 0.01)  # the last close takes its way to the server and back


class ProgramTests(IntegrationTestCase):
    """The whole proxy."""

    def test_files_urls_and_reload(self) -> None:
        """Pages are there soon after the start; one that hangs holds up nothing; a reload reads again."""
        server = SocketServer(serve)
        self.addCleanup(server.close)
        directory = self.directory()
        page = os.path.join(directory, "stopped.html")
        with open(page, "w") as file:
            file.write("<h1>Gone fishing</h1>")
        url = f"http://{server.address}"
        pages = f'error_pages = {{ stopped = "stopped.html", error = "{url}/page", timeout = "{url}/hang" }}'
        config = self.app("hello", [f"127.0.0.1:{free_port()}"], rest=f'state = "maintenance"\n{pages}')
        began = time.monotonic()
        proxy = self.start_proxy(config, directory=directory)
        self.assertLess(time.monotonic() - began, 9)
        wait_for(lambda: proxy.request()[1] == b"<h1>Gone fishing</h1>", "the page of the file")
        status, body, headers = proxy.request(Accept="application/json")
        self.assertEqual((status, headers["Content-Type"]), (503, "application/json"))
        app = "/api/v1/apps/hello"
        self.assertEqual(proxy.admin("PATCH", app, {"state": "running"})[0], 200)
        status, body, headers = proxy.request()
        self.assertEqual((status, body), (502, b"<h1>Own</h1>"))
        self.assertEqual(headers["Content-Type"], "text/html; charset=latin-1")
        # The probe of the app that runs again may be the first to find out.
        self.assertRegex(headers["X-Scalingo-Error"], "^(connect-failed|quarantined); ")
        status, refusal = proxy.admin("PATCH", app, {"error_pages": {"stopped": "/etc/passwd"}})
        self.assertEqual((status, refusal["error"]["field"]), (400, "error_pages.stopped"))
        self.assertIn("only the configuration file may name", refusal["error"]["message"])
        proxy.admin("PATCH", app, {"state": "stopped", "error_pages": {"error": f"{url}/missing"}})
        told = wait_for(lambda: proxy.admin("GET", app)[1].get("warnings"), "the news of a bad page")
        self.assertIn(f"{url}/missing\" answered 404; the proxy's own page is sent", told[0])
        with open(page, "w") as file:
            file.write("<h1>Still fishing</h1>")
        self.assertEqual(proxy.request()[1], b"<h1>Gone fishing</h1>")
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: proxy.request()[1] == b"<h1>Still fishing</h1>", "the page after a reload")
        self.assertNotIn("Traceback", proxy.output)
