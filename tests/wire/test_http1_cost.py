"""What hostile input costs: linear in its bytes, however it is cut.

Bytes looked at are counted where that can be done from outside.  Elsewhere a
bound on CPU time is set so far away from a linear cost, by a factor of a
hundred and more, that only another order of growth reaches it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import Limits
from scalingo_proxy.wire import http1_body, http1_head
from scalingo_proxy.wire.grammar import FramingError, parse_fields, split_list
from scalingo_proxy.wire.host import parse_authority
from scalingo_proxy.wire.http1_body import ChunkedReader
from scalingo_proxy.wire.http1_forwarding import ClientIdentity, relayed_trailers
from scalingo_proxy.wire.http1_head import RequestHead, head_end
from scalingo_proxy.wire.http1_request import check_unfinished_request_head, parse_request_head
from scalingo_proxy.wire.http1_response import parse_response_head
from tests.wire.http1_streams import READY, RequestStream, fed, single_bytes

MEGABYTE = 1_000_000
UNLIMITED = Limits(request_line_bytes=1 << 30, head_bytes=1 << 30, header_bytes=1 << 30)
HEAD = b"GET / HTTP/1.1\r\nHost: app.test\r\n"


class CountingBuffer(bytearray):
    """Counts the bytes that its own searches may look at."""

    looked_at = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        found = super().find(sub, start, len(self) if end is None else end)
        stop = found + len(sub) if found >= 0 else min(len(self), len(self) if end is None else end)
        self.looked_at += stop - start
        return found


class CountingPattern:
    """Counts the bytes that an expression may look at."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.looked_at = 0

    def search(self, data: bytes, start: int = 0) -> re.Match[bytes] | None:
        self.looked_at += len(data) - start
        return self.pattern.search(data, start)

    def match(self, data: bytes, start: int = 0) -> re.Match[bytes] | None:
        self.looked_at += len(data) - start
        return self.pattern.match(data, start)


class SingleByteTests(SynchronousTestCase):
    """Input that comes one byte at a time."""

    def patched(self, module: Any, name: str) -> CountingPattern:
        counting = CountingPattern(getattr(module, name))
        self.patch(module, name, counting)
        return counting

    def test_head(self) -> None:
        """Each byte of a head is looked at a few times."""
        never = self.patched(http1_head, "NEVER_IN_A_HEAD")
        for head in (
            HEAD + b"X-A: " + b"a" * 30_000,
            HEAD + b"A: b\r\n" * 5_000,
            b"GET /" + b"a" * 8_000 + b" HTTP/1.1\r\n" + b"A: b\r\n" * 3_600,
        ):
            received = CountingBuffer()
            never.looked_at = 0
            for count, byte in enumerate(single_bytes(head)):
                received += byte
                self.assertEqual(head_end(received, count), -1)
            self.assertLess(received.looked_at + never.looked_at, 10 * len(head))

    def test_unfinished_head(self) -> None:
        """Behind the request line the check of an unfinished head looks at nothing."""
        received = CountingBuffer(b"GET /" + b"a" * 8_000 + b" HTTP/1.1\r\n" + b"A: b\r\n" * 50)
        for byte in single_bytes(b"A: b\r\n" * 4_000):
            searched = len(received)
            received += byte
            check_unfinished_request_head(received, searched, UNLIMITED_HEAD)
        self.assertEqual(received.looked_at, 0)

    def test_chunk_line(self) -> None:
        """A size line with its extensions is looked at a few times."""
        patterns = [
            self.patched(http1_body, name) for name in ("NEVER_IN_A_HEAD", "_SIZE_LINE", "_SIZE_LINE_START")
        ]
        line = b"5;a=" + b"x" * 4_000 + b"\r\n"
        reader = ChunkedReader()
        for byte in single_bytes(line):
            reader.receive(byte)
        self.assertLess(sum(pattern.looked_at for pattern in patterns), 10 * len(line))
        self.assertEqual(reader.receive(b"hello\r\n0\r\n\r\n"), b"hello")

    def test_trailers(self) -> None:
        """Trailers are looked at a few times."""
        never = self.patched(http1_body, "NEVER_IN_A_HEAD")
        reader = ChunkedReader()
        reader.receive(b"0\r\n")
        trailers = b"X-A: " + b"a" * 30_000
        for byte in single_bytes(trailers):
            reader.receive(byte)
        self.assertLess(never.looked_at, 10 * len(trailers))


#: A request line within the default limit and a head without any.
UNLIMITED_HEAD = Limits(head_bytes=1 << 30)


