"""Tests for :mod:`scalingo_proxy.routing.topology_guard`."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, TopologyChange
from scalingo_proxy.routing.table import RouteTable
from scalingo_proxy.routing.topology_guard import Census, GuardRule, TopologyGuard, census


def platform(sizes: Iterable[int], first_port: int = 1000) -> RouteTable:
    """Apps ``app-0``, ``app-1``, … with so many backends each."""
    apps = []
    port = first_port
    for number, size in enumerate(sizes):
        backends = [f"10.0.0.1:{port + offset}" for offset in range(size)]
        port += size
        apps.append(App(f"app-{number}", (f"{number}.test",), backends))
    return RouteTable.empty("test").changed(TopologyChange(tuple(apps)))


class OneUpdateTests(SynchronousTestCase):
    """What one update may take away."""

    def verdict(self, before: list[int], after: list[int], beside: Census = Census()) -> str:  # noqa: B008 - frozen
        guard = TopologyGuard(GuardRule(), platform(before).apps, 0.0)
        loss = guard.judge(platform(after).apps, 100.0, beside)
        return "" if loss is None else str(loss)

    def test_table(self) -> None:
        """More than half of all apps or of all backends, above the floor, of more than one app."""
        for why, before, after, is_held in (
            ("nothing", [2] * 100, [2] * 100, False),
            ("all", [2] * 100, [], True),
            ("half exactly", [2] * 100, [2] * 50, False),
            ("more than half", [2] * 100, [2] * 49, True),
            ("growth", [2] * 100, [2] * 300, False),
            ("backends of all", [4] * 100, [1] * 100, True),
            ("half the backends of all", [4] * 100, [2] * 100, False),
            ("apps that stay without backends", [2] * 100, [2] * 40 + [0] * 60, True),
            ("a small platform", [2] * 9, [], False),
            ("a platform at the floor", [1] * 10, [], True),
            ("few apps with many backends", [10] * 4, [], True),
            ("one app, though it is nearly all", [100, 1, 1], [0, 1, 1], False),
            ("one app to one backend", [100, 1, 1], [1, 1, 1], False),
        ):
            self.assertEqual(bool(self.verdict(before, after)), is_held, why)

    def test_sentence(self) -> None:
        """It says how much of how much."""
        self.assertEqual(
            self.verdict([2] * 100, [2] * 30),
            "it would remove 70 of 100 apps and 140 of 200 backends",
        )

    def test_replaced_backends(self) -> None:
        """A platform whose containers all move loses nothing."""
        before, after = platform([2] * 100), platform([2] * 100, first_port=5000)
        self.assertIsNone(TopologyGuard(GuardRule(), before.apps, 0.0).judge(after.apps, 1.0))

    def test_renamed_apps(self) -> None:
        """Apps under other names are other apps."""
        before = platform([2] * 100)
        others = tuple(App(f"x-{n}", (f"x{n}.test",), ("10.0.0.1:1",)) for n in range(100))
        after = before.changed(TopologyChange(others, tuple(before.apps)))
        self.assertIsNotNone(TopologyGuard(GuardRule(), before.apps, 0.0).judge(after.apps, 1.0))

    def test_whole_platform_counts(self) -> None:
        """What other sources have is part of the whole."""
        self.assertEqual(self.verdict([2] * 100, [], Census(100, 200)), "")
        self.assertIn("100 of 199 apps", self.verdict([2] * 100, [], Census(99, 1000)))

    def test_settings(self) -> None:
        """Share and floors are settings; a share of 1 never holds."""
        before, after = platform([1] * 10), platform([1] * 7)
        for rule, is_held in (
            (GuardRule(share=0.2, floor_apps=3), True),
            (GuardRule(share=0.2, floor_apps=4), False),
            (GuardRule(share=1.0, floor_apps=0), False),
        ):
            loss = TopologyGuard(rule, before.apps, 0.0).judge(after.apps, 1.0)
            self.assertEqual(loss is not None, is_held, rule)


class SliceTests(SynchronousTestCase):
    """Several updates within a minute are one."""

    def setUp(self) -> None:
        self.served = platform([2] * 100)
        self.guard = TopologyGuard(GuardRule(), self.served.apps, 0.0)

    def shrink_to(self, count: int, now: float) -> bool:
        """Whether an update that leaves so many apps passes."""
        removed = tuple(f"app-{number}" for number in range(count, 100))
        wanted = self.served.changed(TopologyChange((), removed))
        if self.guard.judge(wanted.apps, now) is not None:
            return False
        self.served = wanted
        self.guard.applied(wanted.apps, now)
        return True

    def test_slices(self) -> None:
        """A bad answer that comes in slices is held where it is too much in sum."""
        verdicts = [self.shrink_to(100 - 10 * step, float(step)) for step in range(1, 10)]
        self.assertEqual(verdicts, [True] * 5 + [False] * 4)

    def test_slowly(self) -> None:
        """A platform may shrink in its own time."""
        for step in range(1, 8):
            self.assertTrue(self.shrink_to(100 - 10 * step, 30.0 * step), step)

    def test_confirmed(self) -> None:
        """After a confirmation only what comes then counts."""
        self.assertTrue(self.shrink_to(60, 1.0))
        self.guard.accept(self.served.apps, 2.0)
        self.assertTrue(self.shrink_to(35, 3.0))

    def test_growth_hides_nothing(self) -> None:
        """A platform that has just grown is judged by what it has now."""
        small = platform([2] * 10)
        guard = TopologyGuard(GuardRule(), small.apps, 0.0)
        guard.applied(self.served.apps, 1.0)
        self.assertIsNotNone(guard.judge(small.apps, 2.0))

    def test_census(self) -> None:
        """It is kept up by what differs, and stays true."""
        for step in range(200):
            self.shrink_to(100 - step % 30, 3.0 * step)
            self.assertEqual(self.guard.census, census(self.served.apps))
        self.assertLessEqual(len(self.guard._history), 14)
