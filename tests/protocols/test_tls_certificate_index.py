"""Which certificate is served for which name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Certificate, CertificateChange
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex, certificate_name

NOW = 1000.0


def cert(name: str, *domains: str, begin: float = 0.0, end: float = 2000.0) -> Certificate:
    return Certificate(name, b"", b"", domains, begin, end, "")


class IndexCase(SynchronousTestCase):
    def index(self, *certificates: Certificate) -> CertificateIndex:
        index = CertificateIndex(lambda: NOW)
        for certificate in certificates:
            index.set(certificate)
        return index

    def name(self, index: CertificateIndex, host: str, app: App | None = None) -> str:
        """What is served to whom asks for *host*."""
        found = index.covering(host) if app is None else index.for_app(app, host)
        return found.name if found else ""


class CoveringTests(IndexCase):
    """By the name that a client asks for."""

    def test_exact_before_wildcard(self) -> None:
        """The very name wins over a wildcard, in either order of coming."""
        wild, exact = cert("wild", "*.a.example"), cert("exact", "b.a.example")
        for index in (self.index(wild, exact), self.index(exact, wild)):
            self.assertEqual(self.name(index, "b.a.example"), "exact")
            self.assertEqual(self.name(index, "c.a.example"), "wild")

    def test_one_label(self) -> None:
        """A wildcard stands for one label."""
        index = self.index(cert("wild", "*.a.example"))
        for host in ("a.example", "c.b.a.example", "", ".", "a", "*.a.example", ".a.example.", "*"):
            self.assertEqual(self.name(index, host), "", host)

    def test_addresses(self) -> None:
        """Addresses are names like others."""
        index = self.index(cert("address", "127.0.0.1", "[::1]"))
        self.assertEqual(self.name(index, "127.0.0.1"), "address")
        self.assertEqual(self.name(index, "[::1]"), "address")

    def test_several(self) -> None:
        """Among several, one that is valid now, then the one that lasts longest."""
        short = cert("short", "a.example", end=NOW + 1)
        long = cert("long", "a.example", end=NOW + 2)
        old = cert("old", "a.example", end=NOW - 1)
        new = cert("new", "a.example", begin=NOW + 1, end=NOW + 9)
        for order in ((short, long, old, new), (new, old, long, short)):
            index = self.index(*order)
            self.assertEqual(self.name(index, "a.example"), "long")
            index.remove("long")
            self.assertEqual(self.name(index, "a.example"), "short")
            index.remove("short")
            self.assertIn(self.name(index, "a.example"), ("old", "new"))

    def test_exchanged(self) -> None:
        """A certificate that comes again under its name takes the place of the old one, names and all."""
        index = self.index(cert("a", "a.example", "b.example"), cert("a", "b.example", "c.example"))
        self.assertEqual([self.name(index, f"{x}.example") for x in "abc"], ["", "a", "a"])
        self.assertEqual(len(index), 1)

    def test_removed(self) -> None:
        """One that is gone leaves nothing; one that is not there is no mistake."""
        index = self.index(cert("a", "a.example"))
        index.remove("a")
        index.remove("a")
        self.assertEqual((self.name(index, "a.example"), list(index), index._by_domain), ("", [], {}))


class ForAppTests(IndexCase):
    """By app and name."""

    def setUp(self) -> None:
        self.both = self.index(
            cert("own", "a.example", "*.own.example"), cert("any", "a.example", end=9999.0)
        )

    def test_names(self) -> None:
        """A pair of files has a name that nothing else can have."""
        self.assertEqual(certificate_name(App("x")), "")
        self.assertEqual(certificate_name(App("x", certificate="own")), "own")
        files = {"cert": "/etc/x.pem", "key": "/etc/x.key"}
        self.assertEqual(certificate_name(App("x", certificate=files)), "file:/etc/x.pem")

    def test_own_first(self) -> None:
        """The one that the app asks for is served, though another would be better."""
        self.assertEqual(self.name(self.both, "a.example", App("x")), "any")
        self.assertEqual(self.name(self.both, "a.example", App("x", certificate="own")), "own")

    def test_own_does_not_cover(self) -> None:
        """One that does not cover the name is not served for it; any that does is."""
        index = self.index(cert("own", "a.example"), cert("other", "b.example"))
        app = App("x", ["a.example", "b.example", "c.example"], certificate="own")
        self.assertEqual(self.name(index, "b.example", app), "other")
        self.assertEqual(self.name(index, "c.example", app), "")

    def test_own_is_not_there(self) -> None:
        """An app that asks for one that nobody told is served any that covers the name."""
        app = App("x", ["a.example"], certificate="missing")
        self.assertEqual(self.name(self.both, "a.example", app), "any")

    def test_without_a_name(self) -> None:
        """A client that named nobody gets the app's own, or that of its first domain that has one."""
        index = self.index(cert("own", "z.example"), cert("b", "b.example"), cert("wild", "*.c.example"))
        self.assertEqual(self.name(index, "", App("x", ["b.example"], certificate="own")), "own")
        self.assertEqual(self.name(index, "", App("x", ["a.example", "b.example"])), "b")
        self.assertEqual(self.name(index, "", App("x", ["*.c.example"])), "wild")
        self.assertEqual(
            self.name(index, "", App("x", ["b.example", "z.example"], canonical="z.example")), "own"
        )
        self.assertEqual(self.name(index, "", App("x", ["a.example", "*.d.example"])), "")
        self.assertEqual(self.name(index, "", App("x")), "")


class FollowingTests(IndexCase):
    """Feeds, and those who watch."""

    def test_feed(self) -> None:
        """What a feed has is taken over, and what becomes of it."""
        feed = Feed(cert("a", "a.example"))
        index = self.index()
        index.follow(feed)
        self.assertEqual(self.name(index, "a.example"), "a")
        feed.tell(CertificateChange((cert("b", "b.example"),), ("a",)))
        self.assertEqual([self.name(index, "a.example"), self.name(index, "b.example")], ["", "b"])

    def test_watch(self) -> None:
        """Whoever watches hears after the change, so that it sees it, and only of what differs."""
        index = self.index()
        seen: list[tuple[CertificateChange, int]] = []
        index.watch(lambda change: seen.append((change, len(index))))
        for _ in range(2):
            index.set(cert("a", "a.example"))
        for _ in range(2):
            index.remove("a")
        self.assertEqual(
            seen, [(CertificateChange((cert("a", "a.example"),)), 1), (CertificateChange((), ("a",)), 0)]
        )


class Feed:
    """An ICertificateFeed by hand."""

    def __init__(self, *certificates: Certificate) -> None:
        self._certificates = {each.name: each for each in certificates}

    def certificates(self) -> dict[str, Certificate]:
        return self._certificates

    def watch(self, callback: object) -> object:
        self.tell = callback
        return lambda: None

    tell: object
