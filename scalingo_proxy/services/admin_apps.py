"""The admin API about apps: list, read, write, delete, and their state.

Turns calls into operations of :class:`~scalingo_proxy.services.control.Control`
and their results into answers; decides nothing itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.errors import Mistake
from scalingo_proxy.model import App, AppState
from scalingo_proxy.resolvers.app_record import record_from_app
from scalingo_proxy.services.admin_answers import Answer, Refusal, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call
from scalingo_proxy.services.control import AppWritten, Control
from scalingo_proxy.services.reserved_settings import reserved_warnings

__all__ = ["AppsApi"]

_STATES = {
    "pause": AppState.PAUSED,
    "resume": AppState.RUNNING,
    "stop": AppState.STOPPED,
    "start": AppState.RUNNING,
}

_MAX_PER_PAGE = 1000


class AppsApi:
    """``/apps`` and what is below ``/apps/NAME`` but its backends."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        app = f"{API}/apps/{{name}}"
        return [
            AdminRoute("GET", f"{API}/apps", self._list, query=("q", "page", "per_page")),
            AdminRoute("GET", app, self._get),
            AdminRoute("PUT", app, self._put, takes_body=True),
            AdminRoute("PATCH", app, self._patch, takes_body=True, takes_patch=True),
            AdminRoute("DELETE", app, self._delete),
            *(AdminRoute("POST", f"{app}/{verb}", self._state_setter(_STATES[verb])) for verb in _STATES),
        ]

    def _list(self, call: Call) -> Answer:
        page = _whole_number(call, "page", 1, 1_000_000_000)
        per_page = _whole_number(call, "per_page", 100, _MAX_PER_PAGE)
        found = self._control.apps(call.query.get("q", ""), page, per_page)
        return json_answer(
            {
                "apps": [self._told(app) for app in found.apps],
                "page": found.page,
                "per_page": found.per_page,
                "total": found.total,
            }
        )

    def _get(self, call: Call) -> Answer:
        return json_answer(self._told(self._control.app(call.names["name"])))

    def _put(self, call: Call) -> Deferred[Answer]:
        def written(done: AppWritten) -> Answer:
            return json_answer(self._told_after(done.app), 201 if done.is_new else 200)

        return self._control.put_app(call.names["name"], _record(call.body)).addCallback(written)

    def _patch(self, call: Call) -> Deferred[Answer]:
        writing = self._control.patch_app(call.names["name"], _record(call.body))
        return writing.addCallback(lambda app: json_answer(self._told_after(app)))

    def _delete(self, call: Call) -> Deferred[Answer]:
        name = call.names["name"]

        def deleted(restored: App | None) -> Answer:
            if restored is None:
                return json_answer({"deleted": name, "app": None, "message": f"app {name} is removed"})
            app = self._told(restored)
            message = f"app {name} is what {app['source']} describes again, not what the admin API was told"
            return json_answer({"deleted": name, "app": app, "message": message})

        return self._control.delete_app(name).addCallback(deleted)

    def _state_setter(self, state: AppState) -> Any:
        def set_state(call: Call) -> Deferred[Answer]:
            writing = self._control.set_state(call.names["name"], state)
            return writing.addCallback(lambda app: json_answer(self._told(app)))

        return set_state

    def _told(self, app: App) -> dict[str, Any]:
        return {**record_from_app(app), "source": self._control.source(app.name)}

    def _told_after(self, app: App) -> dict[str, Any]:
        """The app, and which of its settings were stored in vain."""
        warnings = reserved_warnings(app)
        return {**self._told(app), **({"warnings": warnings} if warnings else {})}


def _record(body: dict[str, Any]) -> dict[str, Any]:
    """The record alone: what is told beside it may come back with it."""
    return {key: value for key, value in body.items() if key not in ("source", "warnings")}


def _whole_number(call: Call, key: str, default: int, highest: int) -> int:
    text = call.query.get(key, str(default))
    # Ten digits are plenty, and int() of a long text is quadratic.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= highest):
        mistake = Mistake(key, f"must be a whole number from 1 to {highest}")
        raise Refusal(400, "invalid", str(mistake), mistakes=[mistake])
    return int(text)
