"""Tests for :mod:`scalingo_proxy.services.explain`, ``explanation`` and ``admin_explain``."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Limits, Record
from scalingo_proxy.services.explain import Explain, UnknownRequest
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.passthrough_worlds import PassthroughTestCase, RawServer, build_passthrough
from tests.protocols.passthrough_worlds import hello as client_hello
from tests.protocols.test_upgrades import websocket
from tests.protocols.worlds import WorldTestCase, get, hello, post
from tests.services.admin_world import AdminWorld

ID = "request-id-of-a-client"


def a_record(request_id: str = ID, **fields: Any) -> Record:
    record = Record(100.0, 1_700_000_000.0, "192.0.2.7", "http")
    record.request_id = request_id
    record.finished_at = 100.5
    for name, value in fields.items():
        setattr(record, name, value)
    return record


class RingTests(SynchronousTestCase):
    """The last records, and no more than those."""

    def explain(self, size: int = 3) -> Explain:
        return Explain(size, lambda: (), Clock().seconds)

    def test_interface(self) -> None:
        """It is an observer among others."""
        verifyObject(IObserver, self.explain())

    def test_bound(self) -> None:
        """The oldest goes when a further one comes."""
        explain = self.explain()
        for number in range(5):
            explain.exchange_finished(a_record(f"id-{number}"))
        for number in (2, 3, 4):
            self.assertEqual(explain.explain(f"id-{number}")[0]["request_id"], f"id-{number}")
        error = self.assertRaises(UnknownRequest, explain.explain, "id-1")
        self.assertIn("not among the last 3 requests", str(error))

    def test_switched_off(self) -> None:
        """0 keeps none, and says so to whoever asks."""
        explain = self.explain(0)
        explain.exchange_finished(a_record())
        self.assertIn("[explain] requests is 0", str(self.assertRaises(UnknownRequest, explain.explain, ID)))

    def test_reconfigured(self) -> None:
        """A reload keeps the latest of those that are there."""
        explain = self.explain(3)
        for number in range(3):
            explain.exchange_finished(a_record(f"id-{number}", path="/x?secret=1"))
        explain.reconfigure(2, query=False)
        self.assertRaises(UnknownRequest, explain.explain, "id-0")
        self.assertEqual(explain.explain("id-1")[0]["path"], "/x")

    def test_same_id_twice(self) -> None:
        """All are told, the latest first."""
        explain = self.explain()
        for path in ("/first", "/second"):
            explain.exchange_finished(a_record(path=path))
        self.assertEqual([each["path"] for each in explain.explain(ID)], ["/second", "/first"])

    def test_long_texts(self) -> None:
        """What a client chose fills no memory, and the record of others is not touched."""
        explain = self.explain()
        explain.exchange_finished(a_record(path="/short", user_agent="y" * 8000))
        self.assertEqual((explain._ring[0].user_agent, explain._ring[0].path), ("", "/short"))
        record = a_record(path="/" + "x" * 8000, user_agent="y" * 8000)
        explain.exchange_finished(record)
        self.assertEqual(len(explain.explain(ID)[0]["path"]), 257)
        self.assertEqual((len(record.path), len(record.user_agent)), (8001, 8000))

    def test_together(self) -> None:
        """Of several that finish together the last are kept, each as if it came alone."""
        usual = [a_record(f"id-{number}", path="/" + "x" * number) for number in (0, 511)]
        unusual = [
            a_record("path", path="/" * 600, host="h" * 500),
            a_record("host", host="h" * 1025),
            a_record("method", method="M" * 1025),
            a_record("agent", user_agent="y" * 1025),
            a_record("referer", referer="y" * 1025),
        ]
        for records in (usual, usual + unusual[:1], unusual, [*usual, unusual[1], *usual]):
            together, alone = self.explain(5), self.explain(5)
            together.exchanges_finished(records)
            for record in records:
                alone.exchange_finished(record)
            kept, wanted = (
                [(each.request_id, each.path, each.host, each.method, each.user_agent) for each in ring]
                for ring in (together._ring, alone._ring)
            )
            self.assertEqual(kept, wanted)
        together = self.explain(1)
        together.exchanges_finished(usual)
        self.assertIs(together._ring[0], usual[1])


class StoryCase(WorldTestCase):
    """Worlds whose observer is what explains them."""

    def story(self, world: World, record: Record | None = None, **options: Any) -> dict[str, Any]:
        """What is told of the last request, or of *record*."""
        explain = Explain(10, world.factory.env.under_way, world.clock.seconds, **options)
        for each in world.records:
            explain.exchange_finished(each)
        request_id = (record or world.records[-1]).request_id
        return explain.explain(request_id)[0]

    def verdicts(self, told: dict[str, Any]) -> list[str]:
        return [each["verdict"] for each in told["backends"]]


class StoryTests(StoryCase):
    """What became of a request."""

    def test_ordinary(self) -> None:
        """Route, the backend that was chosen, the other one, one attempt, a good end."""
        world = self.world()
        app = hello(world, replies.delayed(0.25, replies.echo()), backends=2)
        world.request(post(b"twelve bytes", b"Authorization: Bearer secret"))
        told = self.story(world)
        self.assertEqual(told["route"], {"app": "hello", "domain": "hello.test", "resolver": "memory"})
        self.assertEqual(
            [each["address"] for each in told["backends"]], [each.address for each in app.backends]
        )
        self.assertEqual(sorted(self.verdicts(told)), ["chosen", "not-its-turn"])
        (attempt,) = told["attempts"]
        self.assertEqual((attempt["connection"], attempt["end"]), ("new", told["cause"]))
        self.assertGreater(attempt["sent_bytes"], 12)
        self.assertEqual((attempt["first_byte_ms"], told["duration_ms"]), (250.0, 250.0))
        self.assertEqual((told["state"], told["status"], told["code"]), ("finished", 200, "-"))
        self.assertEqual((told["at"], told["bytes_in"]), ("2026-01-01T00:00:00.000Z", 12))
        self.assertNotIn("secret", str(told))

    def test_query(self) -> None:
        """The path is told as the request log tells it."""
        world = self.world()
        hello(world)
        world.request(get(b"/reset?token=secret"))
        self.assertEqual(self.story(world)["path"], "/reset?token=secret")
        self.assertEqual(self.story(world, query=False)["path"], "/reset")

    def test_retried(self) -> None:
        """Who was tried and why it did not do, then who did."""
        world = self.world()
        app = hello(world, backends=2)
        app.backends[0].stop_listening()
        for _ in range(2):
            world.request(get())
        told = self.story(world, max(world.records, key=lambda record: record.attempts))
        self.assertEqual(self.verdicts(told), ["tried", "chosen"])
        self.assertEqual(
            [each["backend"] for each in told["attempts"]], [each.address for each in app.backends]
        )
        self.assertEqual(
            [told["attempts"][0]["end"], told["attempts"][0]["sent_bytes"]], ["the connection was refused", 0]
        )

    def test_queued(self) -> None:
        """Who was full, how long the wait was, and what for."""
        world = self.world(limits=Limits(in_flight_per_backend=1))
        hello(world, replies.delayed(2.0, replies.fixed(b"done")))
        for _ in range(2):
            world.client().send(get())
            world.advance(0.5)
        told = next(
            self.story(world, each.record)
            for each in world.factory.env.under_way()
            if each.phase.value == "queued"
        )
        self.assertEqual((told["state"], self.verdicts(told)), ("queued", ["full"]))
        self.assertEqual(told["waits"], [{"after_ms": 0.0, "ms": 500.0, "reason": "no backend had room"}])
        self.assertEqual((told["attempts"], told["cause"]), ([], "it is under way"))
        world.advance(10)
        told = self.story(world)
        self.assertEqual((told["queue_ms"], told["waits"][0]["ms"]), (1500.0, 1500.0))
        self.assertEqual((told["attempts"][0]["after_ms"], told["status"]), (1500.0, 200))

    def test_queue_full(self) -> None:
        """Who found no place in the queue has waited for nothing, whenever that is asked for."""
        world = self.world(limits=Limits(in_flight_per_backend=1, queue_per_backend=0))
        hello(world, replies.delayed(2.0, replies.fixed(b"done")))
        for _ in range(2):
            world.client().send(get())
            world.settle()
        world.advance(10)
        told = self.story(world, next(each for each in world.records if each.code == "queue-full"))
        self.assertEqual((told["waits"], told["queue_ms"], self.verdicts(told)), ([], 0.0, ["full"]))

    def test_paused(self) -> None:
        """Nobody is asked while an app is paused, and it was nobody's turn."""
        world = self.world()
        hello(world, state="paused", backends=1)
        world.client().send(get())
        world.advance(0.5)
        (exchange,) = world.factory.env.under_way()
        told = self.story(world, exchange.record)
        self.assertEqual(self.verdicts(told), ["not-asked"])
        self.assertEqual(told["backends"][0]["reason"], "none was asked yet")
        world.advance(60)
        told = self.story(world)
        self.assertEqual((told["code"], self.verdicts(told)), ("pause-timeout", ["not-asked"]))

    def test_refused(self) -> None:
        """Requests that met no backend say why."""
        world = self.world()
        hello(world, state="stopped", backends=1)
        world.request(get())
        told = self.story(world)
        self.assertEqual((told["code"], told["attempts"]), ("app-stopped", []))
        self.assertEqual(self.verdicts(told), ["not-asked"])
        self.assertEqual(told["backends"][0]["reason"], "none was asked: the application is stopped")
        world.request(get(b"/", b"nobody.test"))
        told = self.story(world)
        self.assertEqual((told["code"], told["route"], told["backends"]), ("unknown-host", None, []))
        self.assertEqual(told["cause"], "no application claims this domain")

    def test_draining(self) -> None:
        """Who had left the app is told, too."""
        world = self.world()
        hello(world, replies.delayed(5.0, replies.fixed(b"done")))
        world.client().send(get())
        world.advance(1)
        world.change("hello", backends=[])
        world.request(get())
        told = self.story(world, world.records[0])
        self.assertEqual((told["code"], self.verdicts(told)), ("no-backend", ["draining"]))
        self.assertEqual(told["backends"][0]["since"], "2026-01-01T00:00:01.000Z")
        world.advance(10)

    def test_quarantined(self) -> None:
        """Who was left alone because it had failed, since when and why; and who tried it again."""
        world = self.world()
        app = hello(world, backends=2)
        app.backends[0].stop_listening()
        for _ in range(3):
            world.request(get())
        told = self.story(world)
        self.assertEqual(self.verdicts(told), ["quarantined", "chosen"])
        self.assertEqual(told["backends"][0]["since"], "2026-01-01T00:00:00.000Z")
        self.assertEqual(told["backends"][0]["reason"], "the connection was refused")
        app.backends[1].crash()
        for _ in range(2):
            world.request(get())
        told = self.story(world)
        self.assertEqual((told["code"], told["attempts"]), ("quarantined", []))
        self.assertEqual(self.verdicts(told), ["quarantined", "quarantined"])
        app.backends[0].listen_again()
        world.advance(2)
        world.request(get())
        told = self.story(world)
        self.assertEqual((told["status"], self.verdicts(told)), (200, ["chosen", "quarantined"]))
        self.assertIn("tried whether it is well", told["backends"][0]["reason"])

    def test_redirected(self) -> None:
        """The proxy's own answer is called so."""
        world = self.world()
        hello(world, force_https=True)
        world.request(get())
        self.assertIn("redirected", self.story(world)["cause"])

    def test_websocket(self) -> None:
        """A tunnel that is open can be explained, and counts its bytes when it is over."""
        world = self.world()
        hello(world, replies.upgrade_echo())
        client = world.client().send(websocket())
        world.settle()
        (tunnel,) = world.factory.env.under_way()
        client.send(b"hello")
        world.settle()
        told = self.story(world, tunnel.record)
        self.assertEqual((told["state"], told["bytes_in"], told["bytes_out"]), ("tunnel", 5, 5))
        self.assertEqual(tunnel.record.bytes_in, 0)
        client.close()
        world.advance(1)
        told = self.story(world)
        self.assertEqual((told["cause"], told["status"]), ("the tunnel ended, both sides in order", 101))


