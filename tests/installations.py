"""The package installed in the ways people install it, for tests that look from outside.

An installation is a virtual environment without pip, made in a moment, that
borrows the dependencies of the interpreter running the tests but not its copy
of the package: a folder named in a ``.pth`` file brings its modules and not
its own ``.pth`` files, so an editable install there stays out of sight.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

#: What a distribution is built from.
INGREDIENTS = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "scalingo_proxy", "twisted")

#: The dependencies and setuptools are there already.
OFFLINE = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")


def new_folder() -> Path:
    """An empty folder in trial's own, which trial clears before its next run."""
    return Path(tempfile.mkdtemp(dir=Path.cwd())).resolve()


def copy_of_checkout() -> Path:
    """A copy of what the distribution is built from, as a clone would hold it."""
    folder = new_folder()
    leftovers = shutil.ignore_patterns("__pycache__", "*.pyc", "dropin.cache")
    for name in INGREDIENTS:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=leftovers)
        else:
            shutil.copy(source, folder / name)
    return folder


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is text, errors included, and its failure is not raised.

    It does not notice that the tests may have been started by make, nor by which Python.  It keeps
    what it compiles: most of the time of a command in a new copy is compiling it.
    """
    others = ("PYTHON", "MAKE", "MFLAGS")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def pip(*words: str | Path, cwd: Path) -> None:
    """Run pip without network and without build isolation.

    :raises RuntimeError: with what pip printed.
    """
    completed = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *words, cwd=cwd)
    if completed.returncode:
        raise RuntimeError(f"pip {' '.join(map(str, words))}:\n{completed.stdout}")


def empty_installation() -> Path:
    """The interpreter of an environment that has the dependencies and not the package."""
    folder = new_folder()
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n", "utf-8")
    return python


@functools.cache
def wheel() -> Path:
    """The wheel, built once for each process that runs tests."""
    folder = new_folder()
    pip("wheel", *OFFLINE, "--wheel-dir", folder, ".", cwd=copy_of_checkout())
    (built,) = folder.glob("*.whl")
    return built


def installed(*what: str | Path) -> Path:
    """The interpreter of a new environment into which pip installed *what*."""
    python = empty_installation()
    pip("--python", python, "install", *OFFLINE, "--ignore-installed", *what, cwd=python.parent)
    return python
