"""What resolvers with a table have in common: guards, watchers, their order."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import DomainTaken
from scalingo_proxy.model import App, TopologyChange
from scalingo_proxy.resolvers.memory import MemoryResolver


class WatchTests(SynchronousTestCase):
    """Who is told what, and when."""

    def test_change_from_a_watcher(self) -> None:
        """A watcher may change the feed: all watchers hear of both changes, in order."""
        memory = MemoryResolver()
        a, b = App("a", ["a.example"]), App("b", ["b.example"])
        told: list[TopologyChange] = []

        def follows(change: TopologyChange) -> None:
            if change.updated == (a,):
                memory.set_app(b)

        memory.watch(follows)
        memory.watch(told.append)
        memory.set_app(a)
        self.assertEqual(told, [TopologyChange((a,)), TopologyChange((b,))])
        self.assertEqual(list(memory.apps()), ["a", "b"])

    def test_leaves_before_its_turn(self) -> None:
        """A watcher that another one unsubscribes is not told any more, not even of this change."""
        memory = MemoryResolver()
        told: list[TopologyChange] = []
        memory.watch(lambda change: leave())
        leave = memory.watch(told.append)
        memory.set_app(App("a", ["a.example"]))
        self.assertEqual(told, [])

    def test_watched_twice(self) -> None:
        """One callable may watch twice; each subscription ends by itself."""
        memory = MemoryResolver()
        told: list[TopologyChange] = []
        leave = memory.watch(told.append)
        memory.watch(told.append)
        memory.set_app(App("a", ["a.example"]))
        leave()
        memory.set_app(App("b", ["b.example"]))
        self.assertEqual(len(told), 3)


class GuardTests(SynchronousTestCase):
    """Who may object to a change."""

    def setUp(self) -> None:
        self.memory = MemoryResolver([App("a", ["a.example"])])
        self.told: list[TopologyChange] = []
        self.memory.watch(self.told.append)

    def refuse(self, change: TopologyChange) -> None:
        raise DomainTaken("b.example", "z")

    def test_refuses(self) -> None:
        """What a guard raises comes to whoever asked for the change, and nothing has changed."""
        self.memory.guard(self.refuse)
        table = self.memory.table
        self.assertRaises(DomainTaken, self.memory.set_app, App("b", ["b.example"]))
        self.assertRaises(DomainTaken, self.memory.remove_app, "a")
        self.assertIs(self.memory.table, table)
        self.assertEqual(self.told, [])

    def test_asked_of_what_differs(self) -> None:
        """A guard is shown the difference, before it is made; without one it is not asked."""
        shown: list[tuple[TopologyChange, list[str]]] = []
        self.memory.guard(lambda change: shown.append((change, list(self.memory.apps()))))
        b = App("b", ["b.example"])
        self.memory.apply(TopologyChange((App("a", ["a.example"]), b), ("nobody",)))
        self.memory.set_app(b)
        self.assertEqual(shown, [(TopologyChange((b,)), ["a"])])

    def test_leaves(self) -> None:
        """A guard that left is not asked."""
        self.memory.guard(self.refuse)()
        self.memory.set_app(App("b", ["b.example"]))
        self.assertEqual(list(self.memory.apps()), ["a", "b"])
