"""The page of one app: how it does, each backend with its reason, certificates, errors, buttons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from scalingo_proxy.model import AppState
from scalingo_proxy.services.backend_status import BackendStatus
from scalingo_proxy.services.live_values import LiveValues
from scalingo_proxy.services.status_elements import InTurns, badge, errors_table, live, region, table
from scalingo_proxy.services.status_texts import count, moment
from scalingo_proxy.services.status_values import APP_COLUMNS
from scalingo_proxy.services.status_view import MOST_BACKENDS, AppView

__all__ = ["app_main"]

_DOMAINS = 20

#: Which buttons make sense in which state, with what each does.
_BUTTONS = {
    "pause": ("Pause", "requests wait until it is resumed", (AppState.RUNNING,)),
    "resume": ("Resume", "waiting requests go on", (AppState.PAUSED,)),
    "stop": ("Stop", "requests are answered 503", (AppState.RUNNING, AppState.PAUSED, AppState.MAINTENANCE)),
    "start": ("Start", "requests are served again", (AppState.STOPPED, AppState.MAINTENANCE)),
}


def app_main(
    reactor: IReactorTime, view: AppView, values: LiveValues, *, proof: str, message: str = ""
) -> list[Any]:
    """What stands between head and foot.

    :param proof: what a form has to carry, so that no other site can send it.
    :param message: what the last button did.
    """
    app = view.row.app
    return [
        tags.nav(tags.a("Overview", href="/"), " / ", tags.span(app.name), class_="path"),
        tags.h1(app.name, " ", badge(values, "app:state")),
        tags.p(message, role="status", class_="message") if message else "",
        region("app", "Now", values, _facts(view), _figures(values), _buttons(view, proof)),
        region("backends", "Backends", values, _backends(reactor, view, values, proof)),
        region("certificates", "Certificates", values, _certificates(view)),
        region(
            "errors",
            "Last errors",
            values,
            errors_table(reactor, values, view.errors, "The last errors of this app", with_app=False),
        ),
    ]


def _facts(view: AppView) -> Tag:
    app = view.row.app
    facts = (
        ("domains", _some(app.domains)),
        ("TLS", "passes through" if app.tls == "passthrough" else "ends here"),
        ("balancer", app.balancer.replace("_", " ")),
        ("described by", view.source),
    )
    return tags.dl(*(tags.div(tags.dt(name), tags.dd(value)) for name, value in facts), class_="facts")


def _some(domains: Sequence[str]) -> str:
    """The domains, as many as can be read at a glance."""
    more = f" and {len(domains) - _DOMAINS} more" if len(domains) > _DOMAINS else ""
    return f"{', '.join(domains[:_DOMAINS])}{more}" or "none"


def _figures(values: LiveValues) -> Tag:
    return tags.dl(
        *(
            tags.div(tags.dt(head, title=what), live(tags.dd, values, f"app:{key}"))
            for key, head, what in APP_COLUMNS
        ),
        class_="facts figures-row",
    )


def _buttons(view: AppView, proof: str) -> Tag:
    app = view.row.app
    forms = []
    for verb, (words, what, states) in _BUTTONS.items():
        is_off = {} if app.state in states else {"disabled": "disabled"}
        forms.append(
            tags.form(
                tags.input(type="hidden", name="proof", value=proof),
                tags.button(words, type="submit", title=what, **is_off),
                method="post",
                action=f"/apps/{quote(app.name, safe='')}/{verb}",
            )
        )
    return tags.div(*forms, class_="buttons", role="group", **{"aria-label": f"Change {app.name}"})


def _backends(reactor: IReactorTime, view: AppView, values: LiveValues, proof: str) -> Tag:
    if not view.backends:
        return tags.p("It has none.", class_="empty")
    heads = [
        ("backend", "", ""),
        ("state", "", ""),
        ("why", "", ""),
        ("since (UTC)", "", ""),
        ("in flight", "", "number"),
        ("tunnels", "upgraded connections", "number"),
        ("drain", "takes it out of the app, and lets it finish what it has", ""),
    ]

    def row(status: BackendStatus) -> Tag:
        key = f"backend:{status.address}:{status.membership}"
        return tags.tr(
            tags.th(status.address, scope="row", class_="code"),
            tags.td(badge(values, f"{key}:state")),
            live(tags.td(class_="long"), values, f"{key}:reason"),
            live(tags.td(class_="time"), values, f"{key}:since"),
            live(tags.td(class_="number"), values, f"{key}:in_flight"),
            live(tags.td(class_="number"), values, f"{key}:tunnels"),
            tags.td(_drain(view, status, key, values, proof)),
        )

    told = table("Backends of this app", heads, InTurns(reactor, view.backends, row))
    if len(view.backends) < MOST_BACKENDS:
        return told
    note = f"No more than {MOST_BACKENDS} are shown, those first that drain or may not be given requests."
    return Tag("")(told, tags.p(note, class_="empty"))


def _drain(view: AppView, status: BackendStatus, key: str, values: LiveValues, proof: str) -> Any:
    """How far its drain is, or the button that begins it."""
    if status.membership == "draining":
        bar = tags.progress(
            max=f"{max(view.drain_seconds, 1):.0f}",
            value=values.points[f"{key}:progress"],
            **{"data-points": f"{key}:progress", "aria-label": f"drain of {status.address}"},
        )
        return [bar, " ", live(tags.small, values, f"{key}:left")]
    return tags.form(
        tags.input(type="hidden", name="proof", value=proof),
        tags.input(type="hidden", name="backend", value=status.address),
        tags.button("Drain", tags.span(f" {status.address}", class_="unseen"), type="submit", class_="small"),
        method="post",
        action=f"/apps/{quote(view.row.app.name, safe='')}/drain",
    )


def _certificates(view: AppView) -> Tag:
    if not view.certificates:
        words = (
            "TLS passes through to its backends." if view.row.app.tls == "passthrough" else "None covers it."
        )
        return tags.p(words, class_="empty")
    heads = [("certificate", "", ""), ("covers", "", ""), ("days left", "", "number"), ("ends (UTC)", "", "")]
    rows = []
    for each in view.certificates:
        days = int((each.not_after - view.now) // 86400)
        state = "bad" if days < 3 else "warn" if days < 21 else ""
        rows.append(
            tags.tr(
                tags.th(each.name, scope="row"),
                tags.td(", ".join(each.domains), class_="long"),
                tags.td(count(days), class_="number", **{"data-state": state}),
                tags.td(moment(each.not_after), class_="time"),
            )
        )
    return table("Certificates of this app", heads, rows)
