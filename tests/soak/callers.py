"""Clients of a simulated hour: each asks, notes what came of it, and says when it is over."""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.python.failure import Failure

from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.messages import Response
from tests.protocols.http2_worlds import HTTP2Client, fields
from tests.soak.backend import frame
from tests.soak.exchanges import Exchange
from tests.wire import hello_builder

__all__ = ["HELLO", "Caller", "HTTP2Caller", "HTTPCaller", "PassedCaller", "WebSocketCaller"]

#: What a client of the app that passes through says first.
HELLO = hello_builder.record(hello_builder.message(hello_builder.server_name(b"cedar.test")))

Over = Callable[[Exchange, Any], None]

_TEXT, _CLOSE = 1, 8


class _Connecting(ClientFactory[Any]):
    noisy = False

    def __init__(self, caller: Any) -> None:
        self._caller = caller

    def buildProtocol(self, addr: Any) -> Any:
        return self._caller

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._caller.connectionLost(reason)


def wish(random: Random) -> str:
    """What an ordinary request asks for: mostly nothing, sometimes slow or big."""
    kind = random.choices(("", "?think=0.3", "?think=4", "?size=100000", "?drip=0.4"), (60, 15, 3, 12, 10))
    return kind[0]


class HTTPCaller(ScriptedClient):
    """Asks one request after another over one connection, each when the one before is answered.

    :ivar idle_since: when the last one was; ``None`` before.
    """

    def __init__(self, network: Any, door: tuple[str, int], over: Over) -> None:
        super().__init__(network)
        self._over = over
        self._exchange: Exchange | None = None
        self._expected = (0, 0)
        self.idle_since: float | None = None
        network.connectTCP(*door, _Connecting(self))

    def begin(self, exchange: Exchange, random: Random) -> None:
        """Ask."""
        self._exchange = exchange
        head = f"Host: {exchange.app}.test\r\nX-Request-ID: {exchange.id}\r\n"
        if exchange.kind == "GET":
            self._expected = (0, len(self.responses))
            self.send(f"GET /{exchange.id}{wish(random)} HTTP/1.1\r\n{head}\r\n".encode())
            return
        slowly = exchange.kind == "UPLOAD"
        size = 100_000 if slowly else random.choice((0, 10, 5000))
        self._expected = (size, len(self.responses))
        line = f"POST /{exchange.id}{wish(random)} HTTP/1.1\r\n{head}Content-Length: {size}\r\n\r\n"
        self.send(line.encode())
        if slowly:
            self.send_slowly(bytes(size), 10_000, 0.3)
        elif size:
            self.send(bytes(size))

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._look()

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.lost_because is None:
            super().connectionLost(reason)
        self._look()
        if self._exchange is not None:
            self._exchange.code = self._exchange.code or "broken"
            self._finish()

    def _look(self) -> None:
        """Whether the answer is there."""
        exchange = self._exchange
        size, before = self._expected
        if exchange is None:
            assert len(self.responses) <= before + 1, "an answer too many"
            return
        if self.partial is not None:
            self._note(exchange, self.partial)
        if len(self.responses) > before:
            response = self.responses[-1]
            self._note(exchange, response)
            if response.status == 200:
                if not response.body.startswith(b"%b %d " % (exchange.id.encode(), size)):
                    exchange.code = f"wrong answer {response.body[:60]!r}"
            self._finish()
        elif self.malformed:
            exchange.code = f"malformed: {self.malformed}"
            self._finish()

    def _note(self, exchange: Exchange, response: Response) -> None:
        exchange.status = response.status
        exchange.has_begun = response.status in (200, 101)
        exchange.backend = response.get(b"X-Backend").decode()
        exchange.code = response.get(b"X-Scalingo-Error").decode().partition(";")[0]

    def _finish(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self._over(exchange, self)


class WebSocketCaller(HTTPCaller):
    """Opens a WebSocket, says a few things, and closes."""

    def begin(self, exchange: Exchange, random: Random) -> None:
        """Ask for the upgrade."""
        self._exchange = exchange
        self._random = random
        self._to_say = random.choice((1, 3, 20, 60))
        self._heard = bytearray()
        self._said = bytearray()
        key = base64.b64encode(random.randbytes(16)).decode()
        self.send(
            (
                f"GET /{exchange.id} HTTP/1.1\r\nHost: {exchange.app}.test\r\nX-Request-ID: {exchange.id}\r\n"
                f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n\r\n"
            ).encode()
        )

    def _look(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if not self.responses:
            return
        response = self.responses[0]
        if not exchange.status:
            self._note(exchange, response)
            if response.status == 101:
                self._say()
            else:
                self._finish()
                self.close()
            return
        if response.status != 101 or not self.tunnelled:
            return
        heard = self.tunnelled
        if heard == bytes(self._said):
            if self._to_say:
                self.reactor.callLater(self._random.uniform(0.1, 2.0), self._say)
            else:
                self._finish()
                self.close()
        elif len(heard) >= len(self._said) or not bytes(self._said).startswith(heard):
            self._other_end(exchange, heard)

    def _other_end(self, exchange: Exchange, heard: bytes) -> None:
        """Something else than the echo: a close frame of the proxy's, or a mistake."""
        common = len(bytes(self._said))
        rest = heard[common:] if heard.startswith(bytes(self._said)) else self._after_common(heard)
        if len(rest) >= 4 and rest[0] & 0x0F == _CLOSE:
            exchange.code = f"closed {int.from_bytes(rest[2:4], 'big')}"
        else:
            exchange.code = "broken: not what was said"
        self._finish()
        self.close()

    def _after_common(self, heard: bytes) -> bytes:
        said = bytes(self._said)
        at = next((at for at, byte in enumerate(heard) if at >= len(said) or byte != said[at]), len(heard))
        return heard[at:]

    def _say(self) -> None:
        if self._exchange is None or self.is_over:
            return
        self._to_say -= 1
        words = frame(_TEXT, f"{self._exchange.id} {self._to_say}".encode())
        self._said += words
        self.send(words)


class PassedCaller(ScriptedClient):
    """Sends a hello and asks a few times, over a connection that passes through."""

    def __init__(self, network: Any, door: tuple[str, int], over: Over, source: str) -> None:
        super().__init__(network)
        self._over = over
        self._exchange: Exchange | None = None
        network.connectTCP(*door, _Connecting(self), bindAddress=(source, 0))

    def begin(self, exchange: Exchange, random: Random) -> None:
        """Say hello and ask."""
        self._exchange = exchange
        self._random = random
        self._asked = 0
        self._to_ask = random.choice((1, 1, 3, 15))
        self._all = b""
        self.send(HELLO)
        self._ask()

    def _ask(self) -> None:
        if self._exchange is not None and not self.is_over:
            self.send(f"{self._exchange.id} {self._asked}\n".encode())
            self._asked += 1

    def dataReceived(self, data: bytes) -> None:
        exchange = self._exchange
        self._all += data
        if exchange is None:
            return
        if self._all.startswith(b"\x15\x03"):
            exchange.code = "alert"
            self._finish()
            return
        exchange.has_begun = True
        *lines, _ = self._all.split(b"\n")
        if not lines:
            return
        told = lines[-1].decode("latin-1").split(" ")
        if told[0] != exchange.id or len(told) != 3:
            exchange.code = f"wrong answer {lines[-1][:60]!r}"
            self._finish()
            return
        exchange.backend, exchange.status = told[2], 200
        if len(lines) < self._asked:
            return
        if self._asked < self._to_ask:
            self.reactor.callLater(self._random.uniform(0.1, 3.0), self._ask)
        else:
            self._finish()

    def readConnectionLost(self) -> None:
        self._to_send.clear()
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.lost_because is None:
            super().connectionLost(reason)
        if self._exchange is not None:
            self._exchange.code = "broken"
            self._finish()

    def _finish(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self._over(exchange, self)
        if not self.is_over:
            self.close()


class HTTP2Caller(HTTP2Client):
    """Asks over streams of one connection."""

    def __init__(self, network: Any, door: tuple[str, int], over: Over) -> None:
        super().__init__()
        self.reactor = network
        self._over = over
        self._asked: dict[Exchange, tuple[Any, int]] = {}
        self.idle_since: float | None = None
        self._waiting: list[Callable[[], None]] = []
        network.connectTCP(*door, _Connecting(self))

    def begin(self, exchange: Exchange, random: Random) -> None:
        """Ask, as soon as there is a connection."""
        self.idle_since = None
        method, target = exchange.kind.partition(" ")[0].encode(), f"/{exchange.id}{wish(random)}".encode()
        body = bytes(random.choice((1, 3000))) if method == b"POST" else None
        listed = fields(
            target,
            (b"x-request-id", exchange.id.encode()),
            method=method,
            host=f"{exchange.app}.test".encode(),
        )

        def ask() -> None:
            self._asked[exchange] = self.request(listed, body), len(body or b"")

        if self.is_connected:
            ask()
        else:
            self._waiting.append(ask)

    def connectionMade(self) -> None:
        super().connectionMade()
        for ask in self._waiting:
            ask()
        self._waiting.clear()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        for exchange, (stream, size) in list(self._asked.items()):
            if stream.status:
                exchange.status = stream.status
                exchange.code = stream.code.replace("-", "", 1) if stream.code == "-" else stream.code
                exchange.backend = stream.headers.get(b"x-backend", b"").decode()
                exchange.has_begun = stream.status == 200
            if stream.is_over:
                del self._asked[exchange]
                self.idle_since = None if self._asked else self.reactor.seconds()
                self._judge(exchange, stream, size)
                self._over(exchange, self)

    def _judge(self, exchange: Exchange, stream: Any, size: int) -> None:
        if stream.reset:
            exchange.code = f"broken: stream reset with {stream.reset}"
        elif exchange.status == 200:
            if not stream.body.startswith(b"%b %d " % (exchange.id.encode(), size)):
                exchange.code = f"wrong answer {bytes(stream.body[:60])!r}"

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        for exchange in list(self._asked):
            exchange.code = exchange.code or "broken"
            self._over(exchange, self)
        self._asked.clear()


Caller = HTTPCaller | PassedCaller | HTTP2Caller
