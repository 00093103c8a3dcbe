"""Worlds whose proxy speaks HTTP/2 on its plain port, and clients for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.protocols.http2_frontend import HTTP2Frontend
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.http2_connection import HTTP2Connection
from scalingo_proxy.wire.http2_frames import PREFACE
from tests.protocols.worlds import WorldTestCase

__all__ = [
    "HTTP2Client",
    "HTTP2TestCase",
    "PREFACE",
    "RawClient",
    "Stream",
    "build_http2_factory",
    "fields",
    "headers_frame",
]

Fields = list[tuple[bytes, bytes]]


class HTTP2Factory(HTTPProxyFactory):
    """Every client speaks HTTP/2 here, without TLS."""

    def buildProtocol(self, addr: Any) -> Any:
        self.last = HTTP2Frontend(self)
        return self.last


def build_http2_factory(world: World, **options: Any) -> HTTP2Factory:
    """Make the factory of a world that speaks HTTP/2."""
    return HTTP2Factory(
        world.resolver,
        world.network,
        pools=world.pools,
        observer=world.observer,
        timeouts=world.timeouts,
        limits=world.limits,
        request_ids=world.make_request_id,
        wall_clock=world.wall_clock,
        **options,
    )


def fields(
    path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET", host: bytes = b"hello.test"
) -> Fields:
    """The header list of a request."""
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", host),
        (b":path", path),
        *more,
    ]


def headers_frame(stream_id: int, listed: Iterable[tuple[bytes, bytes]], *flags: str) -> HeadersFrame:
    """A HEADERS frame whose block depends on no table."""
    frame = HeadersFrame(stream_id, data=Encoder().encode(list(listed)))
    frame.flags = set(flags) | {"END_HEADERS"} - {flag[1:] for flag in flags if flag.startswith("-")}
    return frame


class Stream:
    """What came on one stream."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.interim: list[int] = []
        self.body = bytearray()
        self.pieces: list[int] = []
        self.trailers: Fields = []
        self.ended = False
        self.reset: int | None = None

    @property
    def code(self) -> str:
        """The reason code, when the router answered."""
        return self.headers.get(b"x-scalingo-error", b"-").partition(b";")[0].decode()

    @property
    def is_over(self) -> bool:
        return self.ended or self.reset is not None


class _Client(ScriptedClient):
    """A client connection, as worlds know them, that reads something else than HTTP/1."""

    def __init__(self) -> None:
        super().__init__(None)

    def readConnectionLost(self) -> None:
        self.saw_end = True
        self.transport.loseConnection()


class _PatientConnection(H2Connection):
    """Goes on behind a GOAWAY, as clients do that wait for their answers."""

    def _receive_goaway_frame(self, frame: Any) -> Any:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        return [], [event]


