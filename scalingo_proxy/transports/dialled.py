"""Connections that are made from here.

To an address on the same machine, or in a container of it, a connection is there
when ``connect`` returns, although a socket that does not block says that it is
under way.  So whoever dials is told in the call itself where that is so, instead
of waiting for a turn that says what was true already.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from socket import SocketType
from typing import Any

from twisted.internet import error, tcp
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from scalingo_proxy.transports.connection import Eager

__all__ = ["EagerClient", "EagerConnector", "dial", "dial_at_once"]

#: What ``connect`` says of an attempt that goes on, and of one that is over, for better.
_UNDER_WAY = frozenset((errno.EINPROGRESS, errno.EALREADY, errno.EINTR))
_THERE = frozenset((0, errno.EISCONN))

#: A socket that never blocked, for a system call less.
_NOT_BLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)
_NEVER_BLOCKING = int(socket.SOCK_STREAM) | _NOT_BLOCKING

_IN_PROGRESS = errno.EINPROGRESS


class EagerClient(Eager, tcp.Client):
    """The transport of a connection that was made from here.

    To an address, it begins in the call that asks for it, and asks the reactor
    once instead of three times.
    """

    _is_made = False

    def createInternetSocket(self) -> SocketType:
        made = SocketType(self.addressFamily, _NEVER_BLOCKING)
        if not _NOT_BLOCKING:  # pragma: no cover - not on this platform
            made.setblocking(False)
        return made

    def _finishInit(self, when_done: Any, skt: Any, why_not: Any, reactor: Any) -> None:
        if when_done is None or self._requiresResolution:
            super()._finishInit(when_done, skt, why_not, reactor)  # type: ignore[no-untyped-call]
            return
        self._begin(skt, reactor)
        self.doRead = self.doWrite = self._decided  # type: ignore[method-assign]
        result = skt.connect_ex(self.addr)
        if result in _UNDER_WAY or result in _THERE:
            self.startWriting()  # type: ignore[no-untyped-call]
        else:
            self._fail_soon(result)

    def _begin(self, skt: Any, reactor: Any) -> None:
        """As Twisted's of a connection, for a socket that does not block already."""
        self.reactor = reactor
        self._tempDataBuffer: list[bytes] = []
        self._tempDataLen = 0
        self.dataBuffer = b""  # these two as in EagerServer
        self.may_send = True
        self.socket = skt
        self.fileno = skt.fileno
        self.realAddress = self.addr

    def _fail_soon(self, result: int) -> None:
        """Nobody expects to hear of it inside the call."""
        failed = error.getConnectError((result, os.strerror(result)))  # type: ignore[no-untyped-call]
        self.reactor.callLater(0, self.failIfNotConnected, failed)  # type: ignore[attr-defined]

    def _decided(self) -> None:
        """The attempt has succeeded or failed."""
        result = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            failed = error.getConnectError((result, os.strerror(result)))  # type: ignore[no-untyped-call]
            self.failIfNotConnected(failed)  # type: ignore[no-untyped-call]
            return
        self.stopWriting()  # type: ignore[no-untyped-call]
        self._connectDone()

    def _connectDone(self) -> None:
        self._is_made = True
        if self.__dict__.get("doRead") == self._decided:
            del self.doRead, self.doWrite
        super()._connectDone()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        if not hasattr(self, "socket"):
            return
        if self._is_made:
            super().connectionLost(reason)
            self.connector.connectionLost(reason)
            return
        # The poll told of a hang-up, and the socket knows why.
        result = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            failed = error.getConnectError((result, os.strerror(result)))  # type: ignore[no-untyped-call]
        else:
            failed = error.ConnectError(string=reason)  # type: ignore[no-untyped-call]
        self.failIfNotConnected(failed)  # type: ignore[no-untyped-call]

    def _closeSocket(self, orderly: bool) -> None:
        if self._is_made:
            super()._closeSocket(orderly)
            return
        # An attempt may be given up while its event is among those being handled.  Whoever
        # got the same descriptor now would be given that event: a connection that has just
        # been made or accepted would be taken for lost.
        self.reactor.callLater(0, self.socket.close)  # type: ignore[attr-defined]


class EagerConnector(tcp.Connector):
    """Makes a connection with an :class:`EagerClient`."""

    def _makeTransport(self) -> EagerClient:
        return EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]


def dial(
    reactor: Any,
    host: str,
    port: int,
    protocol: Protocol,
    timeout: float,
    failed: Callable[[Failure], None],
) -> Callable[[], None]:
    """Connect *protocol* to an address, without a connector and a factory.

    Its ``connectionMade`` may be called before this returns; *failed* is called
    later, with the errors that a connector tells.

    :param host: an IP address.
    :param timeout: seconds.
    :return: what abandons the attempt, and does nothing when it is over.
    """
    under_way = dial_at_once(reactor, host, port, protocol)
    return _nothing if under_way is None else under_way(timeout, failed)


