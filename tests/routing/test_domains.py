"""Domains in the one form that is looked up."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.domains import normalise_domain

ACCEPTED = {
    "example.com": "example.com",
    "Hello.Example.COM": "hello.example.com",
    "example.com.": "example.com",
    "localhost": "localhost",
    "*.example.com": "*.example.com",
    "*.Localhost.": "*.localhost",
    "my_app.example.com": "my_app.example.com",
    "_dmarc.example.com": "_dmarc.example.com",
    "*.my_app.example.com": "*.my_app.example.com",
    "r3---sn-25g.example.com": "r3---sn-25g.example.com",
    "1.example.com": "1.example.com",
    "123.example": "123.example",
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "*.bücher.example": "*.xn--bcher-kva.example",
    "my_app.bücher.example": "my_app.xn--bcher-kva.example",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "XN--BCHER-KVA.example": "xn--bcher-kva.example",
    "straße.de": "xn--strae-oqa.de",
    "ｅｘａｍｐｌｅ。com": "example.com",
    "127.0.0.1": "127.0.0.1",
    "::1": "[::1]",
    "[::1]": "[::1]",
    "[0:0:0:0:0:0:0:1]": "[::1]",
    "[2001:DB8::A]": "[2001:db8::a]",
    "a" * 63 + ".example": "a" * 63 + ".example",
}

REFUSED = {
    "": "is empty",
    ".": "is empty",
    "*": "'*' may only stand alone as the first label",
    "*.": "'*' may only stand alone as the first label",
    "*.*.example.com": "'*' may only stand alone as the first label",
    "a*.example.com": "'*' may only stand alone as the first label",
    "www.*.com": "'*' may only stand alone as the first label",
    "example..com": "a label between two dots is empty",
    ".example.com": "a label between two dots is empty",
    "example.com..": "a label between two dots is empty",
    "example.com:80": "without scheme or port",
    "[::1]:80": "without scheme or port",
    "[fe80::1%eth0]": "without scheme or port",
    "[1.2.3.4]": "only letters, digits",
    "http://example.com": "without scheme or port",
    "example.com/path": "only letters, digits",
    "exa mple.com": "only letters, digits",
    " example.com": "only letters, digits",
    "example.com\n": "only letters, digits",
    "-a.example.com": "may not begin or end with '-'",
    "a-.example.com": "may not begin or end with '-'",
    "256.1.1.1": "its last label is a number",
    "1.2.3": "its last label is a number",
    "*.2.3.4": "its last label is a number",
    "a" * 64 + ".example": "a label has at most 63 characters",
    "a." * 127 + "com": "at most 253 characters",
    "ü" * 5000: "at most 253 characters",
    "i❤.example": "IDNA refuses it",
    "ü" * 60 + ".example": "IDNA refuses it",
    "a\u200d.example": "IDNA refuses it",
}


class NormaliseDomainTests(SynchronousTestCase):
    """What is taken as a domain, and what it becomes."""

    def test_accepted(self) -> None:
        """Each of these becomes the form in which a client asks for it."""
        for text, normal in ACCEPTED.items():
            self.assertEqual(normalise_domain(text), normal, text)

    def test_refused(self) -> None:
        """Each of these is refused with a sentence that says why."""
        for text, reason in REFUSED.items():
            error = self.assertRaises(ValueError, normalise_domain, text)
            self.assertIn(reason, str(error), text)

    def test_refusals_are_short(self) -> None:
        """A huge text is not repeated in full."""
        error = self.assertRaises(ValueError, normalise_domain, "a" * 100_000)
        self.assertLess(len(str(error)), 200)

    @settings(max_examples=300, deadline=None)
    @example("١.2.3.4")
    @example("*.xn--a")
    @example("K.example")
    @given(st.text(max_size=80) | st.text(alphabet="aB0-_.*:[]ü。", max_size=20))
    def test_any_text(self, text: str) -> None:
        """Any text is refused with ValueError, or taken; what is taken stays as it is the second time."""
        try:
            normal = normalise_domain(text)
        except ValueError:
            return
        self.assertEqual(normalise_domain(normal), normal)
        self.assertTrue(normal.isascii() and normal == normal.lower() and len(normal) <= 253)
