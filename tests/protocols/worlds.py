"""What the tests of the protocols start from: a world that must end quiet."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.testing.world import World

__all__ = ["CUTS", "WorldTestCase", "get", "post"]

#: Each behaviour holds for whole segments and for random ones.
CUTS = (False, True)


class WorldTestCase(SynchronousTestCase):
    """A test case whose worlds are ended, and seen to be quiet, after each test."""

    def world(self, seed: int = 0, **options: Any) -> World:
        """A world of this test."""
        world = World(seed, **options)
        self.addCleanup(world.end)
        return world


def get(path: bytes = b"/", host: bytes = b"hello.test", *lines: bytes, method: bytes = b"GET") -> bytes:
    """A request without a body."""
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, path, host)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(body: bytes, *lines: bytes, host: bytes = b"hello.test") -> bytes:
    """A POST with a Content-Length."""
    return get(b"/", host, b"Content-Length: %d" % len(body), *lines, method=b"POST") + body
