"""A door for clients that another proxy brings: takes the PROXY header, then steps aside.

The protocol behind is made only when the header was read whole, so that
``getPeer`` and ``getHost`` tell the header's addresses from its first moment
on, and TLS, if any, begins behind the header.  Nothing stays between an
ordinary transport and that protocol afterwards.  Knows nothing of what the
connection carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from scalingo_proxy.errors import BadRequest, Denied, DrainTimeout, ProxyError, RequestTimeout
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.client_connections import NO_ROOM
from scalingo_proxy.protocols.deadlines import Timed
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.http_ending import QUIET_SECONDS
from scalingo_proxy.protocols.stepping_aside import Relabelled, deliver_behind
from scalingo_proxy.routing.networks import Networks, plain_address
from scalingo_proxy.wire.proxy_header import ProxyHeader, ProxyHeaderReader, ProxyHeaderRefused

__all__ = ["ProxyHeaderFactory"]

_log = Logger()


class ProxyHeaderFactory(Factory):
    """Demands a PROXY header of each client, and hands what follows to another factory.

    Hand it to an endpoint in place of *wrapped*.  A connection without a
    valid header is closed without a word; one record tells of it, with the
    code ``bad-request``, ``request-timeout`` or, for an address that may not
    send a header, ``denied``.  A connection that said nothing at all was a
    mere probe and leaves no record.

    :param wrapped: serves the connections; started and stopped with this one.
    :param env: its deadlines, observer and limits are used.
    :param listener: the name of this door in records; that of *wrapped* by default.
    :param trusted_proxies: CIDRs that may send a header; empty: everybody may.
    :param header_seconds: how long the whole header may take; not less than
        3, for a lost packet to be sent again (section 2 of the specification).
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        env: Environment,
        *,
        listener: str = "",
        trusted_proxies: Iterable[str] = (),
        header_seconds: float = 5.0,
    ) -> None:
        self.wrapped = wrapped
        self.env = env
        self.listener: str = listener or getattr(wrapped, "listener", "proxy")
        self.header_seconds = header_seconds
        self._networks = Networks(trusted_proxies)
        self._waiting: set[_ProxyHeaderProtocol] = set()
        self._emptied: list[Deferred[Any]] = []
        self.is_draining = False

    # -- called by Twisted ---------------------------------------------------

    def doStart(self) -> None:
        self.wrapped.doStart()
        super().doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self.wrapped.doStop()

    def startFactory(self) -> None:
        self.is_draining = False
        self.env.begin(self)

    def stopFactory(self) -> None:
        if not self._waiting:
            self.env.end(self)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        env = self.env
        if self._networks and getattr(addr, "host", "") not in self._networks:
            self.refuse(addr, Denied(), env.seconds())
            return None  # Twisted closes the connection
        limit = env.clients.refusal("", env.limits, env.seconds())
        if limit:
            env.connection_opened(self.listener, "refused")
            env.connection_closed(self.listener, "refused")
            self.refuse(addr, NO_ROOM[limit], env.seconds())
            return None
        return _ProxyHeaderProtocol(self)

    # -- called by the protocols ---------------------------------------------

    def opened(self, protocol: _ProxyHeaderProtocol) -> None:
        """A client is connected and owes its header."""
        self._waiting.add(protocol)
        self.env.clients.opened(protocol, "")

    def closed(self, protocol: _ProxyHeaderProtocol) -> None:
        """A client has sent its header, or has gone without."""
        self._waiting.discard(protocol)
        self.env.clients.closed(protocol)
        if self._waiting:
            return
        if self._emptied:
            self.env.reactor.callLater(0, self._tell_emptied)  # the one behind takes over in this turn
        if not self.numPorts:
            self.env.end(self)

    def refuse(self, peer: Any, error: ProxyError, started_at: float) -> None:
        """Tell the observer of a connection that ends here."""
        env = self.env
        now = env.seconds()
        host = getattr(peer, "host", None)
        client = plain_address(host) if host else "unix:"
        record = Record(started_at, env.wall_clock() - (now - started_at), client, self.listener)
        record.protocol = "proxy"
        env.refused(record, error)

    # -- stopping ------------------------------------------------------------

    @property
    def open_connections(self) -> int:
        """How many clients are connected through this door."""
        return len(self._waiting) + getattr(self.wrapped, "open_connections", 0)

    def drain(self, seconds: float) -> Deferred[Any]:
        """Drain the factory behind, once all have sent their header or had a moment for it."""
        self.is_draining = True
        for protocol in list(self._waiting):
            protocol.hurry()
        drains = [self._drain_wrapped(seconds)]
        if self._waiting:
            emptied: Deferred[Any] = Deferred()
            self._emptied.append(emptied)
            drains.append(emptied.addCallback(lambda _: self._drain_wrapped(seconds)))
        return gatherResults(drains, consumeErrors=True)

    def _drain_wrapped(self, seconds: float) -> Deferred[Any]:
        drain = getattr(self.wrapped, "drain", None)
        return succeed(None) if drain is None else maybeDeferred(drain, seconds)

    def _tell_emptied(self) -> None:
        emptied, self._emptied = self._emptied, []
        for each in emptied:
            each.callback(None)


