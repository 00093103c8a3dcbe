"""What an embedder gets: factories that share, admit, and stop without loss."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import App, Limits, Record, Timeouts
from scalingo_proxy.protocols.factories import HTTPProxyFactory, make_environment
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient, connect_client
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.observers import RecordingObserver
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.http1_head import RequestHead
from tests.protocols.test_upgrades import open_tunnel
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, hello, post


def stop(world: World, seconds: float) -> list[Any]:
    """Stop accepting and begin to drain; the list has one entry when that is done."""
    done: list[Any] = []
    world.run_until(world._port.stopListening())
    world.factory.drain(seconds).addCallback(done.append)
    return done


class DrainTests(WorldTestCase):
    """Stopping: what is idle goes at once, what is under way may finish, the rest is cut."""

    @each_world()
    def test_nothing_to_do(self, world: World) -> None:
        """Without clients a drain is over at once, again and again."""
        self.assertEqual(len(stop(world, 30)), 1)
        self.assertTrue(world.factory.drain(30).called)

    @each_world()
    def test_idle_clients(self, world: World) -> None:
        """Clients that wait between requests, or said nothing yet, are closed at once."""
        hello(world)
        served, silent = world.client().send(get()), world.client()
        world.advance(1.1)
        done = stop(world, 30)
        world.settle()
        self.assertEqual(len(done), 1)
        self.assertTrue(served.is_over)
        self.assertTrue(silent.is_over)
        self.assertEqual(world.factory.env.connections.open_count, 0)

    @each_world()
    def test_busy_clients(self, world: World) -> None:
        """Who was active a moment ago may send one more request, whose answer says that it is the last."""
        hello(world)
        served, silent, new = world.client().send(get()), world.client(), world.client()
        world.settle()
        done = stop(world, 30)
        world.advance(0.5)
        self.assertFalse(served.is_over or silent.is_over)
        served.send(get())
        new.send(get())
        world.settle()
        self.assertEqual([client.statuses for client in (served, new)], [[200, 200], [200]])
        self.assertEqual(served.responses[1].get(b"Connection"), b"close")
        self.assertTrue(served.is_over and new.is_over)
        self.assertEqual(done, [])
        world.advance(0.7)
        self.assertTrue(silent.is_over)
        self.assertEqual(len(done), 1)

    @each_world()
    def test_answer_that_did_not_say_so(self, world: World) -> None:
        """After an answer that began before the stop, the connection is kept for a moment, too."""
        hello(world, replies.drip([b"data\n\n"] * 4, 1.0))
        client = world.client().send(get())
        world.advance(0.5)
        stop(world, 30)
        world.advance(3)
        self.assertEqual(client.statuses, [200])
        self.assertFalse(client.is_over)
        client.send(get())
        world.advance(5)
        self.assertEqual(client.responses[1].get(b"Connection"), b"close")
        self.assertTrue(client.is_over)

    @each_world()
    def test_requests_under_way(self, world: World) -> None:
        """Requests finish, are told that the connection closes, and the drain ends with the last."""
        hello(world, replies.delayed(5.0, replies.echo()))
        clients = [world.client().send(post(b"x" * size)) for size in (1, 1000)]
        uploading = world.client().send(post(b"x" * 10)[:-5])
        world.advance(1)
        done = stop(world, 30)
        world.advance(2)
        self.assertEqual(done, [])
        uploading.send(b"x" * 5)
        world.advance(10)
        self.assertEqual(len(done), 1)
        for client in (*clients, uploading):
            self.assertEqual(client.statuses, [200])
            self.assertEqual(client.response.get(b"Connection"), b"close")
        self.assertEqual(set(world.observer.codes), {"-"})

    @each_world()
    def test_response_under_way(self, world: World) -> None:
        """A response that has begun goes to its end, and then the connection is closed."""
        hello(world, replies.drip([b"data\n\n"] * 5, 1.0))
        client = world.client().send(get())
        world.advance(2)
        done = stop(world, 30)
        world.advance(5)
        self.assertEqual(client.response.body, b"data\n\n" * 5)
        self.assertTrue(client.is_over)
        self.assertEqual(len(done), 1)

    @each_world()
    def test_head_under_way(self, world: World) -> None:
        """A request whose head has begun to come is served, too."""
        hello(world)
        client = world.client().send(get()[:-5])
        world.settle()
        done = stop(world, 30)
        world.advance(1)
        client.send(get()[-5:])
        world.settle()
        self.assertEqual(client.statuses, [200])
        self.assertEqual(client.response.get(b"Connection"), b"close")
        self.assertEqual(len(done), 1)

    @each_world()
    def test_pipelined(self, world: World) -> None:
        """The answer under way is the last one: what was pipelined behind is for somebody else."""
        app = hello(world, replies.delayed(1.0, replies.fixed(b"x")))
        client = world.client().send(get() * 5)
        world.advance(0.5)
        done = stop(world, 30)
        world.advance(10)
        self.assertEqual(client.statuses, [200])
        self.assertEqual(client.response.get(b"Connection"), b"close")
        self.assertTrue(client.is_over)
        self.assertEqual(app.requests, 1)
        self.assertEqual(len(done), 1)

    @each_world(timeouts=Timeouts(first_byte=100.0, request_body=100.0, queue=100.0))
    def test_deadline(self, world: World) -> None:
        """What is left at the deadline is cut: 503 where no response began, a break where one did.

        Tunnels have been closed by then.
        """
        app = hello(world, replies.never(), limits={"in_flight_per_backend": 3})
        app.backend.script(replies.drip([b"data\n\n"] * 100, 1.0), replies.upgrade_echo(b"chat"))
        begun = world.client().send(get())
        world.settle()
        tunnel = open_tunnel(world, get(b"/", b"hello.test", b"Connection: upgrade", b"Upgrade: chat"))
        waiting = world.client().send(get())
        uploading = world.client().send(post(b"x" * 10)[:-5])
        world.settle()
        queued = world.client().send(get())
        world.settle()
        self.assertEqual(sum(pool.queued for pool in world.pools), 1)
        done = stop(world, 30)
        world.advance(24.9)
        self.assertFalse(tunnel.saw_end)
        world.advance(5)
        self.assertTrue(tunnel.saw_end)
        self.assertEqual((done, waiting.statuses), ([], []))
        world.advance(2.5)
        self.assertEqual(len(done), 1)
        for client in (waiting, uploading, queued):
            self.assertEqual((client.statuses, code_of(client)), ([503], "drain-timeout"))
            self.assertEqual(client.response.get(b"Connection"), b"close")
        self.assertEqual(begun.responses, [])
        self.assertTrue(begun.is_over)
        self.assertEqual(sorted(record.status for record in world.records), [101, 200, 503, 503, 503])
        self.assertEqual(set(world.observer.codes), {"drain-timeout"})
        world.assert_idle()

    @each_world(buffer_bytes=4096)
    def test_stuck_clients(self, world: World) -> None:
        """Clients that do not read, do not close or still upload hold up the end for a moment at most."""
        hello(world, replies.bulk(500_000))
        world.app("other", ["other.test"], backends=0)
        reader = world.client()
        reader.pause()
        reader.send(get())
        refused = world.client(closes_at_end=False)
        refused.pause()
        refused.send(post(b"x" * 300_000, host=b"other.test"))
        stays = world.client(closes_at_end=False).send(get(b"/", b"hello.test", b"Connection: close"))
        world.advance(1)
        done = stop(world, 5)
        world.advance(7.3)
        self.assertEqual(len(done), 1)
        self.assertEqual(world.factory.open_connections, 0)
        stays.close()

    @each_world(buffer_bytes=4096)
    def test_answer_written_and_not_taken(self, world: World) -> None:
        """A client that has its whole answer still in our buffers at the deadline is cut."""
        hello(world, replies.fixed(b"x" * 60_000))
        client = world.client()
        client.pause()
        client.send(get(b"/", b"hello.test", b"Connection: close"))
        world.advance(1)
        self.assertEqual(world.observer.codes, ["-"])
        done = stop(world, 5)
        world.advance(4)
        self.assertEqual(done, [])
        world.advance(1.5)
        self.assertEqual(len(done), 1)

    @each_world()
    def test_sooner(self, world: World) -> None:
        """A second call may bring the end forward, never put it off; both hear of it."""
        hello(world, replies.never())
        client = world.client().send(get())
        world.settle()
        first = stop(world, 30)
        second: list[Any] = []
        third: list[Any] = []
        world.factory.drain(60).addCallback(second.append)
        world.advance(10)
        world.factory.drain(1).addCallback(third.append)
        world.advance(1.5)
        self.assertEqual(code_of(client), "drain-timeout")
        self.assertEqual((len(first), len(second), len(third)), (1, 1, 1))

    @each_world()
    def test_last_record_comes_first(self, world: World) -> None:
        """When the drain is over, every exchange has been told of."""
        hello(world, replies.never())
        clients = [world.client().send(get()) for _ in range(3)]
        world.settle()
        world.run_until(world._port.stopListening())
        counts: list[int] = []
        world.factory.drain(30).addCallback(lambda _: counts.append(len(world.records)))
        for client in clients:
            client.abort()
        world.settle()
        self.assertEqual(counts, [3])

    @each_world(buffer_bytes=4096)
    def test_half_of_a_tunnel(self, world: World) -> None:
        """The backend's end of a tunnel whose client has gone counts until the deadline, and is cut then."""
        app = hello(world, replies.upgrade_echo())
        client = open_tunnel(world)
        app.backend.connections[0].transport.pauseProducing()
        client.send(b"x" * 30_000)
        world.settle()
        client.close()
        world.settle()
        done = stop(world, 10)
        world.advance(9)
        self.assertEqual(done, [])
        world.advance(2)
        self.assertEqual(len(done), 1)
        self.assertEqual(world.observer.codes, ["drain-timeout"])
        self.assertEqual(world.factory.env.connections.open_count, 0)

    @each_world()
    def test_serves_again(self, world: World) -> None:
        """A factory that was drained and listens again serves as before."""
        hello(world)
        world.request(get())
        stop(world, 1)
        world.settle()
        port = world.network.listenTCP(8081, world.factory, interface="127.0.0.1")
        client = connect_client(world.network, ("127.0.0.1", 8081)).send(get() + get())
        world.settle()
        self.assertEqual(client.statuses, [200, 200])
        self.assertFalse(client.is_over)
        client.close()
        world.run_until(port.stopListening())
        world.settle()


