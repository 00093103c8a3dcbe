"""The admin API about single requests: what became of them, and why."""

from __future__ import annotations

from scalingo_proxy.services.admin_answers import Answer, Refusal, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call
from scalingo_proxy.services.explain import Explain, UnknownRequest

__all__ = ["RequestsApi"]


class RequestsApi:
    """``/requests/ID``."""

    def __init__(self, explain: Explain) -> None:
        self._explain = explain

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        return [AdminRoute("GET", f"{API}/requests/{{id}}", self._get)]

    def _get(self, call: Call) -> Answer:
        try:
            latest, *earlier = self._explain.explain(call.names["id"])
        except UnknownRequest as error:
            raise Refusal(404, "unknown-request", str(error)) from None
        return json_answer({**latest, "earlier": earlier})
