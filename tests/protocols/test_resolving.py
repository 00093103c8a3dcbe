"""Asking who serves a request: answers at once, later, never, or nonsense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from scalingo_proxy.errors import ResolverUnavailable, UnknownHost
from scalingo_proxy.model import App, Route, RouteQuery, Timeouts
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, code_of, get, post


class AskedResolver:
    """Notes what it is asked and answers as it is told."""

    name = "asked"

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.queries: list[RouteQuery] = []

    def resolve(self, query: RouteQuery) -> Any:
        self.queries.append(query)
        return self.answer()


class ResolvingTests(WorldTestCase):
    """One question per request, and every way it can be answered."""

    def asked(self, answer: Callable[[], Any], **options: Any) -> tuple[World, AskedResolver, Route]:
        """A world whose resolver does *answer*, and a route that would be right."""
        resolver = AskedResolver(answer)
        world = self.world(resolver=resolver, **options)
        backend = world.backend()
        return world, resolver, Route(App("hello", ["hello.test"], [backend.address]), "hello.test", "asked")

    def test_asked_once(self) -> None:
        """The resolver is asked once per request, with the host, the protocol and the client."""
        world, resolver, route = self.asked(lambda: route)
        world.request(get(b"/", b"HELLO.Test.:80"), source="192.0.2.7")
        self.assertEqual(resolver.queries, [RouteQuery("hello.test", "http", "192.0.2.7")])

    def test_route_at_once(self) -> None:
        """No question is made for a host whose route is known without; for others it is."""

        class Table(AskedResolver):
            """Knows one host without being asked."""

            def route_at_once(self, host: str) -> Route | None:
                return route if host == "hello.test" else None

        resolver = Table(lambda: self._raise(UnknownHost()))
        world = self.world(resolver=resolver)
        route = Route(App("hello", ["hello.test"], [world.backend().address]), "hello.test", "asked")
        client = world.client().send(get(b"/", b"Hello.Test:80") + get(b"/", b"other.test"))
        world.settle()
        self.assertEqual(client.statuses, [200, 404])
        self.assertEqual([each.host for each in resolver.queries], ["other.test"])
        self.assertEqual([(each.app, each.route) for each in world.records], [("hello", route), ("", None)])

    def test_answer_later(self) -> None:
        """A Deferred may bring the route at once or later."""
        for seconds in (0.0, 3.0):
            answer: Deferred[Route] = Deferred()
            world, _, route = self.asked(lambda answer=answer: answer)
            client = world.client().send(post(b"body"))
            world.advance(seconds)
            self.assertEqual(client.responses, [])
            answer.callback(route)
            world.settle()
            self.assertEqual(client.statuses, [200])
            self.assertEqual(world.backends[0].requests[0].body, b"body")
            self.assertEqual(world.records[0].app, "hello")

    def test_fired_already(self) -> None:
        """A Deferred that has its answer is as good as the answer."""
        world, _, route = self.asked(lambda: succeed(route))
        self.assertEqual(world.request(get()).status, 200)

    def test_errors(self) -> None:
        """Raised or in a Deferred, an error of ours is answered by its code; the connection goes on."""
        for error, status, code in (
            (UnknownHost(), 404, "unknown-host"),
            (ResolverUnavailable(), 503, "resolver-unavailable"),
        ):
            for answer in (lambda error=error: self._raise(error), lambda error=error: fail(error)):
                world, _, _ = self.asked(answer)
                client = world.client().send(get() + get())
                world.settle()
                self.assertEqual(client.statuses, [status] * 2)
                self.assertEqual(world.observer.codes, [code] * 2)
                self.assertFalse(client.is_over)

    def test_foreign_errors(self) -> None:
        """Any other error is logged once and is the resolver's unavailability to the client."""
        for answer in (lambda: self._raise(ZeroDivisionError()), lambda: fail(ZeroDivisionError())):
            world, _, _ = self.asked(answer)
            client = world.client().send(get())
            world.settle()
            self.assertEqual(code_of(client), "resolver-unavailable")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelled_by_the_resolver(self) -> None:
        """A lookup that the resolver itself gave up is unavailable at once, not at a deadline."""
        world, _, _ = self.asked(lambda: fail(CancelledError()))
        client = world.client().send(get())
        world.settle()
        self.assertEqual(code_of(client), "resolver-unavailable")
        self.flushLoggedErrors(CancelledError)

    def test_nonsense(self) -> None:
        """What is no route is the resolver's unavailability, logged once."""
        for answer in (lambda: None, lambda: succeed(None), lambda: "hello"):
            world, _, _ = self.asked(answer)
            client = world.client().send(get())
            world.settle()
            self.assertEqual(code_of(client), "resolver-unavailable")
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_never(self) -> None:
        """A resolver that does not answer in time is cancelled, and the client told."""
        cancelled: list[Deferred[Route]] = []
        world, _, _ = self.asked(lambda: Deferred(cancelled.append), timeouts=Timeouts(connect=5.0))
        client = world.client().send(get())
        world.advance(4.9)
        self.assertEqual(client.responses, [])
        world.advance(0.3)
        self.assertEqual(code_of(client), "resolver-unavailable")
        self.assertEqual(len(cancelled), 1)

    def test_client_leaves(self) -> None:
        """The question is cancelled when the client leaves, by FIN or by reset."""
        for leave in ("close", "half_close", "abort"):
            cancelled: list[Deferred[Route]] = []
            world, _, _ = self.asked(lambda noted=cancelled: Deferred(noted.append))
            client = world.client().send(get())
            world.settle()
            getattr(client, leave)()
            world.settle()
            self.assertEqual(len(cancelled), 1)
            self.assertEqual(world.observer.codes, ["client-closed"])
            self.assertEqual(world.observer.record.status, 499)

    def test_answer_to_a_cancellation(self) -> None:
        """Whatever a resolver does when it is cancelled, the exchange ends once, as it was ending."""
        route: Route

        def give_route(deferred: Deferred[Route]) -> None:
            deferred.callback(route)

        def give_error(deferred: Deferred[Route]) -> None:
            deferred.errback(UnknownHost())

        def give_foreign(deferred: Deferred[Route]) -> None:
            deferred.errback(ZeroDivisionError())

        def give_up(deferred: Deferred[Route]) -> None:
            raise ZeroDivisionError

        for canceller in (give_route, give_error, give_foreign, give_up):
            world, _, route = self.asked(lambda canceller=canceller: Deferred(canceller))
            left = world.client().send(get())
            waiting = world.client().send(get())
            world.settle()
            left.abort()
            world.advance(6)
            self.assertEqual(code_of(waiting), "resolver-unavailable")
            self.assertEqual(world.observer.codes, ["client-closed", "resolver-unavailable"])
            self.assertEqual(world.backends[0].connections, [])
            self.flushLoggedErrors(ZeroDivisionError)

    def test_answer_after_the_end(self) -> None:
        """An answer that comes in spite of the cancellation starts nothing."""
        answer: Deferred[Route] = Deferred()
        world, _, route = self.asked(lambda: answer)
        client = world.client().send(get())
        world.settle()
        client.abort()
        world.settle()
        answer.callback(route)  # Twisted lets one late answer to a cancelled Deferred pass
        world.settle()
        self.assertEqual(world.backends[0].connections, [])

    @staticmethod
    def _raise(error: Exception) -> None:
        raise error
