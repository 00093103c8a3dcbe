"""What a protocol needs that puts another in its place: other addresses, and bytes that were read already.

Knows nothing of why it steps aside.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from zope.interface import directlyProvides, providedBy

__all__ = ["Relabelled", "deliver_behind"]

_log = Logger()


class Relabelled:
    """A transport that tells other addresses; everything else is the transport's own doing.

    For transports that cannot be told other addresses themselves.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def deliver_behind(transport: Any, protocol: IProtocol, data: bytes, clock: Any) -> None:
    """Connect *protocol*, and give it *data* as if that were read from the transport next.

    A protocol may pause the transport while it is being connected, until it
    is ready for data.  Then *data* waits, too, and comes when it resumes:
    before anything that is read later, and never from inside its own call.
    """
    held = _HeldBack(transport, protocol, data, clock)
    protocol.makeConnection(transport)
    held.connected()


class _HeldBack:
    """Watches over a transport's pausing while there are bytes that were read and not delivered."""

    def __init__(self, transport: Any, protocol: IProtocol, data: bytes, clock: Any) -> None:
        self._transport = transport
        self._protocol = protocol
        self._data = data
        self._clock = clock
        self._pause_transport = transport.pauseProducing
        self._is_paused = False
        self._was_paused = False
        transport.pauseProducing = self._pause
        transport.resumeProducing = self._resume

    def _pause(self) -> None:
        self._is_paused = self._was_paused = True
        self._pause_transport()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._clock.callLater(0, self._deliver_later)

    def connected(self) -> None:
        """The protocol was connected: deliver, unless it paused."""
        if not self._is_paused and not self._was_paused:
            self._deliver()

    def _deliver_later(self) -> None:
        if self._is_paused or not self._data:
            return
        try:
            self._deliver()
        except Exception:
            # As when the reactor calls dataReceived: the connection is over.
            _log.failure("{protocol!r} failed on what came with its PROXY header", protocol=self._protocol)
            self._transport.abortConnection()

    def _deliver(self) -> None:
        transport, data, self._data = self._transport, self._data, b""
        del transport.pauseProducing, transport.resumeProducing
        if self._was_paused:
            transport.resumeProducing()
        if _is_reading(transport):
            self._protocol.dataReceived(data)


def _is_reading(transport: Any) -> bool:
    """Whether the transport would still deliver: not once closing was asked for."""
    return bool(
        getattr(transport, "connected", True)
        and not getattr(transport, "disconnecting", False)
        and not getattr(transport, "_aborting", False)
    )