class HTTP2Client(_Client):
    """A client that keeps the rules.

    :ivar acknowledges: it opens its windows as it reads.
    """

    def __init__(self, settings: dict[SettingCodes, int] | None = None, acknowledges: bool = True) -> None:
        super().__init__()
        config = H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = _PatientConnection(config)
        if settings:
            self.h2.local_settings = Settings(client=True, initial_values=settings)
        self.acknowledges = acknowledges
        self.streams: dict[int, Stream] = {}
        self.goaway: int | None = None
        self.events: list[Event] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what h2 has prepared."""
        self.transport.write(self.h2.data_to_send())

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)
        for event in self.h2.receive_data(data):
            self.events.append(event)
            self._handle(event)
        if not self.is_over:
            self.flush()

    def _handle(self, event: Event) -> None:
        stream = self.streams.get(getattr(event, "stream_id", None) or 0, Stream())
        if isinstance(event, ResponseReceived):
            stream.headers = dict(event.headers)
            stream.status = int(stream.headers[b":status"])
        elif isinstance(event, InformationalResponseReceived):
            stream.interim.append(int(dict(event.headers)[b":status"]))
        elif isinstance(event, DataReceived):
            stream.body += event.data
            stream.pieces.append(len(event.data))
            if self.acknowledges:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            stream.trailers = list(event.headers)
        elif isinstance(event, StreamEnded):
            stream.ended = True
        elif isinstance(event, StreamReset):
            stream.reset = int(event.error_code)
        elif isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code or 0)

    def request(self, listed: Fields | None = None, body: bytes | None = None, end: bool = True) -> Stream:
        """Send a request; a body that the windows admit."""
        stream_id = self.h2.get_next_available_stream_id()
        self.streams[stream_id] = stream = Stream()
        stream.id = stream_id  # type: ignore[attr-defined]
        self.h2.send_headers(stream_id, listed or fields(), end_stream=end and body is None)
        if body is not None:
            self.upload(stream, body, end)
        self.flush()
        return stream

    def upload(self, stream: Any, data: bytes, end: bool = False) -> None:
        """Send a piece of a body."""
        while len(data) > 16384:
            self.h2.send_data(stream.id, data[:16384])
            data = data[16384:]
        self.h2.send_data(stream.id, data, end_stream=end)
        self.flush()

    def cancel(self, stream: Any, error_code: int = 8) -> None:
        """Send RST_STREAM."""
        self.h2.reset_stream(stream.id, error_code)
        stream.reset = error_code
        self.flush()


class RawClient(_Client):
    """A client that sends the bytes it is told, and notes the frames that come.

    :ivar frames: every frame that came.
    :ivar lists: every header list that came, with the stream it came on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.heads: list[tuple[int, int]] = []
        self.lists: list[tuple[int, dict[bytes, bytes]]] = []
        self._decoder = Decoder()

    def write(self, *frames: Frame | bytes) -> RawClient:
        """Send frames and bytes in one write."""
        data = b"".join([frame if isinstance(frame, bytes) else frame.serialize() for frame in frames])
        self.transport.write(data)
        return self

    def begin(self) -> RawClient:
        """Send the preface and empty settings."""
        return self.write(PREFACE, SettingsFrame(0))

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)
        received = self._received
        received += data
        while len(received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(received[:9])))
            if len(received) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(received[9 : 9 + length])))
            del received[: 9 + length]
            self.frames.append(frame)
            if isinstance(frame, HeadersFrame):
                listed = dict(self._decoder.decode(frame.data, raw=True))
                self.lists.append((frame.stream_id, listed))
                if b":status" in listed:
                    self.heads.append((frame.stream_id, int(listed[b":status"])))

    @property
    def goaway(self) -> int | None:
        """The error code of the GOAWAY that came last, if any."""
        codes = [frame.error_code for frame in self.frames if isinstance(frame, GoAwayFrame)]
        return codes[-1] if codes else None

    def statuses_of(self, stream_id: int) -> list[int]:
        """The status of each response head on one stream."""
        return [status for number, status in self.heads if number == stream_id]

    @property
    def resets(self) -> dict[int, int]:
        """Stream and error code of each RST_STREAM."""
        return {f.stream_id: f.error_code for f in self.frames if isinstance(f, RstStreamFrame)}


class _One(ClientFactory[Any]):
    noisy = False

    def __init__(self, client: Any) -> None:
        self._client = client

    def buildProtocol(self, addr: Any) -> Any:
        return self._client

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._client.lost_because = reason


class HTTP2TestCase(WorldTestCase):
    """A test case whose worlds speak HTTP/2."""

    def world(self, seed: int = 0, **options: Any) -> World:
        """A world of this test."""
        return super().world(seed, build=self.build, **options)

    build = staticmethod(build_http2_factory)

    def connect(self, world: World, client: Any, source: str = "") -> Any:
        """Connect *client* to the proxy of *world*, from the address *source* where that matters."""
        world.network.connectTCP(*world.address, _One(client), bindAddress=(source, 0) if source else None)
        world.clients.append(client)
        world.run_until(lambda: client.is_connected)
        return client

    def client(self, world: World, source: str = "", **options: Any) -> HTTP2Client:
        """A connected client that keeps the rules."""
        client: HTTP2Client = self.connect(world, HTTP2Client(**options), source)
        return client

    def raw(self, world: World) -> RawClient:
        """A connected client that has begun and keeps no rules."""
        client: RawClient = self.connect(world, RawClient())
        return client.begin()

    def connection_of(self, world: World) -> HTTP2Connection:
        """The proxy's side of the connection that was made last."""
        connection: HTTP2Connection = world.factory.last.connection
        return connection
