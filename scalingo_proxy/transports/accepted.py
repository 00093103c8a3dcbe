"""Connections that clients made: the port that accepts them, and the transport of each."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from socket import SocketType
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.python import log

from scalingo_proxy.transports.connection import Eager

__all__ = ["ACCEPTS_A_TURN", "EagerPort", "EagerServer"]


class EagerServer(Eager, tcp.Server):
    """The transport of an accepted connection.

    :ivar peer_address: Twisted's of the peer, once it is known.
    :ivar local_port: what the peer connected to, if that is known without a question; else 0.
        Whoever has :meth:`getHost` tell something else says so here, too.
    """

    local_port = 0
    peer_address: Any = None
    _host: Any = None

    def __init__(
        self, sock: Any, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any
    ) -> None:
        # As Twisted's, without the words for logs, which are made when they are asked for.
        sock.setblocking(False)
        self.reactor = reactor
        self._tempDataBuffer: list[bytes] = []
        self._tempDataLen = 0
        # Asked for with each write, and found sooner here than in the class.
        self.dataBuffer = b""
        self.may_send = True
        self.socket = sock
        self.fileno = fileno = sock.fileno
        self.protocol = protocol
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self._has_no_delay: bool = getattr(server, "gives_no_delay", False)
        enter = getattr(reactor, "enter", None)
        if enter is not None:
            enter(self, fileno())
        else:
            reactor.addReader(self)
        self.connected = 1

    def getHost(self) -> Any:
        # Asked for several times in each connection, and it does not change.
        if not self.connected:
            return super().getHost()  # type: ignore[no-untyped-call]
        if self._host is None:
            self._host = getattr(self.server, "only_address", None) or super().getHost()  # type: ignore[no-untyped-call]
        return self._host

    def getPeer(self) -> Any:
        if self.peer_address is None:
            self.peer_address = super().getPeer()  # type: ignore[no-untyped-call]
        return self.peer_address

    def setTcpNoDelay(self, enabled: bool) -> None:
        # Everybody asks for it, and it comes with the port.
        if bool(enabled) is not self._has_no_delay or not self.connected:
            super().setTcpNoDelay(enabled)
            self._has_no_delay = bool(enabled)

    @property
    def hostname(self) -> str:  # type: ignore[override]
        # Twisted's, kept in each object.
        return str(self.client[0])

    def logPrefix(self) -> str:
        return f"{type(getattr(self, 'protocol', None)).__name__},{self.sessionno},{self.client[0]}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.logPrefix()}>"


def _ipv4_address(client: tuple[str, int]) -> IPv4Address:
    """Twisted's, of a client: nothing that need be checked as its constructor does (0.4 µs less)."""
    made = IPv4Address.__new__(IPv4Address)
    made.type = "TCP"
    made.host, made.port = client
    return made


_STREAM = int(socket.SOCK_STREAM)

#: Connections that a port accepts in one turn of the reactor; the others wait in the system's queue.
ACCEPTS_A_TURN = 8

#: Turns with one connection each after which a port looks whether more than one waits, at most.
_MOST_PATIENCE = 16


class EagerPort(tcp.Port):
    """Accepts connections, each with an :class:`EagerServer`.

    :ivar gives_no_delay: whether each comes with TCP_NODELAY, as on Linux, where it is inherited.
    :ivar only_address: what all of them are connected to, where that follows from what it listens on.
    :ivar only_port: likewise, which on all addresses of a machine is known, too; else 0.
    """

    transport = EagerServer
    gives_no_delay = False
    only_address: Any = None
    only_port = 0
    _accepts = ACCEPTS_A_TURN
    #: Turns in a row that took one and did not ask for more, and how many it takes to ask.
    _alone = 0
    _patience = 1

    @property
    def numberAccepts(self) -> int:
        """How many a turn takes in at most."""
        return self._accepts

    @numberAccepts.setter
    def numberAccepts(self, count: int) -> None:
        # Twisted takes in more and more while they keep coming, and whoever is served already waits for all.
        self._accepts = min(count, ACCEPTS_A_TURN)

    def startListening(self) -> None:
        is_own = self._preexistingSocket is None
        super().startListening()
        address = self.getHost()  # type: ignore[no-untyped-call]
        # Not of a socket that somebody else has opened: it may be transparent.
        if is_own:
            self.only_port = address.port
            if not ip_address(address.host.partition("%")[0]).is_unspecified:
                self.only_address = address
        if sys.platform == "linux":
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            self.gives_no_delay = True

    def doRead(self) -> None:
        # As Twisted's, without a log and a generator for each turn.
        factory: Any = self.factory
        listening, family, make = self.socket, self.addressFamily, self.transport
        # Where turns are ours; what is read anywhere else comes in a turn of its own.
        reactor: Any = self.reactor
        reading = reactor._reads if hasattr(reactor, "ends_of_turn") else ()
        is_ipv4 = self._addressType is IPv4Address
        accepted = 0
        try:
            while accepted < self._accepts:
                try:
                    descriptor, client = listening._accept()  # type: ignore[union-attr]
                except BlockingIOError:
                    break
                except OSError:
                    super().doRead()  # type: ignore[no-untyped-call] # Twisted knows what to do, and meets it again
                    return
                accepted += 1
                # Of the C type alone: 0.9 µs less for making and closing it.
                made = SocketType(family, _STREAM, 0, descriptor)
                if is_ipv4:
                    address = _ipv4_address(client)
                else:
                    if len(client) == 4 and client[3]:  # the scope is a part of such an address
                        named = socket.getnameinfo(client, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
                        client = (named[0], *client[1:])
                    address = self._buildAddr(client)  # type: ignore[no-untyped-call]
                protocol = factory.buildProtocol(address)
                if protocol is None:
                    made.close()
                    continue
                number = self.sessionno
                self.sessionno = number + 1
                transport = make(made, protocol, client, self, number, reactor)
                transport.peer_address, transport.local_port = address, self.only_port
                protocol.makeConnection(transport)
                # What it wants is there already, most of the time.
                if descriptor in reading and transport.connected:
                    transport.read_now()
            self._accept_next(accepted)
        except BaseException:
            log.err()  # type: ignore[no-untyped-call]

    def _accept_next(self, accepted: int) -> None:
        """How many to accept in the next turn, after so many in this one.

        Where they come one at a time, to ask for another is in vain (3 µs), and who does wait is told of in
        the next turn anyway.  So that is done the less often, the more often it was in vain.
        """
        if accepted > 1:
            self._patience, self._alone = 1, 0
            self._accepts = accepted if accepted < self._accepts else ACCEPTS_A_TURN
        elif self._accepts > 1:  # in vain
            self._patience, self._alone = min(2 * self._patience, _MOST_PATIENCE), 0
            self._accepts = 1
        else:
            self._alone += 1
            if self._alone >= self._patience:
                self._accepts = ACCEPTS_A_TURN

    def read_now(self) -> None:
        """What the reactor does when somebody wants to connect."""
        self.doRead()
