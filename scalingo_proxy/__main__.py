"""``python -m scalingo_proxy`` is the console script ``scalingo-proxy``."""

from __future__ import annotations

from scalingo_proxy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
