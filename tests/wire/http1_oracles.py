"""llhttp (through httptools) and h11 read the same bytes: what do they see?

Both are read at their strictest.  Each function gives the messages that the
oracle took as whole, and what it had of an unfinished one.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import h11
import httptools

from scalingo_proxy.wire.grammar import Fields, parse_fields
from scalingo_proxy.wire.http1_head import RequestHead
from tests.wire.http1_streams import Message


@attrs.define
class Seen:
    """One message, in the words that all three have."""

    start: tuple[bytes, ...] = ()
    fields: Fields = attrs.Factory(list)
    body: bytes = b""
    trailers: Fields = attrs.Factory(list)


@attrs.define
class Reading:
    """What one oracle made of a stream.

    :ivar whole: the messages it took as complete.
    :ivar partial: the body bytes of the one under way.
    :ivar error: why it read no further, or ``""``.
    """

    whole: list[Seen] = attrs.Factory(list)
    partial: bytes = b""
    error: str = ""


def seen(message: Message) -> Seen:
    """Our own reading, as it stands on the wire: nothing dropped, nothing rewritten."""
    head = message.head
    section = message.block[message.block.index(b"\r\n") + 2 : -2]
    if isinstance(head, RequestHead):
        start = (head.method, message.raw_target)
    else:
        start = (b"%d" % head.status, head.reason)
    return Seen(start, _lowered(parse_fields(section)), message.body, _lowered(message.trailers))


def _lowered(fields: Fields) -> Fields:
    # Values keep the blanks behind them in llhttp, and names their case in both.
    return [(name.lower(), value.strip(b" \t")) for name, value in fields]


# -- llhttp ------------------------------------------------------------------


class _Collector:
    """Callbacks of one httptools parser."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.message = Seen()
        self.start = b""
        self.reason = b""
        self.head_complete = False
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None

    def on_message_begin(self) -> None:
        self.message = Seen()
        self.start = self.reason = b""
        self.head_complete = False

    def on_url(self, part: bytes) -> None:
        self.start += part

    def on_status(self, part: bytes) -> None:
        self.reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        (self.message.trailers if self.head_complete else self.message.fields).append((name, value))

    def on_headers_complete(self) -> None:
        self.head_complete = True
        parser = self.parser
        if isinstance(parser, httptools.HttpRequestParser):
            self.message.start = (parser.get_method(), self.start)
        else:
            assert isinstance(parser, httptools.HttpResponseParser)
            self.message.start = (b"%d" % parser.get_status_code(), self.reason)

    def on_body(self, part: bytes) -> None:
        self.message.body += part
        self.reading.partial = self.message.body

    def on_message_complete(self) -> None:
        message = self.message
        message.fields = _lowered(message.fields)
        message.trailers = _lowered(message.trailers)
        self.reading.whole.append(message)
        self.reading.partial = b""


def llhttp_reading(data: bytes, kind: type = httptools.HttpRequestParser) -> Reading:
    """A stream of requests, or of responses to GET.

    An upgrade is never granted: what follows is read on as HTTP.
    """
    reading = Reading()
    while True:
        collector = _Collector(reading)
        collector.parser = kind(collector)
        try:
            collector.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            data = data[upgrade.args[0] :]
            continue
        except httptools.HttpParserError as error:
            reading.error = str(error) or type(error).__name__
        return reading


# -- h11 ---------------------------------------------------------------------

_UNBOUNDED = 1 << 30


def h11_requests(data: bytes) -> Reading:
    """A stream of requests; each is answered, and no upgrade is granted."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_UNBOUNDED)
    connection.receive_data(data)
    reading = Reading()
    message = Seen()
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                message = Seen((bytes(event.method), bytes(event.target)), _raw(event.headers))
            elif isinstance(event, h11.Data):
                message.body += bytes(event.data)
                reading.partial = message.body
            elif isinstance(event, h11.EndOfMessage):
                message.trailers = _raw(event.headers)
                reading.whole.append(message)
                reading.partial = b""
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    reading.error = "no further request on this connection"
                    return reading
                connection.start_next_cycle()
            else:
                return reading
    except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        reading.error = str(error)  # the local one: a CONNECT that h11 sees granted
        return reading


def h11_responses(data: bytes, methods: Sequence[bytes], closed: bool) -> Reading:
    """A stream of responses to requests of these methods."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_UNBOUNDED)
    reading = Reading()
    fed = False
    try:
        for method in methods:
            connection.send(h11.Request(method=method, target="/", headers=[("Host", "app.test")]))
            connection.send(h11.EndOfMessage())
            if not fed:
                connection.receive_data(data)
                if closed:
                    connection.receive_data(b"")
                fed = True
            if not _read_response(connection, reading):
                return reading
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                reading.error = "no further response on this connection"
                return reading
            connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        reading.error = str(error)
    return reading


def _read_response(connection: h11.Connection, reading: Reading) -> bool:
    message = Seen()
    while True:
        event = connection.next_event()
        if isinstance(event, h11.InformationalResponse | h11.Response):
            start = (b"%d" % event.status_code, bytes(event.reason))
            message = Seen(start, _raw(event.headers))
            if isinstance(event, h11.InformationalResponse):
                reading.whole.append(message)
        elif isinstance(event, h11.Data):
            message.body += bytes(event.data)
            reading.partial = message.body
        elif isinstance(event, h11.EndOfMessage):
            message.trailers = _raw(event.headers)
            reading.whole.append(message)
            reading.partial = b""
            return True
        else:
            return False


def _raw(headers: h11.Headers) -> Fields:
    return _lowered([(bytes(name), bytes(value)) for name, value in headers.raw_items()])
