"""Tests of scalingo_proxy.config_authorities: files named by ``backend_tls.ca``."""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config import load
from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.model import App
from scalingo_proxy.resolvers.app_record import app_from_record, record_from_app
from tests.authorities import Authority

CA = Authority().pem


class AuthorityFileTests(SynchronousTestCase):
    """A folder with a configuration file and what it names."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name: str, content: str | bytes) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        return path

    def apps(self, *cas: str) -> tuple[App, ...]:
        """The apps of a file that has one for each of *cas*."""
        tables = [
            f'[[app]]\nname = "app{number}"\nbackends = ["https://10.0.0.1"]\n[app.backend_tls]\nca = {ca}\n'
            for number, ca in enumerate(cas, 1)
        ]
        return load(self.write("proxy.toml", "".join(tables)), {}).apps

    def sentences(self, *cas: str) -> list[str]:
        try:
            self.apps(*cas)
        except ConfigurationError as error:
            return [str(mistake).removeprefix(self.folder + os.sep) for mistake in error.mistakes]
        return []

    def test_beside_the_file(self) -> None:
        """A relative name starts from the configuration file; the app carries what is in it."""
        self.write("ca.pem", CA)
        absolute = self.write("other.pem", CA)
        for app in self.apps('"ca.pem"', f'"{absolute}"', f"'''{CA}'''"):
            self.assertEqual(app.backends[0].trust.ca, CA)
            self.assertEqual(app_from_record(record_from_app(app)), app)

    def test_empty(self) -> None:
        """No name is what the system trusts."""
        (app,) = self.apps('""')
        self.assertEqual(app.backends[0].trust.ca, "")

    def test_shared(self) -> None:
        """Apps that name the same file share its text."""
        self.write("ca.pem", CA)
        one, two = self.apps('"ca.pem"', '"ca.pem"')
        self.assertIs(one.backends[0].trust.ca, two.backends[0].trust.ca)

    def test_mistakes(self) -> None:
        """Each names file, line, key and what is wrong, all at once."""
        self.write("key.pem", Authority().issue()[1])
        self.write("ca.der", b"\x30\x82\xff\xfe")
        self.write("cut.pem", CA[:100])
        found = self.sentences('"none.pem"', '"key.pem"', '"ca.der"', '"cut.pem"', '"."', "1")
        self.assertEqual(
            found,
            [
                f"proxy.toml:{5 * number}: [[app]] #{number} backend_tls ca: {sentence}"
                for number, sentence in enumerate(
                    (
                        '"none.pem" cannot be read: No such file or directory',
                        '"key.pem" has a private key in it; write certificates alone',
                        '"ca.der" is not PEM text (convert DER with openssl x509 -inform der)',
                        '"cut.pem" has a certificate in it that is cut short or broken',
                        '"." cannot be read: Is a directory',
                        "must be text in quotes, not 1",
                    ),
                    1,
                )
            ],
        )

    def test_endless(self) -> None:
        """A file without an end is read no further than any set of authorities goes."""
        (sentence,) = self.sentences('"/dev/zero"')
        self.assertIn("has more than", sentence)
