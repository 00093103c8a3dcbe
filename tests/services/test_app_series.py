"""Tests for :mod:`scalingo_proxy.services.app_series`: who has metrics of its own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services import app_series
from scalingo_proxy.services.app_series import HALF_LIFE_SECONDS, NO_APP, OTHER_APPS, AppSeries


class Traffic:
    """Counts requests as the metrics do, and looks."""

    def __init__(self, room: int) -> None:
        self.series = AppSeries(room)
        self.now = 1000.0

    def finish(self, app: str, times: int = 1) -> Traffic:
        """So many requests of *app* end."""
        for _ in range(times):
            counts = self.series.by_app.get(app) or self.series.counts_of(app)
            counts.requests.setdefault("http", [0] * 6)[2] += 1
            counts.durations[3] += 1
            counts.seconds += 0.5
            counts.bytes_in += 7
            counts.bytes_out += 11
        return self

    def look(self, seconds: float = 15.0) -> dict[str, int]:
        """The page after *seconds*: requests by app, where there were any."""
        self.now += seconds
        return {each.app: each.count for each in self.series.look(self.now) if each.count}


class AppSeriesTests(SynchronousTestCase):
    """The rules."""

    def test_busiest(self) -> None:
        """Not who came first, but who is asked most; the others share one series, and nothing is lost."""
        traffic = Traffic(2).finish("a").finish("b", 5).finish("c", 9).finish("d", 2).finish("", 3)
        self.assertEqual(traffic.look(), {"b": 5, "c": 9, OTHER_APPS: 3, NO_APP: 3})
        (others,) = [each for each in traffic.series.look(traffic.now) if each.app == OTHER_APPS]
        numbers = (others.requests, others.durations[3], others.seconds, others.bytes_in, others.bytes_out)
        self.assertEqual(numbers, ({"http": [0, 0, 3, 0, 0, 0]}, 3, 1.5, 21, 33))
        self.assertIn('app="_other",le="0.05"} 3\n', others.histogram())

    def test_change_of_places(self) -> None:
        """One that becomes busy takes the place of one that is no longer; it begins at 0."""
        traffic = Traffic(1).finish("a", 10)
        self.assertEqual(traffic.look(), {"a": 10})
        self.assertEqual(traffic.finish("b", 15).look(), {"a": 10, OTHER_APPS: 15})
        self.assertEqual(traffic.finish("b", 15).look(), {"b": 15, OTHER_APPS: 15})

    def test_no_change_for_little(self) -> None:
        """Two that are about as busy do not take turns."""
        traffic = Traffic(1).finish("a", 10)
        traffic.look()
        for number in range(20):
            page = traffic.finish("a", 10).finish("b", 14).look()
            self.assertEqual(page, {"a": 20 + 10 * number, OTHER_APPS: 14 * (number + 1)})

    def test_what_was_long_ago(self) -> None:
        """Requests of yesterday keep no place."""
        traffic = Traffic(1).finish("a", 10_000)
        traffic.look()
        traffic.look(HALF_LIFE_SECONDS * 20)
        self.assertEqual(traffic.finish("b", 3).look(), {"b": 3})

    def test_steady_beats_sudden(self) -> None:
        """Who waits for a place is not forgotten between two looks."""
        traffic = Traffic(1).finish("a", 100)
        traffic.look()
        for _ in range(60):
            traffic.finish("a", 2).finish("steady", 6).finish("sudden", 1).look()
        self.assertIn("steady", traffic.look())

    def test_back_again(self) -> None:
        """A series that was left out goes on where it stopped."""
        traffic = Traffic(1).finish("a", 10)
        traffic.look()
        self.assertEqual(traffic.finish("b", 100).look(), {"b": 100})
        self.assertEqual(traffic.finish("a", 5).look(), {"b": 100, OTHER_APPS: 5})
        self.assertEqual(traffic.finish("a", 1000).look(), {"a": 1010, OTHER_APPS: 5})

    def test_idle_ones_make_room(self) -> None:
        """An app that has a label and no requests keeps no place from one that has."""
        traffic = Traffic(1)
        self.assertEqual(traffic.series.label_of("idle"), "idle")
        self.assertEqual(traffic.series.label_of("other"), OTHER_APPS)
        self.assertEqual(traffic.finish("busy").look(), {"busy": 1})
        self.assertEqual(traffic.series.label_of("idle"), OTHER_APPS)
        self.assertTrue(traffic.series.is_own("busy"))
        self.assertFalse(traffic.series.is_own("idle"))

    def test_very_many(self) -> None:
        """Beyond so many apps at once, further ones are counted with the others right away."""
        self.patch(app_series, "MAX_OTHERS", 10)
        traffic = Traffic(2)
        for number in range(100):
            traffic.finish(f"app-{number}")
            self.assertLessEqual(len(traffic.series.by_app), 2 + 2 + 10)
        page = traffic.look()
        self.assertEqual((sum(page.values()), page[OTHER_APPS]), (100, 98))
        for number in range(100):
            traffic.finish(f"more-{number}").look()
        self.assertLessEqual(len(traffic.series._waiting), 20)
        self.assertLessEqual(len(traffic.series._away), 2)

    @settings(max_examples=200, deadline=None)
    @given(
        st.integers(1, 4),
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from("abcdefg"), st.integers(1, 50)),
                st.tuples(st.just("look"), st.integers(1, 2000)),
                st.tuples(st.just("label"), st.integers(0, 6)),
            ),
            max_size=60,
        ),
    )
    def test_counters(self, room: int, steps: list[tuple[str, int]]) -> None:
        """Whatever happens: no counter falls, nothing is counted twice, and the page has its bounds."""
        traffic = Traffic(room)
        told: dict[str, int] = {}
        finished: dict[str, int] = {}
        for what, number in [*steps, ("look", 1)]:
            if what == "label":
                traffic.series.label_of("abcdefg"[number])
            elif what != "look":
                traffic.finish(what, number)
                finished[what] = finished.get(what, 0) + number
            else:
                page = traffic.look(number)
                self.assertLessEqual(len(page.keys() - {OTHER_APPS}), room)
                for app, count in page.items():
                    self.assertGreaterEqual(count, told.get(app, 0))
                    self.assertLessEqual(count, finished.get(app, sum(finished.values())))
                # A series that is long gone begins anew, as after a restart.
                kept = {app: told[app] for app in traffic.series._away if app in told}
                told = kept | page
                self.assertLessEqual(sum(page.values()), sum(finished.values()))
        everything = [*traffic.series.by_app.values(), *traffic.series._away.values()]
        if len(finished) <= 2 * room:
            self.assertEqual(sum(each.count for each in everything), sum(finished.values()))
