"""The admin API about what goes on: rates and latencies of a moment ago, as the status page shows them."""

from __future__ import annotations

from typing import Any

import attrs

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.services.admin_answers import Answer, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call, page_of
from scalingo_proxy.services.backend_status import rfc3339
from scalingo_proxy.services.recent_errors import RecentError
from scalingo_proxy.services.status_view import SORTS, AppRow, StatusView, Totals

__all__ = ["TrafficApi"]


class TrafficApi:
    """``/traffic``."""

    def __init__(self, view: StatusView) -> None:
        self._view = view

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        return [AdminRoute("GET", f"{API}/traffic", self._get, query=("q", "sort", "page", "per_page"))]

    def _get(self, call: Call) -> Answer:
        page, per_page = page_of(call)
        sort = call.query.get("sort", "rate")
        if sort not in SORTS:
            raise ConfigurationError([Mistake("sort", f"must be one of {', '.join(SORTS)}")])
        view = self._view.overview(call.query.get("q", ""), page, per_page, sort)
        return json_answer(
            {
                "totals": _totals(view.totals),
                "alarms": [attrs.asdict(alarm) for alarm in view.alarms],
                "apps": [_app(row) for row in view.rows],
                "page": page,
                "per_page": per_page,
                "total": view.total,
                "errors": [_error(error) for error in view.errors],
            }
        )


def _totals(totals: Totals) -> dict[str, Any]:
    now = totals.traffic
    return {
        "requests_per_second": round(now.requests, 3),
        "errors_per_second": round(now.errors, 3),
        "p50_ms": _ms(now.p50),
        "p95_ms": _ms(now.p95),
        "p99_ms": _ms(now.p99),
        "client_connections": now.connections,
        "apps": totals.apps,
        "in_flight": totals.in_flight,
        "tunnels": totals.tunnels,
        "queued": totals.queued,
        "draining": totals.draining,
    }


def _app(row: AppRow) -> dict[str, Any]:
    traffic = row.traffic
    classes = {f"{first}xx": traffic.classes[first] for first in range(1, 6)}
    return {
        "name": row.app.name,
        "state": row.app.state.value,
        "requests_per_second": round(traffic.rate, 3),
        "last_minute": {**classes, "tunnels": traffic.classes[0]},
        "p50_ms": _ms(traffic.p50),
        "p95_ms": _ms(traffic.p95),
        "in_flight": row.in_flight,
        "queued": row.queued,
        "backends": row.backends,
        "backends_up": row.backends_up,
    }


def _error(error: RecentError) -> dict[str, Any]:
    told = attrs.asdict(error)
    return {"at": rfc3339(told.pop("wall_time")), **told}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
