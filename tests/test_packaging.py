"""What the distribution holds and says of itself, and how ``make`` begins."""

from __future__ import annotations

import ast
import configparser
import fnmatch
import os
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from twisted.trial import unittest

from scalingo_proxy.version import VERSION
from tests.installations import CHECKOUT, new_folder, run, wheel
from tests.test_layers import statements_of

PACKAGE = CHECKOUT / "scalingo_proxy"


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / "setup.cfg", "utf-8")
    return parser


class LayoutTests(unittest.SynchronousTestCase):
    """The checkout is laid out as the build needs it."""

    def test_every_package_is_listed(self) -> None:
        """setup.cfg lists each of our packages, and Twisted's plugin folder."""
        packages = {
            ".".join(path.parent.relative_to(CHECKOUT).parts) for path in PACKAGE.rglob("__init__.py")
        }
        listed = setup_cfg()["options"]["packages"].split()
        self.assertEqual(sorted(listed), sorted({*packages, "twisted.plugins"}))

    def test_no_package_in_twisted(self) -> None:
        """An ``__init__.py`` in our twisted/ would hide Twisted itself."""
        self.assertEqual(list((CHECKOUT / "twisted").rglob("__init__.py")), [])

    def test_top_level(self) -> None:
        """Nothing stands at the top but what people and tools look for there."""
        ignored = [line.strip("/") for line in (CHECKOUT / ".gitignore").read_text("utf-8").split()]
        found = {
            path.name
            for path in CHECKOUT.iterdir()
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in (".*", *ignored))
        }
        expected = {
            *("LICENSE", "Makefile", "README.md", "SECURITY.md", "pyproject.toml", "setup.cfg"),
            *("docs", "scalingo_proxy", "tests", "twisted"),
        }
        self.assertEqual(found, expected)

    def test_news_types(self) -> None:
        """Each news fragment ends in a type that towncrier was told of."""
        towncrier = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]
        types = {entry["directory"] for entry in towncrier["type"]}
        folder = CHECKOUT / towncrier["directory"]
        fragments = [path.name for path in folder.iterdir() if path.name != ".gitignore"]
        self.assertEqual([name for name in fragments if name.split(".")[-2] not in types], [])


