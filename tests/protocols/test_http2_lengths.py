"""A backend gets the last byte of a request when the client has said that it is the last.

Until then the request may still turn out to be malformed, and a backend that has
all of it would have served it (H2.CL and H2.0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hyperframe.frame import DataFrame, RstStreamFrame

from scalingo_proxy.model import Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World, WorldApp
from tests.protocols.http2_worlds import HTTP2TestCase, RawClient, fields, headers_frame


def length(count: int) -> list[tuple[bytes, bytes]]:
    return fields(b"/", (b"content-length", b"%d" % count), method=b"POST")


class LengthTests(HTTP2TestCase):
    """Frames that come one by one, to a backend whose connection is kept."""

    def begin(self, **options: Any) -> tuple[World, WorldApp, RawClient]:
        world: World = self.world(**options)
        app = world.app("hello", ["hello.test"])
        client = self.raw(world)
        client.write(headers_frame(1, fields(), "END_STREAM"))
        world.run_until(lambda: client.statuses_of(1))
        del app.backend.requests[:], world.records[:]
        return world, app, client

    def whole(self, app: WorldApp) -> list[bytes]:
        """The body of each request that a backend would serve."""
        return [request.body for request in app.backend.requests if request.is_complete]

    def test_end_apart(self) -> None:
        """An end in a frame of its own is as good as any: a length, none, and trailers."""
        endings = {
            "data": DataFrame(3, b"", flags=["END_STREAM"]),  # type: ignore[no-untyped-call]
            "trailers": headers_frame(3, [(b"x-sum", b"1")], "END_STREAM"),
        }
        for kind, ending in endings.items():
            for body in (b"", b"hello"):
                world, app, client = self.begin()
                client.write(headers_frame(3, length(len(body))))
                world.settle()
                if body:
                    client.write(DataFrame(3, body))
                    world.settle()
                self.assertEqual(self.whole(app), [])
                client.write(ending)
                world.settle()
                self.assertEqual(self.whole(app), [body], kind)
                self.assertEqual(client.statuses_of(3), [200])
                self.assertEqual(world.observer.codes, ["-"])

    def test_late_end(self) -> None:
        """How long a client took to say that nothing follows is not taken from the backend's time."""
        timeouts = Timeouts(connect=5.0, first_byte=30.0, request_body=60.0, idle=60.0)
        world, app, client = self.begin(timeouts=timeouts)
        app.backend.answer(replies.delayed(25, replies.fixed(b"slow")))
        client.write(headers_frame(3, length(0)))
        world.advance(50)
        client.write(DataFrame(3, b"", flags=["END_STREAM"]))  # type: ignore[no-untyped-call]
        world.advance(24)
        self.assertEqual(client.statuses_of(3), [])
        world.advance(2)
        self.assertEqual(client.statuses_of(3), [200])
        client.write(headers_frame(5, length(0)))
        world.advance(50)
        app.backend.answer(replies.delayed(40, replies.fixed(b"too slow")))
        client.write(DataFrame(5, b"", flags=["END_STREAM"]))  # type: ignore[no-untyped-call]
        world.advance(29)
        self.assertEqual(client.statuses_of(5), [])
        world.advance(2)
        self.assertEqual(client.statuses_of(5), [504])

    def test_more_behind(self) -> None:
        """A byte too many costs the stream, and nobody has served the request."""
        for body in (b"", b"hello"):
            world, app, client = self.begin()
            client.write(headers_frame(3, length(len(body))))
            for piece in (body, b"x"):
                world.settle()
                client.write(DataFrame(3, piece))
            world.advance(1.0)
            self.assertEqual(self.whole(app), [])
            self.assertEqual(client.resets, {3: 1})
            self.assertEqual(world.observer.codes, ["bad-request"])

    def test_bad_trailers_behind(self) -> None:
        """So do trailers that are none."""
        for body in (b"", b"hello"):
            world, app, client = self.begin()
            client.write(headers_frame(3, length(len(body))))
            if body:
                client.write(DataFrame(3, body))
            world.settle()
            client.write(headers_frame(3, [(b":path", b"/evil")], "END_STREAM"))
            world.settle()
            self.assertEqual(self.whole(app), [])
            self.assertEqual(client.resets, {3: 1})
            self.assertEqual(world.observer.codes, ["bad-request"])

    def test_end_that_never_comes(self) -> None:
        """Who never ends its request has as long as for a stalled upload, and every end is told once."""

        def leave(world: World, client: RawClient) -> None:
            client.close()

        def reset(world: World, client: RawClient) -> None:
            client.write(RstStreamFrame(3, 8))  # type: ignore[no-untyped-call]

        def stop(world: World, client: RawClient) -> None:
            world.factory.drain(0.5)

        def make_room(world: World, client: RawClient) -> None:
            world.advance(6.0)
            world.factory.env.clients.make_room(world.clock.seconds())

        ways: dict[str, tuple[str, list[int], Callable[[World, RawClient], None]]] = {
            "waits": ("request-timeout", [408], lambda world, client: None),
            "leaves": ("client-closed", [], leave),
            "resets": ("client-closed", [], reset),
            "stops": ("drain-timeout", [503], stop),
            "makes room": ("request-timeout", [408], make_room),
        }
        for way, (code, statuses, end) in ways.items():
            for body in (b"", b"hello"):
                if body and way == "makes room":
                    continue  # it has moved, and that is another rule
                world, app, client = self.begin(timeouts=Timeouts(request_body=10.0))
                client.write(headers_frame(3, length(len(body))))
                if body:
                    client.write(DataFrame(3, body))
                world.settle()
                end(world, client)
                world.advance(12.0)
                self.assertEqual(world.observer.codes, [code], way)
                self.assertEqual(client.statuses_of(3), statuses, way)
                self.assertEqual(self.whole(app), [], way)

    def test_head_request(self) -> None:
        """What is refused before it began is answered as it asked."""
        world, _, client = self.begin(timeouts=Timeouts(request_body=10.0))
        listed = fields(b"/", (b"content-length", b"0"), (b"accept", b"application/json"), method=b"HEAD")
        client.write(headers_frame(3, listed))
        world.advance(12.0)
        told = [dict(head) for stream, head in client.lists if stream == 3]
        self.assertEqual(
            [(head[b":status"], head[b"content-type"].partition(b";")[0]) for head in told],
            [(b"408", b"application/json")],
        )
        self.assertEqual(
            [f for f in client.frames if isinstance(f, DataFrame) and f.stream_id == 3 and f.data], []
        )
