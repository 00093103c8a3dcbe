"""What the admin API answers: a status, a body, and one shape for every refusal.

Translates the errors of the layers below into statuses and stable codes; this
is the only place that does.  Knows no twisted.web.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from scalingo_proxy.errors import (
    CertificateMistake,
    ConfigurationError,
    DomainTaken,
    Mistake,
    ResolverUnavailable,
)
from scalingo_proxy.services.certificate_control import CertificateInUse, ToldElsewhere, UnknownCertificate
from scalingo_proxy.services.control_results import DescribedByFile, NotReady, UnknownApp
from scalingo_proxy.services.drain_control import UnknownBackend
from scalingo_proxy.services.explain import UnknownRequest
from scalingo_proxy.services.readiness import BackendsNotReady
from scalingo_proxy.services.ready_changes import Superseded
from scalingo_proxy.services.reload_guard import TopologyHeldBack
from scalingo_proxy.services.topology_control import NothingHeldBack, held_record

__all__ = ["Answer", "Refusal", "answer_for_error", "json_answer", "refusal_for_error", "text_answer"]


@attrs.frozen
class Answer:
    """One response: everything but the connection.

    :ivar headers: pairs beyond those that every answer carries.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """An answer that is one JSON document."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    return Answer(body, status, headers=tuple(headers))


def text_answer(text: str, content_type: str = "text/plain; charset=utf-8", status: int = 200) -> Answer:
    """An answer for people or for a scraper."""
    return Answer(text.encode("utf-8"), status, content_type)


class Refusal(Exception):
    """The API says no: raised anywhere below a route, answered as JSON.

    :ivar status: the HTTP status.
    :ivar code: a stable word for programs.
    :ivar message: one sentence for people.
    :ivar mistakes: everything wrong with what was sent.
    :ivar beside: further members of the answer, next to ``error``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        mistakes: Iterable[Mistake] = (),
        headers: Iterable[tuple[str, str]] = (),
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.mistakes = tuple(mistakes)
        self.headers = tuple(headers)
        self.beside = dict(beside or {})

    def answer(self) -> Answer:
        """The refusal as ``{"error": {"code", "message", "field", "mistakes"}}``."""
        field = self.mistakes[0].path if self.mistakes else ""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "field": field or None}
        if self.mistakes:
            error["mistakes"] = [_told(mistake) for mistake in self.mistakes]
        return json_answer({"error": error, **self.beside}, self.status, self.headers)


def answer_for_error(error: BaseException) -> Answer | None:
    """The answer to an error raised on purpose, or ``None`` for a bug of ours."""
    refusal = refusal_for_error(error)
    return refusal.answer() if refusal is not None else None


def refusal_for_error(error: BaseException) -> Refusal | None:
    """The refusal that an error raised on purpose means, or ``None`` for a bug of ours."""
    return error if isinstance(error, Refusal) else _refusal_for(error)


def _refusal_for(error: BaseException) -> Refusal | None:
    if isinstance(error, CertificateMistake):
        return Refusal(422, "broken-certificate", str(error), mistakes=error.mistakes)
    if isinstance(error, ConfigurationError):
        return Refusal(400, "invalid", str(error), mistakes=error.mistakes)
    if isinstance(error, DomainTaken):
        mistake = Mistake("domains", str(error))
        beside = {"domain": error.domain, "owner": error.owner}
        return Refusal(409, "domain-taken", str(error), mistakes=(mistake,), beside=beside)
    if isinstance(error, UnknownApp):
        return Refusal(404, "unknown-app", str(error))
    if isinstance(error, UnknownBackend):
        return Refusal(404, "unknown-backend", str(error))
    if isinstance(error, UnknownRequest):
        return Refusal(404, "unknown-request", str(error))
    if isinstance(error, DescribedByFile):
        return Refusal(409, "described-by-file", str(error))
    if isinstance(error, UnknownCertificate):
        return Refusal(404, "unknown-certificate", str(error))
    if isinstance(error, ToldElsewhere):
        return Refusal(409, "told-elsewhere", str(error))
    if isinstance(error, CertificateInUse):
        return Refusal(409, "certificate-in-use", str(error), beside={"apps": list(error.apps)})
    if isinstance(error, TopologyHeldBack):
        return Refusal(409, "held-back", str(error), beside={"held": held_record(error.held)})
    if isinstance(error, NothingHeldBack):
        return Refusal(409, "nothing-held-back", str(error))
    if isinstance(error, BackendsNotReady):
        return Refusal(
            422, "not-ready", str(error), beside={"probes": [each.told() for each in error.tryouts]}
        )
    if isinstance(error, Superseded):
        return Refusal(409, "superseded", str(error))
    if isinstance(error, NotReady):
        return Refusal(503, "not-ready", str(error), headers=[("Retry-After", "1")])
    if isinstance(error, ResolverUnavailable):
        return Refusal(503, "store-unavailable", error.detail)
    return None


def _told(mistake: Mistake) -> dict[str, Any]:
    told: dict[str, Any] = {"field": mistake.path or None, "message": mistake.message}
    if mistake.line:
        told["line"] = mistake.line
    return told
