"""The command ``top``: what goes on, as a table that changes while one looks.

At a terminal it draws over the whole screen until ``q``; anywhere else, and
with ``--once``, it tells the table once and ends, so that it can be piped.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from scalingo_proxy.cli_client import AdminClient, Unreachable
from scalingo_proxy.cli_output import Output, printable, table_lines

__all__ = ["add_top_command"]

_HEADS = ("APP", "STATE", "REQ/S", "IN FLIGHT", "QUEUE", "2XX", "4XX", "5XX", "P50", "P95", "BACKENDS UP")
_NUMBERS = frozenset(_HEADS[2:])
#: What a narrow terminal goes without, the first of these first.
_SPARED = ("QUEUE", "IN FLIGHT", "P50", "2XX", "4XX", "STATE", "P95", "BACKENDS UP", "5XX")
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_ROWS_ONCE = 1000
_SHORTEST_INTERVAL = 0.05

# Escape sequences of every terminal of today: another screen, no cursor, and back.
_BEGIN = "\x1b[?1049h\x1b[?25l"
_END = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_BOLD, _RED, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[0m"


def top(arguments: argparse.Namespace, client: AdminClient, output: Output) -> None:
    """Tell what goes on, once or until somebody presses ``q``."""
    if arguments.json:
        output.document(_ask(arguments, client, arguments.rows or _ROWS_ONCE))
    elif arguments.once or not (output.is_terminal and sys.stdin.isatty() and _can_draw()):
        told = _ask(arguments, client, arguments.rows or _ROWS_ONCE)
        for line in _summary(told):
            output.line(line)
        output.line("")
        output.table(_HEADS, _rows(told))
    else:
        _watch(arguments, client)


def _watch(arguments: argparse.Namespace, client: AdminClient) -> None:
    rates: deque[float] = deque(maxlen=60)
    told: dict[str, Any] = {}
    with _screen() as keys:
        while True:
            size = shutil.get_terminal_size()
            note = f"ordered by {arguments.sort}"
            try:
                told = _ask(arguments, client, arguments.rows or max(size.lines - 5, 1))
                rates.append(told["totals"]["requests_per_second"])
            except Unreachable:
                if not told:
                    raise
                note = "THE PROXY DOES NOT ANSWER: this is how it was"
            sys.stdout.write(_drawn(told, rates, note, size))
            sys.stdout.flush()
            key = _key_within(keys, arguments.interval)
            if key in ("q", "Q", "\x03", "\x04"):
                return
            if key in ("n", "r"):
                arguments.sort = {"n": "name", "r": "rate"}[key]


def _can_draw() -> bool:
    return os.environ.get("TERM") != "dumb"


@contextmanager
def _screen() -> Iterator[int]:
    """A screen of our own, and keys one by one; everything is as before in the end, whatever happens."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        sys.stdout.write(_BEGIN)
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        sys.stdout.write(_END)
        sys.stdout.flush()


def _key_within(keys: int, seconds: float) -> str:
    """The next key, or ``""`` when none came in time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([keys], [], [], left)[0]:
            return os.read(keys, 1).decode("ascii", "replace") or "q"
    return ""


def _drawn(told: Mapping[str, Any], rates: Sequence[float], note: str, size: os.terminal_size) -> str:
    """One screen full: every line is cut to the width, and nothing of the last one stays."""
    first, *others = _summary(told)
    parts = f"{first}  {_sparkline(rates)}".split("  ")
    while len("  ".join(parts)) > size.columns and len(parts) > 1:
        del parts[-1]  # half a number is worse than none
    lines = ["  ".join(parts), *others, "", *_fitting_table(_rows(told), size.columns)]
    lines = lines[: size.lines - 1]
    lines += [""] * (size.lines - 1 - len(lines))
    lines.append(f"q quit  r busiest first  n by name    {told['total']} apps, {note}")
    head = len(others) + 2
    alarming = _BOLD if os.environ.get("NO_COLOR") else _RED
    drawn = []
    for number, line in enumerate(lines):
        cut = printable(line)[: size.columns]
        style = _BOLD if number in (0, head) else alarming if 0 < number < head and cut else ""
        drawn.append(f"{style}{cut}{_PLAIN if style else ''}{_CLEAR_LINE}")
    return _HOME + "\n".join(drawn) + _CLEAR_REST


def _fitting_table(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The table without the columns that it has no room for."""
    heads = list(_HEADS)
    for spared in ("", *_SPARED):
        if spared:
            heads.remove(spared)
        columns = [_HEADS.index(head) for head in heads]
        right = [number for number, head in enumerate(heads) if head in _NUMBERS]
        lines = table_lines(heads, [[row[column] for column in columns] for row in rows], right)
        if max(map(len, lines)) <= width:
            break
    return lines


