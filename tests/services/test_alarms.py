"""Tests for :mod:`scalingo_proxy.services.alarms`."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Certificate, Limits, Outcome, Route, Timeouts
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.services.alarms import (
    EXPIRY_DAYS,
    MOST_ALARMS,
    RISEN_SECONDS,
    TOLD_ONE_BY_ONE,
    Alarm,
    Alarms,
    expiring_certificates,
    forsaken_apps,
    late_reactor,
    rising,
    silent_sources,
)
from scalingo_proxy.services.resolver_updates import SourceState

NOW = 1.7e9


def certificate(name: str, days: float) -> Certificate:
    return Certificate(name, b"", b"", ("a.example",), 0.0, NOW + days * 86400, "AB")


class AlarmsTests(SynchronousTestCase):
    """Asking everybody."""

    def test_order(self) -> None:
        """Urgent ones come first, the others as they were told."""
        alarms = Alarms()
        alarms.add(lambda: [Alarm("a"), Alarm("b", is_urgent=True)])
        alarms.add(lambda: [Alarm("c")])
        self.assertEqual([alarm.text for alarm in alarms.now()], ["b", "a", "c"])

    def test_very_many(self) -> None:
        """Nobody reads hundreds: the urgent ones stay."""
        alarms = Alarms()
        alarms.add(lambda: [Alarm(str(number)) for number in range(500)])
        alarms.add(lambda: [Alarm("urgent", is_urgent=True)])
        told = alarms.now()
        self.assertEqual(len(told), MOST_ALARMS + 1)
        self.assertEqual((told[0].text, told[-1].text), ("urgent", f"{501 - MOST_ALARMS} more alarms"))

    def test_broken(self) -> None:
        """One that fails takes nobody's place, and is in the log once."""

        def broken() -> Iterable[Alarm]:
            raise ZeroDivisionError

        alarms = Alarms()
        alarms.add(broken)
        alarms.add(lambda: [Alarm("c")])
        for _ in range(3):
            self.assertEqual([alarm.text for alarm in alarms.now()], ["c"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SourcesTests(SynchronousTestCase):
    """What is told."""

    def test_certificates(self) -> None:
        """Those that have ended are urgent, those that will soon are told, with days."""
        tell = expiring_certificates(
            [
                certificate("old", -1),
                certificate("new", EXPIRY_DAYS + 0.5),
                certificate("soon", 1.5),
                certificate("later", 9.9),
            ],
            lambda: NOW,
        )
        self.assertEqual(
            list(tell()),
            [
                Alarm("certificate old has expired", is_urgent=True),
                Alarm("certificate soon expires in 1 day"),
                Alarm("certificate later expires in 9 days"),
            ],
        )

    def test_very_many_certificates(self) -> None:
        """Those that end first are named, the others counted."""
        all_of_them = [certificate(f"c{number:02}", number + 0.5) for number in reversed(range(60))]
        *named, rest = expiring_certificates(all_of_them, lambda: NOW)()
        self.assertEqual([alarm.text.split()[1] for alarm in named], ["c00", "c01", "c02", "c03", "c04"])
        self.assertEqual(rest.text, "16 more certificates have expired or expire within 21 days")

    def test_silent_sources(self) -> None:
        """A source of routes that cannot answer."""
        states = [SourceState("store", False, 0, 0, 0.0), SourceState("file", True, 1, 1, NOW)]
        (alarm,) = silent_sources(lambda: states)()
        self.assertEqual(alarm, Alarm("the source of routes 'store' cannot answer", is_urgent=True))

    def test_forsaken_apps(self) -> None:
        """Running apps that nobody serves, some by name, and how many more."""
        pools = Pools(Timeouts(), Limits(), Random(1), clock=lambda: 0.0)
        tell = forsaken_apps(pools)
        for number in range(TOLD_ONE_BY_ONE + 2):
            pool = pools.for_route(Route(App(f"app-{number}", (), ("10.0.0.1:80", "10.0.0.2:80")), "x"))
            self.assertEqual(len(list(tell())), min(number, TOLD_ONE_BY_ONE + 1))
            for _ in range(2):
                lease = pool.lease()
                assert lease is not None
                lease.release(Outcome.CONNECT_FAILED, 0.0)
        *_, last = tell()
        self.assertEqual(last, Alarm("2 more apps have none", is_urgent=True))
        self.assertIn(
            Alarm("app app-0 has no backend that may be given requests", is_urgent=True), list(tell())
        )

    def test_late(self) -> None:
        """A reactor that was late."""
        self.assertEqual(list(late_reactor(lambda: 0.1)()), [])
        self.assertEqual(len(list(late_reactor(lambda: 0.9)())), 1)

    def test_rising(self) -> None:
        """A counter that rose is told for a while, and again when it rises again."""
        count, now = 5.0, 1000.0
        tell = rising(lambda: count, "lines were lost", lambda: now)
        self.assertEqual(list(tell()), [])
        count, now = 6.0, 1001.0
        self.assertEqual(list(tell()), [Alarm("lines were lost")])
        now += RISEN_SECONDS - 1
        self.assertEqual(len(list(tell())), 1)
        now += 2
        self.assertEqual(list(tell()), [])
        count = 7.0
        self.assertEqual(len(list(tell())), 1)