class PassthroughStoryTests(PassthroughTestCase, StoryCase):
    """TLS that passes through is explained like a request."""

    def test_tunnel(self) -> None:
        """By its server name, with the alert's reason when nobody could be reached."""
        world = self.world()
        (server,) = self.serve(world, greeting=b"hello yourself")
        client = world.client().send(client_hello())
        world.settle()
        client.close()
        world.settle()
        told = self.story(world)
        self.assertEqual((told["host"], told["tls"]), ("hello.test", "passthrough"))
        self.assertEqual(self.verdicts(told), ["chosen"])
        self.assertEqual(told["attempts"][0]["sent_bytes"], len(client_hello()))
        server.stop()
        world.client().send(client_hello())
        world.settle()
        told = self.story(world)
        self.assertEqual((told["code"], self.verdicts(told)), ("connect-failed", ["tried"]))


class ApiTests(SynchronousTestCase):
    """``GET /requests/ID``."""

    def test_found(self) -> None:
        """The latest, with those of the same id before it; an id is any text."""
        world = AdminWorld().start()
        request_id = "an/id+with=everything"
        for path in ("/first", "/second"):
            world.explain.exchange_finished(a_record(request_id, path=path))
        reply = world.ask("GET", f"/api/v1/requests/{quote(request_id, safe='')}")
        self.assertEqual((reply.status, reply.document["path"]), (200, "/second"))
        self.assertEqual([each["path"] for each in reply.document["earlier"]], ["/first"])

    def test_unknown(self) -> None:
        """404, with how far back is remembered."""
        reply = AdminWorld().start().ask("GET", "/api/v1/requests/nobody")
        self.assertEqual((reply.status, reply.code), (404, "unknown-request"))
        self.assertIn("last 100 requests", reply.document["error"]["message"])

    def test_every_story_fits_the_description(self) -> None:
        """What is promised in ``openapi.json`` holds for all kinds of ends."""
        world = AdminWorld().start()
        traffic = World(seed=3, limits=Limits(in_flight_per_backend=1, queue_per_backend=1))
        app = hello(traffic, replies.delayed(1.0, replies.fixed(b"x")), backends=3)
        app.backends[0].stop_listening()
        for _ in range(7):
            traffic.client().send(get())
            traffic.settle()
        traffic.change("hello", backends=app.backends[1:])
        traffic.advance(5)
        traffic.request(get(b"/", b"nobody.test"))
        sealed = World(seed=3, build=build_passthrough)
        server = RawServer(sealed.network, b"x")
        sealed.app("hello", ["hello.test"], backends=[server], tls="passthrough")  # type: ignore[list-item]
        sealed.client().send(client_hello()).close()
        sealed.settle()
        records = [*traffic.records, *sealed.records]
        self.assertGreater(len({record.code for record in records}), 2)
        for record in records:
            world.explain.exchange_finished(record)
            reply = world.ask("GET", f"/api/v1/requests/{record.request_id}")
            self.assertEqual(reply.status, 200)
        traffic.end()
