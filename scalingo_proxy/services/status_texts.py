"""How the status page writes numbers, times and lines: short, and always the same way.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

__all__ = [
    "HEIGHT",
    "WIDTH",
    "ago",
    "clock_time",
    "count",
    "line_points",
    "milliseconds",
    "moment",
    "rate",
    "span",
]

#: The size of a sparkline, in units of its own.
WIDTH, HEIGHT = 240, 40

# How far a line goes on behind the edges.
_BEHIND = 5

#: What stands where there is no number.
_NOTHING = "–"


def count(number: float) -> str:
    """A whole number, its thousands apart."""
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(per_second: float) -> str:
    """A number per second, with as many digits as mean something."""
    if per_second == 0:
        return "0"
    if per_second < 0.1:
        return "<0.1"
    return f"{per_second:.1f}" if per_second < 100 else count(per_second)


def milliseconds(seconds: float | None) -> str:
    """A latency, with its unit."""
    if seconds is None:
        return _NOTHING
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s"


def span(seconds: float) -> str:
    """A stretch of time, in one unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def ago(seconds: float) -> str:
    """How long ago something was."""
    return "just now" if seconds < 2 else f"{span(seconds)} ago"


def clock_time(wall_time: float) -> str:
    """A moment of today, as UTC."""
    return datetime.fromtimestamp(wall_time, UTC).strftime("%H:%M:%S")


def moment(wall_time: float) -> str:
    """A moment of any day, as UTC."""
    return datetime.fromtimestamp(wall_time, UTC).strftime("%Y-%m-%d %H:%M")


def line_points(values: Sequence[float | None], highest: float, places: int) -> str:
    """The points of a line of *values* in the box of a sparkline, the last value at its right edge.

    The line goes down behind the edges of the box, where nobody sees it, so
    that what is below it can be filled.

    :param highest: the value at the upper edge.
    :param places: how many values fill the width.
    """
    if not values:
        return ""
    step = WIDTH / max(places - 1, 1)
    first = places - len(values)
    scale = (HEIGHT - 3) / highest if highest > 0 else 0
    points = [
        f"{(first + number) * step:.4g},{HEIGHT - 1 - (value or 0) * scale:.1f}"
        for number, value in enumerate(values)
    ]
    left = first * step - (0 if first else _BEHIND)
    return " ".join(
        (
            f"{left:.4g},{HEIGHT + _BEHIND}",
            *((f"{left:.4g},{points[0].partition(',')[2]}",) if not first else ()),
            *points,
            f"{WIDTH + _BEHIND},{points[-1].partition(',')[2]}",
            f"{WIDTH + _BEHIND},{HEIGHT + _BEHIND}",
        )
    )
