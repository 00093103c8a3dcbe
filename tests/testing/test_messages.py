"""The fakes' own reader of HTTP/1 messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.testing.messages import (
    MalformedMessage,
    Request,
    RequestReader,
    Response,
    ResponseReader,
)

HEAD = b"POST /a?b HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;note\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n"


def read_requests(data: bytes, size: int | None = None) -> list[Request]:
    """Every whole request of *data*, fed in pieces of *size*."""
    found: list[Request] = []
    reader = RequestReader()
    reader.on_complete = found.append
    for at in range(0, len(data), size or len(data)):
        reader.feed(data[at : at + (size or len(data))])
    return found


def read_responses(data: bytes, *methods: bytes, end: bool = False) -> list[Response]:
    """Every whole response of *data* to requests with *methods*."""
    found: list[Response] = []
    reader = ResponseReader()
    reader.methods.extend(methods)
    reader.on_complete = found.append
    reader.feed(data)
    if end:
        reader.feed_end()
    return found


class RequestReaderTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """The first line and the fields are taken apart, order and case kept."""
        (request,) = read_requests(b"GET /a HTTP/1.1\r\nhOst:  x \r\nB:\r\na: 1\r\n\r\n")
        self.assertEqual((request.method, request.target, request.version), (b"GET", b"/a", b"1.1"))
        self.assertEqual(request.headers, ((b"hOst", b"x"), (b"B", b""), (b"a", b"1")))
        self.assertEqual((request.get(b"HOST"), request.get(b"c", b"none")), (b"x", b"none"))

    def test_chunked_however_it_is_cut(self) -> None:
        """A chunked body, its sizes and trailers come out the same in pieces of any size."""
        for size in range(1, len(CHUNKED) + 1):
            (request,) = read_requests(CHUNKED, size)
            self.assertEqual((request.body, request.chunk_sizes), (b"hello!", [5, 1]))
            self.assertEqual((request.trailers, request.raw), (((b"A", b"b"),), CHUNKED))

    def test_pipelined(self) -> None:
        """Messages that follow each other are told apart."""
        data = HEAD + b"Content-Length: 2\r\n\r\nab" + CHUNKED + b"GET / HTTP/1.1\r\nHost: y\r\n\r\n"
        for size in (1, 7, None):
            self.assertEqual([r.body for r in read_requests(data, size)], [b"ab", b"hello!", b""])

    def test_incomplete(self) -> None:
        """What came so far can be seen before the rest does."""
        reader = RequestReader()
        reader.feed(HEAD + b"Content-Length: 5\r\n\r\nhe")
        current = reader.current
        assert current is not None
        self.assertEqual((current.body, current.is_complete), (b"he", False))
        self.assertIn("incomplete", repr(current))

    def test_refuses(self) -> None:
        """Nothing ambiguous or malformed passes."""
        for words in (
            b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
            HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
            HEAD + b"Content-Length: +1\r\n\r\na",
            HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n",
        ):
            self.assertRaises(MalformedMessage, read_requests, words)

    def test_several_fields(self) -> None:
        """Asking for the only one of several is a mistake worth an error."""
        (request,) = read_requests(b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\n\r\n")
        self.assertEqual(request.get_all(b"A"), [b"1", b"2"])
        self.assertRaises(AssertionError, request.get, b"A")

    def test_tunnel(self) -> None:
        """From the moment it is a tunnel, bytes are handed on as they are."""
        reader = RequestReader()
        seen: list[bytes] = []
        reader.on_complete = lambda request: reader.become_tunnel(seen.append)
        reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\x00first")
        reader.feed(b"GET")
        self.assertEqual(seen, [b"\x00first", b"GET"])


class ResponseReaderTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Status and reason are taken apart."""
        (response,) = read_responses(b"HTTP/1.1 404 Not here\r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual((response.status, response.reason, response.body), (404, b"Not here", b"no"))

    def test_no_body(self) -> None:
        """HEAD, 204 and 304 have no body, whatever their length says."""
        data = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
            b"HTTP/1.1 204 No Content\r\n\r\n"
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
        )
        responses = read_responses(data, b"HEAD", b"GET", b"GET", b"GET")
        self.assertEqual([response.body for response in responses], [b"", b"", b"", b"x"])

    def test_interim(self) -> None:
        """Interim responses do not answer the request."""
        data = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        self.assertEqual([r.status for r in read_responses(data, b"HEAD")], [103, 200])

    def test_until_close(self) -> None:
        """Without a length the body lasts until the connection ends in order."""
        data = b"HTTP/1.1 200 OK\r\n\r\nall of it"
        self.assertEqual(read_responses(data), [])
        (response,) = read_responses(data, end=True)
        self.assertEqual((response.body, response.ended_by_close), (b"all of it", True))

    def test_end_in_the_middle(self) -> None:
        """The end of the connection completes no body that has a length."""
        for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
            data = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
            self.assertEqual(read_responses(data, end=True), [])

    def test_refuses(self) -> None:
        """A status line is a status line."""
        for line in (b"HTTP/1.1 20 OK", b"HTTP/1.1 200", b"HTTP/3 200 OK", b"HTTP/1.1  200 OK"):
            self.assertRaises(MalformedMessage, read_responses, line + b"\r\n\r\n")
