"""Run one target under atheris: ``python -m tests.fuzz TARGET [--seconds N] [libFuzzer options]``.

An input that breaks a promise is written to ``crash-…`` in the current
folder; put it into the corpus with its verdict, and it stays mended.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

NAMES = ("hello", "http2", "proxy", "proxy_header", "requests", "responses")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60, help="how long to look (default: %(default)s)")
    arguments, options = parser.parse_known_args()
    try:
        import atheris
    except ImportError:
        sys.stderr.write("atheris is missing: pip install 'scalingo-proxy[fuzz]', or pip install atheris\n")
        return 1
    with atheris.instrument_imports(include=["scalingo_proxy"]):
        from tests.fuzz.targets import TARGETS, seeds
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds(arguments.target)):
            with open(os.path.join(folder, str(number)), "wb") as file:
                file.write(data)
        words = [
            sys.argv[0],
            folder,
            f"-max_total_time={arguments.seconds}",
            "-max_len=4096",
            "-print_final_stats=1",
            *options,
        ]
        atheris.Setup(words, TARGETS[arguments.target])
        atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
