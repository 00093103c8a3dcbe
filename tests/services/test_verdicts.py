"""Tests of scalingo_proxy.services.verdicts."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Limits, Outcome, ProbeResult, Route, Timeouts
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services.verdicts import VerdictLog


class VerdictLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.left_out: set[str] = set()
        self.pools = Pools(Timeouts(), Limits(), Random(1), clock=lambda: self.now)
        self.log = VerdictLog(
            self.pools, lambda: self.now, lambda app: f"<{app}>", lambda label: label not in self.left_out
        )
        self.app = App("hello", ("hello.test",), ("10.0.0.1:80",))
        self.pool = self.pools.for_route(Route(self.app, "hello.test"))
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self) -> list[str]:
        """What was logged since the last look."""
        told = [event["log_format"].format(**event) for event in self.events if "backend" in event]
        self.events.clear()
        return told

    def end(self, outcome: Outcome, reason: str = "") -> None:
        lease = self.pool.lease((), self.now, idempotent=True)
        assert lease is not None
        lease.release(outcome, self.now, reason)

    def test_away_and_back(self) -> None:
        """A line when a backend is put aside and one when it is back; first answers are no news."""
        self.end(Outcome.COMPLETED)
        self.assertEqual([], self.lines())
        self.end(Outcome.CONNECT_FAILED, "the connection was refused")
        self.assertEqual(LogLevel.warn, self.events[0]["log_level"])
        (line,) = self.lines()
        self.assertRegex(
            line,
            r"^app hello: backend 10\.0\.0\.1:80 was up and is quarantined: "
            r"the connection was refused; looked at again in (0\.[89]|1\.[012]) s$",
        )
        self.now = 2.0
        self.end(Outcome.COMPLETED)
        self.assertEqual(
            ["app hello: backend 10.0.0.1:80 was quarantined and is up: answered a request"], self.lines()
        )

    def test_still_away(self) -> None:
        """Each further failure of a backend that is away makes neither a line nor a quarantine."""
        self.end(Outcome.CLOSED)
        self.lines()
        (member,) = self.pool.members
        for _ in range(5):
            self.pool.probed(member, ProbeResult(False, "connection refused", "tcp://10.0.0.1:80"), self.now)
        self.assertEqual([], self.lines())
        self.assertEqual({("<hello>", "closed"): 1}, dict(self.log.counts()))

    def test_counts(self) -> None:
        """Quarantines are counted by app and cause."""
        for outcome in (Outcome.CLOSED, Outcome.TIMED_OUT, Outcome.CLOSED):
            self.end(outcome)
            self.pool.start_over("it was deployed again", self.now)
        self.assertEqual({("<hello>", "closed"): 2, ("<hello>", "timed-out"): 1}, dict(self.log.counts()))

    def test_left_out(self) -> None:
        """Those of an app that has no series are not told, and are not forgotten."""
        self.end(Outcome.CLOSED)
        self.left_out.add("<hello>")
        self.assertEqual({}, dict(self.log.counts()))
        self.left_out.clear()
        self.assertEqual({("<hello>", "closed"): 1}, dict(self.log.counts()))

    def test_nothing_is_kept(self) -> None:
        """A backend that is gone is forgotten."""
        self.end(Outcome.CLOSED)
        self.pool.apply(App("hello", ("hello.test",)), self.now)
        self.assertEqual({}, self.log._told)
