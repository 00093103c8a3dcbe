"""The files named by ``backend_tls.ca``, taken into the settings as the text that is in them.

So an app carries what it trusts wherever it goes, nothing is read while
requests are served, and a reload reads all of it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scalingo_proxy.config_tables import beside, bytes_in
from scalingo_proxy.resolvers.strict_tables import Finding, shown
from scalingo_proxy.wire.authorities import MAX_AUTHORITIES_BYTES, is_pem, read_authorities

__all__ = ["take_in_authorities"]


def take_in_authorities(given: Mapping[str, Any], folder: str) -> list[Finding]:
    """Put the text of each file in the place of its name, and tell what is wrong with them.

    :param given: the whole document, as far as it could be read; changed.
    :param folder: where relative names start from.
    """
    texts = _Texts(folder)
    findings = []
    for index, table in _tables(given):
        name = table["ca"]
        try:
            table["ca"] = texts[name]
        except ValueError as error:
            findings.append(Finding(("app", index, "backend_tls", "ca"), f"{shown(name)} {error}"))
    return findings


def _tables(given: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, app in enumerate(given.get("app", ())):
        table = app.get("backend_tls") or {}
        if "ca" in table and not is_pem(table["ca"]):
            yield index, table


class _Texts:
    """What is in each file; apps that name the same file share one text."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._read: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._read:
            self._read[name] = _text_in(beside(self._folder, name))
        return self._read[name]


def _text_in(path: str) -> str:
    """The certificates in a file.

    :raises ValueError: with a sentence that lacks its subject.
    """
    data = bytes_in(path, MAX_AUTHORITIES_BYTES + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not PEM text (convert DER with openssl x509 -inform der)") from None
    read_authorities(text)
    return text
