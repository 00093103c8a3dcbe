"""Probes one after another: so many a second, evenly, and so many at once.

Whoever wants a backend probed waits for its turn here, so that all of them
together never burst, however many are due at the same moment: after a start,
a reload, or when a suspended machine wakes up.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.interfaces import IProbe
from scalingo_proxy.model import App, Backend, Health, ProbeResult

__all__ = ["Haste", "PacedProbes"]

_log = Logger()

#: Probes begun in a second.  One costs 0.6 to 0.7 ms (measured over loopback, CPython 3.11), so
#: that all of them take an eighth of a core.
PER_SECOND = 200.0
#: Probes under way at once: more than are begun while one that hangs takes
#: the default timeout, so that backends that hang hardly delay the others.
AT_ONCE = 500

#: Every so many turns somebody who is in no haste goes first, lest they never come up.
_OTHERS_EVERY = 4


class Haste(enum.IntEnum):
    """Whose turn comes before whose."""

    #: Somebody waits for it.
    AWAITED = 0
    #: The backend may not be up.
    URGENT = 1
    #: One more look at a backend that is up.
    ROUTINE = 2


class _Turn:
    """One probe that waits or is under way.

    :ivar result: what whoever asked was given.
    """

    __slots__ = ("_given_up", "app", "backend", "health", "is_over", "probing", "result")

    def __init__(self, backend: Backend, app: App, health: Health, given_up: Callable[[], None]) -> None:
        self.backend = backend
        self.app = app
        self.health = health
        self.is_over = False
        self.probing: Deferred[ProbeResult] | None = None
        self.result: Deferred[ProbeResult] = Deferred(self._cancelled)
        self._given_up = given_up

    def _cancelled(self, _result: Deferred[ProbeResult]) -> None:
        self.is_over = True
        if self.probing is not None:
            self.probing.cancel()
        else:
            self._given_up()


@implementer(IProbe)
class PacedProbes:
    """Hands probes on to another IProbe, each in its turn.

    :param probe: who makes them.
    :param per_second: how many are begun in a second, at even distances.
    :param at_once: how many are under way at the same time.

    :ivar results: how many there were of each kind: ``pass``, ``fail``, and
        ``error`` for probes that could not be made.
    :ivar under_way: how many were begun and have not ended.
    :ivar waiting: how many wait for their turn.
    """

    def __init__(
        self,
        probe: Any,
        reactor: IReactorTime,
        *,
        per_second: float = PER_SECOND,
        at_once: int = AT_ONCE,
    ) -> None:
        self._probe = probe
        self._reactor = reactor
        self._spacing = 1.0 / per_second
        self._at_once = at_once
        self._lines: tuple[deque[_Turn], ...] = tuple(deque() for _ in Haste)
        self._turns = 0
        self._next_at = 0.0
        self._timer: IDelayedCall | None = None
        self.under_way = 0
        self.waiting = 0
        self.results = {"pass": 0, "fail": 0, "error": 0}

    def probe(
        self, backend: Backend, app: App, health: Health, haste: Haste = Haste.ROUTINE
    ) -> Deferred[ProbeResult]:
        """Probe when it is its turn; see :class:`~scalingo_proxy.interfaces.IProbe`."""
        turn = _Turn(backend, app, health, self._given_up)
        self._lines[haste].append(turn)
        self.waiting += 1
        if self._timer is None:
            self._go()
        return turn.result

    def _go(self) -> None:
        """Begin the next one if it may be begun, or see to it that it will be."""
        self._timer = None
        if not self.waiting or self.under_way >= self._at_once:
            return  # the end of one of them comes back here
        now = self._reactor.seconds()
        if now >= self._next_at:
            # A turn that came a little late delays no later ones; more than that is not made up for.
            self._next_at = max(self._next_at, now - self._spacing) + self._spacing
            self._begin(self._pop())
        self._wait(now)

    def _wait(self, now: float) -> None:
        if self.waiting and self._timer is None:
            self._timer = self._reactor.callLater(max(self._next_at - now, 0.0), self._go)

    def _given_up(self) -> None:
        """One that waited does not any more."""
        self.waiting -= 1
        if not self.waiting:
            for line in self._lines:
                line.clear()
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()

    def _pop(self) -> _Turn:
        """The next of those that wait, of whom there is at least one."""
        self._turns += 1
        lines = self._lines if self._turns % _OTHERS_EVERY else self._lines[::-1]
        turn = next(line.popleft() for line in lines if _skip_those_given_up(line))
        self.waiting -= 1
        return turn

    def _begin(self, turn: _Turn) -> None:
        self.under_way += 1
        turn.probing = maybeDeferred(self._probe.probe, turn.backend, turn.app, turn.health)
        turn.probing.addErrback(self._failed, turn)
        turn.probing.addCallback(self._over, turn)

    def _failed(self, failure: Failure, turn: _Turn) -> ProbeResult | None:
        if turn.is_over and isinstance(failure.value, CancelledError):
            return None
        _log.failure("a probe of {address} failed", failure, address=turn.backend.address)
        reason = f"{turn.backend.address} cannot be probed; the log says why"
        return ProbeResult(False, reason, turn.backend.address, is_inconclusive=True)

    def _over(self, result: ProbeResult | None, turn: _Turn) -> None:
        self.under_way -= 1
        self._wait(self._reactor.seconds())
        if result is not None and not turn.is_over:
            turn.is_over = True
            kind = "error" if result.is_inconclusive else "pass" if result.passed else "fail"
            self.results[kind] += 1
            turn.result.callback(result)


def _skip_those_given_up(line: deque[_Turn]) -> bool:
    """Whether anybody is left."""
    while line and line[0].is_over:
        line.popleft()
    return bool(line)
