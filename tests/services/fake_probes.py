"""Probes that a test decides: which backends pass, how long each takes, when it was begun."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from scalingo_proxy.interfaces import IProbe
from scalingo_proxy.model import App, Backend, Health, ProbeResult

__all__ = ["FakeProbe"]


@implementer(IProbe)
class FakeProbe:
    """Passes everybody at once, unless told otherwise.

    :ivar begun: when which address was probed.
    :ivar failing: addresses, with the status they answer.
    :ivar seconds: how long a probe takes.
    :ivar broken: addresses whose probe raises.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.begun: list[tuple[float, str]] = []
        self.healths: list[Health] = []
        self.failing: dict[str, int] = {}
        self.broken: set[str] = set()
        self.poor: set[str] = set()
        self.seconds = 0.0
        self.under_way = 0
        self.most_under_way = 0
        self.cancelled = 0

    def probe(self, backend: Backend, app: App, health: Health) -> Deferred[ProbeResult]:
        """Begin one."""
        address = backend.address
        self.begun.append((self.clock.seconds(), address))
        self.healths.append(health)
        if address in self.broken:
            raise RuntimeError("a bug in a probe")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

        def end() -> None:
            self.under_way -= 1
            result.callback(self._result(address))

        def cancel(_result: object) -> None:
            self.under_way -= 1
            self.cancelled += 1
            if call is not None:
                call.cancel()

        result: Deferred[ProbeResult] = Deferred(cancel)
        call = self.clock.callLater(self.seconds, end) if self.seconds else None
        if call is None:
            end()
        return result

    def _result(self, address: str) -> ProbeResult:
        url = f"http://{address}/"
        if address in self.poor:
            return ProbeResult(False, "too many open files", url, is_inconclusive=True)
        status = self.failing.get(address, 200)
        passed = status == 200
        return ProbeResult(passed, f"GET {url}: answered {status}", url, status, self.seconds, is_answer=True)

    @property
    def addresses(self) -> list[str]:
        """Who was probed, in order."""
        return [address for _moment, address in self.begun]

    @property
    def moments(self) -> list[float]:
        """When something was probed."""
        return [moment for moment, _address in self.begun]

    def count(self, address: str) -> int:
        """How often *address* was probed."""
        return Counter(self.addresses)[address]

    def most_within(self, seconds: float) -> int:
        """The most that were begun within any *seconds*."""
        moments = self.moments
        # A hair less, so that the two ends of a window are not both in it.
        window = seconds - 1e-9
        return max(bisect_left(moments, moment + window) - at for at, moment in enumerate(moments))

    def forget(self) -> None:
        """Begin to note anew."""
        del self.begun[:], self.healths[:]
