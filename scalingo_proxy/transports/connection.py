"""What all our TCP transports have in common: they write, and end, with as few calls and turns as may be.

See :mod:`scalingo_proxy.transports.eager`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from socket import SHUT_RDWR, SHUT_WR, SO_LINGER, SOL_SOCKET, SocketType, socket
from struct import pack
from types import FunctionType
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python import log
from twisted.python.failure import Failure

__all__ = ["Eager"]


#: Twisted's; an attribute of the class would be looked for in the object first, for each read.
_READ_AT_ONCE = tcp.Connection.bufferSize

_CLOSED = Failure(ConnectionDone())  # type: ignore[no-untyped-call]
_ABORTED = Failure(ConnectionAborted())  # type: ignore[no-untyped-call]

#: For SO_LINGER: a close that is a reset.
_NO_LINGER = pack("ii", 1, 0)


class Eager(tcp.Connection):
    """What client and server transports have in common.

    :ivar may_send: whether a write may go past the buffer.  Whoever takes over
        ``doWrite``, or wants to be asked when all is written, sets it to False.
    :ivar is_behind: whether bytes that are not in the buffer go first.
    :ivar has_failed: whether a send has met the end of the connection.
    """

    may_send = True
    is_behind = False
    has_failed = False
    _has_read_all = False

    def __init_subclass__(cls, **options: Any) -> None:
        # Each class reads and writes with code of its own.  CPython notes in the code where an object
        # keeps its attributes, and has to look for them where two classes take turns (0.7 µs less).
        super().__init_subclass__(**options)
        for name in ("write", "doRead", "read_now"):
            setattr(cls, name, _code_of_its_own(getattr(cls, name)))

    def getHandle(self) -> Any:
        # Ours may be what Python's is made from, in C alone; few ask, and they may want to have all of it.
        handle = self.socket
        if type(handle) is SocketType:
            family, kind, protocol = handle.family, handle.type, handle.proto
            handle = self.socket = socket(family, kind, protocol, handle.detach())
            handle.setblocking(False)
            self.fileno = handle.fileno
        return handle

    def write(self, data: bytes) -> None:
        if self.may_send and not self._tempDataLen and not self.dataBuffer and type(data) is bytes and data:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # Told by the reactor in the next turn, because nobody expects to lose
                # a connection inside a write.  The error itself is told only once.
                self.has_failed = True
                sent = 0
            if sent == len(data):
                return
            if sent:
                data = data[sent:]
        super().write(data)  # type: ignore[no-untyped-call]

    def writeSequence(self, iovec: Any) -> None:
        if self.may_send and not self._tempDataLen and not self.dataBuffer:
            iovec = list(iovec)
            if all(type(data) is bytes for data in iovec):
                self.write(b"".join(iovec))
                return
        super().writeSequence(iovec)  # type: ignore[no-untyped-call]

    def send_again(self) -> None:
        """Whoever had taken over ``doWrite``, or had bytes on the way, has no more."""
        self.is_behind = False
        is_asked = self.producer is not None and not self.streamingProducer
        is_ending = self.disconnecting or self._writeDisconnecting
        self.may_send = bool(self.connected) and not (is_asked or is_ending)

    def fall_behind(self) -> None:
        """Bytes that are not in the buffer go out before everything that is written from now on."""
        self.is_behind = True
        self.may_send = False

    def doRead(self) -> Any:
        # As Twisted's, in one call instead of two.  An end behind a failed send is no clean one.
        try:
            data = self.socket.recv(_READ_AT_ONCE)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_LOST if self.has_failed else CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def read_now(self) -> None:
        """What the reactor does where there is something to read."""
        try:
            why = self.doRead()
        except BaseException as error:
            log.err()  # type: ignore[no-untyped-call]
            why = error
        if why is CONNECTION_DONE:
            self.readConnectionLost(_CLOSED)
        elif why:
            self.reactor._disconnectSelectable(self, why, False)  # type: ignore[attr-defined]

    def readConnectionLost(self, reason: Failure) -> None:
        self._has_read_all = True
        if not IHalfCloseableProtocol.providedBy(self.protocol):
            self.connectionLost(reason)
            return
        self.stopReading()  # type: ignore[no-untyped-call]
        try:
            self.protocol.readConnectionLost()
        except BaseException:
            log.err()  # type: ignore[no-untyped-call]
            self.connectionLost(Failure())  # type: ignore[no-untyped-call]

    # From here on, Twisted's way of writing is the only one, as all of these rely on it.

    def loseConnection(self) -> None:
        if self.may_send and not self._tempDataLen and not self.dataBuffer and self.connected:
            # Nothing to write: no need to ask whether that is possible.
            self.may_send = False
            self.disconnecting = 1
            self._poll_no_more()
            self._soon(self._close)
            return
        self.may_send = False
        if self._writeDisconnected and self.connected and not self.disconnecting:
            self.connectionLost(_CLOSED)
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def _close(self) -> None:
        """Close, unless something was written after all: that goes out first."""
        if self.connected and not (self._tempDataLen or self.dataBuffer or self.is_behind):
            self.connectionLost(_CLOSED)

    def loseWriteConnection(self) -> None:
        is_written = self.may_send and not self._tempDataLen and not self.dataBuffer
        self.may_send = False
        if is_written and self.connected and not self.disconnecting:
            self._writeDisconnecting = True
            self._soon(self._half_close)
        else:
            super().loseWriteConnection()  # type: ignore[no-untyped-call]

    def _half_close(self) -> None:
        """The same for one direction."""
        is_written = not (self._tempDataLen or self.dataBuffer or self.is_behind)
        if is_written and self.connected and not (self.disconnecting or self._writeDisconnected):
            self._writeDisconnected = True
            self._closeWriteConnection()

    def end_writing(self) -> None:
        """``loseWriteConnection`` for who writes no more and need not be told: at once, if that can be."""
        if self.may_send and not self._tempDataLen and not self.dataBuffer and self.connected:
            self.may_send = False
            self._writeDisconnecting = self._writeDisconnected = True
            try:
                self.socket.shutdown(SHUT_WR)
            except OSError:
                pass  # gone altogether, which the reactor tells
        else:
            self.loseWriteConnection()

    def abortConnection(self) -> None:
        # As Twisted's, without a timer and a new failure for each: 50 µs less.
        self.may_send = False
        if not (self.disconnected or self._aborting):
            self._aborting = True
            self.stopReading()  # type: ignore[no-untyped-call]
            self.stopWriting()  # type: ignore[no-untyped-call]
            self.doRead = self.doWrite = _nothing  # type: ignore[method-assign]
            self._soon(self._abort)

    def _abort(self) -> None:
        self.connectionLost(_ABORTED)

    def connectionLost(self, reason: Failure) -> None:
        # As Twisted's, in one call instead of several.
        if not hasattr(self, "socket"):
            return
        self.may_send = False
        self.disconnected, self.connected = 1, 0
        producer = self.producer
        if producer is not None:
            self.producer = None
            producer.stopProducing()
        polled = getattr(self.reactor, "_selectables", None)
        if polled is None or self.fileno() in polled:
            self._poll_no_more()
        self._closeSocket(reason is _CLOSED or not isinstance(reason.value, ConnectionAborted))
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)

    def _closeSocket(self, orderly: bool) -> None:
        # As Twisted's, with what it works out anew each time.
        try:
            if not orderly:
                self.socket.setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGER)
            elif not self._has_read_all:
                self.socket.shutdown(SHUT_RDWR)  # before anything unread makes a reset of it
        except OSError:
            pass
        try:
            self.socket.close()
        except OSError:
            pass

    def _poll_no_more(self) -> None:
        """Neither for reading nor for writing."""
        reactor: Any = self.reactor
        if hasattr(reactor, "leave"):
            reactor.leave(self.fileno())
        else:
            self.stopReading()  # type: ignore[no-untyped-call]
            self.stopWriting()  # type: ignore[no-untyped-call]

    def _soon(self, call: Callable[[], None]) -> None:
        """Call it when nobody is in the middle of anything: at the end of a turn, where turns are ours."""
        reactor: Any = self.reactor
        if hasattr(reactor, "ends_of_turn"):
            reactor.ends_of_turn.append(call)
        else:
            reactor.callLater(0, call)

    def startTLS(self, *arguments: Any, **options: Any) -> None:
        self.may_send = False
        super().startTLS(*arguments, **options)  # type: ignore[no-untyped-call]

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if streaming and self.producer is None and self.connected and not self.TLS:
            self.producer, self.streamingProducer = producer, True  # as Twisted's, in one call
            return
        if not streaming:  # asked for more each time the buffer has become empty
            self.may_send = False
        super().registerProducer(producer, streaming)  # type: ignore[no-untyped-call]

    def unregisterProducer(self) -> None:
        if self.TLS or self.disconnecting:
            super().unregisterProducer()  # type: ignore[no-untyped-call]
        else:
            self.producer = None


def _code_of_its_own(function: FunctionType) -> FunctionType:
    """The same function, whose code nobody else runs."""
    code = function.__code__.replace()
    copy = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    update_wrapper(copy, function)
    return copy


def _nothing(*arguments: Any) -> None:
    """What a connection reads and writes that is being aborted."""
