"""The files that apps of a configuration file have as pages of their own.

They are looked at when the configuration is, so that a wrong name is a mistake
at its line.  What is in them is read when the proxy runs, and again at each
reload.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from scalingo_proxy.config_tables import beside
from scalingo_proxy.resolvers.strict_tables import Finding, shown
from scalingo_proxy.routing.own_pages import is_url
from scalingo_proxy.services.page_fetch import MAX_PAGE_BYTES

__all__ = ["take_in_error_pages"]


def take_in_error_pages(given: Mapping[str, Any], folder: str) -> list[Finding]:
    """Make whole paths of the names of files, and tell what is wrong with them.

    :param given: the whole document, as far as it could be read; changed.
    :param folder: where relative names start from.
    """
    findings = []
    for index, app in enumerate(given.get("app", ())):
        pages = app.get("error_pages") or {}
        for kind, name in pages.items():
            if not name or is_url(name):
                continue
            pages[kind] = path = os.path.abspath(beside(folder, name))
            problem = _problem_with(path)
            if problem:
                findings.append(Finding(("app", index, "error_pages", kind), f"{shown(name)} {problem}"))
    return findings


def _problem_with(path: str) -> str:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return f"has more than {MAX_PAGE_BYTES >> 20} MB" if size > MAX_PAGE_BYTES else ""
