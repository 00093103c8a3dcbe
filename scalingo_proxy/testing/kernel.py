"""What an operating system does between the two ends of a connection.

Bounded buffers, segments that take time, FIN and RST, and the polling that
tells a transport when it may read or write.  It follows Linux and Twisted's
epoll reactor where they can be told apart.  It refuses to know protocols,
addresses' meaning and HTTP.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Descriptor", "Kernel", "MemorySocket", "Readiness"]

_log = Logger()


class Readiness(enum.Flag):
    """What polling found out about a descriptor, as ``epoll_wait`` tells it."""

    NOTHING = 0
    READABLE = enum.auto()
    WRITABLE = enum.auto()
    HUNG_UP = enum.auto()


class Descriptor(Protocol):
    """What the kernel polls: a transport or a listening port."""

    def poll(self, reading: bool, writing: bool) -> Readiness:
        """Say what it is ready for, among what it is asked for."""

    def doRead(self) -> Any:
        """Read once; an exception returned ends the connection."""

    def doWrite(self) -> Any:
        """Write once; an exception returned ends the connection."""

    def readConnectionLost(self, reason: Failure) -> None:
        """The other end will send no more."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over."""


class _Segment(enum.Enum):
    """The things other than bytes that travel over a connection."""

    FIN = "fin"
    RST = "rst"


