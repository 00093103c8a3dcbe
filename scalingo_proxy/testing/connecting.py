"""How a connection comes about in memory: listening ports and connectors.

Twisted's own :class:`~twisted.internet.base.BaseConnector` keeps the life
cycle of client factories; the rest mirrors :mod:`twisted.internet.tcp`.
Refuses to know how time passes: :mod:`scalingo_proxy.testing.network` does.
"""

from __future__ import annotations

import enum
import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.abstract import FileDescriptor
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.testing.sockets import READABLE, MemorySocket
from scalingo_proxy.testing.transports import Address, MemoryTransport, make_address

if TYPE_CHECKING:
    from scalingo_proxy.testing.faults import Fault
    from scalingo_proxy.testing.network import MemoryNetwork

__all__ = ["MemoryClient", "MemoryConnector", "MemoryPort", "Reach"]

_log = Logger()


class Reach(enum.Enum):
    """What a connection attempt meets at an address."""

    #: Whoever listens there accepts; nobody listening refuses.
    NORMAL = "normal"
    #: Refused although somebody may listen.
    REFUSED = "refused"
    #: Packets vanish: the attempt ends only by its timeout.
    SILENT = "silent"
    #: Accepted by the operating system, then reset.
    RESET = "reset"
    #: There is no route there.
    UNREACHABLE = "unreachable"


@implementer(IListeningPort)
class MemoryPort(FileDescriptor):
    """A listening port of a :class:`~scalingo_proxy.testing.network.MemoryNetwork`.

    As with ``tcp.Port``, ``pauseProducing`` stops accepting and leaves
    clients waiting, connected but not served.
    """

    def __init__(self, network: MemoryNetwork, port: int, factory: IProtocolFactory, interface: str) -> None:
        FileDescriptor.__init__(self, reactor=network.kernel)  # type: ignore[arg-type]
        self.network = network
        self.port = port
        self.factory = factory
        self.interface = interface
        self._waiting: deque[tuple[MemorySocket, Address, Address]] = deque()

    def startListening(self) -> None:
        """Take the address, and start the factory.

        :raises CannotListenError: when the address is taken.
        """
        self.port = self.network.bind(self)
        self.factory.doStart()
        self.connected = 1
        self.startReading()  # type: ignore[no-untyped-call]

    def stopListening(self) -> Deferred[None]:
        """Accept no more; the Deferred fires when the factory was stopped."""
        self.disconnecting = 1
        self.stopReading()  # type: ignore[no-untyped-call]
        done = Failure(CONNECTION_DONE)  # type: ignore[no-untyped-call]
        return deferLater(self.network, 0, self.connectionLost, done)

    loseConnection = stopListening

    def getHost(self) -> Address:
        """The address listened on; ``0.0.0.0`` or ``::`` where it is any."""
        return make_address(self.interface or "0.0.0.0", self.port)

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return bool(self.connected)

    def join_queue(self, socket: MemorySocket, here: Address, there: Address) -> None:
        """Leave a connected socket for the next turn that accepts."""
        self._waiting.append((socket, here, there))
        self.network.kernel.touch(self)

    def poll(self, reading: bool, writing: bool) -> int:
        """Readable when somebody waits to be accepted."""
        return READABLE if reading and self._waiting else 0

    def doRead(self) -> None:
        """Accept everybody who waits."""
        try:
            while self._waiting:
                self._accept(*self._waiting.popleft())
        except Exception:
            _log.failure("accepting a connection failed")

    def _accept(self, socket: MemorySocket, here: Address, there: Address) -> None:
        protocol = self.factory.buildProtocol(there)
        if protocol is None:
            socket.close()
            return
        MemoryTransport(self.network.kernel, socket, protocol, here, there).start()

    def connectionLost(self, reason: Failure) -> None:
        """Give the address back and stop the factory."""
        if not self.connected:
            return
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.network.unbind(self)
        for socket, _, _ in self._waiting:
            socket.abort()
        self._waiting.clear()
        self.disconnecting = 0
        self.factory.doStop()


