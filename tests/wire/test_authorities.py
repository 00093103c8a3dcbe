"""Tests of scalingo_proxy.wire.authorities."""

from __future__ import annotations

from random import Random

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.authorities import MAX_AUTHORITIES_BYTES, is_pem, read_authorities
from tests.authorities import Authority
from tests.wire.http1_strategies import examples, randoms

ONE, TWO = Authority("one").pem, Authority("two").pem

#: Of each kind of character, and those that mean something in PEM.
ANY = "-=:+/ \n\r\t\0\x7fAbC09\xe9\u0663\u2028\u20ac\ud800\ufeff\U0001f600"


class AuthoritiesTests(SynchronousTestCase):
    """PEM in, certificates or a sentence out."""

    def test_in_order(self) -> None:
        """Every certificate comes out, whatever stands between them."""
        for between in ("", "\n", "# two\r\n", "Subject: CN=two\n"):
            found = read_authorities(ONE + between + TWO.replace("\n", "\r\n"))
            self.assertEqual([item.subject.rfc4514_string() for item in found], ["CN=one", "CN=two"])

    def test_mistakes(self) -> None:
        """Each mistake has its sentence, and nothing of the text is repeated."""
        key = Authority().issue()[1]
        for text, sentence in (
            ("", "has no certificate in it"),
            ("ca.pem", "has no certificate in it"),
            (ONE + key, "has a private key in it"),
            (ONE + key.replace("PRIVATE KEY", "RSA PRIVATE KEY"), "has a private key in it"),
            (key.replace("PRIVATE KEY", "CERTIFICATE"), "cut short or broken"),
            (ONE[:-40], "cut short or broken"),
            (ONE + TWO[:200], "cut short or broken"),
            (ONE.replace("CERTIFICATE", "CERTIFICATE REQUEST"), '"CERTIFICATE REQUEST"'),
            (ONE + ONE.replace("CERTIFICATE", "PUBLIC KEY"), '"PUBLIC KEY"'),
            (ONE.replace("M", "é"), "cut short or broken"),
            (ONE + " " * MAX_AUTHORITIES_BYTES, "has more than"),
        ):
            with self.assertRaises(ValueError, msg=sentence) as caught:
                read_authorities(text)
            self.assertIn(sentence, str(caught.exception))
            self.assertLess(len(str(caught.exception)), 120)

    @examples(100)
    @given(randoms)
    def test_anything(self, by: Random) -> None:
        """Whatever is done to the text, it is read or refused."""
        place = by.randint(0, len(ONE))
        piece = "".join(by.choices(ANY, k=by.randint(0, 3)))
        text = ONE[:place] + piece + ONE[place:]
        try:
            self.assertEqual(len(read_authorities(text)), 1)
        except ValueError as error:
            self.assertTrue(str(error).startswith("has "), error)

    def test_is_pem(self) -> None:
        """The name of a file is not PEM, a broken certificate is."""
        self.assertEqual([is_pem(text) for text in (ONE, ONE[:60], "", "ca.pem", "BEGIN.pem")],
                         [True, True, False, False, False])  # fmt: skip
