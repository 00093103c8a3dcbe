"""Tests for :mod:`scalingo_proxy.services.admin_apps`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, RouteQuery
from tests.services.admin_world import AdminWorld

HELLO = {"domains": ["hello.localhost"], "backends": ["127.0.0.1:3000"]}
FILED = App("filed", ("filed.localhost",), ("127.0.0.1:4000",))


class PutAppTests(SynchronousTestCase):
    """``PUT /apps/NAME``."""

    def setUp(self) -> None:
        self.world = AdminWorld(FILED).start()

    def test_a_new_app_is_201(self) -> None:
        """A new app is told as it was stored, and serves from then on."""
        reply = self.world.ask("PUT", "/api/v1/apps/hello", HELLO)
        self.assertEqual(201, reply.status)
        self.assertEqual({"name": "hello", **HELLO, "state": "running", "source": "store"}, reply.document)
        route = self.world.resolver.resolve(RouteQuery("hello.localhost"))
        self.assertEqual("hello", route.app.name)

    def test_a_replaced_app_is_200(self) -> None:
        """A record replaces the whole app: what it leaves out is at its default again."""
        self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "balancer": "least_requests"})
        reply = self.world.ask("PUT", "/api/v1/apps/hello", {"domains": ["other.localhost"]})
        self.assertEqual(200, reply.status)
        self.assertEqual([], reply.document["backends"])
        self.assertNotIn("balancer", reply.document)

    def test_an_app_of_the_file_is_replaced(self) -> None:
        """What the API is told wins over the file."""
        reply = self.world.ask("PUT", "/api/v1/apps/filed", HELLO)
        self.assertEqual((200, "store"), (reply.status, reply.document["source"]))

    def test_the_name_must_agree(self) -> None:
        """A record under another name is a mistake."""
        self.assertEqual(201, self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "name": "hello"}).status)
        reply = self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "name": "other"})
        self.assertEqual((400, "invalid"), (reply.status, reply.code))
        self.assertEqual(["name"], list(reply.mistakes))

    def test_what_was_read_can_be_put_back(self) -> None:
        """A told app is a valid record, with its source and warnings."""
        told = self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "timeouts": {"keep_alive": 5}}).document
        self.assertIn("warnings", told)
        reply = self.world.ask("PUT", "/api/v1/apps/hello", told)
        self.assertEqual((200, told), (reply.status, reply.document))

    def test_pages_are_urls(self) -> None:
        """Pages of the app's own are stored and told; what does not work of them is told with the app."""
        pages = {"stopped": "https://pages.test/s?x=1", "timeout": ""}
        reply = self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "error_pages": pages})
        self.assertEqual((201, pages), (reply.status, reply.document["error_pages"]))
        self.world.control.doubts = lambda app: ["error_pages.stopped: is bad"]
        told = self.world.ask("GET", "/api/v1/apps/hello").document
        self.assertEqual(['app "hello": error_pages.stopped: is bad'], told["warnings"])
        reply = self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "error_pages": {"error": "ftp://x"}})
        self.assertEqual((400, ["error_pages.error"]), (reply.status, list(reply.mistakes)))

    def test_every_mistake_is_told(self) -> None:
        """Mistakes of all kinds come together, and nothing is changed."""
        record = {
            "domains": ["a b"],
            "backend": [],
            "backends": ["127.0.0.1", "127.0.0.1:1"],
            "timeouts": {"idle": "long"},
            "tls": "maybe",
        }
        reply = self.world.ask("PUT", "/api/v1/apps/hello", record)
        self.assertEqual(400, reply.status)
        self.assertEqual(
            {"domains[0]", "backend", "backends[0]", "timeouts.idle", "tls"}, set(reply.mistakes)
        )
        self.assertEqual(reply.document["error"]["field"], next(iter(reply.mistakes)))
        self.assertIn('did you mean "backends"?', reply.mistakes["backend"])
        self.assertEqual(404, self.world.ask("GET", "/api/v1/apps/hello").status)

    def test_a_name_that_is_none(self) -> None:
        """The name of a new app is judged too."""
        for path in ("..", "a%2Fb", "a%20b", "%C3%A9", "-a", "a" * 200):
            self.assertEqual(400, self.world.ask("PUT", f"/api/v1/apps/{path}", HELLO).status, path)

    def test_a_taken_domain_names_its_owner(self) -> None:
        """A domain belongs to one app, whichever layer describes that."""
        self.world.ask("PUT", "/api/v1/apps/hello", HELLO)
        for domain, owner in (("hello.localhost", "hello"), ("filed.localhost", "filed")):
            reply = self.world.ask("PUT", "/api/v1/apps/third", {"domains": ["third.localhost", domain]})
            self.assertEqual((409, "domain-taken"), (reply.status, reply.code))
            self.assertEqual((domain, owner), (reply.document["domain"], reply.document["owner"]))
            self.assertIn(owner, reply.document["error"]["message"])
        self.assertEqual(404, self.world.ask("GET", "/api/v1/apps/third").status)

    def test_settings_without_effect_are_warned_of(self) -> None:
        """What is stored but does nothing yet is told in the answer, not refused."""
        reply = self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "timeouts": {"keep_alive": 5}})
        self.assertEqual(201, reply.status)
        self.assertEqual(1, len(reply.document["warnings"]))
        self.assertNotIn("warnings", self.world.ask("GET", "/api/v1/apps/hello").document)

    def test_refused_while_the_store_loads(self) -> None:
        """Nothing can be acknowledged before the store is there."""
        world = AdminWorld(FILED, loaded=False).start()
        for method, path, body in (("PUT", "/hello", HELLO), ("GET", "/filed", None), ("GET", "", None)):
            reply = world.ask(method, f"/api/v1/apps{path}", body)
            self.assertEqual((503, "not-ready"), (reply.status, reply.code))


