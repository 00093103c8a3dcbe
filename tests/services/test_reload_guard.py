"""Tests for :mod:`scalingo_proxy.services.reload_guard`, ``topology_control`` and ``admin_topology``."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import fail
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import DomainTaken
from scalingo_proxy.model import App
from scalingo_proxy.routing.topology_guard import GuardRule
from tests.services.admin_world import AdminWorld

APPS = tuple(App(f"app-{n:02}", (f"{n}.test",), (f"10.0.0.1:{3000 + n}",)) for n in range(40))


class GuardCase(SynchronousTestCase):
    """A file of 40 apps."""

    def setUp(self) -> None:
        self.world = AdminWorld(*APPS).start()
        self.alarms: list[str] = []
        globalLogPublisher.addObserver(self._hear)
        self.addCleanup(globalLogPublisher.removeObserver, self._hear)

    def _hear(self, event: Any) -> None:
        if event["log_level"] is LogLevel.critical:
            self.alarms.append(event["log_format"].format(**event))

    def reload(self, *apps: App) -> int:
        """The status that a reload to *apps* is answered with."""
        self.world.reload_to(*apps)
        self.reply = self.world.ask("POST", "/api/v1/reload")
        return self.reply.status

    def count(self) -> int:
        return len(self.world.file.apps())

    def post(self, verb: str) -> int:
        self.reply = self.world.ask("POST", f"/api/v1/topology/{verb}")
        return self.reply.status


class ReloadTests(GuardCase):
    """A reload, judged."""

    def test_held(self) -> None:
        """409 with what it would remove and what to do; nothing has changed."""
        self.assertEqual((self.reload(*APPS[:10]), self.reply.code, self.count()), (409, "held-back", 40))
        held = self.reply.document["held"]
        self.assertEqual(
            (held["apps_removed"], held["apps"], held["names"][0], held["confirmed_at"]),
            (30, 40, "app-10", None),
        )
        self.assertIn("scalingo-proxy topology confirm", self.reply.document["error"]["message"])
        self.assertEqual(len(self.alarms), 1)

    def test_empty(self) -> None:
        """A file without any app is held however few there were; one app alone may go."""
        self.assertEqual((self.reload(*APPS[:39]), self.reload(*APPS[:20])), (200, 200))
        self.world.reactor.advance(61)
        self.assertEqual(self.reload(*APPS[:3]), 409)
        self.assertEqual((self.post("confirm"), self.count()), (200, 3))
        self.world.reactor.advance(61)
        self.assertEqual((self.reload(), self.reply.code, self.count()), (409, "held-back", 3))
        self.assertEqual(self.reload(*(attrs.evolve(app, backends=()) for app in APPS[:3])), 409)
        self.assertEqual((self.reload(APPS[0]), self.count()), (200, 1))
        self.assertEqual((self.reload(), self.count()), (200, 0))

    def test_empty_beside_what_the_api_was_told(self) -> None:
        """It is no loss where the API describes the same apps."""
        for app in APPS:
            self.world.ask("PUT", f"/api/v1/apps/{app.name}", {"backends": ["10.0.0.9:1"]})
        self.assertEqual(self.reload(), 200)

    def test_repeated(self) -> None:
        """It is the same alarm."""
        for _ in range(3):
            self.reload(*APPS[:10])
        self.assertEqual((self.reply.document["held"]["repeated"], len(self.alarms)), (2, 1))

    def test_good_again(self) -> None:
        """A good file takes the place of what was held."""
        self.reload(*APPS[:10])
        self.assertEqual(self.reload(*APPS[:39]), 200)
        self.assertEqual((self.count(), self.world.reload_guard.held), (39, None))
        self.reload()
        self.assertEqual(len(self.alarms), 2)

    def test_in_slices(self) -> None:
        """Reloads within a minute count as one; later ones do not."""
        self.assertEqual([self.reload(*APPS[:left]) for left in (30, 21, 15)], [200, 200, 409])
        self.world.reactor.advance(61)
        self.assertEqual(self.reload(*APPS[:15]), 200)

    def test_what_the_api_was_told(self) -> None:
        """It counts among all there is, and is not lost when the file drops it."""
        for app in APPS[:25]:
            self.world.ask("PUT", f"/api/v1/apps/{app.name}", {"backends": ["10.0.0.9:1"]})
        self.assertEqual(self.reload(*APPS[:2]), 200)
        self.assertEqual(len(self.world.resolver.apps()), 25)

    def test_the_api_is_never_held(self) -> None:
        """Whoever deletes app after app means it, and a reload is not blamed for that."""
        for app in APPS:
            self.world.ask("PUT", f"/api/v1/apps/{app.name}", {"backends": ["10.0.0.9:1"]})
        for app in APPS:
            self.assertEqual(self.world.ask("DELETE", f"/api/v1/apps/{app.name}").status, 200)
        self.assertEqual((self.reload(*APPS), self.alarms), (200, []))

    def test_settings(self) -> None:
        """What is too much can be changed while it runs."""
        self.world.reload_guard.reconfigure(GuardRule(share=0.9), 0.0)
        self.assertEqual(self.reload(*APPS[:10]), 200)


class ConfirmTests(GuardCase):
    """What a person may do."""

    def test_confirm(self) -> None:
        """What was read then comes into effect, and is the measure of what comes."""
        self.reload(*APPS[:19])
        self.assertEqual((self.post("confirm"), self.count()), (200, 19))
        self.assertEqual(self.reply.document["confirmed"][0]["apps_removed"], 21)
        self.assertEqual((self.post("confirm"), self.reply.code), (409, "nothing-held-back"))
        self.assertEqual(self.reload(*APPS[:10]), 200)

    def test_discard(self) -> None:
        """What was served is served on."""
        self.reload(*APPS[:10])
        self.assertEqual((self.post("discard"), self.count()), (200, 40))
        self.assertEqual((self.post("discard"), self.reply.code), (409, "nothing-held-back"))
        self.assertEqual(self.post("confirm"), 409)

    def test_cannot_come_into_effect(self) -> None:
        """It is refused as a reload is, and held further."""
        self.reload(*APPS[:10])
        self.world.reload_guard._put_into_effect = lambda apps: fail(DomainTaken("x.test", "x"))
        self.assertEqual((self.post("confirm"), self.reply.code), (409, "domain-taken"))
        self.assertIsNotNone(self.world.reload_guard.held)

    def test_by_time(self) -> None:
        """If so configured, it counts as meant when it has stood long enough."""
        self.world.reload_guard.reconfigure(GuardRule(), 30.0)
        self.reload(*APPS[:10])
        self.assertEqual(self.reply.document["held"]["confirmed_at"], "2023-11-14T22:13:50.000Z")
        self.world.reactor.advance(29)
        self.assertEqual(self.count(), 40)
        self.world.reactor.advance(1)
        self.assertEqual((self.count(), self.world.reload_guard.held), (10, None))


class TopologyTests(GuardCase):
    """``GET /topology``, and where else it is told."""

    def test_well(self) -> None:
        """Each source with its age."""
        self.world.reactor.advance(5)
        told = self.world.ask("GET", "/api/v1/topology").document
        self.assertEqual(told["held"], False)
        self.assertEqual(
            [(each["resolver"], each["apps"], each["age_seconds"]) for each in told["sources"]],
            [("store", 0, 5.0), ("file", 40, 5.0)],
        )

    def test_held(self) -> None:
        """What is held back, since when, and why."""
        self.world.reactor.advance(5)
        self.reload(*APPS[:10])
        told = self.world.ask("GET", "/api/v1/topology").document
        self.assertEqual(told["held"], True)
        self.assertEqual(told["sources"][1]["held"]["since"], "2023-11-14T22:13:25.000Z")
        self.assertIn("would remove 30 of 40 apps", told["sources"][1]["held"]["reason"])
        (sentence,) = self.world.topology.sentences()
        self.assertIn("since 2023-11-14T22:13:25.000Z", sentence)
        self.assertEqual(self.world.topology.states(), [(("file",), True)])

    def test_ready(self) -> None:
        """It stays 200, and tells."""
        world = AdminWorld(warnings=lambda: ["something is held back"]).start()
        reply = world.ask("GET", "/ready")
        self.assertEqual((reply.status, reply.document["warnings"]), (200, ["something is held back"]))
