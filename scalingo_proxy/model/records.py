"""What came of things: of a probe, of a lease, of an exchange or tunnel."""

from __future__ import annotations

import enum
from typing import Any

import attrs

from scalingo_proxy.model.routes import Route

__all__ = ["Outcome", "ProbeResult", "Record"]


@attrs.frozen
class ProbeResult:
    """What one probe of one backend found.

    :ivar reason: what was done and what happened, one sentence for people.
    :ivar url: what was probed.
    :ivar status: the status of an HTTP answer; 0 when there was none.
    :ivar seconds: from the first attempt to connect to the verdict.
    :ivar is_answer: the app itself answered, over HTTP; that a connection was
        accepted or a handshake completed says much less.
    :ivar is_inconclusive: the proxy could not make the probe, for want of
        descriptors or the like: nothing is known of the backend.
    """

    passed: bool
    reason: str
    url: str
    status: int = 0
    seconds: float = 0.0
    is_answer: bool = False
    is_inconclusive: bool = False


class Outcome(enum.Enum):
    """How a lease ended: what the backend is judged by."""

    COMPLETED = "completed"
    CONNECT_FAILED = "connect-failed"
    CLOSED = "closed"
    BAD_RESPONSE = "bad-response"
    TIMED_OUT = "timed-out"
    #: The client's doing, or the proxy's own: the backend is not to blame.
    ABANDONED = "abandoned"


class Record:
    """What there is to tell of one exchange or tunnel, filled in as it goes.

    A plain slotted object, because one is made for every request.  Moments
    are on the proxy's monotonic clock; a moment that never came is ``None``.

    :ivar wall_time: when it began, seconds since the epoch.
    :ivar code: the reason code of an error of ours, or ``"-"``.
    :ivar cause: what exactly was wrong, one sentence, with that code.
    :ivar route: the Route that was resolved.
    :ivar lineup: the pool's members when it last chose: those that served, those
        that drained, and who of the former could not be chosen, with the reason.
    :ivar reused: whether the last attempt used a connection that was kept.
    :ivar sent_bytes: what the last attempt handed over for its backend.
    :ivar trail: what happened off the ordinary way (:mod:`scalingo_proxy.routing.trail`).
    """

    __slots__ = (
        "app",
        "attempts",
        "backend",
        "bytes_in",
        "bytes_out",
        "cause",
        "client",
        "code",
        "connect_seconds",
        "finished_at",
        "first_byte_at",
        "host",
        "lineup",
        "listener",
        "method",
        "path",
        "protocol",
        "queue_seconds",
        "referer",
        "request_id",
        "reused",
        "route",
        "sent_bytes",
        "started_at",
        "status",
        "tls",
        "trail",
        "user_agent",
        "wall_time",
    )

    def __init__(
        self,
        started_at: float,
        wall_time: float,
        client: str,
        listener: str,
        method: str = "-",
        host: str = "-",
        path: str = "-",
        protocol: str = "-",
        request_id: str = "-",
    ) -> None:
        self.started_at = started_at
        self.wall_time = wall_time
        self.client = client
        self.listener = listener
        self.method = method
        self.host = host
        self.path = path
        self.protocol = protocol
        self.request_id = request_id
        self.app = ""
        self.backend = ""
        self.status = 0
        self.code = "-"
        self.bytes_in = 0
        self.bytes_out = 0
        self.attempts = 0
        self.queue_seconds = 0.0
        self.connect_seconds = 0.0
        self.first_byte_at: float | None = None
        self.finished_at: float | None = None
        self.tls = "-"
        self.referer = ""
        self.user_agent = ""
        self.cause = ""
        self.route: Route | None = None
        self.lineup: tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]] | None = None
        self.reused = False
        self.sent_bytes = 0
        self.trail: list[object] | None = None
