"""Lines go to a file, a pipe or a terminal without ever holding up the reactor.

Knows descriptors and bytes that end in a newline, not what the lines say.

A thread of its own does the writing, because that is the one way that covers
every destination.  ``O_NONBLOCK`` means nothing to a file, and a full or
remote disk makes writers wait like a pipe that nobody reads; set on standard
output, the flag would also hit every other process that shares the pipe or
terminal.  The reactor's thread pool would do the waiting too, but is joined
when the process stops, and a blocked pipe would then keep it from stopping.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["BACKLOG_BYTES", "LineWriter"]

#: How much may wait for a destination that does not take it.
BACKLOG_BYTES = 4 * 1024 * 1024


class LineWriter:
    """Writes what it is handed in order, and drops it when it cannot.

    Methods are called from one thread (the reactor's).  The numbers below are
    counted by one thread each, so they need no lock.

    :param descriptor: where to write; it is closed in the end.
    :param backlog_bytes: beyond this much waiting, new lines are dropped.
    :ivar error: why the last write failed, or ``None`` if it did not.
    """

    def __init__(self, descriptor: int, backlog_bytes: int = BACKLOG_BYTES) -> None:
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._backlog_bytes = backlog_bytes
        self._orders: SimpleQueue[bytes | int | Callable[[], None]] = SimpleQueue()
        self._bytes_taken = 0
        self._bytes_done = 0
        self._lines_refused = 0
        self._lines_failed = 0
        self._is_torn = False
        # A daemon: when the destination blocks for good, the process still ends.
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)

    @property
    def dropped(self) -> int:
        """How many lines were never written, for want of room or because writing failed."""
        return self._lines_refused + self._lines_failed

    @property
    def waiting_bytes(self) -> int:
        """How much was handed in and is not dealt with yet."""
        return self._bytes_taken - self._bytes_done

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, lines: bytes) -> None:
        """Take *lines*, each with its line end; returns at once, whatever the destination does."""
        if self.waiting_bytes + len(lines) > self._backlog_bytes:
            self._lines_refused += lines.count(b"\n")
            return
        self._bytes_taken += len(lines)
        self._orders.put(lines)

    def switch_to(self, descriptor: int) -> None:
        """Write what comes from now on to *descriptor*, what came before to the old one."""
        self._orders.put(descriptor)

    def stop(self, stopped: Callable[[], None]) -> None:
        """Write what is waiting, close, and then call *stopped* from the writing thread."""
        self._orders.put(stopped)

    # -- in the writing thread ---------------------------------------------

    def _run(self) -> None:
        while True:
            order = self._orders.get()
            if isinstance(order, bytes):
                self._write(order)
                self._bytes_done += len(order)
            elif isinstance(order, int):
                self._close()
                self._descriptor = order
                self._is_torn = False
            else:
                self._close()
                order()
                return

    def _close(self) -> None:
        try:
            os.close(self._descriptor)
        except OSError as error:  # a remote disk tells only now that it is full
            self.error = error

    def _write(self, lines: bytes) -> None:
        if self._is_torn:
            # A full disk cut a line short: end it, so that it does not swallow the next one.
            self._is_torn = self._write_some(b"\n") == 0
        written = 0 if self._is_torn else self._write_some(lines)
        if written < len(lines):
            self._lines_failed += lines.count(b"\n", written)
            self._is_torn = self._is_torn or (written > 0 and lines[written - 1] != ord("\n"))

    def _write_some(self, data: bytes) -> int:
        """Write until done or an error, which is kept; how much was written."""
        written = 0
        while written < len(data):
            try:
                written += os.write(self._descriptor, memoryview(data)[written:])
            except BlockingIOError:
                # Some other process that shares the pipe has made it non-blocking.
                ready = select.poll()
                ready.register(self._descriptor, select.POLLOUT)
                ready.poll()
            except OSError as error:
                self.error = error
                return written
        self.error = None
        return written
