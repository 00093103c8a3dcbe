"""Tests of scalingo_proxy.services.reserved_settings."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config_tables import DOCUMENT
from scalingo_proxy.model import App
from scalingo_proxy.resolvers.strict_tables import TableListReader, TableReader
from scalingo_proxy.services.reserved_settings import (
    REFUSED,
    WARNED,
    reserved_settings,
    reserved_warnings,
)


class TableTests(SynchronousTestCase):
    """The two tables themselves."""

    def test_keys_exist(self) -> None:
        """Every entry is about a key of the contract, so none is a dead letter."""
        for pattern, _value in [*REFUSED, *WARNED]:
            reader: object = DOCUMENT
            for key in pattern.split("."):
                table = reader.table if isinstance(reader, TableListReader) else reader
                assert isinstance(table, TableReader)
                self.assertIn(key, table.fields, pattern)
                reader = table.fields[key]

    def test_one_verdict(self) -> None:
        """Nothing is both refused and warned of."""
        self.assertEqual(set(REFUSED) & set(WARNED), set())


class DocumentTests(SynchronousTestCase):
    """A whole configuration."""

    def test_places(self) -> None:
        """Findings stand where the setting does, in the table it is in."""
        refused, warned = reserved_settings(
            {
                "app": [{}, {"limits": {"head_bytes": 100}}],
            }
        )
        self.assertEqual(refused, [])
        self.assertEqual([finding.path for finding in warned], [("app", 1, "limits", "head_bytes")])

    def test_wrong_types(self) -> None:
        """What is no table or list is left to those who read it."""
        self.assertEqual(reserved_settings({"listen": 5, "app": ["x"], "access": None}), ([], []))


class AppTests(SynchronousTestCase):
    """One app, as the admin API is told it."""

    def test_record(self) -> None:
        """A record alone is checked like one of the file."""
        _refused, warned = reserved_settings({"app": {"limits": {"head_bytes": 100}}})
        self.assertEqual([finding.path for finding in warned], [("app", "limits", "head_bytes")])

    def test_plain(self) -> None:
        """An app that asks for nothing special has no warnings."""
        app = App("a", domains=["a.example"], backends=["a:1"], timeouts={"connect": 1.0})
        self.assertEqual(reserved_warnings(app), ())

    def test_warned(self) -> None:
        """Harmless ones are sentences that name the app and the setting."""
        (warning,) = reserved_warnings(App("a", timeouts={"keep_alive": 5.0}))
        self.assertTrue(warning.startswith('app "a": timeouts.keep_alive: '), warning)
