"""The ends of a connection whose TLS ends here, and what its transport is made of.

Made fit for an edge: nobody waits for ever for a client's ``close_notify``, an
aborted stream never looks complete, each direction may end on its own.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.protocols.tls_engine import Engine

__all__ = ["NOTHING", "TLSTransportEnding"]

#: Behind our last record the client's bytes are thrown away, for so long and
#: so many; closing at once would reset the connection and could take an answer
#: or an alert with it.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * 1024 * 1024

#: Whose stream ends without a ``close_notify`` has lost its connection.
_CUT_SHORT = Failure(ConnectionLost())  # type: ignore[no-untyped-call]

NOTHING: tuple[bytes, ...] = ()


class TLSTransportEnding(Protocol, Timed):
    """The ways in which a TLS connection of a client ends.

    :ivar is_late: the handshake was not finished by its deadline.
    :ivar disconnecting: whoever is inside has closed.
    :ivar wrappedProtocol: who is inside.

    :param env: the deadlines and their clock.
    :param context: what the handshake is made with.
    :param inner: who is inside first; its ``makeConnection`` is not called.
    """

    transport: Any

    is_late = False
    disconnecting = False
    #: Shaken hands, nothing has ended or is going to, and nothing waits on its way in or out.
    _is_regular = False
    _is_shaken = False
    _reading_is_over = False
    _writing_is_over = False
    #: Nothing is told to the protocol inside any more but the end.
    _is_over = False
    #: OpenSSL has given up.
    _is_lost = False
    #: Written while the client was in the middle of changing keys.
    _unwritten = NOTHING
    _lingered = 0
    _producer: Any = None
    _progress: SendProgress | None = None
    #: What they hear inside in the end, if not what is told from below.
    _reason: Failure | None = None

    def __init__(self, env: Environment, context: SSL.Context, inner: IProtocol) -> None:
        self._env = env
        self._engine = Engine(context)
        self.wrappedProtocol: Any = inner

    def _send(self) -> None:
        """Hand on what OpenSSL has to say, if it has."""
        data = self._engine.outgoing()
        if data:
            self.transport.write(data)

    # -- called by the transport below ---------------------------------------

    def readConnectionLost(self) -> None:
        """The client's stream has ended below TLS, for those who tell of that apart from the rest."""
        if self._is_over or self._reading_is_over:
            self.loseConnection()
            self.transport.loseConnection()
        else:
            self.abortConnection()  # cut short: it was not said that this is all

    def writeConnectionLost(self) -> None:
        """Our last record has gone out."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._env.deadlines.forget(self)
        if self._reason is not None:
            reason = self._reason
        elif not (self._is_over or self._reading_is_over) and isinstance(reason.value, ConnectionDone):
            reason = _CUT_SHORT
        inner, self.wrappedProtocol = self.wrappedProtocol, None
        self._is_regular = False
        self._is_over = self._writing_is_over = self._is_lost = True
        self.connected = 0
        self._reason = self._producer = None
        # OpenSSL's memory goes now, whoever still holds us.
        del self._engine
        inner.connectionLost(reason)

    def _throw_away(self, data: bytes) -> None:
        """More of what nobody will read."""
        self._lingered += len(data)
        if self._lingered > _LINGER_BYTES:
            self.abortConnection()

    def _client_closed(self) -> None:
        """The client has said ``close_notify``."""
        self._is_regular = False
        self._reading_is_over = True
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readConnectionLost()
        else:
            self.disconnecting = True
            self._shut_down()
            self.transport.loseConnection()

    # -- called by the protocol inside ---------------------------------------

    def loseWriteConnection(self) -> None:
        """Send ``close_notify`` behind what is written, and go on reading."""
        if self.connected and self._is_shaken:
            self._end_writing()

    def loseConnection(self) -> None:
        """Close behind what is written; a producer that is paused is waited for.

        The client gets a moment to close as well.
        """
        if self.disconnecting or not self.connected:
            return
        if not self._is_shaken:
            self.abortConnection()
            return
        self.disconnecting = True
        self._is_regular = False
        if self._producer is None or not self._producer._producerPaused:
            self._shut_down()

    def stopProducing(self) -> None:
        """The same, for a consumer of what the client sends."""
        self.loseConnection()

    def abortConnection(self) -> None:
        """Close at once.  No ``close_notify``: the client must not take the stream for complete."""
        self._is_over = self.disconnecting = True
        self._is_regular = False
        self.transport.abortConnection()

    # -- ends ----------------------------------------------------------------

    def _shut_down(self) -> None:
        """Nothing more is written or read inside: wait for the client to close too, but not for long."""
        if not self._is_over:
            self._end_writing()
            self._is_over = True
            self._end_soon()

    def _gave_up(self) -> None:
        """OpenSSL has raised an error: its alert goes out, and inside they hear of the error in the end."""
        self._reason = self._reason or Failure()  # type: ignore[no-untyped-call]
        self._is_lost = True
        self._is_regular = False
        self._send()
        self._end_writing()
        self._is_over = True
        self._end_soon()

    def _end_writing(self) -> None:
        """End our direction, in TLS and below."""
        if self._writing_is_over:
            return
        self._writing_is_over = True
        self._is_regular = False
        if not self._is_lost:
            self._engine.end()
            self._send()
        if self._producer is not None:
            self._producer = None
            self.transport.unregisterProducer()
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    def _end_soon(self) -> None:
        env = self._env
        env.deadlines.set(self, env.seconds() + _LINGER_SECONDS)
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.resumeProducing()
        else:
            self.transport.loseConnection()

    def deadline_reached(self) -> None:
        """The handshake was not finished in time, or the client does not close."""
        env = self._env
        is_closing = self._is_over and not self._is_lost
        if self._progress is None:
            self._progress = SendProgress()
        if is_closing and self._progress.has_moved(self.transport):
            env.deadlines.set(self, env.seconds() + env.timeouts.idle)
        else:
            # The door has the same deadline, and may tell it a second time.
            self.is_late |= not self._is_over
            self.abortConnection()
