"""Tests of scalingo_proxy.resolvers.backend_record: backends over TLS in an app record."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Backend, BackendTrust
from scalingo_proxy.resolvers.app_record import app_from_record, merge_patch, record_from_app
from tests.authorities import Authority
from tests.resolvers.test_app_record import hello, mistakes

CA = Authority().pem


class TLSBackendTests(SynchronousTestCase):
    """``https://`` in ``backends``, and ``backend_tls``."""

    def test_ways_of_writing(self) -> None:
        """Text or a table with a weight; the port of https may be left out."""
        app = app_from_record(
            hello(
                backends=[
                    "https://10.0.0.1",
                    "http://10.0.0.2:80",
                    {"address": "https://Web_1.Local:8443", "weight": 3},
                ]
            )
        )
        self.assertEqual(
            app.backends,
            (
                Backend("10.0.0.1", 443, tls=True),
                Backend("10.0.0.2", 80),
                Backend("web_1.local", 8443, 3, True),
            ),
        )

    def test_both_kinds_of_one_address(self) -> None:
        """The same address with and without TLS may both be listed; twice the same may not."""
        self.assertEqual(mistakes(hello(backends=["10.0.0.1:443", "https://10.0.0.1"])), {})
        found = mistakes(hello(backends=["https://10.0.0.1:443", "https://10.0.0.1", "http://a:1", "a:1"]))
        self.assertEqual(
            found,
            {
                "backends[1]": '"https://10.0.0.1:443" is listed twice',
                "backends[3]": '"a:1" is listed twice',
            },
        )

    def test_rule(self) -> None:
        """The rule reaches the backends; names are compared in lower case, addresses in their usual form."""
        for written, name in (
            ("Backend.Internal", "backend.internal"),
            ("10.0.0.7", "10.0.0.7"),
            ("0::1", "::1"),
            ("[0::1]", "::1"),
        ):
            app = app_from_record(
                hello(backends=["https://10.0.0.1"], backend_tls={"ca": CA, "name": written})
            )
            self.assertEqual(app.backends[0].trust, BackendTrust(CA, name))

    def test_empty_means_nothing(self) -> None:
        """Empty values are those of an app that never had any."""
        for rule in ({}, {"ca": ""}, {"ca": "", "name": ""}):
            self.assertEqual(app_from_record(hello(backend_tls=rule)), app_from_record(hello()))

    def test_round_trip(self) -> None:
        """An app comes back as it was, by way of JSON, certificates included."""
        app = App(
            "hello",
            ["hello.example"],
            ["https://[::1]:8443", Backend("a", 443, 4, True), "b:80"],
            backend_tls={"ca": CA, "name": "backend.internal"},
        )
        record = json.loads(json.dumps(record_from_app(app)))
        self.assertEqual(
            record["backends"], ["https://[::1]:8443", {"address": "https://a:443", "weight": 4}, "b:80"]
        )
        self.assertEqual(app_from_record(record), app)

    def test_patch(self) -> None:
        """One key of the rule is changed without the other."""
        record = hello(backends=["https://a"], backend_tls={"ca": CA, "name": "b"})
        app = app_from_record(merge_patch(record, {"backend_tls": {"name": None}}))
        self.assertEqual(app.backend_tls, {"ca": CA})


class TLSBackendMistakeTests(SynchronousTestCase):
    """What is refused, and how it is told."""

    def rule(self, **rule: Any) -> dict[str, str]:
        return mistakes(hello(backends=["https://10.0.0.1"], backend_tls=rule))

    def test_names(self) -> None:
        """A name is one name: no wildcard, no port, no URL."""
        for name, reason in (
            ("*.internal", "is a wildcard"),
            ("backend.internal:8443", "without a port"),
            ("https://backend.internal", "without a port"),
            ("a b", "no valid host name"),
            ("10.0.0.256", "no valid IPv4 address"),
            (5, "must be text"),
        ):
            self.assertIn(reason, self.rule(name=name)["backend_tls.name"], name)

    def test_authorities(self) -> None:
        """Outside of a configuration file, authorities are PEM text and nothing else."""
        for ca, reason in (
            ("ca.pem", '"ca.pem" is not PEM text'),
            ("/etc/passwd", "only a configuration file may name a file"),
            (CA[:100], "cut short or broken"),
            (CA + Authority().issue()[1], "has a private key in it"),
            ([CA], "must be text"),
        ):
            self.assertIn(reason, self.rule(ca=ca)["backend_tls.ca"])

    def test_unknown_key(self) -> None:
        """There is no switch that turns verification off, under any name."""
        for key in ("verify", "insecure", "ca_file"):
            self.assertEqual(list(self.rule(**{key: False})), [f"backend_tls.{key}"])

    def test_without_tls_backends(self) -> None:
        """A rule for backends that are all asked in the open is a mistake, not a silent downgrade."""
        found = mistakes(hello(backends=["10.0.0.1:443"], backend_tls={"name": "a"}))
        self.assertEqual(
            found, {"backend_tls": "is for backends written https://HOST:PORT, and there is none"}
        )
        self.assertEqual(mistakes(hello(backends=[], backend_tls={"name": "a"})), {})
        self.assertEqual(mistakes(hello(backends=["a:1", "https://b"], backend_tls={"name": "a"})), {})

    def test_passthrough(self) -> None:
        """TLS that passes through cannot be spoken a second time."""
        found = mistakes(hello(tls="passthrough", backends=["a:1", "https://b"], backend_tls={"name": "c"}))
        self.assertEqual(list(found), ["backends[1]", "backend_tls"])
        self.assertIn('the app has tls = "passthrough"', found["backends[1]"])
