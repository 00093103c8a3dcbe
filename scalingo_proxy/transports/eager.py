"""TCP transports that write at once.

Twisted's own wait with each write for the next turn of the reactor: a system
call to ask for the turn, one to wait for it, and one to ask for no further.
These try ``send`` in the call itself while nothing is buffered, and fall back to
Twisted's way for what the kernel did not take.  Two writes cost 26 µs less that
way.  Connections are made and ended with fewer system calls and turns, too: one
that carries a message there and back costs 114 µs less, both ends together.

Nothing else is different: what is buffered keeps its order, a write never calls
back into its protocol, except to pause a producer, and a connection that breaks
inside a write is reported by the reactor as always.  :func:`eager` gives a
reactor whose ports and connectors make such transports, so that protocols and
endpoints know nothing of them.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv6Address
from twisted.internet.error import ConnectionDone, getConnectError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

__all__ = ["ACCEPTS_A_TURN", "Eager", "EagerClient", "EagerPort", "EagerServer", "eager"]


_CLOSED = Failure(ConnectionDone())  # type: ignore[no-untyped-call]


class Eager(tcp.Connection):
    """What client and server transports have in common.

    :ivar may_send: whether a write may go past the buffer.  Whoever takes over
        ``doWrite``, or wants to be asked when all is written, sets it to False.
    :ivar has_failed: whether a send has met the end of the connection.
    """

    may_send = True
    has_failed = False

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
        """Whoever had taken over ``doWrite`` has given it back."""
        is_asked = self.producer is not None and not self.streamingProducer
        is_ending = self.disconnecting or self._writeDisconnecting
        self.may_send = bool(self.connected) and not (is_asked or is_ending)

    def doRead(self) -> Any:
        # As Twisted's, in one call instead of two.  An end behind a failed send is no clean one.
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_LOST if self.has_failed else CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    # From here on, Twisted's way of writing is the only one, as all of these rely on it.

    def loseConnection(self) -> None:
        is_written = self.may_send and not self._tempDataLen and not self.dataBuffer
        self.may_send = False
        if is_written and self.connected and not self.disconnecting:
            # Nothing to write: no need to ask whether that is possible.
            self.disconnecting = 1
            self.stopReading()  # type: ignore[no-untyped-call]
            self.reactor.callLater(0, self._close)  # type: ignore[attr-defined]
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def _close(self) -> None:
        """Close, unless something was written after all: that goes out first."""
        if self.connected and not self._tempDataLen and not self.dataBuffer:
            self.connectionLost(_CLOSED)

    def loseWriteConnection(self) -> None:
        is_written = self.may_send and not self._tempDataLen and not self.dataBuffer
        self.may_send = False
        if is_written and self.connected and not self.disconnecting:
            self._writeDisconnecting = True
            self.reactor.callLater(0, self._half_close)  # type: ignore[attr-defined]
        else:
            super().loseWriteConnection()  # type: ignore[no-untyped-call]

    def _half_close(self) -> None:
        """The same for one direction."""
        if self.connected and not self.disconnecting and not self._tempDataLen and not self.dataBuffer:
            self._writeDisconnected = True
            self._closeWriteConnection()

    def abortConnection(self) -> None:
        self.may_send = False
        super().abortConnection()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any) -> None:
        self.may_send = False
        super().connectionLost(reason)

    def startTLS(self, *arguments: Any, **options: Any) -> None:
        self.may_send = False
        super().startTLS(*arguments, **options)  # type: ignore[no-untyped-call]

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if not streaming:  # asked for more each time the buffer has become empty
            self.may_send = False
        super().registerProducer(producer, streaming)  # type: ignore[no-untyped-call]


class EagerServer(Eager, tcp.Server):
    """The transport of an accepted connection."""

    def __init__(
        self, sock: Any, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any
    ) -> None:
        # As Twisted's, without the words for logs, which are made when they are asked for.
        sock.setblocking(False)
        self.reactor = reactor
        self._tempDataBuffer: list[bytes] = []
        self._tempDataLen = 0
        self.socket = sock
        self.fileno = sock.fileno
        self.protocol = protocol
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self._host: Any = None
        self._peer: Any = None
        self._has_no_delay: bool = getattr(server, "gives_no_delay", False)
        self.startReading()  # type: ignore[no-untyped-call]
        self.connected = 1

    def getHost(self) -> Any:
        # Asked for several times in each connection, and it does not change.
        if self._host is None or not self.connected:
            self._host = super().getHost()  # type: ignore[no-untyped-call]
        return self._host

    def getPeer(self) -> Any:
        if self._peer is None:
            self._peer = super().getPeer()  # type: ignore[no-untyped-call]
        return self._peer

    def setTcpNoDelay(self, enabled: bool) -> None:
        # Everybody asks for it, and it comes with the port.
        if bool(enabled) is not self._has_no_delay or not self.connected:
            super().setTcpNoDelay(enabled)
            self._has_no_delay = bool(enabled)

    def logPrefix(self) -> str:
        return f"{type(getattr(self, 'protocol', None)).__name__},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.logPrefix()}>"


class EagerClient(Eager, tcp.Client):
    """The transport of a connection that was made from here.

    To an address, it begins in the call that asks for it, and asks the reactor
    once instead of three times.
    """

    _is_made = False

    def _finishInit(self, when_done: Any, skt: Any, error: Any, reactor: Any) -> None:
        if when_done is None or self._requiresResolution:
            super()._finishInit(when_done, skt, error, reactor)  # type: ignore[no-untyped-call]
            return
        tcp.Connection.__init__(self, skt, None, reactor)  # type: ignore[arg-type]
        self.realAddress = self.addr
        result = skt.connect_ex(self.addr)
        self.doRead = self.doWrite = self._decided  # type: ignore[method-assign]
        if result in (0, errno.EINPROGRESS, errno.EISCONN):
            self.startWriting()  # type: ignore[no-untyped-call]
        else:  # nobody expects to hear of it inside the call
            failed = getConnectError((result, os.strerror(result)))  # type: ignore[no-untyped-call]
            reactor.callLater(0, self.failIfNotConnected, failed)

    def _decided(self) -> None:
        """The attempt has succeeded or failed."""
        result = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            failed = getConnectError((result, os.strerror(result)))  # type: ignore[no-untyped-call]
            self.failIfNotConnected(failed)  # type: ignore[no-untyped-call]
            return
        del self.doRead, self.doWrite
        self.stopWriting()  # type: ignore[no-untyped-call]
        self._connectDone()

    def _connectDone(self) -> None:
        self._is_made = True
        super()._connectDone()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any) -> None:
        if not self._is_made and hasattr(self, "socket"):
            # The poll told of a hang-up, and the socket knows why.
            result = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if result:
                failed = getConnectError((result, os.strerror(result)))  # type: ignore[no-untyped-call]
                self.failIfNotConnected(failed)  # type: ignore[no-untyped-call]
                return
        super().connectionLost(reason)

    def _closeSocket(self, orderly: bool) -> None:
        if self._is_made:
            super()._closeSocket(orderly)  # type: ignore[no-untyped-call]
            return
        # An attempt may be given up while its event is among those being handled.  Whoever
        # got the same descriptor now would be given that event: a connection that has just
        # been made or accepted would be taken for lost.
        self.reactor.callLater(0, self.socket.close)  # type: ignore[attr-defined]


#: Connections that a port accepts in one turn of the reactor; the others wait in the system's queue.
ACCEPTS_A_TURN = 20


class EagerPort(tcp.Port):
    """Accepts connections, each with an :class:`EagerServer`.

    :ivar gives_no_delay: whether each comes with TCP_NODELAY, as on Linux, where it is inherited.
    """

    transport = EagerServer
    gives_no_delay = False
    _accepts = ACCEPTS_A_TURN

    @property
    def numberAccepts(self) -> int:
        """How many a turn takes in at most."""
        return self._accepts

    @numberAccepts.setter
    def numberAccepts(self, count: int) -> None:
        # Twisted takes in more and more while they keep coming, and whoever is served already waits for all.
        self._accepts = min(count, ACCEPTS_A_TURN)

    def startListening(self) -> None:
        super().startListening()
        if sys.platform == "linux":
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            self.gives_no_delay = True


class EagerConnector(tcp.Connector):
    """Makes a connection with an :class:`EagerClient`."""

    def _makeTransport(self) -> EagerClient:
        return EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]


def eager(reactor: Any) -> Any:
    """A reactor like *reactor* whose TCP connections write at once.

    To be handed to endpoints and to whatever else listens or connects.  All but
    TCP, and every reactor that polls no sockets, stays as it is.
    """
    return EagerReactor(reactor) if isinstance(reactor, PosixReactorBase) else reactor


class EagerReactor:
    """A reactor with ports and connectors of its own; see :func:`eager`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        listening = EagerPort(port, factory, backlog, interface, self._reactor)
        listening.startListening()
        return listening

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any) -> IListeningPort:
        if family not in (socket.AF_INET, socket.AF_INET6):
            adopted: IListeningPort = self._reactor.adoptStreamPort(descriptor, family, factory)
            return adopted
        listening: EagerPort = EagerPort._fromListeningDescriptor(self._reactor, descriptor, family, factory)  # type: ignore[no-untyped-call]
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,  # noqa: N803 - Twisted's names
    ) -> Any:
        connector = EagerConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector
