"""Tests for :mod:`scalingo_proxy.services.status_texts` and ``live_values``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services import status_texts
from scalingo_proxy.services.live_values import LiveValues
from scalingo_proxy.services.status_texts import HEIGHT, WIDTH


class TextsTests(SynchronousTestCase):
    """How numbers are written."""

    def test_numbers(self) -> None:
        """As many digits as mean something."""
        self.assertEqual([status_texts.rate(n) for n in (0, 0.04, 2.34, 123.4)], ["0", "<0.1", "2.3", "123"])
        self.assertEqual(status_texts.count(1234567), "1\u202f234\u202f567")
        self.assertEqual(
            [status_texts.milliseconds(n) for n in (None, 0.0004, 0.25, 12.34)],
            ["–", "0.4 ms", "250 ms", "12.3 s"],
        )

    def test_times(self) -> None:
        """One unit each."""
        self.assertEqual(
            [status_texts.span(n) for n in (-1, 59, 119, 120, 7200, 172800)],
            ["0 s", "59 s", "119 s", "2 min", "2 h", "2 d"],
        )
        self.assertEqual([status_texts.ago(n) for n in (0.5, 60)], ["just now", "60 s ago"])
        self.assertEqual(status_texts.clock_time(1.7e9), "22:13:20")
        self.assertEqual(status_texts.moment(1.7e9), "2023-11-14 22:13")

    def test_lines(self) -> None:
        """The last value is at the right edge, the highest at the upper one, nothing at the lower one."""
        below, right = HEIGHT + 5, WIDTH + 5
        self.assertEqual(
            status_texts.line_points([None, 5.0], 5.0, 3).split(),
            [
                f"{WIDTH / 2:g},{below}",
                f"{WIDTH / 2:g},{HEIGHT - 1:.1f}",
                f"{WIDTH},2.0",
                f"{right},2.0",
                f"{right},{below}",
            ],
        )
        self.assertEqual(status_texts.line_points([], 0.0, 3), "")
        self.assertTrue(
            status_texts.line_points([0.0, 1.0], 1.0, 2).startswith(f"-5,{below} -5,39.0 0,39.0 ")
        )


class LiveValuesTests(SynchronousTestCase):
    """What has become different."""

    def test_since(self) -> None:
        """New and changed values, by kind."""
        before = LiveValues({"a": "1", "b": "2"}, {"a": "good"}, {}, {}, {"apps": "x"})
        after = LiveValues({"a": "1", "b": "3", "c": "4"}, {"a": "bad"}, {}, {}, {"apps": "x"})
        self.assertEqual(after.since(before), {"texts": {"b": "3", "c": "4"}, "states": {"a": "bad"}})
        self.assertEqual(after.since(after), {})
