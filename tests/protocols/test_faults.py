"""Bugs of our own: the exchange they happen to ends, its lease is given back, nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred

from scalingo_proxy.model import App, Limits, Route, Timeouts
from scalingo_proxy.protocols import app_search, exchange_ending, exchange_request, http_requests
from scalingo_proxy.protocols.backend_connections import BackendConnections
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.protocols.http_backend import HTTPBackend
from scalingo_proxy.protocols.http_frontend import HTTPFrontend
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.test_upgrades import websocket
from tests.protocols.worlds import WAYS, WorldTestCase, code_of, get, hello, post

CHUNKED_POST = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")


class Bug(Exception):
    """What is raised where nothing should be."""


class FaultTestCase(WorldTestCase):
    """Breaks one thing for one request."""

    def once(self, owner: Any, name: str) -> None:
        """Let the next call of *owner.name* raise."""
        original = getattr(owner, name)
        patch = mock.patch.object(owner, name)

        def broken(*args: Any, **kwargs: Any) -> Any:
            patch.stop()
            raise Bug(name)

        patched = patch.start()
        patched.side_effect = broken
        if isinstance(owner, type):
            # A plain function, so that it binds like the method it stands for.
            setattr(owner, name, lambda *args, **kwargs: broken(*args, **kwargs))
        self.addCleanup(lambda: setattr(owner, name, original))


class AnswerTests(FaultTestCase):
    """Where nothing was sent yet, the client hears 500; else it sees a break."""

    def check(
        self,
        breaks: Callable[[World], None],
        request: bytes = get(),
        reply: replies.Reply | None = None,
        answered: bool | None = True,
    ) -> None:
        """A request that meets the bug ends; one beside it and one behind it do not."""
        for way in WAYS:
            world = World(**way, timeouts=Timeouts(connect=5.0))
            app = hello(world, reply, limits={"in_flight_per_backend": 10})
            world.app("other", ["other.test"])
            beside = world.client()
            client = world.client()
            world.settle()
            breaks(world)
            client.send(request)
            world.advance(1)
            beside.send(get(b"/", b"other.test"))
            world.advance(6)
            errors = self.flushLoggedErrors(Bug)
            self.assertEqual(len(errors), 1, f"{way}: {errors}")
            # Cut into pieces, a response may have begun.
            if bool(client.statuses) if answered is None else answered:
                self.assertEqual((client.statuses, code_of(client)), ([500], "internal-error"), way)
            else:
                self.assertEqual(client.responses, [], way)
                self.assertTrue(client.is_over, way)
            self.assertEqual(beside.statuses, [200])
            world.assert_idle()
            codes = [record.code for record in world.records if record.app != "other"]
            self.assertEqual(codes, ["internal-error"])
            app.backend.answer(replies.fixed(b"fine"))
            world.network.restore(app.backend.address)
            self.assertEqual(world.request(get()).status, 200)
            world.end()

    def test_searching(self) -> None:
        """Whatever fails on the way to a backend is this request's 500."""
        self.check(lambda world: self.once(Pools, "for_route"))
        self.check(lambda world: self.once(BackendConnections, "take_idle"))
        self.check(lambda world: self.once(BackendConnections, "connect"))
        self.check(lambda world: self.once(Exchange, "backend_connected"))
        self.check(lambda world: self.once(exchange_request, "request_head_for_backend"))
        self.check(lambda world: self.once(HTTPBackend, "send_request"))

    def test_trying_another(self) -> None:
        """So is what fails between two attempts."""

        def breaks(world: World) -> None:
            world.network.refuse(world.backends[0].address)
            self.once(Exchange, "_try_another")

        self.check(breaks, reply=None)

    def test_uploading(self) -> None:
        """A failure in the middle of an upload is answered, and the client heard out."""
        self.check(lambda world: self.once(HTTPFrontend, "_receive_body"), post(b"x" * 1000))
        self.check(lambda world: self.once(HTTPBackend, "send_payload"), post(b"x" * 1000)[:-9])
        self.check(lambda world: self.once(HTTPBackend, "end_request"), post(b"x" * 1000))
        self.check(lambda world: self.once(HTTPBackend, "end_request"), CHUNKED_POST + b"1\r\nx\r\n0\r\n\r\n")

    def test_responding(self) -> None:
        """A failure before anything was sent is 500."""
        self.check(lambda world: self.once(HTTPBackend, "_receive_head"))
        drip = replies.drip([b"x" * 100] * 3, 0.5)
        self.check(lambda world: self.once(HTTPBackend, "_begin_response"), reply=drip)
        self.check(lambda world: self.once(Exchange, "_begin_response"), reply=drip)
        self.check(lambda world: self.once(BackendConnections, "give_back"), answered=None)

    def test_response_begun(self) -> None:
        """A failure afterwards breaks the response."""
        drip = replies.drip([b"x" * 100] * 3, 0.5)
        self.check(lambda world: self.once(Exchange, "response_payload"), reply=drip, answered=False)
        self.check(lambda world: self.once(HTTPFrontend, "start_response"), reply=drip, answered=False)
        self.check(lambda world: self.once(HTTPFrontend, "send_payload"), reply=drip, answered=False)
        self.check(lambda world: self.once(HTTPFrontend, "end_response"), reply=drip, answered=False)

    def test_reading_a_head(self) -> None:
        """A head that our parser chokes on is 500, and the connection ends."""
        for way in WAYS:
            world = World(**way)
            hello(world)
            self.once(http_requests, "parse_request_head")
            client = world.client().send(get() + get())
            world.advance(3)
            self.assertEqual(code_of(client), "internal-error")
            self.assertTrue(client.is_over)
            self.assertEqual(world.observer.codes, ["internal-error"])
            self.assertEqual(len(self.flushLoggedErrors(Bug)), 1)
            self.assertEqual(world.request(get()).status, 200)
            world.end()

    def test_lost_backend(self) -> None:
        """A failure while a backend's end is handled is 500."""
        self.check(lambda world: self.once(Exchange, "backend_lost"), reply=replies.close_silently())

    def test_deadline(self) -> None:
        """A failure while a deadline is handled ends the exchange all the same."""
        for way in WAYS:
            world = World(**way, timeouts=Timeouts(first_byte=5.0))
            hello(world, replies.never())
            client = world.client().send(get())
            world.advance(1)
            self.once(Exchange, "deadline_reached")
            world.advance(5)
            self.assertEqual(code_of(client), "internal-error")
            self.assertEqual(len(self.flushLoggedErrors(Bug)), 1)
            world.end()

    def test_switching(self) -> None:
        """A failure while a tunnel is made leaves neither end of it."""
        for name in ("switch", "join"):
            for way in WAYS:
                world = World(**way)
                app = hello(world, replies.upgrade_echo())
                self.once(HTTPFrontend, name)
                client = world.client().send(websocket())
                world.advance(1)
                self.assertTrue(client.is_over)
                self.assertEqual(app.backend.open_connections, [])
                self.assertEqual(len(self.flushLoggedErrors(Bug)), 1)
                self.assertEqual(world.observer.codes, ["internal-error"])
                world.end()

    def test_answering_the_failure(self) -> None:
        """When even the 500 cannot be written, the connection is closed and the lease is back."""
        for way in WAYS:
            world = World(**way)
            hello(world)
            self.once(Pools, "for_route")
            self.once(HTTPFrontend, "send_error")
            client = world.client().send(get())
            world.advance(3)
            self.assertTrue(client.is_over)
            world.assert_idle()
            self.assertEqual(len(world.records), 1)
            self.assertEqual(len(self.flushLoggedErrors(Bug)), 2)
            world.end()

    def test_giving_up(self) -> None:
        """When what is under way cannot be abandoned, the exchange ends all the same."""

        def connect(*args: object) -> Callable[[], None]:
            def abandon() -> None:
                raise Bug

            return abandon

        world = self.world(connect=connect)
        hello(world)
        for leave in ("abort", "close"):
            client = world.client().send(get())
            world.settle()
            getattr(client, leave)()
            world.settle()
            world.assert_idle()
            self.assertEqual(world.records[-1].code, "client-closed")
            self.assertEqual(world.factory.open_connections, 0)
            self.assertNotEqual(self.flushLoggedErrors(Bug), [])

    def test_stopping(self) -> None:
        """One connection that cannot be closed in order is reset; the others are closed in order."""
        world = self.world()
        hello(world, replies.never())
        idle = [world.client() for _ in range(3)]
        waiting = [world.client().send(get()) for _ in range(3)]
        world.settle()
        self.once(HTTPFrontend, "drain")
        done: list[object] = []
        world.factory.drain(5).addCallback(done.append)
        world.advance(1.1)
        self.assertTrue(all(client.is_over for client in idle))
        self.once(Exchange, "cut")
        world.advance(8)
        self.assertEqual(len(done), 1)
        self.assertEqual(sorted(client.statuses for client in waiting), [[], [503], [503]])
        self.assertEqual(len(self.flushLoggedErrors(Bug)), 2)


