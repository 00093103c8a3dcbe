"""Two transports joined, each a pair of protocols in memory."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from scalingo_proxy.protocols.relay import Relay, RelayEnd
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.transports import connected_pair

SIZE = 200_000


@implementer(IHalfCloseableProtocol, IPushProducer)
class Joined(Protocol):
    """What the proxy's own protocols do once they are joined."""

    transport: Any
    end: RelayEnd

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.end.data_received(data)

    def readConnectionLost(self) -> None:
        self.end.read_closed()

    def writeConnectionLost(self) -> None:
        self.end.write_closed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.end.connection_lost()

    def pauseProducing(self) -> None:
        self.end.pause_peer()

    def resumeProducing(self) -> None:
        self.end.resume_peer()

    def stopProducing(self) -> None:
        pass


class RelayTests(SynchronousTestCase):
    """Every byte, every end, and who is told of it."""

    def join(self, seed: int, cut: bool, buffer_bytes: int = 4096) -> tuple[ScriptedClient, ScriptedClient]:
        """A relay between two peers that send tunnelled bytes at once."""
        self.clock = Clock()
        self.alive = 0
        self.ended = 0
        sides = []
        for number in range(2):
            inner, outer = Joined(), ScriptedClient(self.clock, closes_at_end=False)
            outer._reader.become_tunnel(outer._tunnelled.extend)
            connected_pair(
                self.clock, inner, outer, random=Random(seed + number), cut=cut, buffer_bytes=buffer_bytes
            )
            sides.append((inner, outer))
        (client, self.left), (backend, self.right) = sides
        self.relay = Relay(client.transport, backend.transport, self.note_alive, self.note_end)
        client.end, backend.end = self.relay.client, self.relay.backend
        return self.left, self.right

    def note_alive(self) -> None:
        self.alive += 1

    def note_end(self) -> None:
        self.ended += 1

    def run_all(self) -> None:
        """Let everything happen that is due."""
        for _ in range(200_000):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
            self.clock.advance(0)

    def each(self) -> Any:
        """The same with whole segments and with random ones."""
        for seed, cut in enumerate((False, True, True)):
            yield self.join(seed, cut)

    def test_bytes(self) -> None:
        """Everything arrives as it was sent, both ways at once, and is counted."""
        for left, right in self.each():
            up, down = Random(1).randbytes(SIZE), Random(2).randbytes(SIZE + 1)
            left.send(up)
            right.send(down)
            self.run_all()
            self.assertEqual(right.tunnelled, up)
            self.assertEqual(left.tunnelled, down)
            self.assertEqual((self.relay.client.received, self.relay.backend.received), (SIZE, SIZE + 1))
            self.assertGreater(self.alive, 0)

    def test_back_pressure(self) -> None:
        """A side that does not read stops the other; what was held arrives when it reads again."""
        for left, right in self.each():
            data = Random(3).randbytes(SIZE * 3)
            right.pause()
            left.send(data)
            self.run_all()
            self.assertLess(self.relay.client.received, SIZE)
            right.resume()
            self.run_all()
            self.assertEqual(right.tunnelled, data)

    def test_half_close(self) -> None:
        """The end of one direction is told behind its last byte, and the other direction goes on."""
        for left, right in self.each():
            left.send(b"x" * SIZE)
            left.half_close()
            self.run_all()
            self.assertEqual(len(right.tunnelled), SIZE)
            self.assertTrue(right.saw_end)
            right.send(b"y" * SIZE)
            self.run_all()
            self.assertEqual(len(left.tunnelled), SIZE)
            self.assertEqual(self.ended, 0)
            right.half_close()
            self.run_all()
            self.assertTrue(left.saw_end)
            self.assertEqual(self.ended, 1)

    def test_close(self) -> None:
        """A side that is gone takes the other along, after what it said."""
        for left, right in self.each():
            left.send(b"x" * SIZE)
            left.close()
            self.run_all()
            self.assertEqual(len(right.tunnelled), SIZE)
            right.close()
            self.run_all()
            self.assertEqual(self.ended, 1)

    def test_reset(self) -> None:
        """A reset ends both, also when the other side does not read."""
        for left, right in self.each():
            right.pause()
            left.send(b"x" * SIZE)
            self.run_all()
            right.abort()
            self.run_all()
            self.assertEqual(self.ended, 1)

    def test_abort(self) -> None:
        """Cut from outside, both sides are gone at once, and the end is told once."""
        for left, right in self.each():
            left.send(b"x" * SIZE)
            right.pause()
            self.run_all()
            self.relay.abort()
            self.run_all()
            self.assertTrue(left.is_over)
            self.assertEqual(self.ended, 1)
            self.relay.abort()
            self.run_all()
            self.assertEqual(self.ended, 1)

    def test_end_while_paused(self) -> None:
        """A side that was paused learns of the end of the other."""
        for left, right in self.each():
            left.pause()
            right.send(b"x" * SIZE)
            self.run_all()
            left.abort()
            self.run_all()
            self.assertTrue(right.is_over or right.saw_end)
            right.close()
            self.run_all()
            self.assertEqual(self.ended, 1)
