"""The admin API about the address lists that hold for everybody.

Turns calls into operations of
:class:`~scalingo_proxy.services.access_control.AccessControl`; an app's own
lists are part of its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.services.access_control import AccessControl
from scalingo_proxy.services.admin_answers import Answer, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call

__all__ = ["AccessApi"]


class AccessApi:
    """``/access``."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        path = f"{API}/access"
        return [
            AdminRoute("GET", path, self._get),
            AdminRoute("PUT", path, self._put, takes_body=True),
        ]

    def _get(self, _call: Call) -> Answer:
        return json_answer(self._told(self._access.told))

    def _put(self, call: Call) -> Deferred[Answer]:
        # What was read may be put back as it is.
        record = {key: value for key, value in call.body.items() if key != "file"}
        return self._access.put(record).addCallback(lambda told: json_answer(self._told(told)))

    def _told(self, told: Mapping[str, Any]) -> dict[str, Any]:
        return {**told, "file": dict(self._access.counts)}
