"""Accepting pauses before the process runs out of descriptors.

New clients then wait in the system's queue for a moment, instead of taking the
descriptors that those already here need for their backends, the admin API and
the log.  How many may come in is decided elsewhere; here that is what ports
keep to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

__all__ = ["BACK_OFF_SECONDS", "LOOK_AGAIN_SECONDS", "AcceptGate"]

_log = Logger()

#: How soon a closed gate looks whether there is room again.
LOOK_AGAIN_SECONDS = 0.02

#: How long a port rests whose accept fails without taking a client off the queue.
BACK_OFF_SECONDS = 0.25

#: How often in a row that may happen: another process may have been quicker.
_FRUITLESS_ACCEPTS = 3

#: How long the gate stays open before the log says that the shortage is over.
_CALM_SECONDS = 5.0


class AcceptGate:
    """Stops ports from accepting while there is no room, and starts them again.

    :param clock: gives ``seconds()`` and ``callLater()``.
    :param room: how many clients may come in now.
    :param make_room: gives up what nobody would miss.
    :ivar pauses: how often accepting was paused.
    """

    def __init__(self, clock: Any, room: Callable[[], int], make_room: Callable[[], None]) -> None:
        self._clock = clock
        self._room = room
        self._make_room = make_room
        self._ports: set[_GuardedPort] = set()
        self._paused: dict[_GuardedPort, None] = {}
        self._timer: Any = None
        self._was_told = False
        self._last_pause = 0.0
        self.pauses = 0

    @property
    def is_paused(self) -> bool:
        """Whether new clients wait."""
        return bool(self._paused)

    def guard(self, port: Any, accepted: Callable[[], int] | None = None) -> Callable[[], None]:
        """Have *port* accept only while there is room.

        A port that is not Twisted's, or does not take clients in the same way, is left alone.

        :param accepted: how many clients *port* has taken in so far; left out, those that its factory
            has not turned away are counted.
        :return: what is to be called before the port closes.
        """
        if not all(
            hasattr(port, name) for name in ("doRead", "numberAccepts", "stopReading", "startReading")
        ):
            return _nothing
        guarded = _GuardedPort(self, port, accepted or (lambda: int(getattr(port, "sessionno", 0))))
        self._ports.add(guarded)
        return guarded.leave

    # -- called by the ports --------------------------------------------------

    def admit(self, port: _GuardedPort) -> int:
        """How many clients *port* may take in now; if none, it is paused."""
        room = self._room_now()
        if room <= 0:
            self._pause(port, LOOK_AGAIN_SECONDS)
            self._tell("descriptors are running out: new clients wait until some are free")
        return room

    def back_off(self, port: _GuardedPort) -> None:
        """The system gives *port* no client, although one waits."""
        self._pause(port, BACK_OFF_SECONDS)
        self._tell("new clients cannot be accepted now: they wait")

    def forget(self, port: _GuardedPort) -> None:
        """*port* closes."""
        self._ports.discard(port)
        self._paused.pop(port, None)
        if not self._ports and self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()

    # -- inner parts ----------------------------------------------------------

    def _room_now(self) -> int:
        """How many clients may come in; if none, what can be done about that is begun."""
        try:
            room = self._room()
            if room <= 0:
                self._make_room()
        except Exception:
            # The reactor would close the port for it.
            _log.failure("it is not known whether there is room for clients")
            return 1
        return room

    def _pause(self, port: _GuardedPort, seconds: float) -> None:
        if not self._paused:
            self.pauses += 1
        self._paused[port] = None
        self._last_pause = self._clock.seconds()
        port.port.stopReading()
        self._look_in(seconds)

    def _tell(self, sentence: str) -> None:
        if not self._was_told:  # it comes and goes many times a second
            self._was_told = True
            _log.warn("{sentence}", sentence=sentence)

    def _look_in(self, seconds: float) -> None:
        timer = self._timer
        if timer is None:
            self._timer = self._clock.callLater(seconds, self._look)
        elif timer.getTime() > self._clock.seconds() + seconds:
            timer.reset(seconds)

    def _look(self) -> None:
        self._timer = None
        if not self._paused:
            if self._clock.seconds() - self._last_pause >= _CALM_SECONDS:
                self._was_told = False
                _log.info("new clients are accepted as they come again")
            else:
                self._look_in(_CALM_SECONDS)
        elif self._room_now() > 0:
            paused, self._paused = self._paused, {}
            for port in paused:
                port.port.startReading()
            self._look_in(_CALM_SECONDS)
        else:
            self._look_in(LOOK_AGAIN_SECONDS)


class _GuardedPort:
    """A port whose ``doRead`` asks first.

    That is put in the place of the port's own on this one object, so that the
    reactor calls it and every kind of port stays what it is.
    """

    __slots__ = ("_accepted", "_fruitless", "_gate", "port")

    def __init__(self, gate: AcceptGate, port: Any, accepted: Callable[[], int]) -> None:
        self._gate = gate
        self._accepted = accepted
        self._fruitless = 0
        self.port = port
        port.doRead = self._read

    def leave(self) -> None:
        """The port closes."""
        if self.port.__dict__.get("doRead") == self._read:
            del self.port.doRead
        self._gate.forget(self)

    def _read(self) -> Any:
        """There are clients to accept."""
        port, before = self.port, self._accepted()
        room = self._gate.admit(self)
        if room <= 0:
            return None
        if room < port.numberAccepts:
            port.numberAccepts = room
        result = type(port).doRead(port)
        if self._accepted() != before:
            self._fruitless = 0
        else:
            # Where the system has no descriptor or memory for it, the client stays in the queue
            # and the port is ready again at once: without a rest, that would go round and round.
            self._fruitless += 1
            if self._fruitless >= _FRUITLESS_ACCEPTS:
                self._fruitless = 0
                if not port.disconnecting:
                    self._gate.back_off(self)
        return result


def _nothing() -> None:
    """There is nothing to undo."""
