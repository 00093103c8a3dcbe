"""The parts that the pages of the status page are made of, with Twisted's own template.

Every text goes through the template, which escapes it; nothing here writes
markup as a string.  Values that may change stand in places that carry their
key, where the script of the page finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest
from twisted.web.template import Element, Tag, tags

from scalingo_proxy.services.live_values import LiveValues
from scalingo_proxy.services.recent_errors import RecentError
from scalingo_proxy.services.status_texts import HEIGHT, WIDTH
from scalingo_proxy.services.status_values import error_keys

__all__ = [
    "InTurns",
    "app_link",
    "badge",
    "document",
    "errors_table",
    "in_turns",
    "live",
    "region",
    "request_link",
    "sparkline",
    "table",
]

_SITE = "scalingo_proxy"


class InTurns(Element):
    """Rows that are rendered some at a time, the reactor's turn between: a long table takes a while."""

    def __init__(
        self, reactor: IReactorTime, rows: Sequence[Any], build: Callable[[Any], Tag], at_once: int = 3
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._rows = rows
        self._build = build
        self._at_once = at_once

    def render(self, request: IRequest | None) -> Any:
        first, rest = self._rows[: self._at_once], self._rows[self._at_once :]
        made = [self._build(row) for row in first]
        if rest:
            later = InTurns(self._reactor, rest, self._build, self._at_once)
            return [made, _Later(self._reactor, later)]
        return made


class _Later(Element):
    """Something that is rendered in another turn."""

    def __init__(self, reactor: IReactorTime, what: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._what = what

    def render(self, request: IRequest | None) -> Any:
        return deferLater(self._reactor, 0, lambda: self._what)


def in_turns(reactor: IReactorTime, parts: Iterable[Any]) -> list[Any]:
    """The parts of a page, each rendered in a turn of its own."""
    return [_Later(reactor, part) for part in parts]


def document(
    title: str,
    main: Iterable[Any],
    *,
    facts: Mapping[str, Any],
    events: str = "",
    navigation: Iterable[Any] = (),
) -> Tag:
    """A whole page around its *main* part.

    :param facts: what runs here.
    :param events: where the page's changes are streamed; without it, it has none.
    :param navigation: what stands in the head beside the name.
    """
    instance = " · ".join(str(facts[key]) for key in ("name", "region") if facts.get(key))
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.title(f"{title} · {_SITE}"),
            tags.link(rel="icon", href="/status.svg", type="image/svg+xml"),
            tags.link(rel="stylesheet", href="/status.css"),
            tags.script("", src="/status.js", defer="defer"),
        ),
        tags.body(
            tags.a("Skip to the content", href="#content", class_="skip"),
            tags.header(
                tags.a(
                    tags.img(src="/status.svg", alt="", width="28", height="28"),
                    _SITE,
                    href="/",
                    class_="brand",
                ),
                tags.span(instance, class_="instance") if instance else "",
                tags.nav(
                    tags.a("Metrics", href="/metrics"),
                    tags.a("API", href="/api/v1/openapi.json"),
                    *navigation,
                    **{"aria-label": "Site"},
                ),
                tags.span(
                    "as it was when loaded",
                    id="stream",
                    class_="stream",
                    role="status",
                    **{"data-state": "off"},
                )
                if events
                else "",
            ),
            Tag("main")(*main, id="content"),
            tags.footer(f"{_SITE} {facts.get('version', '')}"),
            **({"data-events": events} if events else {}),
        ),
        lang="en",
    )


def region(name: str, title: str, values: LiveValues, *content: Any, level: str = "h2", **more: Any) -> Tag:
    """A part of a page under its heading, which is exchanged as a whole when its shape changes."""
    return tags.section(
        Tag(level)(title, id=f"{name}-title"),
        *content,
        id=name,
        **{
            "aria-labelledby": f"{name}-title",
            "data-region": name,
            "data-shape": values.shapes.get(name, ""),
            **more,
        },
    )


def live(tag: Tag, values: LiveValues, key: str) -> Tag:
    """*tag* with the text of a place, which the script keeps up to date."""
    attributes = {"data-live": key}
    if key in values.states:
        attributes["data-state"] = values.states[key]
    return tag(values.texts[key], **attributes)


def badge(values: LiveValues, key: str) -> Tag:
    """A state as one word."""
    return live(tags.span(class_="badge"), values, key)


def table(caption: str, heads: Iterable[tuple[str, str, str]], body: Any, *, hidden: bool = True) -> Tag:
    """A table that scrolls by itself where it is too wide.

    :param heads: of each column its text, what it means, and its class.
    :param hidden: whether the caption is for those who do not see the heading above.
    """
    columns = (
        tags.th(text, scope="col", **({"class": kind} if kind else {}), **({"title": what} if what else {}))
        for text, what, kind in heads
    )
    return tags.div(
        tags.table(
            tags.caption(caption, **({"class": "unseen"} if hidden else {})),
            tags.thead(tags.tr(*columns)),
            tags.tbody(body),
        ),
        class_="scroll",
        tabindex="0",
        role="group",
        **{"aria-label": f"{caption}, scrollable"},
    )


def sparkline(values: LiveValues, what: str, *names: str) -> Tag:
    """The last two minutes as one line or several, without axes; the numbers stand beside it."""
    lines = (
        Tag("polyline")(
            points=values.points[f"total:{name}"],
            class_=f"line-{name}",
            **{"data-points": f"total:{name}", "vector-effect": "non-scaling-stroke"},
        )
        for name in names
    )
    return Tag("svg")(
        *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        class_="sparkline",
        **{"aria-label": f"{what}, over the last two minutes"},
    )


def app_link(name: str) -> Tag:
    """A link to the page of an app."""
    return tags.a(name, href=f"/apps/{quote(name, safe='')}")


def request_link(request_id: str, key: str) -> Any:
    """A link to what became of a request."""
    href = f"/requests/{quote(request_id, safe='')}"
    return tags.a(request_id, href=href, **{"data-live": key, "data-link": key})


def errors_table(
    reactor: IReactorTime, values: LiveValues, errors: Sequence[RecentError], caption: str, with_app: bool
) -> Tag:
    """The last errors, newest first; each leads to what became of that request."""
    if not errors:
        return tags.p("None so far.", class_="empty")
    heads = [
        ("time (UTC)", "", ""),
        ("request", "", ""),
        ("answer", "the status that the client got", "number"),
        ("code", "the reason code of the proxy's own error", ""),
        *([("app", "", "")] if with_app else []),
        ("backend", "", ""),
        ("id", "leads to what became of the request", ""),
    ]

    def row(number: int) -> Tag:
        keys = error_keys(number)
        cells = [
            live(tags.td(class_="time"), values, keys["time"]),
            live(tags.td(class_="long"), values, keys["what"]),
            live(tags.td(class_="number"), values, keys["answer"]),
            live(tags.td(class_="code"), values, keys["code"]),
        ]
        if with_app:
            cells.append(live(tags.td, values, keys["app"]))
        cells.append(live(tags.td(class_="code"), values, keys["backend"]))
        cells.append(tags.td(request_link(values.texts[keys["request"]], keys["request"]), class_="id"))
        return tags.tr(*cells)

    return table(caption, heads, InTurns(reactor, range(len(errors)), row))
