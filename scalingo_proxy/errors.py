"""Everything that can go wrong, as one tree.

Each error that a client can meet carries a stable reason code and the HTTP
status it is answered with; the same code stands in ``X-Scalingo-Error``, in
the request log and in the metrics.  This module knows no I/O and no Twisted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import attrs

__all__ = [
    "AppStopped",
    "BackendClosed",
    "BadRequest",
    "BadResponse",
    "BadVersion",
    "BodyTooLarge",
    "CertificateMistake",
    "ClientClosed",
    "ConfigurationError",
    "ConnectFailed",
    "Denied",
    "DomainTaken",
    "DrainTimeout",
    "ExpectationFailed",
    "FirstByteTimeout",
    "HeadTooLarge",
    "IdleTimeout",
    "InternalError",
    "Maintenance",
    "MethodNotAllowed",
    "Misdirected",
    "Mistake",
    "NoBackend",
    "NotImplementedByProxy",
    "PauseTimeout",
    "ProxyError",
    "Quarantined",
    "QueueFull",
    "QueueTimeout",
    "RateLimited",
    "RequestTimeout",
    "ResolverUnavailable",
    "ScalingoProxyError",
    "UnknownHost",
    "UriTooLong",
    "errors_by_code",
]


class ScalingoProxyError(Exception):
    """The root of every error this package raises on purpose."""


class ProxyError(ScalingoProxyError):
    """An exchange that the proxy itself ends, with its reason.

    :cvar code: the reason code, part of the public contract.
    :cvar status: the HTTP status of the answer.
    :cvar text: one sentence for people, used when no detail is given.
    :ivar detail: one sentence that says what exactly was wrong; it never
        contains bytes of the peer, so it can be shown as it is.
    :ivar retry_after: the seconds after which asking again makes sense
        (RFC 9110 §10.2.3), or 0 when nobody knows.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    text: ClassVar[str]

    def __init__(self, detail: str = "", retry_after: float = 0.0) -> None:
        self.detail = detail or self.text
        self.retry_after = retry_after
        super().__init__(self.detail)

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


# -- the client's fault ------------------------------------------------------


class BadRequest(ProxyError):
    """The request is ambiguous or malformed; nothing of it reached a backend."""

    code = "bad-request"
    status = 400
    text = "the request is malformed"


class Denied(ProxyError):
    """The client's address is not admitted."""

    code = "denied"
    status = 403
    text = "this address is not allowed here"


class UnknownHost(ProxyError):
    """No app claims the domain that was asked for."""

    code = "unknown-host"
    status = 404
    text = "no application claims this domain"


class MethodNotAllowed(ProxyError):
    """CONNECT or TRACE, which an edge proxy does not serve."""

    code = "method-not-allowed"
    status = 405
    text = "this method is not served here"


class RequestTimeout(ProxyError):
    """The client stalled while sending its head or its body."""

    code = "request-timeout"
    status = 408
    text = "the request did not arrive in time"


class BodyTooLarge(ProxyError):
    """The body is longer than ``body_bytes``."""

    code = "body-too-large"
    status = 413
    text = "the request body is too large"


class UriTooLong(ProxyError):
    """The request line is longer than ``request_line_bytes``."""

    code = "uri-too-long"
    status = 414
    text = "the request line is too long"


class ExpectationFailed(ProxyError):
    """An ``Expect`` other than ``100-continue`` (RFC 9110 §10.1.1)."""

    code = "expectation-failed"
    status = 417
    text = "only Expect: 100-continue is understood"


class Misdirected(ProxyError):
    """The host is not covered by the certificate of this connection, or its TLS passes through."""

    code = "misdirected"
    status = 421
    text = "this connection is not the one for this host"


class RateLimited(ProxyError):
    """The client asked more often, or has more connections or streams, than one is admitted."""

    code = "rate-limited"
    status = 429
    text = "too many requests"


class HeadTooLarge(ProxyError):
    """The header section, or one line of it, is over its limit."""

    code = "head-too-large"
    status = 431
    text = "the request head is too large"


class ClientClosed(ProxyError):
    """The client left before its answer was complete; only logged."""

    code = "client-closed"
    status = 499
    text = "the client closed the connection"


# -- the backend's fault -----------------------------------------------------


class ConnectFailed(ProxyError):
    """No backend accepted a connection."""

    code = "connect-failed"
    status = 502
    text = "no backend accepted the connection"


