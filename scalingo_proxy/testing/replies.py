"""What a scripted backend may do with a request: answers, good and bad.

Each function here returns a :class:`Reply`; give it to
:meth:`~scalingo_proxy.testing.backends.ScriptedBackend.answer` or ``script``.
Replies hold no state of a request, so one may answer many.  They refuse to
know how bytes travel: that is the exchange's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from scalingo_proxy.testing.messages import Headers, Request

__all__ = [
    "IncomingExchange",
    "Reply",
    "after_interim",
    "bulk",
    "chunked",
    "close_after",
    "close_delimited",
    "close_silently",
    "delayed",
    "drip",
    "early",
    "echo",
    "fixed",
    "never",
    "raw",
    "reply_with",
    "reset_after",
    "upgrade_echo",
]


class IncomingExchange(Protocol):
    """One request at a backend, and the means to answer it."""

    @property
    def request(self) -> Request:
        """The request, as far as it was read."""

    @property
    def transport(self) -> Any:
        """The backend's side of the connection."""

    def write(self, data: bytes) -> None:
        """Send *data*."""

    def finish(self, close: bool = False) -> None:
        """The response is over; the connection is kept if both sides may, unless *close*."""

    def close(self) -> None:
        """Close the connection once what was written is sent."""

    def abort(self) -> None:
        """Reset the connection once what was written is sent."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call *call* after *seconds*, unless the connection ends before."""

    def tunnel(self, received: Callable[[bytes], None], ended: Callable[[], None] | None = None) -> None:
        """Hand every further byte to *received*, and call *ended* at the end; else close then."""


Action = Callable[[IncomingExchange], None]


def _nothing(exchange: IncomingExchange) -> None:
    """Wait for the whole request."""


@attrs.frozen
class Reply:
    """What to do when a request's head is there, and when all of it is."""

    complete: Action
    head: Action = _nothing


def reply_with(action: Action) -> Reply:
    """Answer by calling *action* with the exchange once the request is whole."""
    return Reply(action)


def _head(status: int, headers: Iterable[tuple[bytes, bytes]], reason: bytes = b"") -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (status, reason or _REASONS.get(status, b"Status"))]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


_REASONS = {100: b"Continue", 103: b"Early Hints", 200: b"OK", 204: b"No Content", 304: b"Not Modified"}


def fixed(body: bytes = b"", status: int = 200, headers: Headers = (), reason: bytes = b"") -> Reply:
    """A whole response with Content-Length; none of it for 204 and 304, no body for HEAD."""

    def answer(exchange: IncomingExchange) -> None:
        bare = status in (204, 304)
        length = () if bare else ((b"Content-Length", b"%d" % len(body)),)
        content = b"" if bare or exchange.request.method == b"HEAD" else body
        exchange.write(_head(status, (*headers, *length), reason) + content)
        exchange.finish()

    return Reply(answer)


def chunked(
    parts: Sequence[bytes], trailers: Headers = (), status: int = 200, headers: Headers = ()
) -> Reply:
    """A chunked response, one chunk for each of *parts*, and trailers."""

    def answer(exchange: IncomingExchange) -> None:
        exchange.write(_head(status, (*headers, (b"Transfer-Encoding", b"chunked"))))
        if exchange.request.method != b"HEAD":
            for part in parts:
                exchange.write(_chunk(part))
            last = b"".join(name + b": " + value + b"\r\n" for name, value in trailers)
            exchange.write(b"0\r\n" + last + b"\r\n")
        exchange.finish()

    return Reply(answer)


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part)


def close_delimited(body: bytes, status: int = 200, headers: Headers = ()) -> Reply:
    """A response whose end is the end of the connection."""

    def answer(exchange: IncomingExchange) -> None:
        exchange.write(_head(status, headers) + body)
        exchange.finish(close=True)

    return Reply(answer)


def echo(headers: Headers = ()) -> Reply:
    """Send the request's body back."""

    def answer(exchange: IncomingExchange) -> None:
        fixed(exchange.request.body, headers=headers).complete(exchange)

    return Reply(answer)


def raw(data: bytes, *, close: bool = False) -> Reply:
    """Send these bytes, whatever they are; close the connection afterwards or wait on."""

    def answer(exchange: IncomingExchange) -> None:
        exchange.write(data)
        exchange.finish(close=close)

    return Reply(answer)


