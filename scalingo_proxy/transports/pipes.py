"""The pipes that spliced bytes pass through, shared by all tunnels of a proxy.

A pipe is held only while there are bytes in it, so the number of pipes follows
from how many readers are slow at the moment and not from how many tunnels are
open.  What moves through them is not known here.
"""

from __future__ import annotations

import os
from collections.abc import Callable

try:
    from fcntl import F_GETPIPE_SZ, F_SETPIPE_SZ, fcntl
except ImportError:  # pragma: no cover - Linux alone has them
    fcntl = None  # type: ignore[assignment]

__all__ = ["Pipe", "Pipes"]

#: The first pipes are as large as any user may ask for by default, because that
#: about halves the cost of a gigabyte.  There are few of them, because Linux lets a
#: user have 64 MB in pipes before further ones hold next to nothing.
_LARGE_BYTES = 1048576
_LARGE_PIPES = 32

#: The others are of Linux's own size.  A smaller one is worse than none.
_LEAST_BYTES = 65536

#: Empty pipes kept for the next to come.
_KEPT = _LARGE_PIPES


class Pipe:
    """A pipe and what is in it.

    :ivar source: the descriptor to read from.
    :ivar sink: the descriptor to write to.
    :ivar capacity: how many bytes are put into it at most.
    :ivar held: how many bytes are in it.
    """

    __slots__ = ("capacity", "held", "sink", "source")

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.capacity = 0
        self.held = 0

    def close(self) -> None:
        """Throw it away with all that is in it."""
        os.close(self.source)
        os.close(self.sink)


class Pipes:
    """Gives pipes out and takes them back.

    :ivar has_room: whether the descriptors of a further pipe can be spared.
    """

    def __init__(self) -> None:
        self._empty: list[Pipe] = []
        self._given = 0
        self._large = 0
        self._is_closed = False
        #: Whether splicing works here, as far as is known.
        self.are_of_use = hasattr(os, "splice") and fcntl is not None
        self.has_room: Callable[[], bool] = _always

    @property
    def given_count(self) -> int:
        """How many are in use."""
        return self._given

    @property
    def kept_count(self) -> int:
        """How many are open without being used."""
        return len(self._empty)

    def take(self) -> Pipe | None:
        """An empty pipe, or ``None`` when there are no more to have."""
        if self._empty:
            self._given += 1
            return self._empty.pop()
        pipe = self._open() if self.are_of_use and self.has_room() else None
        if pipe is not None:
            self._given += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """It is used no more; one that is not empty is thrown away."""
        self._given -= 1
        if pipe.held or self._is_closed or len(self._empty) >= _KEPT:
            self._throw_away(pipe)
        else:
            self._empty.append(pipe)

    def give_up(self) -> None:
        """It was found that splicing does not work here: give out none from now on."""
        self.are_of_use = False
        self.close()

    def open(self) -> None:
        """Keep empty pipes from now on."""
        self._is_closed = not self.are_of_use

    def close(self) -> None:
        """Keep none: close those that are empty now, and each other one when it comes back."""
        self._is_closed = True
        self.shed()

    def shed(self) -> None:
        """Close those that are empty; further ones are opened when they are needed."""
        while self._empty:
            self._throw_away(self._empty.pop())

    def _open(self) -> Pipe | None:
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return None  # out of descriptors, or of memory for them
        if self._large < _LARGE_PIPES:
            try:
                fcntl(pipe.sink, F_SETPIPE_SZ, _LARGE_BYTES)
            except OSError:
                pass  # this user has much in pipes already, or may not have large ones
        pipe.capacity = fcntl(pipe.sink, F_GETPIPE_SZ)
        if pipe.capacity < _LEAST_BYTES:
            pipe.close()
            return None
        if pipe.capacity >= _LARGE_BYTES:
            self._large += 1
        return pipe

    def _throw_away(self, pipe: Pipe) -> None:
        if pipe.capacity >= _LARGE_BYTES:
            self._large -= 1
        pipe.close()


def _always() -> bool:
    return True
