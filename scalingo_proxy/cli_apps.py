"""The commands about apps: list, set, remove.

Each takes the parsed arguments, asks the admin API and tells the result;
what goes wrong is raised, and :mod:`scalingo_proxy.cli` says it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalingo_proxy.cli_client import AdminClient, ApiRefusal
from scalingo_proxy.cli_output import CommandMistake, Output
from scalingo_proxy.services.strict_json import strict_json

__all__ = ["add_app_commands"]


def list_apps(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Tell every app, or those that the query finds."""
    apps = list(client.listed("apps", arguments.query))
    if arguments.json:
        output.document({"apps": apps, "total": len(apps)})
        return
    rows = [
        [
            app["name"],
            app["state"],
            str(len(app["backends"])),
            app["source"],
            ",".join(app["domains"]) or "-",
        ]
        for app in apps
    ]
    output.table(["NAME", "STATE", "BACKENDS", "SOURCE", "DOMAINS"], rows)


def set_app(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Make an app, or change what is named of it; a file replaces all of it."""
    told = {
        "domains": arguments.domain,
        "backends": arguments.backend,
        "balancer": arguments.balancer,
    }
    record = {key: value for key, value in told.items() if value is not None}
    if arguments.file is not None:
        record = _record_in(arguments.file) | record
    elif not record:
        raise CommandMistake("say what to set: --domain, --backend, --balancer or --file")
    query = {"wait": "ready"} if arguments.wait else None
    if query and not arguments.json:
        output.progress("waiting until every new backend is ready, 30 seconds at most")
    try:
        if arguments.file is not None:
            status, app = client.ask("PUT", "apps", arguments.name, query=query, body=record)
        else:
            status, app = _patch_or_put(client, arguments.name, record, query)
    except ApiRefusal as refusal:
        if not arguments.json:
            _tell_probes(refusal.document, output)
        raise
    if arguments.json:
        output.document(app)
        return
    _tell_probes(app, output)
    for warning in app.get("warnings", ()):
        output.complain(f"warning: {warning}")
    word = "created" if status == 201 else "changed"
    output.line(f"{app['name']} {word}: {_list(app['domains'])} -> {_list(map(_address, app['backends']))}")


def remove_app(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Take back what the API was told of an app."""
    _status, answer = client.ask("DELETE", "apps", arguments.name)
    if arguments.json:
        output.document(answer)
    else:
        output.line(answer["message"])


def _patch_or_put(
    client: AdminClient, name: str, record: dict[str, Any], query: dict[str, str] | None
) -> tuple[int, Any]:
    try:
        return client.ask("PATCH", "apps", name, query=query, body=record)
    except ApiRefusal as refusal:
        if refusal.status != 404:
            raise
    return client.ask("PUT", "apps", name, query=query, body=record)


def _tell_probes(answer: Mapping[str, Any], output: Output) -> None:
    """A line for each backend that had to be ready first."""
    for probe in answer.get("probes", ()):
        if probe["passed"]:
            found = f"{probe['status'] or 'passed'} in {1000 * probe['probe_seconds']:.0f} ms"
        else:
            tries = "1 try" if probe["tries"] == 1 else f"{probe['tries']} tries"
            found = f"failed: {probe['reason']} ({tries} in {probe['seconds']:.0f} s)"
        output.line(f"checking {probe['url']} ... {found}")


def _record_in(path: str) -> dict[str, Any]:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        record = strict_json(data)
    except OSError as error:
        raise CommandMistake(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise CommandMistake(f"{path} {error}") from None
    if not isinstance(record, dict):
        raise CommandMistake(f"{path}: an app record is a JSON table (object)")
    return record


def _address(backend: Any) -> str:
    return str(backend["address"]) if isinstance(backend, dict) else str(backend)


def _list(items: Any) -> str:
    return ", ".join(items) or "(none)"


def add_app_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``apps`` and ``app …`` to the *commands* of a parser."""
    listing = commands.add_parser("apps", parents=[common], help="list the apps")
    listing.add_argument("--query", "-q", default="", help="only apps with this text in name or domains")
    listing.set_defaults(command=list_apps, needs_proxy=True)

    app = commands.add_parser("app", help="set or remove one app")
    actions = app.add_subparsers(required=True, metavar="ACTION")

    setting = actions.add_parser(
        "set",
        parents=[common],
        help="make an app, or change what is named of it",
        description="Make an app, or change what is named of it; what is not named stays as it is.",
    )
    setting.add_argument("name", metavar="NAME")
    setting.add_argument("--domain", action="append", metavar="DOMAIN", help="may be given again")
    setting.add_argument(
        "--backend",
        action="append",
        metavar="HOST:PORT",
        help="or https://HOST:PORT; may be given again",
    )
    setting.add_argument("--balancer", help="round_robin, least_requests, …")
    setting.add_argument(
        "--file",
        metavar="RECORD.json",
        help='the whole app record ("-": standard input); it replaces what is there',
    )
    setting.add_argument(
        "--wait",
        action="store_true",
        help="change it only once every new backend passes its probe, or after 30 seconds not at all",
    )
    setting.set_defaults(command=set_app, needs_proxy=True)

    removing = actions.add_parser("rm", parents=[common], help="take back what the API was told of an app")
    removing.add_argument("name", metavar="NAME")
    removing.set_defaults(command=remove_app, needs_proxy=True)
