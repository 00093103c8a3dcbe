"""``twistd`` and ``twist`` find the proxy however it got onto the machine."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from twisted.trial import unittest

from tests.installations import (
    CHECKOUT,
    copy_of_checkout,
    empty_installation,
    installed,
    new_folder,
    run,
    wheel,
)

TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")
TWIST = ("-m", "twisted")

#: Prints which import first brought the global reactor in, if one did.
FIND_REACTOR = """
import importlib, pkgutil, sys
import scalingo_proxy

def walk():
    yield "scalingo_proxy"
    for found in pkgutil.walk_packages(scalingo_proxy.__path__, "scalingo_proxy."):
        if found.name.split(".")[1] not in ("tap", "cli", "__main__"):
            yield found.name

count = 0
for name in walk():
    importlib.import_module(name)
    count += 1
    if "twisted.internet.reactor" in sys.modules:
        sys.exit(f"importing {name} imports twisted.internet.reactor")
print(count, "modules")
"""

#: Finds the plugin as twistd does and prints what of ours that imported.
FIND_PLUGIN = """
import sys
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
(found,) = [plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "scalingo-proxy"]
print(found.module, sorted(name for name in sys.modules if name.startswith("scalingo_proxy")))
"""


@functools.cache
def python_with_wheel() -> Path:
    return installed(wheel())


class PluginTests(unittest.SynchronousTestCase):
    """The runners list the proxy and show its options."""

    def assert_found(self, python: str | Path, cwd: Path, **environment: str) -> None:
        """Both runners know the subcommand and can load its options."""
        for runner in (TWISTD, TWIST):
            listing = run(python, *runner, "--help", cwd=cwd, **environment)
            self.assertRegex(listing.stdout, r"\n +scalingo-proxy +An edge proxy")
            options = run(python, *runner, "scalingo-proxy", "--help", cwd=cwd, **environment)
            self.assertEqual(options.returncode, 0, options.stdout)
            self.assertIn("--config", options.stdout)

    def test_wheel(self) -> None:
        """From a wheel."""
        self.assert_found(python_with_wheel(), new_folder())

    def test_editable(self) -> None:
        """From an editable install made without any special setting."""
        self.assert_found(installed("--editable", copy_of_checkout()), new_folder())

    def test_checkout(self) -> None:
        """In a checkout that was never installed, with the checkout on the path."""
        self.assert_found(empty_installation(), new_folder(), PYTHONPATH=str(copy_of_checkout()))

    def test_twist_in_checkout(self) -> None:
        """``python -m twisted`` in the folder of a checkout needs no path at all."""
        listing = run(empty_installation(), *TWIST, "--help", cwd=copy_of_checkout())
        self.assertIn("scalingo-proxy", listing.stdout)

    def test_not_installed(self) -> None:
        """Elsewhere it is unknown, so the tests above see what they mean to see."""
        listing = run(empty_installation(), *TWISTD, "--help", cwd=new_folder())
        self.assertEqual(listing.returncode, 0, listing.stdout)
        self.assertNotIn("scalingo-proxy", listing.stdout)

    def test_light(self) -> None:
        """Finding the plugin imports nothing of the package: every ``twistd --help`` pays for it."""
        found = run(sys.executable, "-c", FIND_PLUGIN, cwd=CHECKOUT)
        self.assertEqual(found.stdout, "scalingo_proxy.tap []\n")


class ConsoleScriptTests(unittest.SynchronousTestCase):
    """The console script comes with the wheel."""

    def test_help(self) -> None:
        """It is installed beside the interpreter and shows its commands."""
        shown = run(python_with_wheel().parent / "scalingo-proxy", "--help", cwd=new_folder())
        self.assertEqual(shown.returncode, 0, shown.stdout)
        self.assertIn("check", shown.stdout)

    def test_module(self) -> None:
        """``python -m scalingo_proxy`` is the same program."""
        shown = run(python_with_wheel(), "-m", "scalingo_proxy", "--help", cwd=new_folder())
        self.assertEqual(shown.returncode, 0, shown.stdout)
        self.assertIn("check", shown.stdout)


class ReactorTests(unittest.SynchronousTestCase):
    """Whoever embeds the proxy chooses the reactor."""

    def test_imports(self) -> None:
        """No module but the two programs brings the global reactor in, directly or through another."""
        found = run(sys.executable, "-c", FIND_REACTOR, cwd=CHECKOUT)
        self.assertEqual(found.returncode, 0, found.stdout)
        self.assertRegex(found.stdout, r"^\d+ modules\n$")