class BehindCallbacksTests(FaultTestCase):
    """Bugs behind somebody else's callback end the exchange they belong to."""

    def test_behind_a_resolver(self) -> None:
        """What fails after a resolver's late answer is this request's 500, not an unhandled Deferred."""
        answer: Deferred[Route] = Deferred()

        class Late:
            name = "late"

            def resolve(self, query: object) -> Deferred[Route]:
                return answer

        world = self.world(resolver=Late())
        client = world.client().send(get())
        world.settle()
        self.once(app_search.AppSearch, "_routed")
        answer.callback(Route(App("hello", ["hello.test"]), "hello.test"))
        world.settle()
        self.assertEqual(code_of(client), "internal-error")
        self.assertEqual(len(self.flushLoggedErrors(Bug)), 1)

    def test_behind_somebody_elses_end(self) -> None:
        """What fails when a place is granted is not the trouble of the one who left it."""
        for way in WAYS:
            world = World(**way, limits=Limits(in_flight_per_backend=1))
            hello(world, replies.delayed(1.0, replies.echo()))
            first = world.client().send(post(b"first"))
            world.settle()
            second = world.client().send(get())
            world.settle()
            third = world.client().send(post(b"third"))
            world.settle()
            self.once(HTTPBackend, "send_request")
            world.advance(4)
            self.assertEqual(first.response.body, b"first")
            self.assertEqual(code_of(second), "internal-error")
            self.assertEqual(third.response.body, b"third")
            self.assertEqual(len(self.flushLoggedErrors(Bug)), 1)
            world.end()

    def test_behind_the_end_of_the_last(self) -> None:
        """A pipelined request that fails at its start does not harm the one before it."""
        for way in WAYS:
            world = World(**way)
            app = hello(world)
            client = world.client().send(get() + post(b"x") + get())
            with mock.patch.object(exchange_ending, "may_send_again", side_effect=Bug):
                app.backend.script(replies.fixed(b"1"), replies.close_silently())
                world.advance(3)
            self.assertEqual(client.statuses, [200, 500, 200])
            self.assertEqual(len(self.flushLoggedErrors(Bug)), 1)
            world.end()
