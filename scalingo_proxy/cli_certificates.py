"""The commands about certificates: list, set, remove.

A key is read from its file and sent to the admin API; nothing of it is told.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scalingo_proxy.cli_client import AdminClient
from scalingo_proxy.cli_output import CommandMistake, Output

__all__ = ["add_certificate_commands"]


def list_certificates(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Tell every certificate, or those that the query finds, those that expire first on top."""
    found = sorted(client.listed("certificates", arguments.query), key=lambda each: each["not_after"])
    if arguments.json:
        output.document({"certificates": found, "total": len(found)})
        return
    rows = [
        [
            each["name"],
            each["not_after"].partition("T")[0],
            str(each["days_left"]),
            each["source"],
            ",".join(each["domains"]),
        ]
        for each in found
    ]
    output.table(["NAME", "EXPIRES", "DAYS", "SOURCE", "DOMAINS"], rows)


def set_certificate(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Serve the certificate in two files from now on."""
    body = {"certificate": _text_in(arguments.cert), "key": _text_in(arguments.key)}
    status, told = client.ask("PUT", "certificates", arguments.name, body=body)
    if arguments.json:
        output.document(told)
        return
    word = "created" if status == 201 else "exchanged"
    domains = ", ".join(told["domains"])
    output.line(f"{told['name']} {word}: {domains}, {told['days_left']} days left")


def remove_certificate(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Forget a certificate that the API was told."""
    _status, answer = client.ask("DELETE", "certificates", arguments.name)
    if arguments.json:
        output.document(answer)
    else:
        output.line(answer["message"])


def _text_in(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise CommandMistake(f"{path}: {error.strerror}") from None


def add_certificate_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``certificates`` and ``certificate …`` to the *commands* of a parser."""
    listing = commands.add_parser("certificates", parents=[common], help="list the certificates")
    listing.add_argument("--query", "-q", default="", help="only those with this text in name or domains")
    listing.set_defaults(command=list_certificates, needs_proxy=True)

    certificate = commands.add_parser("certificate", help="set or remove one certificate")
    actions = certificate.add_subparsers(required=True, metavar="ACTION")

    setting = actions.add_parser("set", parents=[common], help="serve a certificate, or exchange it")
    setting.add_argument("name", metavar="NAME")
    setting.add_argument(
        "--cert", required=True, metavar="FILE", help="PEM: the chain, the server's own first"
    )
    setting.add_argument("--key", required=True, metavar="FILE", help="PEM: its private key, not encrypted")
    setting.set_defaults(command=set_certificate, needs_proxy=True)

    removing = actions.add_parser("rm", parents=[common], help="forget a certificate that the API was told")
    removing.add_argument("name", metavar="NAME")
    removing.set_defaults(command=remove_certificate, needs_proxy=True)
