"""The answer to a client when the proxy itself ends an exchange.

A short page for people, JSON for programs that ask for it, and always the
reason code in ``X-Scalingo-Error``.  Nothing a peer sent stands in it, the
request id apart, which has passed its own grammar.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from http import HTTPStatus

import attrs

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.wire.grammar import Fields

__all__ = ["ErrorAnswer", "Page", "wants_json"]

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{status} {reason}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 15vh auto; padding: 0 1rem;
       color: #222; background: #fff }}
small {{ color: #666 }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #181818 }} small {{ color: #999 }} }}
</style>
<h1>{status} {reason}</h1>
<p>{text}.</p>
<p><small>Code: {code}<br>Request: {request_id}</small></p>
</html>
"""


@attrs.frozen
class Page:
    """A page of an app's own, instead of ours.

    :ivar content_type: of the body, as it is sent.
    """

    body: bytes = attrs.field(repr=False)
    content_type: bytes = b"text/html; charset=utf-8"


def wants_json(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an ``Accept`` asks for JSON and not for a page."""
    for name, value in fields:
        if name.lower() == b"accept":
            value = value.lower()
            return b"json" in value and b"text/html" not in value
    return False


class ErrorAnswer:
    """One error as a client reads it, whatever protocol it speaks.

    :param more: further header fields.
    :param page: instead of the short one.
    :ivar status: the HTTP status.
    :ivar reason: the reason phrase.
    :ivar fields: the header fields, the length of the body included.
    :ivar body: the page or the JSON document.
    """

    __slots__ = ("body", "fields", "reason", "status")

    def __init__(
        self,
        error: ProxyError,
        request_id: str,
        as_json: bool,
        more: Iterable[tuple[bytes, bytes]] = (),
        page: Page | None = None,
    ) -> None:
        self.status = error.status
        self.reason = _REASONS[error.status].encode()
        if as_json:
            document = {"error": {"code": error.code, "message": error.detail, "request_id": request_id}}
            self.body = json.dumps(document).encode() + b"\n"
            kind = b"application/json"
        elif page is not None:
            self.body, kind = page.body, page.content_type
        else:
            text = error.detail[:1].upper() + error.detail[1:]
            self.body = _PAGE.format(
                status=error.status,
                reason=_REASONS[error.status],
                text=text,
                code=error.code,
                request_id=request_id,
            ).encode()
            kind = b"text/html; charset=utf-8"
        self.fields: Fields = [
            (b"Content-Type", kind),
            (b"Content-Length", b"%d" % len(self.body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Scalingo-Error", f"{error.code}; {error.detail}".encode()),
            (b"X-Request-ID", request_id.encode()),
        ]
        self.fields += more
        if error.retry_after:
            self.fields.append((b"Retry-After", b"%d" % math.ceil(error.retry_after)))

    def http1(self, client_version: int, keep_alive: bool, with_body: bool) -> bytes:
        """The whole response for an HTTP/1 client.

        :param client_version: the minor version of the request.
        :param with_body: False for HEAD.
        """
        parts = [b"HTTP/1.1 %d %b\r\n" % (self.status, self.reason)]
        parts += [b"%b: %b\r\n" % field for field in self.fields]
        if not keep_alive:
            parts.append(b"Connection: close\r\n")
        elif client_version == 0:
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        if with_body:
            parts.append(self.body)
        return b"".join(parts)
