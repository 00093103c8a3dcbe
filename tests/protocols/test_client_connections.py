"""Hoards of connections: who may come in, and who makes room."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Limits
from scalingo_proxy.protocols.client_connections import BATCH, ClientConnections
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_factory import TLSProxyFactory
from scalingo_proxy.testing.replies import fixed, never, upgrade_echo
from scalingo_proxy.testing.world import World, build_http_factory
from tests.protocols.http2_worlds import HTTP2TestCase, fields
from tests.protocols.tls_clients import certificate, client_context, now
from tests.protocols.worlds import WorldTestCase, get

_WEBSOCKET = (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")


class Idler:
    """A connection that does nothing since a moment."""

    def __init__(self, since: float | None, has_asked: bool = False) -> None:
        self.since = since
        self.has_asked = has_asked
        self.is_slow = False
        self.is_given_up = False

    def idle_since(self) -> float | None:
        return self.since

    def crawls(self, now: float) -> bool:
        return self.is_slow

    def under_way(self) -> tuple[()]:
        return ()

    def give_up(self) -> None:
        self.is_given_up = True


class ClientConnectionsTests(SynchronousTestCase):
    """The rules, on plain objects."""

    def setUp(self) -> None:
        self.clients = ClientConnections()

    def add(self, address: str, since: float | None, has_asked: bool = False) -> Idler:
        idler = Idler(since, has_asked)
        self.clients.opened(idler, address)
        return idler

    def test_of_one_address(self) -> None:
        """An IPv6 /64 is one; what closes makes room; no address, no limit."""
        limits = Limits(connections_per_address=2)
        first = self.add("2001:db8::1", 0.0)
        self.add("2001:db8::2", 0.0)
        self.assertEqual(self.clients.refusal("2001:db8::3", limits, 0.0), "address")
        self.assertEqual(self.clients.refusal("2001:db8:0:1::1", limits, 0.0), "")
        self.clients.closed(first)
        self.assertEqual(self.clients.refusal("2001:db8::3", limits, 0.0), "")
        for _ in range(5):
            self.add("", 0.0)
        self.assertEqual(self.clients.refusal("", limits, 0.0), "")
        self.assertEqual(self.clients.refused, {"total": 0, "address": 1})

    def test_silent_ones_make_room(self) -> None:
        """Who has asked for nothing for a second goes; who has just come, or is served, does not."""
        limits = Limits(client_connections=4)
        silent, fresh = self.add("10.0.0.1", 9.5), self.add("10.0.0.2", 9.9)
        busy, of_use = self.add("10.0.0.3", None), self.add("10.0.0.4", 9.5, has_asked=True)
        self.assertEqual(self.clients.refusal("10.0.0.5", limits, 10.0), "")
        self.assertEqual(
            [each.is_given_up for each in (silent, fresh, busy, of_use)], [True, False, False, False]
        )
        self.assertEqual(self.clients.given_up, 1)

    def test_place_is_given_once(self) -> None:
        """One that is on its way out makes room for one, and what is closed is forgotten."""
        limits = Limits(client_connections=1)
        silent = self.add("10.0.0.1", 0.0)
        self.assertEqual(self.clients.refusal("10.0.0.2", limits, 10.0), "")
        self.add("10.0.0.2", 10.0)
        self.assertEqual(self.clients.refusal("10.0.0.3", limits, 10.0), "total")
        self.clients.closed(silent)
        self.assertEqual(self.clients.count, 1)
        self.assertEqual(self.clients.refusal("10.0.0.3", limits, 10.2), "total")
        self.assertEqual(self.clients.refusal("10.0.0.3", limits, 10.5), "")

    def test_hoarder_first(self) -> None:
        """Of those that do nothing, the ones of whoever has most go first."""
        others = [self.add(f"10.0.0.{number}", 0.0) for number in range(BATCH)]
        hoard = [self.add("10.1.0.1", 1.0) for _ in range(BATCH + 5)]
        self.clients.make_room(100.0)
        self.assertEqual(sum(each.is_given_up for each in hoard), BATCH)
        self.assertFalse(any(each.is_given_up for each in others))

    def test_crawling_last(self) -> None:
        """Who moves a few bytes a second goes only when nobody does nothing."""
        slow, silent = self.add("10.0.0.1", None), self.add("10.0.0.2", 0.0)
        slow.is_slow = True
        self.assertEqual(self.clients.make_room(10.0), 1)
        self.assertEqual((silent.is_given_up, slow.is_given_up), (True, False))
        self.clients.closed(silent)
        self.assertEqual(self.clients.make_room(11.0), 1)
        self.assertTrue(slow.is_given_up)

    def test_does_not_look_too_often(self) -> None:
        """A flood on a full and busy proxy must not cost a walk for each that comes."""
        client = self.add("10.0.0.1", 9.9)
        self.assertEqual(self.clients.make_room(10.0), 0)
        client.since = 0.0
        self.assertEqual(self.clients.make_room(10.01), 0)
        self.assertEqual(self.clients.make_room(10.2), 1)

    def test_looks_less_often_at_thousands(self) -> None:
        """Where ten thousand are busy, looking at all of them is not done fifty times a second."""
        clients = [self.add(f"10.0.{number // 250}.{number % 250}", None) for number in range(10_000)]
        self.assertEqual(self.clients.make_room(10.0), 0)
        clients[-1].since = 0.0
        self.assertEqual(self.clients.make_room(10.15), 0)
        self.assertEqual(self.clients.make_room(10.25), 1)

    def test_one_look(self) -> None:
        """Each is looked at once, whatever is found: who does nothing, who crawls, or nobody."""
        looks: list[Idler] = []

        class Watched(Idler):
            def idle_since(self) -> float | None:
                looks.append(self)
                return super().idle_since()

        watched = [Watched(None) for _ in range(100)]
        for number, client in enumerate(watched):
            self.clients.opened(client, f"10.0.0.{number % 2}")
        self.clients.make_room(10.0)
        self.assertEqual(len(looks), 100)
        watched[50].is_slow = True
        self.assertEqual(self.clients.make_room(11.0), 1)
        self.assertEqual(len(looks), 200)


class HoardTests(WorldTestCase):
    """In a whole proxy."""

    def test_idle_makes_room(self) -> None:
        """Silent connections and half heads of one address do not keep the others out."""
        world = self.world(limits=Limits(client_connections=20))
        world.app("hello", ["hello.test"])
        hoard = [world.client("192.0.2.1") for _ in range(10)]
        heads = [world.client("192.0.2.1").send(b"GET / HTTP/1.1\r\n") for _ in range(10)]
        world.settle()
        refused = world.client("192.0.2.2")
        world.settle()
        self.assertTrue(refused.is_over)
        world.advance(1.5)
        self.assertEqual(world.request(get(), "192.0.2.2").status, 200)
        self.assertTrue(all(client.is_over for client in (*hoard, *heads)))
        self.assertEqual(world.factory.env.clients.given_up, 20)

    def test_slow_uploads_make_room(self) -> None:
        """Bodies that come a byte at a time are told 408; one that flows goes on."""
        world = self.world(limits=Limits(client_connections=3))
        world.app("hello", ["hello.test"])
        head = b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 100000\r\n\r\n"
        slow = [world.client("192.0.2.1").send(head) for _ in range(2)]
        flowing = world.client("192.0.2.3").send(head)
        for _ in range(12):
            for client in slow:
                client.send(b"x")
            flowing.send(b"x" * 1000)
            world.advance(1.0)
        self.assertEqual(world.request(get(), "192.0.2.2").status, 200)
        self.assertEqual([client.statuses for client in slow], [[408], [408]])
        flowing.send(b"x" * 88_000)
        world.run_until(lambda: flowing.responses)
        self.assertEqual(flowing.statuses, [200])

    def test_silent_tunnels_make_room(self) -> None:
        """Those of the address that has most of all places, and of no other; one that speaks stays."""
        world = self.world(limits=Limits(client_connections=6))
        app = world.app("hello", ["hello.test"])
        app.backend.answer(upgrade_echo())
        ask = get(b"/", b"hello.test", b"Connection: Upgrade", b"Upgrade: websocket", *_WEBSOCKET)
        hoard = [world.client("192.0.2.1").send(ask) for _ in range(5)]
        other = world.client("192.0.2.2").send(ask)
        world.advance(9.0)
        self.assertEqual([client.statuses for client in (*hoard, other)], [[101]] * 6)
        refused = world.client("192.0.2.3")
        world.settle()
        self.assertTrue(refused.is_over)
        hoard[0].send(b"ping")
        world.advance(2.0)
        app.backend.answer(fixed(b"fine"))
        self.assertEqual(world.request(get(), "192.0.2.3").status, 200)
        self.assertEqual([client.is_over for client in (*hoard, other)], [False, *[True] * 4, False])
        codes = [record.code for record in world.records]
        self.assertEqual(codes, ["queue-full"] + ["idle-timeout"] * 4 + ["-"])

    def test_answers_not_taken_make_room(self) -> None:
        """Who closes and does not read what is left has five seconds, then others come first."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(fixed(b"x" * 150_000))
        client = world.client()
        client.transport.pauseProducing()
        client.send(get(b"/", b"hello.test", b"Connection: close"))
        world.advance(1.0)
        make_room = world.factory.env.clients.make_room
        self.assertEqual(len(world.records), 1)
        self.assertEqual(make_room(world.clock.seconds()), 0)
        world.advance(5.0)
        self.assertEqual(make_room(world.clock.seconds()), 1)
        world.settle()
        self.assertEqual(world.factory.open_connections, 0)

    def test_one_address(self) -> None:
        """Its further connections are closed, and those of others are served."""
        world = self.world(limits=Limits(connections_per_address=2))
        world.app("hello", ["hello.test"])
        for _ in range(2):
            world.client("192.0.2.1")
        third = world.client("192.0.2.1")
        world.settle()
        self.assertTrue(third.is_over)
        self.assertEqual(world.request(get(), "192.0.2.2").status, 200)
        for _ in range(5):
            self.assertFalse(world.client("127.0.0.1").is_over)

    def test_descriptors_owed(self) -> None:
        """Who has just come is owed one for a backend, eight who have had an answer share one."""
        world = self.world()
        world.app("hello", ["hello.test"])
        clients = [world.client() for _ in range(9)]
        world.settle()
        env = world.factory.env
        self.assertEqual((env.clients.asked, env._owed()), (0, 9))
        for client in clients:
            client.send(get())
        world.run_until(lambda: all(client.responses for client in clients))
        self.assertEqual((env.clients.asked, env._owed()), (9, 2))
        world.client()
        world.settle()
        self.assertEqual(env._owed(), 3)
        clients[0].close()
        world.settle()
        self.assertEqual((env.clients.asked, env._owed()), (8, 2))

    def test_trusted_proxies_may(self) -> None:
        """They bring the clients of a whole network."""
        world = self.world(limits=Limits(connections_per_address=2), trusted_proxies=["192.0.2.1"])
        clients = [world.client("192.0.2.1") for _ in range(5)]
        world.settle()
        self.assertFalse(any(client.is_over for client in clients))