class Kernel:
    """Moves bytes between sockets and tells descriptors of it, in turns on a clock.

    The transports use it as their reactor.  Nothing is ever delivered inside
    ``write``: all protocol code runs from the clock.

    :ivar latency: seconds that a segment is under way.
    :ivar cut: whether reads and writes move a random part of what they could.
    :ivar shuffle: whether descriptors that are ready in the same turn are
        served in random order, instead of the order they became ready in.
    :ivar buffer_bytes: the size of each send and each receive buffer; one
        direction of a connection holds up to twice as much.
    :ivar moving: how many segments and connection attempts are under way.
    """

    def __init__(
        self,
        clock: IReactorTime,
        random: Random,
        *,
        latency: float = 0.0,
        cut: bool = False,
        shuffle: bool = False,
        buffer_bytes: int = 65536,
    ) -> None:
        self.clock = clock
        self.random = random
        self.latency = latency
        self.cut = cut
        self.shuffle = shuffle
        self.buffer_bytes = buffer_bytes
        self.moving = 0
        self.sockets: set[MemorySocket] = set()
        self._readers: set[Descriptor] = set()
        self._writers: set[Descriptor] = set()
        # An insertion-ordered set: the order decides who is served first.
        self._touched: dict[Descriptor, None] = {}
        self._turn_is_due = False

    # -- what a transport asks of its reactor --------------------------------

    def addReader(self, reader: Descriptor) -> None:
        """Poll *reader* for reading from now on."""
        self._readers.add(reader)
        self.touch(reader)

    def addWriter(self, writer: Descriptor) -> None:
        """Poll *writer* for writing from now on."""
        self._writers.add(writer)
        self.touch(writer)

    def removeReader(self, reader: Descriptor) -> None:
        """Stop polling *reader* for reading."""
        self._readers.discard(reader)

    def removeWriter(self, writer: Descriptor) -> None:
        """Stop polling *writer* for writing."""
        self._writers.discard(writer)

    def seconds(self) -> float:
        """The time on the clock."""
        return self.clock.seconds()

    def callLater(self, delay: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> IDelayedCall:
        """Call *call* after *delay* seconds on the clock."""
        return self.clock.callLater(delay, call, *args, **kwargs)

    # -- polling -------------------------------------------------------------

    def touch(self, descriptor: Descriptor | None) -> None:
        """Look at *descriptor* in the next turn: something about it changed."""
        if descriptor is None:
            return
        self._touched[descriptor] = None
        if not self._turn_is_due:
            self._turn_is_due = True
            self.clock.callLater(0, self._turn)

    def _poll(self, descriptor: Descriptor) -> Readiness:
        reading = descriptor in self._readers
        writing = descriptor in self._writers
        if not (reading or writing):
            return Readiness.NOTHING
        return descriptor.poll(reading, writing)

    def _turn(self) -> None:
        self._turn_is_due = False
        touched = list(self._touched)
        self._touched.clear()
        if self.shuffle:
            self.random.shuffle(touched)
        ready = [(descriptor, self._poll(descriptor)) for descriptor in touched]
        for descriptor, readiness in ready:
            # As in the epoll reactor: one that gave up one of two interests
            # since it was polled is served all the same.
            if readiness and (descriptor in self._readers or descriptor in self._writers):
                self._serve(descriptor, readiness)
        for descriptor, _ in ready:
            if self._poll(descriptor):
                self.touch(descriptor)

    def _serve(self, descriptor: Descriptor, readiness: Readiness) -> None:
        """Follow ``_PollLikeMixin._doReadOrWrite`` of Twisted."""
        why: Any = None
        in_read = False
        if Readiness.HUNG_UP in readiness and Readiness.READABLE not in readiness:
            in_read = descriptor in self._readers
            why = CONNECTION_DONE if in_read else CONNECTION_LOST
        else:
            try:
                if Readiness.READABLE in readiness:
                    why = descriptor.doRead()
                    in_read = True
                if not why and Readiness.WRITABLE in readiness:
                    why = descriptor.doWrite()
                    in_read = False
            except Exception as error:
                _log.failure("a protocol failed; its connection is lost")
                why = error
        if why:
            self._disconnect(descriptor, why, in_read)

    def _disconnect(self, descriptor: Descriptor, why: BaseException, in_read: bool) -> None:
        failure = Failure(why)  # type: ignore[no-untyped-call]
        self.removeReader(descriptor)
        if in_read and isinstance(why, ConnectionDone):
            descriptor.readConnectionLost(failure)
        else:
            self.removeWriter(descriptor)
            descriptor.connectionLost(failure)

    # -- sockets -------------------------------------------------------------

    def socket_pair(self) -> tuple[MemorySocket, MemorySocket]:
        """Two connected sockets."""
        one, other = MemorySocket(self), MemorySocket(self)
        one.peer, other.peer = other, one
        self.sockets.update((one, other))
        return one, other

    def portion(self, size: int) -> int:
        """How many of *size* bytes move at once: all, unless cutting."""
        if not self.cut or size < 2:
            return size
        few = self.random.randint(1, min(size, 16))
        return self.random.choice((1, few, self.random.randint(1, size), size))

    def under_way(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """Call *call* later and count it as traffic until then."""
        self.moving += 1

        def arrive() -> None:
            self.moving -= 1
            call()

        return self.clock.callLater(seconds, arrive)

    def call_off(self, travelling: IDelayedCall | None) -> None:
        """Take back what :meth:`under_way` began, if it has not arrived."""
        if travelling is not None and travelling.active():
            travelling.cancel()
            self.moving -= 1


class MemorySocket:
    """One end of a connection below the transport, like a non-blocking TCP socket.

    :ivar descriptor: who is told when this end becomes readable or writable.
    :ivar closed: this end called :meth:`close`.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.peer: MemorySocket = self
        self.descriptor: Descriptor | None = None
        self.closed = False
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

    def poll(self, reading: bool, writing: bool) -> Readiness:
        """What this end is ready for, as ``epoll`` would tell it."""
        ready = Readiness.NOTHING
        if reading and (self._received or self._saw_fin or self._saw_reset):
            ready |= Readiness.READABLE
        # Linux calls a socket writable when a third of its buffer is free.
        if writing and (len(self._to_send) * 3 <= self.kernel.buffer_bytes * 2 or self._saw_reset):
            ready |= Readiness.WRITABLE
        if self._saw_reset or (self._saw_fin and self._fin_asked):
            ready |= Readiness.HUNG_UP
        return ready

    def recv(self, size: int) -> bytes | None:
        """Up to *size* bytes, ``b""`` at the end, ``None`` when there is nothing yet.

        :raises ConnectionResetError: when the other end aborted and
            everything that had arrived before was read.
        """
        if self._received:
            size = self.kernel.portion(min(size, len(self._received)))
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
        self.kernel.sockets.discard(self)

    def _reset(self) -> None:
        self._to_send.clear()
        if not self._saw_reset:
            self._launch(_Segment.RST)

    def _transmit(self) -> None:
        """Send what fits into the other end's window."""
        if self._saw_reset:
            return
        window = self.kernel.buffer_bytes - len(self.peer._received) - self._segment_bytes
        size = min(window, len(self._to_send))
        if size > 0:
            data = bytes(self._to_send[:size])
            del self._to_send[:size]
            self._launch(data)
            self.kernel.touch(self.descriptor)
        if self._fin_asked and not self._fin_sent and not self._to_send:
            self._fin_sent = True
            self._launch(_Segment.FIN)

    def _launch(self, segment: bytes | _Segment) -> None:
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
