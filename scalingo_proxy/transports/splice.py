"""Bytes from one TCP connection to another that never enter this process.

Linux moves them through a pipe (``splice(2)``) without copying.  The two
transports stay what they are: they own their sockets, are polled by the
reactor, close, half-close and abort as always.  Only what happens when one of
them can be read, and the other one written, is put in the place of their own
``doRead`` and ``doWrite``, on these two objects alone, as Twisted itself does
when a connection is aborted.

Each time it is decided anew whether bytes are spliced or take the ordinary way
through the protocol: while the ordinary way still has bytes buffered, or no
pipe is to be had, they do the latter.  Two rules keep them in order: nothing is
spliced while the destination buffers anything, and nothing is read while the
pipe holds anything.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection

from scalingo_proxy.transports.eager import Eager
from scalingo_proxy.transports.pipes import Pipe, Pipes

__all__ = ["Splice", "begin_splice", "can_be_spliced"]

#: What a kernel answers that does not splice these sockets at all.
_NEVER = frozenset((errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP))

_NO_BOUND = 1 << 62

if hasattr(os, "splice"):
    _splice = os.splice
    _FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
else:  # pragma: no cover - Linux alone has it
    _FLAGS = 0


def can_be_spliced(transport: Any) -> bool:
    """Whether the bytes of *transport* are those of a TCP socket, with nothing in between."""
    if isinstance(transport, Eager):  # of TCP always
        return transport.connected == 1 and not ISSLTransport.providedBy(transport)
    return (
        isinstance(transport, Connection)
        and not ISSLTransport.providedBy(transport)
        and transport.connected == 1
        and transport.socket.family in (socket.AF_INET, socket.AF_INET6)
    )


def begin_splice(
    source: Any,
    destination: Any,
    pipes: Pipes,
    moved: Callable[[int], None],
    left: Callable[[], int] | None = None,
    held: Callable[[bool], None] | None = None,
) -> Splice | None:
    """Splice what *source* receives to *destination* from now on; ``None`` where that cannot be done.

    :param moved: told how many bytes came from *source* each time some did,
        and 0 when some that had come before went on to *destination*.
    :param left: how many may still be spliced; all others take the ordinary way.
    :param held: told when *destination* takes no more for now, and when it does again.
    """
    if not (pipes.are_of_use and can_be_spliced(source) and can_be_spliced(destination)):
        return None
    return Splice(source, destination, pipes, moved, left, held)


class Splice:
    """One direction between two transports, until :meth:`stop` is called."""

    __slots__ = ("_destination", "_held", "_left", "_moved", "_pipe", "_pipes", "_source")

    def __init__(
        self,
        source: Any,
        destination: Any,
        pipes: Pipes,
        moved: Callable[[int], None],
        left: Callable[[], int] | None = None,
        held: Callable[[bool], None] | None = None,
    ) -> None:
        self._source = source
        self._destination = destination
        self._pipes = pipes
        self._moved = moved
        self._left = left
        self._held = held
        self._pipe: Pipe | None = None
        source.doRead = self._read
        destination.doWrite = self._write

    @property
    def held(self) -> int:
        """How many bytes were read and not written yet."""
        return self._pipe.held if self._pipe is not None else 0

    def source_lost(self) -> None:
        """Nothing more will come; what is held still goes out."""
        if self._pipe is None:
            self.stop()

    def stop(self) -> None:
        """Give both transports back as they were; what is held is lost."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._pipes.give_back(pipe)
        _restore(self._source, "doRead", self._read)
        destination = self._destination
        is_free = _restore(destination, "doWrite", self._write)
        if is_free and pipe is not None and isinstance(destination, Eager):
            destination.send_again()

    # -- called by the reactor, as methods of the transports ------------------

    def _read(self) -> Any:
        """The source can be read."""
        source, destination = self._source, self._destination
        if self._pipe is not None:
            source.pauseProducing()
            return None
        # A buffer that is not empty goes first.
        if destination.dataBuffer or destination._tempDataLen or not destination.connected:
            return type(source).doRead(source)
        most = self._left() if self._left is not None else _NO_BOUND
        pipe = self._pipes.take() if most > 0 else None
        if pipe is None:
            return type(source).doRead(source)
        try:
            count = _splice(source.fileno(), pipe.sink, min(pipe.capacity, most), flags=_FLAGS)
        except BlockingIOError:
            self._pipes.give_back(pipe)
            return None
        except OSError as error:
            self._pipes.give_back(pipe)
            return self._read_failed(error)
        if not count:
            self._pipes.give_back(pipe)
            return CONNECTION_LOST if getattr(source, "has_failed", False) else CONNECTION_DONE
        self._moved(count)
        try:
            pipe.held = count - _splice(pipe.source, destination.fileno(), count, flags=_FLAGS)
        except OSError:
            pipe.held = count  # no room; or it is broken, and the next attempt says so to whom it concerns
        if pipe.held:
            self._pipe = pipe
            source.pauseProducing()
            destination.startWriting()
            if isinstance(destination, Eager):
                destination.fall_behind()  # a write must not overtake what the pipe holds
            if self._held is not None:
                self._held(True)
        else:
            self._pipes.give_back(pipe)
        return None

    def _read_failed(self, error: OSError) -> Any:
        if error.errno not in _NEVER:
            return CONNECTION_LOST
        self._pipes.give_up()
        self.stop()
        return self._source.doRead()

    def _write(self) -> Any:
        """The destination has room."""
        source, destination, pipe = self._source, self._destination, self._pipe
        if pipe is not None:
            try:
                pipe.held -= _splice(pipe.source, destination.fileno(), pipe.held, flags=_FLAGS)
            except BlockingIOError:
                return None
            except OSError as error:
                return self._write_failed(error, pipe)
            self._moved(0)
            if pipe.held:
                return None
            self._pipe = None
            self._pipes.give_back(pipe)
            if isinstance(destination, Eager):
                destination.send_again()
            if self._held is not None:
                self._held(False)
            if source.connected:
                source.resumeProducing()
            else:
                self.stop()
        # Stop polling, or close if that was asked for meanwhile.
        return type(destination).doWrite(destination)

    def _write_failed(self, error: OSError, pipe: Pipe) -> Any:
        if error.errno not in _NEVER:
            return CONNECTION_LOST
        # This kernel takes bytes from a socket and does not give them to one.
        self._pipes.give_up()
        held = os.read(pipe.source, pipe.held)
        while len(held) < pipe.held:
            held += os.read(pipe.source, pipe.held - len(held))
        pipe.held = 0
        self.stop()
        self._source.resumeProducing()
        self._destination.write(held)
        return None


def _restore(transport: Any, name: str, method: Callable[[], Any]) -> bool:
    """Take *method* out of *transport*, if it is still there: an abort replaces it."""
    is_there: bool = transport.__dict__.get(name) == method
    if is_there:
        delattr(transport, name)
    return is_there
