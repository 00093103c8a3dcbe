"""Clients that have shaken hands and say nothing: as if what serves HTTP had been there from the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_factory import TLSProxyFactory
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.replies import delayed, fixed
from scalingo_proxy.testing.world import World, build_http_factory
from tests.protocols.tls_clients import certificate, now
from tests.protocols.tls_worlds import SERVER_NAME, TLSDoor, connect_inside
from tests.protocols.worlds import WorldTestCase

GET = f"GET / HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n".encode()


def by_name(world: World, **options: Any) -> TLSProxyFactory:
    """The door of the program, which makes what serves HTTP at the first word."""
    index = CertificateIndex(now)
    index.set(certificate(SERVER_NAME))
    return TLSProxyFactory(build_http_factory(world, **options), Contexts(index))


Script = Callable[[World, ScriptedClient], None]


class SilentClientTests(WorldTestCase):
    """The door of the program does what one does that has an HTTP frontend from the first."""

    def start(self, build: Any, **options: Any) -> tuple[World, ScriptedClient]:
        options.setdefault("timeouts", Timeouts(request_head=10.0))
        world = self.world(build=build, **options)
        app = world.app("hello", [SERVER_NAME], tls="terminate")
        app.backend.script(delayed(0.5, fixed(b"x")))
        client: ScriptedClient = connect_inside(world, ScriptedClient(world.network), "192.0.2.1")
        world.settle()
        return world, client

    def story(self, build: Any, script: Script, **options: Any) -> list[Any]:
        """What can be seen from outside while *script* happens, and twenty seconds longer."""
        world, client = self.start(build, **options)
        seen: list[Any] = []
        last: Any = None
        script(world, client)
        for tenth in range(200):
            still_open = {kind: count for (_, kind), count in world.observer.still_open.items()}
            is_open = bool(world.factory.env.clients.count)
            state = client.statuses, client.is_over, still_open, is_open, world.observer.codes
            if state != last:
                seen.append((tenth, state))
                last = state
            world.advance(0.1)
        return seen

    def check(self, script: Script, **options: Any) -> list[Any]:
        at_once, by_the_program = (self.story(build, script, **options) for build in (TLSDoor, by_name))
        self.assertEqual(by_the_program, at_once)
        return at_once

    def test_says_nothing(self) -> None:
        """It has as long for its request as on any connection, is closed in order, and nobody is told."""
        seen = self.check(lambda world, client: None)
        self.assertEqual([tenth // 10 for tenth, _ in seen], [0, 10])
        self.assertEqual(seen[-1][1], ([], True, {}, False, []))

    def test_asks_late(self) -> None:
        """Its request is answered; the time for a head that does not end goes on where it began."""

        def late(words: bytes) -> Script:
            def script(world: World, client: ScriptedClient) -> None:
                world.advance(8.0)
                client.send(words)

            return script

        self.assertEqual(self.check(late(GET))[-1][1][0], [200])
        self.assertEqual(self.check(late(GET[:10]))[-1][1][0], [408])
        self.check(late(b"\r\n"))
        self.assertEqual(self.check(late(b"nonsense\r\n\r\n"))[-1][1][0], [400])

    def test_leaves(self) -> None:
        """In order or not, at once or with half of a request; only of that is anything told."""
        for leave in (ScriptedClient.close, ScriptedClient.abort):

            def silently(world: World, client: ScriptedClient, leave: Any = leave) -> None:
                leave(client)

            def in_a_head(world: World, client: ScriptedClient, leave: Any = leave) -> None:
                client.send(GET[:10])
                world.settle()
                leave(client)

            self.assertEqual(self.check(silently)[-1][1][4], [])
            self.assertEqual(self.check(in_a_head)[-1][1][4], ["client-closed"])

    def test_drained(self) -> None:
        """Who has just come may still ask, for a second; who was silent for long is closed at once."""

        def drained(silent: float, asks: bool) -> Script:
            def script(world: World, client: ScriptedClient) -> None:
                world.advance(silent)
                world.factory.drain(5.0)
                world.advance(0.1)
                if asks and not client.is_over:
                    client.send(GET)

            return script

        self.assertEqual(self.check(drained(0.3, True))[-1][1][0], [200])
        for silent in (0.3, 3.0):
            self.check(drained(silent, False))

    def test_drain_waits_for_its_answer(self) -> None:
        """A drain is over when who spoke at the last moment has been served; it cuts who takes longer."""
        for seconds, told in ((5.0, [200]), (0.4, [503])):
            world, client = self.start(by_name)
            done: list[Any] = []
            world.factory.drain(seconds).addCallback(done.append)
            client.send(GET)
            world.advance(0.3)
            self.assertEqual(done, [])
            world.advance(5.0)
            self.assertEqual((client.statuses, len(done)), (told, 1))

    def test_makes_room(self) -> None:
        """Where all places are taken, it gives its own to who comes."""
        world, client = self.start(by_name, limits=Limits(client_connections=1))
        early = world.client("192.0.2.2")
        world.settle()
        self.assertEqual((client.is_over, early.is_over), (False, True))
        world.advance(0.3)
        other = world.client("192.0.2.3")
        world.settle()
        self.assertEqual((client.is_over, other.is_over), (True, False))
        self.assertEqual(world.observer.codes, ["queue-full"])
        self.assertEqual(world.factory.open_connections, 1)

    def test_drained_in_a_handshake(self) -> None:
        """Whose handshake ends in a drain may ask once, as whoever came before it began."""
        for build in (TLSDoor, by_name):
            world = self.world(build=build, latency=0.1)
            before: list[str] = []

            def drain(world: World = world, before: list[str] = before) -> None:
                before += [kind for _, kind in world.observer.still_open]
                world.factory.drain(5.0)

            world.app("hello", [SERVER_NAME], tls="terminate").backend.script(fixed(b"x"))
            world.network.callLater(0.35, drain)
            client = connect_inside(world, ScriptedClient(world.network), "192.0.2.1")
            client.send(GET)
            world.advance(3.0)
            self.assertEqual((before, client.statuses), ([] if build is TLSDoor else ["tls"], [200]))
            self.assertIn(b"Connection: close", client.received)

    def test_counted_once(self) -> None:
        """Each kind of connection begins once and ends once, whatever serves it meanwhile."""
        world, client = self.start(by_name)
        observer = world.observer
        self.assertEqual(dict(observer.still_open), {("http", "http"): 1})
        client.send(GET)
        world.advance(1.0)
        self.assertEqual(dict(observer.still_open), {("http", "http"): 1})
        self.assertEqual(world.factory.open_connections, 1)
        client.close()
        world.advance(5.0)
        self.assertEqual(observer.opened, observer.closed)
        self.assertEqual(dict(observer.opened), {("http", "tls"): 1, ("http", "http"): 1})
        (record,) = world.records
        self.assertEqual((record.tls, record.client), ("TLSv1.3", "192.0.2.1"))
