"""Answers of the status page: a page, or where to go next, and the headers that each of them has."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.web.server import Request
from twisted.web.template import tags

from scalingo_proxy.services.admin_sessions import COOKIE, SESSION_SECONDS

__all__ = ["Html", "Redirect", "set_cookie", "set_header", "set_headers", "sign_in_page"]

#: Nothing from anywhere else, nothing inline, no frame around it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # "no-referrer" would have browsers send "Origin: null" with forms.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)


@attrs.frozen
class Html:
    """A page as an answer.

    :ivar events: where its changes are streamed, if it has any.
    """

    title: str
    main: list[Any]
    status: int = 200
    events: str = ""


@attrs.frozen
class Redirect:
    """Where to go next, after something was done.

    :ivar session: a session that begins; ``""``: the present one ends.
    """

    location: str
    session: str | None = None


def sign_in_page(target: str, status: int = 200, message: str = "") -> Html:
    """The form that asks for the token.

    :param target: the path to go to afterwards.
    """
    return Html(
        "Sign in",
        [
            tags.h1("Sign in"),
            tags.div(
                tags.p(
                    "This address asks for the token that the proxy's ", tags.code("token_file"), " holds."
                ),
                tags.p(message, role="alert", class_="message", **{"data-state": "bad"}) if message else "",
                tags.form(
                    tags.label("Token", for_="token", class_="unseen"),
                    tags.input(
                        type="password",
                        id="token",
                        name="token",
                        placeholder="Token",
                        autocomplete="current-password",
                        required="required",
                        autofocus="autofocus",
                    ),
                    tags.input(type="hidden", name="target", value=target),
                    tags.button("Sign in", type="submit"),
                    method="post",
                    action="/login",
                ),
                class_="panel",
            ),
        ],
        status,
    )


def set_header(request: Request, name: str, value: str) -> None:
    """Set one header of the answer."""
    request.responseHeaders.setRawHeaders(name, [value])


def set_headers(request: Request, kind: str) -> None:
    """Set what every answer has, with its media type."""
    request.responseHeaders.removeHeader("Server")
    for name, value in _HEADERS:
        set_header(request, name, value)
    set_header(request, "Content-Type", kind)


def set_cookie(request: Request, session: str) -> None:
    """Give a browser its session; ``""`` takes it away."""
    request.addCookie(  # type: ignore[no-untyped-call]
        COOKIE,
        session,
        path="/",
        httpOnly=True,
        sameSite="strict",
        secure=bool(request.isSecure()),  # type: ignore[no-untyped-call]
        max_age=str(int(SESSION_SECONDS) if session else 0),
    )
