"""One soak: the proxy under twistd, a fleet behind it, load on it, trouble in it, and the verdict."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
import time
from random import Random
from typing import Any

from tests.authorities import Authority
from tests.integration.programs import ProxyProcess, wait_for
from tests.soak.clients import Doors, Load
from tests.soak.exchanges import Exchange
from tests.soak.fleet import Fleet
from tests.soak.troubles import Troubles
from tests.soak.verdict import Verdict

__all__ = ["Soak"]

#: Apps whose HTTP is the proxy's business, and the one whose TLS passes through.
PLAIN = ["amber", "birch"]
SEALED = ["cedar"]
BACKENDS = 4

#: How long what is under way may last when its backend leaves, or the proxy stops.
DRAIN_SECONDS = 4.0

#: The longest quarantine.  An error is excused by trouble for two of them and a slow request on trial.
QUARANTINE_SECONDS = 1.0
RECOVERY_SECONDS = 4.0

_CONFIG = """
[proxy]
state = ""
[[listen]]
protocol = "http"
endpoint = "tcp:0:interface=127.0.0.1"
[[listen]]
protocol = "tls"
endpoint = "tcp:0:interface=127.0.0.1"
[admin]
endpoint = "127.0.0.1:0"
[timeouts]
connect = 1.0
first_byte = 3.0
idle = 8.0
queue = 5.0
drain = {drain}
[quarantine]
first = 0.2
max = {quarantine}
{apps}
"""

_APP = """
[[app]]
name = "{name}"
domains = ["{name}.test"]
{rest}
"""


class Soak:
    """From the start of every process to the end of every process.

    :ivar faults: everything that must not be, in words.
    :ivar lines: the summary.
    :ivar exchange_count: how much was asked; ``trouble_count`` likewise.

    :param seed: decides the trouble and the load, as far as processes on one
        machine can be decided.
    :param seconds: how long the trouble lasts.
    :param every: seconds between two troubles, on average.
    :param log: a file for what the proxy writes and what was done to backends.
    """

    def __init__(self, seed: int, seconds: float, every: float = 0.6, log: str = "") -> None:
        self.seed = seed
        self.seconds = seconds
        self._every = every
        self._random = Random(seed)
        self._log = log
        self._directory = tempfile.mkdtemp()
        self.proxy: ProxyProcess
        self.exchange_count = 0
        self.trouble_count = 0
        self.faults: list[str] = []
        self.lines: list[str] = []

    def run(self) -> None:
        """Do all of it; afterwards ``faults`` tells what must not be, and ``lines`` sums up."""
        began = time.monotonic()
        try:
            asyncio.run(self._run())
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)
        self.lines.append(f"{time.monotonic() - began:.0f} s in all")

    async def _run(self) -> None:
        authority = Authority("soak")
        self._write_certificates(authority)
        fleet = Fleet(
            self._directory,
            {
                "birch": ((self._path("birch.pem"), self._path("birch.key")), "https://"),
                "cedar": ((self._path("cedar.pem"), self._path("cedar.key")), ""),
            },
        )
        self.proxy = ProxyProcess(self._directory, self._config())
        try:
            await asyncio.to_thread(self.proxy.wait_until_up)
            (tls_port,) = re.findall(r"^  tls +https://[^/]*:(\d+)/", self.proxy.output, re.MULTILINE)
            doors = Doors(self.proxy.port, int(tls_port), authority.pem)
            await self._deploy(fleet)
            await self._soak(fleet, doors)
        finally:
            await asyncio.to_thread(self.proxy.end)
            await fleet.end()
            if self._log:
                self._write_log(fleet)

    async def _soak(self, fleet: Fleet, doors: Doors) -> None:
        warm_up = Load(Random(f"{self.seed}/warm-up"), doors)
        self._start(warm_up)
        await asyncio.sleep(0.5)
        await warm_up.stop()
        await self._empty(fleet)
        descriptors, memory = self.proxy.descriptor_count(), self.proxy.resident_bytes()
        await self._deploy(fleet)

        load = Load(self._random, doors)
        troubles = Troubles(self._random, fleet, self._admin)
        self._start(load)
        started = time.process_time(), _cpu_seconds(self.proxy.pid), time.monotonic()
        await troubles.run(PLAIN + SEALED, time.monotonic() + self.seconds, self._every)
        await asyncio.sleep(min(RECOVERY_SECONDS, self.seconds / 3))
        await load.stop()
        busy = _cpu_seconds(self.proxy.pid) - started[1]
        took = time.monotonic() - started[2]
        await self._check_idle()
        await self._empty(fleet)
        await self._check_descriptors(descriptors)
        grown = self.proxy.resident_bytes() - memory
        await asyncio.to_thread(self._stop_proxy)

        exchanges = warm_up.exchanges + load.exchanges
        verdict = Verdict(exchanges, fleet, self._backends_by_id(exchanges), RECOVERY_SECONDS)
        self.faults += verdict.faults + troubles.mistakes
        self._check_log()
        if grown > 25e6:
            self.faults.append(f"the proxy grew by {grown / 1e6:.0f} MB")
        self.exchange_count = len(verdict.exchanges)
        self.trouble_count = sum(troubles.counts.values())
        self.lines += [f"seed {self.seed}, {took:.0f} s of load", *verdict.summary(), "trouble"]
        self.lines += [f"  {kind:<24}{count:>7}" for kind, count in sorted(troubles.counts.items())]
        self.lines += [
            f"the proxy used {busy / took:.0%} of a core and grew by {grown / 1e6:.1f} MB",
        ]

    @staticmethod
    def _start(load: Load) -> None:
        load.start(PLAIN, SEALED)

    # -- before --------------------------------------------------------------

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _write_certificates(self, authority: Authority) -> None:
        with open(self._path("authority.pem"), "w") as file:
            file.write(authority.pem)
        for name in PLAIN + SEALED:
            chain, key = authority.issue([f"{name}.test"])
            for ending, text in (("pem", chain), ("key", key)):
                with open(self._path(f"{name}.{ending}"), "w") as file:
                    file.write(text)

    def _config(self) -> str:
        # One is asked in the clear, the other over TLS.
        more = {"amber": "", "birch": 'backend_tls = { ca = "authority.pem", name = "birch.test" }'}
        apps = [
            _APP.format(
                name=name, rest=f'certificate = {{ cert = "{name}.pem", key = "{name}.key" }}\n{more[name]}'
            )
            for name in PLAIN
        ]
        apps += [_APP.format(name=name, rest='tls = "passthrough"') for name in SEALED]
        return _CONFIG.format(apps="".join(apps), quarantine=QUARANTINE_SECONDS, drain=DRAIN_SECONDS)

    async def _admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await asyncio.to_thread(self.proxy.admin, method, path, body)

    async def _deploy(self, fleet: Fleet) -> None:
        """Give each app its first backends."""
        for app in PLAIN + SEALED:
            members = await fleet.add(app, BACKENDS)
            addresses = [each.address for each in members]
            status, told = await self._admin("PUT", f"/api/v1/apps/{app}/backends", {"backends": addresses})
            assert status == 200, told
            for each in members:
                each.serves_from = time.monotonic()
            fleet.members[app] = members

    # -- afterwards ----------------------------------------------------------

    async def _empty(self, fleet: Fleet) -> None:
        """Take every backend away, so that no connection is kept."""
        for app in PLAIN + SEALED:
            for each in fleet.members[app]:
                each.serves_until = time.monotonic()
            status, told = await self._admin(
                "PUT", f"/api/v1/apps/{app}/backends?wait=drained", {"backends": []}
            )
            if status != 200:
                self.faults.append(f"emptying {app} answered {status}: {told}")
            for each in fleet.members[app]:
                each.gone_from = time.monotonic()
                await each.kill()
        await asyncio.sleep(0.5)

    async def _check_idle(self) -> None:
        """Nothing is in flight when nobody asks."""
        names = ("in_flight", "queued", "tunnels", "client_connections")

        def busy() -> dict[str, int]:
            status = self.proxy.admin("GET", "/api/v1/status")[1]
            return {name: status[name] for name in names if status[name]}

        try:
            await asyncio.to_thread(wait_for, lambda: not busy(), "rest", 6.0)
        except AssertionError:
            self.faults.append(f"nobody asks, and the proxy still has {busy()}")

    async def _check_descriptors(self, before: int) -> None:
        def same() -> bool:
            return abs(self.proxy.descriptor_count() - before) <= 5

        try:
            await asyncio.to_thread(wait_for, same, "descriptors", 6.0)
        except AssertionError:
            self.faults.append(
                f"{self.proxy.descriptor_count()} descriptors are open; it were {before} before the load"
            )

    def _stop_proxy(self) -> None:
        began = time.monotonic()
        self.proxy.end()
        if time.monotonic() - began > 5.0:
            self.faults.append(f"an idle proxy took {time.monotonic() - began:.1f} s to stop")

    def _write_log(self, fleet: Fleet) -> None:
        with open(self._log, "w") as file:
            for each in fleet.everybody():
                times = (each.serves_from, each.serves_until, each.gone_from)
                file.write(f"{each.name} {each.address} {times} {each.touches}\n")
            file.write(self.proxy.output)

    def _check_log(self) -> None:
        output = self.proxy.output
        for sign in ("Traceback", "Unhandled", "internal-error"):
            if sign in output:
                at = output.index(sign)
                self.faults.append(f"the log has {sign!r}: ...{output[max(0, at - 300) : at + 1500]}...")

    def _backends_by_id(self, exchanges: list[Exchange]) -> dict[str, str]:
        """Who each request was given to last, by the request log.

        What passes through is known by its client's address, and gets its code from there, too.
        """
        line = r"^at=.* request_id=(\S+) from=(\S+) .* backend=(\S+) .* code=(\S+) "
        told: dict[str, tuple[str, str]] = {}
        for request_id, client, backend, code in re.findall(line, self.proxy.output, re.MULTILINE):
            told[request_id] = told[client] = backend, code
        found = {}
        for exchange in exchanges:
            backend, code = told.get(exchange.source or exchange.id, ("", "-"))
            found[exchange.id] = backend.removeprefix("-")
            if exchange.source and exchange.code and code != "-":
                exchange.code = code
        return found


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
