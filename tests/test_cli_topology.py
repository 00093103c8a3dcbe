"""Tests for :mod:`scalingo_proxy.cli_topology`."""

from __future__ import annotations

from scalingo_proxy.model import App
from scalingo_proxy.services.reload_guard import TopologyHeldBack
from tests.test_cli import AppsCase


class TopologyTests(AppsCase):
    """``topology``."""

    def hold(self) -> None:
        """Have a file of 40 apps, and hold back one of 10."""
        apps = [App(f"app-{n:02}", (), (f"10.0.0.1:{3000 + n}",)) for n in range(40)]
        self.world.file.replace(apps)
        self.world.reload_guard.applied()
        left = apps[:10]
        with self.assertRaises(TopologyHeldBack):
            self.world.reload_guard.admit(left, {app.name: app for app in left})

    async def test_well(self) -> None:
        """A table of the sources."""
        run = await self.command("topology")
        self.assertEqual((0, ""), (run.status, run.err))
        self.assertEqual(["SOURCE", "APPS", "SYNCED", "STATE"], run.out.split("\n")[0].split())
        self.assertTrue(run.out.rstrip().endswith("ok"), run.out)

    async def test_held(self) -> None:
        """What it is, and both ways out."""
        self.hold()
        run = await self.command("topology")
        for words in ("held back", "would remove 30 of 40 apps", "app-19, and 20 more", "topology confirm"):
            self.assertIn(words, run.out)
        self.assertEqual(True, (await self.command("topology", "--json")).document["held"])

    async def test_confirm(self) -> None:
        """One line says what has happened; a second time there is nothing to do."""
        self.hold()
        run = await self.command("topology", "confirm")
        self.assertEqual(
            "in effect: the update by file; 30 of 40 apps and 30 of 40 backends are removed\n", run.out
        )
        self.assertEqual(10, len(self.world.file.apps()))
        run = await self.command("topology", "confirm")
        self.assertEqual((1, "no update of the topology is held back\n"), (run.status, run.err))

    async def test_discard(self) -> None:
        """One line says what stays."""
        self.hold()
        run = await self.command("topology", "discard")
        self.assertEqual("forgotten: the update by file; 30 of 40 apps and 30 of 40 backends stay\n", run.out)
        self.assertEqual(40, len(self.world.file.apps()))
