"""Probes one after another: so many a second, evenly, and so many at once.

Whoever wants a backend probed waits for its turn here, so that all of them
together never burst, however many are due at the same moment: after a start,
a reload, or when a suspended machine wakes up.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.interfaces import IProbe
from scalingo_proxy.model import App, Backend, Health, ProbeResult

__all__ = ["PacedProbes"]

_log = Logger()

#: Probes begun in a second: what a twentieth of a core or so can do.
PER_SECOND = 200.0
#: Probes under way at once: more than are begun while one that hangs takes
#: the default timeout, so that backends that hang hardly delay the others.
AT_ONCE = 500


class _Turn:
    """One probe that waits or is under way.

    :ivar result: what whoever asked was given.
    """

    __slots__ = ("app", "backend", "health", "is_over", "probing", "result")

    def __init__(self, backend: Backend, app: App, health: Health) -> None:
        self.backend = backend
        self.app = app
        self.health = health
        self.is_over = False
        self.probing: Deferred[ProbeResult] | None = None
        self.result: Deferred[ProbeResult] = Deferred(self._cancelled)

    def _cancelled(self, _result: Deferred[ProbeResult]) -> None:
        self.is_over = True
        if self.probing is not None:
            self.probing.cancel()


@implementer(IProbe)
class PacedProbes:
    """Hands probes on to another IProbe, each in its turn.

    :param probe: who makes them.
    :param per_second: how many are begun in a second, at even distances.
    :param at_once: how many are under way at the same time.

    :ivar results: how many there were of each kind: ``pass``, ``fail``, and
        ``error`` for probes that could not be made.
    :ivar under_way: how many were begun and have not ended.
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
        self._urgent: deque[_Turn] = deque()
        self._others: deque[_Turn] = deque()
        self._next_at = 0.0
        self._timer: IDelayedCall | None = None
        self.under_way = 0
        self.results = {"pass": 0, "fail": 0, "error": 0}

    @property
    def waiting(self) -> int:
        """How many probes wait for their turn."""
        return sum(not turn.is_over for line in (self._urgent, self._others) for turn in line)

    def probe(
        self, backend: Backend, app: App, health: Health, *, is_urgent: bool = False
    ) -> Deferred[ProbeResult]:
        """Probe when it is its turn; see :class:`~scalingo_proxy.interfaces.IProbe`.

        :param is_urgent: before all those that are not.
        """
        turn = _Turn(backend, app, health)
        (self._urgent if is_urgent else self._others).append(turn)
        if self._timer is None:
            self._go()
        return turn.result

    def _go(self) -> None:
        """Begin the next one if it may be begun, or see to it that it will be."""
        self._timer = None
        if self.under_way >= self._at_once:
            return  # the end of one of them comes back here
        now = self._reactor.seconds()
        if now >= self._next_at:
            turn = self._pop()
            if turn is None:
                return
            # A turn that came a little late delays no later ones; more than that is not made up for.
            self._next_at = max(self._next_at, now - self._spacing) + self._spacing
            self._begin(turn)
        if (self._urgent or self._others) and self._timer is None:
            self._wait(now)

    def _wait(self, now: float) -> None:
        self._timer = self._reactor.callLater(max(self._next_at - now, 0.0), self._go)

    def _pop(self) -> _Turn | None:
        for line in (self._urgent, self._others):
            while line:
                turn = line.popleft()
                if not turn.is_over:
                    return turn
        return None

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
        if self._timer is None and (self._urgent or self._others):
            self._wait(self._reactor.seconds())
        if result is not None and not turn.is_over:
            turn.is_over = True
            kind = "error" if result.is_inconclusive else "pass" if result.passed else "fail"
            self.results[kind] += 1
            turn.result.callback(result)