class CPUTimeTests(SynchronousTestCase):
    """Input made to be expensive."""

    def bounded(self, work: Callable[[], object], seconds: float = 3.0) -> None:
        """A megabyte takes some ten milliseconds where the cost is linear, and hours where it is not."""
        began = time.process_time()
        try:
            work()
        except (ProxyError, FramingError):
            pass
        self.assertLess(time.process_time() - began, seconds)

    def test_sections(self) -> None:
        """Names, values and blanks of a megabyte, ended or not, right to the last byte or wrong there."""
        for piece in (
            b"a",
            b" ",
            b"\t",
            b":",
            b": ",
            b"\xe9",
            b"a:",
            b", ",
            b"A: b\r\n",
            b"A:  \r\n",
            b'"\\',
        ):
            run = piece * (MEGABYTE // len(piece))
            for section in (
                run,
                b"A:" + run,
                b"A:" + run + b"\r\n",
                run + b": b\r\n",
                b"A:" + run + b"\0\r\n",
            ):
                self.bounded(lambda section=section: parse_fields(section))

    def test_request_heads(self) -> None:
        """Whole heads of a megabyte, with the limits taken away."""
        for lines in (
            b"Connection:" + b"," * MEGABYTE,
            b"Connection:" + b"a," * (MEGABYTE // 2),
            b"Connection:" + b" \t" * (MEGABYTE // 2) + b"a",
            b"Transfer-Encoding:" + b"," * MEGABYTE + b"chunked",
            b"Transfer-Encoding: " + b"gzip," * (MEGABYTE // 5) + b"chunked",
            b"Content-Length: " + b"0" * MEGABYTE,
            b"Content-Length: " + b"9" * MEGABYTE,
            b"Connection: upgrade\r\nUpgrade: " + b"a/b, " * (MEGABYTE // 5),
            b"Connection: upgrade\r\nUpgrade: " + b"websocket," * (MEGABYTE // 10),
            b"Expect: " + b"1" * MEGABYTE,
            b"TE: " + b"trailers;" * (MEGABYTE // 9),
            b"X" * MEGABYTE + b": b",
            b"_" * MEGABYTE + b": b",
        ):
            self.bounded(lambda lines=lines: parse_request_head(HEAD + lines + b"\r\n\r\n", UNLIMITED))

    def test_request_lines(self) -> None:
        """Request lines of a megabyte."""
        for line in (
            b"A" * MEGABYTE,
            b" " * MEGABYTE,
            b"GET " + b"/" * MEGABYTE,
            b"GET " + b" HTTP/1.1" * (MEGABYTE // 9),
            b"GET http://" + b"a." * (MEGABYTE // 2) + b"/ HTTP/1.1",
            b"GET http://" + b"a" * MEGABYTE + b" HTTP/1.1",
            b"GET / HTTP/" + b"1" * MEGABYTE,
            b"GET / HTTP/" + b"1." * (MEGABYTE // 2),
        ):
            block = line + b"\r\nHost: app.test\r\n\r\n"
            self.bounded(lambda block=block: parse_request_head(block, UNLIMITED))
            self.bounded(lambda block=block: parse_response_head(block[: 1 << 16], b"GET"))

    def test_many_fields(self) -> None:
        """Two hundred thousand fields, even where nobody counts them before they are read."""
        self.bounded(lambda: parse_request_head(HEAD + b"A: b\r\n" * 200_000 + b"\r\n", UNLIMITED))

    def test_hosts(self) -> None:
        """Hosts of a megabyte."""
        for piece in (b"a", b"a.", b".", b"-", b":", b"[", b"1:", b"%2e"):
            run = piece * (MEGABYTE // len(piece))
            for host in (run, run + b":80", b"[" + run + b"]", run + b"@", b"a:" + run):
                self.bounded(lambda host=host: parse_authority(host))

    def test_lists(self) -> None:
        """Lists of a megabyte."""
        for piece in (b",", b"a,", b" ", b" ,\t"):
            self.bounded(lambda piece=piece: split_list(piece * (MEGABYTE // len(piece))))

    def test_chunk_lines(self) -> None:
        """Extensions and sizes of a megabyte."""
        for piece in (b"0", b";", b";a", b";a=b", b';a="b"', b';a=""', b"\\", b'\\"', b" ", b"=", b"\t "):
            run = piece * (MEGABYTE // len(piece))
            for line in (run, b"5" + run, b"5;a=" + run, b'5;a="' + run, b'5;a="' + run + b'"\r\n'):
                self.bounded(lambda line=line: ChunkedReader().receive(line))
                parts = [line[start : start + 100] for start in range(0, 8_000, 100)]
                self.bounded(lambda parts=parts: b"".join(map(ChunkedReader().receive, parts)))

    def test_one_byte_chunks(self) -> None:
        """A hundred thousand chunks of one byte."""
        reader = ChunkedReader()
        body = b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n"
        self.bounded(lambda: self.assertEqual(len(reader.receive(body)), 100_000))

    def test_one_byte_chunks_in_single_bytes(self) -> None:
        """Five thousand chunks of one byte, byte by byte."""
        reader = ChunkedReader()
        parts = single_bytes(b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n")
        self.bounded(lambda: self.assertEqual(b"".join(map(reader.receive, parts)), b"a" * 5_000))

    def test_head_in_single_bytes(self) -> None:
        """A head of thirty thousand bytes, byte by byte."""
        head = HEAD + b"".join(b"X-%d: %b\r\n" % (count, b"a" * 1_000) for count in range(29)) + b"\r\n"
        stream = RequestStream()
        self.bounded(lambda: fed(stream, single_bytes(head)))
        self.assertEqual((len(stream.messages), stream.stands), (1, READY))

    def test_pipelined_in_single_bytes(self) -> None:
        """A thousand requests, byte by byte."""
        stream = RequestStream()
        self.bounded(lambda: fed(stream, single_bytes((HEAD + b"\r\n") * 1_000)))
        self.assertEqual(len(stream.messages), 1_000)

    def test_forwarded_chain(self) -> None:
        """A chain of a hundred thousand addresses, all of them trusted."""
        head = RequestHead(b"GET", b"/", 1)
        head.special = {b"x-forwarded-for": [b"10.0.0.1," * 100_000]}
        identity = ClientIdentity("10.0.0.9", "http", 80, lambda address: True)
        self.bounded(lambda: identity.lines(head))

    def test_trailers(self) -> None:
        """A megabyte of trailers for us to choose from."""
        self.bounded(lambda: relayed_trailers([(b"_" * 1_000, b"")] * 1_000))
