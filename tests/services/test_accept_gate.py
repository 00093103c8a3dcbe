"""Ports accept while there is room, and rest while there is none."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.accept_gate import BACK_OFF_SECONDS, LOOK_AGAIN_SECONDS, AcceptGate


class Port:
    """Takes clients in as Twisted's ports do, from a queue of its own."""

    disconnecting = False

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting
        self.accepted = 0
        self.numberAccepts = 100
        self.reads = True
        self.fails = False

    def doRead(self) -> None:
        count = 0 if self.fails else min(self.waiting, self.numberAccepts)
        self.waiting -= count
        self.accepted += count
        self.numberAccepts = self.numberAccepts + 20 if count == self.numberAccepts else max(1, count)

    def stopReading(self) -> None:
        self.reads = False

    def startReading(self) -> None:
        self.reads = True


class GateTests(SynchronousTestCase):
    """Pausing and resuming."""

    def setUp(self) -> None:
        self.clock, self.room, self.made_room = Clock(), 1000, 0
        self.gate = AcceptGate(self.clock, self.room_now, self.make_room)

    def room_now(self) -> int:
        if self.room < 0:
            raise OSError("cannot tell")
        return self.room

    def make_room(self) -> None:
        self.made_room += 1

    def guarded(self, waiting: int = 0) -> Port:
        port = Port(waiting)
        self.leave = self.gate.guard(port, lambda: port.accepted)
        return port

    def test_no_more_than_there_is_room_for(self) -> None:
        """One turn of the reactor takes in no more clients than that."""
        port = self.guarded(waiting=50)
        self.room = 7
        port.doRead()
        self.assertEqual((port.accepted, port.waiting, port.reads), (7, 43, True))

    def test_pause_and_resume(self) -> None:
        """Ports stop where somebody waits, and all start again once there is room."""
        one, two, idle = self.guarded(5), self.guarded(5), self.guarded()
        self.room = 0
        one.doRead()
        two.doRead()
        self.assertEqual([port.reads for port in (one, two, idle)], [False, False, True])
        self.assertEqual((one.accepted, self.gate.is_paused, self.gate.pauses), (0, True, 1))
        self.assertEqual(self.made_room, 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(LOOK_AGAIN_SECONDS)
        self.assertEqual((one.reads, self.made_room), (False, 3))
        self.room = 3
        self.clock.advance(LOOK_AGAIN_SECONDS)
        self.assertEqual((one.reads, two.reads, self.gate.is_paused), (True, True, False))
        one.doRead()
        self.assertEqual(one.accepted, 3)

    def test_told_once(self) -> None:
        """A shortage that comes and goes is one line in the log, and its end another."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        port = self.guarded(1000)
        for _ in range(2):
            for _ in range(5):
                self.room = 0
                port.doRead()
                self.room = 1
                self.clock.advance(LOOK_AGAIN_SECONDS)
                port.doRead()
            self.clock.pump([1.0] * 12)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(self.gate.pauses, 10)
        self.assertEqual(["wait until" in line for line in lines], [True, False] * 2)

    def test_end_of_a_shortage(self) -> None:
        """After a while without a pause nothing is left of it, the timer neither."""
        port = self.guarded(100)
        self.room = 0
        port.doRead()
        self.room = 1000
        self.clock.pump([1.0] * 4)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1.0] * 8)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_while_paused(self) -> None:
        """A port that closes is not started again, and is as it was."""
        port = self.guarded(1)
        self.room = 0
        port.doRead()
        self.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(port.reads)
        self.assertNotIn("doRead", vars(port))
        self.assertFalse(self.gate.is_paused)

    def test_accept_fails(self) -> None:
        """A port whose accept fails again and again does not go round and round."""
        port = self.guarded(1)
        port.fails = True
        port.doRead()
        port.doRead()
        self.assertTrue(port.reads)
        port.doRead()
        self.assertFalse(port.reads)
        self.clock.advance(BACK_OFF_SECONDS)
        self.assertTrue(port.reads)
        port.fails = False
        port.doRead()
        self.assertEqual(port.accepted, 1)

    def test_unknown(self) -> None:
        """Where it cannot be told whether there is room, clients are taken in one at a time."""
        port = self.guarded(5)
        self.room = -1
        port.doRead()
        self.assertEqual((port.accepted, port.reads), (1, True))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_foreign_port(self) -> None:
        """A port of another kind is left alone."""
        foreign = object()
        self.gate.guard(foreign, lambda: 0)()
        self.assertFalse(self.gate.is_paused)
