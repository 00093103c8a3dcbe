"""The figures as a table for people, JSON for programs and a plot for the docs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from tests.benchmarks.machine import describe
from tests.benchmarks.peers import Ours
from tests.benchmarks.rows import Result, Row

__all__ = ["as_json", "as_svg", "as_table"]


def _value(result: Result) -> float:
    """What the targets of the row are about: the ratio, or our own figure where there is none."""
    ratio = result.ratio
    return result.median(Ours.name) if ratio is None else ratio


def _verdict(result: Result) -> str:
    value = _value(result)
    return "as wanted" if value <= result.row.wanted else "met" if value <= result.row.target else "not met"


def _figure(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def as_table(results: Sequence[Result]) -> str:
    """One line for each row: ours, the best peer, the ratio, the targets, then all others."""
    heading = f"{'row':24}{'unit':14}{'ours':>9}  {'best peer':22}{'ratio':>7}{'target':>8}{'wanted':>8}"
    lines = [f"{heading}  {'':10}others"]
    for result in results:
        row, ratio = result.row, result.ratio
        best = f"{result.against} {_figure(result.median(result.against))}" if result.against else "-"
        others = ", ".join(
            f"{name} {_figure(result.median(name))}"
            for name in result.costs
            if name not in (Ours.name, result.against)
        )
        lines.append(
            f"{row.name:24}{row.unit:14}{_figure(result.median(Ours.name)):>9}  {best:22}"
            f"{'-' if ratio is None else f'{ratio:.2f}':>7}{row.target:8.2f}{row.wanted:8.2f}"
            f"  {_verdict(result):10}{others}"
        )
    return "\n".join(lines) + "\n"


def as_json(results: Sequence[Result]) -> str:
    """Everything, each round included."""
    told: dict[str, Any] = {"machine": describe(), "rows": {}}
    for result in results:
        told["rows"][result.row.name] = {
            "unit": result.row.unit,
            "target": result.row.target,
            "wanted": result.row.wanted,
            "against": result.against or None,
            "ratio": result.ratio,
            "median": {name: result.median(name) for name in result.costs},
            "rounds": result.costs,
        }
    return json.dumps(told, indent=1) + "\n"


_BAR, _LEFT, _WIDTH = 22, 190, 420


def as_svg(results: Sequence[Result]) -> str:
    """The ratios as bars, with a mark at each target."""
    shown = [result for result in results if result.ratio is not None]
    most = max((max(_value(result), result.row.target) for result in shown), default=1.0)
    height = _BAR * len(shown) + 46
    view = f'viewBox="0 0 {_LEFT + _WIDTH + 60} {height}" font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {view}>',
        f'<text x="{_LEFT}" y="14">cost against the best native peer (1 = the same; less is better)</text>',
    ]
    for number, result in enumerate(shown):
        parts += _bar(result.row, _value(result), 24 + number * _BAR, _WIDTH / most)
    one, bottom = _LEFT + _WIDTH / most, 24 + _BAR * len(shown)
    parts.append(
        f'<line x1="{one:.1f}" y1="20" x2="{one:.1f}" y2="{bottom}" stroke="#333" stroke-dasharray="3 3"/>'
    )
    parts.append(
        f'<text x="{_LEFT}" y="{bottom + 16}" fill="#666">red marks: the first target of each row</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, value: float, top: int, scale: float) -> list[str]:
    mark = f"{_LEFT + row.target * scale:.1f}"
    end = f"{_LEFT + max(value, row.target) * scale + 6:.1f}"
    colour = "#3b7dd8" if value <= row.target else "#c98a2b"
    return [
        f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(row.name)}</text>',
        f'<rect x="{_LEFT}" y="{top + 3}" width="{value * scale:.1f}" height="{_BAR - 8}" fill="{colour}"/>',
        f'<path d="M{mark} {top + 1}V{top + _BAR - 3}" stroke="#b00" stroke-width="2"/>',
        f'<text x="{end}" y="{top + 14}">{value:.2f}</text>',
    ]
