"""The command ``explain``: what became of one request, for a person."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from scalingo_proxy.cli_client import AdminClient
from scalingo_proxy.cli_output import Output

__all__ = ["add_explain_command"]


def explain(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Tell all there is to tell of a request id."""
    _status, told = client.ask("GET", "requests", arguments.id)
    if arguments.json:
        output.document(told)
        return
    for number, each in enumerate([told, *told["earlier"]]):
        if number:
            output.line("")
            output.line("The same id was used before:")
        for line in _story(each):
            output.line(line)


def _story(told: dict[str, Any]) -> Iterator[str]:
    yield f"request   {told['request_id']}"
    yield f"          {_asked(told)}"
    yield f"          {told['at']} from {told['from']}, {told['protocol']}{_tls(told)}"
    yield f"route     {_route(told)}"
    yield from _listed("backends", map(_backend, told["backends"]))
    yield from _listed("waits", map(_wait, told["waits"]))
    yield from _listed("attempts", [_attempt(*each) for each in enumerate(told["attempts"], 1)])
    yield from _listed("no retry", told["denied"])
    yield f"end       {_end(told)}"
    yield f"          {_figures(told)}"


def _listed(head: str, lines: Any) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{'' if number else head:10}{line}"


def _asked(told: dict[str, Any]) -> str:
    if told["method"] != "-":
        return f"{told['method']} {told['path']} for host {told['host']}"
    if told["host"] != "-":
        return f"TLS for {told['host']}"
    return "not a request that could be read"


def _tls(told: dict[str, Any]) -> str:
    return "" if told["tls"] == "-" else f", TLS {told['tls'].removeprefix('TLSv').removeprefix('v')}"


def _route(told: dict[str, Any]) -> str:
    route = told["route"]
    if route is None:
        return "none" if told["code"] != "-" else "none yet"
    return f"app {route['app']}, by its domain {route['domain']}, said resolver {route['resolver']!r}"


def _backend(each: dict[str, Any]) -> str:
    since = f" (since {each['since']})" if each["since"] else ""
    return f"{each['address']}  {each['verdict'].replace('-', ' ')}: {each['reason']}{since}"


def _wait(each: dict[str, Any]) -> str:
    return f"{each['ms']} ms, beginning after {each['after_ms']} ms: {each['reason']}"


def _attempt(number: int, each: dict[str, Any]) -> str:
    if each["connection"] == "kept":
        connection = "over a connection that was kept"
    else:
        connection = f"connecting took {each['connect_ms']} ms"
    first_byte = "" if each["first_byte_ms"] is None else f", first byte after {each['first_byte_ms']} ms"
    sent = f"{each['sent_bytes']} bytes sent" if each["sent_bytes"] else "nothing sent"
    return f"{number}. {each['backend']}  {connection}, {sent}{first_byte}: {each['end']}"


def _end(told: dict[str, Any]) -> str:
    if told["state"] != "finished":
        return f"not yet; it is {told['state']}"
    status = f"status {told['status']}" if told["status"] else "no status"
    code = "" if told["code"] == "-" else f" {told['code']}"
    return f"{status}{code}: {told['cause']}"


def _figures(told: dict[str, Any]) -> str:
    first_byte = "" if told["first_byte_ms"] is None else f"first byte after {told['first_byte_ms']} ms, "
    sizes = f"{told['bytes_in']} bytes of body came in, {told['bytes_out']} went out"
    return f"{first_byte}{told['duration_ms']} ms in all; {sizes}"


def add_explain_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``explain`` to the *commands* of a parser."""
    explaining = commands.add_parser(
        "explain",
        parents=[common],
        help="tell what became of one request, and why",
        description="Tell what became of one of the last requests, or of one that is under way.",
    )
    explaining.add_argument("id", metavar="REQUEST_ID", help="as in X-Request-ID and in the request log")
    explaining.set_defaults(command=explain, needs_proxy=True)
