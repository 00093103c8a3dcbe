"""The admin API on twisted.web: bytes of a request to an operation's answer.

Bounds the body while it arrives, admits or refuses the request, runs the
operation and writes one answer.  Knows nothing of apps and backends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from scalingo_proxy.services.admin_answers import Answer, Refusal, answer_for_error
from scalingo_proxy.services.admin_connections import AdminConnection
from scalingo_proxy.services.admin_guards import check_host, check_same_site, check_token
from scalingo_proxy.services.admin_routes import AdminRoute, AdminRoutes, Call, parse_query
from scalingo_proxy.services.strict_json import strict_json

__all__ = ["MAX_BODY_BYTES", "AdminResource", "AdminSite"]

#: The longest body that is read; an app with 10,000 backends fits four times.
MAX_BODY_BYTES = 1024 * 1024

#: How much of a refused body is still read, so that the client gets to see the
#: refusal instead of a reset connection.
_LINGER_BYTES = 16 * MAX_BODY_BYTES

#: Seconds of silence before a connection that asks for nothing is closed.
_IDLE_SECONDS = 30.0

_COMMON_HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)

_STOPPING = Refusal(503, "stopping", "the proxy stopped before this was answered")


class AdminRequest(Request):
    """A request whose body is bounded while it arrives, not after."""

    _is_refused = False
    _is_closing = False
    _discarded = 0

    def gotLength(self, length: int | None) -> None:
        self.content: BytesIO = BytesIO()
        if length is not None and length > MAX_BODY_BYTES:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:
        if self._is_refused:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self._close()
        elif self.content.tell() + len(data) > MAX_BODY_BYTES:
            self._refuse_body()
        else:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._is_refused:
            self._close()
            return
        connection: Any = self.channel.transport
        if isinstance(connection, AdminConnection):
            connection.request_came()
            over: Deferred[None] = self.notifyFinish()
            over.addBoth(lambda _: connection.request_over())
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def _close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.channel.loseConnection()  # type: ignore[no-untyped-call]

    def _refuse_body(self) -> None:
        # Written past twisted.web, which only answers once a body is complete.
        self._is_refused = True
        self.content = BytesIO()
        self.requestHeaders.removeHeader("Expect")
        answer = Refusal(413, "body-too-large", f"a body may have {MAX_BODY_BYTES} bytes").answer()
        head = ["HTTP/1.1 413 Content Too Large", f"Content-Length: {len(answer.body)}"]
        head += [f"{name}: {value}" for name, value in _COMMON_HEADERS]
        head += [f"Content-Type: {answer.content_type}", "Connection: close", "", ""]
        transport = self.channel.transport
        assert transport is not None, "a chunk arrived without a connection"
        transport.write("\r\n".join(head).encode("ascii") + answer.body)


class AdminSite(Site):
    """The site of the admin API, without an access log of its own."""

    requestFactory = AdminRequest
    noisy = False

    def __init__(self, resource: Resource, reactor: IReactorTime) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, reactor=reactor, timeout=_IDLE_SECONDS, parsePOSTFormSubmission=False
        )

    def startFactory(self) -> None:
        """Nothing to start: the log clock of twisted.web ticks every second."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        """No line: a path may name what belongs to somebody."""


class AdminResource(Resource):
    """Everything below ``/``: admits requests and answers them by the table.

    :param routes: the table.
    :param token: tells the token required; ``""`` when there is none.
    :param allowed_hosts: names in ``Host`` beyond those of loopback.
    :param has_session: whether a browser has signed in, which is enough for reading.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        routes: AdminRoutes,
        token: Callable[[], str] = str,
        allowed_hosts: Collection[str] = (),
        has_session: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._routes = routes
        self._token = token
        self._has_session = has_session
        self._allowed_hosts = frozenset(name.lower() for name in allowed_hosts)
        self._pending: set[Deferred[Any]] = set()

    def render(self, request: Request) -> int:
        """Answer *request*, now or later; a client that leaves is not waited for."""
        pending: Deferred[Any] = maybeDeferred(self._answer, request)
        client_left = False

        def left(_reason: Failure) -> None:
            nonlocal client_left
            client_left = True
            pending.cancel()

        def over(answer: Answer) -> None:
            self._pending.discard(pending)
            if not client_left:
                self._write(request, answer)

        request.notifyFinish().addErrback(left)
        self._pending.add(pending)
        pending.addErrback(self._answer_for_failure, request)
        pending.addCallback(over)
        return NOT_DONE_YET

    def cancel_pending(self) -> None:
        """Answer everything that still waits with 503: the proxy is stopping."""
        for pending in tuple(self._pending):
            pending.cancel()

    @property
    def is_quiet(self) -> bool:
        """Whether no request is being answered."""
        return not self._pending

    def _answer(self, request: Request) -> Answer | Deferred[Answer]:
        self.admit(request)
        method = _text(request.method)
        path, _, raw_query = request.uri.partition(b"?")
        try:
            route, names = self._routes.find(method, path)
        except Refusal:
            self._check_token(request)
            raise
        if not route.is_open:
            self._check_token(request)
        call = Call(
            route.method,
            names,
            parse_query(raw_query, route.query),
            _body(request, route),
            "text/html" in (_header(request, "Accept") or ""),
        )
        return route.operation(call)

    def admit(self, request: Request) -> None:
        """Let a request in that may come from where it comes.

        :raises Refusal: a foreign name in ``Host``, or a change asked for by another site.
        """
        hosts = _headers(request, "Host")
        check_host(hosts, _local_address(request), self._allowed_hosts)
        origin, fetch_site = _header(request, "Origin"), _header(request, "Sec-Fetch-Site")
        check_same_site(_text(request.method), hosts[0], origin, fetch_site)

    def has_token(self, request: Request) -> bool:
        """Whether a request bears the token required, if there is one."""
        try:
            self._check_token(request)
        except Refusal:
            return False
        return True

    def _check_token(self, request: Request) -> None:
        token = self._token()
        if token and not (request.method in (b"GET", b"HEAD") and self._has_session(request)):
            check_token(_headers(request, "Authorization"), token)

    def _answer_for_failure(self, failure: Failure, request: Request) -> Answer:
        error = failure.value
        if isinstance(error, CancelledError):
            return _STOPPING.answer()
        answer = None if error is None else answer_for_error(error)
        if answer is None:
            self._log.failure("admin: {path!r} failed", failure, path=_path(request))
            answer = Refusal(500, "internal-error", "the proxy failed to do this; its log says why").answer()
        return answer

    def _write(self, request: Request, answer: Answer) -> None:
        request.setResponseCode(answer.status)
        headers = request.responseHeaders
        headers.removeHeader("Server")
        for name, value in (*_COMMON_HEADERS, ("Content-Type", answer.content_type), *answer.headers):
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders("Content-Length", [str(len(answer.body))])
        request.write(answer.body)  # type: ignore[no-untyped-call]
        request.finish()  # type: ignore[no-untyped-call]
        if request.method not in (b"GET", b"HEAD"):
            self._log.info(
                "admin: {method!r} {path!r} answered {status}",
                method=_text(request.method),
                path=_path(request),
                status=answer.status,
            )


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _local_address(request: Request) -> IAddress:
    address: IAddress = request.channel.getHost()  # type: ignore[no-untyped-call]
    return address


