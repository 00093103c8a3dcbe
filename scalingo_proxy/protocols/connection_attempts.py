"""Attempts to connect to backends: counted, and made to wait while there is no descriptor for them.

Without a descriptor an attempt fails at once, and a backend that is well would
be blamed for it.  Here it waits in turn until one is free, for as long as it
may take altogether.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from scalingo_proxy.errors import QueueTimeout
from scalingo_proxy.model import Backend
from scalingo_proxy.protocols.backend_connector import Connect, UnderWay
from scalingo_proxy.transports.descriptors import SHORTAGES

__all__ = ["LOOK_AGAIN_SECONDS", "ConnectionAttempts"]

#: How soon those who wait look again whether a descriptor is free.
LOOK_AGAIN_SECONDS = 0.02


class _Attempt:
    """One connection that was asked for and is not there yet."""

    __slots__ = ("_abandon", "_attempts", "_failed", "backend", "deadline", "protocol")

    def __init__(
        self,
        attempts: ConnectionAttempts,
        backend: Backend,
        protocol: Protocol,
        deadline: float,
        failed: Callable[[Failure], None],
    ) -> None:
        self._attempts = attempts
        self._failed = failed
        self._abandon: Callable[[], None] | None = None
        self.backend = backend
        self.protocol = protocol
        self.deadline = deadline

    def began(self, abandon: Callable[[], None]) -> None:
        self._abandon = abandon

    def failed(self, reason: Failure) -> None:
        self._abandon = None
        if getattr(reason.value, "osError", None) in SHORTAGES:
            self._attempts.wait(self)
        elif self._attempts.over(self.protocol):
            self._failed(reason)

    def expired(self) -> None:
        if self._attempts.over(self.protocol):
            self._failed(Failure(QueueTimeout("no descriptor was free for a connection to the backend")))  # type: ignore[no-untyped-call]

    def abandon(self) -> None:
        self._attempts.over(self.protocol)
        abandon, self._abandon = self._abandon, None
        if abandon is not None:
            abandon()


class ConnectionAttempts:
    """The attempts of one proxy that are under way.

    :param connect: makes one.
    :param clock: gives ``seconds()`` and ``callLater()``.
    :ivar under_way: those, by whom they are for.
    :ivar has_room: whether a descriptor can be spared for a further one.
    """

    def __init__(self, connect: Connect, clock: Any) -> None:
        self._connect = connect
        #: As ``BackendConnector.at_once``: most are there before anything need be kept of them (2 µs less).
        self._at_once: Callable[[Backend, Protocol], UnderWay | None] = getattr(
            connect, "at_once", self._begin_to_connect
        )
        self._clock = clock
        self.under_way: dict[Protocol, _Attempt] = {}
        self._waiting: deque[_Attempt] = deque()
        self._timer: Any = None
        self.has_room: Callable[[], bool] = _always

    def __len__(self) -> int:
        """How many are under way, those that wait among them."""
        return len(self.under_way)

    def begin(
        self, backend: Backend, protocol: Protocol, timeout: float, failed: Callable[[Failure], None]
    ) -> Callable[[], None]:
        """As :data:`~scalingo_proxy.protocols.backend_connector.Connect`; :meth:`over` is told of success.

        *failed* is also called, with QueueTimeout, when no descriptor was free all the time.
        """
        go_on = None
        if not self._waiting and self.has_room():
            go_on = self._at_once(backend, protocol)
            if go_on is None:
                return _nothing
        attempt = _Attempt(self, backend, protocol, self._clock.seconds() + timeout, failed)
        self.under_way[protocol] = attempt
        if go_on is None:
            self.wait(attempt)
        else:
            self._go_on(attempt, go_on, timeout)
        return attempt.abandon

    def _begin_to_connect(self, backend: Backend, protocol: Protocol) -> UnderWay:
        """Stands for what knows at once whether it is connected."""
        return partial(self._connect, backend, protocol)

    def over(self, protocol: Protocol) -> bool:
        """The attempt for *protocol* ended, one way or another; whether it was still under way."""
        return self.under_way.pop(protocol, None) is not None

    def wait(self, attempt: _Attempt) -> None:
        """Begin *attempt* when there is a descriptor for it."""
        self._waiting.append(attempt)
        if self._timer is None:
            self._timer = self._clock.callLater(LOOK_AGAIN_SECONDS, self._look)

    def _go_on(self, attempt: _Attempt, go_on: UnderWay, timeout: float) -> None:
        abandon = go_on(timeout, attempt.failed)
        if attempt.protocol in self.under_way:
            attempt.began(abandon)

    def _look(self) -> None:
        self._timer = None
        now, waiting = self._clock.seconds(), self._waiting
        later: deque[_Attempt] = deque()
        self._waiting = later
        while waiting:
            attempt = waiting.popleft()
            if attempt.protocol not in self.under_way:
                continue  # abandoned
            if attempt.deadline <= now:
                attempt.expired()
            elif not later and self.has_room():
                go_on = self._begin_to_connect(attempt.backend, attempt.protocol)
                self._go_on(attempt, go_on, attempt.deadline - now)
            else:
                later.append(attempt)
        if later and self._timer is None:
            self._timer = self._clock.callLater(LOOK_AGAIN_SECONDS, self._look)


def _always() -> bool:
    return True


def _nothing() -> None:
    """There is nothing left to abandon."""
