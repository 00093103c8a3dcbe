"""Turns on a clock: who may read or write now, as a reactor finds out.

It follows Twisted's epoll reactor where reactors can be told apart.  Refuses
to know what is in a socket (:mod:`scalingo_proxy.testing.sockets` does), and
protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.testing.sockets import READABLE, WRITABLE, MemorySocket

__all__ = ["Descriptor", "Kernel"]

_log = Logger()


class Descriptor(Protocol):
    """What the kernel polls: a transport or a listening port."""

    @property
    def is_open(self) -> bool:
        """Whether there is a socket to poll."""

    def poll(self, reading: bool, writing: bool) -> int:
        """Say what it is ready for, among what it is asked for: READABLE, WRITABLE, both or 0."""

    def doRead(self) -> Any:
        """Read once; an exception returned ends the connection."""

    def doWrite(self) -> Any:
        """Write once; an exception returned ends the connection."""

    def readConnectionLost(self, reason: Failure) -> None:
        """The other end will send no more."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over."""


def _check_open(descriptor: Descriptor) -> None:
    if not descriptor.is_open:
        raise ValueError("file descriptor cannot be a negative integer (-1)")


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
    :ivar read_bytes: how many bytes one read gets at most.
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
        self.read_bytes = buffer_bytes
        self.moving = 0
        # Insertion-ordered sets: the order decides who is served first.
        self.sockets: dict[MemorySocket, None] = {}
        self._readers: set[Descriptor] = set()
        self._writers: set[Descriptor] = set()
        self._touched: dict[Descriptor, None] = {}
        self._turn_is_due = False

    # -- what a transport asks of its reactor --------------------------------

    def addReader(self, reader: Descriptor) -> None:
        """Poll *reader* for reading from now on.

        :raises ValueError: when it is closed, as a reactor does.
        """
        _check_open(reader)
        self._readers.add(reader)
        self.touch(reader)

    def addWriter(self, writer: Descriptor) -> None:
        """Poll *writer* for writing from now on.

        :raises ValueError: when it is closed, as a reactor does.
        """
        _check_open(writer)
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

    def _poll(self, descriptor: Descriptor) -> int:
        reading = descriptor in self._readers
        writing = descriptor in self._writers
        if not (reading or writing):
            return 0
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

    def _serve(self, descriptor: Descriptor, readiness: int) -> None:
        """Read and write as ``_PollLikeMixin._doReadOrWrite`` of Twisted does.

        Hang-ups need no case of their own: a socket that was reset is ready
        for whatever it is polled for, and reading or writing finds out.
        """
        why: Any = None
        in_read = False
        try:
            if readiness & READABLE:
                why = descriptor.doRead()
                in_read = True
            if not why and readiness & WRITABLE:
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
        self.sockets.update({one: None, other: None})
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
