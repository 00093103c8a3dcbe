"""The first page: totals, alarms, the apps, the last errors, the sources of routes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from scalingo_proxy.services.live_values import LiveValues
from scalingo_proxy.services.status_elements import (
    InTurns,
    app_link,
    badge,
    errors_table,
    live,
    region,
    sparkline,
    table,
)
from scalingo_proxy.services.status_texts import count
from scalingo_proxy.services.status_values import APP_COLUMNS
from scalingo_proxy.services.status_view import AppRow, Overview

__all__ = ["alarms", "overview_main", "overview_query"]

_SORT_WORDS = {"name": "by name", "rate": "busiest first"}


def overview_main(reactor: IReactorTime, view: Overview, values: LiveValues) -> list[Any]:
    """What stands between head and foot."""
    return [
        tags.h1("Overview", class_="unseen"),
        alarms(view, values),
        _totals(values),
        _apps(reactor, view, values),
        region(
            "errors",
            "Last errors",
            values,
            errors_table(reactor, values, view.errors, "The last 20 errors", with_app=True),
        ),
        _sources(view, values),
    ]


def overview_query(view: Overview, page: int, sort: str = "") -> str:
    """The query that leads to another page of the same search."""
    wanted = {"q": view.query, "sort": sort or view.sort, "page": str(page)}
    defaults = {"q": "", "sort": "name", "page": "1"}
    return urlencode({key: value for key, value in wanted.items() if value != defaults[key]})


def alarms(view: Overview, values: LiveValues) -> Tag:
    """What to look at now; read out when it changes."""
    if view.alarms:
        content = tags.ul(
            *(
                tags.li(alarm.text, **{"data-state": "bad" if alarm.is_urgent else "warn"})
                for alarm in view.alarms
            )
        )
    else:
        content = tags.p("Nothing to look at.", class_="quiet")
    return region("alarms", "Alarms", values, content, **{"aria-live": "polite"})


def _totals(values: LiveValues) -> Tag:
    latency = tags.p(
        *(
            tags.span(tags.small(name, class_=f"key-{name}"), live(tags.b, values, f"total:{name}"))
            for name in ("p50", "p95", "p99")
        ),
        class_="figures",
    )
    return region(
        "totals",
        "All apps",
        values,
        tags.div(
            _tile("Requests per second", values, "requests"),
            _tile("5xx per second", values, "errors"),
            tags.article(
                tags.h3("Latency"),
                latency,
                sparkline(values, "latency: p50, p95 and p99", "p99", "p95", "p50"),
                live(tags.p(class_="peak"), values, "peak:latency"),
            ),
            _tile("Open connections", values, "connections"),
            class_="tiles",
        ),
        tags.dl(
            *(
                tags.div(tags.dt(name), live(tags.dd, values, f"total:{key}"))
                for key, name in (
                    ("in_flight", "in flight"),
                    ("queued", "waiting"),
                    ("tunnels", "tunnels"),
                    ("apps", "apps"),
                )
            ),
            class_="facts",
        ),
    )


def _tile(title: str, values: LiveValues, name: str) -> Tag:
    return tags.article(
        tags.h3(title),
        tags.p(live(tags.b, values, f"total:{name}"), class_="figures"),
        sparkline(values, title, name),
        live(tags.p(class_="peak"), values, f"peak:{name}"),
    )


def _apps(reactor: IReactorTime, view: Overview, values: LiveValues) -> Tag:
    heads = [("app", "", ""), ("state", "", "")]
    heads += [(head, what, "number") for _key, head, what in APP_COLUMNS]
    body: Any = InTurns(reactor, view.rows, lambda row: _app_row(row, values))
    if not view.rows:
        sentence = "No app has this in its name or in a domain." if view.query else "There are no apps yet."
        body = tags.tr(tags.td(sentence, colspan=str(len(heads)), class_="empty"))
    return region(
        "apps",
        "Apps",
        values,
        _search(view),
        table("Apps and their last minute", heads, body),
        _pager(view),
    )


def _search(view: Overview) -> Tag:
    sorts = (
        tags.a(
            words,
            href=f"/?{overview_query(view, 1, sort)}#apps",
            **({"aria-current": "true"} if sort == view.sort else {}),
        )
        for sort, words in _SORT_WORDS.items()
    )
    return tags.div(
        tags.form(
            tags.label("Search apps and domains", for_="q", class_="unseen"),
            tags.input(
                type="search",
                id="q",
                name="q",
                value=view.query,
                placeholder="Search apps and domains",
                autocomplete="off",
                maxlength="200",
            ),
            tags.input(type="hidden", name="sort", value=view.sort) if view.sort != "name" else "",
            tags.button("Search", type="submit"),
            role="search",
            action="/#apps",
            method="get",
        ),
        tags.p("Order: ", *sorts, class_="sorts"),
        class_="tools",
    )


def _app_row(row: AppRow, values: LiveValues) -> Tag:
    name = row.app.name
    domains = row.app.domains
    shown = domains[0] if domains else "no domain"
    more = f" and {len(domains) - 1} more" if len(domains) > 1 else ""
    return tags.tr(
        tags.th(app_link(name), tags.small(shown + more), scope="row"),
        tags.td(badge(values, f"app:{name}:state")),
        *(live(tags.td(class_="number"), values, f"app:{name}:{key}") for key, _head, _what in APP_COLUMNS),
    )


def _pager(view: Overview) -> Tag:
    pages = max(-(-view.total // view.per_page), 1)
    first = (view.page - 1) * view.per_page
    if view.rows:
        place = f"{count(first + 1)}–{count(first + len(view.rows))} of {count(view.total)}"
    else:
        place = f"0 of {count(view.total)}"

    def step(words: str, page: int, rel: str) -> Any:
        if 1 <= page <= pages and page != view.page:
            return tags.a(words, href=f"/?{overview_query(view, page)}#apps", rel=rel)
        return tags.span(words, class_="off")

    return tags.nav(
        step("Previous", min(view.page - 1, pages), "prev"),
        tags.span(place),
        step("Next", view.page + 1, "next"),
        class_="pager",
        **{"aria-label": "Pages of apps"},
    )


def _sources(view: Overview, values: LiveValues) -> Tag:
    heads = [
        ("source", "where routes come from, the strongest first", ""),
        ("state", "", ""),
        ("apps", "", "number"),
        ("changes", "since the program began", "number"),
        ("in step", "when it was last known to be up to date", ""),
    ]
    rows = (
        tags.tr(
            tags.th(source.name, scope="row"),
            tags.td(badge(values, f"source:{source.name}:state")),
            live(tags.td(class_="number"), values, f"source:{source.name}:apps"),
            live(tags.td(class_="number"), values, f"source:{source.name}:updates"),
            live(tags.td, values, f"source:{source.name}:age"),
        )
        for source in view.sources
    )
    return region("sources", "Sources of routes", values, table("Sources of routes", heads, list(rows)))
