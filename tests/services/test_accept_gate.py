"""Accepting pauses before the descriptors run out."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.accept_gate import LOOK_AGAIN_SECONDS, Gate, descriptor_room


class Port:
    """Notes whether it reads."""

    def __init__(self) -> None:
        self.reads = True

    def stopReading(self) -> None:
        self.reads = False

    def startReading(self) -> None:
        self.reads = True


class GateTests(SynchronousTestCase):
    """Ports pause while there is no room, and no timer outlives them."""

    def setUp(self) -> None:
        self.clock, self.room = Clock(), True
        self.gate = Gate(self.clock, lambda: self.room)

    def test_pause_and_resume(self) -> None:
        """Both ports stop, and start together once there is room."""
        one, two = Port(), Port()
        self.gate.accepted(one)
        self.assertTrue(one.reads)
        self.room = False
        self.gate.accepted(one)
        self.gate.accepted(two)
        self.gate.accepted(one)
        self.assertEqual((one.reads, two.reads), (False, False))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(LOOK_AGAIN_SECONDS)
        self.assertFalse(one.reads)
        self.room = True
        self.clock.advance(LOOK_AGAIN_SECONDS)
        self.assertEqual((one.reads, two.reads), (True, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_while_paused(self) -> None:
        """A port that closes is not started again."""
        port = Port()
        self.room = False
        self.gate.accepted(port)
        self.gate.forget(port)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(port.reads)

    def test_room(self) -> None:
        """A part of the limit is kept for what is not a client."""
        for limit, room in ((256, 167), (1024, 858), (100_000, 89_936), (10, 16)):
            self.assertEqual(descriptor_room(limit), room)