class BackendClosed(ProxyError):
    """The backend closed the connection before its answer was complete."""

    code = "backend-closed"
    status = 502
    text = "the backend closed the connection without a complete response"


class BadResponse(ProxyError):
    """The backend's answer is not valid HTTP."""

    code = "bad-response"
    status = 502
    text = "the backend sent an invalid response"


class Quarantined(ProxyError):
    """Every backend of the app is in quarantine."""

    code = "quarantined"
    status = 502
    text = "every backend is in quarantine"


# -- nobody to serve it ------------------------------------------------------


class AppStopped(ProxyError):
    """The app's state is ``stopped``."""

    code = "app-stopped"
    status = 503
    text = "the application is stopped"


class Maintenance(ProxyError):
    """The app's state is ``maintenance``."""

    code = "maintenance"
    status = 503
    text = "the application is in maintenance"


class NoBackend(ProxyError):
    """The app has no backend at all."""

    code = "no-backend"
    status = 503
    text = "the application has no backend"


class QueueFull(ProxyError):
    """Every backend is busy and the app's queue is full, or there is no place for a further client."""

    code = "queue-full"
    status = 503
    text = "too many requests are waiting for this application"


class QueueTimeout(ProxyError):
    """The request waited longer than ``queue`` seconds for a backend."""

    code = "queue-timeout"
    status = 503
    text = "no backend became free in time"


class ResolverUnavailable(ProxyError):
    """The source of routes cannot answer now."""

    code = "resolver-unavailable"
    status = 503
    text = "routes cannot be looked up at the moment"


class DrainTimeout(ProxyError):
    """The proxy stopped before a response began."""

    code = "drain-timeout"
    status = 503
    text = "the proxy is stopping"


# -- too late ----------------------------------------------------------------


class FirstByteTimeout(ProxyError):
    """No response byte within ``first_byte`` seconds of the full request."""

    code = "first-byte-timeout"
    status = 504
    text = "the backend did not answer in time"


class IdleTimeout(ProxyError):
    """Silence in both directions for ``idle`` seconds."""

    code = "idle-timeout"
    status = 504
    text = "the exchange was silent for too long"


class PauseTimeout(ProxyError):
    """The app stayed paused longer than a request may wait."""

    code = "pause-timeout"
    status = 504
    text = "the application stayed paused for too long"


# -- what the proxy does not do, and its own faults --------------------------


class InternalError(ProxyError):
    """A bug in the proxy: this exchange ends, no other is touched."""

    code = "internal-error"
    status = 500
    text = "the proxy failed to handle the request"


class NotImplementedByProxy(ProxyError):
    """A transfer coding that the proxy does not know (RFC 9112 §6.1)."""

    code = "not-implemented"
    status = 501
    text = "this transfer coding is not understood"


class BadVersion(ProxyError):
    """An HTTP version that the proxy does not speak."""

    code = "bad-version"
    status = 505
    text = "this HTTP version is not spoken here"


# -- what operators meet -----------------------------------------------------


@attrs.frozen
class Mistake:
    """One thing wrong in a configuration file or an API body.

    :ivar path: the key path, such as ``app[2].backends[0]``; empty for the
        document as a whole.
    :ivar message: what is wrong and what to change, one sentence.
    :ivar line: the line in the file, from 1; 0 where there is no file.
    """

    path: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigurationError(ScalingoProxyError):
    """A configuration or an app record that cannot be used.

    :ivar mistakes: every mistake found, never only the first.
    """

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(map(str, self.mistakes)))


class CertificateMistake(ConfigurationError):
    """A certificate or its key that cannot be served.

    The path of each mistake is ``certificate`` or ``key``.
    """

    @property
    def field(self) -> str:
        """What the first mistake is in."""
        return self.mistakes[0].path

    @property
    def sentence(self) -> str:
        """What the first mistake is."""
        return self.mistakes[0].message


class DomainTaken(ScalingoProxyError):
    """A domain belongs to one app, and this one belongs to another.

    :ivar domain: the domain asked for.
    :ivar owner: the name of the app that has it.
    """

    def __init__(self, domain: str, owner: str) -> None:
        self.domain = domain
        self.owner = owner
        super().__init__(f"domain {domain!r} belongs to app {owner!r}")


def errors_by_code() -> dict[str, type[ProxyError]]:
    """Every error a client can meet, by its reason code."""
    return {error.code: error for error in ProxyError.__subclasses__()}