class HTTP2HoardTests(HTTP2TestCase):
    """Connections of HTTP/2 without streams."""

    def test_idle_makes_room(self) -> None:
        """They are told GOAWAY, the one that was never used first; one with a stream stays."""
        world: World = self.world()
        app = world.app("hello", ["hello.test"])
        silent, of_use, busy = (self.client(world) for _ in range(3))
        stream = of_use.request()
        world.run_until(lambda: stream.ended)
        app.backend.answer(never())
        busy.request()
        world.advance(0.5)
        world.factory.env.clients.make_room(world.clock.seconds())
        world.settle()
        self.assertEqual([client.goaway for client in (silent, of_use, busy)], [0, None, None])
        world.advance(1.0)
        world.factory.env.clients.make_room(world.clock.seconds())
        world.settle()
        self.assertEqual([client.goaway for client in (silent, of_use, busy)], [0, 0, None])

    def test_slow_streams_make_room(self) -> None:
        """A stream that moves a byte a second is no reason to stay; one among them that is served is."""
        world: World = self.world(limits=Limits(client_connections=4))
        app = world.app("hello", ["hello.test"])
        post = fields(b"/", (b"content-length", b"100000"), method=b"POST")
        slow, mixed, waiting = (self.client(world, source="192.0.2.1") for _ in range(3))
        uploads = [client.request(post, end=False) for client in (slow, mixed)]
        app.backend.answer(never())
        waiting.request()
        flowing = self.client(world, source="192.0.2.3")
        served = flowing.request(post, end=False)
        for _ in range(12):
            for client, upload in zip((slow, mixed), uploads, strict=True):
                client.upload(upload, b"x")
            flowing.upload(served, b"x" * 1000)
            if mixed.streams[1] is uploads[1] and len(mixed.streams) == 1:
                mixed.request()
            world.advance(1.0)
        self.assertEqual(world.factory.env.clients.make_room(world.clock.seconds()), 1)
        world.settle()
        self.assertEqual((uploads[0].status, uploads[0].code, slow.goaway), (408, "request-timeout", 0))
        self.assertTrue(slow.is_over)
        self.assertEqual([client.goaway for client in (mixed, waiting, flowing)], [None, None, None])

    def test_slow_readers_make_room(self) -> None:
        """Nor is a response of which the client opens the window for a few bytes at a time."""
        world: World = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(fixed(b"x" * 1_000_000))
        reader = self.client(world, acknowledges=False)
        stream = reader.request()
        for _ in range(12):
            reader.h2.increment_flow_control_window(1, stream.id)
            reader.flush()
            world.advance(1.0)
        world.factory.env.clients.make_room(world.clock.seconds())
        world.settle()
        self.assertFalse(stream.ended)
        self.assertTrue(reader.is_over)


