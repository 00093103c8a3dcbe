"""Settings that are part of the contract, but that nothing puts into effect yet.

A setting that is accepted and then does nothing is worse than one that is
refused, so each of them stands here with the sentence its user gets.  The
configuration file and the admin API both ask.  Whoever puts a setting into
effect deletes its line, and nothing else has to change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scalingo_proxy.model import App
from scalingo_proxy.resolvers.app_record import record_from_app
from scalingo_proxy.resolvers.strict_tables import Finding, Path, path_text, shown

__all__ = ["REFUSED", "WARNED", "reserved_settings", "reserved_warnings"]

#: Any value but the one that switches the setting off (false, empty or 0).
ANY = object()

#: Refused, because to go on without them would be unsafe or plainly wrong.
REFUSED: Mapping[tuple[str, Any], str] = {}

#: Accepted with a warning: the proxy is safe without them.
WARNED: Mapping[tuple[str, Any], str] = {
    # Not a gap: these act on a connection whose app is not known yet, or serves several in turn.
    ("app.timeouts.request_head", ANY): "acts before the app is known, so only the one in [timeouts] counts",
    (
        "app.timeouts.keep_alive",
        ANY,
    ): "acts between requests to any app, so only the one in [timeouts] counts",
    (
        "app.limits.request_line_bytes",
        ANY,
    ): "acts before the app is known, so only the one in [limits] counts",
    ("app.limits.head_bytes", ANY): "acts before the app is known, so only the one in [limits] counts",
    ("app.limits.header_bytes", ANY): "acts before the app is known, so only the one in [limits] counts",
    (
        "app.limits.client_connections",
        ANY,
    ): "connections belong to no app, so only the one in [limits] counts",
    (
        "app.limits.connections_per_address",
        ANY,
    ): "connections belong to no app, so only the one in [limits] counts",
    (
        "app.limits.handshakes_per_address",
        ANY,
    ): "an address has handshakes with many apps, so only the one in [limits] counts",
    ("app.limits.handshake_queue", ANY): "all apps share one queue, so only the one in [limits] counts",
}


def reserved_settings(document: Mapping[str, Any]) -> tuple[list[Finding], list[Finding]]:
    """What a configuration document says that is refused, and what is warned of.

    :param document: tables as TOML gives them; what is of the wrong type is
        somebody else's finding and passed over.  A lone app record is
        ``{"app": record}``.
    """
    refused: list[Finding] = []
    warned: list[Finding] = []
    for path, value in _values((), document):
        pattern = ".".join(step for step in path if isinstance(step, str))
        for table, found in ((REFUSED, refused), (WARNED, warned)):
            sentence = _sentence(table, pattern, value)
            if sentence:
                found.append(Finding(path, sentence))
    return refused, warned


def reserved_warnings(app: App) -> tuple[str, ...]:
    """One sentence for each setting of *app* that has no effect."""
    _refused, warned = reserved_settings({"app": record_from_app(app)})
    return tuple(
        f"app {shown(app.name)}: {path_text(finding.path[1:])}: {finding.message}" for finding in warned
    )


def _values(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Every value in the document, tables and the items of lists included."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _values((*path, key), item)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        for index, item in enumerate(value):
            yield from _values((*path, index), item)


def _sentence(table: Mapping[tuple[str, Any], str], pattern: str, value: Any) -> str:
    if (pattern, ANY) in table:
        return table[pattern, ANY] if value else ""
    if isinstance(value, str):
        return table.get((pattern, value), "")
    return ""
