"""Tests for :mod:`scalingo_proxy.services.admin_backends`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Outcome
from scalingo_proxy.protocols.drains import AFTER_DEADLINE_SECONDS
from scalingo_proxy.routing.pool import Lease
from tests.services.admin_world import AdminWorld, Connection

ONE, TWO, THREE = "127.0.0.1:3001", "127.0.0.1:3002", "[::1]:3003"
BACKENDS = "/api/v1/apps/hello/backends"


class BackendsCase(SynchronousTestCase):
    """An app with two backends, told by the API."""

    def setUp(self) -> None:
        self.world = AdminWorld().start()
        record = {"domains": ["hello.localhost"], "backends": [ONE, TWO], "timeouts": {"drain": 20}}
        self.world.ask("PUT", "/api/v1/apps/hello", record)

    def lease(self) -> Lease:
        lease = self.world.pool("hello").lease()
        assert lease is not None
        return lease

    def leases(self) -> dict[str, Lease]:
        """One on each of the two backends, by its address."""
        return {lease.backend.address: lease for lease in (self.lease(), self.lease())}

    def told(self) -> dict[str, dict[str, Any]]:
        reply = self.world.ask("GET", BACKENDS)
        return {backend["address"]: backend for backend in reply.document["backends"]}


class GetBackendsTests(BackendsCase):
    """``GET /apps/NAME/backends``."""

    def test_before_the_first_request(self) -> None:
        """The record is told, with nothing known but when it came."""
        expected = {
            "address": ONE,
            "weight": 1,
            "membership": "serving",
            "health": "unproven",
            "state": "unproven",
            "reason": "no request has reached this app yet",
            "since": "2023-11-14T22:13:20.000Z",
            "in_flight": 0,
            "tunnels": 0,
            "is_drained": False,
        }
        self.assertEqual(expected, self.told()[ONE])
        self.assertEqual([ONE, TWO], list(self.told()))

    def test_with_requests_under_way(self) -> None:
        """Counts and moments come from the live pool."""
        self.world.reactor.advance(60)
        leases = self.leases()
        self.world.reactor.advance(1.5)
        leases[ONE].become_tunnel()
        leases[TWO].release(Outcome.COMPLETED, self.world.reactor.seconds())
        one, two = self.told()[ONE], self.told()[TWO]
        self.assertEqual((0, 1, "unproven"), (one["in_flight"], one["tunnels"], one["state"]))
        self.assertEqual("2023-11-14T22:14:20.000Z", one["since"])
        self.assertEqual((0, 0, "up"), (two["in_flight"], two["tunnels"], two["state"]))
        self.assertEqual("2023-11-14T22:14:21.500Z", two["since"])

    def test_a_full_backend(self) -> None:
        """A backend without room is told so in one word."""
        self.world.ask("PATCH", "/api/v1/apps/hello", {"limits": {"in_flight_per_backend": 1}})
        self.leases()
        self.assertEqual("full", self.told()[ONE]["state"])
        self.assertIn("(1)", self.told()[ONE]["reason"])

    def test_a_draining_backend(self) -> None:
        """It is listed last, with what is still open."""
        leases = self.leases()
        self.world.reactor.advance(5)
        leases[ONE].become_tunnel()
        self.world.ask("PUT", BACKENDS, {"backends": [TWO]})
        told = self.told()
        self.assertEqual([TWO, ONE], list(told))
        one = told[ONE]
        self.assertEqual(
            ("draining", "draining", False), (one["membership"], one["state"], one["is_drained"])
        )
        self.assertEqual("2023-11-14T22:13:25.000Z", one["since"])
        self.assertIn("1 tunnel still open", one["reason"])
        leases[ONE].release(Outcome.COMPLETED, 6)
        self.assertEqual([TWO], list(self.told()))

    def test_an_unknown_app(self) -> None:
        """Nobody has no backends."""
        self.assertEqual("unknown-app", self.world.ask("GET", "/api/v1/apps/nobody/backends").code)


class PutBackendsTests(BackendsCase):
    """``PUT /apps/NAME/backends`` without a wait."""

    def test_replaces_the_set(self) -> None:
        """The new set is told, stored and in effect; nothing else changes."""
        reply = self.world.ask("PUT", BACKENDS, {"backends": [THREE, {"address": ONE, "weight": 3}]})
        self.assertEqual(200, reply.status)
        self.assertEqual(
            [(THREE, 1), (ONE, 3)], [(each["address"], each["weight"]) for each in reply.document["backends"]]
        )
        app = self.world.store.apps()["hello"]
        self.assertEqual((THREE, ONE), tuple(backend.address for backend in app.backends))
        self.assertEqual({"drain": 20.0}, dict(app.timeouts))

    def test_a_kept_backend_keeps_its_requests(self) -> None:
        """Only what differs is touched."""
        self.leases()
        self.world.ask("PUT", BACKENDS, {"backends": [TWO, THREE]})
        told = self.told()
        self.assertEqual([1, 0, 1], [told[address]["in_flight"] for address in (TWO, THREE, ONE)])

    def test_mistakes_name_their_place(self) -> None:
        """Every mistake, by its path in the body; nothing is changed."""
        for body, fields in (
            (
                {"backends": ["127.0.0.1", ONE, {"address": TWO, "wait": 3}]},
                {"backends[0]", "backends[2].wait"},
            ),
            ({"backends": ONE}, {"backends"}),
            ({"backends": [ONE, ONE]}, {"backends[1]"}),
            ({"backend": [ONE]}, {"backend", "backends"}),
            ({"backends": [ONE], "domains": []}, {"domains"}),
            ({}, {"backends"}),
        ):
            reply = self.world.ask("PUT", BACKENDS, body)
            self.assertEqual((400, fields), (reply.status, set(reply.mistakes)), body)
        self.assertEqual([ONE, TWO], list(self.told()))

    def test_an_app_of_the_file(self) -> None:
        """Its record is taken over with the new set."""
        world = AdminWorld(App("hello", ("hello.localhost",), (ONE,))).start()
        self.assertEqual(200, world.ask("PUT", BACKENDS, {"backends": [TWO]}).status)
        told = world.ask("GET", "/api/v1/apps/hello").document
        self.assertEqual(
            (["hello.localhost"], [TWO], "store"), (told["domains"], told["backends"], told["source"])
        )

    def test_an_unknown_app(self) -> None:
        """An app is not made by its backends."""
        reply = self.world.ask("PUT", "/api/v1/apps/nobody/backends", {"backends": [ONE]})
        self.assertEqual("unknown-app", reply.code)


class WaitTests(BackendsCase):
    """``PUT /apps/NAME/backends?wait=…``."""

    def put(self, *backends: str) -> Connection:
        return self.world.begin("PUT", f"{BACKENDS}?wait=drained", {"backends": backends})

    def test_drained_at_once(self) -> None:
        """Without requests on them, the removed ones are safe to kill now."""
        for _used in (False, True):
            reply = self.world.ask("PUT", f"{BACKENDS}?wait=drained", {"backends": [TWO]})
            self.assertEqual(200, reply.status)
            self.assertEqual([TWO], [each["address"] for each in reply.document["backends"]])
            self.lease().release(Outcome.COMPLETED, 0)

    def test_answers_when_the_last_request_is_over(self) -> None:
        """Requests and tunnels are both waited for; the deadline goes away."""
        leases = self.leases()
        leases[TWO].become_tunnel()
        waiting = self.put(THREE)
        self.assertTrue(waiting.is_silent)
        leases[ONE].release(Outcome.COMPLETED, 1)
        self.assertTrue(waiting.is_silent)
        leases[TWO].release(Outcome.COMPLETED, 2)
        reply = waiting.reply()
        self.assertEqual(200, reply.status)
        self.assertEqual([THREE], [each["address"] for each in reply.document["backends"]])

    def test_gives_up_after_the_apps_drain_time(self) -> None:
        """504 with the backends that even the end of that time did not free; the new set is in effect."""
        self.leases()
        waiting = self.put(TWO)
        self.world.reactor.advance(20 + AFTER_DEADLINE_SECONDS - 0.1)
        self.assertTrue(waiting.is_silent)
        self.world.reactor.advance(0.2)
        reply = waiting.reply()
        self.assertEqual((504, "still-busy"), (reply.status, reply.code))
        self.assertIn("1 removed backend is still busy after 20 seconds", reply.document["error"]["message"])
        self.assertEqual(
            [(TWO, "serving"), (ONE, "draining")],
            [(each["address"], each["membership"]) for each in reply.document["backends"]],
        )

    def test_asking_again_waits_for_the_same_backends(self) -> None:
        """Whoever lost the answer repeats the request and is not told too early."""
        leases = self.leases()
        self.put(TWO).leave()
        again = self.put(TWO)
        self.assertTrue(again.is_silent)
        leases[ONE].release(Outcome.COMPLETED, 1)
        self.assertEqual(200, again.reply().status)

    def test_later_changes_do_not_prolong_it(self) -> None:
        """What another change removes is not waited for, and changes are not held up."""
        leases = self.leases()
        first = self.put(TWO)
        self.world.ask("PUT", BACKENDS, {"backends": [THREE]})
        leases[ONE].release(Outcome.COMPLETED, 1)
        self.assertEqual(200, first.reply().status)

    def test_an_app_that_is_deleted_meanwhile(self) -> None:
        """The wait goes on about the backends that it was about."""
        leases = self.leases()
        waiting = self.put(TWO)
        self.world.ask("DELETE", "/api/v1/apps/hello")
        self.assertTrue(waiting.is_silent)
        leases[ONE].release(Outcome.COMPLETED, 1)
        self.assertEqual(200, waiting.reply().status)

    def test_a_client_that_leaves(self) -> None:
        """The change stays, the wait and its deadline go."""
        self.leases()
        before = self.world.reactor.getDelayedCalls()
        self.put(TWO).leave()
        self.assertEqual(before, self.world.reactor.getDelayedCalls())
        self.assertEqual((TWO,), tuple(each.address for each in self.world.store.apps()["hello"].backends))

    def test_other_waits_are_refused_before_anything_changes(self) -> None:
        """Anything that there is no wait for is a mistake."""
        for wait, sentence in (("forever", 'must be "ready", "drained"'), ("", "drained")):
            reply = self.world.ask("PUT", f"{BACKENDS}?wait={wait}", {"backends": [THREE]})
            self.assertEqual(400, reply.status)
            self.assertIn(sentence, reply.mistakes["wait"])
        self.assertEqual([ONE, TWO], list(self.told()))
