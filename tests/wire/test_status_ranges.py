"""Statuses as people write them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.status_ranges import parse_status_ranges


class StatusRangesTests(SynchronousTestCase):
    """What is in, what is out, what is refused."""

    def test_expected(self) -> None:
        """Single statuses, ranges with both ends, classes, and lists of them."""
        for text, inside, outside in (
            ("200-399", (200, 204, 301, 399), (199, 400, 503, 0)),
            ("200", (200,), (201, 199)),
            ("200,204,301", (200, 204, 301), (201, 302)),
            ("2xx, 401", (200, 299, 401), (199, 300, 400)),
            (" 200 - 204 , 418 ", (200, 204, 418), (205,)),
        ):
            ranges = parse_status_ranges(text)
            self.assertEqual([status in ranges for status in inside], [True] * len(inside), text)
            self.assertEqual([status in ranges for status in outside], [False] * len(outside), text)

    def test_refused(self) -> None:
        """What is no status is named."""
        for text, sentence in (
            ("", "'' is no HTTP status and no range of them"),
            ("ok", "'ok' is no HTTP status"),
            ("200,", "'' is no HTTP status"),
            ("99", "'99' is no HTTP status"),
            ("600", "'600' is no HTTP status"),
            ("200-1000", "'200-1000' is no HTTP status"),
            ("-200", "'-200' is no HTTP status"),
            ("399-200", "'399-200' ends before it begins"),
            ("200;204", "'200;204' is no HTTP status"),
            ("٢٠٠", "'٢٠٠' is no HTTP status"),
            ("200," * 300, "at most 1000 characters"),
        ):
            error = self.assertRaises(ValueError, parse_status_ranges, text)
            self.assertIn(sentence, str(error))
