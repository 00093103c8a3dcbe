"""Tests for :mod:`scalingo_proxy.services.admin_certificates` and the operations below it."""

from __future__ import annotations

import functools
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Certificate
from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.services import gauges
from scalingo_proxy.services.metrics import Metrics
from tests.services.admin_world import NOW, AdminWorld, Reply

DAY = 86400.0
PATH = "/api/v1/certificates"


@functools.cache
def authority() -> Authority:
    return Authority.create("root", NOW, days=3000).subordinate("middle", NOW, days=2000)


def body(*domains: str, days: float = 30.0, now: float = NOW) -> dict[str, str]:
    chain, key = authority().issue(domains, now, days)
    return {"certificate": chain.decode(), "key": key.decode()}


class CertificatesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = AdminWorld(
            App("filed", ["filed.example"], certificate={"cert": "/f.pem", "key": "/f.key"})
        )
        self.world.start()

    def put(self, name: str, *domains: str, **options: Any) -> Reply:
        return self.world.ask("PUT", f"{PATH}/{name}", body(*domains, **options))

    def get(self, name: str) -> Reply:
        return self.world.ask("GET", f"{PATH}/{name}")

    def file_certificate(self) -> Certificate:
        """One that comes from files."""
        certificate = Certificate(
            "file:/f.pem", b"", b"", ("filed.example",), NOW, NOW + 1, "AB:" * 31 + "CD"
        )
        self.world.certificates.set(certificate)
        return certificate


class PutTests(CertificatesCase):
    """``PUT /certificates/NAME``."""

    def test_new(self) -> None:
        """A new one is 201, told without its key, and served from then on."""
        reply = self.put("a", "a.example", "*.a.example")
        self.assertEqual(reply.status, 201)
        told = reply.document
        fingerprint = told.pop("fingerprint")
        self.assertEqual(
            told,
            {
                "name": "a",
                "domains": ["a.example", "*.a.example"],
                "not_before": "2023-11-14T21:13:20Z",
                "not_after": "2023-12-14T22:13:20Z",
                "days_left": 30,
                "source": "store",
            },
        )
        served = self.world.certificates.covering("b.a.example")
        assert served is not None
        self.assertEqual(served.fingerprint, fingerprint)
        self.assertEqual(dict(self.world.store.certificates.certificates()), {"a": served})

    def test_exchanged(self) -> None:
        """One of the same name takes its place: 200."""
        self.put("a", "a.example")
        reply = self.put("a", "b.example")
        self.assertEqual((reply.status, reply.document["domains"]), (200, ["b.example"]))
        self.assertIs(self.world.certificates.covering("a.example"), None)

    def test_broken(self) -> None:
        """What is wrong is 422 with its field, and the old one stays in place."""
        self.put("a", "a.example")
        before = self.get("a").document
        mixed = {**body("a.example"), "key": body("a.example")["key"]}
        reply = self.world.ask("PUT", f"{PATH}/a", mixed)
        self.assertEqual((reply.status, reply.code), (422, "broken-certificate"))
        self.assertEqual(reply.document["error"]["field"], "key")
        self.assertIn("does not belong to the certificate", reply.mistakes["key"])
        self.assertEqual(self.get("a").document, before)

    def test_names_that_an_app_needs(self) -> None:
        """An exchange that would leave an app without its certificate is refused, and names the app."""
        self.put("a", "a.example")
        record = {"domains": ["a.example", "www.a.example"], "certificate": "a"}
        self.world.ask("PUT", "/api/v1/apps/app", record)
        before = self.get("a").document
        reply = self.put("a", "b.example")
        self.assertEqual((reply.status, reply.code), (422, "broken-certificate"))
        self.assertIn("covers no domain of app 'app'", reply.mistakes["certificate"])
        self.assertEqual(self.get("a").document, before)
        self.assertEqual(self.put("a", "www.a.example", "b.example").status, 200)

    def test_every_mistake(self) -> None:
        """Mistakes in both are told together, and no key with them."""
        secret = body("a.example")["key"]
        reply = self.world.ask("PUT", f"{PATH}/a", {"certificate": secret, "key": "nonsense"})
        self.assertEqual(reply.status, 422)
        self.assertEqual(set(reply.mistakes), {"certificate", "key"})
        self.assertNotIn(secret.splitlines()[1], reply.body.decode())

    def test_dates(self) -> None:
        """One that is over, or not begun, is refused by the proxy's clock."""
        reply = self.put("a", "a.example", now=NOW - 31 * DAY)
        self.assertIn("expired on 2023-11-13", reply.mistakes["certificate"])
        reply = self.put("a", "a.example", now=NOW + DAY)
        self.assertIn("is not valid before", reply.mistakes["certificate"])
        self.assertEqual(self.get("a").status, 404)

    def test_body(self) -> None:
        """Another table than is asked for is 400."""
        for sent, fields in (
            ({}, {"certificate", "key"}),
            ({"certificate": "x", "key": "y", "name": "z"}, {"name"}),
            ({"cert": "x", "key": "y"}, {"cert", "certificate"}),
            ({"certificate": ["x"], "key": 5}, {"certificate", "key"}),
        ):
            reply = self.world.ask("PUT", f"{PATH}/a", sent)
            self.assertEqual((reply.status, set(reply.mistakes)), (400, fields))

    def test_names(self) -> None:
        """Names that could be taken for something else are refused."""
        for name in ("file:x", "a%2Fb", "-a", "%C3%A9", "a" * 129, "%20"):
            reply = self.put(name, "a.example")
            self.assertEqual((reply.status, list(reply.mistakes)), (400, ["name"]), name)
        self.assertEqual(self.put("A.1-2_b", "a.example").status, 201)

    def test_not_loaded(self) -> None:
        """Before the store is loaded nothing is known and nothing accepted."""
        self.world = AdminWorld(loaded=False).start()
        self.assertEqual(self.put("a", "a.example").status, 503)
        self.assertEqual(self.get("a").status, 503)
        self.assertEqual(self.world.ask("GET", PATH).status, 503)
        self.assertEqual(self.world.ask("DELETE", f"{PATH}/a").status, 503)

    def test_answered_when_it_is_stored(self) -> None:
        """The answer waits for the disk, and so does the handshake."""
        disk: Deferred[None] = Deferred()
        self.world.store.certificates.set = lambda certificate: disk  # type: ignore[method-assign]
        connection = self.world.begin("PUT", f"{PATH}/a", body("a.example"))
        self.assertTrue(connection.is_silent)
        self.assertIs(self.world.certificates.covering("a.example"), None)
        disk.callback(None)
        self.assertEqual(connection.reply("PUT").status, 201)


