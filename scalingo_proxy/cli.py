"""The console script ``scalingo-proxy``: checks a file, drives a running proxy.

Reads the command line, runs one command and turns what went wrong into one
sentence and an exit status: 0 done, 1 refused or mistaken, 2 wrong usage,
3 no proxy at the address, 4 not done in time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from scalingo_proxy.cli_apps import add_app_commands
from scalingo_proxy.cli_certificates import add_certificate_commands
from scalingo_proxy.cli_check import add_check_command
from scalingo_proxy.cli_client import AdminAddress, AdminClient, ApiRefusal, Unreachable
from scalingo_proxy.cli_drain import add_drain_command
from scalingo_proxy.cli_explain import add_explain_command
from scalingo_proxy.cli_output import CommandMistake, NotInTime, Output
from scalingo_proxy.cli_top import add_top_command
from scalingo_proxy.cli_topology import add_topology_commands
from scalingo_proxy.version import VERSION

__all__ = ["main"]

_DONE, _REFUSED, _UNREACHABLE, _NOT_IN_TIME = 0, 1, 3, 4  # 2 is argparse's, for wrong usage
_INTERRUPTED = 130
#: What the admin API answers when a wait is over before what was waited for.
_TIMED_OUT = 504
_DEFAULT_ADMIN = "127.0.0.1:8081"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that *words* (the command line by default) name.

    :return: the exit status.
    """
    given = list(sys.argv[1:] if words is None else words)
    if sys.stdout is None or sys.stderr is None:  # closed, as with ">&-": there is nobody to tell
        sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    output = Output(sys.stdout, sys.stderr)
    try:
        if given[:1] == ["demo"]:
            return _demo(given[1:])
        arguments = _parser().parse_args(given)
        status = _run(arguments, output)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _write_no_more()  # whoever reads has enough, as in "| head"
        return _DONE
    except OSError as error:
        _write_no_more()
        output.complain(f"cannot write the result: {(error.strerror or str(error)).lower()}")
        return _REFUSED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _write_no_more() -> None:
    """The interpreter must not try to write the rest when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: argparse.Namespace, output: Output) -> int:
    try:
        if arguments.needs_proxy:
            arguments.command(arguments, _client(arguments), output)
        else:
            arguments.command(arguments, output)
    except ApiRefusal as refusal:
        _tell_refusal(refusal, arguments, output)
        return _NOT_IN_TIME if refusal.status == _TIMED_OUT else _REFUSED
    except NotInTime as mistake:
        _tell_error("not-in-time", mistake.lines, arguments, output)
        return _NOT_IN_TIME
    except CommandMistake as mistake:
        _tell_error("mistake", mistake.lines, arguments, output)
        return _REFUSED
    except Unreachable as error:
        _tell_error("unreachable", [str(error)], arguments, output)
        return _UNREACHABLE
    return _DONE


def _tell_error(code: str, lines: Sequence[str], arguments: argparse.Namespace, output: Output) -> None:
    """What went wrong here; for programs in the form in which the API tells what it refuses."""
    if arguments.json and lines:
        output.document({"error": {"code": code, "message": "; ".join(lines), "field": None}})
        return
    for line in lines:
        output.complain(line)


def _tell_refusal(refusal: ApiRefusal, arguments: argparse.Namespace, output: Output) -> None:
    if arguments.json:
        output.document(refusal.document)
        return
    for line in refusal.lines():
        output.complain(line)
    if refusal.status == 401:
        output.complain("name the file that holds the token with --token-file")


def _client(arguments: argparse.Namespace) -> AdminClient:
    text = arguments.admin or os.environ.get("SCALINGO_PROXY_ADMIN") or _DEFAULT_ADMIN
    try:
        address = AdminAddress.parse(text)
    except ValueError as error:
        raise CommandMistake(f"--admin (or SCALINGO_PROXY_ADMIN): {error}") from None
    return AdminClient(address, _token(arguments.token_file), arguments.ca)


def _token(path: str) -> str:
    if not path:
        return ""
    from scalingo_proxy.services.admin_guards import token_in  # which brings a server in

    try:
        return token_in(path)
    except ValueError as error:
        raise CommandMistake(f"--token-file: {error}") from None


def _demo(words: Sequence[str]) -> int:
    """Become ``twistd -n --pidfile= scalingo-proxy --demo …``."""
    # Imported here: the other commands have no use for a reactor.
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "-n", "--pidfile=", "scalingo-proxy", "--demo", *words]
    run()  # type: ignore[no-untyped-call]
    return _DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scalingo-proxy",
        description="Checks a configuration, and drives a running proxy through its admin API.",
        epilog="Exit status: 0 done, 1 refused or mistaken, 2 wrong usage, "
        "3 no proxy at the address, 4 not done in time.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    _add_common(parser, admin="", token_file="", ca="", json=False)
    # Each command takes them too, without a default of its own that would
    # overwrite what stood before the command.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    _add_common(common)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(
        "demo", help="run the proxy with two demo backends; options are those of twistd scalingo-proxy"
    )
    add_check_command(commands, common)
    add_app_commands(commands, common)
    add_certificate_commands(commands, common)
    add_drain_command(commands, common)
    add_explain_command(commands, common)
    add_topology_commands(commands, common)
    add_top_command(commands, common)
    return parser


def _add_common(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    group = parser.add_argument_group("talking to the proxy")
    group.add_argument(
        "--admin",
        metavar="ENDPOINT",
        help=f"where the admin API listens: PORT, HOST:PORT, https://HOST:PORT or unix:PATH "
        f"(default: SCALINGO_PROXY_ADMIN, else {_DEFAULT_ADMIN})",
    )
    group.add_argument("--token-file", metavar="FILE", help="holds the token that the admin API asks for")
    group.add_argument(
        "--ca", metavar="FILE", help="whom to trust at an https:// endpoint (default: the system's)"
    )
    group.add_argument("--json", action="store_true", help="tell the result as JSON")
    parser.set_defaults(**defaults)
