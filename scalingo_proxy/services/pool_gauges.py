"""What the metrics page tells of pools and their backends, as it is when it is fetched.

A part of what :mod:`scalingo_proxy.services.gauges` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from scalingo_proxy.routing.members import HealthState
from scalingo_proxy.routing.pool import Pool
from scalingo_proxy.services.exposition import Family, escape_label
from scalingo_proxy.services.metrics import OTHER_APPS, Metrics

__all__ = ["add_pools", "add_verdicts"]

_UP, _UNPROVEN = HealthState.UP, HealthState.UNPROVEN


def add_pools(metrics: Metrics, pools: Iterable[Pool]) -> None:
    """Requests in flight per app, and which backends may be used.

    Backends are told of apps that have a series of their own only.
    """
    metrics.add_lines(
        Family(
            "scalingo_proxy_requests_in_flight",
            "gauge",
            "Requests that backends are working on now, without tunnels.",
            ("app",),
        ),
        lambda: _in_flight(metrics, pools),
    )
    metrics.add_lines(
        Family(
            "scalingo_proxy_requests_queued",
            "gauge",
            "Requests that wait for a place at a backend, or for a paused app to go on.",
            ("app",),
        ),
        lambda: _queued(metrics, pools),
    )
    metrics.add_lines(
        Family(
            "scalingo_proxy_backend_up",
            "gauge",
            "Whether a backend may be given requests (1), or is quarantined or down (0).",
            ("app", "backend"),
        ),
        lambda: _backends_up(metrics, pools),
    )


def add_verdicts(metrics: Metrics, pools: Iterable[Pool], wall_time: Callable[[float], float]) -> None:
    """Since when a backend gets no requests, and by which verdict; of apps that have a series of their own.

    :param wall_time: turns a moment of the pools' clock into seconds since the epoch.
    """
    family = Family(
        "scalingo_proxy_backend_away_since_timestamp_seconds",
        "gauge",
        "When a backend was quarantined or found down, since the epoch; those that may be used are not told.",
        ("app", "backend", "health"),
    )
    metrics.add(family, lambda: _away(metrics, pools, wall_time))


def _in_flight(metrics: Metrics, pools: Iterable[Pool]) -> Iterator[str]:
    numbers: dict[str, int] = {}
    label_of = metrics.app_label
    for pool in pools:
        label = label_of(pool.app.name)
        number = numbers.get(label, 0)
        for member in pool.members:
            number += member.in_flight
        for member in pool.draining:
            number += member.in_flight
        numbers[label] = number
    for label, number in numbers.items():
        yield f'scalingo_proxy_requests_in_flight{{app="{label}"}} {number}\n'


def _queued(metrics: Metrics, pools: Iterable[Pool]) -> Iterator[str]:
    numbers: dict[str, int] = {}
    label_of = metrics.app_label
    for pool in pools:
        label = label_of(pool.app.name)
        numbers[label] = numbers.get(label, 0) + pool.queue.length
    for label, number in numbers.items():
        yield f'scalingo_proxy_requests_queued{{app="{label}"}} {number}\n'


def _away(
    metrics: Metrics, pools: Iterable[Pool], wall_time: Callable[[float], float]
) -> Iterator[tuple[tuple[str, str, str], float]]:
    for pool in pools:
        label = metrics.app_label(pool.app.name)
        if label != OTHER_APPS:
            for member in pool.members:
                if member.health is not _UP and member.health is not _UNPROVEN:
                    labels = (label, member.backend.address, member.health.value)
                    yield labels, round(wall_time(member.health_since), 3)


def _backends_up(metrics: Metrics, pools: Iterable[Pool]) -> Iterator[str]:
    label_of = metrics.app_label
    for pool in pools:
        label = label_of(pool.app.name)
        if label != OTHER_APPS:
            for member in pool.members:
                health = member.health
                up = 1 if health is _UP or health is _UNPROVEN else 0
                address = escape_label(member.backend.address)
                yield f'scalingo_proxy_backend_up{{app="{label}",backend="{address}"}} {up}\n'
