"""Tests of scalingo_proxy.model: how backends are written, and what makes them the same."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Backend, BackendTrust, split_backend_address


class BackendAddressTests(SynchronousTestCase):
    """HOST:PORT, http:// and https://."""

    def test_ways_of_writing(self) -> None:
        """Each comes out as host, port and whether it is TLS."""
        for text, expected in (
            ("10.0.0.1:3000", ("10.0.0.1", 3000, False)),
            ("http://10.0.0.1:3000", ("10.0.0.1", 3000, False)),
            ("https://10.0.0.1:8443", ("10.0.0.1", 8443, True)),
            ("https://10.0.0.1", ("10.0.0.1", 443, True)),
            ("https://web.internal", ("web.internal", 443, True)),
            ("[::1]:80", ("::1", 80, False)),
            ("http://[0::1]:80", ("::1", 80, False)),
            ("https://[::1]:8443", ("::1", 8443, True)),
            ("https://[::1]", ("::1", 443, True)),
        ):
            self.assertEqual(split_backend_address(text), expected, text)

    def test_refused(self) -> None:
        """Anything else is refused, in words about what was written."""
        for text, reason in (
            ("10.0.0.1", "has no port"),
            ("http://10.0.0.1", "has no port"),
            ("http://[::1]", "has no port"),
            ("https://10.0.0.1:", "no valid port"),
            ("https://10.0.0.1:0", "no valid port"),
            ("https://10.0.0.1:65536", "no valid port"),
            ("https://", "has no host"),
            ("https://:443", "has no host"),
            ("https://::1", "in brackets"),
            ("https://[::g]", "no valid IPv6 address"),
            ("https://10.0.0.1/", "says more than"),
            ("https://10.0.0.1:443/path", "says more than"),
            ("https://10.0.0.1?x", "says more than"),
            ("https://10.0.0.1#x", "says more than"),
            ("https://user:secret@10.0.0.1", "says more than"),
            ("HTTPS://10.0.0.1", "neither"),
            ("h2://10.0.0.1:443", "neither"),
            ("://10.0.0.1:443", "neither"),
        ):
            with self.assertRaises(ValueError, msg=text) as caught:
                split_backend_address(text)
            self.assertIn(reason, str(caught.exception), text)
            self.assertIn(repr(text), str(caught.exception))

    @settings(deadline=None)
    @given(
        st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)),
        st.integers(1, 65535),
        st.booleans(),
    )
    def test_address_reads_back(self, host: str, port: int, tls: bool) -> None:
        """What a backend is called makes an equal backend."""
        backend = Backend(host, port, tls=tls)
        self.assertEqual(Backend.parse(backend.address), backend)


class IdentityTests(SynchronousTestCase):
    """Which backends are the same one."""

    def test_with_and_without_tls(self) -> None:
        """The same host and port with TLS is another backend, and is called otherwise."""
        plain, secret = Backend.parse("10.0.0.1:443"), Backend.parse("https://10.0.0.1")
        self.assertNotEqual(plain, secret)
        self.assertNotEqual(plain.identity, secret.identity)
        self.assertEqual((plain.address, secret.address), ("10.0.0.1:443", "https://10.0.0.1:443"))

    def test_weight(self) -> None:
        """The weight makes no other backend of it."""
        for text in ("10.0.0.1:443", "https://10.0.0.1"):
            self.assertEqual(Backend.parse(text).identity, Backend.parse(text, 7).identity)

    def test_rule(self) -> None:
        """How it is verified does, where it is verified."""
        trust = BackendTrust(name="backend.test")
        secret, plain = Backend("a", 1, tls=True), Backend("a", 1)
        self.assertNotEqual(attrs.evolve(secret, trust=trust).identity, secret.identity)
        self.assertEqual(attrs.evolve(plain, trust=trust).identity, plain.identity)


class AppTests(SynchronousTestCase):
    """What an app does to its backends."""

    def test_trust_of_the_app(self) -> None:
        """Its TLS backends are verified as it says, the others stay as they are."""
        rule = {"ca": "PEM", "name": "backend.test"}
        app = App("app", [], ["https://a", "b:1", Backend("c", 2, 3, True)], backend_tls=rule)
        trust = BackendTrust("PEM", "backend.test")
        self.assertEqual(
            app.backends,
            (Backend("a", 443, 1, True, trust), Backend("b", 1), Backend("c", 2, 3, True, trust)),
        )

    def test_other_rule(self) -> None:
        """A changed rule reaches every backend; an app without one has the usual."""
        app = App("app", [], ["https://a"], backend_tls={"name": "backend.test"})
        self.assertEqual(attrs.evolve(app, backend_tls={}), App("app", [], ["https://a"]))

    def test_never_shown(self) -> None:
        """Certificates do not fill logs."""
        app = App("app", [], ["https://a"], backend_tls={"ca": "PEM"})
        self.assertNotIn("PEM", repr(app.backends))

    def test_takes_any_request(self) -> None:
        """One word for all that an app may say of its clients; what it says of its backends is none."""
        plain = App("app", ["app.test"], ["a:1"])
        says: list[dict[str, Any]] = [
            {"access": {"deny": ("192.0.2.1/32",)}},
            {"rate_limit": {"requests": 1}},
            {"force_https": True},
            {"canonical": "app.test"},
            {"send_proxy": "v2"},
            {"tls": "passthrough"},
        ]
        silent: list[dict[str, Any]] = [
            {},
            {"state": "stopped"},
            {"limits": {"body_bytes": 1}},
            {"backends": ["https://a:1"]},
            {"error_pages": {"502": "/page"}},
        ]
        for fields in says:
            self.assertFalse(attrs.evolve(plain, **fields).takes_any_request, fields)
        for fields in silent:
            self.assertTrue(attrs.evolve(plain, **fields).takes_any_request, fields)
