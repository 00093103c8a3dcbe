"""The command ``drain``: takes one backend out of an app, and waits until it is safe to kill."""

from __future__ import annotations

import argparse
import time
from typing import Any

from scalingo_proxy.cli_client import AdminClient
from scalingo_proxy.cli_output import NotInTime, Output

__all__ = ["add_drain_command"]

#: Seconds between two looks at how far it is.
_LOOK_SECONDS = 0.5
#: How much longer than the app's own drain is waited by default, for a proxy that is busy.
_DEFAULT_SECONDS = 300.0


def drain(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Take the backend out; with ``--wait``, come back when nothing is left on it."""
    app, address = arguments.name, arguments.backend
    _status, told = client.ask("DELETE", "apps", app, "backends", address)
    left = _left(told, address)
    if arguments.wait:
        told, left = _wait(arguments, client, output, told)
    if arguments.json:
        output.document({**told, "is_drained": left is None})
    elif left is None:
        output.line(f"{address} is drained: it is safe to kill")
    else:
        output.line(f"{address} is taken out of {app} and still has {_load(left)}: do not kill it yet")


def _wait(
    arguments: argparse.Namespace, client: AdminClient, output: Output, told: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Look again and again; what was told last, and the backend if anything is left on it.

    :raises NotInTime: after ``--timeout`` seconds.
    """
    began, said = time.monotonic(), ""
    while (left := _left(told, arguments.backend)) is not None:
        load, waited = _load(left), time.monotonic() - began
        if load != said:
            # On the error stream, so that the result can be read by a program.
            output.complain(f"{arguments.backend}: {load}, after {waited:.0f} s")
            said = load
        if waited >= arguments.timeout:
            raise NotInTime(
                f"{arguments.backend} still has {load} after {waited:.0f} seconds: do not kill it yet"
            )
        time.sleep(min(_LOOK_SECONDS, max(arguments.timeout - waited, 0.01)))
        _status, told = client.ask("GET", "apps", arguments.name, "backends")
    return told, None


def _left(told: dict[str, Any], address: str) -> dict[str, Any] | None:
    """The backend while something is left on it; one that serves again under the same address is another."""
    for each in told["backends"]:
        if each["address"] == address and each["membership"] == "draining" and not each["is_drained"]:
            return dict(each)
    return None


def _load(backend: dict[str, Any]) -> str:
    parts = [
        f"{backend[key]} {noun}{'' if backend[key] == 1 else 's'}"
        for key, noun in (("in_flight", "request"), ("tunnels", "tunnel"))
        if backend[key]
    ]
    return " and ".join(parts) or "nothing"


def add_drain_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``drain`` to the *commands* of a parser."""
    draining = commands.add_parser(
        "drain",
        parents=[common],
        help="take one backend out of an app, so that it can be killed",
        description="Take one backend out of an app: it gets no new requests and finishes what it has.",
    )
    draining.add_argument("name", metavar="APP")
    draining.add_argument("backend", metavar="BACKEND", help="as the app has it, such as 10.0.0.1:3000")
    draining.add_argument(
        "--wait",
        action="store_true",
        help="come back when it is safe to kill, and tell how far it is until then",
    )
    draining.add_argument(
        "--timeout",
        type=float,
        default=_DEFAULT_SECONDS,
        metavar="SECONDS",
        help=f"wait no longer than that; the exit status is 4 then (default: {_DEFAULT_SECONDS:g})",
    )
    draining.set_defaults(command=drain, needs_proxy=True)
