"""Stream transports in memory that behave as Twisted's TCP transports do.

The write buffer, the pausing and resuming of producers, and the order of
things when a connection ends are not imitated: they are Twisted's own, by
inheritance from :class:`twisted.internet.abstract.FileDescriptor`.  What
:mod:`twisted.internet.tcp` adds on top is mirrored here, over a
:class:`~scalingo_proxy.testing.sockets.MemorySocket` in place of a real one.
There is no file descriptor: ``getHandle`` does not exist.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IReactorTime, ITCPTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.model import join_host_port
from scalingo_proxy.testing.kernel import Kernel
from scalingo_proxy.testing.sockets import MemorySocket

__all__ = ["Address", "MemoryTransport", "connected_pair", "make_address"]

Address = IPv4Address | IPv6Address

_log = Logger()


def make_address(host: str, port: int) -> Address:
    """The Twisted address of an IPv4 or IPv6 *host* and a *port*."""
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


@implementer(ITCPTransport)
class MemoryTransport(FileDescriptor):
    """One end of a connection in memory, as a protocol sees it.

    A protocol cannot tell it from ``twisted.internet.tcp.Connection``, except
    by looking for a socket.  As there, ``getHost`` and the TCP options raise
    ``AttributeError`` once the connection is lost.
    """

    def __init__(
        self, kernel: Kernel, socket: MemorySocket, protocol: IProtocol, host: Address, peer: Address
    ) -> None:
        FileDescriptor.__init__(self, reactor=kernel)  # type: ignore[arg-type]
        self._kernel = kernel
        self._attach(socket, protocol, host, peer)

    def _attach(self, socket: MemorySocket, protocol: IProtocol, host: Address, peer: Address) -> None:
        self._socket = socket
        self.protocol = protocol
        self._host = host
        self._peer = peer
        self._aborting = False
        socket.descriptor = self

    def __repr__(self) -> str:
        ends = (join_host_port(end.host, end.port) for end in (self._host, self._peer))
        return f"<{type(self).__name__} {' - '.join(ends)}>"

    # -- what the kernel calls -----------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it is connected and not lost yet."""
        return hasattr(self, "_socket")

    def poll(self, reading: bool, writing: bool) -> int:
        """What there is to do, for the kernel's turn."""
        return self._socket.poll(reading, writing)

    def doRead(self) -> Any:
        """Read once from the socket and hand it to the protocol."""
        if self._aborting:
            return None
        try:
            data = self._socket.recv(self.bufferSize)
        except OSError:
            return CONNECTION_LOST
        if data is None:
            return None
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def doWrite(self) -> Any:
        """Write once what is buffered, as :class:`FileDescriptor` does."""
        if self._aborting:
            return None
        return super().doWrite()  # type: ignore[no-untyped-call]

    def writeSomeData(self, data: bytes) -> int | BaseException:
        """Write as much as the socket takes, at most ``SEND_LIMIT`` bytes."""
        try:
            return self._socket.send(memoryview(data)[: self.SEND_LIMIT])
        except OSError:
            return CONNECTION_LOST

    # -- how it ends ---------------------------------------------------------

    def abortConnection(self) -> None:
        """Close at once; buffered bytes vanish and the peer sees a reset."""
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self.stopReading()  # type: ignore[no-untyped-call]
        self.stopWriting()  # type: ignore[no-untyped-call]
        aborted = Failure(ConnectionAborted())  # type: ignore[no-untyped-call]
        self._kernel.callLater(0, self.connectionLost, aborted)

    def _closeWriteConnection(self) -> None:
        self._socket.shutdown_write()
        self._tell_half_closed("writeConnectionLost")

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer sends no more: tell a protocol that understands, else end."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._tell_half_closed("readConnectionLost")
        else:
            self.connectionLost(reason)

    def _tell_half_closed(self, method: str) -> None:
        if not IHalfCloseableProtocol.providedBy(self.protocol):
            return
        try:
            getattr(self.protocol, method)()
        except Exception:
            failure = Failure()  # type: ignore[no-untyped-call]
            _log.failure("{method} failed; its connection is lost", failure, method=method)
            self.connectionLost(failure)

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol, once."""
        if not hasattr(self, "_socket"):
            return
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if reason.check(ConnectionAborted):  # type: ignore[no-untyped-call]
            self._socket.abort()
        else:
            self._socket.close()
        protocol = self.protocol
        del self.protocol
        del self._socket
        protocol.connectionLost(reason)

    # -- what a protocol may ask ---------------------------------------------

    def getHost(self) -> Address:
        """The address of this end; ``AttributeError`` once the connection is lost."""
        self._socket  # noqa: B018 - a lost TCP connection has no socket to ask
        return self._host

    def getPeer(self) -> Address:
        """The other end's address, also after the connection is lost."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """Whether small segments are sent at once."""
        return self._socket.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Remembered, without effect."""
        self._socket.no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether probes are sent over a silent connection."""
        return self._socket.keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Remembered, without effect."""
        self._socket.keep_alive = bool(enabled)

    def logPrefix(self) -> str:
        """The class of the protocol."""
        return type(self.protocol).__name__

    def start(self) -> None:
        """Begin to read and tell the protocol that it is connected."""
        self.connected = 1
        self.startReading()  # type: ignore[no-untyped-call]
        self.protocol.makeConnection(self)


def connected_pair(
    clock: IReactorTime,
    server: IProtocol,
    client: IProtocol,
    *,
    random: Random | None = None,
    latency: float = 0.0,
    cut: bool = False,
    buffer_bytes: int = 65536,
    server_address: Address | None = None,
    client_address: Address | None = None,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Connect two protocols to each other, and return the server's and the client's transport.

    Both protocols are told of the connection before this returns; bytes move
    as *clock* advances.

    :param latency: seconds each segment is under way.
    :param cut: whether reads and writes move random parts, drawn from *random*.
    :param buffer_bytes: the size of each kernel buffer (a sending and a
        receiving one for each direction).
    """
    kernel = Kernel(clock, random or Random(0), latency=latency, cut=cut, buffer_bytes=buffer_bytes)
    here = server_address or make_address("127.0.0.1", 8080)
    there = client_address or make_address("127.0.0.1", 40000)
    near, far = kernel.socket_pair()
    pair = (
        MemoryTransport(kernel, near, server, here, there),
        MemoryTransport(kernel, far, client, there, here),
    )
    for transport in pair:
        transport.start()
    return pair
