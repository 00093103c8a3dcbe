"""PEM texts, taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.pem import PemMistake, certificate_blocks, private_key_block


def block(label: str, body: str = "QUJD", end: str = "") -> bytes:
    return f"-----BEGIN {label}-----\n{body}\n-----END {end or label}-----\n".encode()


class PemCase(SynchronousTestCase):
    def sentence(self, read: Callable[[bytes], Any], text: bytes) -> str:
        return str(self.assertRaises(PemMistake, read, text))


class CertificateBlocksTests(PemCase):
    """Certificates out of a text."""

    def test_order(self) -> None:
        """They come in their order, whatever stands between and around them."""
        one, two = block("CERTIFICATE", "T05F"), block("X509 CERTIFICATE", "VFdP")
        text = b"subject=CN = a\n" + one + block("PRIVATE KEY") + b"\r\n---- a dash - or -- two\n" + two
        self.assertEqual(certificate_blocks(text), [one, two])

    def test_something_else(self) -> None:
        """What the text is instead stands in the sentence."""
        for text, told in (
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"hello", "is not PEM"),
            (b"/etc/ssl/cert.pem", "is not PEM"),
            (block("CERTIFICATE", end="PRIVATE KEY"), "is not PEM"),
            (b"-----BEGIN CERTIFICATE-----\nQUJD\n", "is not PEM"),
            (b"\x30\x82\x01\x02....", "is DER"),
            (block("RSA PRIVATE KEY"), "a private key"),
            (block("CERTIFICATE REQUEST"), "a request"),
            (block("PKCS7"), "PKCS #7"),
            (block("NONSENSE"), "something else (NONSENSE)"),
            (b"x" * 300_000, "is too long"),
        ):
            self.assertIn(told, self.sentence(certificate_blocks, text))

    def test_hostile(self) -> None:
        """A text of beginnings without an end takes no time to speak of."""
        text = b"-----BEGIN CERTIFICATE-----\n" * 9000
        self.assertIn("is not PEM", self.sentence(certificate_blocks, text))
        self.assertIn("is not PEM", self.sentence(certificate_blocks, b"-----BEGIN A-----" + b"-" * 250_000))


class PrivateKeyBlockTests(PemCase):
    """The key out of a text."""

    def test_beside_certificates(self) -> None:
        """One file may hold both."""
        for label in ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"):
            text = block("CERTIFICATE") + block("EC PARAMETERS") + block(label)
            self.assertEqual(private_key_block(text), block(label))

    def test_encrypted(self) -> None:
        """Both ways to encrypt a key are told, with the way out."""
        old = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nQUJD"
        for text in (block("ENCRYPTED PRIVATE KEY"), block("RSA PRIVATE KEY", old)):
            self.assertIn("is encrypted", self.sentence(private_key_block, text))

    def test_something_else(self) -> None:
        """What the text is instead stands in the sentence, and nothing of what is in it."""
        for text, told in (
            (block("CERTIFICATE", "U0VDUkVU"), "a certificate"),
            (block("PUBLIC KEY", "U0VDUkVU"), "a public key"),
            (block("OPENSSH PRIVATE KEY", "U0VDUkVU"), "for SSH"),
            (block("PRIVATE KEY", "U0VDUkVU") * 2, "2 private keys"),
            (b"U0VDUkVU", "is not PEM"),
        ):
            sentence = self.sentence(private_key_block, text)
            self.assertIn(told, sentence)
            self.assertNotIn("U0VDUkVU", sentence)
