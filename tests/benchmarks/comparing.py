"""Two ways to do something, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["TURNS", "compare", "line"]

TURNS = 7


def least(work: Callable[[], object], times: int) -> float:
    """Microseconds for one."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times * 1e6


def compare(title: str, without: Callable[[], object], using: Callable[[], object], times: int) -> str:
    """One line; the two take turns, so that both meet the same noise."""
    costs: dict[str, float] = {}
    for _ in range(TURNS):
        for name, work in (("without", without), ("with", using)):
            costs[name] = min(costs.get(name, 1e9), least(work, times))
    return line(title, costs["without"], costs["with"])


def line(title: str, without: float, using: float) -> str:
    return f"{title:58} {without:8.2f} µs without, {using:8.2f} with: {using - without:+8.2f}"
