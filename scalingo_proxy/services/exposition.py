r"""The Prometheus text format, version 0.0.4: numbers and labels as a page.

A page is a list of texts that end in a newline, to be joined once: it may
have megabytes, and each copy of those is felt by every exchange under way.

Pure text; what is counted is not known here.  Names and label names are
written in the program and trusted; label values are escaped (backslash,
quote, newline, and what UTF-8 cannot say), whatever they are.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

import attrs

__all__ = ["CONTENT_TYPE", "Family", "HistogramFamily", "escape_label", "format_value"]

#: What the page is served as.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def escape_label(value: str) -> str:
    """Escape what may not stand in the quotes of a label value."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return value
    value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def format_value(value: float) -> str:
    """Write a number: whole ones without a point, ``+Inf``, ``-Inf`` and ``NaN`` by their names."""
    if isinstance(value, int):  # a bool counts as 0 or 1
        return str(int(value))
    if math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


@attrs.frozen
class Family:
    """All the counters, or all the gauges, of one name.

    :ivar kind: ``counter`` or ``gauge``.
    :ivar help: one sentence for people.
    :ivar labels: the names of its labels.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    def lines(self, samples: Iterable[tuple[Sequence[str], float]]) -> list[str]:
        """Write it whole; each sample is its label values and its number."""
        return self.lines_of_escaped(
            [(*map(escape_label, values), format_value(value)) for values, value in samples]
        )

    def lines_of_escaped(self, samples: Iterable[tuple[str | int, ...]]) -> list[str]:
        """Write it whole and fast; each sample is its label values, escaped already, and its number."""
        pairs = ",".join(f'{label}="%s"' for label in self.labels)
        line = f"{self.name}{{{pairs}}} %s\n" if pairs else f"{self.name} %s\n"
        lines = [line % sample for sample in samples]
        return [_head(self.name, self.kind, self.help), *lines]


@attrs.frozen
class HistogramFamily:
    """All the histograms of one name, with or without one label.

    :ivar bounds: the upper bounds of the buckets, rising, without infinity.
    :ivar label: the name of the label, or ``""``.
    """

    name: str
    help: str
    bounds: tuple[float, ...]
    label: str = ""

    def lines(self, samples: Iterable[tuple[str, Sequence[int], float]]) -> list[str]:
        """Write it whole.

        Each sample is its label value (escaped already), how many fell into
        each bucket (the last one is for what is beyond every bound) and their
        sum.
        """
        template = self._template()
        lines = [_head(self.name, "histogram", self.help)]
        for value, counts, total in samples:
            # Formatting a series at once, because one line after the other takes three times as long.
            series = template.replace("\0", value.replace("%", "%%"))
            rising = tuple(accumulate(counts))
            lines.append(series % (*rising, total, rising[-1]))
        return lines

    def _template(self) -> str:
        pair = f'{self.label}="\0"' if self.label else ""
        comma = "," if pair else ""
        labels = f"{{{pair}}}" if pair else ""
        buckets = (
            f'{self.name}_bucket{{{pair}{comma}le="{bound}"}} %s\n'
            for bound in (*(f"{bound:g}" for bound in self.bounds), "+Inf")
        )
        return "".join((*buckets, f"{self.name}_sum{labels} %s\n", f"{self.name}_count{labels} %s\n"))


def _head(name: str, kind: str, help: str) -> str:  # noqa: A002 - the word of the format
    text = help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