def _path(request: Request) -> str:
    """The path for the log, without the query: somebody may have put the token there."""
    return _text(request.uri).partition("?")[0]


def _headers(request: Request, name: str) -> list[str]:
    # Asked for as bytes: twisted.web would decode as UTF-8, and fail.
    return [_text(value) for value in request.requestHeaders.getRawHeaders(name.encode("ascii"), [])]


def _header(request: Request, name: str) -> str | None:
    values = _headers(request, name)
    return ", ".join(values) if values else None


def _body(request: Request, route: AdminRoute) -> Any:
    """The parsed body, where the route takes one.

    :raises Refusal: 400 or 415.
    """
    data = b"" if request.content is None else request.content.read()
    if not route.takes_body:
        # Some clients cannot help sending an empty table with each POST.
        if data and not (route.method == "POST" and data.strip() == b"{}"):
            raise Refusal(400, "bad-request", f"{route.method} takes no body here")
        return None
    if not data:
        raise Refusal(400, "bad-request", "send a JSON table (object) as the body")
    _check_media_type(request, route)
    try:
        body = strict_json(data)
    except ValueError as error:
        raise Refusal(400, "malformed-json", f"the body {error}") from None
    if not isinstance(body, dict):
        raise Refusal(400, "malformed-json", "the body must be a JSON table (object)")
    return body


def _check_media_type(request: Request, route: AdminRoute) -> None:
    accepted = ["application/json", *(["application/merge-patch+json"] if route.takes_patch else [])]
    told = ", ".join(accepted)
    media_type, *parameters = (_header(request, "Content-Type") or accepted[0]).split(";")
    right_charset = all(
        parameter.strip().lower().replace('"', "") in ("charset=utf-8", "") for parameter in parameters
    )
    if media_type.strip().lower() not in accepted or not right_charset:
        headers = [("Accept", told)]
        raise Refusal(415, "unsupported-media-type", f"send the body as {told} in UTF-8", headers=headers)
    if (_header(request, "Content-Encoding") or "identity").lower() != "identity":
        raise Refusal(415, "unsupported-media-type", "send the body without Content-Encoding")
