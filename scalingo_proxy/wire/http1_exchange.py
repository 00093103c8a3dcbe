"""The states of one exchange on an HTTP/1 connection, as a table.

Each connection, towards a client or towards a backend, carries one exchange
after another; each exchange has a request side and a response side that move
on their own (RFC 9112 §9).  Everything about those states lives here, and
this file does not know which end of the connection it is on.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["Cycle", "Event", "IllegalTransition", "Side", "TRANSITIONS"]


class Side(enum.Enum):
    """Where one direction of an exchange stands."""

    # Enum's own hash is a function in Python, and asked for 16 times in each exchange: 0.1 µs each.
    __hash__ = object.__hash__

    IDLE = "idle"
    BODY = "body"
    DONE = "done"
    SWITCHED = "switched"
    MUST_CLOSE = "must-close"
    CLOSED = "closed"


# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_IDLE, _DONE, _MUST_CLOSE = Side.IDLE, Side.DONE, Side.MUST_CLOSE


class Event(enum.Enum):
    """What can happen to one direction."""

    __hash__ = object.__hash__

    HEAD = "head with a body to come"
    WHOLE = "whole message"
    END = "end of the body"
    SWITCH = "protocol switched"
    BREAK = "framing lost"
    NEXT = "next exchange on the same connection"
    LAST = "no further exchange on this connection"
    CLOSE = "connection closed"


class IllegalTransition(Exception):
    """A bug: an event that cannot happen in this state."""


#: side -> event -> side.  What is not here cannot happen.
TRANSITIONS: Mapping[Side, Mapping[Event, Side]] = {
    Side.IDLE: {
        Event.HEAD: Side.BODY,
        Event.WHOLE: Side.DONE,
        Event.SWITCH: Side.SWITCHED,
        Event.BREAK: Side.MUST_CLOSE,
        Event.LAST: Side.MUST_CLOSE,
        Event.CLOSE: Side.CLOSED,
    },
    Side.BODY: {
        Event.END: Side.DONE,
        Event.BREAK: Side.MUST_CLOSE,
        Event.LAST: Side.MUST_CLOSE,
        Event.CLOSE: Side.CLOSED,
    },
    Side.DONE: {
        Event.NEXT: Side.IDLE,
        Event.SWITCH: Side.SWITCHED,
        Event.BREAK: Side.MUST_CLOSE,
        Event.LAST: Side.MUST_CLOSE,
        Event.CLOSE: Side.CLOSED,
    },
    Side.SWITCHED: {Event.CLOSE: Side.CLOSED},
    Side.MUST_CLOSE: {
        Event.BREAK: Side.MUST_CLOSE,
        Event.LAST: Side.MUST_CLOSE,
        Event.CLOSE: Side.CLOSED,
    },
    Side.CLOSED: {Event.CLOSE: Side.CLOSED},
}


class Cycle:
    """Both sides of the exchange under way on one connection.

    :ivar request: where the request stands.
    :ivar response: where the response stands.
    :ivar keep_alive: the connection may carry another exchange.
    """

    __slots__ = ("keep_alive", "request", "response")

    def __init__(self) -> None:
        self.request = self.response = _IDLE
        self.keep_alive = True

    def on_request(self, event: Event) -> None:
        """Move the request side.

        :raises IllegalTransition: when it cannot happen now.
        """
        try:
            self.request = TRANSITIONS[self.request][event]
        except KeyError:
            raise IllegalTransition(f"request: {event.value} while {self.request.value}") from None

    def on_response(self, event: Event) -> None:
        """Move the response side.

        :raises IllegalTransition: when it cannot happen now.
        """
        try:
            self.response = TRANSITIONS[self.response][event]
        except KeyError:
            raise IllegalTransition(f"response: {event.value} while {self.response.value}") from None

    @property
    def is_complete(self) -> bool:
        """Both messages are whole."""
        return self.request is Side.DONE and self.response is Side.DONE

    def next(self) -> bool:
        """Begin the next exchange; False: this connection carries no other."""
        if self.request is _DONE and self.response is _DONE:
            # What the table says of NEXT and of LAST.
            self.request = self.response = _IDLE if self.keep_alive else _MUST_CLOSE
            return self.keep_alive
        self.on_request(Event.LAST)
        self.on_response(Event.LAST)
        return False
