"""Tests of scalingo_proxy.config_access: the files of ``access.deny_files``."""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config import load
from scalingo_proxy.errors import ConfigurationError


class DenyFileTests(SynchronousTestCase):
    """A folder with a configuration file and its lists."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name: str, content: bytes) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def networks(self, *names: str) -> tuple[str, ...]:
        listed = ", ".join(f'"{name}"' for name in names)
        path = self.write("proxy.toml", f"[access]\ndeny_files = [{listed}]\n".encode())
        return load(path, {}).access.deny_in_files

    def sentences(self, *names: str) -> list[str]:
        try:
            self.networks(*names)
        except ConfigurationError as error:
            return [str(mistake).removeprefix(self.folder + os.sep) for mistake in error.mistakes]
        return []

    def test_lines(self) -> None:
        """Remarks, empty lines, blanks, a byte order mark, both families, any line end."""
        self.write("a.txt", b"\xef\xbb\xbf# bots\r\n10.0.0.0/8\r\n\n  192.0.2.1  # one\n2001:DB8::/32")
        self.write("b.txt", b"198.51.100.0/24\n")
        self.assertEqual(
            self.networks("a.txt", "b.txt"),
            ("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "198.51.100.0/24"),
        )

    def test_empty(self) -> None:
        """A list may be empty for now."""
        self.write("a.txt", b"")
        self.assertEqual(self.networks("a.txt"), ())

    def test_mistakes(self) -> None:
        """Each names file and line, and what is wrong."""
        self.write("a.txt", b"10.0.0.0/8\nnonsense\n10.0.0.1/8\n")
        self.write("b.txt", b"\xff\xfe")
        first, second, third, fourth = self.sentences("a.txt", "b.txt", "none.txt")
        self.assertIn('proxy.toml:2: [access] deny_files: "a.txt" line 2: "nonsense" is not a network', first)
        self.assertIn('"a.txt" line 3: ', second)
        self.assertIn('"b.txt" is not UTF-8 text', third)
        self.assertIn('"none.txt" cannot be read: No such file or directory', fourth)

    def test_the_wrong_file(self) -> None:
        """Whoever names a file of something else is not told each of its lines."""
        self.write("a.txt", b"x\n" * 5000)
        sentences = self.sentences("a.txt")
        self.assertEqual(len(sentences), 11)
        self.assertIn("4990 further mistakes", sentences[-1])
