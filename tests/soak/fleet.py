"""The backends of a soak: processes that are started, killed, stopped, exchanged; and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.soak import backend as program
from tests.soak.exchanges import Touch
from tests.soak.members import Execution, SoakMember, SoakMembers

__all__ = ["BackendProcess", "Fleet"]


class BackendProcess(SoakMember):
    """One backend, through all its deaths.

    :param certificate: the files of a certificate and its key, for one that speaks TLS.
    :param scheme: what stands before its address.
    """

    def __init__(
        self, app: str, name: str, journal: str, certificate: tuple[str, ...], scheme: str = ""
    ) -> None:
        super().__init__(app, name)
        self._scheme = scheme
        self._journal = journal
        self._certificate = certificate
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self._scheme}127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start, at the port it had before, and wait until it listens."""
        words = (self.name, str(self.port), self._journal, *self._certificate)
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", program.__file__, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        self.port = int(line)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def wait(self) -> None:
        """Wait until it has ended."""
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    async def kill(self) -> None:
        """End it now."""
        self.signal(signal.SIGKILL)
        await self.wait()

    @contextlib.contextmanager
    def touched(self, kind: str):  # type: ignore[no-untyped-def]
        """While this lasts, nobody may count on it."""
        touch = Touch(kind, time.monotonic())
        self.touches.append(touch)
        yield
        touch.ended = time.monotonic()


class Fleet(SoakMembers):
    """The backends of all apps.

    :ivar members: who serves each app now.

    :param tls: by app: the files of a certificate and its key, and the scheme of the addresses.
    """

    def __init__(self, directory: str, tls: dict[str, tuple[tuple[str, str], str]]) -> None:
        self.journal = os.path.join(directory, "journal")
        self._tls = tls
        self.members: dict[str, list[BackendProcess]] = {}
        self._everybody: list[BackendProcess] = []

    async def add(self, app: str, count: int) -> list[BackendProcess]:
        """Start *count* backends for *app* that it does not have yet."""
        certificate, scheme = self._tls.get(app, ((), ""))
        first = sum(each.app == app for each in self._everybody) + 1
        fresh = [
            BackendProcess(app, f"{app}-{number}", self.journal, certificate, scheme)
            for number in range(first, first + count)
        ]
        self._everybody += fresh
        await asyncio.gather(*(each.start() for each in fresh))
        return fresh

    def everybody(self) -> list[BackendProcess]:
        return self._everybody

    def executions(self) -> list[Execution]:
        with contextlib.suppress(FileNotFoundError), open(self.journal) as file:
            lines = [line.split() for line in file]
            return [(float(when), request_id, method, name) for when, request_id, method, name in lines]
        return []

    async def end(self) -> None:
        """End all of them, each by its pid."""
        await asyncio.gather(*(each.kill() for each in self._everybody))
