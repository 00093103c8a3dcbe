"""A tunnel that carries a WebSocket, so that it can be ended with a word to the client.

It goes by the frames of the backend's direction and is otherwise the tunnel
that it derives from.  That direction is never spliced, since nothing could be
put between frames that do not pass through here.  What ends it, and when, is
not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scalingo_proxy.protocols.relay import CLOSING_SECONDS, NEVER, Relay, RelayEnd
from scalingo_proxy.transports.pipes import Pipes
from scalingo_proxy.wire.websocket_frames import SERVICE_RESTART, FrameBoundaries, close_frame

__all__ = ["WebSocketRelay"]

#: How long the rest of a frame that was begun is waited for.
_FRAME_SECONDS = 1.0

#: How long client and backend may take for their closing handshake (RFC 6455 §7.1.2).
_HANDSHAKE_SECONDS = 2.0

_GOODBYE = close_frame(SERVICE_RESTART, "Service Restart")

# How far the end has come.
_OPEN, _IN_FRAME, _IN_FRAME_SAID, _SAID, _CLOSING = range(5)


class _FramedEnd(RelayEnd):
    """The backend's side: knows where its frames end, and says the last one itself."""

    __slots__ = ("frames",)

    _relay: WebSocketRelay

    def __init__(self, relay: WebSocketRelay, transport: Any) -> None:
        super().__init__(relay, transport, NEVER)
        self.frames = FrameBoundaries()

    def data_received(self, data: bytes) -> None:
        relay = self._relay
        if relay.stage == _OPEN:
            self.frames.receive(data)
            super().data_received(data)
        elif relay.stage == _IN_FRAME:
            count = self.frames.receive_to_boundary(data)
            super().data_received(data[:count])
            if self.frames.is_between_frames:
                relay.say_goodbye(_IN_FRAME_SAID)
        # Nothing follows a close frame (RFC 6455 §5.5.1).


class WebSocketRelay(Relay):
    """A WebSocket between a client and a backend; the parameters are those of :class:`Relay`.

    To leave, it sends the client a close frame with the code 1012 as soon as
    the backend is between two frames.  The client's own close frame goes to
    the backend as everything the client says does, so both sides end their
    WebSocket in order.
    """

    __slots__ = ("stage",)

    backend: _FramedEnd

    def __init__(
        self,
        client_transport: Any,
        backend_transport: Any,
        alive: Callable[[], None],
        ended: Callable[[], None],
        pipes: Pipes | None = None,
    ) -> None:
        super().__init__(client_transport, backend_transport, alive, ended, pipes)
        self.stage = _OPEN
        self.backend = _FramedEnd(self, backend_transport)
        self.client.peer, self.backend.peer = self.backend, self.client

    def leave(self) -> float:
        self.begin_leaving()
        if not self.backend.frames.is_between_frames:
            self.stage = _IN_FRAME
            return _FRAME_SECONDS
        self.say_goodbye(_SAID)
        return _HANDSHAKE_SECONDS

    def leave_further(self) -> float:
        if self.stage == _IN_FRAME_SAID:
            self.stage = _SAID
            return _HANDSHAKE_SECONDS
        if self.stage == _SAID:
            self.stage = _CLOSING
            self.close()
            return CLOSING_SECONDS
        return 0.0

    def say_goodbye(self, stage: int) -> None:
        """The last frame that the client gets, unless the backend has sent it."""
        self.stage = stage
        if self.client.can_be_written and not self.backend.frames.has_closed:
            self.client.transport.write(_GOODBYE)
