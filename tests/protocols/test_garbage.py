"""Exchanges and connections leave nothing to the garbage collector, which would stop the world for it."""

from __future__ import annotations

import gc
from collections.abc import Callable

from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, get, hello, post


class GarbageTests(WorldTestCase):
    """What is over is freed at once."""

    def garbage(self, action: Callable[[], object]) -> set[str]:
        """The classes of ours of which *action* leaves cycles behind."""
        action()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            action()
            gc.collect()
            classes = {type(thing) for thing in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        ours = (
            "scalingo_proxy.protocols",
            "scalingo_proxy.routing",
            "scalingo_proxy.wire",
            "scalingo_proxy.model",
        )
        # Twisted's connector and transport hold each other, and with them the connector's factory.
        return {kind.__name__ for kind in classes if kind.__module__.startswith(ours)} - {"_OneConnection"}

    def test_exchanges(self) -> None:
        """However an exchange ends, on a connection that lives on."""
        close = (b"Connection", b"close")
        for reply, request in (
            (replies.fixed(b"x"), get()),
            (replies.echo(), post(b"body")),
            (replies.chunked([b"x"] * 3), get()),
            (replies.fixed(b"x", headers=(close,)), get()),
            (replies.close_silently(), post(b"body")),
            (replies.raw(b"nonsense\r\n\r\n"), get()),
            (replies.fixed(b"x"), get(b"/", b"nobody.test")),
        ):
            world = self.world()
            hello(world, reply)
            client = world.client()

            def ask(world: World = world, client: object = client, request: bytes = request) -> None:
                client.send(request)  # type: ignore[attr-defined]
                world.settle()

            self.assertEqual(self.garbage(ask), set(), request)

    def test_connections(self) -> None:
        """Clients' connections, from the first to the last byte."""
        for request in (get(), get(b"/", b"hello.test", b"Connection: close"), b"nonsense\r\n\r\n"):
            world = self.world()
            hello(world)

            def ask(world: World = world, request: bytes = request) -> None:
                world.request(request)
                world.clients.clear()

            self.assertEqual(self.garbage(ask), set(), request)
