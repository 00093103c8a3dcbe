"""Figures become a table, JSON and a plot."""

from __future__ import annotations

import json
import os
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmarks.machine import cpu_seconds, resident_bytes
from tests.benchmarks.report import as_json, as_svg, as_table
from tests.benchmarks.rows import ROWS, Result


class ReportTests(SynchronousTestCase):
    """Of two rows, one with peers and one without."""

    def setUp(self) -> None:
        with_peers = Result(ROWS[0], {"scalingo_proxy": [3.0, 30.0, 2.0], "haproxy": [2.0], "nginx": [4.0]})
        with_peers.against = "haproxy"
        self.results = [with_peers, Result(ROWS[1], {"scalingo_proxy": [5.0]})]

    def test_table(self) -> None:
        """The median is compared with that of the best peer."""
        first, second = as_table(self.results).splitlines()[1:]
        self.assertEqual(
            first.split()[:6], ["http_keepalive", "µs/request", "3.000", "haproxy", "2.000", "1.50"]
        )
        self.assertIn(" met ", first)
        self.assertIn("nginx 4.000", first)
        self.assertEqual(second.split()[2:5], ["5.000", "-", "-"])

    def test_json(self) -> None:
        """Each round is told."""
        told = json.loads(as_json(self.results))["rows"]["http_keepalive"]
        self.assertEqual((told["ratio"], told["rounds"]["haproxy"]), (1.5, [2.0]))

    def test_plot(self) -> None:
        """Rows that compare have a bar."""
        drawing = ElementTree.fromstring(as_svg(self.results))
        self.assertEqual(len(drawing.findall("{http://www.w3.org/2000/svg}rect")), 1)


class MachineTests(SynchronousTestCase):
    """What the kernel keeps of this very process."""

    def test_books(self) -> None:
        """Work costs CPU time, and a process has memory."""
        before = cpu_seconds(os.getpid())
        self.assertGreater(sum(range(3_000_000)), 0)
        self.assertGreater(cpu_seconds(os.getpid()), before)
        self.assertGreater(resident_bytes(os.getpid()), 1_000_000)
