"""The lists in the documentation that are part of the contract are complete."""

from __future__ import annotations

import re

from twisted.trial import unittest

from scalingo_proxy.errors import errors_by_code
from tests.installations import CHECKOUT


def table(page: str, name: str) -> str:
    """The text of the list-table with ``:class: NAME`` on a page."""
    text = (CHECKOUT / "docs" / page).read_text("utf-8")
    (found,) = re.findall(rf"\.\. list-table::\n(?:   :.*\n)*   :class: {name}\n((?:   .*\n|\n)*)", text)
    assert isinstance(found, str)
    return found


class TourTests(unittest.SynchronousTestCase):
    """The tour through the sources."""

    def test_every_stop_is_there(self) -> None:
        """Each file and folder that it names exists."""
        text = (CHECKOUT / "docs" / "tour.rst").read_text("utf-8")
        stops = re.findall(r"``([a-z_]+/[a-z0-9_]*|[a-z_]+\.py)(?:\.py)?``", text)
        missing = [
            stop
            for stop in stops
            if not any(
                path.exists()
                for base in (CHECKOUT, CHECKOUT / "scalingo_proxy")
                for path in (base / stop, base / f"{stop}.py")
            )
        ]
        self.assertGreater(len(stops), 20)
        self.assertEqual(missing, [])


class CodesTests(unittest.SynchronousTestCase):
    """The table of reason codes."""

    def test_complete(self) -> None:
        """It has every code with its status, and no other, ordered by status."""
        rows = re.findall(r"\* - ``([\w-]+)``\n +- (\d+)\n +- .+", table("behaviour.rst", "codes"))
        told = [(code, int(status)) for code, status in rows]
        self.assertEqual(dict(told), {code: error.status for code, error in errors_by_code().items()})
        self.assertEqual([status for _, status in told], sorted(status for _, status in told))


class MetricsTests(unittest.SynchronousTestCase):
    """The table of metrics."""

    def test_complete(self) -> None:
        """It names every family that the sources define, and no other."""
        told = re.findall(r"\* - ``(\w+)``", table("operating.rst", "metrics"))
        sources = (CHECKOUT / "scalingo_proxy" / "services").glob("*.py")
        defined = {
            name
            for path in sources
            for name in re.findall(r'"(scalingo_proxy_\w+)"', path.read_text("utf-8"))
        }
        self.assertEqual(set(told), defined)
