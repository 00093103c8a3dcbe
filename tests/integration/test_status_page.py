"""The status page of a running proxy, in a real browser."""

from __future__ import annotations

import contextlib
import http.server
import os
import threading

from tests.integration.browser import Browser
from tests.integration.programs import IntegrationTestCase, ProxyProcess, free_port, wait_for


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"here I am\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing."""


class _Backend:
    """A backend that can die and come back at the same address."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._server: http.server.ThreadingHTTPServer | None = None

    def live(self) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        server.daemon_threads = True
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def die(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class StatusPageTests(IntegrationTestCase):
    """What somebody with a browser sees."""

    def proxy(self, rest: str = "") -> ProxyProcess:
        self.backend = _Backend()
        self.backend.live()
        self.addCleanup(self.backend.die)
        others = "".join(self.app(f"other-{number:02}", ["127.0.0.1:9"]) for number in range(40))
        quarantine = "[quarantine]\nfirst = 0.3\nmax = 0.5\n"
        return self.start_proxy(f"{rest}{quarantine}{self.app('hello', [self.backend.address])}{others}")

    def browser(self) -> Browser:
        browser = Browser()
        self.addCleanup(browser.close)
        return browser

    def test_load(self) -> None:
        """It loads whole, becomes live and counts before one's eyes, and the browser does not complain."""
        proxy, browser = self.proxy(), self.browser()
        browser.open(f"http://127.0.0.1:{proxy.admin_port}/")
        browser.wait_for("document.getElementById('stream').textContent === 'live'", "the stream")
        self.assertIn("hello", browser.text("#apps"))
        self.assertIn("1–25 of 41", browser.text(".pager"))
        browser.evaluate("window.mark = 'the same page'")
        for _ in range(7):
            self.assertEqual(proxy.request("/x")[0], 200)
        browser.wait_for(
            """document.querySelector('[data-live="app:hello:2xx"]').textContent === '7'""", "the count"
        )
        browser.wait_for(
            "document.querySelector('polyline.line-requests').getAttribute('points') > ''", "a line"
        )
        self.assertEqual(browser.evaluate("window.mark"), "the same page")
        self.assertEqual(browser.complaints, [])

    def test_without_scripts(self) -> None:
        """It is whole where scripts do not run, and in the dark."""
        proxy, browser = self.proxy(), self.browser()
        proxy.request("/x", host="nobody.test")
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        colours = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.call("Emulation.setEmulatedMedia", features=features)
            browser.call("Page.navigate", url=f"http://127.0.0.1:{proxy.admin_port}/")
            browser.wait_for(
                "document.readyState === 'complete' && !!document.querySelector('#sources')", "it"
            )
            colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(browser.text("#stream"), "as it was when loaded")
        self.assertIn("unknown-host", browser.text("#errors"))
        self.assertEqual(len(set(colours)), 2)

    def test_narrow(self) -> None:
        """Nothing but tables has to be scrolled sideways, down to 320 pixels (WCAG 1.4.10)."""
        proxy, browser = self.proxy(), self.browser()
        request_id = proxy.request("/x")[2]["X-Request-ID"] or "-"
        for width in (320, 500, 1000):
            browser.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=800,
                deviceScaleFactor=1,
                mobile=True,
            )
            for path in ("/", "/apps/hello", f"/requests/{request_id}"):
                browser.open(f"http://127.0.0.1:{proxy.admin_port}{path}")
                browser.wait_for("!!document.querySelector('footer')", path)
                wide = browser.evaluate("document.documentElement.scrollWidth")
                self.assertLessEqual(wide, width, path)

    def test_search(self) -> None:
        """What is typed is searched for, and the pages keep it."""
        proxy, browser = self.proxy(), self.browser()
        browser.open(f"http://127.0.0.1:{proxy.admin_port}/")
        browser.evaluate("document.getElementById('q').focus()")
        browser.call("Input.insertText", text="other")
        browser.call(
            "Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r", windowsVirtualKeyCode=13
        )
        browser.wait_until_at("?q=other")
        self.assertIn("1–25 of 40", browser.text(".pager"))
        self.assertNotIn("hello", browser.text("#apps"))
        browser.click(".pager a[rel=next]")
        browser.wait_for(
            "location.search === '?q=other&page=2' && document.readyState === 'complete'", "page 2"
        )
        self.assertIn("26–40 of 40", browser.text(".pager"))
        self.assertEqual(browser.complaints, [])

    def test_a_backend_dies_and_recovers(self) -> None:
        """Before the viewer's eyes: up, in quarantine with the reason, up again; the errors lead on."""
        proxy, browser = self.proxy(), self.browser()
        self.assertEqual(proxy.request()[0], 200)
        browser.open(f"http://127.0.0.1:{proxy.admin_port}/apps/hello")
        state = f'[data-live="backend:{self.backend.address}:serving:state"]'

        def is_told(word: str) -> None:
            browser.wait_for(f"document.querySelector('{state}')?.textContent === '{word}'", word)

        is_told("up")
        browser.evaluate("window.mark = 'the same page'")
        self.backend.die()
        wait_for(lambda: proxy.request()[0] >= 500, "a failure")
        is_told("quarantined")
        self.assertIn("refused", browser.text("#backends"))
        self.assertEqual(browser.evaluate(f"document.querySelector('{state}').dataset.state"), "quarantined")
        browser.wait_for("!!document.querySelector('#errors td.id a')", "the error")
        self.backend.live()

        def is_served() -> bool:
            with contextlib.suppress(OSError):
                return proxy.request()[0] == 200
            return False

        wait_for(is_served, "the recovery")
        is_told("up")
        self.assertEqual(browser.evaluate("window.mark"), "the same page")
        browser.click("#errors td.id a")
        browser.wait_for("location.pathname.startsWith('/requests/')", "the explanation")
        browser.wait_for("document.readyState === 'complete'", "it")
        self.assertIn("502", browser.text("main"))
        self.assertIn(self.backend.address, browser.text("main"))
        self.assertEqual(browser.complaints, [])

    def test_buttons(self) -> None:
        """They work in a browser, which sends what the guards ask for."""
        proxy, browser = self.proxy(), self.browser()
        browser.open(f"http://127.0.0.1:{proxy.admin_port}/apps/hello")
        browser.click('form[action="/apps/hello/stop"] button')
        browser.wait_until_at("?done=stop")
        # What was worked out for other viewers may be a second old.
        browser.wait_for("document.querySelector('h1').innerText.includes('stopped')", "the state")
        self.assertEqual(proxy.request()[0], 503)
        browser.click('form[action="/apps/hello/start"] button')
        browser.wait_for(
            "location.search === '?done=start' && document.readyState === 'complete'", "the start"
        )
        self.assertEqual(proxy.request()[0], 200)
        browser.click('form[action="/apps/hello/drain"] button')
        browser.wait_for(
            "location.search === '?done=drain' && document.readyState === 'complete'", "the drain"
        )
        self.assertEqual(proxy.admin("GET", "/api/v1/apps/hello")[1]["backends"], [])
        self.assertEqual(browser.complaints, [])

    def test_sign_in(self) -> None:
        """Where a token is set, a person types it once; scripts never see the session."""
        folder = self.directory()
        token_file = os.path.join(folder, "token")
        with open(token_file, "w") as file:
            file.write("secret-token\n")
        port = free_port()
        proxy = ProxyProcess(
            folder,
            f'[admin]\nendpoint = "127.0.0.1:{port}"\ntoken_file = "{token_file}"\n',
            "--http",
            "127.0.0.1:0",
        )
        self.addCleanup(proxy.end)
        wait_for(lambda: "admin" in proxy.output and "/api/v1" in proxy.output, "the banner")
        browser = self.browser()
        browser.open(f"http://127.0.0.1:{port}/?q=some")
        browser.evaluate("document.getElementById('token').value = 'secret-token'")
        browser.click('form[action="/login"] button')
        browser.wait_until_at("/?q=some")
        browser.wait_for("document.getElementById('stream')?.textContent === 'live'", "the stream")
        self.assertEqual(browser.evaluate("document.cookie"), "")
        browser.click('form[action="/logout"] button')
        browser.wait_for("!!document.getElementById('token')", "the end of the session")