class GetTests(CertificatesCase):
    """``GET /certificates`` and ``GET /certificates/NAME``."""

    def test_no_keys(self) -> None:
        """Whatever is asked, no key comes out, and no chain."""
        sent = body("a.example")
        self.world.ask("PUT", f"{PATH}/a", sent)
        secret = sent["key"].splitlines()[1]
        for path in (PATH, f"{PATH}/a", "/api/v1/status"):
            self.assertNotIn(secret, self.world.ask("GET", path).body.decode())

    def test_unknown(self) -> None:
        """One that is not there is 404."""
        reply = self.get("nobody")
        self.assertEqual((reply.status, reply.code), (404, "unknown-certificate"))

    def test_from_a_file(self) -> None:
        """Those of the configuration file are told too, with their source."""
        self.file_certificate()
        reply = self.get("file%3A%2Ff.pem")
        self.assertEqual((reply.status, reply.document["source"]), (200, "file"))

    def test_days_left(self) -> None:
        """Whole days, and negative ones when it is over."""
        self.put("a", "a.example", days=30)
        for days, left in ((0.5, 29), (29, 0), (1, -1), (1, -2)):
            self.world.reactor.advance(days * DAY)
            self.assertEqual(self.get("a").document["days_left"], left)

    def test_list(self) -> None:
        """In the order of names, a page at a time."""
        for name in ("c", "a", "b"):
            self.put(name, f"{name}.example")
        self.file_certificate()
        reply = self.world.ask("GET", f"{PATH}?per_page=3")
        self.assertEqual([each["name"] for each in reply.document["certificates"]], ["a", "b", "c"])
        self.assertEqual((reply.document["total"], reply.document["page"]), (4, 1))
        reply = self.world.ask("GET", f"{PATH}?per_page=3&page=2")
        self.assertEqual([each["name"] for each in reply.document["certificates"]], ["file:/f.pem"])

    def test_search(self) -> None:
        """By a part of the name or of a domain."""
        self.put("shop", "www.one.example")
        self.put("blog", "two.example")
        for query, names in (
            ("SHO", ["shop"]),
            ("one.", ["shop"]),
            ("two", ["blog"]),
            ("x.y", []),
            ("", ["blog", "shop"]),
        ):
            reply = self.world.ask("GET", f"{PATH}?q={query}")
            self.assertEqual([each["name"] for each in reply.document["certificates"]], names, query)

    def test_pages(self) -> None:
        """Pages that are none are refused."""
        for query in ("page=0", "per_page=1001", "per_page=x"):
            self.assertEqual(self.world.ask("GET", f"{PATH}?{query}").status, 400)