class ImportsTests(unittest.SynchronousTestCase):
    """What is imported is what is installed."""

    #: What the hard dependencies bring, by the names under which it is imported.
    BROUGHT = frozenset(
        {
            *("twisted", "zope", "attr", "attrs", "idna", "OpenSSL", "cryptography", "service_identity"),
            *("h2", "hpack", "hyperframe"),
        }
    )

    def imported_in(self, folder: str) -> set[str]:
        """The top-level names of others' modules that the files below *folder* import."""
        names = set()
        for path in (CHECKOUT / folder).rglob("*.py"):
            for node, _ in statements_of(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names.add(str(node.module))
        tops = {name.partition(".")[0] for name in names}
        return tops - set(sys.stdlib_module_names) - {"scalingo_proxy", "tests"}

    def test_package(self) -> None:
        """The package needs nothing but its dependencies and what they bring."""
        self.assertEqual(self.imported_in("scalingo_proxy") - self.BROUGHT, set())

    def test_tests(self) -> None:
        """The tests need nothing but the extra ``test``, measurements one peer more, and fuzzing its tool."""
        extras = setup_cfg()["options.extras_require"]
        extra = extras["test"] + extras["bench"] + extras["fuzz"].replace("%(test)s", "")
        listed = {Requirement(line).name.replace("-", "_") for line in extra.split("\n") if line}
        self.assertEqual(self.imported_in("tests") - self.BROUGHT - listed, set())


class WheelTests(unittest.SynchronousTestCase):
    """The wheel is complete and its metadata is valid."""

    def setUp(self) -> None:
        """Open the wheel."""
        archive = zipfile.ZipFile(wheel())
        self.addCleanup(archive.close)
        self.names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in self.names if ".dist-info/" in name}
        self.metadata = Metadata.from_email(archive.read(f"{info}/METADATA"), validate=True)
        self.entry_points = archive.read(f"{info}/entry_points.txt").decode()

    def test_files(self) -> None:
        """Every file of the package is in it, and beside it only the plugin."""
        ours = {
            path.relative_to(CHECKOUT).as_posix()
            for path in PACKAGE.rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
        expected = {*ours, "twisted/plugins/scalingo_proxy_plugin.py"}
        self.assertEqual({name for name in self.names if ".dist-info/" not in name}, expected)

    def test_data(self) -> None:
        """Type checkers find the marker, and the API its description."""
        for name in ("scalingo_proxy/py.typed", "scalingo_proxy/services/openapi.json"):
            self.assertIn(name, self.names)

    def test_dependencies(self) -> None:
        """Whoever installs the proxy gets three direct dependencies."""
        required = {str(found) for found in self.metadata.requires_dist or () if found.marker is None}
        expected = ("Twisted[tls]>=26.10", "attrs", "h2>=4.4.1")
        self.assertEqual(required, {str(Requirement(text)) for text in expected})

    def test_extras(self) -> None:
        """What contributors need comes in five extras."""
        self.assertEqual(set(self.metadata.provides_extra or ()), {"bench", "dev", "docs", "fuzz", "test"})

    def test_description(self) -> None:
        """An index shows the version, the licence, the README and the Python it takes."""
        self.assertEqual(self.metadata.name, "scalingo-proxy")
        self.assertEqual(str(self.metadata.version), VERSION)
        self.assertEqual(self.metadata.license_expression, "MIT")
        self.assertEqual(str(self.metadata.requires_python), ">=3.11")
        self.assertEqual(self.metadata.description_content_type, "text/markdown")
        self.assertIn("# scalingo_proxy", self.metadata.description or "")

    def test_console_script(self) -> None:
        """The console script is the command line's ``main``."""
        self.assertIn("scalingo-proxy = scalingo_proxy.cli:main", self.entry_points)


class MakeTests(unittest.SynchronousTestCase):
    """``make`` sets up ``.venv``, or says in a sentence why it cannot."""

    def setUp(self) -> None:
        """A folder with the Makefile and what its stamps depend on."""
        self.make = shutil.which("make")
        if self.make is None:
            raise unittest.SkipTest("make is not installed (Debian: apt-get install make)")
        self.folder = new_folder()
        for name in ("Makefile", "setup.cfg", "pyproject.toml"):
            shutil.copy(CHECKOUT / name, self.folder)
        self.programs = self.folder / "programs"
        self.programs.mkdir()
        self.path = os.pathsep.join([str(self.programs), os.environ["PATH"]])

    def program(self, name: str, script: str) -> Path:
        """Put a shell script on the path."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)
        return path

    def run_make(self, *words: str) -> tuple[int, str]:
        """Make's exit status and everything it printed."""
        completed = run(str(self.make), *words, cwd=self.folder, PATH=self.path)
        return completed.returncode, completed.stdout

    def test_no_python(self) -> None:
        """Too old a Python, or one that does not start, is named with what is needed."""
        self.program("old", "exit 1")
        status, output = self.run_make("PYTHONS=old nowhere", "demo")
        self.assertNotEqual(status, 0)
        self.assertIn("Python 3.11 or newer is needed; none of old nowhere is one", output)

    def test_no_venv(self) -> None:
        """A Python without venv is named with the package that is missing."""
        self.program("bare", 'case "$*" in *ensurepip*) exit 1;; esac')
        status, output = self.run_make("PYTHONS=bare", "demo")
        self.assertNotEqual(status, 0)
        self.assertIn("apt-get install python3-venv", output)

    def test_first_that_qualifies(self) -> None:
        """The first Python that qualifies makes the environment; later ones are not asked."""
        self.program("old", "exit 1")
        self.program("good", 'case "$*" in "-m venv"*) echo "making it"; exit 1;; esac')
        self.program("better", "echo asked >&2")
        status, output = self.run_make("PYTHONS=old good better", "demo")
        self.assertNotEqual(status, 0)
        self.assertIn("making it", output)
        self.assertNotIn("asked", output)

    def test_every_target_sets_up(self) -> None:
        """Each target but clean begins with the environment."""
        for target in ("demo", "test", "bench", "lint", "types", "docs"):
            _, output = self.run_make("--dry-run", target)
            self.assertIn("-m venv .venv", output, target)
