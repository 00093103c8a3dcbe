"""TLS that ends at the backends: found by the hello, carried as it is."""

from __future__ import annotations

from types import SimpleNamespace

from twisted.internet.task import deferLater

from scalingo_proxy.errors import UnknownHost
from scalingo_proxy.model import Limits, Route, RouteQuery, Timeouts
from scalingo_proxy.routing.members import HealthState
from scalingo_proxy.testing.connecting import Reach
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.proxy_header import ProxyHeaderReader
from tests.protocols.passthrough_worlds import PassthroughTestCase, RawServer, alert_of, hello
from tests.wire import hello_builder

SIZE = 300_000


class TunnelTests(PassthroughTestCase):
    """A tunnel, from the hello to its end."""

    def test_hello_is_replayed(self) -> None:
        """The backend gets the hello and what came behind it, byte for byte, and is heard from then on."""
        for cut in (False, True):
            world = self.world(cut=cut)
            (server,) = self.serve(world)
            client = world.client().send(hello() + b"early data")
            world.settle()
            self.assertEqual(server.connection.received, hello() + b"early data")
            server.connection.transport.write(b"server hello")
            world.settle()
            self.assertEqual(client.received, b"server hello")
            client.send(b"finished")
            world.settle()
            self.assertEqual(server.connection.received, hello() + b"early data" + b"finished")

    def test_route_at_once(self) -> None:
        """No question is made for a name whose route is known without; for others it is."""
        world = self.world()
        (server,) = self.serve(world, greeting=b"answer")
        route = world.resolver.resolve(RouteQuery("hello.test", "tls"))
        asked: list[RouteQuery] = []

        def resolve(query: RouteQuery) -> Route:
            asked.append(query)
            raise UnknownHost()

        self.patch(world.factory.env, "resolver", SimpleNamespace(resolve=resolve))
        self.patch(world.factory.env, "route_at_once", {"hello.test": route}.get)
        clients = [world.client().send(hello(name)) for name in (b"hello.test", b"other.test")]
        world.settle()
        self.assertEqual(clients[0].received, b"answer")
        self.assertEqual(server.connection.received, hello())
        self.assertEqual(alert_of(clients[1]), "unrecognized_name")
        self.assertEqual([each.host for each in asked], ["other.test"])

    def test_bytewise(self) -> None:
        """A hello that comes byte by byte is replayed as one."""
        world = self.world()
        (server,) = self.serve(world)
        world.client().send_slowly(hello())
        world.run_until(lambda: server.connections and server.connection.received == hello())

    def test_bulk_both_ways(self) -> None:
        """More than any buffer holds goes both ways at once."""
        for cut in (False, True):
            world = self.world(cut=cut, shuffle=cut)
            (server,) = self.serve(world)
            sent = bytes(range(256)) * (SIZE // 256)
            client = world.client().send(hello() + sent)
            world.run_until(lambda server=server: server.connections and server.connection.transport)  # type: ignore[misc]
            server.connection.transport.write(sent)
            world.settle()
            self.assertEqual(server.connection.received, hello() + sent)
            self.assertEqual(client.received, sent)

    def test_slow_reader(self) -> None:
        """Whoever does not read holds the other side, and nothing grows in between."""
        world = self.world()
        (server,) = self.serve(world, greeting=bytes(4 * SIZE))
        client = world.client().send(hello())
        client.pause()
        world.settle()
        self.assertGreater(len(server.connection.transport.dataBuffer), 2 * SIZE)
        client.resume()
        world.settle()
        self.assertEqual(client.count, 4 * SIZE)

    def test_half_close(self) -> None:
        """Either side may end its direction first; the other one goes on."""
        for first_is_client in (True, False):
            world = self.world()
            (server,) = self.serve(world, greeting=b"hi")
            client = world.client(closes_at_end=False).send(hello())
            world.settle()
            server.connection.closes_at_end = False
            if first_is_client:
                client.half_close()
                world.settle()
                self.assertIn("readConnectionLost", server.connection.events)
                server.connection.transport.write(b" and bye")
                server.connection.transport.loseConnection()
            else:
                server.connection.transport.loseWriteConnection()
                world.settle()
                self.assertTrue(client.saw_end)
                client.send(b"one more").half_close()
                world.settle()
                self.assertTrue(server.connection.received.endswith(b"one more"))
            world.settle()
            client.close()
            server.connection.transport.loseConnection()
            world.settle()
            self.assertEqual(world.observer.record.code, "-")
            self.assertEqual(client.received, b"hi and bye" if first_is_client else b"hi")

    def answer_later(self, world: World, seconds: float) -> None:
        """Have the resolver take so long."""
        env, resolve = world.factory.env, world.resolver.resolve
        late = SimpleNamespace(resolve=lambda query: deferLater(env.reactor, seconds, resolve, query))
        self.patch(env, "resolver", late)

    def test_end_right_behind_the_hello(self) -> None:
        """While the app is looked up, or its backend connected: both go there, the answer comes back."""
        for late in (0.0, 2.0):
            for latency in (0.0, 0.2):
                world = self.world(latency=latency)
                (server,) = self.serve(world, greeting=b"answer")
                if late:
                    self.answer_later(world, late)
                client = world.client(closes_at_end=False).send(hello())
                client.half_close()
                world.advance(5)
                self.assertEqual(server.connection.received, hello())
                self.assertIn("readConnectionLost", server.connection.events)
                self.assertEqual(client.received, b"answer")
                self.assertTrue(client.saw_end)
                record = world.observer.record
                self.assertEqual((record.code, record.bytes_in, record.bytes_out), ("-", len(hello()), 6))
                self.assertEqual(world.factory.env.client_connections, 0)

    def test_end_right_behind_the_hello_in_vain(self) -> None:
        """A client that ended and still listens is told why there is no backend, and is closed."""
        world = self.world()
        (server,) = self.serve(world)
        server.stop()
        client = world.client(closes_at_end=False).send(hello())
        client.half_close()
        world.advance(1)
        self.assertEqual((alert_of(client), world.observer.codes), ("internal_error", ["connect-failed"]))
        self.assertTrue(client.saw_end)

    def test_reset_of_either_side(self) -> None:
        """A reset of one side ends the other, and the place is free again."""
        for by_client in (True, False):
            world = self.world()
            (server,) = self.serve(world, greeting=b"hi")
            client = world.client().send(hello())
            world.settle()
            (client if by_client else server.connection).transport.abortConnection()
            world.settle()
            self.assertTrue(client.is_over)
            self.assertIsNot(server.connection.reason, None)
            world.assert_idle()
            self.assertEqual(world.observer.codes, ["-"])

    def test_record(self) -> None:
        """One record tells of the tunnel when it is over."""
        world = self.world(latency=0.01)
        (server,) = self.serve(world, greeting=b"hi")
        client = world.client().send(hello())
        world.run_until(lambda: client.count)
        client.send(b"12345")
        world.settle()
        self.assertEqual(world.records, [])
        client.close()
        world.settle()
        record = world.observer.record
        self.assertEqual((record.protocol, record.tls, record.host), ("tls", "passthrough", "hello.test"))
        self.assertEqual((record.method, record.path, record.status, record.code), ("-", "-", 0, "-"))
        self.assertEqual((record.app, record.backend), ("hello", server.address))
        self.assertEqual((record.bytes_in, record.bytes_out), (len(hello()) + 5, 2))
        assert record.first_byte_at is not None and record.finished_at is not None
        self.assertTrue(record.started_at < record.first_byte_at < record.finished_at)
        self.assertGreater(record.connect_seconds, 0)
        self.assertEqual(len(record.request_id), 36)

    def test_counts_as_tunnel(self) -> None:
        """A tunnel takes no place among the requests of a backend."""
        world = self.world(limits=Limits(in_flight_per_backend=1))
        (server,) = self.serve(world)
        for _ in range(5):
            world.client().send(hello())
        world.settle()
        (pool,) = world.pools
        self.assertEqual((pool.in_flight, pool.tunnels, len(server.connections)), (0, 5, 5))

    def test_balancing(self) -> None:
        """Tunnels go round the backends as requests do."""
        world = self.world()
        servers = self.serve(world, 3)
        for _ in range(6):
            world.client().send(hello())
        world.settle()
        self.assertEqual([len(server.connections) for server in servers], [2, 2, 2])

    def test_tunnels_outlive_a_deploy(self) -> None:
        """The backends of a tunnel may leave the app; they drain until it is over."""
        world = self.world()
        (old,) = self.serve(world, greeting=b"hi")
        client = world.client().send(hello())
        world.settle()
        world.change("hello", backends=[])
        world.settle()
        (pool,) = world.pools
        self.assertEqual(len(pool.draining), 1)
        client.send(b"still here")
        world.settle()
        self.assertTrue(old.connection.received.endswith(b"still here"))
        client.close()
        world.settle()
        self.assertEqual(len(pool.draining), 0)


class SearchTests(PassthroughTestCase):
    """On the way to a backend."""

    def test_next_backend(self) -> None:
        """A backend that refuses is passed over; the client notices nothing."""
        world = self.world()
        servers = self.serve(world, 3, greeting=b"hi")
        servers[0].stop()
        servers[1].stop()
        clients = [world.client().send(hello()) for _ in range(3)]
        world.settle()
        self.assertEqual([client.received for client in clients], [b"hi"] * 3)
        self.assertEqual(len(servers[2].connections), 3)

    def test_no_backend_answers(self) -> None:
        """At most three are tried; then the client is told, and the backends are to blame."""
        world = self.world()
        servers = self.serve(world, 4)
        for server in servers:
            server.stop()
        client = world.client().send(hello())
        world.settle()
        self.assertEqual(alert_of(client), "internal_error")
        self.assertTrue(client.is_over)
        record = world.observer.record
        self.assertEqual((record.code, record.status, record.attempts), ("connect-failed", 502, 3))

    def test_connect_timeout(self) -> None:
        """Silence at one backend costs its timeout and no more."""
        world = self.world(timeouts=Timeouts(connect=2.0))
        servers = self.serve(world, 2, greeting=b"hi")
        for server in servers:
            world.network.set_way(server.address, Reach.SILENT)
        client = world.client().send(hello())
        world.advance(4.5)
        world.settle()
        self.assertEqual(alert_of(client), "internal_error")
        self.assertEqual(world.observer.codes, ["connect-failed"])

    def test_states_of_the_app(self) -> None:
        """An app that serves nobody says so in the log; clients get an alert."""
        expected = {"stopped": "app-stopped", "maintenance": "maintenance"}
        for state, code in expected.items():
            world = self.world()
            self.serve(world, state=state)
            client = world.client().send(hello())
            world.settle()
            self.assertEqual((alert_of(client), world.observer.codes), ("internal_error", [code]))
            self.assertEqual(world.observer.record.status, 503)

    def test_no_backend(self) -> None:
        """Neither does one without backends."""
        world = self.world()
        world.app("hello", ["hello.test"], backends=0, tls="passthrough")
        client = world.client().send(hello())
        world.settle()
        self.assertEqual((alert_of(client), world.observer.codes), ("internal_error", ["no-backend"]))

    def test_pause_holds_clients(self) -> None:
        """Clients of a paused app wait, and go on where they were."""
        world = self.world()
        (server,) = self.serve(world, state="paused", greeting=b"hi")
        client = world.client().send(hello()).send(b"more")
        world.settle()
        self.assertEqual((server.connections, client.received), ([], b""))
        world.advance(3)
        world.change("hello", state="running")
        world.settle()
        self.assertEqual((server.connection.received, client.received), (hello() + b"more", b"hi"))
        client.close()
        world.settle()
        self.assertGreater(world.observer.record.queue_seconds, 2.9)

    def test_pause_timeout(self) -> None:
        """They do not wait for ever."""
        world = self.world(timeouts=Timeouts(queue=5.0))
        self.serve(world, state="paused")
        client = world.client().send(hello())
        world.advance(5.5)
        self.assertEqual((alert_of(client), world.observer.codes), ("internal_error", ["pause-timeout"]))

    def test_queue_full(self) -> None:
        """While connections are being made, no more may wait than the queue holds."""
        world = self.world(limits=Limits(in_flight_per_backend=1, queue_per_backend=1))
        (server,) = self.serve(world)
        world.network.set_way(server.address, Reach.SILENT)
        clients = [world.client().send(hello()) for _ in range(3)]
        world.settle()
        self.assertEqual([alert_of(client) for client in clients][2], "internal_error")
        self.assertEqual(world.observer.codes, ["queue-full"])
        for client in clients:
            client.abort()

    def test_client_leaves_while_it_waits(self) -> None:
        """Whoever leaves the queue reaches no backend; who only ended has as long as connecting may take."""
        for way, seconds in (("abort", 0.1), ("close", 5.2), ("half_close", 5.2)):
            for ends_first in (False, True):
                world = self.world(timeouts=Timeouts(connect=5.0, queue=30.0))
                (server,) = self.serve(world, state="paused")
                client = world.client().send(hello())
                if not ends_first:
                    world.settle()
                getattr(client, way)()
                world.advance(seconds)
                self.assertTrue(client.is_over)
                self.assertEqual(client.received, b"")
                # What a reset overtook was never there.
                is_seen = (way, ends_first) != ("abort", True)
                self.assertEqual(world.observer.codes, ["client-closed"] * is_seen)
                world.change("hello", state="running")
                world.settle()
                self.assertEqual(server.connections, [])
                self.assertEqual(world.factory.env.client_connections, 0)

    def test_ends_in_the_queue(self) -> None:
        """A client that ended while it waited is served when its turn comes soon."""
        world = self.world()
        (server,) = self.serve(world, greeting=b"hi", state="paused")
        client = world.client(closes_at_end=False).send(hello())
        client.half_close()
        world.advance(1)
        world.change("hello", state="running")
        world.settle()
        self.assertEqual((server.connection.received, client.received), (hello(), b"hi"))
        self.assertEqual(world.observer.codes, ["-"])

    def test_much_that_comes_early(self) -> None:
        """A client that sends on while its backend is looked for is held, not swallowed."""
        world = self.world()
        (server,) = self.serve(world, state="paused")
        client = world.client().send(hello() + bytes(4 * SIZE))
        world.settle()
        world.change("hello", state="running")
        world.settle()
        self.assertEqual(server.connection.count, len(hello()) + 4 * SIZE)
        client.close()

    def test_member_that_left_meanwhile(self) -> None:
        """A backend that left the app while it was connected to gets nothing."""
        world = self.world(latency=0.1)
        (old,) = self.serve(world)
        new = RawServer(world.network)
        self.addCleanup(new.end)
        client = world.client().send(hello())
        world.run_until(lambda: any(pool.in_flight for pool in world.pools))
        world.change("hello", backends=[new])
        world.settle()
        self.assertEqual([connection.received for connection in old.connections if connection.received], [])
        self.assertEqual(new.connection.received, hello())
        client.close()


class SilentBackendTests(PassthroughTestCase):
    """Backends that accept and then do not serve."""

    def test_close_without_a_byte(self) -> None:
        """A backend that closes on a hello has failed; it did not prove that it lives."""
        world = self.world()
        (server,) = self.serve(world)
        client = world.client().send(hello())
        world.settle()
        server.connection.transport.loseConnection()
        world.settle()
        self.assertTrue(client.is_over)
        record = world.observer.record
        self.assertEqual((record.code, record.status), ("backend-closed", 0))
        (pool,) = world.pools
        self.assertIs(pool.members[0].health, HealthState.QUARANTINED)

    def test_client_that_closes_first(self) -> None:
        """It is nobody's failure when the client leaves before the backend has said anything."""
        world = self.world()
        self.serve(world)
        client = world.client().send(hello())
        world.settle()
        client.close()
        world.settle()
        self.assertEqual(world.observer.codes, ["-"])
        (pool,) = world.pools
        self.assertIs(pool.members[0].health, HealthState.UNPROVEN)

    def test_first_byte(self) -> None:
        """A backend that says nothing has first_byte seconds; then the client is told."""
        world = self.world(timeouts=Timeouts(first_byte=3.0))
        self.serve(world)
        client = world.client().send(hello())
        world.settle()
        client.send_slowly(b"x" * 100, every_seconds=0.1)
        world.advance(3.5)
        world.settle()
        self.assertEqual((alert_of(client), world.observer.codes), ("internal_error", ["first-byte-timeout"]))
        world.assert_idle()


class IdleTests(PassthroughTestCase):
    """How long silence may last."""

    def test_silence(self) -> None:
        """Silence in both directions ends a tunnel."""
        world = self.world(timeouts=Timeouts(idle=5.0))
        (server,) = self.serve(world, greeting=b"hi")
        client = world.client().send(hello())
        world.advance(4.9)
        self.assertFalse(client.is_over)
        world.advance(0.5)
        world.settle()
        self.assertTrue(client.is_over and server.connection.reason)
        self.assertEqual(world.observer.codes, ["idle-timeout"])

    def test_either_direction_keeps_it_alive(self) -> None:
        """Bytes in one direction are enough."""
        world = self.world(timeouts=Timeouts(idle=5.0))
        (server,) = self.serve(world, greeting=b"hi")
        client = world.client().send(hello())
        for turn in range(6):
            world.advance(4)
            if turn % 2:
                client.send(b"x")
            else:
                server.connection.transport.write(b"y")
        world.settle()
        self.assertFalse(client.is_over)
        client.close()


class StopTests(PassthroughTestCase):
    """When the proxy stops."""

    def test_drain(self) -> None:
        """Tunnels go on for the first half of the drain, and are closed within the other."""
        world = self.world()
        (server,) = self.serve(world, greeting=b"hi")
        client = world.client().send(hello())
        world.settle()
        drained = world.factory.drain(10.0)
        world.advance(4.9)
        client.send(b"still here")
        world.settle()
        self.assertTrue(server.connection.received.endswith(b"still here"))
        world.advance(2)
        world.run_until(drained)
        self.assertTrue(client.is_over)
        self.assertEqual(world.observer.codes, ["drain-timeout"])

    def test_stop_while_waiting(self) -> None:
        """Whoever still waits is told."""
        world = self.world()
        self.serve(world, state="paused")
        client = world.client().send(hello())
        world.settle()
        world.factory.drain(1.0)
        world.advance(1.5)
        world.settle()
        self.assertEqual((alert_of(client), world.observer.codes), ("internal_error", ["drain-timeout"]))


class DoorTests(PassthroughTestCase):
    """Which app a hello reaches."""

    def test_unknown_name(self) -> None:
        """A name that no app claims."""
        world = self.world()
        (server,) = self.serve(world)
        client = world.client().send(hello(b"other.test"))
        world.settle()
        self.assertEqual((alert_of(client), server.connections), ("unrecognized_name", []))
        self.assertEqual(world.observer.codes, ["unknown-host"])

    def test_app_that_terminates(self) -> None:
        """An app whose TLS would end here has none at this door."""
        world = self.world()
        (server,) = self.serve(world)
        world.change("hello", tls="terminate")
        client = world.client().send(hello())
        world.settle()
        self.assertEqual((alert_of(client), server.connections), ("unrecognized_name", []))

    def test_default_app(self) -> None:
        """Whoever gives no name gets the default app, if there is one."""
        nameless = hello_builder.record(hello_builder.message())
        for default in ("", "hello"):
            world = self.world(default_app=default)
            (server,) = self.serve(world)
            client = world.client().send(nameless)
            world.settle()
            if default:
                self.assertEqual(server.connection.received, nameless)
                client.close()
                world.settle()
                self.assertEqual(world.observer.record.host, "-")
            else:
                self.assertEqual(alert_of(client), "unrecognized_name")


class SentHeaderTests(PassthroughTestCase):
    """The PROXY header that an app may ask for."""

    def test_version_1(self) -> None:
        """One line before the hello tells who the client is; it counts as nobody's byte."""
        world = self.world()
        (server,) = self.serve(world, send_proxy="v1", greeting=b"hi")
        client = world.client("127.0.0.9").send(hello())
        world.settle()
        line, _, rest = server.connection.received.partition(b"\r\n")
        peer = client.transport.getHost()
        here = client.transport.getPeer()
        expected = f"PROXY TCP4 127.0.0.9 {here.host} {peer.port} {here.port}"
        self.assertEqual((line.decode(), rest), (expected, hello()))
        client.close()
        world.settle()
        self.assertEqual(world.observer.record.bytes_in, len(hello()))

    def test_version_2(self) -> None:
        """Version 2 tells the name and the client's favourite protocol, too."""
        world = self.world()
        (server,) = self.serve(world, send_proxy="v2")
        sent = hello(b"hello.test", b"h2", b"http/1.1")
        client = world.client("127.0.0.9").send(sent)
        world.settle()
        reader = ProxyHeaderReader()
        header = reader.receive(server.connection.received)
        assert header is not None
        self.assertEqual((header.source, header.source_port), ("127.0.0.9", client.transport.getHost().port))
        self.assertEqual((header.authority, header.alpn), ("hello.test", b"h2"))
        self.assertEqual(reader.excess, sent)

    def test_each_attempt_has_its_own(self) -> None:
        """A further backend gets the header as the first one would have."""
        world = self.world()
        servers = self.serve(world, 2, send_proxy="v1")
        servers[0].stop()
        for _ in range(2):
            world.client().send(hello())
        world.settle()
        for connection in servers[1].connections:
            self.assertEqual(connection.received.count(b"PROXY TCP4"), 1)
            self.assertTrue(connection.received.endswith(hello()))
