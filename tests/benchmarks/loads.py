"""Loads: each puts so much on a proxy and tells how many units that were.

Programs that are good at it (wrk, h2load) where there are any; else a small
process of our own.  All of them run on the cores that the proxy does not have.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs

from tests.benchmarks.peers import Peer
from tests.benchmarks.programs import find, python_path
from tests.benchmarks.world import BROWSER_HEADERS, World, host

__all__ = ["Latencies", "Load", "clients", "h2load", "open_loop", "wrk"]

#: Puts a load on a peer; how many units that were.
Load = Callable[[Peer], float]

#: How many of the apps are asked for, in turn.
HOSTS_IN_USE = 10

#: No load lasts so long.
_LONGEST_SECONDS = 300


def _run(world: World, name: str, command: list[str]) -> str:
    """What a load says that is put on *name*."""
    try:
        ended = subprocess.run(
            command,
            cwd=os.getcwd(),
            env={**os.environ, "PYTHONPATH": python_path()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST_SECONDS,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, world.cores.rest),
        )
    except subprocess.TimeoutExpired:
        late = f"the load on {name} did not end within {_LONGEST_SECONDS} s: {' '.join(command)}"
        raise RuntimeError(late) from None
    if ended.returncode:
        said = f"{ended.stdout[-500:]} {ended.stderr[-2000:]}"
        raise RuntimeError(f"the load on {name}, {command[0]}, failed: {said}")
    return ended.stdout


def _units(peer: Peer, count: float, told: str) -> float:
    """The units of a load, of which there must be some: it is by them that costs are divided."""
    if not count:
        raise RuntimeError(f"{peer.name} did not answer at all: {told[-2000:]}")
    return count


def wrk(
    world: World, seconds: int, connections: int = 32, close: bool = False, apps: int = HOSTS_IN_USE
) -> Load:
    """Plain HTTP/1.1 with headers as browsers send them, to many hosts in turn.

    :param close: a new connection for each request.
    """
    program = find("wrk", "apt-get install wrk")
    fields = {**BROWSER_HEADERS, **({"Connection": "close"} if close else {})}
    lines = ", ".join(f'["{name}"] = "{value}"' for name, value in fields.items())
    script = world.write(
        f"requests-{int(close)}-{apps}.lua",
        f"""
local requests, turn = {{}}, 0
function init()
  for number = 0, {apps} - 1 do
    local headers = {{ {lines}, ["Host"] = "app" .. number .. ".bench.example" }}
    requests[number] = wrk.format("GET", "/some/path?page=2", headers)
  end
end
function request()
  turn = (turn + 1) % {apps}
  return requests[turn]
end
""",
    )

    def load(peer: Peer) -> float:
        told = _run(
            world,
            peer.name,
            [
                program,
                "-t1",
                f"-c{connections}",
                f"-d{seconds}",
                "-s",
                script,
                f"http://127.0.0.1:{peer.http}/",
            ],
        )
        answered = re.search(r"(\d+) requests in", told)
        if answered is None or "Non-2xx" in told:
            raise RuntimeError(f"{peer.name} did not answer everything with 200: {told}")
        return _units(peer, float(answered[1]), told)

    return load


def _h2load_command(peer: Peer, seconds: int, options: list[str]) -> list[str]:
    program = find("h2load", "apt-get install nghttp2-client")
    headers = [word for name, value in BROWSER_HEADERS.items() for word in ("-H", f"{name}: {value}")]
    is_tls = "--plain" not in options
    url = f"{'https' if is_tls else 'http'}://{host(7)}/some/path?page=2"
    port = peer.https if is_tls else peer.http
    options = [option for option in options if option != "--plain"]
    return [program, *options, f"-D{seconds}", *headers, f"--connect-to=127.0.0.1:{port}", url]


def h2load(world: World, seconds: int, options: list[str]) -> Load:
    """HTTP/2 (or HTTP/1.1 with ``--h1``) over TLS, or plain with ``--plain``."""

    def load(peer: Peer) -> float:
        told = _run(world, peer.name, _h2load_command(peer, seconds, options))
        counts = re.search(r"(\d+) succeeded, (\d+) failed", told)
        if counts is None or int(counts[2]) or "4xx, 0 5xx" not in told:
            raise RuntimeError(f"{peer.name} did not answer everything: {told}")
        return _units(peer, float(counts[1]), told)

    return load


@attrs.frozen
class Latencies:
    """How long requests took that came without regard to the answers.

    :ivar took: each of them, in seconds, the shortest first; *late* is how
        late each was sent, likewise.
    :ivar core: the share of a core that sending them took.
    :ivar seconds: how long it lasted.
    """

    took: list[float]
    late: list[float]
    core: float
    seconds: float

    def percentile(self, share: float) -> float:
        return _percentile(self.took, share)

    def lateness(self, share: float) -> float:
        return _percentile(self.late, share)


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def open_loop(
    world: World, name: str, port: int, rate: float, seconds: float, seed: int, arrivals: str = "random"
) -> Latencies:
    """So many requests a second on 32 connections, see :mod:`tests.benchmarks.open_loop`.

    :param name: whose port it is.
    :param seed: the same one gives the same moments.
    """
    options = ["--seconds", str(seconds), "--seed", str(seed), "--arrivals", arrivals]
    program = [sys.executable, "-m", "tests.benchmarks.open_loop"]
    told = Latencies(**json.loads(_run(world, name, [*program, str(port), f"{rate:.3f}", *options])))
    if not told.took:
        raise RuntimeError(f"at {rate:.3f} requests a second, none is sent to {name} within {seconds} s")
    return told


def clients(world: World, kind: str, count: int, port: str) -> Load:
    """Our own clients, see :mod:`tests.benchmarks.clients`.

    :param port: which of a peer's ports they connect to.
    """

    def load(peer: Peer) -> float:
        authority = world.write("authority.pem", world.authority.pem.decode())
        told = _run(
            world,
            peer.name,
            [
                sys.executable,
                "-m",
                "tests.benchmarks.clients",
                kind,
                str(count),
                str(getattr(peer, port)),
                authority,
            ],
        )
        answer: dict[str, Any] = json.loads(told)
        return _units(peer, float(answer["units"]), told)

    return load
