"""The apps of the configuration file.  The contract is tested in tests/contracts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError, DomainTaken
from scalingo_proxy.model import App, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.config_file import ConfigFileResolver

A = App("a", ["a.example"], ["127.0.0.1:3000"])
B = App("b", ["b.example"], ["127.0.0.1:3001"])


class ReplaceTests(SynchronousTestCase):
    """What a reload does."""

    def setUp(self) -> None:
        self.file = ConfigFileResolver()
        self.file.replace([A, B])
        self.told: list[TopologyChange] = []
        self.file.watch(self.told.append)

    def test_name(self) -> None:
        """Its routes say that they come from the file."""
        self.assertEqual(self.file.resolve(RouteQuery("a.example")).resolver, "file")

    def test_difference(self) -> None:
        """Only what differs is told, and given back."""
        new = App("c", ["b.example"])
        difference = self.file.replace([A, new])
        self.assertEqual(difference, TopologyChange((new,), ("b",)))
        self.assertEqual(self.told, [difference])

    def test_same_file(self) -> None:
        """A file that says the same again changes nothing, and keeps the very same apps."""
        table = self.file.table
        again = App("a", ["A.Example."], ["127.0.0.1:3000"])
        self.assertFalse(self.file.replace([B, again]))
        self.assertIs(self.file.table, table)
        self.assertEqual(self.told, [])

    def test_empty_file(self) -> None:
        """A file without apps takes all of them away."""
        self.assertEqual(self.file.replace([]), TopologyChange((), ("a", "b")))
        self.assertEqual(dict(self.file.apps()), {})

    def test_refused(self) -> None:
        """A file that contradicts itself changes nothing."""
        table = self.file.table
        self.assertRaises(DomainTaken, self.file.replace, [A, App("c", ["a.example"])])
        self.assertRaises(ConfigurationError, self.file.replace, [A, App("a", ["c.example"])])
        self.assertIs(self.file.table, table)
        self.assertEqual(self.told, [])

    def test_guarded(self) -> None:
        """A guard's objection refuses the file."""

        def refuse(change: TopologyChange) -> None:
            raise DomainTaken("c.example", "z")

        self.file.guard(refuse)
        self.assertRaises(DomainTaken, self.file.replace, [A, App("c", ["c.example"])])
        self.assertEqual(list(self.file.apps()), ["a", "b"])
