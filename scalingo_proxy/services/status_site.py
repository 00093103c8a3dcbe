"""Every page of the status page, by its path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from scalingo_proxy.model import AppState
from scalingo_proxy.services.admin_answers import Refusal
from scalingo_proxy.services.control import Control
from scalingo_proxy.services.drain_control import drain_backend
from scalingo_proxy.services.live_values import LiveValues
from scalingo_proxy.services.status_answers import Html, Redirect, set_header, sign_in_page
from scalingo_proxy.services.status_app import app_main
from scalingo_proxy.services.status_overview import overview_main
from scalingo_proxy.services.status_pages import Page, StatusSite, Visit, local_target
from scalingo_proxy.services.status_request import request_main
from scalingo_proxy.services.status_stream import EVENT_SECONDS, MAX_VIEWERS, StatusStreams
from scalingo_proxy.services.status_values import app_values, overview_values
from scalingo_proxy.services.status_view import SORTS, Overview

__all__ = ["status_pages"]

_STATES = {
    "pause": AppState.PAUSED,
    "resume": AppState.RUNNING,
    "stop": AppState.STOPPED,
    "start": AppState.RUNNING,
}

#: What a button did, by the word in the query; never the query's own text.
_DONE = {
    "pause": "The app is paused: requests wait.",
    "resume": "The app is running again.",
    "stop": "The app is stopped.",
    "start": "The app is running again.",
    "drain": "The backend was taken out and finishes what it has.",
}

_PAGE = re.compile(r"[1-9][0-9]{0,5}")


def status_pages(
    site: StatusSite,
    control: Control,
    explain: Callable[[str], Sequence[Mapping[str, Any]]],
    streams: StatusStreams,
) -> dict[bytes, Resource]:
    """The pages, by the first segment of their path.

    :param explain: what became of the requests of an id, the latest first;
        raises UnknownRequest.
    """
    return {
        b"": OverviewPage(site),
        b"apps": AppPages(site, control),
        b"requests": RequestPages(site, explain),
        b"events": Events(site, streams),
        b"login": LoginPage(site),
        b"logout": LogoutPage(site),
    }


class OverviewPage(Page):
    """``/``."""

    def page(self, visit: Visit) -> Html:
        view = _overview(self.site, visit)
        events = {"view": "overview", "q": view.query, "sort": view.sort, "page": str(view.page)}
        main = overview_main(self.site.reactor, view, overview_values(view))
        return Html("Overview", main, events=f"/events?{urlencode(events)}")


class AppPages(Page):
    """``/apps/NAME``, and the forms below it."""

    def __init__(self, site: StatusSite, control: Control) -> None:
        super().__init__(site)
        self._control = control

    def page(self, visit: Visit) -> Html:
        name = _only_segment(visit)
        view = self.site.view.app(name)
        main = app_main(
            self.site.reactor,
            view,
            app_values(view),
            proof=self.site.sessions.proof(visit.session),
            message=_DONE.get(visit.query.get("done", ""), ""),
        )
        return Html(name, main, events=f"/events?{urlencode({'view': 'app', 'name': name})}")

    def act(self, visit: Visit, form: dict[str, str]) -> Deferred[Redirect]:
        name, verb = visit.path if len(visit.path) == 2 else ("", "")
        doing: Deferred[Any]
        if verb in _STATES:
            doing = self._control.set_state(name, _STATES[verb])
        elif verb == "drain":
            doing = drain_backend(self._control, name, form.get("backend", ""))
        else:
            raise Refusal(404, "not-found", "there is no such button")
        location = f"/apps/{quote(name, safe='')}?done={verb}"
        return doing.addCallback(lambda _: Redirect(location))


class RequestPages(Page):
    """``/requests/ID``."""

    def __init__(self, site: StatusSite, explain: Callable[[str], Sequence[Mapping[str, Any]]]) -> None:
        super().__init__(site)
        self._explain = explain

    def page(self, visit: Visit) -> Html:
        request_id = _only_segment(visit)
        return Html(f"Request {request_id[:36]}", request_main(self._explain(request_id)))


class Events(Page):
    """``/events``: the changes of one of the pages above."""

    def __init__(self, site: StatusSite, streams: StatusStreams) -> None:
        super().__init__(site)
        self._streams = streams
        # By view, with the moment of its making; never changed after that.
        self._made: dict[tuple[str, ...], tuple[float, LiveValues | None]] = {}

    def stream(self, request: Request, visit: Visit) -> bool:
        # Another site could not read it, but it could take up the places of those who look.
        if request.getHeader("Sec-Fetch-Site") not in (None, "same-origin", "none"):
            raise Refusal(403, "cross-site", "streams are not for pages of another site")
        values = self._values(visit)
        values()  # what cannot be told is refused now
        if not self._streams.has_room:
            headers = [("Retry-After", "30")]
            sentence = f"{MAX_VIEWERS} look at the status page already"
            raise Refusal(503, "too-many-viewers", sentence, headers=headers)
        set_header(request, "Cache-Control", "no-store")
        set_header(request, "X-Content-Type-Options", "nosniff")
        request.responseHeaders.removeHeader("Server")
        if request.method == b"HEAD":
            request.finish()  # type: ignore[no-untyped-call]
        else:
            self._streams.begin(request, values)
        return True

    def _values(self, visit: Visit) -> Callable[[], LiveValues]:
        view = self.site.view
        if visit.query.get("view") == "app":
            name = visit.query.get("name", "")
            return self._shared(("app", name), lambda: app_values(view.app(name)))
        first = _overview(self.site, visit)
        if first.sort == "name":
            key = ("overview", first.query, str(first.page))
            return self._shared(key, lambda: overview_values(_overview(self.site, visit)))
        # Ordered by rate, the same apps are told on, so that rows do not move.
        names = [row.app.name for row in first.rows]
        return lambda: overview_values(view.overview_of(names, first))

    def _shared(self, key: tuple[str, ...], make: Callable[[], LiveValues]) -> Callable[[], LiveValues]:
        """The values of one view, made once in a while, however many look at it."""

        def values() -> LiveValues:
            now = self.site.reactor.seconds()
            made_at, made = self._made.get(key, (0.0, None))
            if made is None or now - made_at >= EVENT_SECONDS / 2:
                made = make()
                if len(self._made) >= MAX_VIEWERS:
                    self._made.clear()
                self._made[key] = now, made
            return made

        return values


class LoginPage(Page):
    """``/login``."""

    is_open = True

    def page(self, visit: Visit) -> Html:
        return sign_in_page("/")

    def act(self, visit: Visit, form: dict[str, str]) -> Html | Redirect:
        target = local_target(form.get("target", "/"))
        session = self.site.sessions.sign_in(form.get("token", ""))
        if session is None:
            return sign_in_page(target, 401, "That is not the token.")
        return Redirect(target, session)


class LogoutPage(Page):
    """``/logout``."""

    def page(self, visit: Visit) -> Html:
        raise Refusal(405, "method-not-allowed", "signing out is a button", headers=[("Allow", "POST")])

    def act(self, visit: Visit, form: dict[str, str]) -> Redirect:
        self.site.sessions.sign_out(visit.session)
        return Redirect("/", "")


def _overview(site: StatusSite, visit: Visit) -> Overview:
    query, sort, page = (visit.query.get(key, "") for key in ("q", "sort", "page"))
    return site.view.overview(
        query[:200],
        int(page) if _PAGE.fullmatch(page) else 1,
        sort=sort if sort in SORTS else "name",
    )


def _only_segment(visit: Visit) -> str:
    if len(visit.path) != 1 or not visit.path[0]:
        raise Refusal(404, "not-found", "there is no page at this path")
    return visit.path[0]
