"""The admin API about one backend of an app: taking it out, and waiting until it is safe to kill."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.services.admin_answers import Answer, Refusal, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call
from scalingo_proxy.services.control import BackendsChange, Control
from scalingo_proxy.services.drain_control import drain_backend

__all__ = ["DrainApi"]


class DrainApi:
    """``/apps/NAME/backends/ADDRESS``."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        path = f"{API}/apps/{{name}}/backends/{{address}}"
        return [AdminRoute("DELETE", path, self._delete, query=("wait",))]

    def _delete(self, call: Call) -> Deferred[Answer]:
        wait = call.query.get("wait")
        if wait not in (None, "drained"):
            raise ConfigurationError([Mistake("wait", 'must be "drained"')])
        taking_out = drain_backend(self._control, call.names["name"], call.names["address"])
        if wait is None:
            return taking_out.addCallback(lambda change: json_answer(_told(change)))

        def wait_for_it(change: BackendsChange) -> Deferred[Answer]:
            return change.drained().addCallback(lambda is_drained: _over(change, is_drained))

        return taking_out.addCallback(wait_for_it)


def _over(change: BackendsChange, is_drained: bool) -> Answer:
    told = _told(change)
    if not is_drained:
        message = (
            f"the backend is taken out, but still busy after {change.drain_seconds:g} seconds; "
            "do not kill it yet"
        )
        raise Refusal(504, "still-busy", message, beside=told)
    return json_answer(told)


def _told(change: BackendsChange) -> dict[str, Any]:
    return {"backends": [status.told() for status in change.statuses()]}
