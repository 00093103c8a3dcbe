"""The command ``check``: reads a configuration as the proxy would, and starts nothing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from scalingo_proxy.cli_output import CommandMistake, Output
from scalingo_proxy.errors import ConfigurationError

if TYPE_CHECKING:
    from scalingo_proxy.config import Settings

__all__ = ["add_check_command"]


def check_file(arguments: argparse.Namespace, output: Output) -> None:
    """Tell every mistake of a file, or that there is none."""
    # Most of a command's start would be importing this, and no other command needs it.
    from scalingo_proxy.config import load

    try:
        settings = load(arguments.file).with_options()
    except ConfigurationError as error:
        # To standard output, as linters do: the mistakes are what was asked for.
        lines = [str(mistake) for mistake in error.mistakes]
        if arguments.json:
            output.document({"ok": False, "mistakes": lines, "warnings": []})
        else:
            for line in [*lines, _count(len(lines), "error")]:
                output.line(line)
        raise CommandMistake from None
    if arguments.json:
        output.document({"ok": True, "mistakes": [], "warnings": list(settings.warnings)})
        return
    for warning in settings.warnings:
        output.complain(f"warning: {warning}")
    output.line(f"{arguments.file}: ok, {_summary(settings)}")


def _summary(settings: Settings) -> str:
    return ", ".join(
        (
            _count(len(settings.listens), "listener"),
            _count(len(settings.apps), "app"),
            _count(sum(len(app.domains) for app in settings.apps), "domain"),
            _count(sum(len(app.backends) for app in settings.apps), "backend"),
        )
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def add_check_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``check`` to the *commands* of a parser."""
    checking = commands.add_parser(
        "check", parents=[common], help="check a configuration file and tell every mistake"
    )
    checking.add_argument("file", metavar="FILE")
    checking.set_defaults(command=check_file, needs_proxy=False)