class PatchAppTests(SynchronousTestCase):
    """``PATCH /apps/NAME``."""

    def setUp(self) -> None:
        self.world = AdminWorld(FILED).start()
        self.world.ask("PUT", "/api/v1/apps/hello", {**HELLO, "timeouts": {"idle": 5, "queue": 1}})

    def test_nested_tables_are_merged(self) -> None:
        """RFC 7396: tables are merged, null takes away, lists are replaced."""
        patch = {"timeouts": {"idle": None, "connect": 2}, "backends": ["127.0.0.1:3001"]}
        reply = self.world.ask("PATCH", "/api/v1/apps/hello", patch)
        self.assertEqual(200, reply.status)
        self.assertEqual({"queue": 1.0, "connect": 2.0}, reply.document["timeouts"])
        self.assertEqual(["127.0.0.1:3001"], reply.document["backends"])
        self.assertEqual(["hello.localhost"], reply.document["domains"])

    def test_a_merge_patch_may_be_called_so(self) -> None:
        """``application/merge-patch+json`` is what RFC 7396 calls it."""
        headers = {"Content-Type": "application/merge-patch+json"}
        reply = self.world.ask("PATCH", "/api/v1/apps/hello", {"tls": "terminate"}, headers=headers)
        self.assertEqual(200, reply.status)

    def test_an_app_of_the_file_becomes_the_stores(self) -> None:
        """The result is told by the operator from then on, whatever the file says later."""
        reply = self.world.ask("PATCH", "/api/v1/apps/filed", {"balancer": "random_two"})
        self.assertEqual("store", reply.document["source"])
        self.assertEqual(["filed.localhost"], reply.document["domains"])
        self.world.file.replace([])
        self.assertEqual(200, self.world.ask("GET", "/api/v1/apps/filed").status)

    def test_mistakes_change_nothing(self) -> None:
        """The result is judged as a whole record."""
        reply = self.world.ask("PATCH", "/api/v1/apps/hello", {"timeouts": {"idle": -1}, "name": "x"})
        self.assertEqual({"timeouts.idle", "name"}, set(reply.mistakes))
        self.assertEqual(5, self.world.ask("GET", "/api/v1/apps/hello").document["timeouts"]["idle"])

    def test_an_unknown_app(self) -> None:
        """There is nothing to patch."""
        reply = self.world.ask("PATCH", "/api/v1/apps/nobody", {})
        self.assertEqual((404, "unknown-app"), (reply.status, reply.code))


class DeleteAppTests(SynchronousTestCase):
    """``DELETE /apps/NAME``."""

    def setUp(self) -> None:
        self.world = AdminWorld(FILED).start()

    def test_a_told_app_is_gone(self) -> None:
        """It serves no more."""
        self.world.ask("PUT", "/api/v1/apps/hello", HELLO)
        reply = self.world.ask("DELETE", "/api/v1/apps/hello")
        self.assertEqual(
            (200, "hello", None), (reply.status, reply.document["deleted"], reply.document["app"])
        )
        self.assertEqual(404, self.world.ask("GET", "/api/v1/apps/hello").status)

    def test_the_files_version_comes_back(self) -> None:
        """The answer says so and tells it."""
        self.world.ask("PUT", "/api/v1/apps/filed", HELLO)
        reply = self.world.ask("DELETE", "/api/v1/apps/filed")
        self.assertEqual(["filed.localhost"], reply.document["app"]["domains"])
        self.assertEqual("file", reply.document["app"]["source"])

    def test_an_app_of_the_file_alone(self) -> None:
        """It cannot be taken back here."""
        reply = self.world.ask("DELETE", "/api/v1/apps/filed")
        self.assertEqual((409, "described-by-file"), (reply.status, reply.code))
        self.assertIn("edit the file", reply.document["error"]["message"])

    def test_a_files_version_whose_domain_is_taken_meanwhile(self) -> None:
        """The app that stands in its way is named, and nothing is changed."""
        self.world.ask("PUT", "/api/v1/apps/filed", HELLO)
        self.world.ask("PUT", "/api/v1/apps/thief", {"domains": ["filed.localhost"]})
        reply = self.world.ask("DELETE", "/api/v1/apps/filed")
        self.assertEqual((409, "thief"), (reply.status, reply.document["owner"]))
        self.assertEqual("store", self.world.ask("GET", "/api/v1/apps/filed").document["source"])

    def test_an_unknown_app(self) -> None:
        """There is nothing to delete."""
        self.assertEqual("unknown-app", self.world.ask("DELETE", "/api/v1/apps/nobody").code)