def dial_at_once(
    reactor: Any, host: str, port: int, protocol: Protocol
) -> Callable[[float, Callable[[Failure], None]], Callable[[], None]] | None:
    """As :func:`dial`, for who needs neither a timeout nor a failure where nothing has to be waited for.

    :return: None: it is connected, and was told.  Otherwise what has to be called
        now with *timeout* and *failed*, and returns what abandons the attempt.
    """
    transport = _DialledClient(reactor, host, port)
    if transport.begin(protocol):
        return None
    return partial(_wait_for, transport, protocol)


def _wait_for(
    transport: _DialledClient, protocol: Protocol, timeout: float, failed: Callable[[Failure], None]
) -> Callable[[], None]:
    attempt = transport.connector = _Attempt(transport, protocol, failed)
    late = error.TimeoutError()  # type: ignore[no-untyped-call]
    attempt.timer = transport.reactor.callLater(timeout, transport.failIfNotConnected, late)  # type: ignore[attr-defined]
    return attempt.abandon


def _nothing() -> None:
    """There is nothing left to abandon."""


class _Attempt:
    """Stands where a transport has its connector, while the connection is not there yet."""

    __slots__ = ("_failed", "_protocol", "_transport", "timer")

    def __init__(
        self, transport: _DialledClient, protocol: Protocol, failed: Callable[[Failure], None]
    ) -> None:
        self._transport: _DialledClient | None = transport
        self._protocol: Protocol | None = protocol
        self._failed: Callable[[Failure], None] | None = failed
        self.timer: Any = None

    def abandon(self) -> None:
        transport = self._over()
        if transport is not None:
            transport.failIfNotConnected(error.UserError())  # type: ignore[no-untyped-call]

    def _over(self) -> _DialledClient | None:
        """It has ended; nobody holds on to it."""
        transport, self._transport = self._transport, None
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._protocol = self._failed = None
        return transport

    # -- called by the transport, as a connector is ---------------------------

    def buildProtocol(self, addr: Any) -> Protocol | None:
        protocol = self._protocol
        self._over()
        return protocol

    def connectionFailed(self, reason: Failure) -> None:
        failed = self._failed
        self._over()
        if failed is not None:
            failed(reason)


class _DialledClient(EagerClient):
    """The transport of a connection that was dialled."""

    _requiresResolution = False

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        way_to = _way_to if "%" not in host else _way_to.__wrapped__  # an interface may get another number
        self.addressFamily, self.addr, self._addressType = way_to(host, port)
        self.reactor = reactor

    def begin(self, protocol: Protocol) -> bool:
        """Connect; whether that was done at once, and *protocol* told."""
        try:
            skt = self.createInternetSocket()
        except OSError as why:
            failed = error.ConnectBindError(why.errno, why.strerror)  # type: ignore[no-untyped-call]
            self.reactor.callLater(0, self.failIfNotConnected, failed)  # type: ignore[attr-defined]
            return False
        self._begin(skt, self.reactor)
        connect, addr = skt.connect_ex, self.addr
        result = connect(addr)
        if result == _IN_PROGRESS:
            result = connect(addr)  # on the same machine it is there by now
        if result in _THERE:
            self._made(protocol)
            return True
        self.doRead = self.doWrite = self._decided  # type: ignore[method-assign]
        if result in _UNDER_WAY:
            self.startWriting()  # type: ignore[no-untyped-call]
        else:
            self._fail_soon(result)
        return False

    def _connectDone(self) -> None:
        del self.doRead, self.doWrite
        protocol = self.connector.buildProtocol(None)
        assert protocol is not None
        del self.connector
        self._made(protocol)

    def _made(self, protocol: Any) -> None:
        # As Twisted's, without the words for logs, which are made when they are asked for.
        self._is_made = True
        self.protocol = protocol
        self.connected = 1
        self.reactor.addReader(self)
        protocol.makeConnection(self)

    def connectionLost(self, reason: Failure) -> None:
        if self._is_made:
            Eager.connectionLost(self, reason)  # there is no connector to be told
        else:
            super().connectionLost(reason)

    def _closeSocket(self, orderly: bool) -> None:
        if self._is_made:
            Eager._closeSocket(self, orderly)  # super() is an object more (0.1 µs less)
        else:
            super()._closeSocket(orderly)

    def logPrefix(self) -> str:
        return f"{type(getattr(self, 'protocol', None)).__name__},client"


@lru_cache(maxsize=4096)  # each backend is connected to many times
def _way_to(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...], Any]:
    """What a socket, and Twisted, call that address."""
    if isIPv6Address(host):
        return socket.AF_INET6, tcp._resolveIPv6(host, port), IPv6Address  # type: ignore[no-untyped-call]
    return socket.AF_INET, (host, port), IPv4Address
