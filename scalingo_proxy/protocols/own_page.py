"""A page of an app's own on its way to a client, as fast as that takes it.

Stands where a backend stands in an exchange: a page of ten megabytes for each of
a thousand clients that do not read must not lie in a thousand buffers.  Which
page it is, and why, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalingo_proxy.protocols.exchange_ending import ExchangeEnding

__all__ = ["SMALL_PAGE_BYTES", "OwnPage"]

#: A page up to this is sent in one piece.
SMALL_PAGE_BYTES = 65536


class OwnPage:
    """The source of a large page; pausing is what a backend's connection does, too.

    :param exchange: who sends it.
    """

    __slots__ = ("_at", "_body", "_exchange", "_is_going_on", "_is_paused")

    def __init__(self, exchange: ExchangeEnding, body: bytes) -> None:
        self._exchange: ExchangeEnding | None = exchange
        self._body = body
        self._at = 0
        self._is_paused = False
        self._is_going_on = False

    def pause_response(self) -> None:
        """The client does not keep up."""
        self._is_paused = True

    def resume_response(self) -> None:
        """The client has caught up."""
        self._is_paused = False
        self.go_on()

    def abandon(self) -> None:
        """Nobody waits for the rest."""
        self._exchange = None

    def go_on(self) -> None:
        """Send until the client does not keep up, or all is sent."""
        if self._is_going_on:
            return
        self._is_going_on = True
        try:
            while not self._is_paused and self._exchange is not None:
                exchange, part = self._exchange, self._body[self._at : self._at + SMALL_PAGE_BYTES]
                self._at += len(part)
                if self._at < len(self._body):
                    exchange.response_payload(part)
                else:
                    self._exchange = None
                    exchange.response_ended(part, [])
        finally:
            self._is_going_on = False
