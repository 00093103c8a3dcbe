"""Every response of the corpus through the whole proxy: what does the client make of it, and who is next?

A hostile backend answers one request with the bytes of a case, and each later
one with a word that tells whose it is.  A client sees the response that the
case accepts, an error of the router, or a broken end; and nobody ever gets a
byte of what was meant for somebody else.
"""

from __future__ import annotations

from typing import Any

from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World, WorldApp
from tests.corpus import Case, Outcome, load_cases
from tests.protocols.http2_worlds import HTTP2TestCase, fields
from tests.protocols.test_corpus import failures
from tests.protocols.worlds import WorldTestCase, get, post

_CASES = load_cases("responses")
#: Behind these a connection to a backend may be used again.
_CLEAN = ("ready",)
_NEXT = b"the next answer"
#: The reader of the tests does not count so far.
_TOO_LARGE = "responses/framing/016-length-large"


def final_of(case: Case) -> Outcome | None:
    """The response that the first request may get, if there is one."""
    finals = [outcome for outcome in case.accepts if outcome.line[0] != "1"]
    if not finals or (case.then in ("cut", "waits") and len(finals) == 1 and finals[0] is case.accepts[-1]):
        return None
    return finals[0]


def judged(case: Case, told: tuple[int, bytes, str] | None) -> list[str]:
    """What is wrong with a whole response that a client got: status, body, our code."""
    final = final_of(case)
    if told is None:
        return [] if final is None or case.then == "bad-response" else ["a good response was lost"]
    status, body, code = told
    if code:
        expected = final is None or case.then == "bad-response"
        return [] if expected and status in (502, 503, 504) else [f"the client got {status} {code}"]
    if final is None:
        return [f"the client took {told} for complete"]
    if (status, body) != (int(final.line), final.body):
        return [f"the client got {told}, not {(final.line, final.body)}"]
    return []


def hostile(world: World, case: Case) -> WorldApp:
    """An app whose backend answers once with the case, and then as it should."""
    app = world.app("hello", ["hello.test"])
    app.backend.script(replies.raw(case.input, close=case.closed))
    app.backend.answer(replies.fixed(_NEXT))
    return app


def asked_again(case: Case, app: WorldApp, bodies: list[bytes]) -> list[str]:
    """What is wrong with the answers to the requests behind it."""
    # A backend that broke off may be in quarantine for a moment.
    found = [f"somebody else got {body!r}" for body in bodies if body != _NEXT and b"quarantine" not in body]
    first = app.backend.connections[0]
    if len(first.requests) > 1 and case.then not in _CLEAN:
        found.append("the connection was used again")
    return found + [f"the backend could not read: {why}" for why in app.backend.malformed]


class HTTP1Tests(WorldTestCase):
    """A client of HTTP/1 asks, and asks again, and so does another one."""

    def run_case(self, case: Case, **options: Any) -> list[str]:
        world = World(**options)
        app = hostile(world, case)
        method = case.methods[0]
        client = world.client().send(post(b"body") if method == b"POST" else get(method=method))
        world.advance(1.0)
        switched = case.then == "switched" and not client.is_over
        client.send(b"" if client.is_over or switched else get(b"/again"))
        other = world.client().send(get(b"/other"))
        world.advance(1.0)
        bodies = [response.body for response in other.responses]
        if len(bodies) != 1:
            bodies.append(b"nothing")
        first, rest = client.responses[:1], client.responses[1:]
        if app.backend.requests[0].target == b"/" and not first:
            rest = []
        told = None
        if first:
            code = first[0].get(b"X-Scalingo-Error").partition(b";")[0].decode()
            told = (first[0].status, first[0].body, code)
        found = judged(case, told) + asked_again(case, app, bodies + [each.body for each in rest])
        if client.malformed and case.name != _TOO_LARGE:
            found.append(f"the client could not read: {client.malformed}")
        client.close()
        other.close()
        for connection in app.backend.open_connections:
            connection.transport.abortConnection()
        world.advance(120.0)
        world.end()
        return found

    def test_whole(self) -> None:
        """As one segment."""
        self.assertGreater(len(_CASES), 130)
        self.assertEqual({}, failures(self.run_case, _CASES))

    def test_cut(self) -> None:
        """In segments of random sizes."""
        self.assertEqual({}, failures(self.run_case, _CASES, cut=True))


class HTTP2Tests(HTTP2TestCase):
    """A client of HTTP/2 asks, and on another stream of the same connection asks again."""

    def run_case(self, case: Case, **options: Any) -> list[str]:
        world = World(build=self.build, **options)
        app = hostile(world, case)
        client = self.client(world)
        first = client.request(
            fields(method=case.methods[0]), None if case.methods[0] != b"POST" else b"body"
        )
        world.advance(1.0)
        second = client.request(fields(b"/again"))
        world.advance(1.0)
        told = None
        if first.ended and first.reset in (None, 0):
            told = (first.status, bytes(first.body), "" if first.code == "-" else first.code)
        bodies = [bytes(second.body)] if second.ended else [b"nothing"]
        found = judged(case, told) if case.then != "switched" else []
        found += asked_again(case, app, bodies)
        client.close()
        for connection in app.backend.open_connections:
            connection.transport.abortConnection()
        world.advance(120.0)
        world.end()
        return found

    def test_whole(self) -> None:
        """As one segment."""
        self.assertEqual({}, failures(self.run_case, _CASES))

    def test_cut(self) -> None:
        """In segments of random sizes."""
        self.assertEqual({}, failures(self.run_case, _CASES, cut=True))


class BrokenTests(HTTP2TestCase):
    """A good response that ends at each of its bytes, by FIN and by reset."""

    messages = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-A: b\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    )

    def endings(self) -> list[tuple[bytes, int, replies.Reply]]:
        return [
            (message, count, end(count, replies.raw(message)))
            for message in self.messages
            for count in range(len(message))
            for end in (replies.close_after, replies.reset_after)
        ]

    def test_http1(self) -> None:
        """The client is told 502, or sees that it is broken, and never takes a part for the whole."""
        for message, count, reply in self.endings():
            world = World()
            app = world.app("hello", ["hello.test"])
            app.backend.script(reply)
            client = world.client().send(get())
            world.advance(1.0)
            told = [(each.status, each.get(b"X-Scalingo-Error")[:14]) for each in client.responses]
            self.assertIn(told, ([], [(502, b"backend-closed")]), (message, count))
            self.assertTrue(told or client.is_over, (message, count))
            self.assertEqual(app.backend.open_connections, [], (message, count))
            world.end()

    def test_http2(self) -> None:
        """The same, and other streams of the connection do not notice."""
        for message, count, reply in self.endings():
            world = World(build=self.build)
            app = world.app("hello", ["hello.test"])
            app.backend.script(reply)
            client = self.client(world)
            stream = client.request()
            world.advance(1.0)
            self.assertTrue(stream.code == "backend-closed" or stream.reset, (message, count))
            other = client.request()
            world.advance(40.0)
            self.assertTrue(other.ended, (message, count))
            client.close()
            world.end()
