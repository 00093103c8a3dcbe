"""The page of one request: what became of it, and why, as a story in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.web.template import Tag, tags

from scalingo_proxy.services.status_elements import app_link, table

__all__ = ["request_main"]


def request_main(stories: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What stands between head and foot.

    :param stories: what became of the requests of one id, the latest first.
    """
    latest, *earlier = stories
    parts: list[Any] = [
        tags.nav(
            tags.a("Overview", href="/"), *_app_step(latest), " / ", tags.span("request"), class_="path"
        ),
        tags.h1("Request ", tags.span(latest["request_id"], class_="code")),
        _story(latest, "0"),
    ]
    for number, story in enumerate(earlier, 1):
        parts += [tags.h2("The same id was used before"), _story(story, str(number))]
    return parts


def _app_step(told: Mapping[str, Any]) -> list[Any]:
    return [" / ", app_link(told["route"]["app"])] if told["route"] else []


def _story(told: Mapping[str, Any], number: str) -> Tag:
    is_bad = told["code"] != "-" or told["status"] >= 500
    answer = str(told["status"]) if told["status"] else "no status"
    code = "" if told["code"] == "-" else f" {told['code']}"
    return tags.article(
        tags.p(
            tags.span(f"{answer}{code}", class_="badge", **{"data-state": "bad" if is_bad else "up"}),
            f" {told['cause']}.",
            class_="verdict",
        ),
        tags.dl(
            *(tags.div(tags.dt(name), tags.dd(value)) for name, value in _facts(told) if value != ""),
            class_="facts",
        ),
        _part("Backends", f"backends-{number}", _backends(told["backends"])),
        _part("Waits", f"waits-{number}", _waits(told["waits"])),
        _part("Attempts", f"attempts-{number}", _attempts(told["attempts"])),
        _part("Denied", f"denied-{number}", _list(told["denied"])),
    )


def _facts(told: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    asked = f"{told['method']} {told['path']}" if told["method"] != "-" else ""
    yield "asked", tags.span(asked, class_="code long") if asked else ""
    yield "host", told["host"]
    yield "from", told["from"]
    yield "over", f"{told['protocol']}, {told['tls']}" if told["tls"] != "-" else told["protocol"]
    yield "at", told["at"]
    yield "state", told["state"]
    route = told["route"]
    yield "route", f"{route['domain']}, said {route['resolver']}" if route else "none"
    yield "waited", f"{told['queue_ms']} ms"
    yield "first byte", "" if told["first_byte_ms"] is None else f"after {told['first_byte_ms']} ms"
    yield "took", f"{told['duration_ms']} ms"
    yield "body", f"{told['bytes_in']} bytes in, {told['bytes_out']} bytes out"


def _part(title: str, name: str, content: Any) -> Any:
    if content is None:
        return ""
    return tags.section(tags.h2(title, id=name), content, **{"aria-labelledby": name})


def _list(texts: Sequence[str]) -> Tag | None:
    return tags.ul(*(tags.li(text) for text in texts)) if texts else None


def _backends(backends: Sequence[Mapping[str, Any]]) -> Tag | None:
    if not backends:
        return None
    heads = [("backend", "", ""), ("verdict", "", ""), ("why", "", ""), ("since", "", "")]
    rows = [
        tags.tr(
            tags.th(each["address"], scope="row", class_="code"),
            tags.td(tags.span(each["verdict"].replace("-", " "), class_="badge")),
            tags.td(each["reason"], class_="long"),
            tags.td(each["since"] or "–", class_="time"),
        )
        for each in backends
    ]
    return table("Backends that were considered", heads, rows)


def _waits(waits: Sequence[Mapping[str, Any]]) -> Tag | None:
    return _list(
        [f"{each['ms']} ms, beginning after {each['after_ms']} ms: {each['reason']}" for each in waits]
    )


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> Tag | None:
    if not attempts:
        return None
    heads = [
        ("backend", "", ""),
        ("began", "since the request began", "number"),
        ("connection", "", ""),
        ("first byte", "since the request began", "number"),
        ("ended", "since the request began", "number"),
        ("how", "", ""),
    ]
    rows = [
        tags.tr(
            tags.th(each["backend"], scope="row", class_="code"),
            tags.td(_ms(each["after_ms"]), class_="number"),
            tags.td("kept" if each["connection"] == "kept" else f"new, in {each['connect_ms']} ms"),
            tags.td(_ms(each["first_byte_ms"]), class_="number"),
            tags.td(_ms(each["ended_ms"]), class_="number"),
            tags.td(each["end"], class_="long"),
        )
        for each in attempts
    ]
    return table("Attempts", heads, rows)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value} ms"
