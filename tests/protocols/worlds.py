"""What the tests of the protocols start from: worlds that must end quiet."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.replies import Reply
from scalingo_proxy.testing.world import World, WorldApp

__all__ = ["CUTS", "WAYS", "WorldTestCase", "code_of", "each_world", "get", "hello", "post"]

#: Each behaviour holds for whole segments and for random ones.
CUTS = (False, True)

#: The ways bytes travel that no behaviour may depend on.
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"seed": 1, "cut": True, "shuffle": True},
    {"seed": 2, "cut": True, "shuffle": True, "latency": 0.02},
)


class WorldTestCase(SynchronousTestCase):
    """A test case whose worlds are ended, and seen to be quiet, after each test."""

    def world(self, seed: int = 0, **options: Any) -> World:
        """A world of this test."""
        world = World(seed, **options)
        self.addCleanup(world.end)
        return world


def each_world(
    *ways: dict[str, Any], **options: Any
) -> Callable[[Callable[[Any, World], None]], Callable[[Any], None]]:
    """Run a test in a world for each of *ways* (:data:`WAYS` by default), each seen to end quiet."""

    def decorate(test: Callable[[Any, World], None]) -> Callable[[Any], None]:
        @functools.wraps(test)
        def run(self: Any) -> None:
            for way in ways or WAYS:
                try:
                    world = World(**{**way, **options})
                    test(self, world)
                    world.end()
                except Exception as error:
                    error.args = (f"{error} (in a world of {way})",)
                    raise

        return run

    return decorate


def hello(world: World, reply: Reply | None = None, backends: int = 1, **fields: Any) -> WorldApp:
    """The app that :func:`get` and :func:`post` ask for; every backend answers by *reply*."""
    app = world.app("hello", ["hello.test"], backends=backends, **fields)
    if reply is not None:
        for backend in app.backends:
            backend.answer(reply)
    return app


def get(path: bytes = b"/", host: bytes = b"hello.test", *lines: bytes, method: bytes = b"GET") -> bytes:
    """A request without a body."""
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, path, host)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(body: bytes, *lines: bytes, host: bytes = b"hello.test", method: bytes = b"POST") -> bytes:
    """A POST with a Content-Length."""
    return get(b"/", host, b"Content-Length: %d" % len(body), *lines, method=method) + body


def code_of(client: ScriptedClient) -> str:
    """The reason code of the only response, or ``-`` when the router made none."""
    return client.response.get(b"X-Scalingo-Error", b"-").partition(b";")[0].decode()
