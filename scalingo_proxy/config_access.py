"""The files named by ``access.deny_files``, taken into the settings as the networks in them.

One network a line; ``#`` begins a remark, and empty lines are passed over.
A reload reads all of them again, and a file with a mistake changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalingo_proxy.config_tables import beside, bytes_in
from scalingo_proxy.resolvers.strict_tables import Finding, network, shown

__all__ = ["take_in_access_files"]

#: A file that is larger is no list of networks: about half a million of them.
_MAX_BYTES = 16 << 20
#: Mistakes told of one file; whoever named the wrong one has seen enough then.
_MAX_MISTAKES = 10


def take_in_access_files(given: Mapping[str, Any], folder: str) -> list[Finding]:
    """Put what is in the files beside their names, and tell what is wrong with them.

    :param given: the whole document, as far as it could be read; changed.
    :param folder: where relative names start from.
    """
    access = given.get("access") or {}
    findings: list[Finding] = []
    networks: list[str] = []
    for index, name in enumerate(access.get("deny_files", ())):
        path = ("access", "deny_files", index)
        try:
            lines = _lines(beside(folder, name))
        except ValueError as error:
            findings.append(Finding(path, f"{shown(name)} {error}"))
            continue
        mistakes = []
        for number, line in enumerate(lines, 1):
            written = line.partition("#")[0].strip()
            if not written:
                continue
            try:
                networks.append(network(written))
            except ValueError as error:
                mistakes.append(Finding(path, f"{shown(name)} line {number}: {error}"))
        findings += mistakes[:_MAX_MISTAKES]
        if len(mistakes) > _MAX_MISTAKES:
            findings.append(Finding(path, f"{shown(name)}: {len(mistakes) - _MAX_MISTAKES} further mistakes"))
    if networks:
        access["deny_in_files"] = tuple(networks)
    return findings


def _lines(path: str) -> list[str]:
    """The lines of a file.

    :raises ValueError: with a sentence that lacks its subject.
    """
    data = bytes_in(path, _MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"is larger than {_MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
