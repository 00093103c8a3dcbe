"""The admin API about the backends of an app: the set, and how each one is.

Decides only how a wait is answered: when the wait is over, or when the app's
drain deadline has passed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.services.admin_answers import Answer, Refusal, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call
from scalingo_proxy.services.backend_status import BackendStatus
from scalingo_proxy.services.control import BackendsChange, Control

__all__ = ["BackendsApi", "waits_of"]


class BackendsApi:
    """``/apps/NAME/backends``."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        path = f"{API}/apps/{{name}}/backends"
        return [
            AdminRoute("GET", path, self._get),
            AdminRoute("PUT", path, self._put, query=("wait",), takes_body=True),
        ]

    def _get(self, call: Call) -> Answer:
        return json_answer(_told(self._control.backends(call.names["name"])))

    def _put(self, call: Call) -> Deferred[Answer]:
        waits = waits_of(call, ("ready", "drained"))
        ready = "ready" in waits
        writing = self._control.set_backends(call.names["name"], _backends(call.body), ready=ready)
        if "drained" in waits:
            return writing.addCallback(_when_drained)
        return writing.addCallback(lambda change: json_answer(_told_change(change)))


def _when_drained(change: BackendsChange) -> Deferred[Answer]:
    def over(is_drained: bool) -> Answer:
        told = _told_change(change)
        if not is_drained:
            raise _still_busy(told, change.drain_seconds)
        return json_answer(told)

    return change.drained().addCallback(over)


def _told(statuses: Iterable[BackendStatus]) -> dict[str, Any]:
    return {"backends": [status.told() for status in statuses]}


def _told_change(change: BackendsChange) -> dict[str, Any]:
    probes = {"probes": [tryout.told() for tryout in change.tryouts]} if change.tryouts else {}
    return {**_told(change.statuses()), **probes}


def waits_of(call: Call, understood: Sequence[str]) -> frozenset[str]:
    """What the call says it waits for, in ``?wait=``.

    :raises ConfigurationError: for anything else.
    """
    words = call.query["wait"].split(",") if "wait" in call.query else []
    if any(word not in understood for word in words) or len(set(words)) < len(words):
        told = '"ready", "drained" or "ready,drained"' if len(understood) > 1 else f'"{understood[0]}"'
        raise ConfigurationError([Mistake("wait", f"must be {told}")])
    return frozenset(words)


def _backends(body: dict[str, Any]) -> Any:
    """The new set as it was told; what is in it is judged by the operation.

    :raises ConfigurationError: with every mistake of the table around it.
    """
    unknown = [key for key in body if key != "backends"]
    mistakes = [Mistake(key, f'unknown key "{key}"; did you mean "backends"?') for key in unknown]
    if "backends" not in body:
        mistakes.append(Mistake("backends", "is missing"))
    if mistakes:
        raise ConfigurationError(mistakes)
    return body["backends"]


def _still_busy(told: dict[str, Any], seconds: float) -> Refusal:
    busy = [each for each in told["backends"] if each["membership"] == "draining" and not each["is_drained"]]
    noun = "backend is" if len(busy) == 1 else "backends are"
    message = (
        f"the new set is in effect, but {len(busy)} removed {noun} still busy after {seconds:g} seconds; "
        "do not kill them yet"
    )
    return Refusal(504, "still-busy", message, beside=told)
