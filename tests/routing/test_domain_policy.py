"""Which requests an app sends elsewhere."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App
from scalingo_proxy.routing.domain_policy import redirect_location


class RedirectTests(SynchronousTestCase):
    """One redirect does for both policies, and path and query are kept."""

    def test_table(self) -> None:
        """Every combination of the two policies with where the request came in."""
        plain = App("a", ["a.test", "b.test"])
        https = App("a", ["a.test", "b.test"], force_https=True)
        canonical = App("a", ["a.test", "b.test"], canonical="b.test")
        both = App("a", ["a.test", "b.test"], canonical="b.test", force_https=True)
        for app, scheme, host, target, location in (
            (plain, "http", "a.test", "/x?y", ""),
            (plain, "https", "a.test", "/x?y", ""),
            (https, "http", "a.test", "/x?y=%20", "https://a.test/x?y=%20"),
            (https, "https", "a.test", "/x", ""),
            (canonical, "http", "a.test", "//x/../y", "http://b.test//x/../y"),
            (canonical, "https", "a.test", "/", "https://b.test/"),
            (canonical, "http", "b.test", "/", ""),
            (both, "http", "a.test", "/", "https://b.test/"),
            (both, "http", "b.test", "/", "https://b.test/"),
            (both, "https", "a.test", "/", "https://b.test/"),
            (both, "https", "b.test", "/", ""),
            (https, "http", "a.test", "*", "https://a.test/"),
        ):
            self.assertEqual(redirect_location(app, scheme, host, target), location)
