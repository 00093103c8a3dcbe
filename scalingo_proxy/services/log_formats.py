"""Finished exchanges as lines of the request log.

Pure text: :class:`~scalingo_proxy.model.Record` s go in, a line of printable
ASCII without its line end comes out for each.  Where lines go is not known here.

Every text of a record may come from a client.  Whatever is not plain is
escaped (CR, LF, ESC, NUL, quotes, backslash, DEL and all that is not ASCII),
so that no request can begin a line, end a field or speak to a terminal.

In logfmt and JSON, times are milliseconds with one decimal: ``queue`` is the
wait for a backend, ``connect`` the time to connect to backends (0 where a
kept-alive connection was used); ``first_byte`` and ``duration`` run from the
beginning of the request, to the first byte of a backend's response and to the
end of it all.  A text that is not known is ``-``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as _quoted

from scalingo_proxy.model import Record
from scalingo_proxy.services.logfmt import LogfmtLines, without_query

__all__ = ["FORMATS", "CombinedFormat", "Formatter", "format_json", "formatter"]

#: What formats records, each as one line.
Formatter = Callable[[Sequence[Record]], list[str]]


def _milliseconds_between(start: float, end: float | None) -> float | None:
    return None if end is None else (end - start) * 1000


def format_json(record: Record, query: bool = True) -> str:
    """Write one JSON object with the keys of logfmt; times are numbers, ``null`` where there was none."""
    path = record.path if query else without_query(record.path)
    first_byte = _milliseconds_between(record.started_at, record.first_byte_at)
    duration = _milliseconds_between(record.started_at, record.finished_at)
    return (
        f'{{"at":"{"info" if record.code == "-" else "error"}"'
        f',"method":{_quoted(record.method or "-")}'
        f',"host":{_quoted(record.host or "-")}'
        f',"path":{_quoted(path or "-")}'
        f',"request_id":{_quoted(record.request_id or "-")}'
        f',"from":{_quoted(record.client or "-")}'
        f',"app":{_quoted(record.app or "-")}'
        f',"backend":{_quoted(record.backend or "-")}'
        f',"status":{record.status}'
        f',"code":{_quoted(record.code)}'
        f',"bytes_in":{record.bytes_in},"bytes_out":{record.bytes_out}'
        f',"queue":{record.queue_seconds * 1000:.1f},"connect":{record.connect_seconds * 1000:.1f}'
        f',"first_byte":{"null" if first_byte is None else f"{first_byte:.1f}"}'
        f',"duration":{"null" if duration is None else f"{duration:.1f}"}'
        f',"protocol":{_quoted(record.protocol or "-")}'
        f',"tls":{_quoted(record.tls or "-")}}}'
    )


# -- combined ----------------------------------------------------------------

# Not strftime's %b: the format wants English whatever the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_not_quotable = re.compile(r"[^ !#-\[\]-~]")
_not_bare = re.compile(r"[^!#-\[\]-~]")


def _escape(match: re.Match[str]) -> str:
    r"""As Apache does: a backslash before quote and backslash, ``\xHH`` for every other byte."""
    character = match.group()
    if character in '"\\':
        return "\\" + character
    if character < "\u0100":
        return f"\\x{ord(character):02x}"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def _in_quotes(text: str) -> str:
    return f'"{_not_quotable.sub(_escape, text)}"' if text else '"-"'


class CombinedFormat:
    """The NCSA combined format, as Apache and nginx write it; times are UTC.

    The time is when the request began.  Without *query*, the query of the
    referer is left out too: it is a path of the same kind.
    """

    __slots__ = ("_query", "_second", "_stamp")

    def __init__(self, query: bool = True) -> None:
        self._query = query
        self._second = -1
        self._stamp = ""

    def __call__(self, records: Sequence[Record]) -> list[str]:
        return [self.line(record) for record in records]

    def line(self, record: Record) -> str:
        """The line of one record."""
        second = int(record.wall_time)
        if second != self._second:
            self._stamp = self._format_second(second)
            self._second = second
        path, referer = record.path, record.referer
        if not self._query:
            path, referer = without_query(path), without_query(referer)
        known = record.method != "-"
        # As Apache and nginx call it, and as their readers expect it.
        protocol = "HTTP/2.0" if record.protocol == "h2" else record.protocol.upper()
        request = f"{record.method} {path} {protocol}" if known else "-"
        return (
            f"{_not_bare.sub(_escape, record.client) or '-'} - - [{self._stamp}] {_in_quotes(request)}"
            f" {record.status or '-'} {record.bytes_out or '-'}"
            f" {_in_quotes(referer)} {_in_quotes(record.user_agent)}"
        )

    @staticmethod
    def _format_second(second: int) -> str:
        at = time.gmtime(second)
        return (
            f"{at.tm_mday:02d}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year:04d}"
            f":{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} +0000"
        )


# -- by name -----------------------------------------------------------------


def _json(query: bool) -> Formatter:
    return lambda records: [format_json(record, query) for record in records]


#: What ``log.requests`` may name, besides ``off``.
FORMATS: dict[str, Callable[[bool], Formatter]] = {
    "logfmt": LogfmtLines,
    "json": _json,
    "combined": CombinedFormat,
}


def formatter(name: str, query: bool = True) -> Formatter:
    """The formatter called *name* (one of :data:`FORMATS`).

    :raises KeyError: when there is none of that name.
    """
    return FORMATS[name](query)
