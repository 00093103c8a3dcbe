"""Routes set from code.  The contract is tested in tests/contracts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError, DomainTaken, UnknownHost
from scalingo_proxy.model import App, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.memory import MemoryResolver

A = App("a", ["a.example"], ["127.0.0.1:3000"])
B = App("b", ["b.example"], ["127.0.0.1:3001"])


class MemoryResolverTests(SynchronousTestCase):
    """MemoryResolver as a program uses it."""

    def test_answers_at_once(self) -> None:
        """The answer is a Route, not a Deferred, and the same one each time."""
        memory = MemoryResolver([A])
        route = memory.resolve(RouteQuery("a.example"))
        self.assertEqual((route.app, route.resolver), (A, "memory"))
        self.assertIs(memory.resolve(RouteQuery("a.example")), route)

    def test_name(self) -> None:
        """Its name stands in the routes."""
        route = MemoryResolver([A], name="mine").resolve(RouteQuery("a.example"))
        self.assertEqual(route.resolver, "mine")

    def test_conflict_at_construction(self) -> None:
        """Apps that do not fit together are refused at once."""
        self.assertRaises(DomainTaken, MemoryResolver, [A, App("b", ["a.example"])])
        self.assertRaises(ConfigurationError, MemoryResolver, [A, A])
        self.assertRaises(ConfigurationError, MemoryResolver, [App("a", ["no domain"])])

    def test_set_app(self) -> None:
        """An app is added, then replaced."""
        memory = MemoryResolver()
        memory.set_app(A)
        memory.set_app(App("a", ["c.example"]))
        self.assertRaises(UnknownHost, memory.resolve, RouteQuery("a.example"))
        self.assertEqual(memory.resolve(RouteQuery("c.example")).app.name, "a")

    def test_remove_app(self) -> None:
        """A removed app is gone; one that is not there is a KeyError."""
        memory = MemoryResolver([A, B])
        memory.remove_app("a")
        self.assertEqual(list(memory.apps()), ["b"])
        self.assertRaises(KeyError, memory.remove_app, "a")

    def test_table_is_swapped(self) -> None:
        """A change puts another table in place; the old one stays as it was."""
        memory = MemoryResolver([A])
        before = memory.table
        memory.apply(TopologyChange((B,), ("a",)))
        self.assertIsNot(memory.table, before)
        self.assertEqual((list(before.apps), list(memory.table.apps)), (["a"], ["b"]))