class _ProxyHeaderProtocol(Protocol, Timed):
    """Stands at the beginning of a connection until its header was read."""

    transport: Any
    has_asked = False

    def __init__(self, factory: ProxyHeaderFactory) -> None:
        self._factory = factory
        self._env = factory.env
        self._started_at = 0.0
        self._reader: ProxyHeaderReader | None = ProxyHeaderReader()
        #: Who gets what comes in; only where the transport cannot be told itself.
        self._inner: Any = None

    # -- called by Twisted ---------------------------------------------------

    def connectionMade(self) -> None:
        env = self._env
        self._factory.opened(self)
        self._started_at = env.seconds()
        env.deadlines.set(self, self._started_at + self._factory.header_seconds)
        if self._factory.is_draining:
            self.hurry()  # it came in at the last moment

    def dataReceived(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            if self._inner is not None:
                self._inner.dataReceived(data)
            return
        try:
            header = reader.receive(data)
        except ProxyHeaderRefused as refused:
            self._refuse(BadRequest(str(refused)))
            return
        if header is not None:
            self._leave()
            self._hand_over(header, reader.excess)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        elif self._reader is not None:
            if self._reader.has_begun:
                self._record(BadRequest("the PROXY header was cut"))
            self._leave()

    def readConnectionLost(self) -> None:
        if self._inner is not None:
            self._inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self._inner is not None:
            self._inner.writeConnectionLost()

    def deadline_reached(self) -> None:
        self._end(RequestTimeout("the PROXY header did not arrive in time"))

    # -- ends ----------------------------------------------------------------

    def idle_since(self) -> float:
        """It does nothing but be waited for."""
        return self._started_at

    def crawls(self, now: float) -> bool:
        """Its waits are bounded otherwise."""
        return False

    def under_way(self) -> tuple[()]:
        """Nothing yet."""
        return ()

    def give_up(self) -> None:
        """Close, to make room for others."""
        self._end(RequestTimeout("the PROXY header was not there when room was needed"))

    def hurry(self) -> None:
        """The proxy stops: a header that is on its way may still come."""
        until = self._started_at + QUIET_SECONDS
        if until > self._env.seconds():
            self._env.deadlines.set(self, until)
        else:
            self._end(DrainTimeout())

    def abort(self) -> None:
        """Close without a word, and without a record."""
        self._leave()
        self.transport.abortConnection()

    def _end(self, error: ProxyError) -> None:
        """Close; whoever has begun its header has its record."""
        if self._reader is not None and self._reader.has_begun:
            self._record(error)
        self.abort()

    def _refuse(self, error: ProxyError) -> None:
        self._record(error)
        self.abort()

    def _record(self, error: ProxyError) -> None:
        peer = self.transport.getPeer()
        _log.debug("{peer}: {detail}", peer=peer, detail=error.detail)
        self._factory.refuse(peer, error, self._started_at)

    def _leave(self) -> None:
        """Be no longer among those who owe a header."""
        if self._reader is not None:
            self._reader = None
            self._env.deadlines.forget(self)
            self._factory.closed(self)

    # -- the step aside ------------------------------------------------------

    def _hand_over(self, header: ProxyHeader, excess: bytes) -> None:
        """Put the protocol behind in the place of this one."""
        transport = self.transport
        addresses: dict[str, Callable[[], Any]] = {}
        peer, host = transport.getPeer(), None
        if header.source:
            peer = _address(header.source, header.source_port)
            host = _address(header.destination, header.destination_port)
            addresses = {"getPeer": lambda: peer, "getHost": lambda: host}
        inner: Any = self._factory.wrapped.buildProtocol(peer)
        if inner is None:
            transport.loseConnection()
            return
        if getattr(transport, "protocol", None) is self and hasattr(transport, "__dict__"):
            # As Twisted itself does when TLS starts: from here on the transport deals with inner alone.
            transport.protocol = inner
        else:
            transport = Relabelled(transport)
            self._inner = inner
            if IHalfCloseableProtocol.providedBy(inner):
                alsoProvides(self, IHalfCloseableProtocol)
        for name, method in addresses.items():
            setattr(transport, name, method)
        if addresses:
            transport.local_port = getattr(host, "port", 0)
        if excess:
            deliver_behind(transport, inner, excess, self._env.reactor)
        else:
            inner.makeConnection(transport)


def _address(text: str, port: int) -> IPv4Address | IPv6Address | UNIXAddress:
    """The address of a PROXY header as transports tell theirs."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").encode("utf-8", "surrogateescape")
        return UNIXAddress(path or None)
    return (IPv6Address if ":" in text else IPv4Address)("TCP", text, port)
