"""Chromium, driven over its debugging protocol.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import tempfile
from typing import Any

from websockets.sync.client import connect

from tests.integration.programs import needs_program, wait_for

__all__ = ["Browser"]


class Browser:
    """One window without a screen.

    :ivar complaints: what the browser itself found wrong with the pages: errors of scripts,
        what a Content-Security-Policy forbade, what could not be loaded.
    """

    def __init__(self) -> None:
        program = needs_program("chromium", "install the package chromium")
        self._profile = tempfile.mkdtemp()
        self._process = subprocess.Popen(
            [
                program,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--remote-debugging-port=0", f"--user-data-dir={self._profile}", "about:blank"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.complaints: list[str] = []
        self._number = 0
        told = os.path.join(self._profile, "DevToolsActivePort")
        wait_for(lambda: os.path.exists(told) and os.path.getsize(told), "the browser")
        with open(told) as file:
            self._port = int(file.readline())
        self._socket = connect(self._page_address(), max_size=None, open_timeout=30, ping_interval=None)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End it, and forget all that it kept."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def _page_address(self) -> str:
        def address() -> str:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", "/json/list")
                pages = json.loads(connection.getresponse().read())
            finally:
                connection.close()
            return next((page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"), "")

        return str(wait_for(address, "a page"))

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol, and take note of what is told meanwhile."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: Any) -> None:
        kind, told = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def open(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'", url)

    def wait_for(self, expression: str, what: str) -> Any:
        """Ask until an expression in the page is true; pages that are just being exchanged say nothing."""

        def ask() -> Any:
            try:
                return self.evaluate(expression)
            except AssertionError:
                return None

        return wait_for(ask, what)

    def wait_until_at(self, place: str) -> None:
        """Wait until a page is loaded whose path and query end so."""
        self.wait_for(
            f"(location.pathname + location.search).endsWith({json.dumps(place)})"
            " && document.readyState === 'complete'",
            place,
        )

    def text(self, selector: str) -> str:
        """What stands in an element, as a person sees it."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """Click an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def screenshot(self, path: str, width: int, height: int, scale: float = 1.0) -> None:
        """Write a picture of the page."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        told = self.call("Page.captureScreenshot", format="png")
        with open(path, "wb") as file:
            file.write(base64.b64decode(told["data"]))
