"""The dashboard in ``docs/grafana.json`` asks for what there is."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from twisted.trial import unittest

from tests.docs.test_promises import table
from tests.installations import CHECKOUT
from tests.integration.programs import needs_program

DASHBOARD: dict[str, Any] = json.loads((CHECKOUT / "docs" / "grafana.json").read_text("utf-8"))


def expressions() -> list[tuple[str, str]]:
    """Every query with the title of its panel."""
    return [
        (panel["title"], target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]


class DashboardTests(unittest.SynchronousTestCase):
    """For Grafana."""

    def test_metrics_exist(self) -> None:
        """Each name is in the table of metrics, and so are the labels that are asked for."""
        rows = re.findall(r"\* - ``(\w+)``\n +-(.*)", table("operating.rst", "metrics"))
        labels = {name: set(re.findall(r"``(\w+)``", told)) | {"instance", "le"} for name, told in rows}
        asked = 0
        for title, expression in expressions():
            offered: set[str] = set()
            for name, selectors in re.findall(r"(scalingo_proxy_\w+)(?:\{([^}]*)\})?", expression):
                family = re.sub(r"_(bucket|count|sum)$", "", name)
                self.assertTrue(name in labels or family in labels, f"{title}: {name}")
                known = labels.get(name) or labels[family]
                self.assertLessEqual(set(re.findall(r"(\w+)=~?", selectors)), known, f"{title}: {name}")
                offered |= known
                asked += 1
            for grouped in re.findall(r"by \(([^)]*)\)", expression):
                self.assertLessEqual(set(grouped.split(", ")), offered, title)
        self.assertGreater(asked, 30)

    def test_panels(self) -> None:
        """Each has a number and a place of its own, a title and a source."""
        panels = DASHBOARD["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertLessEqual(place["x"] + place["w"], 24)
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
            self.assertTrue(panel["title"])
            self.assertTrue(panel["type"] == "row" or panel["targets"])

    def test_queries_are_queries(self) -> None:
        """Prometheus itself can read each of them."""
        promtool = needs_program("promtool", "take it from the package prometheus, as .ci/run does")
        rules = [
            {
                "record": f"panel:{number}",
                "expr": re.sub(r"\$__\w+", "5m", expression).replace("$app", ".*").replace("$instance", ".*"),
            }
            for number, (_title, expression) in enumerate(expressions())
        ]
        path = self.mktemp()
        with open(path, "w") as file:
            json.dump({"groups": [{"name": "panels", "rules": rules}]}, file)  # which is YAML, too
        done = subprocess.run(
            [promtool, "check", "rules", path], capture_output=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr.decode())