class SharingTests(SynchronousTestCase):
    """Two doors, one proxy behind them."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.observer = RecordingObserver()
        self.resolver = MemoryResolver()
        self.env = make_environment(
            self.resolver,
            self.network,
            observer=self.observer,
            limits=Limits(client_connections=3, in_flight_per_backend=1),
        )
        self.factories = [HTTPProxyFactory(env=self.env, listener=name) for name in ("a", "b")]
        self.ports = [
            self.network.listenTCP(80 + n, f, interface="127.0.0.1") for n, f in enumerate(self.factories)
        ]

    def client(self, door: int) -> ScriptedClient:
        """A client at one of the doors."""
        client = connect_client(self.network, ("127.0.0.1", 80 + door))
        self.network.settle()
        return client

    def test_shared(self) -> None:
        """Pools, backend connections and the bound on clients are shared; the door is in the record."""
        backend = ScriptedBackend("shared").listen(self.network)
        self.resolver.set_app(App("hello", ["hello.test"], [backend.address]))
        for door in (0, 1, 0, 1):
            client = self.client(door).send(get())
            self.network.settle()
            self.assertEqual(client.statuses, [200])
            client.close()
            self.network.settle()
        self.assertEqual(len(backend.connections), 1)
        self.assertEqual([record.listener for record in self.observer.records], ["a", "b", "a", "b"])
        clients = [self.client(door) for door in (0, 1, 0, 1)]
        self.assertEqual([client.is_over for client in clients], [False, False, False, True])
        self.assertEqual(self.observer.opened["b", "refused"], 1)
        self.assertEqual(self.observer.closed["b", "refused"], 1)
        for client in clients[:3]:
            client.close()
        self.end(backend)

    def test_one_door_closes(self) -> None:
        """The other goes on, with the connections both used; with the last one everything is gone."""
        backend = ScriptedBackend("shared").listen(self.network)
        self.resolver.set_app(App("hello", ["hello.test"], [backend.address]))
        self.client(0).send(get())
        self.network.settle()
        self.network.run_until(self.ports[0].stopListening())
        self.network.run_until(self.factories[0].drain(5))
        self.assertEqual(len(backend.open_connections), 1)
        client = self.client(1).send(get())
        self.network.settle()
        self.assertEqual(client.statuses, [200])
        self.assertEqual(len(backend.connections), 1)
        client.close()
        self.end(backend)

    def end(self, backend: Any) -> None:
        """Stop both doors; nothing may be left."""
        self.network.settle()
        for port, factory in zip(self.ports, self.factories, strict=True):
            self.network.run_until(maybeDeferred(port.stopListening))
            self.network.run_until(factory.drain(0))
        self.network.settle()
        self.assertEqual(backend.open_connections, [])
        self.assertEqual(self.network.getDelayedCalls(), [])


class IdentityTests(WorldTestCase):
    """Who the client is, as backends and records are told."""

    @each_world({"public_port": 443}, {"public_port": 0})
    def test_public_port(self, world: World) -> None:
        """X-Forwarded-Port is the port told, else the one connected to."""
        app = hello(world)
        world.request(get())
        expected = b"443" if world.factory._public_port else b"8080"
        self.assertEqual(app.backend.requests[0].get(b"X-Forwarded-Port"), expected)

    def test_unix_socket(self) -> None:
        """A peer without an address is no address in the headers, and ``unix:`` in the record."""
        factory = HTTPProxyFactory(MemoryResolver(), Clock())

        class Transport:
            def getPeer(self) -> UNIXAddress:
                return UNIXAddress(None)

            getHost = getPeer

        identity = factory.identify(Transport())
        self.assertEqual((identity.peer, identity.port, identity.scheme), ("unix:", 0, "http"))
        head = RequestHead(b"GET", b"/", 1)
        self.assertEqual(identity.lines(head), b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 0\r\n")

    def test_known_client(self) -> None:
        """All connections of one client have one identity, but for another port or TLS that ends here."""

        class Transport:
            def __init__(self, host: str, port: int, local_port: int) -> None:
                self.getPeer = lambda: IPv4Address("TCP", host, port)
                self.getHost = lambda: IPv4Address("TCP", "127.0.0.1", local_port)

        factory = HTTPProxyFactory(MemoryResolver(), Clock())
        first = factory.identify(Transport("192.0.2.1", 1000, 80))
        self.assertIs(factory.identify(Transport("192.0.2.1", 2000, 80)), first)
        others = [
            factory.identify(Transport("192.0.2.2", 1000, 80)),
            factory.identify(Transport("192.0.2.1", 1000, 81)),
            factory.identify(Transport("192.0.2.1", 1000, 80), is_tls=True),
        ]
        self.assertEqual(
            [(each.peer, each.port, each.scheme) for each in (first, *others)],
            [
                ("192.0.2.1", 80, "http"),
                ("192.0.2.2", 80, "http"),
                ("192.0.2.1", 81, "http"),
                ("192.0.2.1", 80, "https"),
            ],
        )
        covers = {"hello.test"}.__contains__
        secured = [others[2].over_tls(version, covers) for version in ("TLSv1.2", "TLSv1.3")]
        self.assertEqual([each.tls for each in secured], ["TLSv1.2", "TLSv1.3"])
        self.assertEqual((others[2].tls, others[2].covers), ("-", None))

    def test_mapped_address(self) -> None:
        """An IPv4 client of an IPv6 listener is an IPv4 client."""
        world = self.world()
        app = hello(world)
        port = world.network.listenTCP(8081, world.factory, interface="::")
        client = connect_client(world.network, ("127.0.0.1", 8081), source=("192.0.2.9", 0)).send(get())
        world.run_until(lambda: client.responses)
        self.assertEqual(app.backend.requests[0].get(b"X-Real-IP"), b"192.0.2.9")
        self.assertEqual(world.records[0].client, "192.0.2.9")
        client.close()
        world.settle()
        world.run_until(port.stopListening())

    def test_trusted_networks(self) -> None:
        """Only peers inside the CIDRs are believed, IPv6 included."""
        world = self.world(trusted_proxies=["192.0.2.0/24", "2001:db8::/32"])
        app = hello(world)
        told = b"X-Forwarded-For: 198.51.100.7"
        for source, believed in (("192.0.2.1", True), ("192.0.3.1", False)):
            world.request(get(b"/", b"hello.test", told), source=source)
            real = app.backend.requests[-1].get(b"X-Real-IP")
            self.assertEqual(real, b"198.51.100.7" if believed else source.encode())

    def test_bad_network(self) -> None:
        """A CIDR that is none is refused when the factory is made."""
        with self.assertRaises(ValueError):
            HTTPProxyFactory(MemoryResolver(), Clock(), trusted_proxies=["nonsense"])

    def test_agents(self) -> None:
        """Referer and User-Agent are noted only when asked for."""
        for note in (True, False):
            world = self.world(note_agents=note)
            hello(world)
            world.request(get(b"/", b"hello.test", b"USER-agent: curl", b"referer: http://a/"))
            record = world.records[0]
            self.assertEqual((record.user_agent, record.referer), ("curl", "http://a/") if note else ("", ""))


class LimitTests(WorldTestCase):
    """An app's own limits, and a reload's."""

    @each_world(limits=Limits(body_bytes=1000))
    def test_body_bytes_of_the_app(self, world: World) -> None:
        """An app may admit larger or smaller bodies; too large a one is refused at its head."""
        app = hello(world, replies.echo(), limits={"body_bytes": 5000})
        world.app("small", ["small.test"], backends=app.backends, limits={"body_bytes": 10})
        self.assertEqual(len(world.request(post(b"x" * 5000)).body), 5000)
        for request in (post(b"x" * 5001), post(b"x" * 11, host=b"small.test")):
            count = app.requests
            client = world.client().send(request)
            world.settle()
            self.assertEqual((client.statuses, code_of(client)), ([413], "body-too-large"))
            self.assertEqual(app.requests, count)

    @each_world(limits=Limits(body_bytes=1000))
    def test_chunked_body_of_the_app(self, world: World) -> None:
        """A body without a length is counted as it comes."""
        app = hello(world, replies.echo(), limits={"body_bytes": 5000})
        head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
        chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        self.assertEqual(len(world.request(head + chunk * 5 + b"0\r\n\r\n").body), 5000)
        client = world.client().send(head + chunk * 6 + b"0\r\n\r\n")
        world.advance(3)
        self.assertEqual((client.statuses, code_of(client)), ([413], "body-too-large"))
        self.assertEqual(sum(request.is_complete for request in app.backend.requests), 1)

    @each_world(timeouts=Timeouts(first_byte=30.0))
    def test_reload(self, world: World) -> None:
        """Changed defaults count for what begins afterwards, and drop no connection."""
        hello(world, replies.never(), timeouts={})
        client = world.client().send(get())
        world.settle()
        timeouts = Timeouts(first_byte=3.0)
        world.pools.set_defaults(timeouts, Limits())
        world.factory.env.timeouts = timeouts
        second = world.client().send(get())
        world.advance(3.5)
        self.assertEqual((client.statuses, second.statuses), ([], [504]))
        world.advance(30)
        self.assertEqual(client.statuses, [504])


@implementer(IObserver)
class BrokenObserver:
    """Raises at whatever it is told."""

    def exchange_finished(self, record: Record) -> None:
        raise ZeroDivisionError

    def connection_opened(self, listener: str, kind: str) -> None:
        raise ZeroDivisionError

    def connection_closed(self, listener: str, kind: str) -> None:
        raise ZeroDivisionError


class EmbeddingTests(WorldTestCase):
    """What embedders hand in may fail; requests do not."""

    def test_observer_fails(self) -> None:
        """An observer that raises is logged, and nothing else comes of it."""
        world = World(observer=BrokenObserver())
        app = hello(world, limits={"in_flight_per_backend": 1})
        client = world.client().send(get() + b"nonsense\r\n\r\n")
        world.settle()
        self.assertEqual(client.statuses, [200, 400])
        self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(len(app.backend.connections), 1)
        self.assertNotEqual(self.flushLoggedErrors(ZeroDivisionError), [])
        world.end()
        self.assertEqual(world.factory.open_connections, 0)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_no_observer(self) -> None:
        """Nobody need watch."""
        world = self.world(observer=None)
        hello(world)
        self.assertEqual(world.request(get()).status, 200)

    def test_defaults(self) -> None:
        """A resolver and a reactor are enough."""
        network = MemoryNetwork()
        backend = ScriptedBackend("shared").listen(network)
        resolver = MemoryResolver([App("hello", ["hello.test"], [backend.address])])
        port = network.listenTCP(80, HTTPProxyFactory(resolver, network), interface="127.0.0.1")
        client = connect_client(network, ("127.0.0.1", 80)).send(get())
        network.run_until(lambda: client.responses)
        self.assertEqual(client.response.body, b"shared")
        client.close()
        network.run_until(port.stopListening())
        network.settle()
        self.assertEqual(network.getDelayedCalls(), [])
        self.assertEqual(network.open_connections, 0)

    def test_resolver_without_a_feed(self) -> None:
        """A resolver that tells of no changes is asked, and its newest answer counts."""
        network, table = MemoryNetwork(), MemoryResolver()

        class Plain:
            name = "plain"
            resolve = staticmethod(table.resolve)

        factory = HTTPProxyFactory(Plain(), network)
        port = network.listenTCP(80, factory, interface="127.0.0.1")
        client = connect_client(network, ("127.0.0.1", 80))
        backends = [ScriptedBackend(name).listen(network) for name in ("first", "second")]
        for backend in backends:
            table.set_app(App("hello", ["hello.test"], [backend.address]))
            client.send(get())
            network.settle()
        self.assertEqual([response.body for response in client.responses], [b"first", b"second"])
        self.assertEqual(backends[0].open_connections, [])
        network.run_until(port.stopListening())
        network.run_until(factory.drain(0))
        network.settle()
        self.assertEqual(network.getDelayedCalls(), [])
