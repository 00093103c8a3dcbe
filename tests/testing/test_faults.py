"""Faults of connections in memory: what each does, to whom, and when."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Timeouts, split_host_port
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient, connect_client
from scalingo_proxy.testing.faults import (
    KINDS,
    BlackHole,
    CloseIdle,
    Drip,
    Fault,
    Faults,
    Garbage,
    HalfOpen,
    Outage,
    Refuse,
    Reset,
    Stall,
)
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.world import World

ADDRESS = "10.0.0.1:3000"
ASK = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 100\r\n\r\n" + b"x" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"y" * 200


class FaultTestCase(SynchronousTestCase):
    """A backend and clients that ask it directly; whole segments, and random ones under way for a while."""

    def networks(self) -> list[MemoryNetwork]:
        return [MemoryNetwork(), MemoryNetwork(latency=0.02, cut=True, shuffle=True)]

    def serve(self, network: MemoryNetwork, *faults: Fault | tuple[Fault, ...] | None) -> ScriptedBackend:
        backend = ScriptedBackend().listen(network, *split_host_port(ADDRESS)).answer(replies.raw(ANSWER))
        network.faults.plan(ADDRESS, faults)
        return backend

    def ask(self, network: MemoryNetwork, data: bytes = ASK, seconds: float = 1.0) -> ScriptedClient:
        client = connect_client(network, split_host_port(ADDRESS)).send(data)
        network.advance(seconds)
        return client

    def lost(self, end: Any, kind: type[Exception]) -> None:
        """That end of the connection is over, for that reason."""
        self.assertIsNotNone(end.lost_because)
        self.assertIsInstance(end.lost_because.value, kind)


class KindTests(FaultTestCase):
    """Each fault by itself."""

    def test_refuse(self) -> None:
        """The attempt is refused, and the next one is not."""
        for network in self.networks():
            self.serve(network, Refuse())
            self.lost(self.ask(network), error.ConnectionRefusedError)
            self.assertEqual(self.ask(network).statuses, [200])

    def test_black_hole(self) -> None:
        """Nobody answers until the attempt times out."""
        for network in self.networks():
            self.serve(network, BlackHole())
            client = self.ask(network, seconds=29)
            self.assertIsNone(client.lost_because)
            network.advance(2)
            self.lost(client, error.TimeoutError)

    def test_reset_of_a_response(self) -> None:
        """So many bytes of the response arrive; then both ends see a reset."""
        for network in self.networks():
            for at in (0, 1, 100, len(ANSWER)):
                backend = self.serve(network, Reset(at))
                client = self.ask(network)
                self.lost(client, error.ConnectionLost)
                self.lost(backend.connections[0], error.ConnectionLost)
                self.assertEqual(client.received, ANSWER[:at])
                backend.stop_listening()
                network.settle()

    def test_reset_of_a_request(self) -> None:
        """The backend gets so many bytes, and nobody gets an answer."""
        for network in self.networks():
            backend = self.serve(network, Reset(70, of="request"))
            client = self.ask(network, POST)
            self.lost(client, error.ConnectionLost)
            self.assertEqual(client.received, b"")
            self.assertEqual(backend.connections[0].received, POST[:70])
            self.assertEqual([request.is_complete for request in backend.requests], [False])

    def test_stall(self) -> None:
        """Nothing moves for a while; then everything arrives as it was sent."""
        for network in self.networks():
            backend = self.serve(network, Stall(100, seconds=5.0))
            client = self.ask(network, seconds=4.5)
            self.assertEqual(client.received, ANSWER[:100])
            client.send(ASK)
            network.advance(0.2)
            self.assertEqual(len(backend.requests), 1)
            network.advance(1)
            self.assertEqual(client.received, ANSWER * 2)

    def test_stall_for_ever(self) -> None:
        """Without an end, both sides stay connected until one leaves; nobody hears of that."""
        for network in self.networks():
            backend = self.serve(network, Stall())
            client = self.ask(network, seconds=3600)
            self.assertEqual((client.received, backend.requests), (b"", []))
            client.close()
            network.advance(1)
            self.lost(client, error.ConnectionDone)
            self.assertIsNone(backend.connections[0].lost_because)
            backend.crash()
            network.settle()
            self.assertEqual(network.open_connections, 0)

    def test_reset_passes_a_stall(self) -> None:
        """A reset is the operating system's business, and gets through."""
        for network in self.networks():
            backend = self.serve(network, Stall())
            self.ask(network).abort()
            network.settle()
            self.lost(backend.connections[0], error.ConnectionLost)

    def test_half_open(self) -> None:
        """Neither end hears of the other again, however it leaves."""
        for network in self.networks():
            for leave in (ScriptedClient.close, ScriptedClient.abort):
                backend = self.serve(network, HalfOpen(50))
                client = self.ask(network, seconds=60)
                self.assertEqual((client.received, client.is_over), (ANSWER[:50], False))
                leave(client)
                network.advance(1)
                self.assertTrue(client.is_over)
                self.assertIsNone(backend.connections[0].lost_because)
                backend.crash()
                network.settle()
                self.assertEqual(network.open_connections, 0)

    def test_drip(self) -> None:
        """A few bytes at a time, and all of them in the end; the other direction is as ever."""
        for network in self.networks():
            backend = self.serve(network, Drip(size=10, every=1.0, at=40))
            client = self.ask(network, POST, seconds=0.7)
            self.assertTrue(backend.requests[0].is_complete)
            for second in range(5):
                self.assertEqual(client.count, 50 + 10 * second)
                network.advance(1)
            network.advance(30)
            self.assertEqual(client.received, ANSWER)

    def test_drip_of_a_request(self) -> None:
        """A request may drip as well, and its end behind it."""
        for network in self.networks():
            backend = self.serve(network, Drip(size=20, every=1.0, of="request"))
            client = self.ask(network, POST)
            client.half_close()
            network.advance(4)
            self.assertLess(len(backend.connections[0].received), len(POST))
            self.assertFalse(backend.connections[0].saw_end)
            network.advance(10)
            self.assertEqual(backend.connections[0].received, POST)
            self.assertTrue(backend.connections[0].saw_end)

    def test_close_idle(self) -> None:
        """A kept connection is closed in order once it was idle; one that is asked in time is not."""
        for network in self.networks():
            backend = self.serve(network, CloseIdle(5.0))
            client = self.ask(network, seconds=4)
            client.send(ASK)
            network.advance(4)
            self.assertEqual((client.statuses, client.saw_end), ([200, 200], False))
            network.advance(2)
            self.assertTrue(client.saw_end)
            self.lost(backend.connections[0], error.ConnectionDone)

    def test_close_idle_waits_for_answers(self) -> None:
        """A backend that thinks for longer is not idle."""
        for network in self.networks():
            backend = self.serve(network, CloseIdle(1.0))
            backend.answer(replies.delayed(10.0, replies.raw(ANSWER)))
            self.assertEqual(self.ask(network, seconds=10.5).statuses, [200])

    def test_garbage(self) -> None:
        """Other bytes arrive, as many, and the same ones for the same seed."""
        for network in self.networks():
            self.serve(network, Garbage(at=20, seed=3), Garbage(at=20, seed=3), Garbage(at=20, seed=4))
            first, second, third = (self.ask(network).received for _ in range(3))
            self.assertEqual((len(first), first[:20]), (len(ANSWER), ANSWER[:20]))
            self.assertNotEqual(first[20:], ANSWER[20:])
            if not network.kernel.cut:  # how it is cut decides, too
                self.assertEqual(first, second)
            self.assertNotEqual(first, third)

    def test_several_at_once(self) -> None:
        """A tuple is several faults of one connection."""
        for network in self.networks():
            self.serve(network, (Drip(size=10, every=1.0), Reset(at=35)))
            client = self.ask(network, seconds=2.5)
            self.assertEqual(client.received, ANSWER[:30])
            network.advance(1)
            self.lost(client, error.ConnectionLost)
            self.assertEqual(client.received, ANSWER[:35])

    def test_mistaken_direction(self) -> None:
        """There are two directions."""
        self.assertRaises(ValueError, Reset, 1, of="both")


