"""The load of a soak: clients of each kind, one request after another, writing down how it went.

They read HTTP with code of their own, so that what the proxy gets wrong is seen.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import h2.config
import h2.connection
import h2.events

from tests.soak.backend import frame, read_frame
from tests.soak.exchanges import Exchange

__all__ = ["Doors", "Load"]

#: Longer than anything that the proxy should ever let a client wait.
PATIENCE_SECONDS = 25.0

_TEXT, _CLOSE = 1, 8


class Broken(Exception):
    """The other side did not keep to HTTP."""


class Doors:
    """Where the proxy listens, and whom clients trust.

    :ivar http: the port of the plain listener; ``tls`` of the other one.
    """

    def __init__(self, http: int, tls: int, authority: str) -> None:
        self.http = http
        self.tls = tls
        self._authority = authority

    def context(self, *protocols: str) -> ssl.SSLContext:
        """For a client that speaks *protocols*."""
        context = ssl.create_default_context(cadata=self._authority)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


class Connection:
    """A client's connection that speaks HTTP/1.1, and the exchange that it was opened for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: Exchange) -> None:
        self.reader = reader
        self.writer = writer
        self.first = first
        self._last = ""

    async def ask(self, exchange: Exchange, head: bytes, body: bytes = b"") -> bool:
        """Send a request and read all of its answer; whether the connection can be used again."""
        exchange.behind, self._last = self._last, exchange.id
        self.writer.write(head + body)
        first, fields = await self.read_head(exchange)
        length = fields.get("content-length")
        if length is None:
            raise Broken(f"{first} without a length")
        content = await self.reader.readexactly(int(length))
        if exchange.status == 200:
            if not content.startswith(b"%b %d " % (exchange.id.encode(), len(body))):
                raise Broken(f"asked for {exchange.id} with {len(body)} bytes, got {content[:60]!r}")
        return fields.get("connection", "").lower() != "close"

    async def read_head(self, exchange: Exchange) -> tuple[str, dict[str, str]]:
        """Read the head of an answer, and note what it tells."""
        exchange.has_begun = False
        block = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = block.decode("latin-1").split("\r\n")[:-2]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        exchange.status = int(first.split(" ")[1])
        exchange.code = fields.get("x-scalingo-error", "").partition(";")[0]
        exchange.backend = fields.get("x-backend", "")
        exchange.has_begun = exchange.status in (200, 101)
        return first, fields

    def close(self) -> None:
        self.writer.transport.abort() if self.writer.transport.is_closing() else self.writer.close()


