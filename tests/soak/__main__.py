"""``python -m tests.soak --minutes 10 --seed 7``: soak the proxy and sum up; exit status 1 for any fault."""

from __future__ import annotations

import argparse
import sys

from tests.soak.run import Soak


def options() -> argparse.ArgumentParser:
    """What the command line may say."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=0.6, help="seconds between two troubles, on average")
    parser.add_argument("--log", default="", help="a file for what the proxy writes")
    return parser


def main() -> int:
    """Run one soak as the command line says."""
    given = options().parse_args()
    soak = Soak(given.seed, given.minutes * 60, given.every, given.log)
    soak.run()
    sys.stdout.writelines(f"{line}\n" for line in soak.lines)
    sys.stdout.writelines(f"FAULT: {fault}\n" for fault in soak.faults)
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