class SufferingTests(FaultTestCase):
    """Faults of an address as a whole, for a while."""

    def test_stopped_process(self) -> None:
        """Open connections stall and so do new ones; afterwards all of them go on."""
        for network in self.networks():
            self.serve(network)
            early = self.ask(network)
            network.faults.suffer(ADDRESS, Stall(), seconds=10.0)
            early.send(ASK)
            late = self.ask(network, seconds=9)
            self.assertEqual((early.statuses, late.is_connected, late.statuses), ([200], True, []))
            self.assertTrue(network.faults.is_suffering(ADDRESS))
            network.advance(2)
            self.assertEqual((early.statuses, late.statuses), ([200, 200], [200]))
            self.assertFalse(network.faults.is_suffering(ADDRESS))

    def test_machine_without_power(self) -> None:
        """Its connections hang for good, and new ones are not answered until it is back."""
        for network in self.networks():
            self.serve(network)
            early = self.ask(network)
            network.faults.suffer(ADDRESS, HalfOpen())
            network.faults.suffer(ADDRESS, BlackHole())
            early.send(ASK)
            late = self.ask(network, seconds=5)
            self.assertEqual((early.statuses, late.is_connected), ([200], False))
            network.faults.relieve(ADDRESS)
            self.assertEqual(self.ask(network).statuses, [200])
            self.assertEqual(early.statuses, [200])

    def test_killed_process(self) -> None:
        """A reset hits what is open, and whoever connects."""
        for network in self.networks():
            self.serve(network)
            early = self.ask(network)
            network.faults.suffer(ADDRESS, Reset(), seconds=1.0)
            network.settle()
            self.lost(early, error.ConnectionLost)
            self.lost(self.ask(network, seconds=0.5), error.ConnectionLost)
            network.advance(1)
            self.assertEqual(self.ask(network).statuses, [200])

    def test_outages(self) -> None:
        """A schedule of them comes at its times, and all that came about is told."""
        for network in self.networks():
            self.serve(network)
            network.faults.schedule(ADDRESS, [Outage(2.0, 3.0, Refuse()), Outage(9.0, 1.0, Garbage())])
            self.assertEqual(self.ask(network).statuses, [200])
            network.advance(2)
            self.lost(self.ask(network), error.ConnectionRefusedError)
            network.advance(2)
            self.assertEqual(self.ask(network).statuses, [200])
            network.advance(4)
            where = split_host_port(ADDRESS)
            told = [(met.time, met.address, met.fault) for met in network.faults.met]
            self.assertEqual(told, [(2.0, where, Refuse()), (9.0, where, Garbage())])

    def test_end_of_all(self) -> None:
        """Whatever was planned is forgotten, and whatever is in force ends."""
        for network in self.networks():
            self.serve(network, Stall(10), Drip(every=100.0), None, Refuse())
            early = [self.ask(network) for _ in range(3)]
            network.faults.suffer(ADDRESS, Stall())
            network.faults.schedule(ADDRESS, [Outage(50.0, 1.0, Refuse())])
            early[2].send(ASK)
            network.advance(1)
            self.assertEqual([client.count for client in early], [10, 1, len(ANSWER)])
            network.faults.end()
            self.assertEqual(self.ask(network).statuses, [200])
            self.assertEqual([client.statuses for client in early], [[200], [200], [200, 200]])
            self.assertEqual(network.getDelayedCalls(), [])


