r"""The Prometheus text format, version 0.0.4: numbers and labels as a page.

A page is a stream of texts that end in a newline, made one by one while it is
read: it may have megabytes, and nobody may wait until all of it is made.

Pure text; what is counted is not known here.  Names and label names are
written in the program and trusted; label values are escaped (backslash,
quote, newline, and what UTF-8 cannot say), whatever they are.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import attrs

__all__ = [
    "CONTENT_TYPE",
    "Family",
    "HistogramFamily",
    "escape_label",
    "format_value",
    "numbers_in",
    "pieces",
]

# About half a millisecond each.
_LINES_AT_ONCE = 500
_SERIES_AT_ONCE = 100

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

    def lines(self, samples: Iterable[tuple[Sequence[str], float]]) -> Iterator[str]:
        """Write it whole, some lines at a time; each sample is its label values and its number."""
        pairs = ",".join(f'{label}="%s"' for label in self.labels)
        line = f"{self.name}{{{pairs}}} %s\n" if pairs else f"{self.name} %s\n"
        return self.with_lines(
            line % (*map(escape_label, values), format_value(value)) for values, value in samples
        )

    def with_lines(self, lines: Iterable[str]) -> Iterator[str]:
        """Write it whole; each line was written by whoever has very many of them."""
        yield _head(self.name, self.kind, self.help)
        rest = iter(lines)
        # Many at once: handing each line on by itself takes longer than writing it.
        while several := "".join(islice(rest, _LINES_AT_ONCE)):
            yield several


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

    def lines(self, series: Iterable[str]) -> Iterator[str]:
        """Write it whole, some series at a time; each is what :func:`numbers_in` made."""
        yield _head(self.name, "histogram", self.help)
        rest = iter(series)
        while several := "".join(islice(rest, _SERIES_AT_ONCE)):
            yield several

    def series(self, value: str = "") -> list[str]:
        """One series without its numbers: what stands before each of them, and behind the last.

        It takes longer to make than to use, so it is worth keeping.

        :param value: the label's, escaped already.
        """
        pair = f'{self.label}="{value}"' if self.label else ""
        comma = "," if pair else ""
        labels = f"{{{pair}}}" if pair else ""
        bounds = (*(f"{bound:g}" for bound in self.bounds), "+Inf")
        places = [f'{self.name}_bucket{{{pair}{comma}le="{bound}"}} ' for bound in bounds]
        places += [f"{self.name}_sum{labels} ", f"{self.name}_count{labels} "]
        return [places[0], *(f"\n{place}" for place in places[1:]), "\n"]


def pieces(lines: Iterable[str], size: int) -> Iterator[str]:
    """The *lines* joined to pieces of about *size* characters, each made when it is asked for."""
    joined: list[str] = []
    length = 0
    for line in lines:
        joined.append(line)
        length += len(line)
        if length >= size:
            yield "".join(joined)
            joined, length = [], 0
    yield "".join(joined)


def numbers_in(series: Sequence[str], counts: Sequence[int], total: float) -> str:
    """One series of a histogram with its numbers.

    Made by runs of the same number, of which there are few: writing each one
    by itself takes four times as long.

    :param series: see :meth:`HistogramFamily.series`.
    :param counts: how many fell into each bucket; the last one is for what is
        beyond every bound.
    :param total: their sum.
    """
    number, told, begun = 0, "0", 0
    texts = [series[0]]
    for index, count in enumerate(counts):
        if count:
            if index > begun:
                texts += told, told.join(series[begun + 1 : index + 1])
            number += count
            told, begun = str(number), index
    end = len(counts)
    texts += told, told.join(series[begun + 1 : end + 1]), repr(total), series[end + 1], told, series[end + 2]
    return "".join(texts)


def _head(name: str, kind: str, help: str) -> str:  # noqa: A002 - the word of the format
    text = help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