def build_tls_factory(world: World, **options: Any) -> TLSProxyFactory:
    """Ends TLS by SNI, as the program does."""
    index = CertificateIndex(now)
    index.set(certificate("hello.test"))
    return TLSProxyFactory(build_http_factory(world, **options), Contexts(index))


class HandshakeHoardTests(WorldTestCase):
    """Handshakes that are begun and never finished."""

    def test_make_room(self) -> None:
        """They are given up after a second, once somebody else wants in, and told as late."""
        world = self.world(build=build_tls_factory, limits=Limits(client_connections=5))
        world.app("hello", ["hello.test"], tls="terminate")
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        begun = client_context().wrap_bio(coming, going, server_hostname="hello.test")
        self.assertRaises(ssl.SSLWantReadError, begun.do_handshake)
        hello = going.read()
        hoard = [world.client("192.0.2.1").send(hello) for _ in range(5)]
        world.advance(0.8)
        early = world.client("192.0.2.2")
        world.settle()
        self.assertTrue(early.is_over)
        world.advance(0.4)
        good = world.client("192.0.2.2")
        world.settle()
        self.assertFalse(good.is_over)
        self.assertTrue(all(client.is_over for client in hoard))
        self.assertEqual(world.observer.codes, ["queue-full"] + ["request-timeout"] * 5)
