"""Which requests an app sends elsewhere: force_https and canonical, as Scalingo documents them.

Pure rules over an app and a request; who writes the answer is not known here.
"""

from __future__ import annotations

from scalingo_proxy.model import App

__all__ = ["HSTS", "redirect_location"]

#: What answers over TLS say when an app forces HTTPS: one year, as documented.
HSTS = b"max-age=31536000"


def redirect_location(app: App, scheme: str, host: str, target: str) -> str:
    """Where a request has to go instead, or ``""`` when it is right here.

    One redirect does for both policies; path and query are kept.

    :param scheme: ``"http"`` or ``"https"``, as the client used it.
    :param host: the normalised name that was asked for.
    :param target: the request target as sent.
    """
    secure = scheme == "https" or app.force_https
    name = app.canonical or host
    if name == host and secure == (scheme == "https"):
        return ""
    path = target if target.startswith("/") else "/"
    return f"{'https' if secure else 'http'}://{name}{path}"
