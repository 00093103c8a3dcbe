"""A whole proxy in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.testing import replies
from scalingo_proxy.testing.network import NothingLeftToHappen
from scalingo_proxy.testing.world import World

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"


class WorldTests(SynchronousTestCase):
    def test_requests_reach_the_backends(self) -> None:
        """An app's backends serve its domains, and each exchange leaves a record."""
        world = World(1)
        hello = world.app("hello", ["hello.test"], backends=2)
        bodies = {world.request(GET).body for _ in range(2)}
        self.assertEqual(bodies, {b"hello-1", b"hello-2"})
        self.assertEqual((hello.requests, [record.status for record in world.records]), (2, [200, 200]))
        world.end()

    def test_source(self) -> None:
        """Clients come from where they say."""
        world = World()
        hello = world.app("hello", ["hello.test"])
        world.request(GET, source="203.0.113.5")
        self.assertEqual(hello.backend.requests[0].get(b"X-Real-IP"), b"203.0.113.5")
        world.end()

    def test_ipv6(self) -> None:
        """The proxy and its backends may have IPv6 addresses."""
        world = World(address=("::1", 8080))
        hello = world.app("hello", ["hello.test"], [world.backend("six", "2001:db8::1")])
        world.request(GET, source="2001:db8::7")
        self.assertEqual(hello.backend.requests[0].get(b"X-Real-IP"), b"2001:db8::7")
        world.end()

    def test_changes(self) -> None:
        """An app's backends and its state can be changed as it runs."""
        world = World()
        world.app("hello", ["hello.test"])
        self.assertEqual(world.request(GET).body, b"hello-1")
        world.change("hello", backends=[world.backend("other")])
        self.assertEqual(world.request(GET).body, b"other")
        world.change("hello", state="stopped")
        self.assertEqual(world.request(GET).status, 503)
        self.assertEqual(world.observer.codes, ["-", "-", "app-stopped"])
        world.end()

    def trace(self, seed: int) -> list[Any]:
        """Everything a client and a backend see of one busy run."""
        world = World(seed, latency=0.002, cut=True, shuffle=True)
        hello = world.app("hello", ["hello.test"], backends=3)
        for backend in hello.backends:
            backend.script(replies.drip([b"x" * 50] * 5, 0.5), replies.close_silently())
        clients = [world.client().send(GET * 2) for _ in range(4)]
        world.advance(10)
        world.end()
        return [
            [client.arrivals for client in clients],
            [[request.raw for request in backend.requests] for backend in hello.backends],
        ]

    def test_same_seed_same_run(self) -> None:
        """A seed decides every byte and every moment."""
        self.assertEqual(self.trace(3), self.trace(3))
        self.assertNotEqual(self.trace(3), self.trace(4))

    def test_no_answer(self) -> None:
        """A request without a whole answer says so."""
        world = World()
        world.app("hello", ["hello.test"]).backend.answer(replies.never())
        self.assertRaises(NothingLeftToHappen, world.request, GET, limit_seconds=5)
        hello = world.app("cut", ["cut.test"]).backend
        hello.answer(replies.close_after(90, replies.bulk(5000)))
        self.assertRaises(AssertionError, world.request, GET.replace(b"hello", b"cut"))
        world.end()

    def test_not_idle(self) -> None:
        """An exchange under way is not idle."""
        world = World()
        world.app("hello", ["hello.test"]).backend.answer(replies.never())
        client = world.client().send(GET)
        world.settle()
        self.assertRaises(AssertionError, world.assert_idle)
        client.close()
        world.settle()
        world.assert_idle()
        world.end()

    def test_not_quiet(self) -> None:
        """An open connection, or a call to come, is not quiet."""
        world = World()
        world.client()
        self.assertRaises(AssertionError, world.assert_quiet)
        world.end()
        world.network.callLater(5, int)
        self.assertRaises(AssertionError, world.assert_quiet)

    def test_stubborn_clients(self) -> None:
        """Also a client that reads nothing is gone at the end."""
        world = World()
        world.app("hello", ["hello.test"]).backend.answer(replies.bulk(10**7))
        client = world.client(closes_at_end=False).send(GET)
        client.pause()
        world.advance(1)
        world.end()
        self.assertTrue(client.is_over)


class _Parrot(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


class _ParrotFactory(Factory):
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Parrot()

    def drain(self, seconds: float) -> Deferred[None]:
        return succeed(None)


class BuildTests(SynchronousTestCase):
    def test_other_factory(self) -> None:
        """Any factory can be put into a world, with options of its own."""
        given: list[Any] = []

        def build(world: World, **options: Any) -> _ParrotFactory:
            given.append(options)
            return _ParrotFactory()

        world = World(build=build, colour="green")
        self.assertEqual((world.request(GET).status, given), (200, [{"colour": "green"}]))
        world.end()

    def test_options(self) -> None:
        """Options reach the proxy's factory."""
        world = World(public_port=443)
        hello = world.app("hello", ["hello.test"])
        world.request(GET)
        self.assertEqual(hello.backend.requests[0].get(b"X-Forwarded-Port"), b"443")
        world.end()
