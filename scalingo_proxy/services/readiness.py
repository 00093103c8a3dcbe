"""Are these backends ready?  Each is probed once a second until it is, or time is up.

Says yes for all or no with each one's last reason, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.model import App, Backend, Health, ProbeResult
from scalingo_proxy.services.paced_probes import Haste, PacedProbes

__all__ = ["READY_SECONDS", "Tryout", "BackendsNotReady", "when_ready"]

_log = Logger()

#: How long backends have, together.
READY_SECONDS = 30.0

#: From the beginning of one try to that of the next.
_TRY_EVERY_SECONDS = 1.0


@attrs.frozen
class Tryout:
    """How one backend did.

    :ivar passed: whether as many tries in a row passed as its app asks for.
    :ivar url: what was probed; ``status`` and ``reason`` are those of the last try.
    :ivar status: 0 when there was no HTTP answer.
    :ivar probe_seconds: how long the last try took.
    :ivar tries: how many tries came to an end.
    :ivar seconds: how long all of it took.
    """

    backend: Backend
    passed: bool
    url: str
    status: int
    reason: str
    probe_seconds: float
    tries: int
    seconds: float

    def told(self) -> dict[str, Any]:
        """The tryout as the admin API gives it."""
        told = attrs.asdict(self, filter=lambda field, _value: field.name != "backend")
        return {
            "address": self.backend.address,
            **told,
            "probe_seconds": round(self.probe_seconds, 6),
            "seconds": round(self.seconds, 3),
        }


class BackendsNotReady(ScalingoProxyError):
    """Not every backend passed in time.

    :ivar tryouts: how each of them did.
    """

    def __init__(self, name: str, tryouts: Iterable[Tryout], seconds: float) -> None:
        self.name = name
        self.tryouts = tuple(tryouts)
        failing = [tryout for tryout in self.tryouts if not tryout.passed]
        noun = "backend is" if len(self.tryouts) == 1 else "backends are"
        super().__init__(
            f"nothing has changed: {len(failing)} of {len(self.tryouts)} new {noun} not ready "
            f"after {seconds:g} seconds; {failing[0].reason}"
        )


def when_ready(
    app: App,
    backends: Iterable[Backend],
    health: Health,
    probes: PacedProbes,
    reactor: IReactorTime,
    seconds: float = READY_SECONDS,
) -> Deferred[tuple[Tryout, ...]]:
    """Fire with the tryout of each of *backends* once all of them have passed.

    Fails with BackendsNotReady after *seconds*.  Cancelled, it leaves nothing
    behind.
    """
    return _Tryouts(app, tuple(backends), health, probes, reactor, seconds).result


class _Tryouts:
    """All the tryouts of one wait."""

    def __init__(
        self,
        app: App,
        backends: tuple[Backend, ...],
        health: Health,
        probes: PacedProbes,
        reactor: IReactorTime,
        seconds: float,
    ) -> None:
        self.app = app
        self.health = health
        self.probes = probes
        self.reactor = reactor
        self._seconds = seconds
        self.began = reactor.seconds()
        self.result: Deferred[tuple[Tryout, ...]] = Deferred(self._cancelled)
        self._deadline = reactor.callLater(seconds, self._time_is_up)
        self._tryouts = [_OneTryout(self, backend) for backend in backends]
        self._open = len(self._tryouts)
        if not self._tryouts:
            self._end()
        for tryout in self._tryouts:
            tryout.begin()

    def one_passed(self) -> None:
        """One more is ready."""
        self._open -= 1
        if not self._open:
            self._end()

    def _end(self) -> None:
        self._deadline.cancel()
        self.result.callback(self._told())

    def _time_is_up(self) -> None:
        self._stop()
        tryouts = self._told()
        self.result.errback(BackendsNotReady(self.app.name, tryouts, self._seconds))

    def _told(self) -> tuple[Tryout, ...]:
        return tuple(tryout.told() for tryout in self._tryouts)

    def _cancelled(self, _result: object) -> None:
        self._deadline.cancel()
        self._stop()

    def _stop(self) -> None:
        for tryout in self._tryouts:
            tryout.stop()


class _OneTryout:
    """One backend, tried again and again."""

    def __init__(self, tryouts: _Tryouts, backend: Backend) -> None:
        self._tryouts = tryouts
        self._backend = backend
        self._last: ProbeResult | None = None
        self._tries = 0
        self._in_a_row = 0
        self._seconds = 0.0
        self._began = 0.0
        self._probing: Deferred[ProbeResult] | None = None
        self._next: IDelayedCall | None = None

    def begin(self) -> None:
        """Try."""
        tryouts = self._tryouts
        self._next = None
        self._began = tryouts.reactor.seconds()
        self._probing = tryouts.probes.probe(self._backend, tryouts.app, tryouts.health, Haste.AWAITED)
        self._probing.addCallbacks(self._tried, self._lost)

    def _tried(self, result: ProbeResult) -> None:
        tryouts = self._tryouts
        now = tryouts.reactor.seconds()
        self._probing = None
        self._last = result
        self._tries += 1
        self._in_a_row = self._in_a_row + 1 if result.passed else 0
        self._seconds = now - tryouts.began
        if self._in_a_row >= tryouts.health.rise:
            tryouts.one_passed()
        else:
            delay = max(self._began + _TRY_EVERY_SECONDS - now, 0.0)
            self._next = tryouts.reactor.callLater(delay, self.begin)

    def _lost(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure("a try of {address} is lost", failure, address=self._backend.address)

    def stop(self) -> None:
        """Try no more."""
        self._seconds = self._tryouts.reactor.seconds() - self._tryouts.began
        if self._next is not None:
            self._next.cancel()
        if self._probing is not None:
            self._probing.cancel()

    def told(self) -> Tryout:
        """How it did so far."""
        last, health = self._last, self._tryouts.health
        if last is None:
            url = self._backend.address
            last = ProbeResult(False, f"{url}: no verdict within {self._seconds:g} s", url)
        passed = self._in_a_row >= health.rise
        return Tryout(
            self._backend,
            passed,
            last.url,
            last.status,
            last.reason
            if passed or not last.passed
            else f"{last.reason}, but not {health.rise} times in a row",
            last.seconds,
            self._tries,
            self._seconds,
        )
