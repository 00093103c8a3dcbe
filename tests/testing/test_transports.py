"""The pair of transports in memory; the contract suite tells the rest."""

from __future__ import annotations

from random import Random

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISystemHandle
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.testing.transport_recorders import PushRecorder, Recorder
from scalingo_proxy.testing.transports import connected_pair, make_address


class ConnectedPairTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.near, self.far = Recorder(), Recorder()

    def test_delivers_as_the_clock_advances(self) -> None:
        """Both know of the connection at once; bytes need a turn of the clock."""
        connected_pair(self.clock, self.near, self.far)
        self.near.transport.write(b"x")
        self.assertEqual((self.near.events, self.far.count), (["connectionMade"], 0))
        self.clock.advance(0)
        self.assertEqual(self.far.received, b"x")

    def test_latency(self) -> None:
        """A segment arrives after the latency, not before."""
        connected_pair(self.clock, self.near, self.far, latency=0.25)
        self.near.transport.write(b"x")
        self.clock.pump([0, 0.125])
        self.assertEqual(self.far.count, 0)
        self.clock.advance(0.125)
        self.assertEqual(self.far.count, 1)

    def test_addresses(self) -> None:
        """The addresses are the ones asked for."""
        here, there = make_address("::1", 80), make_address("2001:db8::7", 5000)
        server, client = connected_pair(
            self.clock, self.near, self.far, server_address=here, client_address=there
        )
        self.assertEqual((server.getHost(), server.getPeer(), client.getPeer()), (here, there, here))
        self.assertEqual(repr(client), "<MemoryTransport [2001:db8::7]:5000 - [::1]:80>")

    def test_bounded(self) -> None:
        """Between a writer and a reader that pauses there is room for two buffers."""
        connected_pair(self.clock, self.near, self.far, buffer_bytes=1000)
        self.far.transport.pauseProducing()
        producer = PushRecorder()
        self.near.transport.registerProducer(producer, True)
        self.near.transport.write(bytes(65536 + 2000))
        self.clock.advance(0)
        self.assertEqual(producer.calls, ["pause"])
        self.far.transport.resumeProducing()
        self.clock.advance(0)
        self.assertEqual((self.far.count, producer.calls), (65536 + 2000, ["pause", "resume"]))

    def test_abort_drops_the_kernel_buffer(self) -> None:
        """After an abort only what had reached the other end can be read."""
        connected_pair(self.clock, self.near, self.far, buffer_bytes=1000)
        self.far.transport.pauseProducing()
        self.near.transport.write(bytes(5000))
        self.clock.advance(0)
        self.near.transport.abortConnection()
        self.far.transport.resumeProducing()
        self.clock.advance(0)
        self.assertEqual((self.far.count, self.far.ended_with), (1000, ConnectionLost))

    def test_nothing_follows_a_reset(self) -> None:
        """Closing over unread bytes drops what was not sent yet; no FIN makes the rest look whole."""
        connected_pair(self.clock, self.near, self.far, buffer_bytes=1000)
        self.near.transport.pauseProducing()
        self.far.transport.pauseProducing()
        self.far.transport.write(b"never read")
        self.near.transport.write(bytes(2000))
        self.near.transport.loseConnection()
        self.clock.advance(0)
        self.far.transport.resumeProducing()
        self.clock.advance(0)
        self.assertEqual((self.far.count, self.far.ended_with), (1000, ConnectionLost))

    def cuts(self, seed: int) -> list[int]:
        """The sizes in which the same bytes arrive for *seed*."""
        far = Recorder()
        connected_pair(self.clock, self.near, far, random=Random(seed), cut=True)
        self.near.transport.write(bytes(5000))
        self.clock.advance(0)
        self.assertEqual(far.count, 5000)
        return far.sizes

    def test_cutting_is_repeatable(self) -> None:
        """The seed decides where the bytes are cut."""
        self.assertEqual(self.cuts(1), self.cuts(1))
        self.assertNotEqual(self.cuts(1), self.cuts(2))
        self.assertGreater(len(self.cuts(1)), 1)

    def test_no_handle(self) -> None:
        """There is no socket to reach for."""
        transport, _ = connected_pair(self.clock, self.near, self.far)
        self.assertFalse(ISystemHandle.providedBy(transport))
        self.assertFalse(hasattr(transport, "getHandle"))
