"""One door: as it is wanted, as it is, and what stands between its port and its factory.

Opening and choosing doors is :mod:`scalingo_proxy.services.listeners`.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, ILoggingContext, IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.model import join_host_port
from scalingo_proxy.services.accept_gate import AcceptGate
from scalingo_proxy.services.endpoint_strings import ListenEndpoint, parse_endpoint
from scalingo_proxy.services.last_accepts import close_port

__all__ = ["Door", "Listener", "OpenPort"]

_log = Logger()


def _as_endpoint(value: ListenEndpoint | str) -> ListenEndpoint:
    return parse_endpoint(value) if isinstance(value, str) else value


@attrs.frozen(eq=False)
class Listener:
    """One door as it is wanted.

    :ivar name: what logs call it.
    :ivar endpoint: where; text is parsed as an ENDPOINT.
    :ivar factory: what serves it; several doors may share one.
    :ivar setting: where the endpoint was set, such as ``listen[0].endpoint``
        or ``--http``; told when it cannot be opened.
    """

    name: str
    endpoint: ListenEndpoint = attrs.field(converter=_as_endpoint)
    factory: IProtocolFactory
    setting: str = ""


@attrs.frozen
class OpenPort:
    """One door as it is: where it really listens.

    :ivar address: Twisted's address; its port is the real one where 0 was asked for.
    """

    name: str
    endpoint: ListenEndpoint
    address: IAddress

    @property
    def port(self) -> int:
        """The TCP port, or 0 for a unix socket."""
        return int(getattr(self.address, "port", 0))

    @property
    def text(self) -> str:
        """``HOST:PORT`` or ``unix:PATH``."""
        host = getattr(self.address, "host", None)
        if host is not None:
            return join_host_port(host, self.port)
        name = getattr(self.address, "name", None) or b""
        return "unix:" + (name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name)


@implementer(IProtocolFactory, ILoggingContext)
class Door:
    """What a port listens with: passes each connection to the factory of the moment.

    Thereby a reload can give an open port to another factory without closing it.
    """

    def __init__(self, listener: Listener, gate: AcceptGate | None = None) -> None:
        self.listener = listener
        self.port: IListeningPort | None = None
        self._gate = gate
        self._leave_gate: Callable[[], None] | None = None
        #: How many clients came in.
        self._accepted = 0

    def opened(self, port: IListeningPort) -> None:
        self.port = port
        if self._gate is not None:
            self._leave_gate = self._gate.guard(port, lambda: self._accepted)
        self.listener.factory.doStart()

    def hand_over(self, listener: Listener) -> None:
        """Serve new connections with another listener's factory."""
        old, self.listener = self.listener, listener
        if old.factory is not listener.factory:
            listener.factory.doStart()
            old.factory.doStop()

    def close(self, for_good: bool = False) -> Deferred[None]:
        """Stop accepting, but for those who are connected already; fires when the port is closed.

        :param for_good: nobody will listen there again soon.
        """
        assert self.port is not None
        # The gate stays to the last: nobody comes in for whom there are no descriptors.
        closing = close_port(self.port, lambda: self._accepted, for_good, self._leave_gate)
        self._leave_gate = None

        def closed(result: Failure | None) -> None:
            self.listener.factory.doStop()
            if result is not None:
                # Most likely the socket file went away, or the directory is no longer ours.
                text, error = self.listener.endpoint.text, result.value
                _log.warn("{text} was not closed cleanly: {error}", text=text, error=error)

        return closing.addBoth(closed)

    # -- called by Twisted ---------------------------------------------------

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        self._accepted += 1
        return self.listener.factory.buildProtocol(addr)

    def doStart(self) -> None:
        """Nothing: Twisted also calls it for a port that then cannot be opened."""

    def doStop(self) -> None:
        """Nothing: see :meth:`close`."""

    def logPrefix(self) -> str:
        return self.listener.name
