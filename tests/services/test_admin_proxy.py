"""Tests for :mod:`scalingo_proxy.services.admin_proxy` and ``openapi.json``."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from jsonschema import Draft202012Validator
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError, DomainTaken, Mistake
from scalingo_proxy.model import App
from scalingo_proxy.resolvers.app_record import record_from_app
from scalingo_proxy.routing.balancers import BALANCERS
from tests.services.admin_world import OPENAPI, AdminWorld


class HealthTests(SynchronousTestCase):
    """``/live`` and ``/ready``."""

    def test_ready(self) -> None:
        """200 when there is no reason against it."""
        reply = AdminWorld().start().ask("GET", "/ready")
        self.assertEqual((200, {"ready": True, "reasons": []}), (reply.status, reply.document))

    def test_not_ready(self) -> None:
        """503 with every reason, while the process is alive."""
        world = AdminWorld().start()
        world.reasons += ["the store is not loaded", "the listeners are not open"]
        reply = world.ask("GET", "/ready")
        self.assertEqual((503, world.reasons), (reply.status, reply.document["reasons"]))
        self.assertEqual(200, world.ask("GET", "/live").status)


class MetricsTests(SynchronousTestCase):
    """``/metrics``."""

    def test_is_the_text_that_was_handed_in(self) -> None:
        """With the media type that scrapers expect."""
        reply = AdminWorld().start().ask("GET", "/metrics")
        self.assertEqual(b"scalingo_proxy_up 1\n", reply.body)
        self.assertEqual("text/plain; version=0.0.4; charset=utf-8", reply.headers["Content-Type"])

    def test_a_large_page(self) -> None:
        """Its pieces are made one at a time, and the reactor has its turn between two of them."""
        made: list[int] = []

        def pieces() -> Iterator[str]:
            for number in range(4):
                made.append(number)
                yield f"x{number} 1\n"

        world = AdminWorld(metrics_page=pieces).start()
        asked = world.begin("GET", "/metrics")
        self.assertEqual(made, [0, 1])
        self.assertTrue(asked.is_silent)
        world.reactor.advance(0)
        self.assertEqual(len(world.reactor.getDelayedCalls()), 1)
        world.reactor.advance(0)
        self.assertEqual(asked.reply().body, b"x0 1\nx1 1\nx2 1\nx3 1\n")

    def test_a_scraper_that_leaves(self) -> None:
        """Nothing more is made for it."""
        made: list[int] = []

        def pieces() -> Iterator[str]:
            for number in range(3):
                made.append(number)
                yield "x 1\n"

        world = AdminWorld(metrics_page=pieces).start()
        world.begin("GET", "/metrics").leave()
        world.reactor.advance(0)
        self.assertEqual(made, [0, 1])


class StatusTests(SynchronousTestCase):
    """``/status``."""

    def test_counts_and_facts(self) -> None:
        """What is handed in stands beside the counts over all pools."""
        apps = [App("one", ("a.localhost", "b.localhost"), ("127.0.0.1:1", "127.0.0.1:2")), App("two")]
        world = AdminWorld(*apps, facts=lambda: {"version": "1.2.3"}).start()
        world.ask("PUT", "/api/v1/apps/two", {"domains": ["c.localhost"]})
        for _ in range(2):
            world.pool("one").lease()
        world.ask("PUT", "/api/v1/apps/one/backends", {"backends": ["127.0.0.1:2"]})
        expected = {
            "version": "1.2.3",
            "ready": True,
            "reasons": [],
            "apps": 2,
            "domains": 3,
            "layers": [{"name": "store", "apps": 2}, {"name": "file", "apps": 2}],
            "pools": 1,
            "backends": 1,
            "draining": 1,
            "in_flight": 2,
            "tunnels": 0,
            "queued": 0,
        }
        self.assertEqual(expected, world.ask("GET", "/api/v1/status").document)


class ReloadTests(SynchronousTestCase):
    """``POST /reload``."""

    def setUp(self) -> None:
        self.world = AdminWorld(App("filed")).start()

    def test_tells_what_changed(self) -> None:
        """Once the reload is over, whenever that is."""
        reloading: Deferred[Any] = Deferred()
        self.world.reload = lambda: reloading
        asking = self.world.begin("POST", "/api/v1/reload")
        self.assertTrue(asking.is_silent)
        reloading.callback({"apps": {"updated": ["filed"]}})
        reply = asking.reply()
        self.assertEqual(
            (200, True, ["filed"]),
            (reply.status, reply.document["reloaded"], reply.document["report"]["apps"]["updated"]),
        )

    def test_no_change_is_made_meanwhile(self) -> None:
        """A write waits until the reload is over: each is judged by what is there then."""
        reloading: Deferred[Any] = Deferred()
        self.world.reload = lambda: reloading
        self.world.begin("POST", "/api/v1/reload")
        writing = self.world.begin("POST", "/api/v1/apps/filed/stop")
        self.assertTrue(writing.is_silent)
        reloading.callback({})
        self.assertEqual(200, writing.reply().status)

    def test_a_broken_file(self) -> None:
        """409 with every mistake and its line: the request itself was fine."""
        mistakes = [Mistake("health.path", "must be text", 3), Mistake("", "is odd")]
        self.world.reload = lambda: fail(ConfigurationError(mistakes))
        reply = self.world.ask("POST", "/api/v1/reload")
        self.assertEqual((409, "broken-configuration"), (reply.status, reply.code))
        self.assertEqual(
            [
                {"field": "health.path", "message": "must be text", "line": 3},
                {"field": None, "message": "is odd"},
            ],
            reply.document["error"]["mistakes"],
        )
        self.assertIn("nothing has changed", reply.document["error"]["message"])

    def test_a_taken_domain(self) -> None:
        """409 with the owner."""
        self.world.reload = lambda: fail(DomainTaken("a.localhost", "hello"))
        reply = self.world.ask("POST", "/api/v1/reload")
        self.assertEqual((409, "domain-taken", "hello"), (reply.status, reply.code, reply.document["owner"]))


class IndexTests(SynchronousTestCase):
    """``/``."""

    def test_lists_every_route(self) -> None:
        """One line for each method of each path."""
        text = AdminWorld().start().ask("GET", "/").body.decode()
        for path, operations in OPENAPI["paths"].items():
            for method in _methods(operations):
                self.assertIn(f"\n{method:7}{path}\n", text)

    def test_a_page_for_browsers(self) -> None:
        """What can be opened is a link."""
        world = AdminWorld(with_status=False).start()
        reply = world.ask("GET", "/", headers={"Accept": "text/html,*/*"})
        self.assertEqual("text/html; charset=utf-8", reply.headers["Content-Type"])
        links: list[str | None] = []

        class Links(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                links.extend(value for name, value in attrs if name == "href")

        Links().feed(reply.body.decode())
        self.assertIn("/api/v1/status", links)
        self.assertNotIn("/api/v1/apps/{name}", links)


def _methods(operations: dict[str, Any]) -> list[str]:
    return [key.upper() for key in operations if key in ("get", "put", "patch", "post", "delete")]


class OpenAPITests(SynchronousTestCase):
    """The document agrees with the program."""

    def setUp(self) -> None:
        self.world = AdminWorld().start()

    def test_is_served_as_shipped(self) -> None:
        """At the path that the index and every 404 name."""
        self.assertEqual(OPENAPI, self.world.ask("GET", "/api/v1/openapi.json").document)

    def test_describes_every_route_and_no_other(self) -> None:
        """The table and the document have the same paths, methods, queries and bodies."""
        described = set()
        for path, operations in OPENAPI["paths"].items():
            for method in _methods(operations):
                operation = operations[method.lower()]
                query = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
                media = tuple(operation.get("requestBody", {}).get("content", ()))
                described.add((method, path, frozenset(query), media, operation.get("security") == []))
        patch = ("application/json", "application/merge-patch+json")
        routes = {
            (
                route.method,
                route.path,
                frozenset(route.query),
                patch if route.takes_patch else patch[:1] if route.takes_body else (),
                route.is_open,
            )
            for route in self.world.service.routes.routes
        }
        self.assertEqual(described, routes)

    def test_path_parameters_are_described(self) -> None:
        """Each ``{name}`` and nothing else."""
        for path, operations in OPENAPI["paths"].items():
            names = [each["name"] for each in operations.get("parameters", ()) if each["in"] == "path"]
            self.assertEqual([part[1:-1] for part in path.split("/") if part.startswith("{")], names)

    def test_schemas_are_valid_and_references_lead_somewhere(self) -> None:
        """JSON Schema 2020-12, as OpenAPI 3.1 has it."""
        for schema in OPENAPI["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)
        for reference in _references(OPENAPI):
            target: Any = OPENAPI
            for step in reference.removeprefix("#/").split("/"):
                target = target[step]

    def test_operation_ids_are_unique(self) -> None:
        """Generators of clients name functions after them."""
        ids = [
            operations[method.lower()]["operationId"]
            for operations in OPENAPI["paths"].values()
            for method in _methods(operations)
        ]
        self.assertEqual(len(set(ids)), len(ids))

    def test_the_app_record_is_described_whole(self) -> None:
        """Every setting of an app has its place, every balancer its name."""
        described = OPENAPI["components"]["schemas"]["App"]["properties"]
        settings = {attribute.name for attribute in App.__attrs_attrs__}
        self.assertEqual(settings | {"source", "warnings", "probes"}, set(described))
        self.assertEqual(list(BALANCERS), described["balancer"]["enum"])

    def test_a_full_record_agrees(self) -> None:
        """A record with every setting in it is valid by the document."""
        record = {
            "name": "full",
            "domains": ["full.localhost", "*.full.localhost"],
            "backends": ["[::1]:1", {"address": "127.0.0.1:2", "weight": 3}],
            "state": "maintenance",
            "tls": "passthrough",
            "force_https": True,
            "canonical": "full.localhost",
            "balancer": "random_two",
            "certificate": {"cert": "a.pem", "key": "a.key"},
            "send_proxy": "v2",
            "error_pages": {"stopped": "stopped.html"},
            "rate_limit": {"requests": 100, "per": 1.0, "burst": 50},
            "access": {"deny": ["10.0.0.0/8"]},
            "health": {"path": "/up", "rise": 2},
            "timeouts": {"idle": 3.5},
            "limits": {"body_bytes": 1},
            "quarantine": {"first": 1.0},
        }
        schema = {"$ref": "#/components/schemas/App", "components": OPENAPI["components"]}
        Draft202012Validator(schema).validate(record)
        backends = ("[::1]:1", "127.0.0.1:2")
        told = record_from_app(App(**{**record, "backends": backends}))  # type: ignore[arg-type]
        self.assertEqual(set(record), set(told))


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for item in value.values() for each in _references(item)]
    if isinstance(value, list):
        return [each for item in value for each in _references(item)]
    return []
