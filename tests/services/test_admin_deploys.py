"""``?wait=ready``: new backends answer first, or nothing changes."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Outcome, RouteQuery
from scalingo_proxy.routing.members import HealthState
from tests.services.admin_world import AdminWorld, Connection, Reply, check_reply
from tests.services.test_control import SlowStore

ONE, TWO, THREE = "127.0.0.1:3001", "127.0.0.1:3002", "[::1]:3003"
APP = "/api/v1/apps/hello"
BACKENDS = f"{APP}/backends"
READY = f"{BACKENDS}?wait=ready"


class DeployCase(SynchronousTestCase):
    """An app with one backend that is up."""

    def setUp(self) -> None:
        self.world = AdminWorld(App("filed", ("filed.localhost",), (ONE,))).start()
        self.put(APP, {"domains": ["hello.localhost"], "backends": [ONE]})
        self.answer()

    def put(self, path: str, body: Any, method: str = "PUT") -> Reply:
        """Ask for what is answered at once."""
        return self.world.ask(method, path, body)

    def begin(self, backends: list[str], path: str = READY) -> Connection:
        """Begin a deploy."""
        return self.world.begin("PUT", path, {"backends": backends})

    def end(self, connection: Connection, path: str = READY, method: str = "PUT") -> Reply:
        """Its answer, which must be there and agree with ``openapi.json``."""
        reply = connection.reply(method)
        check_reply(method, path, reply)
        return reply

    def answer(self) -> None:
        """Let a request be answered by every backend."""
        pool = self.world.pool("hello")
        for lease in [pool.lease() for _ in pool.members]:
            assert lease is not None
            lease.release(Outcome.COMPLETED, self.world.reactor.seconds())

    def pass_time(self, seconds: float) -> None:
        """In steps, so that everything comes at its time."""
        for _ in range(round(seconds * 100)):
            self.world.reactor.advance(0.01)

    def served_by(self) -> list[str]:
        """The backends of the app as requests find it."""
        route: Any = self.world.resolver.resolve(RouteQuery("hello.localhost"))
        return [backend.address for backend in route.app.backends]

    def told(self) -> dict[str, dict[str, Any]]:
        reply = self.world.ask("GET", BACKENDS)
        return {backend["address"]: backend for backend in reply.document["backends"]}


class ReadyTests(DeployCase):
    """A wait that ends well."""

    def test_answers_when_they_pass(self) -> None:
        """The old set serves until the new one has passed, which then begins as up."""
        self.world.probe.failing = {TWO: 503, THREE: 503}
        deploy = self.begin([TWO, THREE])
        self.pass_time(2.5)
        self.assertTrue(deploy.is_silent)
        self.assertEqual(self.served_by(), [ONE])
        del self.world.probe.failing[TWO]
        self.pass_time(2)
        self.assertTrue(deploy.is_silent)
        self.world.probe.failing.clear()
        self.pass_time(1.1)
        reply = self.end(deploy)
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.served_by(), [TWO, THREE])
        states = [(one["address"], one["state"], one["reason"]) for one in reply.document["backends"]]
        self.assertEqual(
            states,
            [
                (TWO, "up", f"GET http://{TWO}/: answered 200"),
                (THREE, "up", f"GET http://{THREE}/: answered 200"),
            ],
        )
        two, three = reply.document["probes"]
        self.assertEqual((two["address"], two["passed"], two["status"], two["tries"]), (TWO, True, 200, 4))
        self.assertEqual((three["url"], three["tries"]), (f"http://{THREE}/", 6))
        self.pass_time(60)
        self.assertEqual(self.world.reactor.getDelayedCalls(), [])

    def test_once_a_second(self) -> None:
        """Neither more often nor, while probes take their time, less."""
        self.world.probe.failing = {TWO: 503}
        self.world.probe.seconds = 0.4
        self.begin([TWO])
        self.pass_time(5.5)
        self.assertEqual([round(moment, 1) for moment in self.world.probe.moments], [0, 1, 2, 3, 4, 5])

    def test_only_what_is_new(self) -> None:
        """What serves and is up is not asked again; what has failed is."""
        deploy = self.begin([ONE, TWO])
        self.assertEqual((self.end(deploy).status, self.world.probe.addresses), (200, [TWO]))
        self.world.probe.forget()
        reply = self.end(self.begin([TWO, ONE]))
        self.assertEqual((reply.status, self.world.probe.begun), (200, []))
        self.assertNotIn("probes", reply.document)

    def test_under_pause(self) -> None:
        """Nobody serves an app that is paused or stopped: whoever was well before is asked again."""
        for verb, back in (("pause", "resume"), ("stop", "start")):
            self.assertEqual(self.end(self.begin([ONE])).status, 200)
            self.world.probe.forget()
            self.world.ask("POST", f"{APP}/{verb}")
            self.world.probe.failing = {ONE: 503}
            deploy = self.begin([ONE])
            self.pass_time(2.5)
            self.assertTrue(deploy.is_silent)
            self.world.probe.failing.clear()
            self.pass_time(1.1)
            reply = self.end(deploy)
            self.assertEqual((reply.status, reply.document["probes"][0]["tries"]), (200, 4))
            self.world.ask("POST", f"{APP}/{back}")
            self.assertEqual(self.told()[ONE]["health"], "up")

    def test_in_a_row(self) -> None:
        """As many as the app wants have to pass."""
        self.put(APP, {"health": {"rise": 3}}, "PATCH")
        deploy = self.begin([TWO])
        self.pass_time(1.5)
        self.assertTrue(deploy.is_silent)
        self.pass_time(1)
        self.assertEqual(self.end(deploy).document["probes"][0]["tries"], 3)

    def test_app_that_nobody_used(self) -> None:
        """Also before the first request, and with what the change itself says of health."""
        path = "/api/v1/apps/new?wait=ready"
        record = {"domains": ["new.localhost"], "backends": [TWO], "health": {"path": "/up", "timeout": 1}}
        reply = self.put(path, record)
        self.assertEqual((reply.status, reply.document["probes"][0]["address"]), (201, TWO))
        self.assertEqual([(one.path, one.timeout) for one in self.world.probe.healths], [("/up", 1.0)])
        (told,) = self.world.ask("GET", "/api/v1/apps/new/backends").document["backends"]
        self.assertEqual(told["state"], "up")
        self.assertEqual(self.put(path, record).status, 200)
        # What was told may come back with it.
        self.assertEqual(self.put("/api/v1/apps/new", reply.document).status, 200)

    def test_patch(self) -> None:
        """A patch that brings backends waits for them; another one has nothing to wait for."""
        self.world.probe.failing = {TWO: 500}
        deploy = self.world.begin("PATCH", f"{APP}?wait=ready", {"backends": [TWO]})
        self.pass_time(1)
        self.world.probe.failing.clear()
        self.pass_time(1)
        self.assertEqual(self.end(deploy, APP, "PATCH").document["backends"], [TWO])
        self.assertEqual(self.put(f"{APP}?wait=ready", {"balancer": "random_two"}, "PATCH").status, 200)

    def test_an_app_of_the_file(self) -> None:
        """It becomes one that the API was told."""
        reply = self.put("/api/v1/apps/filed/backends?wait=ready", {"backends": [TWO]})
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.world.control.source("filed"), "store")

    def test_ready_and_drained(self) -> None:
        """Both in turn: first the new ones, then the old ones."""
        lease = self.world.pool("hello").lease()
        assert lease is not None
        self.world.probe.failing = {TWO: 500}
        deploy = self.begin([TWO], f"{BACKENDS}?wait=ready,drained")
        self.pass_time(1)
        self.assertEqual(self.served_by(), [ONE])
        self.world.probe.failing.clear()
        self.pass_time(1)
        self.assertEqual((self.served_by(), deploy.is_silent), ([TWO], True))
        lease.release(Outcome.COMPLETED, self.world.reactor.seconds())
        reply = self.end(deploy)
        self.assertEqual([one["address"] for one in reply.document["backends"]], [TWO])
        self.assertEqual([one["address"] for one in reply.document["probes"]], [TWO])

    def test_other_words(self) -> None:
        """Anything else is refused, and says what there is."""
        for wait in ("now", "ready,", "ready,ready", "drained,now", ""):
            reply = self.put(f"{BACKENDS}?wait={wait}", {"backends": [TWO]})
            self.assertEqual(reply.mistakes, {"wait": 'must be "ready", "drained" or "ready,drained"'}, wait)
            reply = self.put(f"{APP}?wait=drained", {"backends": [TWO]}, "PATCH")
            self.assertEqual(reply.mistakes, {"wait": 'must be "ready"'})
        self.assertEqual(self.world.probe.begun, [])


class NotReadyTests(DeployCase):
    """A wait that does not."""

    def test_after_thirty_seconds(self) -> None:
        """422 with everything about each probe, and nothing has changed."""
        self.world.probe.failing = {TWO: 503}
        deploy = self.begin([TWO, THREE])
        self.pass_time(29.9)
        self.assertTrue(deploy.is_silent)
        self.pass_time(0.2)
        reply = self.end(deploy)
        self.assertEqual((reply.status, reply.code), (422, "not-ready"))
        self.assertEqual(
            reply.document["error"]["message"],
            "nothing has changed: 1 of 2 new backends are not ready after 30 seconds; "
            f"GET http://{TWO}/: answered 503",
        )
        two, three = reply.document["probes"]
        self.assertEqual(
            two,
            {
                "address": TWO,
                "passed": False,
                "url": f"http://{TWO}/",
                "status": 503,
                "reason": f"GET http://{TWO}/: answered 503",
                "probe_seconds": 0.0,
                "tries": 30,
                "seconds": 30.0,
            },
        )
        self.assertEqual((three["passed"], three["tries"]), (True, 1))
        self.assertEqual((self.served_by(), list(self.told())), ([ONE], [ONE]))
        self.assertEqual(self.world.store.apps()["hello"].backends[0].address, ONE)
        self.pass_time(60)
        self.assertEqual(self.world.reactor.getDelayedCalls(), [])

    def test_never_a_verdict(self) -> None:
        """A probe that takes longer than all the time there is."""
        self.world.probe.seconds = 100
        deploy = self.begin([TWO])
        self.pass_time(30.1)
        (probe,) = self.end(deploy).document["probes"]
        self.assertEqual((probe["tries"], probe["reason"]), (0, f"{TWO}: no verdict within 30 s"))
        self.pass_time(60)
        self.assertEqual((self.world.probe.under_way, self.world.reactor.getDelayedCalls()), (0, []))

    def test_not_often_enough(self) -> None:
        """Passed at last, but not as many times in a row as wanted."""
        self.put(APP, {"health": {"rise": 100}}, "PATCH")
        deploy = self.begin([TWO])
        self.pass_time(30.1)
        reply = self.end(deploy)
        self.assertIn("answered 200, but not 100 times in a row", reply.document["error"]["message"])

    def test_mistakes_come_first(self) -> None:
        """What is wrong anyway is told before anybody is probed."""
        self.assertEqual(self.put(READY, {"backends": ["nonsense"]}).status, 400)
        self.assertEqual(self.put("/api/v1/apps/nobody/backends?wait=ready", {"backends": [TWO]}).status, 404)
        reply = self.put("/api/v1/apps/other?wait=ready", {"domains": ["hello.localhost"], "backends": [TWO]})
        self.assertEqual((reply.status, reply.code), (409, "domain-taken"))
        self.assertEqual(self.world.probe.begun, [])


class MeanwhileTests(DeployCase):
    """What happens while a deploy waits."""

    def setUp(self) -> None:
        super().setUp()
        self.world.probe.failing = {TWO: 503}

    def test_nobody_else_waits(self) -> None:
        """Changes of other apps, and of the same app's other settings, are made at once."""
        deploy = self.begin([TWO])
        self.pass_time(1)
        self.assertEqual(self.put("/api/v1/apps/other", {"domains": ["other.localhost"]}).status, 201)
        self.assertEqual(self.put(APP, {"balancer": "random_two"}, "PATCH").status, 200)
        self.assertEqual(self.world.ask("POST", f"{APP}/pause").status, 200)
        self.world.probe.failing.clear()
        self.pass_time(1)
        self.assertEqual(self.end(deploy).status, 200)
        app = self.world.control.app("hello")
        self.assertEqual((app.balancer, app.state.value), ("random_two", "paused"))

    def test_a_client_that_leaves(self) -> None:
        """It calls the deploy off, and nothing is left of it."""
        self.world.probe.seconds = 0.2
        deploy = self.begin([TWO])
        self.pass_time(1.1)
        deploy.leave()
        self.assertEqual((self.world.probe.under_way, self.world.probe.cancelled), (0, 1))
        self.world.probe.failing.clear()
        self.world.probe.forget()
        self.pass_time(60)
        self.assertEqual((self.world.probe.begun, self.served_by()), ([], [ONE]))
        self.assertEqual(self.world.reactor.getDelayedCalls(), [])

    def test_the_proxy_stops(self) -> None:
        """It is answered, and nothing is left."""
        deploy = self.begin([TWO])
        self.pass_time(1)
        self.world.stop()
        self.assertEqual((deploy.reply().status, self.served_by()), (503, [ONE]))

    def test_another_set(self) -> None:
        """Whoever changes the set meanwhile ends the wait."""
        deploy = self.begin([TWO])
        self.pass_time(1)
        self.assertEqual(self.put(BACKENDS, {"backends": [THREE]}).status, 200)
        reply = self.end(deploy)
        self.assertEqual((reply.status, reply.code), (409, "superseded"))
        self.world.probe.failing.clear()
        self.pass_time(60)
        self.assertEqual(self.served_by(), [THREE])
        self.assertEqual(self.world.reactor.getDelayedCalls(), [])

    def test_the_newer_one_wins(self) -> None:
        """Of two that wait, the older one ends."""
        older = self.begin([TWO])
        self.pass_time(1)
        newer = self.begin([TWO, THREE])
        self.assertEqual(self.end(older).code, "superseded")
        self.assertTrue(newer.is_silent)
        self.world.probe.failing.clear()
        self.pass_time(1)
        self.assertEqual((self.end(newer).status, self.served_by()), (200, [TWO, THREE]))

    def test_removed(self) -> None:
        """An app that is removed meanwhile does not come back."""
        deploy = self.begin([TWO])
        self.pass_time(1)
        self.world.ask("DELETE", APP)
        self.assertEqual(self.end(deploy).code, "superseded")
        self.world.probe.failing.clear()
        self.pass_time(60)
        self.assertNotIn("hello", self.world.resolver.apps())

    def test_overtaken_at_the_last_moment(self) -> None:
        """A change that was ahead in the store's line counts, too."""
        store = SlowStore(self.world)
        first = self.world.begin("PUT", BACKENDS, {"backends": [THREE]})
        self.world.probe.failing.clear()
        deploy = self.begin([TWO])
        self.assertTrue(first.is_silent and deploy.is_silent)
        store.commit()
        self.assertEqual(self.end(deploy).code, "superseded")
        self.assertEqual((first.reply().status, self.served_by(), store.commits), (200, [THREE], []))


