"""What comes in one piece goes a shorter way: whatever is done on it is what is done piece by piece."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

from scalingo_proxy.model import Record
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.replies import Reply
from tests.protocols.worlds import WorldTestCase, get, hello, post

#: What differs from one run to the next, or with the time that pieces take.
_TIMES = {"started_at", "wall_time", "first_byte_at", "finished_at", "connect_seconds", "queue_seconds"}
_OBJECTS = {"route", "lineup"}
#: In a request: told by the clock.
_START = re.compile(rb"X-Request-Start: [^\r]*\r\n")

_REQUESTS = (
    get(),
    get(b"/a?b=c", b"hello.test", b"User-Agent: x", b"X-Request-ID: 0123456789abcdef0123"),
    get(b"/", b"hello.test", b"Connection: close"),
    get(b"/", b"nobody.test"),
    get(method=b"HEAD"),
    get().replace(b"HTTP/1.1", b"HTTP/1.0"),
    post(b"x" * 100),
    b"GET / HTTP/1.1\r\nHost: hello.test\r\nHost: hello.test\r\n\r\n",
)

_REPLIES = (
    replies.fixed(b"hello"),
    replies.fixed(b""),
    replies.fixed(b"gone", 410, [(b"X-One", b"1")]),
    replies.fixed(b"", 204),
    replies.raw(b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 5\r\n\r\n"),
    replies.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"),
    replies.raw(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    replies.raw(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"),
    replies.chunked([b"one", b"two"]),
    replies.close_delimited(b"until the end"),
    replies.after_interim(replies.fixed(b"hello")),
    replies.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello"),  # more than it says
    replies.raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
)


def told_of(record: Record) -> dict[str, object]:
    """All that a record tells, but for times."""
    left_out = _TIMES | _OBJECTS
    return {name: getattr(record, name) for name in Record.__slots__ if name not in left_out}


class WholePiecesTests(WorldTestCase):
    """One request and its answer, in one piece each and in many."""

    def outcome(self, request: bytes, reply: Reply, **way: Any) -> object:
        """What a client and a backend read, and what is told, of two such requests over a connection."""
        world = self.world(**way)
        numbers = count()
        world.factory.env.request_ids = lambda: f"request-number-{next(numbers):06}"
        app = hello(world, reply)
        client = world.client()
        for _ in range(2):
            client.send(request)
            world.advance(2)
        asked = [_START.sub(b"", connection.received) for connection in app.backend.connections]
        world.end(5)
        answers = [(each.status, each.headers, each.body) for each in client.responses]
        return answers, asked, [told_of(record) for record in world.records]

    def test_same(self) -> None:
        """Nothing differs but the times, not even which connections were used again."""
        for request in _REQUESTS:
            for number, reply in enumerate(_REPLIES):
                whole = self.outcome(request, reply)
                pieces = self.outcome(request, reply, cut=True)
                self.assertEqual(whole, pieces, f"{request!r} and reply {number}")
