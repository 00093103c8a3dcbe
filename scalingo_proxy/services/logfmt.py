"""Finished exchanges as lines of ``key=value`` pairs, which is called logfmt.

:func:`format_logfmt` writes any record.  :class:`LogfmtLines` writes many at once, and those that
are like nearly all of them a shorter way: its lines are the very same.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from scalingo_proxy.model import Record

__all__ = ["LogfmtLines", "format_logfmt", "without_query"]

#: How many pieces of one kind are remembered, and how long one may be: 1.5 MB of hosts, at most.
_MOST_PIECES = 4096
_LONGEST_PIECE = 300

#: What is deleted to see whether anything else is left: printable ASCII but space, quote and backslash.
_PLAIN_OR_EQUALS = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'"\\')


def without_query(target: str) -> str:
    """*target* up to its question mark."""
    return target.partition("?")[0]


def _is_plain(text: str) -> bool:
    """Whether *text* is printable ASCII without what logfmt gives a meaning (faster than an expression)."""
    return (
        text.isascii()
        and text.isprintable()
        and " " not in text
        and "=" not in text
        and '"' not in text
        and "\\" not in text
    )


def _logfmt_value(text: str) -> str:
    return text if _is_plain(text) else _quoted(text)


def format_logfmt(record: Record, query: bool = True) -> str:
    """Write ``key=value`` pairs; a value that is not plain stands in JSON quotes.

    :param query: whether the query of the path is told.
    """
    code = record.code
    method = record.method or "-"
    host = record.host or "-"
    path = (record.path if query else without_query(record.path)) or "-"
    request_id = record.request_id or "-"
    client = record.client or "-"
    app = record.app or "-"
    backend = record.backend or "-"
    protocol = record.protocol or "-"
    tls = record.tls or "-"
    # Nearly every record has nothing to quote but a query: ask once for all the texts together.
    texts = f"{code}{method}{host}{request_id}{client}{app}{backend}{protocol}{tls}"
    has_query = "=" in path
    if not _is_plain(texts if has_query else texts + path):
        code, method, host, request_id, client, app, backend, protocol, tls = map(
            _logfmt_value, (code, method, host, request_id, client, app, backend, protocol, tls)
        )
        path = _logfmt_value(path)
    elif has_query:
        path = _quoted(path)
    # The times are worked out here and not in functions: this runs for every request.
    queue = record.queue_seconds
    connect = record.connect_seconds
    start = record.started_at
    end = record.finished_at
    first = record.first_byte_at
    first_byte = "-" if first is None else "%.1fms" % ((first - start) * 1000)
    # Most answers come whole: both are one moment (0.3 µs less).
    duration = first_byte if end is first else "-" if end is None else "%.1fms" % ((end - start) * 1000)
    return (
        f"at={'info' if code == '-' else 'error'} method={method} host={host} path={path}"
        f" request_id={request_id} from={client} app={app} backend={backend}"
        f" status={record.status} code={code} bytes_in={record.bytes_in or '0'} bytes_out={record.bytes_out}"
        f" queue={'%.1fms' % (queue * 1000) if queue else '0.0ms'}"
        f" connect={'%.1fms' % (connect * 1000) if connect else '0.0ms'}"
        f" first_byte={first_byte} duration={duration} protocol={protocol} tls={tls}"
    )


class _Pieces(dict[Any, str]):
    """Pieces of lines by the value that they tell.

    :param form: the piece, with ``%s`` for the value.
    """

    __slots__ = ("_form",)

    def __init__(self, form: str) -> None:
        self._form = form

    def __missing__(self, value: object) -> str:
        return _remember(self, self._form, value)


def _remember(pieces: dict[Any, str], form: str, value: object) -> str:
    piece = form % _logfmt_value(str(value) or "-")
    if len(pieces) >= _MOST_PIECES:
        pieces.clear()
    if len(piece) <= _LONGEST_PIECE:
        pieces[value] = piece
    return piece


class LogfmtLines:
    """Writes many records at once, a line of :func:`format_logfmt` for each (1.1 µs less a line).

    What there are few values of is quoted once, and remembered with the words around it; the texts that
    each record has its own of are looked at all together.

    :param query: whether the query of the path is told.
    """

    __slots__ = ("_apps", "_backends", "_hosts", "_methods", "_protocols", "_query", "_statuses", "_tls")

    def __init__(self, query: bool = True) -> None:
        self._query = query
        self._methods = _Pieces("at=info method=%s host=")
        self._hosts = _Pieces("%s path=")
        self._apps = _Pieces(" app=%s backend=")
        self._backends = _Pieces("%s status=")
        # Plain dictionaries, which CPython asks faster, for what no client and hardly a backend can make up.
        self._statuses: dict[int, str] = {}
        self._protocols: dict[str, str] = {}
        self._tls: dict[str, str] = {}

    def __call__(self, records: Sequence[Record]) -> list[str]:
        query = self._query
        are_plain: bool | None = None  # not known while nobody has to know
        methods, hosts, apps, backends = self._methods, self._hosts, self._apps, self._backends
        statuses, protocols, tls = self._statuses, self._protocols, self._tls
        lines = []
        for record in records:
            first, end = record.first_byte_at, record.finished_at
            if first is None or end is None or record.code != "-" or record.queue_seconds:
                lines.append(format_logfmt(record, query))
                continue
            if are_plain is None:
                are_plain = _are_plain(records)
            if not are_plain:
                lines.append(format_logfmt(record, query))
                continue
            path = record.path if query else without_query(record.path) or "-"
            if "=" in path:
                path = f'"{path}"'  # there is nothing in it to escape
            start = record.started_at
            first_byte = f"{(first - start) * 1000:.1f}"
            # Most answers come whole: both are one moment.
            duration = first_byte if end is first else f"{(end - start) * 1000:.1f}"
            connect = record.connect_seconds
            connected = f"{connect * 1000:.1f}" if connect else "0.0"
            try:
                line = (
                    f"{methods[record.method]}{hosts[record.host]}{path} request_id={record.request_id}"
                    f" from={record.client}{apps[record.app]}{backends[record.backend]}"
                    f"{statuses[record.status]}{record.bytes_in or '0'} bytes_out={record.bytes_out}"
                    f" queue=0.0ms connect={connected}ms first_byte={first_byte}ms duration={duration}"
                    f"{protocols[record.protocol]}{tls[record.tls]}"
                )
            except KeyError:
                self._meet(record)
                line = format_logfmt(record, query)
            lines.append(line)
        return lines

    def _meet(self, record: Record) -> None:
        """Remember of *record* what hardly ever is new."""
        _remember(self._statuses, "%s code=- bytes_in=", record.status)
        _remember(self._protocols, "ms protocol=%s tls=", record.protocol)
        _remember(self._tls, "%s", record.tls)


def _are_plain(records: Sequence[Record]) -> bool:
    """Whether nothing wants quotes of the texts that each record has its own of, but for the = of a path."""
    paths = [record.path for record in records]
    ids = [record.request_id for record in records]
    clients = [record.client for record in records]
    others = "".join(ids) + "".join(clients)
    texts = "".join(paths) + others
    return (
        texts.isascii()
        and not texts.encode().translate(None, _PLAIN_OR_EQUALS)
        and "=" not in others
        and all(paths)
        and all(ids)
        and all(clients)
    )
