"""Accepting pauses before the process runs out of descriptors.

New clients then wait in the system's queue for a moment, instead of taking the
descriptors that those already here need for their backends, the admin API and
the log.  Knows ports only as something that can stop and start reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

__all__ = ["LOOK_AGAIN_SECONDS", "Gate", "descriptor_room"]

_log = Logger()

#: How soon a closed gate looks whether there is room again.
LOOK_AGAIN_SECONDS = 0.05


class Gate:
    """Stops ports from accepting while there is no room, and starts them again.

    :param clock: gives ``callLater()``.
    :param has_room: whether another client may come in.
    """

    def __init__(self, clock: Any, has_room: Callable[[], bool]) -> None:
        self._clock = clock
        self._has_room = has_room
        self._paused: dict[Any, None] = {}
        self._timer: Any = None

    def accepted(self, port: Any) -> None:
        """*port* has taken a client in."""
        if self._has_room() or port in self._paused or not hasattr(port, "stopReading"):
            return
        if not self._paused:
            _log.warn("descriptors are running out: new clients wait until some are free")
        self._paused[port] = None
        port.stopReading()
        if self._timer is None:
            self._timer = self._clock.callLater(LOOK_AGAIN_SECONDS, self._look)

    def forget(self, port: Any) -> None:
        """*port* closes."""
        self._paused.pop(port, None)
        if not self._paused and self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._has_room():
            paused, self._paused = self._paused, {}
            for port in paused:
                port.startReading()
        else:
            self._timer = self._clock.callLater(LOOK_AGAIN_SECONDS, self._look)


def descriptor_room(limit: int) -> int:
    """How many clients and backends may be connected under a limit of descriptors.

    The rest is for listeners, the store, the log, the admin API, pipes, and
    for the backends of clients that are here already.
    """
    return max(16, limit - 64 - limit // 10)
