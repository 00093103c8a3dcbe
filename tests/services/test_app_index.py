"""Tests for :mod:`scalingo_proxy.services.app_index`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, TopologyChange
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.services.app_index import AppIndex

NAMES = st.sampled_from(["a", "b", "c", "ab", "bc", "abc"])


class AppIndexTests(SynchronousTestCase):
    """An index over a feed that changes."""

    def names(self, index: AppIndex, query: str = "") -> list[str]:
        return [app.name for app in index.page(query, 1, 1000).apps]

    @settings(deadline=None)
    @given(st.lists(st.tuples(NAMES, st.booleans(), st.integers(0, 9))))
    def test_is_what_searching_all_apps_would_find(self, changes: list[tuple[str, bool, int]]) -> None:
        """After any changes, for every query."""
        feed = MemoryResolver()
        index = AppIndex(feed)
        for name, stays, number in changes:
            app = App(name, (f"{name}.example{number}",))
            feed.apply(TopologyChange((app,)) if stays else TopologyChange((), (name,)))
            apps = sorted(feed.apps().values(), key=lambda app: app.name)
            for query in ("", "b", "EXAMPLE1", "c.example"):
                wanted = query.lower()
                expected = [app.name for app in apps if wanted in app.name or wanted in app.domains[0]]
                self.assertEqual(expected, self.names(index, query))

    def test_a_change_of_very_many(self) -> None:
        """Is taken over as well."""
        feed = MemoryResolver([App("zero")])
        index = AppIndex(feed)
        self.assertEqual(["zero"], self.names(index))
        feed.apply(TopologyChange(tuple(App(f"app-{number:04}") for number in range(1001)), ("zero",)))
        self.assertEqual([f"app-{number:04}" for number in range(1000)], self.names(index))
        feed.set_app(App("app-0000a"))
        self.assertEqual("app-0000a", self.names(index)[1])

    def test_tells_apps_as_they_are(self) -> None:
        """A changed app is told in its new form."""
        feed = MemoryResolver([App("a", balancer="random_two")])
        index = AppIndex(feed)
        index.page("", 1, 1)
        feed.set_app(App("a"))
        self.assertEqual((App("a"),), index.page("", 1, 1).apps)
