"""Upgraded connections: tunnels that carry every byte, each end by itself, until somebody is silent."""

from __future__ import annotations

import random

from scalingo_proxy.model import Limits, Outcome, Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.replies import IncomingExchange
from scalingo_proxy.testing.world import World
from tests.protocols.test_exchange_deadlines import DeadlineTestCase
from tests.protocols.worlds import WAYS, WorldTestCase, each_world, get, hello

SMALL = tuple({**way, "buffer_bytes": 2048} for way in WAYS)

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def websocket(*lines: bytes) -> bytes:
    """A valid opening handshake (RFC 6455 §4.1)."""
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    asked = (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    return get(b"/chat", b"hello.test", *asked, key, *lines)


def open_tunnel(world: World, request: bytes = websocket()) -> ScriptedClient:
    """A client whose tunnel is open."""
    client = world.client(closes_at_end=False).send(request)
    world.run_until(lambda: client.responses)
    assert client.statuses == [101], client.received
    return client


class SwitchTests(WorldTestCase):
    """From a request to a tunnel."""

    @each_world()
    def test_echo(self, world: World) -> None:
        """What each side says reaches the other; the record tells bytes both ways and status 101."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        client.send(b"ping" * 100)
        world.run_until(lambda: client.tunnelled == b"ping" * 100)
        client.close()
        world.settle()
        record = world.observer.record
        self.assertEqual((record.status, record.code), (101, "-"))
        self.assertEqual((record.bytes_in, record.bytes_out), (400, 400))
        self.assertEqual(app.backend.open_connections, [])

    @each_world()
    def test_handshake_is_relayed(self, world: World) -> None:
        """Both heads travel with their own fields, and one Connection and Upgrade each."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world, websocket(b"Sec-WebSocket-Protocol: chat"))
        (request,) = app.backend.requests
        self.assertEqual(request.get_all(b"Connection"), [b"upgrade"])
        self.assertEqual(request.get_all(b"Upgrade"), [b"websocket"])
        self.assertEqual(request.get_all(b"Sec-WebSocket-Protocol"), [b"chat"])
        response = client.responses[0]
        self.assertEqual(response.get_all(b"Connection"), [b"upgrade"])
        self.assertEqual(response.get_all(b"Upgrade"), [b"websocket"])

    @each_world()
    def test_other_tokens(self, world: World) -> None:
        """Any token tunnels; of a list, the one the backend chose."""
        for asked, chosen in ((b"foo/2", b"foo/2"), (b"foo/2, bar", b"BAR"), (b"tcp", b"tcp")):
            hello(world, replies.upgrade_echo(chosen))
            client = open_tunnel(
                world, get(b"/", b"hello.test", b"Connection: upgrade", b"Upgrade: " + asked)
            )
            client.send(b"\0\xff\r\n")
            world.run_until(lambda client=client: client.tunnelled == b"\0\xff\r\n")
            client.close()
            world.settle()

    @each_world()
    def test_not_relayed(self, world: World) -> None:
        """h2c, TLS and a WebSocket that is none go on as plain requests."""
        app = hello(world)
        for lines in (
            (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
            (b"Connection: upgrade", b"Upgrade: TLS/1.0"),
            (b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: x"),
            (b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
            (b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"),
        ):
            self.assertEqual(world.request(get(b"/", b"hello.test", *lines)).status, 200)
            request = app.backend.requests[-1]
            self.assertEqual(request.get_all(b"Upgrade") + request.get_all(b"HTTP2-Settings"), [], lines)
        self.assertEqual(len(app.backend.connections), 1)

    @each_world()
    def test_backend_declines(self, world: World) -> None:
        """A backend that answers instead of switching has answered; what follows is the next request."""
        app = hello(world, replies.fixed(b"no", status=403))
        client = world.client().send(websocket() + get())
        world.settle()
        self.assertEqual(client.statuses, [403, 403])
        self.assertEqual(len(app.backend.connections), 1)
        self.assertEqual(sum(pool.tunnels for pool in world.pools), 0)

    @each_world()
    def test_greeting_behind_the_101(self, world: World) -> None:
        """What the backend says in the same segment as the 101 is the first of the tunnel."""
        hello(world, replies.reply_with(lambda exchange: exchange.write(SWITCH + b"hello, client")))
        client = open_tunnel(world)
        world.settle()
        self.assertEqual(client.tunnelled, b"hello, client")
        client.close()

    @each_world(*WAYS, *SMALL)
    def test_said_before_the_101(self, world: World) -> None:
        """What the client says before it is switched is held, and is the first thing the backend reads."""
        early = bytes(range(256)) * 600
        app = hello(world, replies.delayed(2.0, replies.upgrade_echo()))
        client = world.client(closes_at_end=False).send(websocket() + early)
        world.advance(1)
        self.assertEqual(client.received, b"")
        self.assertEqual(app.backend.connections[0].tunnelled, b"")
        client.send(b"later")
        world.run_until(lambda: len(client.tunnelled) == len(early) + 5)
        self.assertEqual(client.tunnelled, early + b"later")
        client.close()

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_not_counted_in_flight(self, world: World) -> None:
        """An open tunnel takes no place from requests, and lets those in the queue go on."""
        app = hello(world, replies.fixed(b"ok"))
        app.backend.script(replies.delayed(1.0, replies.upgrade_echo()))
        tunnel = world.client(closes_at_end=False).send(websocket())
        world.settle()
        waiting = world.client().send(get())
        world.settle()
        self.assertEqual(waiting.statuses, [])
        world.advance(1.5)
        self.assertEqual((tunnel.statuses, waiting.statuses), ([101], [200]))
        self.assertEqual([pool.tunnels for pool in world.pools], [1])
        tunnel.close()
        world.settle()
        self.assertEqual([pool.tunnels for pool in world.pools], [0])

    @each_world()
    def test_kinds_of_connections(self, world: World) -> None:
        """The observer is told that a connection became a tunnel, and of its end as one."""
        hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        opened, closed = world.observer.opened, world.observer.closed
        self.assertEqual((opened["http", "http"], closed["http", "http"]), (1, 1))
        self.assertEqual((opened["http", "websocket"], closed["http", "websocket"]), (1, 0))
        client.close()
        world.settle()
        self.assertEqual(closed["http", "websocket"], 1)

    @each_world()
    def test_behind_other_requests(self, world: World) -> None:
        """A connection may be upgraded after it served requests."""
        app = hello(world, replies.upgrade_echo())
        app.backend.script(replies.fixed(b"1"), replies.fixed(b"2"))
        client = world.client(closes_at_end=False).send(get() + get() + websocket() + b"ping")
        world.run_until(lambda: client.tunnelled == b"ping")
        self.assertEqual(client.statuses, [200, 200, 101])
        client.close()


class HalfCloseTests(WorldTestCase):
    """The end of one direction leaves the other open."""

    @each_world(*WAYS, *SMALL)
    def test_client_ends_first(self, world: World) -> None:
        """After the client's FIN the backend goes on, as long as it likes."""
        farewell = bytes(range(256)) * 500
        app = hello(world, replies.upgrade_echo(farewell=farewell))
        client = open_tunnel(world)
        client.send(b"last words")
        client.half_close()
        world.run_until(lambda: len(client.tunnelled) == 10 + len(farewell))
        world.settle()
        self.assertEqual(client.tunnelled, b"last words" + farewell)
        self.assertTrue(client.saw_end)
        self.assertTrue(app.backend.connections[0].is_over)
        self.assertEqual(world.observer.record.code, "-")

    @each_world(*WAYS, *SMALL)
    def test_backend_ends_first(self, world: World) -> None:
        """After the backend's FIN the client goes on."""

        def end_first(exchange: IncomingExchange) -> None:
            exchange.tunnel(lambda data: None)
            exchange.write(SWITCH + b"that is all")
            exchange.transport.loseWriteConnection()

        app = hello(world, replies.reply_with(end_first))
        client = open_tunnel(world)
        world.run_until(lambda: client.saw_end)
        self.assertEqual(client.tunnelled, b"that is all")
        more = bytes(range(256)) * 500
        client.send(more)
        world.run_until(lambda: len(app.backend.connections[0].tunnelled) == len(more))
        self.assertFalse(app.backend.connections[0].is_over)
        client.close()
        world.settle()
        self.assertEqual(app.backend.connections[0].tunnelled, more)
        self.assertTrue(app.backend.connections[0].is_over)
        self.assertEqual(world.observer.record.code, "-")

    @each_world()
    def test_both_end_at_once(self, world: World) -> None:
        """Two ends that cross leave nothing open."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        app.backend.connections[0].transport.loseWriteConnection()
        client.half_close()
        world.settle()
        self.assertEqual(world.factory.open_connections, 0)
        self.assertEqual(len(world.records), 1)

    @each_world(*WAYS, *SMALL)
    def test_abort(self, world: World) -> None:
        """A reset of either side ends the other."""
        for side in ("client", "backend"):
            app = hello(world, replies.upgrade_echo(greeting=b"x" * 50_000))
            client = open_tunnel(world)
            if side == "client":
                client.abort()
            else:
                app.backend.connections[-1].transport.abortConnection()
            world.advance(1)
            self.assertEqual(world.factory.open_connections, 0, side)
            self.assertTrue(app.backend.connections[-1].is_over, side)
            self.assertEqual(world.factory.env.connections.open_count, 0)
            client.close()
        self.assertEqual(len(world.records), 2)

    @each_world()
    def test_backend_gone_before_it_was_heard(self, world: World) -> None:
        """A backend that switches, speaks and closes in one breath is heard to its end."""

        def all_at_once(exchange: IncomingExchange) -> None:
            exchange.write(SWITCH + b"hello and goodbye")
            exchange.close()

        hello(world, replies.reply_with(all_at_once))
        client = open_tunnel(world)
        world.settle()
        self.assertEqual(client.tunnelled, b"hello and goodbye")
        self.assertTrue(client.saw_end)
        client.close()


class FlowTests(WorldTestCase):
    """Neither side is read faster than the other takes, and nothing is lost."""

    @each_world({"buffer_bytes": 4096}, {"buffer_bytes": 4096, "cut": True, "shuffle": True, "seed": 3})
    def test_both_ways_at_once(self, world: World) -> None:
        """Much data in both directions through small buffers arrives as it was sent."""
        data = random.Random(4).randbytes(400_000)
        hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        client.send(data)
        world.run_until(lambda: client.count >= len(data))
        world.settle()
        self.assertEqual(client.tunnelled, data)
        client.close()

    @each_world({"buffer_bytes": 4096}, {"buffer_bytes": 4096, "cut": True, "shuffle": True, "seed": 3})
    def test_client_does_not_read(self, world: World) -> None:
        """A client that stops reading stops the backend; what it then reads is whole."""
        hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        client.pause()
        data = random.Random(5).randbytes(500_000)
        client.send(data)
        world.advance(5)
        (frontend,) = world.factory._frontends
        self.assertLess(len(frontend.transport.dataBuffer) + frontend.transport._tempDataLen, 200_000)
        client.resume()
        world.run_until(lambda: client.count >= len(data))
        self.assertEqual(client.tunnelled, data)
        client.close()

    @each_world({"buffer_bytes": 4096}, {"buffer_bytes": 4096, "cut": True, "shuffle": True, "seed": 3})
    def test_backend_does_not_read(self, world: World) -> None:
        """A backend that stops reading stops the client."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        app.backend.connections[0].transport.pauseProducing()
        data = random.Random(6).randbytes(500_000)
        client.send(data)
        world.advance(5)
        left = client.transport._tempDataLen + len(client.transport.dataBuffer)
        self.assertGreater(left, 200_000)
        app.backend.connections[0].transport.resumeProducing()
        world.run_until(lambda: client.count >= len(data))
        self.assertEqual(client.tunnelled, data)
        client.close()

    @each_world({"buffer_bytes": 4096}, {"buffer_bytes": 4096, "cut": True, "shuffle": True, "seed": 3})
    def test_end_behind_much_data(self, world: World) -> None:
        """A FIN behind more than the buffers hold comes after all of it."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        app.backend.connections[0].transport.pauseProducing()
        data = random.Random(7).randbytes(300_000)
        client.send(data)
        client.half_close()
        world.advance(3)
        self.assertFalse(app.backend.connections[0].saw_end)
        app.backend.connections[0].transport.resumeProducing()
        world.run_until(lambda: client.saw_end)
        self.assertEqual(client.tunnelled, data)


class SilenceTests(DeadlineTestCase):
    """Silence, and other ends from outside."""

    @each_world(timeouts=Timeouts(idle=60.0))
    def test_idle(self, world: World) -> None:
        """A word every 59 seconds, from either side, keeps a tunnel; silence of 60 ends it."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        for turn in range(6):
            world.advance(59)
            if turn % 2:
                client.send(b"x")
            else:
                app.backend.connections[0].transport.write(b"y")
        world.advance(59)
        self.assertEqual(world.records, [])
        world.advance(2)
        self.ended(world, "idle-timeout", 101, Outcome.ABANDONED)
        self.assertTrue(client.is_over)

    @each_world(timeouts=Timeouts(idle=60.0), buffer_bytes=4096)
    def test_idle_with_a_client_that_does_not_read(self, world: World) -> None:
        """A tunnel that is stuck is silent."""
        hello(world, replies.upgrade_echo(greeting=b"x" * 300_000))
        client = open_tunnel(world)
        client.pause()
        world.advance(61)
        self.assertEqual(world.observer.codes, ["idle-timeout"])
        self.assertEqual(world.factory.open_connections, 0)
        self.assertEqual(world.factory.env.connections.open_count, 0)
        client.resume()
        client.close()

    @each_world(timeouts=Timeouts(idle=60.0), buffer_bytes=4096)
    def test_client_gone_backend_does_not_read(self, world: World) -> None:
        """What a client left behind is offered to the backend for ``idle``, and then dropped."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        app.backend.connections[0].transport.pauseProducing()
        client.send(b"x" * 30_000)
        world.settle()
        client.close()
        world.advance(30)
        self.assertEqual(world.records, [])
        world.advance(31)
        self.assertEqual(world.observer.codes, ["idle-timeout"])
        self.assertEqual(world.factory.open_connections, 0)
        self.assertEqual(world.factory.env.connections.open_count, 0)

    @each_world()
    def test_backend_is_removed(self, world: World) -> None:
        """A tunnel stays when its backend leaves the app; the backend is drained when it ends."""
        app = hello(world, replies.upgrade_echo(), backends=1)
        client = open_tunnel(world)
        fresh = world.backend("fresh")
        world.change("hello", backends=[fresh])
        (pool,) = world.pools
        self.assertEqual([member.is_drained for member in pool.draining], [False])
        client.send(b"still here")
        world.run_until(lambda: client.tunnelled == b"still here")
        self.assertEqual(world.request(get()).body, b"fresh")
        client.close()
        world.settle()
        self.assertEqual(pool.draining, ())
        self.assertTrue(app.backend.connections[0].is_over)
