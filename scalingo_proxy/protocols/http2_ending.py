"""How an HTTP/2 connection of a client ends: idle, drained, cut, or sent away.

Knows when a connection has nothing left to do and what is said last on it.
What comes in, and what the streams do, is the business of others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from scalingo_proxy.errors import BadRequest, ClientClosed, DrainTimeout, ProxyError, RequestTimeout
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.client_connections import CRAWL_SECONDS
from scalingo_proxy.protocols.downstream import UnderWay
from scalingo_proxy.protocols.http2_responder import HTTP2Responder
from scalingo_proxy.protocols.http2_sender import HTTP2Sender
from scalingo_proxy.protocols.http2_stream import HTTP2Stream
from scalingo_proxy.protocols.http_ending import QUIET_SECONDS
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.http2_frames import ErrorCode
from scalingo_proxy.wire.http2_limits import Kind

if TYPE_CHECKING:
    from scalingo_proxy.protocols.factories import HTTPProxyFactory

__all__ = ["LINGER_BYTES", "HTTP2Ending"]

#: After the last GOAWAY what still comes is thrown away for so long and so many
#: bytes; closing at once would reset the connection and take the GOAWAY with it.
_LINGER_SECONDS = 2.0
LINGER_BYTES = 4 * 1024 * 1024


class HTTP2Ending(HTTP2Sender):
    """Closes, in order where that is possible.

    :param factory: what all connections of this door share.
    :ivar identity: who the client is.
    """

    identity: ClientIdentity

    def __init__(self, factory: HTTPProxyFactory) -> None:
        super().__init__(factory.env.limits.head_bytes)
        self.env = factory.env
        self._factory = factory
        self._leaving = False
        #: When no further streams will be taken, once that is decided; 0 before.
        self._leaves_at = 0.0
        self._lost = False
        self._lingered = 0
        self._idle_until = 0.0
        self.has_asked = False
        self._waits_for_rest = False
        self._progress = SendProgress()
        #: Whether frames that were received wait for a later turn.
        self._is_put_off = False

    def take_turn(self) -> None:
        """Go on with what was put off."""
        raise NotImplementedError

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._tell_unread(ClientClosed("the client closed before what it sent was complete"))
        self._closed = self._lost = True
        self._forget_work()
        if self._is_put_off:
            self._is_put_off = False
            self.env.turns.forget(self)
        self.env.deadlines.forget(self)
        if self._streams:
            self._lose_streams()
        else:
            self._account()

    def _account(self) -> None:
        """Nothing is left of this connection, the backends' ends of tunnels included."""
        self._factory.frontend_closed(self, "h2")

    # -- what is told ---------------------------------------------------------

    def new_record(self) -> Record:
        """The record of a request that begins now."""
        env = self.env
        record = Record(env.seconds(), env.wall_clock(), self.identity.peer, self._factory.listener)
        record.protocol = "h2"
        record.tls = self.identity.tls
        return record

    def refused(self, error: ProxyError, record: Record) -> None:
        """Tell of what never became an exchange."""
        self.env.refused(record, error)

    def under_way(self) -> list[UnderWay]:
        """The exchanges of its streams."""
        exchanges = [stream.exchange for stream in self._streams.values()]
        return [exchange for exchange in exchanges if exchange is not None]

    # -- when nothing is left to do -------------------------------------------

    def stream_over(self, stream: HTTP2Responder) -> None:
        """Nothing is left to do for *stream*."""
        del self._streams[stream.id]
        self._parked.pop(stream.id, None)
        if self._streams:
            return
        if self._lost:
            self._account()
        elif self._closed:
            return
        elif self._leaving:
            self._close()
        elif not self._leaves_at:
            env = self.env
            self._idle_until = env.seconds() + env.timeouts.keep_alive
            env.deadlines.set(self, self._idle_until)

    def stalled(self, stream: HTTP2Responder) -> None:
        """The client did not take the end of a response in time."""
        stream.reset(ErrorCode.CANCEL)
        self.note_stalled()

    def note_stalled(self) -> None:
        """A response was given up because its window stayed shut."""
        if not self._closed and not self._floods.admits(Kind.STALLED, self.env.seconds()):
            self._send_away(Kind.STALLED)

    def deadline_reached(self) -> None:
        """Nothing came, or not the rest of it."""
        if self._closed:
            if self._progress.has_moved(self.transport):
                env = self.env
                env.deadlines.set(self, env.seconds() + env.timeouts.idle)
            else:
                self.transport.abortConnection()
            return
        if self._leaves_at:
            self._tell_unread(DrainTimeout())
            self._leave()
            return
        if self._waits_for_rest:
            self._tell(RequestTimeout("the request head did not arrive in time"))
        self.connection.say_goodbye()
        self._close()

    def _watch_the_rest(self) -> None:
        """Half a frame or half a header block must not wait for as long as none."""
        if self._leaves_at:
            return
        env = self.env
        waits = not self.connection.frames.is_between_frames
        if waits is not self._waits_for_rest:
            self._waits_for_rest = waits
            until = min(self._idle_until, env.seconds() + env.timeouts.request_head)
            env.deadlines.set(self, until if waits else self._idle_until)

    def idle_since(self) -> float | None:
        """Since when a stream is waited for."""
        if self._streams or self._closed or self._leaving:
            return None
        timeouts = self.env.timeouts
        return self._idle_until - (timeouts.keep_alive if self.has_asked else timeouts.request_head)

    def crawls(self, now: float) -> bool:
        """Whether none of its streams moves faster than a network that people put up with."""
        if self._closed:
            # What was said last is not taken; who is sent away has less time than that anyhow.
            return self.deadline - self.env.timeouts.idle + CRAWL_SECONDS <= now
        return bool(self._streams) and all(stream.crawls(now) for stream in self._streams.values())

    def give_up(self) -> None:
        """Close, to make room for others."""
        if self._closed:
            self.transport.abortConnection()
            return
        for stream in list(self._streams.values()):
            self._hand(stream, stream.give_up)
        if not (self._closed or self._leaving):
            self._tell_unread(RequestTimeout("the request head was not there when room was needed"))
            self._leave()
        self._end_what_is_left()

    def drain(self) -> None:
        """The proxy stops: say so, take new streams for a moment, and close when all are over.

        A client that was just active may have requests on their way, which
        would be refused (RFC 9113 §6.8 describes the two steps).
        """
        if self._closed or self._leaving or self._leaves_at:
            return
        env = self.env
        since, now = self.idle_since(), env.seconds()
        if since is not None and now - since >= QUIET_SECONDS:
            self._leave()
            return
        self._leaves_at = now + QUIET_SECONDS
        env.deadlines.set(self, self._leaves_at)
        self.connection.announce_goodbye()
        self._work()

    def _leave(self) -> None:
        """Take no new streams, and close when those under way are over."""
        self._leaving = True
        self._leaves_at = 0.0
        self.connection.say_goodbye()
        if self._streams:
            self._work()
        else:
            self._close()

    def cut(self) -> None:
        """The proxy stops and waits no longer."""
        if self._closed:
            self.transport.abortConnection()
            return
        for stream in list(self._streams.values()):
            self._hand(stream, stream.cut)
        self._tell_unread(DrainTimeout())
        self._work()  # what they still say goes out before the end
        self._end_what_is_left()

    def _end_what_is_left(self) -> None:
        if self._closed:
            return  # the last stream closed the connection
        self._closed = True
        self._lose_streams()
        if self.is_paused:
            self.transport.abortConnection()
        else:
            self._linger()

    # -- when there is more to do than there should be -------------------------

    def _stopped_reading(self) -> None:
        self._tell(BadRequest("the client does not read what it asks for"))
        self._closed = True
        self._lose_streams()
        self.transport.abortConnection()

    def _note_provoked(self, count: int) -> None:
        for _ in range(count):
            if not self._closed and not self._floods.admits(Kind.PROVOKED_RESET, self.env.seconds()):
                self._send_away(Kind.PROVOKED_RESET)

    def _send_away(self, kind: Kind) -> None:
        """The client makes us work for nothing."""
        if not self._closed:
            self.connection.give_up(ErrorCode.ENHANCE_YOUR_CALM)
            self._give_up(BadRequest(f"too many frames of the kind: {kind.value}"))

    def _give_up(self, error: ProxyError) -> None:
        """The last GOAWAY is prepared: send it, read no more, and close."""
        self._tell(error)
        self.transport.write(self.connection.data_to_send())
        self._closed = True
        self._lose_streams()
        self._linger()

    # -- closing -----------------------------------------------------------------

    def _tell(self, error: ProxyError) -> None:
        self.refused(error, self.new_record())

    def _tell_unread(self, error: ProxyError) -> None:
        """The connection ends: tell of bytes that will not become a request, if nothing else is told."""
        if not (self._closed or self._streams or self.connection.frames.is_between_frames):
            self._tell(error)

    def _lose_streams(self) -> None:
        for stream in list(self._streams.values()):
            self._hand(stream, stream.lost)

    def _close(self) -> None:
        """Close once what is written has gone out."""
        if self._closed:
            return
        env, transport = self.env, self.transport
        self._flush()
        self._closed = True
        transport.unregisterProducer()
        env.deadlines.set(self, env.seconds() + env.timeouts.idle)
        transport.loseConnection()

    def _linger(self) -> None:
        """Close after a last word to a client that may still be sending."""
        env, transport = self.env, self.transport
        transport.unregisterProducer()
        env.deadlines.set(self, env.seconds() + _LINGER_SECONDS)
        if ISSLTransport.providedBy(transport) or not hasattr(transport, "loseWriteConnection"):
            transport.loseConnection()  # which lingers by itself
        else:
            transport.loseWriteConnection()

    def _hand(self, stream: HTTP2Stream, handle: Callable[..., None], *args: Any) -> None:
        """Let *stream* handle something; its bug costs no other stream."""
        try:
            handle(*args)
        except Exception:
            stream.broke()
