"""The embedding API: factories to hand to any endpoint of any reactor."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import Limits, Record, Timeouts, TopologyChange
from scalingo_proxy.protocols.backend_connections import BackendConnections
from scalingo_proxy.protocols.backend_connector import BackendConnector, Connect
from scalingo_proxy.protocols.deadlines import Deadlines
from scalingo_proxy.protocols.downstream import Frontend
from scalingo_proxy.protocols.environment import Environment, SilentObserver
from scalingo_proxy.protocols.http_frontend import HTTPFrontend
from scalingo_proxy.protocols.secured import Secured
from scalingo_proxy.routing.networks import Networks, plain_address
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.http1_head import RequestHead

__all__ = ["HTTPProxyFactory", "make_environment"]

_log = Logger()


def make_environment(
    resolver: Any,
    reactor: Any,
    *,
    pools: Pools | None = None,
    observer: Any = None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    connect: Connect | None = None,
    random_source: random.Random | None = None,
    request_ids: Callable[[], str] | None = None,
    wall_clock: Callable[[], float] | None = None,
) -> Environment:
    """Join a resolver and a reactor to what several factories can share.

    When the resolver is also an :class:`~scalingo_proxy.interfaces.IRouteFeed`,
    its changes reach the pools as they happen: backends that are gone drain.

    :param resolver: an :class:`~scalingo_proxy.interfaces.IResolver`.
    :param reactor: an IReactorTime and IReactorTCP.
    """
    deadlines = Deadlines(reactor)
    if pools is None:
        pools = Pools(timeouts, limits, random_source or random.Random(), clock=reactor.seconds)
    connections = BackendConnections(connect or BackendConnector(reactor), deadlines, reactor.seconds)
    shared_pools = pools

    def pool_changed(pool: Any, member: Any, event: str) -> None:
        if event == "draining":
            connections.close_idle(member)

    def topology_changed(change: TopologyChange) -> None:
        shared_pools.apply(change, reactor.seconds())

    pools.watch(pool_changed)
    if IRouteFeed.providedBy(resolver):
        resolver.watch(topology_changed)
    environment = Environment(
        reactor=reactor,
        resolver=resolver,
        pools=pools,
        connections=connections,
        deadlines=deadlines,
        observer=observer or SilentObserver(),
        timeouts=timeouts,
        limits=limits,
        request_ids=request_ids,
    )
    if wall_clock is not None:
        environment.wall_clock = wall_clock
    return environment


class HTTPProxyFactory(Factory):
    """Serves HTTP/1 clients from the backends that a resolver names.

    Hand it to any endpoint, TLS-wrapped or not.

    :param resolver: an :class:`~scalingo_proxy.interfaces.IResolver`.
    :param reactor: the reactor it runs on; never looked up.
    :param env: share pools and connections with another factory instead of
        making one's own; *resolver*, *reactor* and *options* are then unused.
    :param listener: the name of this door in logs and metrics.
    :param trusted_proxies: CIDRs whose ``X-Forwarded-*`` is believed.
    :param public_port: what ``X-Forwarded-Port`` says; 0: the port connected to.
    :param note_agents: fill in the record's ``referer`` and ``user_agent``.
    :param options: see :func:`make_environment`.
    """

    noisy = False

    def __init__(
        self,
        resolver: Any = None,
        reactor: Any = None,
        *,
        env: Environment | None = None,
        listener: str = "http",
        trusted_proxies: Iterable[str] = (),
        public_port: int = 0,
        note_agents: bool = False,
        **options: Any,
    ) -> None:
        if env is None:
            env = make_environment(resolver, reactor, **options)
        self.env = env
        self.listener = listener
        self.is_draining = False
        networks = Networks(trusted_proxies)
        self._is_trusted: Callable[[str], bool] | None = networks.__contains__ if networks else None
        self._public_port = public_port
        self._note_agents = note_agents
        self._frontends: dict[Frontend, None] = {}
        self._drained: Deferred[None] | None = None
        self._drain_timer: Any = None

    @property
    def open_connections(self) -> int:
        """How many clients are connected through this factory."""
        return len(self._frontends)

    # -- called by Twisted ---------------------------------------------------

    def buildProtocol(self, addr: IAddress | None) -> HTTPFrontend | None:
        if self.env.client_connections >= self.env.limits.client_connections:
            self.env.connection_opened(self.listener, "refused")
            self.env.connection_closed(self.listener, "refused")
            return None  # Twisted closes the connection
        return HTTPFrontend(self)

    def startFactory(self) -> None:
        self.is_draining = False
        self.env.begin(self)

    def stopFactory(self) -> None:
        if not self._frontends:
            self.env.end(self)

    # -- called by the frontends ---------------------------------------------

    def identify(self, transport: Any, secured: Secured | None = None) -> ClientIdentity:
        """Who is at the other end of *transport*."""
        peer, host = transport.getPeer(), transport.getHost()
        address = getattr(peer, "host", None)
        is_tls = secured is not None or ISSLTransport.providedBy(transport)
        identity = ClientIdentity(
            plain_address(address) if address else "unix:",
            "https" if is_tls else "http",
            self._public_port or getattr(host, "port", 0),
            self._is_trusted,
        )
        identity.ends = peer, host
        if secured is not None:
            identity.tls, identity.covers = secured.version, secured.covers
        return identity

    def note_fields(self, record: Record, head: RequestHead) -> None:
        """Keep what only some request logs want."""
        if not self._note_agents:
            return
        for name, value in head.fields:
            lower = name.lower()
            if lower == b"user-agent":
                record.user_agent = value.decode("latin-1")
            elif lower == b"referer":
                record.referer = value.decode("latin-1")

    def frontend_opened(self, frontend: Frontend, kind: str) -> None:
        self._frontends[frontend] = None
        self.env.client_connections += 1
        self.env.connection_opened(self.listener, kind)

    def kind_changed(self, before: str, now: str) -> None:
        self.env.connection_closed(self.listener, before)
        self.env.connection_opened(self.listener, now)

    def frontend_closed(self, frontend: Frontend, kind: str) -> None:
        self._frontends.pop(frontend, None)
        self.env.client_connections -= 1
        self.env.connection_closed(self.listener, kind)
        if not self._frontends:
            if not self.numPorts:
                self.env.end(self)
            if self._drained is not None:
                self._end_drain()

    # -- stopping ------------------------------------------------------------

    def drain(self, seconds: float) -> Deferred[None]:
        """Let the exchanges under way finish, then close every connection.

        Idle clients are closed at once; answers say ``Connection: close``;
        whatever is left after *seconds* is cut, and gone two seconds later.
        Accepting must have stopped.  A further call may bring the end forward.

        :return: fires when no client is connected any more.
        """
        self.is_draining = True
        self._ask_each("drain")
        if not self._frontends:
            return succeed(None)
        self._cut_within(seconds)
        if self._drained is None:
            self._drained = Deferred()
        waiter: Deferred[None] = Deferred()
        self._drained.addCallback(lambda _: waiter.callback(None))
        return waiter

    def _cut_within(self, seconds: float) -> None:
        timer, reactor = self._drain_timer, self.env.reactor
        if timer is None:
            self._drain_timer = reactor.callLater(seconds, self._cut)
        elif timer.active() and timer.getTime() > reactor.seconds() + seconds:
            timer.reset(seconds)

    def _cut(self) -> None:
        self._ask_each("cut")

    def _ask_each(self, what: str) -> None:
        for frontend in list(self._frontends):
            try:
                getattr(frontend, what)()
            except Exception:
                _log.failure("a connection did not {what} in order", what=what)
                frontend.transport.abortConnection()

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        timer, self._drain_timer = self._drain_timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if drained is not None:
            drained.callback(None)
