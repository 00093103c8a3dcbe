"""The embedding API: factories to hand to any endpoint of any reactor."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from twisted.internet.interfaces import IAddress, ISSLTransport

from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import AppState, Health, Limits, Quarantine, Record, Timeouts, TopologyChange
from scalingo_proxy.protocols.backend_connections import BackendConnections
from scalingo_proxy.protocols.backend_connector import BackendConnector, Connect
from scalingo_proxy.protocols.connection_attempts import ConnectionAttempts
from scalingo_proxy.protocols.deadlines import Deadlines
from scalingo_proxy.protocols.draining_factory import DrainingFactory
from scalingo_proxy.protocols.environment import Environment, SilentObserver
from scalingo_proxy.protocols.http_frontend import HTTPFrontend
from scalingo_proxy.routing.members import HealthState
from scalingo_proxy.routing.networks import Networks, plain_address
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.transports.connection import Eager
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from scalingo_proxy.wire.http1_head import RequestHead

__all__ = ["HTTPProxyFactory", "make_environment"]

_FAILED = (HealthState.QUARANTINED, HealthState.DOWN)


def make_environment(
    resolver: Any,
    reactor: Any,
    *,
    pools: Pools | None = None,
    observer: Any = None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    health: Health = Health(),  # noqa: B008 - frozen
    quarantine: Quarantine = Quarantine(),  # noqa: B008 - frozen
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
        pools = Pools(
            timeouts,
            limits,
            random_source or random.Random(),
            clock=reactor.seconds,
            health=health,
            quarantine=quarantine,
        )
    attempts = ConnectionAttempts(connect or BackendConnector(reactor), reactor)
    connections = BackendConnections(attempts, deadlines, reactor.seconds)
    shared_pools = pools

    def pool_changed(pool: Any, member: Any, event: str) -> None:
        # Of a member that failed, kept connections may be dead without a word: each
        # would cost the request that tries it next.
        if event == "draining" or (event == "verdict" and member.health in _FAILED):
            connections.close_idle(member)
        if event == "verdict" and member.health in _FAILED:
            for search in tuple(environment.connecting.get(member, ())):
                search.backend_failed_others()

    def topology_changed(change: TopologyChange) -> None:
        shared_pools.apply(change, reactor.seconds())
        environment.policies.forget(change.removed)
        for app in change.updated:
            if app.state is not AppState.RUNNING and (pool := shared_pools.get(app.name)) is not None:
                # Nothing is asked for a while, and perhaps somebody else when it goes on.
                for member in pool.members:
                    connections.close_idle(member)

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
    pools.watch(environment.drains.member_changed)
    if wall_clock is not None:
        environment.wall_clock = wall_clock
    return environment


class HTTPProxyFactory(DrainingFactory):
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

    protocol_name = "http/1.1"

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
        super().__init__(env, listener)
        networks = Networks(trusted_proxies)
        self._is_trusted: Callable[[str], bool] | None = networks.__contains__ if networks else None
        self._public_port = public_port
        #: Clients come again, and nothing of it is of one connection alone (1.0 µs less for each).
        self._identity_of = lru_cache(maxsize=4096)(self._make_identity)
        self.notes_agents = note_agents

    def buildProtocol(self, addr: IAddress | None) -> HTTPFrontend | None:
        return HTTPFrontend(self) if self.has_room(addr) else None  # None: Twisted closes the connection

    def trusts(self, address: str) -> bool:
        return self._is_trusted is not None and self._is_trusted(address)

    # -- called by the frontends ---------------------------------------------

    def identify(self, transport: Any, *, is_tls: bool = False) -> ClientIdentity:
        """Who is at the other end of *transport*.

        :param is_tls: whether the client speaks TLS, although the transport does not.
        """
        if not is_tls and (not isinstance(transport, Eager) or transport.TLS):
            is_tls = ISSLTransport.providedBy(transport)
        # A transport of ours knows its port; on all addresses of a machine, it is asked for the rest (2 µs).
        port = self._public_port or getattr(transport, "local_port", 0)
        return self._identity_of(
            getattr(transport.getPeer(), "host", None),
            port or getattr(transport.getHost(), "port", 0),
            "https" if is_tls else "http",
        )

    def _make_identity(self, host: str | None, port: int, scheme: str) -> ClientIdentity:
        return ClientIdentity(plain_address(host) if host else "unix:", scheme, port, self._is_trusted)

    def note_fields(self, record: Record, head: RequestHead) -> None:
        """Keep what only some request logs want, if this one does."""
        if not self.notes_agents:
            return
        for name, value in head.fields:
            lower = name.lower()
            if lower == b"user-agent":
                record.user_agent = value.decode("latin-1")
            elif lower == b"referer":
                record.referer = value.decode("latin-1")
