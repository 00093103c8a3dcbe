"""Tests of scalingo_proxy.routing.access: lists of networks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.access import AccessRules


class AccessRulesTests(SynchronousTestCase):
    """Which list keeps an address out."""

    def refusals(self, rules: AccessRules, *addresses: str) -> list[str]:
        return [rules.refusal(address) for address in addresses]

    def test_empty(self) -> None:
        """Without lists everybody is let in, and nobody needs to ask."""
        rules = AccessRules()
        self.assertFalse(rules)
        self.assertEqual(self.refusals(rules, "10.0.0.1", "::1", ""), ["", "", ""])

    def test_deny(self) -> None:
        """IPv4 and IPv6, mapped addresses and zones."""
        rules = AccessRules(deny=["10.0.0.0/8", "2001:db8::/32", "fe80::/10"])
        self.assertTrue(rules)
        inside = ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7", "fe80::1%eth0"]
        self.assertEqual(self.refusals(rules, *inside), ["deny"] * 4)
        self.assertEqual(self.refusals(rules, "11.0.0.1", "2001:db9::", "::ffff:11.0.0.1"), [""] * 3)

    def test_allow(self) -> None:
        """Only these, except what is denied among them."""
        rules = AccessRules(deny=["10.0.0.66"], allow=["10.0.0.0/24"])
        self.assertEqual(
            self.refusals(rules, "10.0.0.1", "10.0.0.66", "10.0.1.1", "::1"), ["", "deny", "allow", "allow"]
        )

    def test_no_address(self) -> None:
        """Whoever comes through a unix socket is the file system's business."""
        rules = AccessRules(allow=["10.0.0.0/24"])
        self.assertEqual(self.refusals(rules, "", "unix:"), ["", ""])

    def test_mistake(self) -> None:
        """An entry that is none is named."""
        with self.assertRaisesRegex(ValueError, "10.0.0.0/99"):
            AccessRules(deny=["10.0.0.0/99"])