class DeleteTests(CertificatesCase):
    """``DELETE /certificates/NAME``."""

    def test_deleted(self) -> None:
        """It is gone from the store and from handshakes."""
        self.put("a", "a.example")
        reply = self.world.ask("DELETE", f"{PATH}/a")
        self.assertEqual((reply.status, reply.document["deleted"]), (200, "a"))
        self.assertIs(self.world.certificates.covering("a.example"), None)
        self.assertEqual(dict(self.world.store.certificates.certificates()), {})
        self.assertEqual(self.world.ask("DELETE", f"{PATH}/a").status, 404)

    def test_in_use(self) -> None:
        """One that apps ask for by name stays, and the answer names them."""
        self.put("a", "a.example")
        for number in range(7):
            record = {"domains": [f"{number}.a.example"], "certificate": "a"}
            self.world.ask("PUT", f"/api/v1/apps/app{number}", record)
        reply = self.world.ask("DELETE", f"{PATH}/a")
        self.assertEqual((reply.status, reply.code), (409, "certificate-in-use"))
        self.assertEqual(len(reply.document["apps"]), 5)
        self.assertIn(reply.document["apps"][0], reply.document["error"]["message"])
        self.assertEqual(self.get("a").status, 200)

    def test_from_a_file(self) -> None:
        """One of the configuration file cannot be removed here."""
        self.file_certificate()
        reply = self.world.ask("DELETE", f"{PATH}/file%3A%2Ff.pem")
        self.assertEqual((reply.status, reply.code), (409, "told-elsewhere"))
        self.assertIn("edit the configuration file", reply.document["error"]["message"])


class AppTests(CertificatesCase):
    """Apps that ask for certificates."""

    def test_named(self) -> None:
        """A name that is known and covers the domains raises no doubt."""
        self.put("a", "a.example", "*.a.example")
        record = {"domains": ["a.example", "x.a.example", "*.a.example"], "certificate": "a"}
        reply = self.world.ask("PUT", "/api/v1/apps/hello", record)
        self.assertEqual((reply.status, reply.document["certificate"]), (201, "a"))
        self.assertNotIn("warnings", reply.document)

    def test_doubts(self) -> None:
        """A name that nobody told yet is taken with a warning; so is one that does not cover a domain."""
        record = {"domains": ["a.example", "b.example"], "certificate": "a"}
        reply = self.world.ask("PUT", "/api/v1/apps/hello", record)
        self.assertEqual(reply.status, 201)
        (warning,) = reply.document["warnings"]
        self.assertTrue(warning.startswith('app "hello": certificate: there is none called "a" yet'), warning)
        self.put("a", "a.example")
        reply = self.world.ask("PATCH", "/api/v1/apps/hello", {"state": "stopped"})
        (warning,) = reply.document["warnings"]
        self.assertIn('"a" does not cover b.example', warning)

    def test_passthrough(self) -> None:
        """An app whose TLS passes through needs none."""
        record = {"domains": ["a.example"], "certificate": "a", "tls": "passthrough"}
        self.assertNotIn("warnings", self.world.ask("PUT", "/api/v1/apps/hello", record).document)

    def test_files(self) -> None:
        """Files are for the configuration file: here nobody reads them."""
        record = {"domains": ["a.example"], "certificate": {"cert": "/etc/passwd", "key": "/etc/shadow"}}
        reply = self.world.ask("PUT", "/api/v1/apps/hello", record)
        self.assertEqual((reply.status, list(reply.mistakes)), (400, ["certificate"]))
        self.assertIn("/certificates/NAME", reply.mistakes["certificate"])

    def test_files_of_the_file(self) -> None:
        """An app of the configuration file keeps its pair when something else of it is changed here."""
        self.file_certificate()
        reply = self.world.ask("PATCH", "/api/v1/apps/filed", {"balancer": "random_two"})
        self.assertEqual((reply.status, reply.document["certificate"]["cert"]), (200, "/f.pem"))
        self.assertEqual(self.world.ask("POST", "/api/v1/apps/filed/pause").status, 200)


class GaugeTests(CertificatesCase):
    """The metric."""

    def test_expiry(self) -> None:
        """Each certificate tells when it expires, as long as there is one."""
        metrics = Metrics()
        gauges.add_certificates(metrics, self.world.certificates)
        self.put("a", "a.example")
        line = f'scalingo_proxy_certificate_expiry_timestamp_seconds{{name="a"}} {int(NOW + 30 * DAY)}'
        self.assertIn(line, metrics.exposition())
        self.world.ask("DELETE", f"{PATH}/a")
        self.assertNotIn('{name="a"}', metrics.exposition())
