"""What may go wrong between the two ends of one connection, and how it does.

A :class:`Line` stands between two sockets and decides which bytes pass, when,
and what becomes of them; what is wrong with it are its :class:`Trouble`
objects.  It knows bytes and time only, so that every protocol can suffer
from it.  Which connection has which trouble is decided in
:mod:`scalingo_proxy.testing.faults` and ``fault_plan``.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

if TYPE_CHECKING:
    from scalingo_proxy.testing.sockets import MemorySocket

__all__ = [
    "CuttingTrouble",
    "DrippingTrouble",
    "GarblingTrouble",
    "IdleClosingTrouble",
    "Line",
    "ResettingTrouble",
    "StallingTrouble",
    "Trouble",
]


class Line:
    """The way between both ends of one connection.

    :ivar near: the end that connected; what it sends is the request.
    :ivar far: the end that accepted; what it sends is the response.
    :ivar is_cut: nothing arrives any more, in either direction, and neither
        end is told: no FIN, no reset.
    """

    def __init__(self, near: MemorySocket) -> None:
        self.near = near
        self.far = near.peer
        self.is_cut = False
        self._troubles: list[Trouble] = []

    @classmethod
    def of(cls, near: MemorySocket) -> Line:
        """The line of the connection that *near* began; a new one if nothing was wrong so far."""
        line = near.line
        if line is None:
            line = near.line = near.peer.line = cls(near)
        return line

    def add(self, trouble: Trouble) -> None:
        """Let *trouble* happen from the next byte on."""
        self._troubles.append(trouble)
        trouble.start()

    @property
    def is_open(self) -> bool:
        """Whether the end of a direction (FIN) gets through now."""
        return not (self.is_cut or any(trouble.holds for trouble in self._troubles))

    def admits(self, sender: MemorySocket, size: int) -> int:
        """How many of the next *size* bytes of *sender* pass now."""
        if self.is_cut:
            return 0
        for trouble in self._troubles:
            size = trouble.admits(sender, size)
        return size

    def carried(self, sender: MemorySocket, data: bytes) -> bytes:
        """What becomes of *data* under way."""
        for trouble in self._troubles:
            data = trouble.carried(sender, data)
        return data

    def passed(self, sender: MemorySocket, size: int) -> None:
        """So many bytes of *sender* are on their way."""
        for trouble in self._troubles:
            trouble.passed(sender, size)

    def end(self) -> None:
        """Both ends are closed: nothing can happen any more."""
        for trouble in self._troubles:
            trouble.end()

    def pump(self) -> None:
        """Let both ends send what was held back."""
        for socket in (self.near, self.far):
            socket.pump()


class Trouble:
    """One thing that is wrong with one line.

    :ivar holds: nothing passes for now.

    :param at: after how many bytes of the direction *of* it begins.
    :param of: ``"request"`` or ``"response"``.
    """

    def __init__(self, line: Line, at: int = 0, of: str = "response") -> None:
        self.line = line
        self.holds = False
        self._sender = line.near if of == "request" else line.far
        self._left = at
        self._has_begun = False
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin at once if no byte is to pass before."""
        if not self._left:
            self._has_begun = True
            self.begin()

    def admits(self, sender: MemorySocket, size: int) -> int:
        """How many of the next *size* bytes of *sender* pass now."""
        if self.holds:
            return 0
        if self._has_begun:
            return self.admits_then(sender, size)
        return min(size, self._left) if sender is self._sender else size

    def passed(self, sender: MemorySocket, size: int) -> None:
        """So many bytes of *sender* are on their way."""
        if self._has_begun:
            self.passed_then(sender, size)
        elif sender is self._sender:
            self._left -= size
            self.start()

    def carried(self, sender: MemorySocket, data: bytes) -> bytes:
        """What becomes of *data* under way."""
        return data

    def begin(self) -> None:
        """The byte was reached."""

    def admits_then(self, sender: MemorySocket, size: int) -> int:
        """As :meth:`admits`, once it has begun."""
        return size

    def passed_then(self, sender: MemorySocket, size: int) -> None:
        """As :meth:`passed`, once it has begun."""

    def end(self) -> None:
        """The trouble is over, or the connection is."""
        self._call_off()
        self.holds = False

    def later(self, seconds: float, call: Any) -> None:
        """Call *call* after *seconds* instead of whatever was to be called."""
        self._call_off()
        self._timer = self.line.near.kernel.clock.callLater(seconds, call)

    def _call_off(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class ResettingTrouble(Trouble):
    """Both ends see a reset."""

    def begin(self) -> None:
        """Reset, behind the bytes that passed."""
        self.line.near.break_off()


class CuttingTrouble(Trouble):
    """Neither end hears of the other again."""

    def begin(self) -> None:
        """Cut; what is under way still arrives."""
        self.line.is_cut = True


class StallingTrouble(Trouble):
    """Nothing passes for some seconds, or ever; the connection stays.

    :param seconds: how long; infinity for ever.
    """

    def __init__(self, line: Line, at: int, of: str, seconds: float) -> None:
        super().__init__(line, at, of)
        self._seconds = seconds

    def begin(self) -> None:
        """Hold both directions."""
        self.holds = True
        if self._seconds != float("inf"):
            self.later(self._seconds, self._release)

    def _release(self) -> None:
        self.end()
        self.line.pump()


class DrippingTrouble(Trouble):
    """One direction passes a few bytes at a time.

    :param size: how many bytes at a time.
    :param every: seconds between two times.
    """

    def __init__(self, line: Line, at: int, of: str, size: int, every: float) -> None:
        super().__init__(line, at, of)
        self._size = self._allowance = size
        self._every = every
        self._is_over = False

    def admits_then(self, sender: MemorySocket, size: int) -> int:
        """No more than is allowed until the next time."""
        return size if sender is not self._sender or self._is_over else min(size, self._allowance)

    def passed_then(self, sender: MemorySocket, size: int) -> None:
        """Allow more in a while."""
        if sender is self._sender and not self._is_over:
            self._allowance -= size
            if self._timer is None:
                self.later(self._every, self._allow)

    def _allow(self) -> None:
        self._timer = None
        self._allowance = self._size
        self._sender.pump()

    def end(self) -> None:
        """Let everything pass."""
        super().end()
        self._is_over = True


class IdleClosingTrouble(Trouble):
    """The far end closes when nothing has passed for some seconds since its last byte."""

    def __init__(self, line: Line, seconds: float) -> None:
        super().__init__(line)
        self._seconds = seconds

    def passed_then(self, sender: MemorySocket, size: int) -> None:
        """A response starts the clock, a request stops it."""
        if sender is self._sender:
            self.later(self._seconds, self._close)
        else:
            self._call_off()

    def _close(self) -> None:
        descriptor: Any = self._sender.descriptor
        if descriptor is not None:
            descriptor.loseConnection()


class GarblingTrouble(Trouble):
    """The bytes of one direction become others.

    :param seed: decides which.
    """

    def __init__(self, line: Line, at: int, of: str, seed: int) -> None:
        super().__init__(line, at, of)
        self._random = Random(seed)
        self._is_over = False

    def carried(self, sender: MemorySocket, data: bytes) -> bytes:
        """As many bytes, at random."""
        if sender is not self._sender or not self._has_begun or self._is_over:
            return data
        return self._random.randbytes(len(data))

    def end(self) -> None:
        """Leave bytes as they are."""
        super().end()
        self._is_over = True
