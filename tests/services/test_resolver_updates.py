"""Tests for :mod:`scalingo_proxy.services.resolver_updates`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App
from scalingo_proxy.resolvers.config_file import ConfigFileResolver
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.services.resolver_updates import ResolverUpdates, SourceState


class ResolverUpdatesTests(SynchronousTestCase):
    """What is told of two sources."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.store = StoreResolver("", self.clock)
        self.file = ConfigFileResolver()
        self.updates = ResolverUpdates([self.store, self.file], self.clock.seconds)

    def test_before_loading(self) -> None:
        """A source that has to be loaded is not up and was never in step before that; the others are."""
        self.assertEqual(
            self.updates.states(),
            [SourceState("store", False, 0, 0, 0.0), SourceState("file", True, 0, 0, 1000.0)],
        )

    def test_loaded(self) -> None:
        """An empty source is in step once it is loaded."""
        self.clock.advance(5.0)
        self.store.start()
        self.assertEqual(self.updates.states()[0], SourceState("store", True, 0, 0, 1005.0))

    def test_changes(self) -> None:
        """Each change counts, whatever it holds, and so does being asked without one."""
        self.clock.advance(5.0)
        self.file.replace([App("a", ("a.example",)), App("b", ("b.example",))])
        self.assertEqual(self.updates.states()[1], SourceState("file", True, 2, 1, 1005.0))
        self.clock.advance(5.0)
        self.updates.synced("file")
        self.assertEqual(self.updates.states()[1], SourceState("file", True, 2, 1, 1010.0))
