"""Tests of scalingo_proxy.routing.policies: the rules for everybody and for one app."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import Denied, RateLimited
from scalingo_proxy.model import App
from scalingo_proxy.routing.access import AccessRules
from scalingo_proxy.routing.policies import Policies


class PoliciesTests(SynchronousTestCase):
    """Who is refused, and what is counted."""

    def test_everybody(self) -> None:
        """The proxy's own lists."""
        policies = Policies(AccessRules(deny=["10.0.0.0/8"], allow=["10.0.0.0/8", "192.0.2.1"]))
        policies.admit("192.0.2.1")
        self.assertRaises(Denied, policies.admit, "10.0.0.1")
        self.assertRaises(Denied, policies.admit, "192.0.2.2")
        self.assertEqual(policies.denied, {"deny": 1, "allow": 1, "app_deny": 0, "app_allow": 0})

    def test_of_an_app(self) -> None:
        """An app's lists are taken up anew when the app changes."""
        policies = Policies()
        policies.admit_to(App("a"), "10.0.0.1", 0.0)
        app = App("a", access={"deny": ("10.0.0.0/8",)})
        self.assertRaises(Denied, policies.admit_to, app, "10.0.0.1", 0.0)
        app = App("a", access={"allow": ("10.0.0.0/8",)})
        policies.admit_to(app, "10.0.0.1", 0.0)
        self.assertRaises(Denied, policies.admit_to, app, "::1", 0.0)
        self.assertEqual((policies.denied["app_deny"], policies.denied["app_allow"]), (1, 1))

    def test_rate(self) -> None:
        """The error tells after how many seconds to ask again."""
        policies = Policies()
        app = App("a", rate_limit={"requests": 1, "per": 4.0, "burst": 2})
        for _ in range(2):
            policies.admit_to(app, "10.0.0.1", 0.0)
        error = self.assertRaises(RateLimited, policies.admit_to, app, "10.0.0.1", 1.0)
        self.assertAlmostEqual(error.retry_after, 3.0)
        policies.admit_to(app, "10.0.0.2", 1.0)

    def test_burst_left_out(self) -> None:
        """A bucket holds as much as comes back in the whole time."""
        policies = Policies()
        app = App("a", rate_limit={"requests": 5, "per": 60.0})
        for _ in range(5):
            policies.admit_to(app, "10.0.0.1", 0.0)
        self.assertRaises(RateLimited, policies.admit_to, app, "10.0.0.1", 0.0)

    def test_total(self) -> None:
        """One bucket for all clients."""
        policies = Policies()
        app = App("a", rate_limit={"total": {"requests": 2}})
        policies.admit_to(app, "10.0.0.1", 0.0)
        policies.admit_to(app, "10.0.0.2", 0.0)
        self.assertRaises(RateLimited, policies.admit_to, app, "10.0.0.3", 0.0)

    def test_deploy_keeps_buckets(self) -> None:
        """Other backends are no reason to let everybody begin anew; another limit is."""
        policies = Policies()
        limit = {"requests": 1, "per": 60.0}
        policies.admit_to(App("a", rate_limit=limit), "10.0.0.1", 0.0)
        changed = App("a", backends=["127.0.0.1:1"], rate_limit=dict(limit))
        self.assertRaises(RateLimited, policies.admit_to, changed, "10.0.0.1", 0.0)
        policies.admit_to(App("a", rate_limit={"requests": 2, "per": 60.0}), "10.0.0.1", 0.0)

    def test_forget(self) -> None:
        """An app that is gone leaves nothing."""
        policies = Policies()
        app = App("a", rate_limit={"requests": 1, "per": 60.0})
        policies.admit_to(app, "10.0.0.1", 0.0)
        policies.forget(["a", "b"])
        policies.admit_to(app, "10.0.0.1", 0.0)
