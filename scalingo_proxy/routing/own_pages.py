"""Which page of an app's own tells of which error.

An app may have a page for being stopped or in maintenance, for having no
backend, and for all errors with the status 502 and 504.  Where pages come from
and how they are sent is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping

from scalingo_proxy.errors import AppStopped, Maintenance, NoBackend, ProxyError
from scalingo_proxy.model import App

__all__ = ["is_url", "page_source", "page_sources"]

_BY_CODE: Mapping[str, str] = {
    AppStopped.code: "stopped",
    Maintenance.code: "stopped",
    NoBackend.code: "no_backend",
}
_BY_STATUS: Mapping[int, str] = {502: "error", 504: "timeout"}


def page_source(app: App, error: ProxyError) -> str:
    """Where the page of *app* for *error* comes from: a file or a URL; ``""``: it has none."""
    kind = _BY_CODE.get(error.code) or _BY_STATUS.get(error.status, "")
    source: str = app.error_pages.get(kind, "")
    return source


def page_sources(app: App) -> frozenset[str]:
    """Where all pages of *app* come from."""
    return frozenset(source for source in app.error_pages.values() if source)


def is_url(source: str) -> bool:
    """Whether a page comes from a URL, not from a file."""
    return source.startswith(("http://", "https://"))
