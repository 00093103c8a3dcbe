"""What became of one request, and why, as plain values: a record read backwards.

Reads a :class:`~scalingo_proxy.model.Record` and what it refers to, at the
moment somebody asks; nothing of this runs while the request does.  No header
and no byte of a body is in a record, so none is told; the path is told as the
request log tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from scalingo_proxy.model import Record
from scalingo_proxy.routing.members import Membership
from scalingo_proxy.routing.trail import (
    Attempt,
    Denied,
    PassedOver,
    Waited,
    attempt_so_far,
    attempts_in,
    has_further_attempt,
)

__all__ = ["explained"]

_ITS_TURN = "it had room, and it was its turn"
_TRIAL = "its quarantine was over, and this request tried whether it is well"
_NOT_ITS_TURN = "could have been chosen; it was the turn of another"


def explained(record: Record, state: str, now: float, query: bool = True) -> dict[str, Any]:
    """Everything there is to tell of *record*, JSON-shaped.

    :param state: ``finished``, or what the exchange waits for.
    :param now: the moment of the proxy's clock; durations of what is not over
        end here.
    :param query: whether the query of the path is told.
    """
    end = now if record.finished_at is None else record.finished_at
    return {
        "request_id": record.request_id,
        "state": state,
        "at": _wall(record, record.started_at),
        "from": record.client,
        "listener": record.listener,
        "protocol": record.protocol,
        "tls": record.tls,
        "method": record.method,
        "host": record.host,
        "path": record.path if query else record.path.partition("?")[0],
        "route": _route(record),
        "backends": list(_backends(record)),
        "waits": list(_waits(record, now)),
        "queue_ms": _ms(record.queue_seconds),
        "attempts": list(_attempts(record, state, end)),
        "denied": [step.why for step in record.trail or () if isinstance(step, Denied)],
        "status": record.status,
        "code": record.code,
        "cause": _cause(record, state),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "first_byte_ms": _since_start(record, record.first_byte_at),
        "duration_ms": _ms(end - record.started_at),
    }


def _route(record: Record) -> dict[str, str] | None:
    route = record.route
    if route is None:
        return None
    return {"app": route.app.name, "domain": route.domain, "resolver": route.resolver}


def _cause(record: Record, state: str) -> str:
    if record.code != "-":
        return record.cause or record.code
    if state != "finished":
        return "it is under way"
    if not record.attempts:
        return "the proxy redirected the client to the address that the app wants"
    return _good_end(record)


def _good_end(record: Record) -> str:
    if record.status == 101 or record.tls == "passthrough":
        return "the tunnel ended, both sides in order"
    return "the backend's answer was relayed to its end"


# -- who was considered ----------------------------------------------------------


def _backends(record: Record) -> Iterator[dict[str, Any]]:
    """Each backend the pool had, what became of it, and why."""
    serving, draining, sidelined = record.lineup or ((), (), ())
    said: dict[str, tuple[str, str, float | None]] = {}
    for step in record.trail or ():
        if isinstance(step, PassedOver):
            said.update((address, ("full", step.why, None)) for address in step.backends)
    said.update((each.address, (each.health, each.reason, each.since)) for each in sidelined)
    for attempt in attempts_in(record.trail):
        said[attempt.backend] = ("tried", attempt.end, None)
    if has_further_attempt(record):
        is_trial = any(each.address == record.backend for each in sidelined)
        said[record.backend] = ("chosen", _TRIAL if is_trial else _ITS_TURN, None)
    known = {member.backend.address for member in serving}
    for address in [address for address, (word, _, _) in said.items() if word in ("tried", "chosen")]:
        if address not in known:
            yield _backend(record, address, *said[address])
    other = ("not-its-turn", _NOT_ITS_TURN) if record.attempts else ("not-asked", _not_asked(record))
    for member in serving:
        address = member.backend.address
        yield _backend(record, address, *said.get(address, (*other, None)))
    for member in draining:
        if said.get(member.backend.address, ("",))[0] != "tried":
            since = member.membership_since if member.membership is Membership.DRAINING else None
            yield _backend(
                record, member.backend.address, "draining", "it was no longer a backend of the app", since
            )


def _not_asked(record: Record) -> str:
    return "none was asked yet" if record.code == "-" else f"none was asked: {record.cause or record.code}"


def _backend(record: Record, address: str, verdict: str, reason: str, since: float | None) -> dict[str, Any]:
    told = None if since is None else _wall(record, since)
    return {"address": address, "verdict": verdict, "reason": reason, "since": told}


# -- what was tried ----------------------------------------------------------------


def _waits(record: Record, now: float) -> Iterator[dict[str, Any]]:
    for step in record.trail or ():
        if isinstance(step, Waited):
            seconds = now - step.at if step.seconds is None else step.seconds
            yield {"after_ms": _since_start(record, step.at), "ms": _ms(seconds), "reason": step.why}


def _attempts(record: Record, state: str, end: float) -> Iterator[dict[str, Any]]:
    began = record.started_at
    for step in record.trail or ():
        if isinstance(step, Attempt):
            yield _attempt(record, step, began, None)
            began = step.at
        elif isinstance(step, Waited):
            began = step.at + (step.seconds or 0.0)
    if has_further_attempt(record):
        if record.code != "-":
            word = record.cause or record.code
        else:
            word = _good_end(record) if state == "finished" else "it is under way"
        yield _attempt(record, attempt_so_far(record, end, word), began, record.first_byte_at)


def _attempt(record: Record, attempt: Attempt, began: float, first_byte_at: float | None) -> dict[str, Any]:
    return {
        "backend": attempt.backend,
        "after_ms": _since_start(record, began),
        "connection": "kept" if attempt.reused else "new",
        "connect_ms": _ms(attempt.connect_seconds),
        "sent_bytes": attempt.sent_bytes,
        "first_byte_ms": _since_start(record, first_byte_at),
        "ended_ms": _since_start(record, attempt.at),
        "end": attempt.end,
    }


# -- times -------------------------------------------------------------------------


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _since_start(record: Record, moment: float | None) -> float | None:
    return None if moment is None else _ms(moment - record.started_at)


def _wall(record: Record, moment: float) -> str:
    seconds = record.wall_time + (moment - record.started_at)
    told = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")
