"""An authority of one's own, as clients see it."""

from __future__ import annotations

import ssl

from cryptography import x509
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.protocols.tls_certificates import load_certificate
from scalingo_proxy.protocols.tls_contexts import server_context
from scalingo_proxy.protocols.tls_transport import TLSTransport
from scalingo_proxy.testing.transport_recorders import Recorder
from scalingo_proxy.testing.transports import connected_pair
from tests.protocols.tls_clients import MemoryTLSClient, environment, now


class AuthorityTests(SynchronousTestCase):
    """What it issues, and to whom that means something."""

    def verdict(self, trusted: Authority, chain: bytes, key: bytes, name: str) -> str:
        """What a client that trusts *trusted* says of a server with this certificate; "" is good."""
        certificate = load_certificate("x", chain, key, now())
        clock = Clock()
        server = TLSTransport(environment(clock), server_context(certificate, (b"http/1.1",)), Recorder())
        client = MemoryTLSClient(ssl.create_default_context(cadata=trusted.pem.decode()), name)
        connected_pair(clock, server, client)
        clock.pump([0.01] * 20)
        return str(client.error or "")

    def test_trusted(self) -> None:
        """Whoever trusts the root accepts what it and those below it issue, for its names alone."""
        root = Authority.create("root", now())
        for issuer in (
            root,
            root.subordinate("one", now()),
            root.subordinate("one", now()).subordinate("two", now()),
        ):
            chain, key = issuer.issue(["a.example", "*.b.example"], now())
            for name in ("a.example", "x.b.example"):
                self.assertEqual(self.verdict(root, chain, key, name), "")
            self.assertIn("mismatch", self.verdict(root, chain, key, "c.example"))
        self.assertIn(
            "certificate verify failed",
            self.verdict(Authority.create("root", now()), chain, key, "a.example"),
        )

    def test_bounds(self) -> None:
        """One that is held to some domains is not believed beyond them."""
        root = Authority.create("root", now(), within=["localhost"])
        chain, key = root.issue(["hello.localhost", "*.hello.localhost"], now())
        self.assertEqual(self.verdict(root, chain, key, "hello.localhost"), "")
        chain, key = root.issue(["bank.example"], now())
        self.assertIn("permitted subtree violation", self.verdict(root, chain, key, "bank.example"))

    def test_kept(self) -> None:
        """It can be kept and loaded again; a key that is not its own is refused."""
        root, other = Authority.create("root", now()), Authority.create("root", now())
        again = Authority.load(root.pem, root.key_pem)
        self.assertEqual(self.verdict(root, *again.issue(["a.example"], now()), "a.example"), "")
        self.assertRaises(ValueError, Authority.load, root.pem, other.key_pem)
        self.assertRaises(ValueError, Authority.load, b"", root.key_pem)

    def test_addresses(self) -> None:
        """Addresses are issued for as well."""
        chain, _ = Authority.create("root", now()).issue(["127.0.0.1", "[::1]"], now())
        names = x509.load_pem_x509_certificate(chain).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        self.assertEqual(
            [str(each) for each in names.value.get_values_for_type(x509.IPAddress)], ["127.0.0.1", "::1"]
        )
