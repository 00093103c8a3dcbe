"""Tests of scalingo_proxy.config_error_pages: pages that a configuration file names."""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config import load
from scalingo_proxy.errors import ConfigurationError


class ErrorPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def pages(self, table: str) -> dict[str, str]:
        path = os.path.join(self.folder, "proxy.toml")
        with open(path, "w") as file:
            file.write(f'[[app]]\nname = "hello"\nerror_pages = {{ {table} }}\n')
        (app,) = load(path, {}).apps
        return dict(app.error_pages)

    def sentence(self, table: str) -> str:
        with self.assertRaises(ConfigurationError) as caught:
            self.pages(table)
        (mistake,) = caught.exception.mistakes
        return str(mistake).removeprefix(self.folder + os.sep)

    def test_files_and_urls(self) -> None:
        """Relative names start from the configuration file; URLs stay as they are."""
        for name in ("stopped.html", "error.html"):
            with open(os.path.join(self.folder, name), "w") as file:
                file.write("x")
        absolute = os.path.join(self.folder, "error.html")
        url = "https://pages.test:8443/p?x=1"
        self.assertEqual(
            self.pages(f'stopped = "stopped.html", error = "{absolute}", timeout = "{url}", no_backend = ""'),
            {
                "stopped": os.path.join(self.folder, "stopped.html"),
                "error": absolute,
                "timeout": url,
                "no_backend": "",
            },
        )

    def test_mistakes(self) -> None:
        """What cannot be read, fetched or kept is one sentence at its line."""
        os.mkdir(os.path.join(self.folder, "folder"))
        with open(os.path.join(self.folder, "large"), "w") as file:
            file.truncate(10 * 1024 * 1024 + 1)
        for written, told in (
            ("missing.html", '"missing.html" cannot be read: No such file or directory'),
            ("folder", '"folder" cannot be read: Is a directory'),
            ("large", '"large" has more than 10 MB'),
            ("ftp://pages.test/", '"ftp://pages.test/" begins with neither http:// nor https://'),
            ("https://u:p@pages.test/", "is not a URL to fetch"),
            ("https://pages.test/a b", "is not a URL to fetch"),
            ("https://", "is not a URL to fetch"),
        ):
            sentence = self.sentence(f'stopped = "{written}"')
            self.assertTrue(sentence.startswith("proxy.toml:3: [[app]] #1 error_pages stopped: "), sentence)
            self.assertIn(told, sentence)
