"""Contexts: made once, kept for a while, exchanged with their certificate."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Certificate
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_contexts import Contexts
from tests.protocols.tls_clients import certificate

APP = App("x", ["a.example"])


class ContextsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.index = CertificateIndex(lambda: 0.0)
        self.contexts = Contexts(self.index)

    def context(self, host: str) -> SSL.Context:
        found = self.contexts.find(host, APP)
        assert found is not None
        return found[1]

    def certificate(self, host: str) -> Certificate:
        found = self.contexts.find(host, APP)
        assert found is not None
        return found[0]

    def test_lazy(self) -> None:
        """A context is made when it is first asked for, and kept."""
        self.index.set(certificate("a.example"))
        self.assertEqual(len(self.contexts), 0)
        self.assertIs(self.context("a.example"), self.context("a.example"))
        self.assertEqual(len(self.contexts), 1)

    def test_unknown(self) -> None:
        """A name that nothing covers has none, and costs no place."""
        self.index.set(certificate("a.example"))
        for host in ("b.example", "", "x.a.example"):
            self.assertIs(self.contexts.find(host, App("y", ["y.example"])), None)
        self.assertEqual(len(self.contexts), 0)

    def test_one_for_all_names(self) -> None:
        """The names of one certificate share its context."""
        self.index.set(certificate("wild", "*.a.example", "a.example"))
        self.assertIs(self.context("a.example"), self.context("b.a.example"))

    def test_which_certificate(self) -> None:
        """A context comes with what it serves."""
        served = certificate("a.example")
        self.index.set(served)
        self.assertIs(self.certificate("a.example"), served)

    def test_swap(self) -> None:
        """A certificate that is exchanged gets a new context; the old one stays with whoever holds it."""
        self.index.set(certificate("a.example"))
        before = self.context("a.example")
        new = certificate("a.example")
        self.index.set(new)
        self.assertEqual(len(self.contexts), 0)
        self.assertIsNot(self.context("a.example"), before)
        self.assertIs(self.certificate("a.example"), new)

    def test_removed(self) -> None:
        """One that is gone is not served any more, and its key not kept."""
        self.index.set(certificate("a.example"))
        self.context("a.example")
        self.index.remove("a.example")
        self.assertIs(self.contexts.find("a.example", APP), None)
        self.assertEqual(len(self.contexts), 0)

    def test_bounded(self) -> None:
        """Beyond the bound, the one that was unused for longest goes."""
        self.contexts = Contexts(self.index, kept=2)
        for host in ("a.example", "b.example", "c.example"):
            self.index.set(certificate(host))
        first, second = self.context("a.example"), self.context("b.example")
        self.context("a.example")
        self.context("c.example")
        self.assertEqual(len(self.contexts), 2)
        self.assertIs(self.context("a.example"), first)
        self.assertIsNot(self.context("b.example"), second)

    def test_broken(self) -> None:
        """One that OpenSSL refuses all the same is told once and costs no more than an unknown name."""
        broken = Certificate("a", b"", b"", ("a.example",), 0.0, 1.0, "")
        self.index.set(broken)
        for _ in range(3):
            self.assertIs(self.contexts.find("a.example", APP), None)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.index.set(certificate("a", "a.example"))
        self.context("a.example")
