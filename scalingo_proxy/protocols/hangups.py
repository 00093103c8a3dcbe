"""Clients that leave while nobody reads from them.

A paused transport is not in the reactor's poll, so neither FIN nor RST would be
seen before a deadline, and the backend would work for nobody.  All clients
whose reading is paused for an answer are asked together, by one system call
every half second, and only while there are any.
"""

from __future__ import annotations

import select
import socket
from typing import Any

__all__ = ["LOOK_SECONDS", "Hangups"]

#: How long a client's leaving may go unnoticed.
LOOK_SECONDS = 0.5

_EVENTS = getattr(select, "POLLRDHUP", 0)


class Hangups:
    """Looks for hang-ups of those it was asked to watch.

    Each has ``transport``, ``is_reading_paused`` and ``hung_up()``.  Transports
    that are no sockets are passed over: they tell of their end all the same.

    :param clock: gives ``callLater()``.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._watched: dict[int, Any] = {}
        self._timer: Any = None

    def watch(self, client: Any) -> None:
        """Tell *client* when its peer hangs up, as long as its reading is paused."""
        descriptor = _descriptor(client.transport)
        if descriptor >= 0 and _EVENTS:
            self._watched[descriptor] = client
            if self._timer is None:
                self._timer = self._clock.callLater(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Leave no timer behind."""
        timer, self._timer = self._timer, None
        self._watched.clear()
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self) -> None:
        self._timer = None
        poll = select.poll()
        for descriptor, client in list(self._watched.items()):
            # A descriptor that was closed may be somebody else's by now.
            if client.is_reading_paused and _descriptor(client.transport) == descriptor:
                poll.register(descriptor, _EVENTS)
            else:
                del self._watched[descriptor]
        for descriptor, _ in poll.poll(0):
            self._watched.pop(descriptor).hung_up()
        if self._watched and self._timer is None:
            self._timer = self._clock.callLater(LOOK_SECONDS, self._look)


def _descriptor(transport: Any) -> int:
    """The socket below *transport*, or -1."""
    while transport is not None:
        get_handle = getattr(transport, "getHandle", None)
        try:
            handle = get_handle() if get_handle is not None else None
        except AttributeError:
            return -1  # a connection that is gone has no socket any more
        if isinstance(handle, socket.SocketType):
            return handle.fileno()
        transport = getattr(transport, "transport", None)
    return -1
