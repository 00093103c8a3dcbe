"""Certificates that a configuration file names by their files."""

from __future__ import annotations

import os
import time

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config import load
from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.settings import Settings

DAY = 86400.0


class CertificateFilesTests(SynchronousTestCase):
    """Read beside the configuration file, and judged at its line."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.authority = Authority.create("Test CA", time.time() - 100 * DAY, 200)

    def write(self, name: str, content: bytes) -> None:
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(content)

    def issue(self, name: str, now: float) -> None:
        chain, key = self.authority.issue(["hello.test"], now, 30)
        self.write(f"{name}.pem", chain)
        self.write(f"{name}.key", key)

    def load(self, certificate: str) -> Settings:
        text = f'[[app]]\nname = "hello"\ndomains = ["hello.test"]\ncertificate = {certificate}\n'
        self.write("proxy.toml", text.encode())
        return load(os.path.join(self.folder, "proxy.toml"), {})

    def mistakes(self, certificate: str) -> list[str]:
        error = self.assertRaises(ConfigurationError, self.load, certificate)
        return [str(mistake) for mistake in error.mistakes]

    def test_good(self) -> None:
        """The app and its certificate find each other by the path."""
        self.issue("hello", time.time())
        settings = self.load('{ cert = "hello.pem", key = "hello.key" }')
        (certificate,) = settings.certificates
        self.assertEqual(certificate.domains, ("hello.test",))
        self.assertEqual(certificate.name, "file:" + os.path.join(self.folder, "hello.pem"))
        self.assertEqual(
            settings.apps[0].certificate,
            {"cert": certificate.name[5:], "key": certificate.name[5:-3] + "key"},
        )
        self.assertEqual(settings.warnings, ())
        self.assertNotIn("PRIVATE", repr(settings))

    def test_expired(self) -> None:
        """One that has expired is served with a warning: the others must come up."""
        self.issue("hello", time.time() - 50 * DAY)
        settings = self.load('{ cert = "hello.pem", key = "hello.key" }')
        self.assertEqual(len(settings.certificates), 1)
        (warning,) = settings.warnings
        self.assertIn(":4: [[app]] #1 certificate cert: ", warning)
        self.assertIn("expired on ", warning)

    def test_broken(self) -> None:
        """What cannot be served is a mistake that names the file."""
        self.issue("hello", time.time())
        self.issue("other", time.time())
        self.write("garbage", b"\0\1\2")
        for certificate, words in (
            ('{ cert = "hello.pem", key = "other.key" }', "other.key"),
            ('{ cert = "missing.pem", key = "hello.key" }', "missing.pem"),
            ('{ cert = "garbage", key = "hello.key" }', "garbage"),
            ('{ cert = "hello.pem", key = "garbage" }', "garbage"),
        ):
            sentences = self.mistakes(certificate)
            self.assertTrue(any(words in sentence for sentence in sentences), sentences)
            self.assertTrue(
                all("proxy.toml:4: [[app]] #1 certificate" in each for each in sentences), sentences
            )

    def test_known_name(self) -> None:
        """A name is left for whoever knows certificates by name."""
        settings = self.load('"star"')
        self.assertEqual((settings.apps[0].certificate, settings.certificates), ("star", ()))
