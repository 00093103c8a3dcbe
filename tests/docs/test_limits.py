"""The table of limits in ``docs/security.rst`` says what the program does."""

from __future__ import annotations

import re

from twisted.trial import unittest

from scalingo_proxy.errors import errors_by_code
from scalingo_proxy.model import Limits, Timeouts
from tests.installations import CHECKOUT


class LimitTests(unittest.SynchronousTestCase):
    """Keys, defaults and codes."""

    def setUp(self) -> None:
        text = (CHECKOUT / "docs" / "security.rst").read_text("utf-8").partition(":class: limits")[2]
        rows = re.findall(
            r"^   \* - (.*?)^     - (.*?)^     - (.*?)(?=^   \* -|\Z)", text, re.MULTILINE | re.DOTALL
        )
        self.rows = [tuple(" ".join(cell.split()) for cell in row) for row in rows]
        self.assertGreater(len(self.rows), 25)

    def test_defaults(self) -> None:
        """Each key of [limits] and [timeouts] stands there with its default."""
        told: dict[str, str] = {}
        for what, default, _ in self.rows:
            keys = re.findall(r"``((?:limits|timeouts)\.\w+)``", what)
            told.update(zip(keys, re.split(r"[,;] ", default), strict=False))
        expected = {
            f"{table}.{key}": value
            for table, values in (("limits", Limits()), ("timeouts", Timeouts()))
            for key, value in ((name, getattr(values, name)) for name in values.__slots__ if name[0] != "_")
        }
        numbers = {key: float(re.sub(r"[ s,]", "", default)) for key, default in told.items()}
        self.assertEqual(numbers, expected)

    def test_codes(self) -> None:
        """Each code there is one of the contract."""
        codes = errors_by_code()
        for _, _, met in self.rows:
            for code in re.findall(r"``([a-z]+(?:-[a-z]+)+|denied)``", met):
                self.assertIn(code, codes)