class MemoryConnector(BaseConnector):
    """What ``connectTCP`` returns: Twisted's own life cycle, over memory."""

    def __init__(
        self,
        network: MemoryNetwork,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float | None,
        bind_address: tuple[str, int] | None,
    ) -> None:
        super().__init__(factory, timeout, network)  # type: ignore[arg-type]
        self._destination = make_address(host, port)
        self._bind_address = bind_address

    def _makeTransport(self) -> Any:
        network: Any = self.reactor
        return MemoryClient(network, self, self._destination, self._bind_address)

    def getDestination(self) -> Address:
        """Where it connects to; the host as it was asked for."""
        return self._destination


class MemoryClient(MemoryTransport):
    """The connecting end: an attempt first, a transport later."""

    def __init__(
        self,
        network: MemoryNetwork,
        connector: MemoryConnector,
        destination: Address,
        bind_address: tuple[str, int] | None,
    ) -> None:
        FileDescriptor.__init__(self, reactor=network.kernel)  # type: ignore[arg-type]
        self._kernel = network.kernel
        self.network = network
        self.connector: MemoryConnector = connector
        self._peer = destination
        self._host = destination
        self._bind_address = bind_address
        self._faults: tuple[Fault, ...] = ()
        self._attempt: IDelayedCall | None = network.kernel.under_way(0, self._set_out)

    def _set_out(self) -> None:
        """Resolve the name and send the first packet."""
        host = self.network.nameResolver.address_of(self._peer.host)
        if host is None:
            self.failIfNotConnected(error.DNSLookupError(f"no address for {self._peer.host!r}"))
            return
        self._peer = make_address(host, self._peer.port)
        self._host = self.network.source_address(host, self._bind_address)
        self._faults = self.network.faults.draw(self._peer)
        if self._reach() is Reach.SILENT:
            self._attempt = None
        else:
            there_and_back = 2 * self.network.kernel.latency + self.network.way_to(self._peer).delay
            self._attempt = self.network.kernel.under_way(there_and_back, self._arrive)

    def _reach(self) -> Reach:
        """What an attempt meets now."""
        reach = self.network.way_to(self._peer).reach
        return reach if reach is not Reach.NORMAL else self.network.faults.reach(self._peer, self._faults)

    def _arrive(self) -> None:
        """The first packet was answered, one way or another."""
        reach = self._reach()
        if reach is Reach.SILENT:
            self._attempt = None
            return
        if reach is Reach.UNREACHABLE:
            self._fail_with(errno.ENETUNREACH)
            return
        port = None if reach is Reach.REFUSED else self.network.listener(self._peer)
        if port is None and reach is not Reach.RESET:
            self._fail_with(errno.ECONNREFUSED)
            return
        near, far = self.network.kernel.socket_pair()
        self.network.faults.connected(near, self._peer, self._faults)
        if reach is Reach.RESET or port is None:
            far.abort()
        else:
            port.join_queue(far, *self.network.seen_by(port, self._peer, self._host))
        self._connect_done(near)

    def _connect_done(self, socket: MemorySocket) -> None:
        """Build the protocol, as ``tcp.Client._connectDone`` does."""
        protocol = self.connector.buildProtocol(self._peer)
        self._attach(socket, protocol or Protocol(), self._host, self._peer)
        if protocol is None:
            self.connected = 1
            self.loseConnection()  # type: ignore[no-untyped-call]
        else:
            self.start()

    def _fail_with(self, number: int) -> None:
        reason = error.getConnectError((number, os.strerror(number)))  # type: ignore[no-untyped-call]
        self.failIfNotConnected(reason)

    def failIfNotConnected(self, reason: BaseException) -> None:
        """Give up, unless it is connected; the connector calls this on timeout."""
        if self.connected or self.disconnected or not hasattr(self, "connector"):
            return
        self.network.kernel.call_off(self._attempt)
        connector = self.connector
        connector.connectionFailed(Failure(reason))  # type: ignore[no-untyped-call]
        del self.connector

    def stopConnecting(self) -> None:
        """Give up because the program says so."""
        self.connector.stopConnecting()

    def connectionLost(self, reason: Failure) -> None:
        """Tell the protocol, then the connector."""
        if not self.connected:
            self.failIfNotConnected(error.ConnectError(string=reason))  # type: ignore[no-untyped-call]
            return
        super().connectionLost(reason)
        self.connector.connectionLost(reason)
