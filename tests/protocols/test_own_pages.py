"""An app's own pages, as clients get them."""

from __future__ import annotations

import json
from typing import Any

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import App, Timeouts
from scalingo_proxy.routing.own_pages import page_source
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.error_answer import Page
from tests.protocols.http2_worlds import HTTP2TestCase, fields
from tests.protocols.worlds import WAYS, WorldTestCase, code_of, each_world, get, hello, post

PAGES = {
    "stopped": Page(b"<h1>Back soon</h1>"),
    "no_backend": Page(b"<h1>Nobody here</h1>"),
    "error": Page(b"<h1>Broken</h1>", b"text/html"),
    "timeout": Page(b"late", b"text/plain"),
    "large": Page(b"<p>page</p>" * 500_000),
}
SOURCES = {kind: kind for kind in PAGES if kind != "large"}


def with_pages(world: World, **fields: Any) -> Any:
    """The app with its pages, in a world that has them."""

    def page_for(app: App, error: ProxyError) -> Page | None:
        return PAGES.get(page_source(app, error))

    world.factory.env.page_for = page_for
    return hello(world, **{"error_pages": SOURCES, **fields})


class PageTests(WorldTestCase):
    @each_world(*WAYS, timeouts=Timeouts(first_byte=1.0, queue=1.0))
    def test_each(self, world: World) -> None:
        """Each state and each failure has its page, with its status, its code and the request id."""
        with_pages(world, reply=replies.never())
        app_changes: tuple[tuple[dict[str, Any], int, str, str], ...] = (
            ({"state": "stopped"}, 503, "app-stopped", "stopped"),
            ({"state": "maintenance"}, 503, "maintenance", "stopped"),
            ({"state": "paused"}, 504, "pause-timeout", "timeout"),
            ({"state": "running"}, 504, "first-byte-timeout", "timeout"),
            ({"backends": []}, 503, "no-backend", "no_backend"),
            ({"backends": ["127.0.0.1:1"]}, 502, "connect-failed", "error"),
        )
        for change, status, code, kind in app_changes:
            world.change("hello", **change)
            response = world.request(get())
            self.assertEqual((response.status, response.body), (status, PAGES[kind].body))
            self.assertEqual(response.get(b"Content-Type"), PAGES[kind].content_type)
            self.assertEqual(response.get(b"X-Scalingo-Error").partition(b";")[0].decode(), code)
            self.assertEqual(len(response.get(b"X-Request-ID")), 36)
            self.assertEqual(response.get(b"Cache-Control"), b"no-store")
            record = world.records[-1]
            self.assertEqual((record.status, record.code), (status, code))
            self.assertEqual(record.bytes_out, len(response.body))

    @each_world()
    def test_kept_alive(self, world: World) -> None:
        """The connection serves on, also behind a HEAD, which gets no body."""
        with_pages(world, state="stopped")
        client = world.client().send(get() + get(method=b"HEAD") + get())
        world.settle()
        self.assertEqual(client.statuses, [503] * 3)
        body = PAGES["stopped"].body
        self.assertEqual([response.body for response in client.responses], [body, b"", body])
        self.assertEqual(client.responses[1].get(b"Content-Length"), b"%d" % len(body))
        self.assertFalse(client.is_over)

    @each_world()
    def test_json(self, world: World) -> None:
        """A program that asks for JSON gets JSON."""
        with_pages(world, state="stopped")
        response = world.request(get(b"/", b"hello.test", b"Accept: application/json"))
        self.assertEqual(json.loads(response.body)["error"]["code"], "app-stopped")

    @each_world()
    def test_not_there(self, world: World) -> None:
        """Without a page, or for an error that has none, the proxy's own is sent."""
        with_pages(world, state="stopped", error_pages={"stopped": "unknown"})
        self.assertIn(b"The application is stopped.", world.request(get()).body)
        self.assertIn(b"no application claims", world.request(get(host=b"other.test")).body.lower())

    @each_world(*WAYS[:2], buffer_bytes=4096)
    def test_large(self, world: World) -> None:
        """A large page comes whole, only as fast as it is read."""
        with_pages(world, state="stopped", error_pages={"stopped": "large"})
        clients = [world.client() for _ in range(5)]
        for client in clients:
            client.pause()
            client.send(get() + get(method=b"HEAD"))
        world.advance(5)
        for frontend in world.factory._frontends:
            transport = frontend.transport
            self.assertLess(len(transport.dataBuffer) + transport._tempDataLen, 400_000)
        for client in clients[:3]:
            client.resume()
        clients[3].abort()
        world.advance(20)
        for client in clients[:3]:
            self.assertEqual(client.statuses, [503, 503])
            self.assertEqual(client.responses[0].body, PAGES["large"].body)
        world.advance(100)
        clients[4].resume()
        world.settle()
        self.assertEqual(clients[4].responses, [])
        codes = [record.code for record in world.records if record.method == "GET"]
        self.assertEqual(sorted(codes), ["app-stopped"] * 3 + ["client-closed", "idle-timeout"])

    @each_world()
    def test_large_and_still_sending(self, world: World) -> None:
        """A client that has not sent all of its request gets the short page."""
        with_pages(world, state="stopped", error_pages={"stopped": "large"})
        client = world.client().send(post(b"x" * 100)[:-10])
        world.settle()
        self.assertEqual((client.response.status, code_of(client)), (503, "app-stopped"))
        self.assertLess(len(client.response.body), 1000)


class HTTP2PageTests(HTTP2TestCase):
    def test_pages(self) -> None:
        """Over HTTP/2 they are the same, small and large, with back-pressure."""
        world = self.world()
        with_pages(world, state="stopped", error_pages={"stopped": "large", "no_backend": "no_backend"})
        client = self.client(world)
        large, head = client.request(), client.request(fields(method=b"HEAD"))
        world.settle()
        self.assertEqual((large.status, large.code), (503, "app-stopped"))
        self.assertEqual(bytes(large.body), PAGES["large"].body)
        self.assertEqual((head.status, bytes(head.body), head.ended), (503, b"", True))
        world.change("hello", state="running", backends=[])
        small = client.request()
        world.settle()
        self.assertEqual((small.status, bytes(small.body)), (503, PAGES["no_backend"].body))
        self.assertEqual(small.headers[b"content-type"], b"text/html; charset=utf-8")

    def test_not_read(self) -> None:
        """A client that reads nothing has no more than one window of it waiting."""
        world = self.world()
        with_pages(world, state="stopped", error_pages={"stopped": "large"})
        client = self.client(world, acknowledges=False)
        client.request()
        world.advance(1)
        self.assertLess(world.factory.last.pending, 200_000)
