"""The admin API about apps: list, read, write, delete, and their state.

Turns calls into operations of :class:`~scalingo_proxy.services.control.Control`
and their results into answers; decides nothing itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.model import App, AppState
from scalingo_proxy.resolvers.app_record import record_from_app
from scalingo_proxy.resolvers.strict_tables import shown
from scalingo_proxy.services.admin_answers import Answer, json_answer
from scalingo_proxy.services.admin_backends import waits_of
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call, page_of
from scalingo_proxy.services.certificate_control import CertificateControl
from scalingo_proxy.services.control import AppWritten, Control
from scalingo_proxy.services.reserved_settings import reserved_warnings

__all__ = ["AppsApi"]

_STATES = {
    "pause": AppState.PAUSED,
    "resume": AppState.RUNNING,
    "stop": AppState.STOPPED,
    "start": AppState.RUNNING,
}


class AppsApi:
    """``/apps`` and what is below ``/apps/NAME`` but its backends."""

    def __init__(self, control: Control, certificates: CertificateControl) -> None:
        self._control = control
        self._certificates = certificates

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        app = f"{API}/apps/{{name}}"
        return [
            AdminRoute("GET", f"{API}/apps", self._list, query=("q", "page", "per_page")),
            AdminRoute("GET", app, self._get),
            AdminRoute("PUT", app, self._put, query=("wait",), takes_body=True),
            AdminRoute("PATCH", app, self._patch, query=("wait",), takes_body=True, takes_patch=True),
            AdminRoute("DELETE", app, self._delete),
            *(AdminRoute("POST", f"{app}/{verb}", self._state_setter(_STATES[verb])) for verb in _STATES),
        ]

    def _list(self, call: Call) -> Answer:
        page, per_page = page_of(call)
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
        app = self._control.app(call.names["name"])
        return json_answer(_with_warnings(self._told(app), self._troubles(app)))

    def _put(self, call: Call) -> Deferred[Answer]:
        ready = bool(waits_of(call, ("ready",)))
        writing = self._control.put_app(call.names["name"], _record(call.body), ready=ready)
        return writing.addCallback(self._written)

    def _patch(self, call: Call) -> Deferred[Answer]:
        ready = bool(waits_of(call, ("ready",)))
        writing = self._control.patch_app(call.names["name"], _record(call.body), ready=ready)
        return writing.addCallback(self._written)

    def _written(self, done: AppWritten) -> Answer:
        told = self._told_after(done.app)
        if done.tryouts:
            told["probes"] = [tryout.told() for tryout in done.tryouts]
        return json_answer(told, 201 if done.is_new else 200)

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
        """The app, and which of its settings were stored in vain, or not for all it is asked for."""
        warnings = [*reserved_warnings(app), *self._doubts(app), *self._troubles(app)]
        return _with_warnings(self._told(app), warnings)

    def _troubles(self, app: App) -> list[str]:
        """What does not work now of what the app asks for."""
        return [f"app {shown(app.name)}: {sentence}" for sentence in self._control.doubts(app)]

    def _doubts(self, app: App) -> list[str]:
        doubts = self._certificates.doubts(app)
        return [f"app {shown(app.name)}: certificate: {sentence}" for sentence in doubts]


def _with_warnings(told: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    return {**told, "warnings": warnings} if warnings else told


def _record(body: dict[str, Any]) -> dict[str, Any]:
    """The record alone: what is told beside it may come back with it."""
    return {key: value for key, value in body.items() if key not in ("source", "warnings", "probes")}