def _summary(told: Mapping[str, Any]) -> list[str]:
    totals = told["totals"]
    latencies = "  ".join(f"{name} {_ms(totals[f'{name}_ms'])}" for name in ("p50", "p95", "p99"))
    first = (
        f"{_rate(totals['requests_per_second'])} req/s  {_rate(totals['errors_per_second'])} 5xx/s"
        f"  {latencies}  {totals['client_connections']} connections  {totals['in_flight']} in flight"
        f"  {totals['queued']} waiting  {totals['tunnels']} tunnels"
    )
    return [first, *(f"alarm: {alarm['text']}" for alarm in told["alarms"])]


def _rows(told: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            app["name"],
            app["state"],
            _rate(app["requests_per_second"]),
            str(app["in_flight"]),
            str(app["queued"]),
            *(str(app["last_minute"][kind]) for kind in ("2xx", "4xx", "5xx")),
            _ms(app["p50_ms"]),
            _ms(app["p95_ms"]),
            f"{app['backends_up']}/{app['backends']}",
        ]
        for app in told["apps"]
    ]


def _sparkline(rates: Sequence[float]) -> str:
    highest = max(rates)
    bars = _BARS if (sys.stdout.encoding or "").lower().startswith("utf") else _PLAIN_BARS
    return "".join(bars[int(rate / highest * (len(bars) - 1))] if highest else bars[0] for rate in rates)


def _rate(per_second: float) -> str:
    return f"{per_second:.1f}" if per_second < 100 else f"{per_second:.0f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}ms" if value < 10 else f"{value:.0f}ms" if value < 1000 else f"{value / 1000:.1f}s"


def _ask(arguments: argparse.Namespace, client: AdminClient, rows: int) -> dict[str, Any]:
    query = {"sort": arguments.sort, "per_page": str(min(rows, 1000)), "q": arguments.query}
    _status, told = client.ask("GET", "traffic", query=query)
    return dict(told)


def _interval(text: str) -> float:
    seconds = float(text)
    if not _SHORTEST_INTERVAL <= seconds <= 3600:
        raise ValueError
    return seconds


def _rows_wanted(text: str) -> int:
    rows = int(text)
    if rows < 1:
        raise ValueError
    return rows


# What argparse calls a value that one of these refuses: "invalid number of seconds value: 'x'".
_interval.__name__, _rows_wanted.__name__ = "number of seconds", "number of rows"


def add_top_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``top`` to the *commands* of a parser."""
    watching = commands.add_parser(
        "top",
        parents=[common],
        help="show what goes on, live",
        description="Show the busiest apps and the totals, every second anew, until q or Ctrl-C; "
        "once where standard output is no terminal, or a dumb one.",
    )
    watching.add_argument("--once", action="store_true", help="tell it once and end")
    watching.add_argument("--query", "-q", default="", help="only apps with this text in name or domains")
    watching.add_argument("--sort", choices=("rate", "name"), default="rate", help="(default: rate)")
    watching.add_argument("--rows", type=_rows_wanted, metavar="N", help="so many apps (default: what fits)")
    watching.add_argument(
        "--interval", type=_interval, default=1.0, metavar="SECONDS", help="between two looks (default: 1)"
    )
    watching.set_defaults(command=top, needs_proxy=True)
