"""Tests for :mod:`scalingo_proxy.services.reactor_lag`."""

from __future__ import annotations

import threading
import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.reactor_lag import TICK_SECONDS, WINDOW_SECONDS, ReactorLag, Watchdog


class LagTests(SynchronousTestCase):
    """The number."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lag = ReactorLag(self.clock, watch=None)
        self.lag.startService()
        self.addCleanup(self.lag.stopService)

    def test_in_time(self) -> None:
        """A reactor that is in time is not late."""
        self.clock.pump([TICK_SECONDS] * 20)
        self.assertLess(self.lag.seconds, 1e-6)

    def test_worst_within_the_window(self) -> None:
        """The longest delay is told for as long as a scrape may take to come, then the next longest."""
        self.clock.advance(TICK_SECONDS + 0.5)
        self.clock.advance(TICK_SECONDS + 0.2)
        self.clock.advance(TICK_SECONDS + 0.05)
        self.assertAlmostEqual(self.lag.seconds, 0.5)
        self.clock.pump([TICK_SECONDS] * int((WINDOW_SECONDS - 0.4) / TICK_SECONDS))
        self.assertAlmostEqual(self.lag.seconds, 0.2)
        self.clock.pump([TICK_SECONDS] * 10)
        self.assertLess(self.lag.seconds, 0.06)

    def test_overdue(self) -> None:
        """A delay counts while it lasts, before the timer has come."""
        self.clock.rightNow += 3.0
        self.assertAlmostEqual(self.lag.seconds, 3.0 - TICK_SECONDS)

    def test_stopped(self) -> None:
        """Nothing is left behind, and nothing told any more."""
        self.lag.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100.0)
        self.assertEqual(self.lag.seconds, 0.0)
        self.lag.startService()

    def test_logged(self) -> None:
        """A standstill of a second is in the log, if only afterwards."""
        self.clock.advance(TICK_SECONDS + 2.0)
        self.assertEqual(self.lag.seconds, 2.0)
        self.assertEqual([], self.flushLoggedErrors())


class WatchdogTests(SynchronousTestCase):
    """What is told of a standstill."""

    def setUp(self) -> None:
        self.now = 100.0
        self.told: list[tuple[float, str]] = []
        self.watchdog = Watchdog(
            threading.get_ident(), lambda *what: self.told.append(what), clock=lambda: self.now
        )

    def test_alive(self) -> None:
        """Nothing is told of a reactor that shows up."""
        for _ in range(20):
            self.now += 0.25
            self.watchdog.seen()
            self.watchdog.look(0.25)
        self.assertEqual(self.told, [])

    def test_told_once(self) -> None:
        """A standstill is told once, with the place; the next one again."""
        for _ in range(2):
            for _ in range(12):
                self.now += 0.25
                self.watchdog.look(0.25)
            self.watchdog.seen()
        self.assertEqual([seconds for seconds, _ in self.told], [1.0, 1.0])
        self.assertIn("test_told_once", self.told[0][1])

    def test_process_stood_still(self) -> None:
        """A process that was stopped as a whole has no culprit."""
        self.now += 30.0
        self.watchdog.look(30.0)
        self.assertEqual(self.told, [])

    def test_thread(self) -> None:
        """The real thread sees its creator busy, and ends when told."""
        seen = threading.Event()
        watchdog = Watchdog(threading.get_ident(), lambda *_: seen.set(), blocked_seconds=0.02)
        watchdog.start()
        try:
            end = time.monotonic() + 20.0
            while not seen.is_set() and time.monotonic() < end:
                sum(range(1000))
        finally:
            watchdog.stop()
        self.assertTrue(seen.is_set())


class ServiceTests(SynchronousTestCase):
    """Both together."""

    def test_watched(self) -> None:
        """Each tick is seen by the watchdog, and what it tells is logged as an error."""
        clock = Clock()
        made: list[Watchdog] = []

        def watch(thread: int, tell: object) -> Watchdog:
            made.append(Watchdog(thread, tell, clock=clock.seconds))  # type: ignore[arg-type]
            return made[0]

        lag = ReactorLag(clock, watch)
        lag.startService()
        self.addCleanup(lag.stopService)
        clock.pump([TICK_SECONDS] * 30)
        made[0].look(0.1)
        self.assertEqual(lag.seconds, 0.0) if lag.seconds == 0.0 else self.assertLess(lag.seconds, 1e-6)
        clock.rightNow += 1.5
        lines: list[str] = []
        from twisted.logger import formatEvent, globalLogPublisher

        def observe(event: dict[str, object]) -> None:
            lines.append(formatEvent(event))  # type: ignore[arg-type]

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        made[0].look(0.1)
        self.assertEqual(len(lines), 1)
        self.assertIn("blocked for 1.5 s, by this:", lines[0])
        self.assertIn("test_watched", lines[0])
