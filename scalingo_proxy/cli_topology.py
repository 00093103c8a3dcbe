"""The commands about the topology: how it stands, confirm and discard what is held back."""

from __future__ import annotations

import argparse
from typing import Any

from scalingo_proxy.cli_client import AdminClient
from scalingo_proxy.cli_output import Output

__all__ = ["add_topology_commands"]


def show_topology(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Tell where routes come from, and what is held back."""
    _status, told = client.ask("GET", "topology")
    if arguments.json:
        output.document(told)
        return
    rows = [
        [
            each["resolver"],
            str(each["apps"]),
            "-" if each["age_seconds"] is None else f"{each['age_seconds']:.0f} s ago",
            "held back" if each["held"] else "ok" if each["is_up"] else "not loaded",
        ]
        for each in told["sources"]
    ]
    output.table(["SOURCE", "APPS", "SYNCED", "STATE"], rows)
    for each in told["sources"]:
        if each["held"]:
            _tell(each["held"], output)
            output.line("  to let it come into effect: scalingo-proxy topology confirm")
            output.line("  to forget it: scalingo-proxy topology discard")


def confirm_topology(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Let what is held back come into effect."""
    for held in _decide("confirm", arguments, client, output):
        output.line(f"in effect: the update by {held['resolver']}; {_figures(held)} are removed")


def discard_topology(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Forget what is held back."""
    for held in _decide("discard", arguments, client, output):
        output.line(f"forgotten: the update by {held['resolver']}; {_figures(held)} stay")


def _decide(verb: str, arguments: argparse.Namespace, client: AdminClient, output: Output) -> list[Any]:
    """Say it to the proxy; what it was about, as far as that is to be put in words."""
    _status, told = client.ask("POST", "topology", verb)
    if arguments.json:
        output.document(told)
        return []
    decided: list[Any] = told[f"{verb}ed"]
    return decided


def _tell(held: dict[str, Any], output: Output) -> None:
    output.line(f"{held['reason']}, since {held['since']}")
    names = ", ".join(held["names"][:10])
    more = f", and {held['apps_removed'] - 10} more" if held["apps_removed"] > 10 else ""
    if names:
        output.line(f"  apps that would be gone: {names}{more}")
    if held["confirmed_at"]:
        output.line(f"  it counts as meant at {held['confirmed_at']}, should it stand until then")


def _figures(held: dict[str, Any]) -> str:
    return (
        f"{held['apps_removed']} of {held['apps']} apps"
        f" and {held['backends_removed']} of {held['backends']} backends"
    )


def add_topology_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``topology …`` to the *commands* of a parser."""
    topology = commands.add_parser(
        "topology", parents=[common], help="tell where routes come from, and what is held back"
    )
    topology.set_defaults(command=show_topology, needs_proxy=True)
    actions = topology.add_subparsers(metavar="ACTION")
    confirming = actions.add_parser(
        "confirm", parents=[common], help="let an update that is held back come into effect: it was meant"
    )
    confirming.set_defaults(command=confirm_topology, needs_proxy=True)
    discarding = actions.add_parser(
        "discard", parents=[common], help="forget an update that is held back: it was not meant"
    )
    discarding.set_defaults(command=discard_topology, needs_proxy=True)
