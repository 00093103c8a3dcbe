"""What an operating system does between the two ends of a connection.

Bounded buffers, segments that take time, FIN and RST, as on Linux where
systems can be told apart.  Refuses to know transports and addresses.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalingo_proxy.testing.kernel import Descriptor, Kernel
    from scalingo_proxy.testing.lines import Line

__all__ = ["READABLE", "WRITABLE", "MemorySocket"]


#: What polling found out about a descriptor, as ``epoll_wait`` tells it; 0 for neither.
#: (As an ``enum.Flag`` they took a sixth of all the time of a simulation.)
READABLE, WRITABLE = 1, 2


class _Segment(enum.Enum):
    """The things other than bytes that travel over a connection."""

    FIN = "fin"
    RST = "rst"


class MemorySocket:
    """One end of a connection below the transport, like a non-blocking TCP socket.

    :ivar descriptor: who is told when this end becomes readable or writable.
    :ivar closed: this end called :meth:`close`.
    :ivar destination: the host and port that this end connected to;
        ``None`` at the end that accepted.
    :ivar line: what goes wrong between the two ends; ``None`` for nothing.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.peer: MemorySocket = self
        self.descriptor: Descriptor | None = None
        self.closed = False
        self.destination: tuple[str, int] | None = None
        self.line: Line | None = None
        self.no_delay = False
        self.keep_alive = False
        self._to_send = bytearray()
        self._received = bytearray()
        self._segments: deque[bytes | _Segment] = deque()
        self._segment_bytes = 0
        self._fin_asked = False
        self._fin_sent = False
        self._saw_fin = False
        self._saw_reset = False

    @property
    def unread_bytes(self) -> int:
        """Bytes that arrived here and were not read yet."""
        return len(self._received)

    def poll(self, reading: bool, writing: bool) -> int:
        """What this end is ready for, as ``epoll`` would tell it."""
        ready = 0
        if reading and (self._received or self._saw_fin or self._saw_reset):
            ready |= READABLE
        # Linux calls a socket writable when a third of its buffer is free.
        if writing and (len(self._to_send) * 3 <= self.kernel.buffer_bytes * 2 or self._saw_reset):
            ready |= WRITABLE
        return ready

    def recv(self, size: int) -> bytes | None:
        """Up to *size* bytes, ``b""`` at the end, ``None`` when there is nothing yet.

        :raises ConnectionResetError: when the other end aborted and
            everything that had arrived before was read.
        """
        if self._received:
            size = self.kernel.portion(min(size, len(self._received), self.kernel.read_bytes))
            data = bytes(self._received[:size])
            del self._received[:size]
            self.peer._transmit()
            return data
        if self._saw_fin:
            return b""
        if self._saw_reset:
            raise ConnectionResetError
        return None

    def send(self, data: bytes | memoryview) -> int:
        """Take as many bytes as there is room for; how many, possibly none.

        :raises BrokenPipeError: when the connection is over for writing.
        """
        if self._saw_reset or self._fin_asked:
            raise BrokenPipeError
        size = min(len(data), self.kernel.buffer_bytes - len(self._to_send))
        if size <= 0:
            return 0
        size = self.kernel.portion(size)
        self._to_send += data[:size]
        self._transmit()
        return size

    def shutdown_write(self) -> None:
        """Send a FIN behind everything taken so far."""
        self._fin_asked = True
        self._transmit()

    def close(self) -> None:
        """Close in order; what was taken still arrives.

        Bytes that arrived and were never read make it a reset, as on Linux.
        """
        if self.closed:
            return
        unread = bool(self._received)
        self._leave()
        self.shutdown_write()
        if unread:
            self._reset()
        # The room that came free lets the other end send, and learn that
        # nobody reads it.
        self.peer._transmit()

    def abort(self) -> None:
        """Close with a reset; what was taken and not transmitted vanishes."""
        if not self.closed:
            self._leave()
            self._reset()

    def _leave(self) -> None:
        self.closed = True
        self.descriptor = None
        self._received.clear()
        self.kernel.sockets.pop(self, None)
        if self.line is not None and self.peer.closed:
            self.line.end()

    def break_off(self) -> None:
        """Reset the connection for both ends, though neither asked for it."""
        for end in [end for end in (self, self.peer) if not end._saw_reset]:
            end._to_send.clear()
            end._fin_sent = True
            end._launch(_Segment.RST)

    def pump(self) -> None:
        """Send what the line did not take until now."""
        self._transmit()

    def _reset(self) -> None:
        self._to_send.clear()
        self._fin_sent = True  # nothing follows a reset
        if not self._saw_reset:
            self._launch(_Segment.RST)

    def _transmit(self) -> None:
        """Send what fits into the other end's window."""
        if self._saw_reset or self._fin_sent:
            return
        window = self.kernel.buffer_bytes - len(self.peer._received) - self._segment_bytes
        size = min(window, len(self._to_send))
        line = self.line
        if line is not None and size >= 0:
            size = line.admits(self, size)
        if size > 0:
            data = bytes(self._to_send[:size])
            del self._to_send[:size]
            if line is not None:
                data = line.carried(self, data)
            self._launch(data)
            self.kernel.touch(self.descriptor)
            if line is not None:
                line.passed(self, size)
        if self._fin_asked and not self._fin_sent and not self._to_send:
            if line is not None and not line.is_open:
                return
            self._fin_sent = True
            self._launch(_Segment.FIN)

    def _launch(self, segment: bytes | _Segment) -> None:
        if self.line is not None and self.line.is_cut:
            return
        if not self.kernel.latency and not self._segments:
            self.peer._arrive(segment)
            return
        self._segments.append(segment)
        if isinstance(segment, bytes):
            self._segment_bytes += len(segment)
        self.kernel.under_way(self.kernel.latency, self._land)

    def _land(self) -> None:
        segment = self._segments.popleft()
        if isinstance(segment, bytes):
            self._segment_bytes -= len(segment)
        self.peer._arrive(segment)

    def _arrive(self, segment: bytes | _Segment) -> None:
        if segment is _Segment.RST:
            self._saw_reset = True
            self._to_send.clear()
        elif segment is _Segment.FIN:
            self._saw_fin = True
        elif self.closed:
            self._reset()
        elif isinstance(segment, bytes):
            self._received += segment
        self.kernel.touch(self.descriptor)
