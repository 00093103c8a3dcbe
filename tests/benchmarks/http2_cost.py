"""What HTTP/2 costs by itself, in the h2 and hpack packages and in ours; part of the tricks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived as RequestReceivedByLibrary
from hpack import Decoder, Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame, WindowUpdateFrame

from scalingo_proxy.model import Limits
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_response import parse_response_head
from scalingo_proxy.wire.http2_compression import LeanDecoder, LeanEncoder
from scalingo_proxy.wire.http2_connection import HTTP2Connection
from scalingo_proxy.wire.http2_events import RequestReceived
from scalingo_proxy.wire.http2_frames import PREFACE
from scalingo_proxy.wire.http2_head import (
    forget_unused_header_lists,
    http2_request_head,
    http2_response_block,
    http2_response_fields,
)
from tests.benchmarks.comparing import TURNS, compare, line
from tests.benchmarks.world import BROWSER_HEADERS

__all__ = ["of_http2"]

_STREAMS = 16


class _ByLibrary:
    """A server's side of a connection as the h2 package has it."""

    def __init__(self) -> None:
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._connection.initiate_connection()

    def begin(self, data: bytes) -> None:
        self._connection.receive_data(data)

    def exchange(self, data: bytes, response: Fields, body: bytes) -> None:
        connection = self._connection
        for event in connection.receive_data(data):
            if isinstance(event, RequestReceivedByLibrary):
                connection.send_headers(event.stream_id, response)
                connection.send_data(event.stream_id, body, end_stream=True)
        connection.data_to_send()


class _ByUs:
    def __init__(self) -> None:
        self._connection = HTTP2Connection(32768)
        self._connection.begin()

    def begin(self, data: bytes) -> None:
        self._connection.frames.add_data(data)
        while self._connection.next_event() is not None:
            pass

    def exchange(self, data: bytes, response: Fields, body: bytes) -> None:
        connection = self._connection
        connection.frames.add_data(data)
        while (event := connection.next_event()) is not None:
            if isinstance(event, RequestReceived):
                connection.send_headers(event.stream, response, False)
                connection.send_payload(event.stream, body, True)
        connection.data_to_send()


def _exchanges(build: Callable[[], Any], requests: list[bytes], response: Fields) -> float:
    """CPU time of a request that is read and whose response is put into frames."""
    side = build()
    window = WindowUpdateFrame(0, 2**30).serialize()
    side.begin(PREFACE + SettingsFrame(0).serialize() + window)
    began = time.process_time()
    for data in requests:
        side.exchange(data, response, b"x" * 120)
    return (time.process_time() - began) / len(requests) / _STREAMS * 1e6


def of_http2() -> Iterator[str]:
    pseudo = [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"https"), (b":authority", b"app.example")]
    request = pseudo + [(name.lower().encode(), value.encode()) for name, value in BROWSER_HEADERS.items()]
    encoder, usual, lean = Encoder(), Decoder(), LeanDecoder(65536)
    first = encoder.encode(request)
    usual.decode(first, raw=True), lean.decode(first)
    again = encoder.encode(request)
    # Each with a path of its own, as browsers send it: in no table, and with Huffman's code.
    paths = [b"/assets/%d.js" % number for number in range(20)]
    others = cycle(
        [again[:1] + encoder._encode_indexed_literal(4, p, b"\0", True) + again[2:] for p in paths]
    )
    yield compare(
        "decoding a browser's request over HTTP/2",
        lambda: usual.decode(next(others), raw=True),
        lambda: lean.decode(next(others)),
        500,
    )
    yield compare(
        "the same request again", lambda: usual.decode(again, raw=True), lambda: lean.decode(again), 500
    )

    limits = Limits()

    def read_anew() -> None:
        forget_unused_header_lists()
        forget_unused_header_lists()
        http2_request_head(request, True, limits)

    yield compare(
        "a header list that was read before",
        read_anew,
        lambda: http2_request_head(request, True, limits),
        500,
    )
    block = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\nContent-Length: 120\r\n"
    block += b"Date: Fri, 27 Nov 2026 13:15:%02d GMT\r\n\r\n"
    heads = [parse_response_head(block % second, b"GET") for second in range(60)]
    response = http2_response_fields(200, heads[0].fields)
    usual_encoder, lean_encoder = Encoder(), LeanEncoder()
    yield compare(
        "encoding a response over HTTP/2",
        lambda: usual_encoder.encode(response),
        lambda: http2_response_block(heads[-1], lean_encoder),
        500,
    )
    requests = []
    for at in range(1, 40 * 2 * _STREAMS, 2 * _STREAMS):
        blocks = dict.fromkeys(range(at, at + 2 * _STREAMS, 2), again) | ({1: first} if at == 1 else {})
        frames = [HeadersFrame(n, blocks[n], flags=["END_HEADERS", "END_STREAM"]) for n in blocks]
        requests.append(b"".join([frame.serialize() for frame in frames]))
    costs = [1e9, 1e9]
    for _ in range(TURNS):
        for place, build in enumerate((_ByLibrary, _ByUs)):
            costs[place] = min(costs[place], _exchanges(build, requests, response))
    yield line("frames, states and windows of an exchange over HTTP/2", *costs)
