"""The first lines a person sees: what runs, where, and what to try.

Pure text; who prints it, and when, is the program's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

__all__ = ["BannerDoor", "banner"]


@attrs.frozen
class BannerDoor:
    """One open door: its protocol, an address to type, and a remark."""

    protocol: str
    address: str
    remark: str = ""


def banner(title: str, doors: Iterable[BannerDoor], try_lines: Sequence[str]) -> str:
    """The lines, in columns, ended by a newline."""
    lines = [title]
    lines += [f"  {door.protocol:<7} {door.address:<32} {door.remark}".rstrip() for door in doors]
    lines += [f"  {'try':<7} {line}" for line in try_lines]
    return "\n".join(lines) + "\n"
