"""Backends whose machine is gone without a word: what that costs, and whom."""

from __future__ import annotations

from scalingo_proxy.model import Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.faults import BlackHole, HalfOpen, Stall
from tests.protocols.worlds import WAYS, WorldTestCase, code_of, get, hello


class LostMachineTests(WorldTestCase):
    """One request finds out; nobody else waits for the same backend."""

    def test_kept_connections(self) -> None:
        """What is kept to a backend that timed out is not tried, one client after another."""
        for way in WAYS:
            world = self.world(**way, timeouts=Timeouts(connect=1.0, first_byte=5.0))
            app = hello(world, replies.delayed(0.1, replies.fixed(b"fine")), backends=2)
            clients = [world.client().send(get()) for _ in range(6)]
            world.advance(2)
            self.assertEqual([client.statuses for client in clients], [[200]] * 6)

            lost = app.backends[0].address
            world.network.faults.suffer(lost, HalfOpen())
            world.network.faults.suffer(lost, BlackHole())
            codes = []
            for _ in range(15):
                client = world.client().send(get())
                world.run_until(lambda client=client: client.responses)
                codes.append(code_of(client))
                world.advance(4)
            self.assertEqual(sorted(codes), ["-"] * 14 + ["first-byte-timeout"], way)

            world.network.faults.relieve(lost)
            served = len(app.backends[0].requests)
            for _ in range(15):
                self.assertEqual(world.request(get()).status, 200)
                world.advance(4)
            self.assertGreater(len(app.backends[0].requests), served + 3)

    def test_hung_process(self) -> None:
        """A process that was stopped and goes on is used again, over connections of its own."""
        for way in WAYS:
            world = self.world(**way, timeouts=Timeouts(connect=1.0, first_byte=5.0))
            app = hello(world, replies.fixed(b"fine"), backends=2)
            for _ in range(4):
                self.assertEqual(world.request(get()).status, 200)
            world.network.faults.suffer(app.backends[0].address, Stall(), seconds=12.0)
            clients = [world.client().send(get()) for _ in range(4)]
            world.advance(6)
            self.assertEqual(sorted(client.statuses[0] for client in clients), [200, 200, 504, 504])
            world.advance(60)
            served = len(app.backends[0].requests)
            for _ in range(20):
                self.assertEqual(world.request(get()).status, 200)
                world.advance(1)
            self.assertGreaterEqual(len(app.backends[0].requests), served + 9)