class StateTests(SynchronousTestCase):
    """``POST /apps/NAME/{pause,resume,stop,start}``."""

    def test_each_verb_sets_its_state(self) -> None:
        """The state is stored with the app."""
        world = AdminWorld(FILED).start()
        world.ask("PUT", "/api/v1/apps/hello", HELLO)
        for verb, state in (
            ("pause", "paused"),
            ("resume", "running"),
            ("stop", "stopped"),
            ("start", "running"),
        ):
            reply = world.ask("POST", f"/api/v1/apps/hello/{verb}")
            self.assertEqual((200, state), (reply.status, reply.document["state"]))
            self.assertEqual(state, world.store.apps()["hello"].state.value)

    def test_an_app_of_the_file_stays_as_it_was_put(self) -> None:
        """Stopped by the operator, it stays stopped through a reload, even if it was stopped before."""
        world = AdminWorld(App("filed", state="stopped")).start()
        world.ask("POST", "/api/v1/apps/filed/stop")
        world.file.replace([App("filed")])
        self.assertEqual("stopped", world.ask("GET", "/api/v1/apps/filed").document["state"])

    def test_an_empty_table_is_no_body(self) -> None:
        """Clients that always send JSON are understood."""
        world = AdminWorld(FILED).start()
        self.assertEqual(200, world.ask("POST", "/api/v1/apps/filed/stop", {}).status)
        self.assertEqual(400, world.ask("POST", "/api/v1/apps/filed/stop", {"now": True}).status)

    def test_an_unknown_app(self) -> None:
        """There is nobody to stop."""
        world = AdminWorld().start()
        self.assertEqual("unknown-app", world.ask("POST", "/api/v1/apps/nobody/stop").code)


class ListTests(SynchronousTestCase):
    """``GET /apps``."""

    def setUp(self) -> None:
        apps = [App(f"app-{number:03}", (f"d{number}.example.com",)) for number in range(250)]
        self.world = AdminWorld(*reversed(apps)).start()

    def names(self, query: str) -> list[str]:
        return [app["name"] for app in self.world.ask("GET", f"/api/v1/apps{query}").document["apps"]]

    def test_pages_in_the_order_of_names(self) -> None:
        """A hundred at a time; the last page is shorter, those beyond are empty."""
        document = self.world.ask("GET", "/api/v1/apps").document
        self.assertEqual((1, 100, 250), (document["page"], document["per_page"], document["total"]))
        self.assertEqual([f"app-{number:03}" for number in range(100)], self.names(""))
        self.assertEqual([f"app-{number:03}" for number in range(200, 250)], self.names("?page=3"))
        self.assertEqual([], self.names("?page=4"))
        self.assertEqual(["app-007"], self.names("?page=8&per_page=1"))

    def test_searches_names_and_domains(self) -> None:
        """Case does not matter; the total is that of what was found."""
        self.assertEqual(["app-007"], self.names("?q=APP-007"))
        self.assertEqual(["app-149"], self.names("?q=D149.example"))
        self.assertEqual(
            250, self.world.ask("GET", "/api/v1/apps?q=example.com&per_page=1").document["total"]
        )
        self.assertEqual([], self.names("?q=nothing%20like%20it"))

    def test_parameters_that_are_wrong(self) -> None:
        """Each is named."""
        for query, field in (
            ("page=0", "page"),
            ("page=-1", "page"),
            ("page=x", "page"),
            ("page=%D9%A3", "page"),
            ("per_page=1001", "per_page"),
            ("per_page=" + "9" * 5000, "per_page"),
            ("p=1", "p"),
            ("q=a&q=b", "q"),
        ):
            reply = self.world.ask("GET", f"/api/v1/apps?{query}")
            self.assertEqual((400, [field]), (reply.status, list(reply.mistakes)), query)
        self.assertEqual(400, self.world.ask("GET", "/api/v1/apps?q=%FF").status)
