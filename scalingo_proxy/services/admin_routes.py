"""The admin API's table: which method on which path is answered by what.

Holds no operation of its own and knows no twisted.web; paths are matched whole
segment by whole segment, after percent-decoding, so a name with an escaped
slash in it is a name and not a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

import attrs
from twisted.internet.defer import Deferred

from scalingo_proxy.errors import Mistake
from scalingo_proxy.services.admin_answers import Answer, Refusal

__all__ = ["API", "AdminRoute", "AdminRoutes", "Call", "page_of", "parse_query"]

_MAX_PER_PAGE = 1000

#: Where the API of this version lives.
API = "/api/v1"


@attrs.frozen
class Call:
    """One admitted request, as an operation sees it.

    :ivar names: what stood at the ``{…}`` of the route's path.
    :ivar query: the query's parameters.
    :ivar body: the parsed JSON body; ``None`` when there was none.
    :ivar wants_html: a person with a browser asks.
    """

    method: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None
    wants_html: bool = False


Operation: TypeAlias = Callable[[Call], Answer | Deferred[Answer]]


@attrs.frozen
class AdminRoute:
    """One line of the table.

    :ivar path: with ``{name}`` for a segment that is a parameter.
    :ivar query: the query parameters it understands; others are refused.
    :ivar takes_body: a JSON body is required; other routes refuse one.
    :ivar takes_patch: the body may also be called ``application/merge-patch+json``.
    :ivar is_open: answered without the token.
    """

    method: str
    path: str
    operation: Operation
    query: tuple[str, ...] = ()
    takes_body: bool = False
    takes_patch: bool = False
    is_open: bool = False


class AdminRoutes:
    """The routes, found by method and path."""

    def __init__(self, routes: Iterable[AdminRoute]) -> None:
        self.routes = tuple(routes)
        self._by_path: dict[str, dict[str, AdminRoute]] = {}
        for route in self.routes:
            self._by_path.setdefault(route.path, {})[route.method] = route
        self._segments = {path: tuple(path.split("/")) for path in self._by_path}

    def find(self, method: str, raw_path: bytes) -> tuple[AdminRoute, dict[str, str]]:
        """The route, and what its parameters are; HEAD is found as GET.

        :raises Refusal: 404, 405 with ``Allow``, or 400 for a path that is not text.
        """
        given = _decoded(raw_path)
        for path, segments in self._segments.items():
            names = _match(segments, given)
            if names is not None:
                methods = self._by_path[path]
                wanted = "GET" if method == "HEAD" else method
                if wanted not in methods:
                    raise _not_allowed(methods)
                return methods[wanted], names
        sentence = f"there is nothing at this path; {API}/openapi.json tells what there is"
        raise Refusal(404, "not-found", sentence)


def _decoded(raw_path: bytes) -> list[str]:
    try:
        return [unquote_to_bytes(segment).decode("utf-8") for segment in raw_path.split(b"/")]
    except UnicodeDecodeError:
        raise Refusal(400, "bad-request", "the path is not UTF-8") from None


def _match(segments: tuple[str, ...], given: list[str]) -> dict[str, str] | None:
    if len(segments) != len(given):
        return None
    names = {}
    for segment, text in zip(segments, given, strict=True):
        if segment.startswith("{"):
            if not text:
                return None
            names[segment[1:-1]] = text
        elif segment != text:
            return None
    return names


def _not_allowed(methods: Iterable[str]) -> Refusal:
    allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
    told = ", ".join(allowed)
    return Refusal(405, "method-not-allowed", f"this path understands {told}", headers=[("Allow", told)])


def parse_query(raw_query: bytes, understood: Iterable[str]) -> dict[str, str]:
    """The parameters of a query, each known and given once.

    :raises Refusal: 400, with every mistake.
    """
    known = tuple(understood)
    try:
        text = raw_query.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise Refusal(400, "bad-request", "the query cannot be read") from None
    query: dict[str, str] = {}
    mistakes = []
    for key, value in pairs:
        if key not in known:
            expected = f"this path understands {', '.join(known)}" if known else "this path takes none"
            mistakes.append(Mistake(key, f"unknown query parameter; {expected}"))
        elif key in query:
            mistakes.append(Mistake(key, "the query parameter is given twice"))
        query[key] = value
    if mistakes:
        raise Refusal(400, "invalid", "; ".join(map(str, mistakes)), mistakes=mistakes)
    return query


def page_of(call: Call) -> tuple[int, int]:
    """The page that is asked for, and how much stands on it.

    :raises Refusal: 400.
    """
    page = _whole_number(call, "page", 1, 1_000_000_000)
    return page, _whole_number(call, "per_page", 100, _MAX_PER_PAGE)


def _whole_number(call: Call, key: str, default: int, highest: int) -> int:
    text = call.query.get(key, str(default))
    # Ten digits are plenty, and int() of a long text is quadratic.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= highest):
        mistake = Mistake(key, f"must be a whole number from 1 to {highest}")
        raise Refusal(400, "invalid", str(mistake), mistakes=[mistake])
    return int(text)