class RedeployTests(DeployCase):
    """A set that names a backend again."""

    def quarantine(self) -> Any:
        """Put the first member there, and whoever is with it."""
        pool = self.world.pool("hello")
        for lease in [pool.lease() for _ in pool.members]:
            assert lease is not None
            lease.release(Outcome.CONNECT_FAILED, self.world.reactor.seconds())
        member = pool.members[0]
        self.assertIs(member.health, HealthState.QUARANTINED)
        return member

    def test_another_start(self) -> None:
        """Quarantine is over, and the member is the same one."""
        for path, method in ((BACKENDS, "PUT"), (APP, "PATCH")):
            member = self.quarantine()
            self.put(path, {"backends": [ONE]}, method)
            told = self.told()[ONE]
            self.assertEqual((told["health"], told["reason"]), ("unproven", "it was deployed again"))
            self.assertEqual(self.world.pool("hello").members, (member,))

    def test_other_settings(self) -> None:
        """A change of something else is no deploy."""
        member = self.quarantine()
        self.put(APP, {"balancer": "random_two"}, "PATCH")
        self.assertIs(member.health, HealthState.QUARANTINED)

    def test_taking_one_out(self) -> None:
        """Whoever takes another one out says nothing of this one."""
        member = self.quarantine()
        self.put(BACKENDS, {"backends": [ONE, TWO]})
        self.quarantine()
        self.assertEqual(self.world.ask("DELETE", f"{BACKENDS}/{TWO}").status, 200)
        self.assertIs(member.health, HealthState.QUARANTINED)

    def test_that_waits(self) -> None:
        """It has to pass, and is up then."""
        self.quarantine()
        self.world.probe.failing = {ONE: 500}
        deploy = self.begin([ONE])
        self.pass_time(1)
        self.assertEqual(self.told()[ONE]["health"], "quarantined")
        self.world.probe.failing.clear()
        self.pass_time(1)
        self.assertEqual(self.end(deploy).document["backends"][0]["state"], "up")


class ManyTests(SynchronousTestCase):
    """A deploy of very many backends."""

    def test_evenly(self) -> None:
        """They are probed one after another, too."""
        reactor = MemoryReactorClock()
        world = AdminWorld(App("hello", ("hello.localhost",)), reactor=reactor).start()
        backends = [f"10.0.{number // 250}.{number % 250}:3000" for number in range(1000)]
        deploy = world.begin("PUT", READY, {"backends": backends})
        for _ in range(600):
            reactor.advance(0.01)
        self.assertEqual(deploy.reply().status, 200)
        self.assertLessEqual(world.probe.most_within(0.1), 21)
