"""The live values of the status page: each view written out, by the keys of its places.

Between :mod:`scalingo_proxy.services.status_view`, which has the numbers, and
the elements that put the texts into a page.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

from scalingo_proxy.services.live_values import LiveValues
from scalingo_proxy.services.recent_errors import RecentError
from scalingo_proxy.services.status_texts import (
    ago,
    clock_time,
    count,
    line_points,
    milliseconds,
    rate,
    span,
)
from scalingo_proxy.services.status_view import AppRow, AppView, Overview, Totals
from scalingo_proxy.services.traffic import HISTORY_SECONDS, Moment

__all__ = ["APP_COLUMNS", "app_values", "error_keys", "overview_values"]

#: The columns of numbers in a table of apps: key, head, and what the head means.
APP_COLUMNS = (
    ("rate", "req/s", "requests per second, over the last ten seconds"),
    ("in_flight", "in flight", "requests that backends are working on now"),
    ("queued", "queue", "requests that wait for a place at a backend"),
    ("2xx", "2xx", "within the last minute"),
    ("4xx", "4xx", "within the last minute"),
    ("5xx", "5xx", "within the last minute"),
    ("p50", "p50", "half of the last minute's requests took no longer"),
    ("p95", "p95", "95 % of the last minute's requests took no longer"),
    ("up", "backends up", "how many may be given requests, of how many there are"),
)

_FIELDS = ("time", "request", "what", "answer", "code", "app", "backend")


def overview_values(view: Overview) -> LiveValues:
    """Everything on the first page that may change."""
    live = LiveValues()
    _write_totals(live, view.totals)
    for row in view.rows:
        _write_row(live, f"app:{row.app.name}", row)
    _write_errors(live, view.errors, view.now)
    for source in view.sources:
        key = f"source:{source.name}"
        live.texts[f"{key}:state"] = live.states[f"{key}:state"] = "up" if source.is_up else "down"
        live.texts[f"{key}:apps"] = count(source.apps)
        live.texts[f"{key}:updates"] = count(source.updates)
        live.texts[f"{key}:age"] = ago(view.now - source.synced_at) if source.synced_at else "never"
    # Ordered by rate, the rows stay as they are until somebody asks again: rows that move
    # cannot be read.
    names = sorted(row.app.name for row in view.rows) if view.sort == "name" else []
    live.shapes["apps"] = _shape(*names, str(view.total) if names else "")
    live.shapes["errors"] = _shape(str(len(view.errors)))
    live.shapes["alarms"] = _shape(*(alarm.text for alarm in view.alarms))
    live.shapes["sources"] = _shape(*(source.name for source in view.sources))
    return live


def app_values(view: AppView) -> LiveValues:
    """Everything on the page of one app that may change."""
    live = LiveValues()
    _write_row(live, "app", view.row)
    for status in view.backends:
        key = f"backend:{status.address}:{status.membership}"
        live.texts[f"{key}:state"] = live.states[f"{key}:state"] = status.state
        live.texts[f"{key}:reason"] = status.reason
        live.texts[f"{key}:since"] = status.since.replace("T", " ").partition(".")[0]
        live.texts[f"{key}:in_flight"] = count(status.in_flight)
        live.texts[f"{key}:tunnels"] = count(status.tunnels)
        if status.membership == "draining":
            gone = view.drained_for.get(status.address, 0.0)
            left = max(view.drain_seconds - gone, 0.0)
            live.texts[f"{key}:left"] = "done" if status.is_drained else f"{span(left)} left"
            live.points[f"{key}:progress"] = f"{min(gone, view.drain_seconds):.0f}"
    _write_errors(live, view.errors, view.now)
    app = view.row.app
    live.shapes["app"] = _shape(app.state.value, view.source, *app.domains)
    live.shapes["backends"] = _shape(*(f"{each.address} {each.membership}" for each in view.backends))
    live.shapes["certificates"] = _shape(*(each.fingerprint for each in view.certificates))
    live.shapes["errors"] = _shape(str(len(view.errors)))
    return live


def error_keys(number: int) -> dict[str, str]:
    """The keys of one line of a table of errors, by field."""
    return {field: f"error:{number}:{field}" for field in _FIELDS}


def _write_totals(live: LiveValues, totals: Totals) -> None:
    now, history = totals.traffic, totals.history
    live.texts |= {
        "total:requests": rate(now.requests),
        "total:errors": rate(now.errors),
        "total:p50": milliseconds(now.p50),
        "total:p95": milliseconds(now.p95),
        "total:p99": milliseconds(now.p99),
        "total:connections": count(now.connections),
        "total:in_flight": count(totals.in_flight),
        "total:tunnels": count(totals.tunnels),
        "total:queued": count(totals.queued),
        "total:apps": count(totals.apps),
    }
    live.states["total:errors"] = "bad" if now.errors else ""
    _write_line(live, "requests", history, lambda moment: moment.requests)
    _write_line(live, "errors", history, lambda moment: moment.errors)
    _write_line(live, "connections", history, lambda moment: moment.connections)
    slowest = max((moment.p99 or 0.0 for moment in history), default=0.0)
    for name in ("p50", "p95", "p99"):
        values = [getattr(moment, name) for moment in history]
        live.points[f"total:{name}"] = line_points(values, slowest, HISTORY_SECONDS)
    live.texts["peak:latency"] = f"highest {milliseconds(slowest or None)}"


def _write_line(
    live: LiveValues, name: str, history: Sequence[Moment], number: Callable[[Moment], float]
) -> None:
    values = [number(moment) for moment in history]
    highest = max(values, default=0.0)
    live.points[f"total:{name}"] = line_points(values, max(highest, 1.0), HISTORY_SECONDS)
    live.texts[f"peak:{name}"] = f"highest {count(highest)}"


def _write_row(live: LiveValues, key: str, row: AppRow) -> None:
    traffic, state = row.traffic, row.app.state.value
    live.texts |= {
        f"{key}:state": state,
        f"{key}:rate": rate(traffic.rate),
        f"{key}:in_flight": count(row.in_flight),
        f"{key}:queued": count(row.queued),
        f"{key}:2xx": count(traffic.classes[2]),
        f"{key}:4xx": count(traffic.classes[4]),
        f"{key}:5xx": count(traffic.classes[5]),
        f"{key}:p50": milliseconds(traffic.p50),
        f"{key}:p95": milliseconds(traffic.p95),
        f"{key}:up": f"{row.backends_up} of {row.backends}",
    }
    live.states |= {
        f"{key}:state": state,
        f"{key}:5xx": "bad" if traffic.classes[5] else "",
        f"{key}:queued": "warn" if row.queued else "",
        f"{key}:up": "bad" if not row.backends_up else "warn" if row.backends_up < row.backends else "",
    }


def _write_errors(live: LiveValues, errors: Sequence[RecentError], now: float) -> None:
    for number, error in enumerate(errors):
        keys = error_keys(number)
        live.texts |= {
            keys["time"]: clock_time(error.wall_time),
            keys["request"]: error.request_id,
            keys["what"]: f"{error.method} {error.host}{error.path}" if error.method != "-" else error.host,
            keys["answer"]: str(error.status) if error.status else "–",
            keys["code"]: error.code if error.code != "-" else "answered by the backend",
            keys["app"]: error.app or "–",
            keys["backend"]: error.backend or "–",
        }
        live.states[keys["answer"]] = "bad" if error.status >= 500 or not error.status else "warn"
        live.links[keys["request"]] = error.request_id


def _shape(*parts: str) -> str:
    return f"{crc32(chr(0).join(parts).encode('utf-8', 'backslashreplace')):08x}"
