"""``python -m tests.benchmarks``: ours and its peers side by side, as CPU time for each unit.

``make bench`` runs it; ``--help`` tells its options.  Absolute figures are those
of the machine and of the hour; the ratios within one run are what counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys

from tests.benchmarks.programs import Missing
from tests.benchmarks.report import as_json, as_svg, as_table
from tests.benchmarks.rows import ROWS, Result, Scale, measure
from tests.benchmarks.world import World


def tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"some of: {' '.join(row.name for row in ROWS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="how long each turn of a timed load lasts")
    parser.add_argument("--apps", type=int, default=1000, help="how many apps each proxy knows")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it works")
    parser.add_argument("--text", metavar="FILE", help="write the table to FILE, too")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--svg", metavar="FILE", help="write a plot of the ratios to FILE")
    given = parser.parse_args(words)
    unknown = set(given.rows) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    scale = Scale(1, 1, 0.01) if given.quick else Scale(given.rounds, given.seconds)
    try:
        world = World(given.apps)
    except Missing as missing:
        tell(str(missing))
        return 1
    results: list[Result] = []
    try:
        for row in ROWS:
            if given.rows and row.name not in given.rows:
                continue
            tell(f"measuring {row.name}")
            try:
                results.append(measure(row, world, scale, lambda line: tell(f"  {line}")))
            except Missing as missing:
                tell(f"  left out: {missing}")
    finally:
        world.end()
    sys.stdout.write(as_table(results))
    for path, make in ((given.text, as_table), (given.json, as_json), (given.svg, as_svg)):
        if path:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "w") as file:
                file.write(make(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
