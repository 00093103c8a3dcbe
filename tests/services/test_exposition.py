"""Tests for :mod:`scalingo_proxy.services.exposition`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.exposition import (
    Family,
    HistogramFamily,
    escape_label,
    format_value,
    numbers_in,
    pieces,
)


class FamilyTests(SynchronousTestCase):
    """Counters and gauges."""

    def test_text(self) -> None:
        """A family opens with HELP and TYPE, then has one line for each sample."""
        family = Family("x_total", "counter", "What x is.", ("a", "b"))
        self.assertEqual(
            "".join(family.lines([(("1", "2"), 3), (("4", "5"), 0.5)])),
            "# HELP x_total What x is.\n# TYPE x_total counter\n"
            'x_total{a="1",b="2"} 3\nx_total{a="4",b="5"} 0.5\n',
        )

    def test_no_label(self) -> None:
        """Without labels there are no braces."""
        self.assertEqual(list(Family("x", "gauge", "X.").lines([((), 1)]))[-1], "x 1\n")

    def test_help_is_escaped(self) -> None:
        """A newline in the help does not begin a line."""
        self.assertEqual(
            list(Family("x", "gauge", "a\nb\\").lines([])), ["# HELP x a\\nb\\\\\n# TYPE x gauge\n"]
        )

    def test_label_escapes(self) -> None:
        """Backslash, quote and newline are escaped, anything printable stays."""
        self.assertEqual(escape_label('a\\b"c\nd€'), 'a\\\\b\\"c\\nd€')
        self.assertEqual(escape_label("plain-1.2_3 4{}=,"), "plain-1.2_3 4{}=,")

    def test_label_beyond_utf8(self) -> None:
        """What UTF-8 cannot say is spelled out, so that the page can always be sent."""
        self.assertEqual(escape_label("\udc80"), r"\\udc80")

    @settings(max_examples=200, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False))
    def test_any_label_reads_back(self, label: str, value: float) -> None:
        """A parser reads the very same label and number."""
        text = "".join(Family("x", "gauge", "X.", ("label",)).lines([((label,), value)]))
        ((family,)) = text_string_to_metric_families(text)
        ((sample,)) = family.samples
        self.assertEqual((sample.labels, sample.value), ({"label": label}, value))


class ValueTests(SynchronousTestCase):
    """How numbers are written."""

    def test_numbers(self) -> None:
        """Whole numbers have no point, truth is 1, and the endless ones have their names."""
        written = [
            format_value(value) for value in (0, 12, 12.0, 0.1, True, 1e300, math.inf, -math.inf, math.nan)
        ]
        self.assertEqual(written, ["0", "12", "12", "0.1", "1", "1e+300", "+Inf", "-Inf", "NaN"])


class HistogramFamilyTests(SynchronousTestCase):
    """Histograms."""

    def test_text(self) -> None:
        """Buckets add up, the last one is infinite, sum and count follow."""
        family = HistogramFamily("x_seconds", "X.", (0.5, 1.0), "app")
        self.assertEqual(
            "".join(family.lines([numbers_in(family.series("a"), (1, 2, 3), 4.5)])),
            "# HELP x_seconds X.\n# TYPE x_seconds histogram\n"
            'x_seconds_bucket{app="a",le="0.5"} 1\n'
            'x_seconds_bucket{app="a",le="1"} 3\n'
            'x_seconds_bucket{app="a",le="+Inf"} 6\n'
            'x_seconds_sum{app="a"} 4.5\n'
            'x_seconds_count{app="a"} 6\n',
        )

    def test_no_label(self) -> None:
        """Without a label, only the buckets have braces."""
        series = HistogramFamily("x", "X.", (1.0,)).series()
        self.assertEqual(
            numbers_in(series, (1, 0), 0.25).splitlines(),
            ['x_bucket{le="1"} 1', 'x_bucket{le="+Inf"} 1', "x_sum 0.25", "x_count 1"],
        )

    def test_percent_in_label(self) -> None:
        """A percent sign in a label is just that."""
        series = HistogramFamily("x", "X.", (1.0,), "app").series("100%s")
        self.assertIn('x_count{app="100%s"} 1\n', numbers_in(series, (1, 0), 1.0))

    def test_many(self) -> None:
        """Any number of series comes out, each once."""
        family = HistogramFamily("x", "X.", (1.0,), "app")
        series = [numbers_in(family.series(str(number)), (1, 1), 3.0) for number in range(250)]
        self.assertEqual("".join(family.lines(series)).count("x_count"), 250)


class PiecesTests(SynchronousTestCase):
    """A page made piece by piece."""

    def test_as_it_is_read(self) -> None:
        """No piece is much longer than asked for, and none is made before it is asked for."""
        made: list[int] = []

        def lines() -> Iterator[str]:
            for number in range(10):
                made.append(number)
                yield "12345\n"

        page = pieces(lines(), 13)
        self.assertEqual(next(page), "12345\n" * 3)
        self.assertEqual(len(made), 3)
        self.assertEqual(list(page), ["12345\n" * 3, "12345\n" * 3, "12345\n"])