class ChanceTests(FaultTestCase):
    """Faults drawn from a seed."""

    def test_repeatable(self) -> None:
        """The same seed gives the same faults, another seed others."""

        def drawn(seed: int | str) -> list[Fault | None]:
            faults = Faults(seed, share=0.5)
            return [faults.draw() for _ in range(200)]

        self.assertEqual(drawn(7), drawn(7))
        self.assertNotEqual(drawn(7), drawn(8))
        self.assertNotEqual(drawn("7/a"), drawn("7/b"))
        self.assertEqual({type(fault) for fault in drawn(7)}, {*KINDS, type(None)})

    def test_kinds_and_share(self) -> None:
        """Only the kinds that were asked for come, and as often."""
        faults = Faults(1, share=0.1, kinds=(Reset, Drip))
        drawn = [next(faults) for _ in range(1000)]
        self.assertEqual({type(fault) for fault in drawn}, {Reset, Drip, type(None)})
        self.assertTrue(60 < sum(fault is not None for fault in drawn) < 140)

    def test_outages(self) -> None:
        """A schedule is repeatable, in order, without overlap, and over in time."""
        outages = Faults(7).outages(3600.0, every=100.0, lasting=(5.0, 20.0))
        self.assertEqual(outages, Faults(7).outages(3600.0, every=100.0, lasting=(5.0, 20.0)))
        self.assertGreater(len(outages), 15)
        ends = [0.0, *(outage.begins + outage.seconds for outage in outages)]
        for end, outage in zip(ends, outages, strict=False):
            self.assertGreaterEqual(outage.begins, end)
            self.assertTrue(5.0 <= outage.seconds <= 20.0)
        self.assertLessEqual(ends[-1], 3600.0)


