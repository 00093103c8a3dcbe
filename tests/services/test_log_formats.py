"""Tests for :mod:`scalingo_proxy.services.log_formats`."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Record
from scalingo_proxy.services.log_formats import FORMATS, CombinedFormat, formatter

#: Thursday, 29 February 2024, 23:59:59.5 UTC.
WALL_TIME = 1709251199.5

LOGFMT_KEYS = [
    *("at", "method", "host", "path", "request_id", "from", "app", "backend", "status", "code"),
    *("bytes_in", "bytes_out", "queue", "connect", "first_byte", "duration", "protocol", "tls"),
]

ATTACKS = ("a\r\nat=info", "\x1b[2J", "\x00", '"', "\\", "\x7f", "é", "\u2028", "\udc80", "a b", "k=v")

TEXTS = ("method", "host", "path", "request_id", "client", "app", "backend", "protocol", "tls")

_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=]+)(?: |$)')


def a_record(**fields: object) -> Record:
    """A plain finished exchange, with *fields* changed."""
    record = Record(100.0, WALL_TIME, "203.0.113.7", "http")
    record.method = "GET"
    record.host = "hello.example.com"
    record.path = "/a/b"
    record.protocol = "http/1.1"
    record.request_id = "0123456789abcdef"
    record.app = "hello"
    record.backend = "10.0.0.1:3000"
    record.status = 200
    record.bytes_in = 120
    record.bytes_out = 5123
    record.queue_seconds = 0.001
    record.connect_seconds = 0.0004
    record.first_byte_at = 100.011
    record.finished_at = 100.0135
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def line_of(name: str, record: Record, query: bool = True) -> str:
    """What the format of that name writes of one record."""
    (line,) = formatter(name, query)([record])
    return line


def parse_logfmt(line: str) -> dict[str, str]:
    """Read a line back the way log collectors do: JSON strings in quotes."""
    pairs: dict[str, str] = {}
    position = 0
    while position < len(line):
        match = _PAIR.match(line, position)
        assert match is not None, f"no pair at {position} of {line!r}"
        key, value = match.groups()
        assert key not in pairs, f"{key} twice"
        pairs[key] = json.loads(value) if value.startswith('"') else value
        position = match.end()
    return pairs


class LogfmtTests(SynchronousTestCase):
    """``log.requests = "logfmt"``."""

    def test_whole_line(self) -> None:
        """The keys stand in their documented order, times in milliseconds with one decimal."""
        self.assertEqual(
            line_of("logfmt", a_record()),
            "at=info method=GET host=hello.example.com path=/a/b request_id=0123456789abcdef"
            " from=203.0.113.7 app=hello backend=10.0.0.1:3000 status=200 code=-"
            " bytes_in=120 bytes_out=5123 queue=1.0ms connect=0.4ms first_byte=11.0ms duration=13.5ms"
            " protocol=http/1.1 tls=-",
        )

    def test_error_of_ours(self) -> None:
        """A line with a reason code is ``at=error``."""
        line = line_of("logfmt", a_record(code="queue-full", status=503))
        self.assertTrue(line.startswith("at=error "))
        self.assertIn(" status=503 code=queue-full ", line)

    def test_nothing_known(self) -> None:
        """A connection that sent no request has dashes and no empty value."""
        line = line_of("logfmt", Record(1.0, 1.0, "", "http"))
        pairs = parse_logfmt(line)
        self.assertEqual(list(pairs), LOGFMT_KEYS)
        for key in ("method", "host", "path", "from", "app", "backend", "first_byte", "duration"):
            self.assertEqual(pairs[key], "-", key)

    def test_query_is_quoted(self) -> None:
        """A path with ``=`` stands in quotes, so that it cannot pass for another key."""
        line = line_of("logfmt", a_record(path="/a?status=200&b=1"))
        self.assertIn(' path="/a?status=200&b=1" ', line)

    def test_without_query(self) -> None:
        """``query = false`` ends the path before the question mark."""
        self.assertIn(" path=/a ", line_of("logfmt", a_record(path="/a?token=secret"), query=False))

    def test_first_byte_of_a_refused_request(self) -> None:
        """An answer of our own has no first byte of a backend."""
        line = line_of("logfmt", a_record(first_byte_at=None))
        self.assertIn(" first_byte=- ", line)

    def test_quote_at_the_start_of_a_path(self) -> None:
        """A path that begins with a quote is escaped like any other."""
        line = line_of("logfmt", a_record(path='"/x" code=- status=200'))
        self.assertEqual(parse_logfmt(line)["path"], '"/x" code=- status=200')
        self.assertEqual(list(parse_logfmt(line)), LOGFMT_KEYS)

    def test_attacks_on_each_text(self) -> None:
        """CR, LF, ESC, NUL, quotes, backslash, DEL and non-ASCII are escaped, whatever field they are in."""
        for text in ATTACKS:
            for field in TEXTS:
                line = line_of("logfmt", a_record(**{field: text}))
                self.assertTrue(line.isascii() and line.isprintable(), line)
                pairs = parse_logfmt(line)
                self.assertEqual(list(pairs), LOGFMT_KEYS)
                self.assertEqual(pairs["from" if field == "client" else field], text)

    @settings(max_examples=200, deadline=None)
    @given(st.fixed_dictionaries({name: st.text(min_size=1) for name in TEXTS}))
    def test_any_text_reads_back(self, texts: dict[str, str]) -> None:
        """Whatever the texts are, the line is printable and a parser reads the very same texts."""
        line = line_of("logfmt", a_record(**texts))
        self.assertTrue(line.isascii() and line.isprintable())
        pairs = parse_logfmt(line)
        self.assertEqual(list(pairs), LOGFMT_KEYS)
        for name, text in texts.items():
            self.assertEqual(pairs["from" if name == "client" else name], text)


class JSONTests(SynchronousTestCase):
    """``log.requests = "json"``."""

    def test_same_keys(self) -> None:
        """The object has the keys of logfmt; numbers are numbers, times milliseconds."""
        line = json.loads(line_of("json", a_record()))
        self.assertEqual(list(line), LOGFMT_KEYS)
        self.assertEqual((line["at"], line["status"], line["bytes_out"]), ("info", 200, 5123))
        self.assertEqual(
            (line["queue"], line["connect"], line["first_byte"], line["duration"]), (1.0, 0.4, 11.0, 13.5)
        )

    def test_times_that_never_came(self) -> None:
        """A time that never came is null."""
        line = json.loads(line_of("json", a_record(first_byte_at=None, finished_at=None)))
        self.assertEqual((line["first_byte"], line["duration"]), (None, None))

    def test_without_query(self) -> None:
        """``query = false`` ends the path before the question mark."""
        self.assertEqual(json.loads(line_of("json", a_record(path="/a?b=1"), query=False))["path"], "/a")

    @settings(max_examples=100, deadline=None)
    @given(st.fixed_dictionaries({name: st.text(min_size=1) for name in TEXTS}))
    def test_any_text_reads_back(self, texts: dict[str, str]) -> None:
        """Whatever the texts are, the line is printable and a parser reads the very same texts."""
        line = line_of("json", a_record(**texts))
        self.assertTrue(line.isascii() and line.isprintable())
        read = json.loads(line)
        for name, text in texts.items():
            self.assertEqual(read["from" if name == "client" else name], text)


class CombinedTests(SynchronousTestCase):
    """``log.requests = "combined"``."""

    def test_whole_line(self) -> None:
        """The line is what Apache writes for ``combined``, in UTC."""
        self.assertEqual(
            line_of("combined", a_record(path="/a?b=1", referer="http://x.example/", user_agent="curl/8")),
            '203.0.113.7 - - [29/Feb/2024:23:59:59 +0000] "GET /a?b=1 HTTP/1.1" 200 5123'
            ' "http://x.example/" "curl/8"',
        )

    def test_http2(self) -> None:
        """HTTP/2 has the name that readers of this format know."""
        self.assertIn('"GET /a/b HTTP/2.0"', line_of("combined", a_record(protocol="h2")))

    def test_nothing_known(self) -> None:
        """A connection that sent no request has dashes."""
        self.assertEqual(
            line_of("combined", Record(1.0, 0.0, "", "http")),
            '- - - [01/Jan/1970:00:00:00 +0000] "-" - - "-" "-"',
        )

    def test_time_moves_on(self) -> None:
        """The time is formatted once a second, and again when the second changes, even backwards."""
        line = CombinedFormat().line
        stamps = [
            line(a_record(wall_time=at)).partition("[")[2][:20]
            for at in (WALL_TIME, WALL_TIME + 0.4, WALL_TIME + 0.6, WALL_TIME - 1)
        ]
        self.assertEqual([stamp[-8:] for stamp in stamps], ["23:59:59", "23:59:59", "00:00:00", "23:59:58"])

    def test_without_query(self) -> None:
        """``query = false`` leaves out the query of the referer as well."""
        line = line_of("combined", a_record(path="/a?t=1", referer="http://x.example/r?t=2"), query=False)
        self.assertIn('"GET /a HTTP/1.1"', line)
        self.assertIn('"http://x.example/r"', line)

    def test_escapes(self) -> None:
        """Quotes and backslashes get a backslash, other bytes their number."""
        line = line_of("combined", a_record(user_agent='"\\\r\n\x1b\x00\xe9\u20ac', client="a b"))
        self.assertTrue(line.endswith(r'"\"\\\x0d\x0a\x1b\x00\xe9\xe2\x82\xac"'), line)
        self.assertTrue(line.startswith("a\\x20b - - ["))

    @settings(max_examples=100, deadline=None)
    @given(st.text(), st.text(), st.text(), st.text())
    def test_any_text_keeps_its_place(self, client: str, path: str, referer: str, user_agent: str) -> None:
        """Whatever the texts are, the line is printable and has seven fields."""
        line = line_of("combined", a_record(client=client, path=path, referer=referer, user_agent=user_agent))
        self.assertTrue(line.isascii() and line.isprintable())
        quoted = r'"(?:[^"\\]|\\.)*"'
        self.assertRegex(line, rf"^[^ ]+ - - \[[^\]]+\] {quoted} 200 5123 {quoted} {quoted}$")


class FormatterTests(SynchronousTestCase):
    """Choosing by name."""

    def test_names(self) -> None:
        """These are the names a configuration may use."""
        self.assertEqual(sorted(FORMATS), ["combined", "json", "logfmt"])

    def test_unknown(self) -> None:
        """Any other name is a KeyError."""
        self.assertRaises(KeyError, formatter, "xml")