def delayed(seconds: float, reply: Reply) -> Reply:
    """Think for *seconds* once the request is whole, then do as *reply*."""

    def answer(exchange: IncomingExchange) -> None:
        exchange.later(seconds, lambda: reply.complete(exchange))

    return Reply(answer, reply.head)


def drip(
    parts: Sequence[bytes],
    every_seconds: float,
    headers: Headers = ((b"Content-Type", b"text/event-stream"),),
) -> Reply:
    """The head and the first part at once, the others one by one: server-sent events.

    It is chunked; the end follows the last part immediately.
    """

    def answer(exchange: IncomingExchange) -> None:
        exchange.write(_head(200, (*headers, (b"Transfer-Encoding", b"chunked"))))
        send(exchange, 0)

    def send(exchange: IncomingExchange, index: int) -> None:
        if index < len(parts):
            exchange.write(_chunk(parts[index]))
        if index + 1 < len(parts):
            exchange.later(every_seconds, lambda: send(exchange, index + 1))
        else:
            exchange.write(b"0\r\n\r\n")
            exchange.finish()

    return Reply(answer)


def bulk(size: int, part: bytes = bytes(range(256)) * 64) -> Reply:
    """*size* bytes with Content-Length, written only as fast as the connection takes them."""

    def answer(exchange: IncomingExchange) -> None:
        exchange.write(_head(200, ((b"Content-Length", b"%d" % size),)))
        exchange.transport.registerProducer(_Bulk(exchange, size, part), False)

    return Reply(answer)


@implementer(IPullProducer)
class _Bulk:
    def __init__(self, exchange: IncomingExchange, size: int, part: bytes) -> None:
        self._exchange = exchange
        self._missing = size
        self._part = part

    def resumeProducing(self) -> None:
        data = self._part[: self._missing]
        self._missing -= len(data)
        self._exchange.write(data)
        if not self._missing:
            self._exchange.transport.unregisterProducer()
            self._exchange.finish()

    def stopProducing(self) -> None:
        self._missing = 0


def upgrade_echo(token: bytes = b"websocket", greeting: bytes = b"", farewell: bytes = b"") -> Reply:
    """Switch protocols, say *greeting*, send every byte back, and after the end *farewell*."""

    def answer(exchange: IncomingExchange) -> None:
        def end() -> None:
            exchange.write(farewell)
            exchange.close()

        exchange.tunnel(exchange.write, end)
        exchange.write(_head(101, ((b"Connection", b"Upgrade"), (b"Upgrade", token)), b"Switching Protocols"))
        exchange.write(greeting)

    return Reply(answer)


def early(reply: Reply) -> Reply:
    """Do as *reply* as soon as the head is there, while the body still comes."""
    return Reply(_nothing, reply.complete)


def after_interim(reply: Reply, status: int = 103, headers: Headers = ()) -> Reply:
    """Send an interim response when the head is there, and answer as *reply* later."""

    def begin(exchange: IncomingExchange) -> None:
        exchange.write(_head(status, headers))
        reply.head(exchange)

    return Reply(reply.complete, begin)


def close_silently() -> Reply:
    """Close the connection without one byte of an answer."""
    return Reply(lambda exchange: exchange.close())


def never() -> Reply:
    """Read the request and never answer."""
    return Reply(_nothing)


def reset_after(count: int, reply: Reply) -> Reply:
    """Do as *reply*, but reset the connection after *count* bytes."""
    return _limited(count, reply, lambda exchange: exchange.abort())


def close_after(count: int, reply: Reply) -> Reply:
    """Do as *reply*, but close the connection after *count* bytes."""
    return _limited(count, reply, lambda exchange: exchange.close())


def _limited(count: int, reply: Reply, end: Action) -> Reply:
    def answer(exchange: IncomingExchange) -> None:
        if count == 0:
            end(exchange)
        else:
            reply.complete(_Limited(exchange, count, end))

    return Reply(answer)


class _Limited:
    """An exchange that ends after so many bytes."""

    def __init__(self, exchange: IncomingExchange, count: int, end: Action) -> None:
        self._exchange = exchange
        self._left = count
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def write(self, data: bytes) -> None:
        if self._left <= 0:
            return
        self._exchange.write(data[: self._left])
        self._left -= len(data)
        if self._left <= 0:
            self._end(self._exchange)

    def finish(self, close: bool = False) -> None:
        if self._left > 0:
            self._exchange.finish(close)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._left > 0:
            self._exchange.later(seconds, call)
