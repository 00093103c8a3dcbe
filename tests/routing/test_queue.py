"""Order of arrival, and leaving it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import NoBackend, PauseTimeout, QueueTimeout
from scalingo_proxy.model import Backend
from scalingo_proxy.routing.members import Member
from scalingo_proxy.routing.queue import Queue, Ticket

ONE, TWO = (Member(Backend("10.0.0.1", port), 1, 0.0) for port in (80, 81))


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = Queue()
        self.ends: list[Any] = []

    def add(self, *tried: Member) -> Ticket:
        return self.queue.add(3.0, self.ends.append, self.ends.append, tried)

    def test_one_line_for_each_set_tried(self) -> None:
        """Only the first of each line is offered, the oldest line first."""
        picky, plain, _, other, _ = self.add(ONE), self.add(), self.add(ONE), self.add(TWO), self.add()
        self.assertEqual([picky, plain, other], self.queue.heads())
        self.assertEqual(5, self.queue.length)

    def test_leaving_from_anywhere(self) -> None:
        """A ticket that is cancelled makes room for the one behind it, also in the middle."""
        first, second, third = self.add(), self.add(), self.add()
        second.cancel()
        self.assertEqual([first], self.queue.heads())
        first.cancel()
        self.assertEqual([third], self.queue.heads())
        third.cancel()
        self.assertEqual(([], 0, False), (self.queue.heads(), self.queue.length, self.queue.has_line(())))

    def test_ends_once(self) -> None:
        """Cancelling a ticket that has ended does nothing, and cancelling calls nobody."""
        ticket = self.add()
        error = NoBackend()
        ticket.refuse(error)
        ticket.cancel()
        ticket.cancel()
        self.assertEqual(([error], 0, False), (self.ends, self.queue.length, ticket.is_waiting))
        self.add().cancel()
        self.assertEqual([error], self.ends)

    def test_out_before_it_is_told(self) -> None:
        """When the owner is called, its ticket has left the queue."""
        lengths: list[tuple[int, bool]] = []
        ticket = self.queue.add(
            0.0, lambda lease: lengths.append((self.queue.length, ticket.is_waiting)), self.ends.append, ()
        )
        ticket.grant(object())
        self.assertEqual([(0, False)], lengths)

    def test_what_to_tell_who_waited_too_long(self) -> None:
        """The error says whether the app was paused or its members were busy."""
        ticket = self.add()
        self.assertIsInstance(ticket.expired_error(), QueueTimeout)
        self.queue.hold(True, 0.0)
        self.assertIsInstance(ticket.expired_error(), PauseTimeout)

    def test_behind_after_a_pause(self) -> None:
        """It is until nobody waits any more, or the time is over."""
        for lasts in (True, False):
            self.queue.hold(True, 0.0)
            tickets = [self.add() for _ in range(5)]
            self.assertFalse(self.queue.is_behind(1.0))
            self.queue.hold(False, 30.0)
            self.assertTrue(self.queue.is_behind(29.0))
            if lasts:
                self.assertFalse(self.queue.is_behind(30.0))
            else:
                for ticket in tickets[:4]:
                    ticket.cancel()
                self.assertTrue(self.queue.is_behind(29.0))
                tickets[4].cancel()
                self.assertFalse(self.queue.is_behind(29.0))
            tickets += [self.add() for _ in range(5)]
            self.assertFalse(self.queue.is_behind(29.0))
            for ticket in tickets:
                ticket.cancel()

    def test_remembers_since_when(self) -> None:
        """A ticket knows when its wait began."""
        self.assertEqual(3.0, self.add().since)
