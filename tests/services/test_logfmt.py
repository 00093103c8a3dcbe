"""Tests for :mod:`scalingo_proxy.services.logfmt`: many lines at once are those of each, written plainly."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Record
from scalingo_proxy.services import logfmt
from scalingo_proxy.services.logfmt import LogfmtLines, format_logfmt
from tests.services.test_log_formats import ATTACKS, TEXTS, a_record


def plainly(record: Record, query: bool = True) -> str:
    """The line, a pair after the other."""

    def milliseconds(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds * 1000:.1f}ms"

    def since_start(moment: float | None) -> str:
        return milliseconds(None if moment is None else moment - record.started_at)

    def text(value: str) -> str:
        value = value or "-"
        printable = all("!" <= character <= "~" for character in value)
        return value if printable and not set(value) & set('"=\\') else json.dumps(value)

    pairs = {
        "at": "info" if record.code == "-" else "error",
        "method": text(record.method),
        "host": text(record.host),
        "path": text(record.path if query else record.path.split("?")[0]),
        "request_id": text(record.request_id),
        "from": text(record.client),
        "app": text(record.app),
        "backend": text(record.backend),
        "status": str(record.status),
        "code": text(record.code),
        "bytes_in": str(record.bytes_in),
        "bytes_out": str(record.bytes_out),
        "queue": milliseconds(record.queue_seconds),
        "connect": milliseconds(record.connect_seconds),
        "first_byte": since_start(record.first_byte_at),
        "duration": since_start(record.finished_at),
        "protocol": text(record.protocol),
        "tls": text(record.tls),
    }
    return " ".join(f"{key}={value}" for key, value in pairs.items())


def ordinary(**fields: Any) -> Record:
    """An answer that came whole, over a connection that was kept, with *fields* changed."""
    record = a_record(queue_seconds=0.0, connect_seconds=0.0, finished_at=100.011)
    record.first_byte_at = record.finished_at
    for name, value in fields.items():
        setattr(record, name, value)
    return record


_texts = st.sampled_from(["", "-", "/a", "/a?b=c&d", "x" * 400, "%s", "{0}", *ATTACKS]) | st.text(
    'a= "\\\x00\x7fé\ud800', max_size=5
)
_moments = st.none() | st.floats(100.0, 200.0)
_records = st.builds(
    ordinary,
    **dict.fromkeys(TEXTS, _texts),
    code=st.sampled_from(["-", "-", "queue-full", "a b"]),
    status=st.integers(0, 999),
    bytes_in=st.integers(0, 2**40),
    bytes_out=st.integers(0, 2**40),
    queue_seconds=st.just(0.0) | st.floats(0.0, 100.0),
    connect_seconds=st.just(0.0) | st.floats(0.0, 100.0),
    first_byte_at=_moments,
    finished_at=_moments,
)
# Nearly like every other one, so that most of them go the short way.
_ordinary = st.builds(
    ordinary,
    path=st.sampled_from(["/", "/a?b=c", "/a?", "?", "/a=b", "/%41%s", "é", "", 'a"b']),
    host=_texts,
    app=_texts,
    client=st.sampled_from(["192.0.2.1", "2001:db8::1", "unix:"]),
    status=st.integers(100, 599),
    bytes_in=st.integers(0, 9),
    connect_seconds=st.just(0.0) | st.floats(0.0, 100.0),
    finished_at=st.floats(100.0, 200.0),
)


class LogfmtLinesTests(SynchronousTestCase):
    """Writing many at once."""

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(_records | _ordinary, max_size=6), st.booleans())
    def test_as_each(self, records: list[Record], query: bool) -> None:
        """The lines are byte for byte those of the records, whatever else is among them."""
        wanted = [plainly(record, query) for record in records]
        lines = LogfmtLines(query)
        self.assertEqual(lines(records), wanted)
        self.assertEqual(lines(records), wanted)  # as remembered
        self.assertEqual([format_logfmt(record, query) for record in records], wanted)

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(_ordinary, min_size=1, max_size=6), st.booleans())
    def test_ordinary(self, records: list[Record], query: bool) -> None:
        """So are those of ordinary answers."""
        self.assertEqual(LogfmtLines(query)(records), [plainly(record, query) for record in records])

    def test_attacks_on_each_text(self) -> None:
        """Nothing in any field of an ordinary answer can end its field or its line."""
        lines = LogfmtLines()
        for text in ATTACKS:
            for field in TEXTS:
                record = ordinary(**{field: text})
                (line,) = lines([record])
                self.assertEqual(line, plainly(record))
                self.assertTrue(line.isascii() and line.isprintable(), line)

    def test_short_way(self) -> None:
        """Ordinary answers, streamed ones and paths with a query among them, and tunnels go the short way."""
        records = [
            ordinary(),
            ordinary(path="/a?b=c", finished_at=101.0),
            ordinary(connect_seconds=0.0125),
            ordinary(
                method="-", path="-", request_id="-", status=0, finished_at=160.0, connect_seconds=0.001
            ),
        ]
        write_lines = LogfmtLines()
        write_lines([ordinary(path="/before"), ordinary(status=0)])
        with mock.patch.object(logfmt, "format_logfmt", side_effect=AssertionError):
            lines = write_lines(records)
        self.assertEqual(lines, [plainly(record) for record in records])

    def test_bounded(self) -> None:
        """What is remembered has a bound in pieces, and none of them is long."""
        lines = LogfmtLines()
        with mock.patch.object(logfmt, "_MOST_PIECES", 10):
            for number in range(25):
                lines([ordinary(host=f"{number}.example"), ordinary(host="h" * 1000 + str(number))])
        self.assertLessEqual(len(lines._hosts), 10)
        self.assertGreater(len(lines._hosts), 0)
        self.assertLess(max(map(len, lines._hosts)), 300)