class WorldTests(SynchronousTestCase):
    """Faults around a whole proxy."""

    def test_backends(self) -> None:
        """A request meets the faults of one backend and is served by the other."""
        for fault in (Refuse(), BlackHole(), Reset(), Reset(5, of="request")):
            world = World(7, timeouts=Timeouts(connect=1.0))
            flaky = world.backend(ADDRESS, faults=[fault] * 2)
            world.app("hello", ["hello.test"], [flaky, world.backend("[2001:db8::1]:3000")])
            bodies = [world.request(ASK).body for _ in range(2)]
            self.assertEqual(bodies, [b"[2001:db8::1]:3000"] * 2, fault)
            self.assertEqual({met.fault for met in world.network.faults.met}, {fault})
            world.end()

    def test_garbage(self) -> None:
        """Nonsense is told as such."""
        world = World(7)
        world.app("hello", ["hello.test"], [world.backend(ADDRESS, faults=[Garbage()])])
        self.assertEqual(world.request(ASK).status, 502)
        self.assertEqual(world.observer.codes, ["bad-response"])
        world.end()

    def test_outages(self) -> None:
        """What a backend suffers and when may be told at once with it."""
        world = World(7)
        backend = world.backend(ADDRESS, outages=[Outage(5.0, 5.0, Stall())])
        world.app("hello", ["hello.test"], [backend])
        world.advance(6)
        client = world.client().send(ASK)
        world.advance(3)
        self.assertEqual(client.responses, [])
        world.advance(2)
        self.assertEqual(client.response.body, ADDRESS.encode())
        world.end()

    def test_client(self) -> None:
        """The client's own connection may be the one that is in trouble."""
        world = World(7, timeouts=Timeouts(request_head=10.0))
        world.app("hello", ["hello.test"])
        client = world.client(fault=HalfOpen(at=10, of="request")).send(ASK)
        world.advance(60)
        self.assertEqual((client.received, client.is_over), (b"", False))
        self.assertEqual(world.factory.open_connections, 0)
        self.assertEqual(world.request(ASK).status, 200)
        world.end()

    def test_end(self) -> None:
        """Ending a world ends its faults first."""
        world = World(7)
        stalled = world.backend(ADDRESS, faults=[Stall()] * 9)
        stalled.answer(replies.bulk(1_000_000))
        world.app("hello", ["hello.test"], [stalled])
        world.network.faults.schedule(ADDRESS, [Outage(500.0, 5.0, Refuse())])
        for _ in range(3):
            world.client().send(POST)
        world.advance(3)
        world.end(patience_seconds=40)
