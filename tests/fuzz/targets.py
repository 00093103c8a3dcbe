"""What must hold for any bytes at all, one function for each reader of what peers send.

Each takes bytes and raises AssertionError where a promise is broken; any other
exception is a bug as well.  The first bytes decide how the rest is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from scalingo_proxy.testing.world import World, WorldApp
from scalingo_proxy.wire.client_hello import ClientHello, ClientHelloReader, HelloRefused
from scalingo_proxy.wire.http1_forwarding import ClientIdentity, request_head_for_backend
from scalingo_proxy.wire.http1_head import RequestHead
from scalingo_proxy.wire.http2_frames import PREFACE
from scalingo_proxy.wire.proxy_header import ProxyHeaderReader, ProxyHeaderRefused
from tests import corpus
from tests.corpus import hellos, proxy_headers
from tests.protocols.http2_worlds import HTTP2TestCase, RawClient, build_http2_factory
from tests.protocols.test_corpus import AnyHost
from tests.wire.http1_streams import STATES, Message, RequestStream, ResponseStream

__all__ = ["TARGETS", "seeds"]

_IDENTITY = ClientIdentity("192.0.2.1", "http", 80, None)
_REQUEST_ID = b"00000000-0000-4000-8000-000000000000"


def _pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """The input, and the same cut where its first two bytes say."""
    places, data = data[:2], data[2:]
    cuts = sorted(place * len(data) // 256 for place in places)
    return data, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _told(messages: list[Message]) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]]]]:
    return [(message.block, message.body, message.trailers) for message in messages]


def _stands(stream: RequestStream | ResponseStream) -> str:
    """Where it stands; of two things that are wrong, another one may be met first."""
    return stream.stands if stream.stands in STATES else "refused"


def requests(data: bytes) -> None:
    """Cutting changes nothing, and what travels on is one request that reads the same."""
    data, cut = _pieces(data)
    whole, pieces = RequestStream(), RequestStream()
    whole.receive(data)
    for piece in cut:
        pieces.receive(piece)
    assert _told(whole.messages) == _told(pieces.messages), "cut"
    assert _stands(whole) == _stands(pieces), f"{whole.stands} and {pieces.stands}"
    for message in whole.messages:
        head = message.head
        assert isinstance(head, RequestHead)
        rewritten = request_head_for_backend(head, _IDENTITY, _REQUEST_ID, 1_700_000_000.0)
        again = RequestStream()
        again.receive(rewritten)
        if again.stands == "head-too-large":
            continue  # ours came on top of as many as there may be
        unfinished = again.unfinished
        (read,) = again.messages or ([unfinished] if unfinished else [])
        assert isinstance(read.head, RequestHead)
        assert (read.head.method, read.head.target, read.head.host) == (head.method, head.target, head.host)
        assert read.head.framing.kind is head.framing.kind, "framed otherwise"


def responses(data: bytes) -> None:
    """Cutting changes nothing."""
    data, cut = _pieces(data)
    methods = [b"GET", b"HEAD", b"POST"]
    whole, pieces = ResponseStream(methods), ResponseStream(methods)
    whole.receive(data)
    for piece in cut:
        pieces.receive(piece)
    assert _told(whole.messages) == _told(pieces.messages), "cut"
    assert _stands(whole) == _stands(pieces), f"{whole.stands} and {pieces.stands}"


def hello(data: bytes) -> None:
    """One verdict whatever the cut, and never more kept than promised."""

    def read(pieces: list[bytes]) -> tuple[str, str]:
        reader = ClientHelloReader()
        for piece in pieces:
            try:
                found = reader.receive(piece)
            except HelloRefused as refused:
                return "refused", str(refused)
            if isinstance(found, ClientHello):
                return "accepted", found.server_name
        return "waits", ""

    data, cut = _pieces(data)
    assert read([data]) == read(cut), "cut"


def proxy_header(data: bytes) -> None:
    """One verdict whatever the cut, and what comes behind is given back whole."""

    def read(pieces: list[bytes]) -> tuple[str, str, bytes]:
        reader = ProxyHeaderReader()
        rest = b""
        header = None
        for piece in pieces:
            if header is not None:
                rest += piece
                continue
            try:
                header = reader.receive(piece)
            except ProxyHeaderRefused:
                return "refused", "", b""
        return ("accepted", str(header), reader.excess + rest) if header is not None else ("waits", "", b"")

    data, cut = _pieces(data)
    assert read([data]) == read(cut), "cut"


def _assert_counted(world: World, app: WorldApp) -> None:
    world.end()
    assert not app.backend.malformed, app.backend.malformed
    counted = sum(1 for record in world.records if record.backend)
    assert app.requests <= counted, f"{app.requests} requests at the backend, {counted} counted"


def proxy(data: bytes) -> None:
    """A whole proxy over HTTP/1: no more requests at the backend than were counted."""
    _, cut = _pieces(data)
    world = World(resolver=AnyHost())
    app = world.app("any", ["any.test"])
    client = world.client()
    for piece in cut:
        client.send(piece)
        world.advance(0.01)
    _assert_counted(world, app)


def http2(data: bytes) -> None:
    """A whole proxy over HTTP/2: the same."""
    _, cut = _pieces(data)
    world = World(resolver=AnyHost(), build=build_http2_factory)
    app = world.app("any", ["any.test"])
    client = HTTP2TestCase().connect(world, RawClient())
    client.write(PREFACE)
    for piece in cut:
        client.write(piece)
        world.advance(0.01)
    _assert_counted(world, app)


#: Each target by its name.
TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "requests": requests,
    "responses": responses,
    "hello": hello,
    "proxy_header": proxy_header,
    "proxy": proxy,
    "http2": http2,
}

_SETTINGS = bytes.fromhex("000000040000000000")
#: GET / for any.test on stream 1, and a POST with a body on stream 3, by the static table and in plain text.
_AUTHORITY = b"\x41\x08any.test"
_GET = bytes.fromhex("00000d010500000001828684") + _AUTHORITY
_POST = bytes.fromhex("00000d010400000003838684") + _AUTHORITY + bytes.fromhex("000003000100000003") + b"abc"


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with: those of the corpus."""
    if target in ("requests", "proxy"):
        inputs = [case.input for case in corpus.load_cases("requests")]
    elif target == "responses":
        inputs = [case.input for case in corpus.load_cases("responses")]
    elif target == "hello":
        inputs = [each.data for each in hellos.load_hellos()]
    elif target == "proxy_header":
        inputs = [each.data for each in proxy_headers.load_headers()]
    else:
        inputs = [_SETTINGS + _GET, _SETTINGS + _GET + _POST]
    for data in inputs:
        if len(data) <= 4096:
            yield b"\x55\xaa" + data
