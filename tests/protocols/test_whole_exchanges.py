"""Whole answers to whole requests take shortcuts, on heads that are shared: what that comes to."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from twisted.internet.testing import StringTransport

from scalingo_proxy.model import Limits, Record
from scalingo_proxy.protocols import http_backend, http_frontend, http_requests, http_responder
from scalingo_proxy.protocols.http_ending import Doing
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.http1_body import Framing, FramingKind
from scalingo_proxy.wire.http1_exchange import TRANSITIONS, Event, Side
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead
from tests.protocols.worlds import WorldTestCase, get, hello, post

_FRAMINGS = [
    (Framing(FramingKind.NONE), b""),
    (Framing(FramingKind.LENGTH, 5), b"hello"),
    (Framing(FramingKind.CHUNKED), b"hello"),
    (Framing(FramingKind.UNTIL_CLOSE), b"hello"),
]


class _Asked:
    """All that the end of an exchange asks of it."""

    def __init__(self, record: Record) -> None:
        self.record = record


class StepsTests(WorldTestCase):
    """The shortcut for whole answers, against the steps that it leaves out."""

    def outcome(
        self, world: World, state: tuple[Side, Side], request: RequestHead, answer: int, is_draining: bool
    ) -> Any:
        """What is written to a client, and where its connection stands then."""
        frontend, transport = world.factory.buildProtocol(None), StringTransport()
        frontend.makeConnection(transport)
        record = Record(world.clock.seconds(), 0.0, "192.0.2.1", "")
        record.finished_at = world.clock.seconds() + 0.1
        frontend._exchange, frontend._head, frontend._doing = _Asked(record), request, Doing.EXCHANGE
        frontend._cycle.request, frontend._cycle.response = state
        framing, body = _FRAMINGS[answer]
        head = ResponseHead(200, b"OK", 1)
        head.framing = framing
        world.factory.is_draining = is_draining
        raised: Any = None
        try:
            frontend.send_whole(head, body, [])
            frontend.exchange_over()
        except Exception as error:
            raised = type(error)
        world.factory.is_draining = False
        cycle, doing = frontend._cycle, frontend._doing
        seen = raised, cycle.request, cycle.response, doing, frontend._exchange is None, frontend.deadline
        frontend._exchange, frontend._doing = None, Doing.CLOSED
        frontend.connectionLost()
        return *seen, transport.value()

    @contextlib.contextmanager
    def no_shortcut(self) -> Iterator[None]:
        """Nothing is in the state that the shortcut is for, or comes from."""
        with mock.patch.object(http_responder, "_IDLE"), mock.patch.object(http_frontend, "_IDLE"):
            yield

    def test_all(self) -> None:
        """Each state of a request that has begun, and of its answer; clients that stay or go."""
        world = self.world()
        begun = [side for side in Side if side is not Side.IDLE]
        ways = itertools.product(
            itertools.product(begun, Side), (0, 1), (False, True), range(len(_FRAMINGS)), (False, True)
        )
        came_round = 0
        for state, version, keep_alive, answer, is_draining in ways:
            request = RequestHead(b"GET", b"/", version)
            request.keep_alive = keep_alive
            outcome = self.outcome(world, state, request, answer, is_draining)
            with self.no_shortcut():
                by_steps = self.outcome(world, state, request, answer, is_draining)
            self.assertEqual(outcome, by_steps, str((state, version, keep_alive, answer, is_draining)))
            came_round += outcome[3] is Doing.WAITING
        self.assertEqual(came_round, 6)  # four framings in HTTP/1.1, and two in HTTP/1.0

    def test_written_out(self) -> None:
        """What is written out where requests and answers are whole is what the table says."""
        self.assertIs(TRANSITIONS[Side.IDLE][Event.WHOLE], Side.DONE)
        self.assertIs(TRANSITIONS[Side.DONE][Event.NEXT], Side.IDLE)


class KnownRequestsTests(WorldTestCase):
    """A request that came before is held against what holds for all."""

    def known(self) -> tuple[World, ScriptedClient, bytes]:
        """A client whose requests are known whole by now."""
        world, request = self.world(), get(b"/some/path")
        hello(world, replies.fixed(b"hello"))
        client = world.client()
        for _ in range(6):
            client.send(request)
            world.advance(0.1)
        self.assertIsNotNone(http_frontend.recent_request(request))
        return world, client, request

    def test_limits(self) -> None:
        """Other limits hold from the moment on that there are others."""
        world, client, request = self.known()
        world.factory.env.limits = Limits(request_line_bytes=10)
        client.send(request)
        world.advance(0.1)
        self.assertEqual([each.status for each in client.responses], [200] * 6 + [414])

    def test_empty_lines(self) -> None:
        """One empty line may stand before each, and no second."""
        world, client, request = self.known()
        for piece in (b"\r\n", request, b"\r\n", request, b"\r\n", b"\r\n", request):
            client.send(piece)
            world.advance(0.1)
        self.assertEqual([each.status for each in client.responses], [200] * 8 + [400])

    def test_behind_half_a_line(self) -> None:
        """What came before it counts, even if nothing could be made of that yet."""
        world, client, request = self.known()
        for piece in (b"\r", request):
            client.send(piece)
            world.advance(0.1)
        self.assertEqual([each.status for each in client.responses], [200] * 6 + [400])

    def test_in_the_middle(self) -> None:
        """What looks like a request is none where a body is, or the rest of a head."""
        world, client, request = self.known()
        for piece in (
            get(b"/", b"hello.test", b"Content-Length: %d" % len(request), method=b"POST"),
            request,
        ):
            client.send(piece)
            world.advance(0.1)
        client.send(b"GET /other HTTP/1.1\r\nX: ")
        world.advance(0.1)
        client.send(request)
        world.advance(0.1)
        self.assertEqual([each.status for each in client.responses], [200] * 8)
        self.assertEqual([each.path for each in world.records[-2:]], ["/", "/other"])


class SharedHeadsTests(WorldTestCase):
    """Heads that others may have are changed by nobody behind the reading of them."""

    def setUp(self) -> None:
        self.given: list[object] = []
        for module, name in (
            (http_backend, "parse_response_head"),
            (http_requests, "parse_request_head"),
            (http_frontend, "recent_request"),
        ):
            self.patch(module, name, self.noting(getattr(module, name)))

        def guard(head: object, name: str, value: object) -> None:
            writer = sys._getframe(1).f_code.co_filename.replace("\\", "/")
            if "/wire/" not in writer and any(each is head for each in self.given):
                raise AssertionError(f"{writer} changes {name} of a head that others may have")
            object.__setattr__(head, name, value)

        for kind in (RequestHead, ResponseHead):
            kind.__setattr__ = guard  # type: ignore[method-assign, assignment]
            self.addCleanup(delattr, kind, "__setattr__")

    def noting(self, read: Any) -> Any:
        def note(*args: Any) -> Any:
            head = read(*args)
            if head is not None:
                self.given.append(head)
            return head

        return note

    def requests(self) -> Iterator[bytes]:
        secure = b"X-Forwarded-Proto: https"
        for host in (b"hello.test", b"secure.test", b"nobody.test"):
            yield get(b"/", host)
            yield get(b"/", host, secure)
            yield get(b"/", host, secure, method=b"HEAD")
            yield get(b"/", host, b"Accept: application/json")
            yield post(b"body", host=host)
            yield get(b"/", host, b"Connection: upgrade", b"Upgrade: x")
            yield get(b"/", host).replace(b"HTTP/1.1", b"HTTP/1.0")

    def test_unchanged(self) -> None:
        """HSTS, redirects, errors, HEAD, bodies, upgrades, clients that go: each several times over."""
        answers = (
            replies.fixed(b"hello"),
            replies.chunked([b"one", b"two"]),
            replies.close_delimited(b"until the end"),
            replies.fixed(b"", 304),
            replies.raw(b"HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            replies.after_interim(replies.fixed(b"hello")),
        )
        for reply in answers:
            world = self.world(trusted_proxies=["127.0.0.1"])
            hello(world, reply)
            for backend in world.app("secure", ["secure.test"], force_https=True).backends:
                backend.answer(reply)
            for request in self.requests():
                for _ in range(5):
                    client = world.client()
                    client.send(request)
                    world.advance(0.1)
                    client.abort()
        known = [head for head in self.given if isinstance(head, (RequestHead, ResponseHead)) and head.words]
        self.assertGreater(len(known), 100)
        self.assertLess(len({id(head) for head in known}), len(known))
