"""The status page on twisted.web: which page is at which path, and who may see it.

Admits a request as the API does, lets a signed-in browser in as well as a
bearer of the token, and renders elements; what stands on the pages is made
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, quote

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from twisted.web.template import Tag, flattenString, tags

from scalingo_proxy.services.admin_answers import Refusal, refusal_for_error
from scalingo_proxy.services.admin_sessions import COOKIE, Sessions
from scalingo_proxy.services.status_answers import (
    Html,
    Redirect,
    set_cookie,
    set_header,
    set_headers,
    sign_in_page,
)
from scalingo_proxy.services.status_elements import document, in_turns
from scalingo_proxy.services.status_view import StatusView

__all__ = [
    "Asset",
    "Door",
    "Page",
    "StatusSite",
    "Visit",
    "local_target",
]

#: The longest form.
_MAX_FORM_BYTES = 4096

_ASSETS = {
    b"status.css": "text/css; charset=utf-8",
    b"status.js": "text/javascript; charset=utf-8",
    b"status.svg": "image/svg+xml",
}


@attrs.frozen
class Visit:
    """Who asks, and for what.

    :ivar session: of the browser, ``""`` where it has none and needs none.
    :ivar path: the segments below the page's own.
    :ivar query: the query's parameters; of those given twice, the last.
    """

    session: str
    path: tuple[str, ...]
    query: dict[str, str]


@attrs.frozen(eq=False)
class StatusSite:
    """What all pages share.

    :ivar admit: raises Refusal for a request from where none may come.
    :ivar has_token: whether a request bears the token required.
    :ivar needs_token: whether there is one.
    """

    reactor: IReactorTime
    view: StatusView
    sessions: Sessions
    admit: Callable[[Request], object]
    has_token: Callable[[Request], bool]
    needs_token: Callable[[], bool]

    def session_of(self, request: Request) -> str:
        """The session of a browser, ``""`` without one that is open."""
        given = request.getCookie(COOKIE.encode("ascii"))  # type: ignore[no-untyped-call]
        session = "" if given is None else given.decode("latin-1")
        return session if session and self.sessions.admits(session) else ""


class Door(Resource):
    """The root: pages where there is one for a browser, and the API everywhere else."""

    def __init__(self, api: Resource, pages: dict[bytes, Resource]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api = api
        self._pages = {**pages, **{name: Asset(name, kind) for name, kind in _ASSETS.items()}}

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        if path == b"" and (request.postpath or not _wants_html(request)):
            return self._api
        return self._pages.get(path, self._api)


class Asset(Resource):
    """A file of the page's own; nothing in it is secret."""

    isLeaf = True

    def __init__(self, name: bytes, kind: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._data = files("scalingo_proxy.services").joinpath(name.decode("ascii")).read_bytes()
        self._kind = kind

    def render_GET(self, request: Request) -> bytes:
        set_headers(request, self._kind)
        set_header(request, "Cache-Control", "no-cache")
        if request.postpath:
            request.setResponseCode(404)
            return b""
        return self._data


class Page(Resource):
    """One page, and what its forms do.  Subclasses say :meth:`page`, and :meth:`act` where there are forms.

    :cvar is_open: shown to whoever has not signed in.
    """

    isLeaf = True
    is_open = False
    _log = Logger()

    def __init__(self, site: StatusSite) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.site = site

    def page(self, visit: Visit) -> Html | Redirect | Deferred[Any]:
        """What is shown.

        :raises Refusal: and what :mod:`admin_answers` knows; it is shown as a page.
        """
        raise NotImplementedError

    def act(self, visit: Visit, form: dict[str, str]) -> Html | Redirect | Deferred[Any]:
        """Do what a form asks for; its proof has been checked."""
        raise Refusal(405, "method-not-allowed", "this page has no form", headers=[("Allow", "GET, HEAD")])

    def stream(self, request: Request, visit: Visit) -> bool:
        """Take over a request whose answer is no page; whether it was."""
        return False

    def render(self, request: Request) -> int:
        is_gone = False

        def gone(_failure: Failure) -> None:
            nonlocal is_gone
            is_gone = True
            pending.cancel()

        def write(made: tuple[Html | Redirect, bytes] | None) -> None:
            if made is not None and not is_gone:
                self._write(request, *made)

        pending: Deferred[Any] = maybeDeferred(self._answer, request)
        request.notifyFinish().addErrback(gone)
        pending.addErrback(self._explained, request)
        pending.addCallback(self._flattened, request)
        pending.addCallbacks(write, lambda _failure: None if is_gone else self._broken(request, _failure))
        return NOT_DONE_YET

    # -- inner parts ---------------------------------------------------------

    def _answer(self, request: Request) -> Any:
        site = self.site
        site.admit(request)
        session = site.session_of(request)
        if not (self.is_open or session or not site.needs_token() or site.has_token(request)):
            return self._sign_in(request)
        visit = Visit(session, _segments(request), _pairs(request.uri.partition(b"?")[2]))
        if request.method in (b"GET", b"HEAD"):
            return None if self.stream(request, visit) else self.page(visit)
        if request.method != b"POST":
            refused = "this page understands GET, HEAD and POST"
            raise Refusal(405, "method-not-allowed", refused, headers=[("Allow", "GET, HEAD, POST")])
        form = _form(request)
        if not self.is_open and not site.sessions.is_proof(session, form.get("proof", "")):
            sentence = "the form has grown old, or was made by another site: load the page again"
            raise Refusal(403, "forged-form", sentence)
        return self.act(visit, form)

    def _sign_in(self, request: Request) -> Html:
        if request.method != b"GET":
            raise Refusal(401, "unauthorized", "sign in first")
        return sign_in_page(request.uri.decode("latin-1"), 401)

    def _explained(self, failure: Failure, request: Request) -> Html:
        error = failure.value
        refusal = None if error is None else refusal_for_error(error)
        if refusal is None:
            self._log.failure("the status page failed at {path!r}", failure, path=request.path)
            refusal = Refusal(500, "internal-error", "the proxy failed to show this; its log says why")
        for name, value in refusal.headers:
            set_header(request, name, value)
        return Html(
            str(refusal.status),
            [
                tags.h1(f"{refusal.status}: that did not work"),
                tags.p(refusal.message, role="alert", class_="message", **{"data-state": "bad"}),
                tags.p(tags.a("Overview", href="/")),
            ],
            refusal.status,
        )

    def _flattened(self, answer: Html | Redirect | None, request: Request) -> Any:
        if answer is None:
            return None
        if isinstance(answer, Redirect):
            return answer, b""
        flat = flattenString(request, self._document(answer, request))
        return flat.addCallback(lambda data: (answer, b"<!doctype html>\n" + data))

    def _document(self, html: Html, request: Request) -> Tag:
        site = self.site
        session = site.session_of(request)
        navigation = []
        if session:
            proof = tags.input(type="hidden", name="proof", value=site.sessions.proof(session))
            button = tags.button("Sign out", type="submit", class_="plain")
            navigation.append(tags.form(proof, button, method="post", action="/logout"))
        main = in_turns(site.reactor, html.main)
        return document(html.title, main, facts=site.view.facts(), events=html.events, navigation=navigation)

    def _write(self, request: Request, answer: Html | Redirect, data: bytes) -> None:
        set_headers(request, "text/html; charset=utf-8")
        set_header(request, "Cache-Control", "no-store")
        if isinstance(answer, Redirect):
            request.setResponseCode(303)
            set_header(request, "Location", answer.location)
            if answer.session is not None:
                set_cookie(request, answer.session)
        else:
            request.setResponseCode(answer.status)
        set_header(request, "Content-Length", str(len(data)))
        request.write(data)  # type: ignore[no-untyped-call]
        request.finish()  # type: ignore[no-untyped-call]

    def _broken(self, request: Request, failure: Failure) -> None:
        self._log.failure("the status page could not be rendered at {path!r}", failure, path=request.path)
        request.setResponseCode(500)
        request.finish()  # type: ignore[no-untyped-call]


def local_target(text: str) -> str:
    """A path of this site and nothing else, whatever *text* is."""
    is_path = text.startswith("/") and not text.startswith("//") and "\\" not in text
    return quote(text, safe="/?&=%+-._~") if is_path and text.isprintable() else "/"


def _wants_html(request: Request) -> bool:
    """Whether a page is welcome: whoever takes anything, curl for instance, has it as well."""
    accepted = request.requestHeaders.getRawHeaders(b"accept") or [b"*/*"]
    return any(kind in value for value in accepted for kind in (b"text/html", b"text/*", b"*/*"))


def _segments(request: Request) -> tuple[str, ...]:
    try:
        return tuple(segment.decode("utf-8") for segment in request.postpath or ())
    except UnicodeDecodeError:
        raise Refusal(400, "bad-request", "the path is not UTF-8") from None


def _pairs(raw: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise Refusal(400, "bad-request", "the query or the form cannot be read") from None


def _form(request: Request) -> dict[str, str]:
    kind = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "unsupported-media-type", "send a form as application/x-www-form-urlencoded")
    data = b"" if request.content is None else request.content.read()
    if len(data) > _MAX_FORM_BYTES:
        raise Refusal(413, "body-too-large", f"a form may have {_MAX_FORM_BYTES} bytes")
    return _pairs(data)