class Load:
    """Clients that ask until they are told to stop.

    :ivar exchanges: everything that was asked.
    """

    def __init__(self, random: Random, doors: Doors) -> None:
        self._random = random
        self._doors = doors
        self._stop = asyncio.Event()
        self._opened = random.getrandbits(16)
        self._workers: list[asyncio.Task[None]] = []
        self.exchanges: list[Exchange] = []

    def start(self, plain: list[str], sealed: list[str]) -> None:
        """Begin the constant load on apps whose HTTP is ours, and on apps that pass through."""
        kinds: list[tuple[Callable[..., Awaitable[None]], list[str], str]] = [
            *[(self._http1, plain, "GET")] * 4,
            *[(self._http1, plain, "POST")] * 4,
            *[(self._http1, plain, "POST with a key")] * 2,
            *[(self._burst, plain, "GET at once")] * 1,
            *[(self._http1, plain, "GET over TLS")] * 2,
            *[(self._http1, plain, "POST over TLS")] * 2,
            *[(self._http2, plain, "GET over HTTP/2")] * 2,
            *[(self._http2, plain, "POST over HTTP/2")] * 2,
            *[(self._websocket, plain, "WEBSOCKET")] * 3,
            *[(self._websocket, plain, "WEBSOCKET over TLS")] * 1,
            *[(self._http1, sealed, "GET passed through")] * 3,
            *[(self._http1, sealed, "POST passed through")] * 3,
            *[(self._websocket, sealed, "WEBSOCKET passed through")] * 4,
        ]
        for work, apps, kind in kinds:
            for app in apps:
                worker = asyncio.ensure_future(work(app, kind))
                self._workers.append(worker)

    async def stop(self) -> None:
        """Let each finish what it asked, and leave."""
        self._stop.set()
        for outcome in await asyncio.gather(*self._workers, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    # -- one exchange --------------------------------------------------------

    @contextlib.contextmanager
    def _exchange(self, app: str, kind: str) -> Iterator[Exchange]:
        """Note one, whatever becomes of it."""
        request_id = f"{self._random.getrandbits(128):032x}"
        exchange = Exchange(
            request_id, kind, app, time.monotonic(), is_repeatable="POST" not in kind or "key" in kind
        )
        exchange.is_tunnel = "WEBSOCKET" in kind or "passed" in kind
        try:
            yield exchange
        except TimeoutError:
            exchange.code = "no answer"
        except (OSError, EOFError, Broken, ValueError) as error:
            exchange.code = f"broken: {type(error).__name__} {error}"[:110]
        exchange.ended = time.monotonic()
        self.exchanges.append(exchange)

    def _request(self, exchange: Exchange) -> tuple[bytes, bytes]:
        """The head and the body of an ordinary request, now and then a slow or a big one."""
        random = self._random
        wish = random.choices(
            ("", "?think=0.3", "?think=1", "?size=200000", "?size=5000&drip=0.4"), (70, 12, 3, 5, 10)
        )[0]
        method = exchange.kind.partition(" ")[0]
        head = (
            f"{method} /{exchange.id}{wish} HTTP/1.1\r\nHost: {exchange.app}.test\r\n"
            f"X-Request-ID: {exchange.id}\r\n"
        )
        body = b""
        if method == "POST":
            body = bytes(random.choice((0, 10, 3000, 100_000)))
            if "key" in exchange.kind:
                body = body[:3000]  # more than some kilobytes are not kept to be sent again
                head += f"Idempotency-Key: {exchange.id}\r\n"
            head += f"Content-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n", body

    async def _pause(self, seconds: float) -> bool:
        """Wait a moment; false when it is time to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._random.random() * 2 * seconds)
        return not self._stop.is_set()

    # -- HTTP/1.1, in the clear and inside TLS -----------------------------------

    async def _open(self, app: str, kind: str, exchange: Exchange) -> Connection:
        if "TLS" not in kind and "passed" not in kind:
            return Connection(*await asyncio.open_connection("127.0.0.1", self._doors.http), exchange)
        # Only its address tells one that passes through from others in the request log.
        self._opened += 1
        source = f"127.{1 + self._opened // 62500}.{self._opened // 250 % 250}.{self._opened % 250 + 1}"
        if "passed" in kind:
            exchange.source, exchange.connected = source, time.monotonic()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self._doors.tls,
            ssl=self._doors.context("http/1.1"),
            server_hostname=f"{app}.test",
            local_addr=(source, 0),
        )
        return Connection(reader, writer, exchange)

    async def _http1(self, app: str, kind: str) -> None:
        connection: Connection | None = None
        while await self._pause(0.08):
            is_usable = False
            with self._exchange(app, kind) as exchange:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    is_over = connection is not None and connection.reader.at_eof()
                    if connection is None or is_over or self._random.random() < 0.1:
                        if connection is not None:
                            connection.close()
                        connection = None
                        connection = await self._open(app, kind, exchange)
                    exchange.connected, exchange.source = connection.first.connected, connection.first.source
                    is_usable = await connection.ask(exchange, *self._request(exchange))
            if connection is not None and not is_usable:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async def _burst(self, app: str, kind: str) -> None:
        """Several at the same moment, each over a connection of its own: what a page load is."""
        while await self._pause(1.0):
            await asyncio.gather(*(self._ask_once(app, kind) for _ in range(10)))

    async def _ask_once(self, app: str, kind: str) -> None:
        with self._exchange(app, kind) as exchange:
            connection = None
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    connection = await self._open(app, kind, exchange)
                    await connection.ask(exchange, *self._request(exchange))
            finally:
                if connection is not None:
                    connection.close()

    # -- WebSockets ----------------------------------------------------------

    async def _websocket(self, app: str, kind: str) -> None:
        while await self._pause(0.3):
            with self._exchange(app, kind) as exchange:
                connection = None
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        connection = await self._open(app, kind, exchange)
                        await self._talk(connection, exchange)
                finally:
                    if connection is not None:
                        connection.close()

    async def _talk(self, connection: Connection, exchange: Exchange) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.writer.write(
            (
                f"GET /{exchange.id} HTTP/1.1\r\nHost: {exchange.app}.test\r\nX-Request-ID: {exchange.id}\r\n"
                f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n\r\n"
            ).encode()
        )
        await connection.read_head(exchange)
        if exchange.status != 101:
            return
        for number in range(self._random.choice((1, 5, 20, 60))):
            words = f"{exchange.id} {number}".encode()
            connection.writer.write(frame(_TEXT, words, os.urandom(4)))
            opcode, answer = await read_frame(connection.reader)
            if opcode == _CLOSE:
                exchange.code = f"closed {int.from_bytes(answer[:2], 'big')}"
                return
            if answer != words:
                raise Broken(f"said {words!r}, heard {answer!r}")
            if not await self._pause(0.05):
                break
        connection.writer.write(frame(_CLOSE, (1000).to_bytes(2, "big"), os.urandom(4)))
        opcode, _ = await read_frame(connection.reader)
        if opcode != _CLOSE:
            raise Broken(f"asked to close, heard {opcode}")

    # -- HTTP/2 --------------------------------------------------------------

    async def _http2(self, app: str, kind: str) -> None:
        connection: HTTP2Connection | None = None
        while await self._pause(0.08):
            with self._exchange(app, kind) as exchange:
                is_usable = False
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        if connection is not None and connection.is_over:
                            connection.close()
                            connection = None
                        if connection is None:
                            name = f"{app}.test"
                            connection = HTTP2Connection(
                                *await asyncio.open_connection(
                                    "127.0.0.1",
                                    self._doors.tls,
                                    ssl=self._doors.context("h2"),
                                    server_hostname=name,
                                )
                            )
                        is_usable = await connection.ask(exchange, *self._request(exchange))
                finally:
                    if connection is not None and not is_usable:
                        connection.close()
                        connection = None
        if connection is not None:
            connection.close()


class _PatientConnection(h2.connection.H2Connection):
    """Goes on behind a GOAWAY, as clients do that wait for their answers."""

    def _receive_goaway_frame(self, frame: Any) -> Any:
        event = h2.events.ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


class HTTP2Connection:
    """A client's connection that speaks HTTP/2, one stream at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = _PatientConnection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._is_going_away = False
        self._h2.initiate_connection()

    async def ask(self, exchange: Exchange, head: bytes, body: bytes) -> bool:
        """Send a request, told as HTTP/1.1 has it, and read all of its answer."""
        first, *lines = head.decode().split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        host = dict(fields)["host"]
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(
            stream,
            [(":method", method), (":scheme", "https"), (":authority", host), (":path", target)]
            + [(name, value) for name, value in fields if name != "host"],
            end_stream=not body,
        )
        content = bytearray()
        left = memoryview(body)
        is_over = False
        while not is_over:
            while left and (room := self._h2.local_flow_control_window(stream)):
                size = min(room, self._h2.max_outbound_frame_size, len(left))
                self._h2.send_data(stream, bytes(left[:size]), end_stream=size == len(left))
                left = left[size:]
            self._writer.write(self._h2.data_to_send())
            data = await self._reader.read(65536)
            if not data:
                raise EOFError("the connection ended")
            for event in self._h2.receive_data(data):
                if getattr(event, "stream_id", stream) == stream:
                    is_over |= self._take(event, exchange, content)
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    left = left[:0] if event.stream_id == stream else left
        self._writer.write(self._h2.data_to_send())
        if exchange.status == 200:
            if not content.startswith(b"%b %d " % (exchange.id.encode(), len(body))):
                raise Broken(f"asked for {exchange.id} with {len(body)} bytes, got {bytes(content[:60])!r}")
        return not self._is_going_away

    def _take(self, event: Any, exchange: Exchange, content: bytearray) -> bool:
        """Look at one event of our stream; whether it was the last."""
        if isinstance(event, h2.events.ResponseReceived):
            fields = dict(event.headers)
            exchange.status = int(fields[":status"])
            exchange.code = fields.get("x-scalingo-error", "").partition(";")[0]
            exchange.backend = fields.get("x-backend", "")
            exchange.has_begun = exchange.status == 200
        elif isinstance(event, h2.events.DataReceived):
            content += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            raise Broken(f"stream reset with {event.error_code}")
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._is_going_away = True
            if event.error_code:
                raise Broken(f"GOAWAY with {event.error_code}")
        return isinstance(event, h2.events.StreamEnded)

    @property
    def is_over(self) -> bool:
        """Whether the other side has closed."""
        return self._reader.at_eof()

    def close(self) -> None:
        self._writer.close()
