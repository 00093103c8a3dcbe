"""How backends are probed, as a record tells it: the table ``health`` of the proxy and of an app."""

from __future__ import annotations

import re
from typing import Any

from scalingo_proxy.resolvers.strict_tables import (
    A_YEAR,
    TableReader,
    double_quoted,
    number,
    one_of,
    shown,
    text,
    whole_number,
)
from scalingo_proxy.wire.status_ranges import parse_status_ranges

__all__ = ["HEALTH"]

_PROBE_PATH = re.compile(r"(/[!-~]*)?")
_PROBE_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?|")


def _probe_path(value: Any) -> str:
    written = text(value)
    if not _PROBE_PATH.fullmatch(written):
        raise ValueError(f'must be "" or a path that begins with "/", not {shown(written)}')
    return written


def _probe_host(value: Any) -> str:
    written = text(value)
    if not _PROBE_HOST.fullmatch(written):
        raise ValueError(f"must be a host name, perhaps with a port, not {shown(written)}")
    return written


def _probe_status(value: Any) -> str:
    written = text(value)
    try:
        parse_status_ranges(written)
    except ValueError as error:
        raise ValueError(double_quoted(error, written)) from None
    return written


#: The keys of ``[health]``.
HEALTH = TableReader(
    {
        "path": _probe_path,
        "host": _probe_host,
        "status": _probe_status,
        "kind": one_of(("", "tcp", "http", "tls")),
        "interval": number(A_YEAR, or_zero=True),
        "timeout": number(A_YEAR),
        "rise": whole_number(1, 1000),
        "fall": whole_number(1, 1000),
        "slow_start": number(A_YEAR, or_zero=True),
    }
)
