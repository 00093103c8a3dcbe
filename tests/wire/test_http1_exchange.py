"""The transition table of one exchange."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.http1_exchange import TRANSITIONS, Cycle, Event, IllegalTransition, Side


def cycle(requests: list[Event], responses: list[Event]) -> Cycle:
    made = Cycle()
    for event in requests:
        made.on_request(event)
    for event in responses:
        made.on_response(event)
    return made


class TableTests(SynchronousTestCase):
    """The table as a whole."""

    def test_complete(self) -> None:
        """Every state is a row, and the connection can be closed in each."""
        self.assertEqual(set(TRANSITIONS), set(Side))
        for row in TRANSITIONS.values():
            self.assertIs(row[Event.CLOSE], Side.CLOSED)

    def test_reachable(self) -> None:
        """Every state can be reached from the first."""
        reached = {Side.IDLE}
        for _ in Side:
            reached |= {side for known in reached for side in TRANSITIONS[known].values()}
        self.assertEqual(reached, set(Side))

    def test_no_way_back(self) -> None:
        """Behind broken framing, a switch or a close no message begins."""
        for side in (Side.MUST_CLOSE, Side.SWITCHED, Side.CLOSED):
            self.assertTrue(set(TRANSITIONS[side].values()) <= {Side.MUST_CLOSE, Side.CLOSED})

    def test_illegal(self) -> None:
        """What is not in the table raises, and changes nothing."""
        for side, row in TRANSITIONS.items():
            for event in set(Event) - set(row):
                for direction in ("request", "response"):
                    made = Cycle()
                    setattr(made, direction, side)
                    move = made.on_request if direction == "request" else made.on_response
                    self.assertRaises(IllegalTransition, move, event)
                    self.assertIs(getattr(made, direction), side)


class CycleTests(SynchronousTestCase):
    """Both directions together."""

    def test_keep_alive(self) -> None:
        """Two whole messages, and the next exchange may begin."""
        made = cycle([Event.HEAD, Event.END], [Event.WHOLE])
        self.assertTrue(made.is_complete)
        self.assertTrue(made.next())
        self.assertEqual((made.request, made.response), (Side.IDLE, Side.IDLE))

    def test_last(self) -> None:
        """Without keep-alive there is no next exchange."""
        made = cycle([Event.WHOLE], [Event.WHOLE])
        made.keep_alive = False
        self.assertFalse(made.next())
        self.assertEqual((made.request, made.response), (Side.MUST_CLOSE, Side.MUST_CLOSE))

    def test_written_out(self) -> None:
        """What is written out for two whole messages is what the table says."""
        self.assertIs(TRANSITIONS[Side.DONE][Event.NEXT], Side.IDLE)
        self.assertIs(TRANSITIONS[Side.DONE][Event.LAST], Side.MUST_CLOSE)

    def test_early_response(self) -> None:
        """A response that ended before its request leaves a connection that carries no other."""
        made = cycle([Event.HEAD], [Event.HEAD, Event.END])
        self.assertFalse(made.is_complete)
        self.assertFalse(made.next())
        self.assertIs(made.request, Side.MUST_CLOSE)

    def test_broken_framing(self) -> None:
        """Broken framing on one side ends the connection."""
        made = cycle([Event.HEAD, Event.BREAK], [Event.WHOLE])
        self.assertFalse(made.next())

    def test_switch(self) -> None:
        """Behind a switch there is no further exchange."""
        made = cycle([Event.WHOLE, Event.SWITCH], [Event.SWITCH])
        self.assertRaises(IllegalTransition, made.next)

    def test_second_response(self) -> None:
        """One exchange has one final response."""
        made = cycle([Event.WHOLE], [Event.WHOLE])
        self.assertRaises(IllegalTransition, made.on_response, Event.WHOLE)
