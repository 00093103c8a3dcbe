r"""A whole proxy between scripted clients and backends, on one clock.

>>> world = World(seed=7)                                      # doctest: +SKIP
>>> hello = world.app("hello", ["hello.test"], backends=2)
>>> world.request(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n").status
200
>>> world.end()

There are no sockets and no real time: the same seed gives the same run, event
by event, as long as nothing under test goes by the order of a set of objects
(which is the order of their addresses in memory).  This module puts together
what the others of this package provide and refuses to know how any of it
works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, TypeVar
from uuid import UUID

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from scalingo_proxy.model import (
    App,
    Health,
    Limits,
    Quarantine,
    Record,
    Timeouts,
    join_host_port,
    split_host_port,
)
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient, connect_client
from scalingo_proxy.testing.fault_plan import Series
from scalingo_proxy.testing.faults import Fault, Outage
from scalingo_proxy.testing.messages import Response
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.observers import RecordingObserver

__all__ = ["World", "WorldApp", "build_http_factory"]

T = TypeVar("T")

#: Where the proxy of a world listens.
PROXY_ADDRESS = ("127.0.0.1", 8080)

_NEW_YEAR = 1767225600.0


@attrs.frozen
class WorldApp:
    """An app of a world and who serves it.

    :ivar name: the name of the app.
    :ivar backends: its scripted backends, in the app's order.
    """

    name: str
    backends: tuple[ScriptedBackend, ...]

    @property
    def backend(self) -> ScriptedBackend:
        """The only backend."""
        (backend,) = self.backends
        return backend

    @property
    def requests(self) -> int:
        """How many requests its backends saw."""
        return sum(len(backend.requests) for backend in self.backends)


def build_http_factory(world: World, **options: Any) -> Any:
    """Make the :class:`~scalingo_proxy.protocols.factories.HTTPProxyFactory` of *world*."""
    from scalingo_proxy.protocols.factories import HTTPProxyFactory

    given: dict[str, Any] = {
        "pools": world.pools,
        "observer": world.observer,
        "timeouts": world.timeouts,
        "limits": world.limits,
        "request_ids": world.make_request_id,
        "wall_clock": world.wall_clock,
    }
    return HTTPProxyFactory(world.resolver, world.network, **(given | options))


class World:
    """Clock, network, backends, clients and a proxy, all from one seed.

    :ivar clock: the clock of everything.
    :ivar network: what stands where the reactor stands.
    :ivar resolver: a MemoryResolver; changes of it reach the pools.
    :ivar pools: the pools that the proxy leases from.
    :ivar observer: keeps the record of each exchange.
    :ivar factory: the proxy's factory, listening at :attr:`address`.
    :ivar clients: every client made by the world.

    :param seed: decides every random choice.
    :param latency: seconds that a segment is under way.
    :param cut: whether reads and writes move random parts of what they could.
    :param shuffle: whether connections that are ready together are served in
        random order.
    :param buffer_bytes: the size of each kernel buffer.
    :param build: makes the factory under test from the world and *options*;
        called when the world is made.
    :param resolver: instead of a MemoryResolver; :meth:`app` needs its
        ``set_app``, :meth:`change` its ``apps``.
    :param address: where the proxy listens.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        latency: float = 0.0,
        cut: bool = False,
        shuffle: bool = False,
        buffer_bytes: int = 65536,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        health: Health | None = None,
        quarantine: Quarantine | None = None,
        build: Callable[..., Any] = build_http_factory,
        resolver: Any = None,
        address: tuple[str, int] = PROXY_ADDRESS,
        **options: Any,
    ) -> None:
        from scalingo_proxy.routing.pools import Pools

        self.random = Random(seed)
        self.clock = Clock()
        self.network = MemoryNetwork(
            self.clock, self.random, latency=latency, cut=cut, shuffle=shuffle, buffer_bytes=buffer_bytes
        )
        self.timeouts = timeouts or Timeouts()
        self.limits = limits or Limits()
        self.observer = RecordingObserver()
        self.pools = Pools(
            self.timeouts,
            self.limits,
            self.random,
            clock=self.clock.seconds,
            health=health or Health(),
            quarantine=quarantine or Quarantine(),
        )
        self.resolver: Any = resolver or MemoryResolver()
        self.clients: list[ScriptedClient] = []
        self.backends: list[ScriptedBackend] = []
        self.address = address
        self.factory = build(self, **options)
        self._port = self.network.listenTCP(self.address[1], self.factory, interface=self.address[0])

    def wall_clock(self) -> float:
        """Seconds since the epoch: the clock, begun on the first of January 2026."""
        return _NEW_YEAR + self.clock.seconds()

    def make_request_id(self) -> str:
        """A request id that the seed decides."""
        return str(UUID(int=self.random.getrandbits(128), version=4))

    # -- apps ----------------------------------------------------------------

    def app(
        self, name: str, domains: Iterable[str], backends: int | Iterable[ScriptedBackend] = 1, **fields: Any
    ) -> WorldApp:
        """Add an app with so many new backends, or with these; *fields* as of :class:`App`."""
        if isinstance(backends, int):
            backends = [self.backend(f"{name}-{number}") for number in range(1, backends + 1)]
        serving = tuple(backends)
        fields.update(domains=domains, backends=[backend.address for backend in serving])
        self.resolver.set_app(App(name, **fields))
        return WorldApp(name, serving)

    def backend(
        self,
        name: str = "backend",
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        faults: Series = (),
        outages: Iterable[Outage] = (),
    ) -> ScriptedBackend:
        """A new backend that listens and belongs to no app yet.

        :param name: what it is called, or its address as ``HOST:PORT``.
        :param faults: what its connections meet, one entry each; see
            :mod:`scalingo_proxy.testing.faults`.
        :param outages: what it suffers as a whole, and when.
        """
        if ":" in name:
            host, port = split_host_port(name)
        backend = ScriptedBackend(name).listen(self.network, host, port)
        self.backends.append(backend)
        self.network.faults.plan(backend.address, faults)
        self.network.faults.schedule(backend.address, outages)
        return backend

    def change(self, name: str, **fields: Any) -> None:
        """Change *fields* of the app called *name*, as a redeploy or an operator does."""
        if "backends" in fields:
            fields["backends"] = [getattr(item, "address", item) for item in fields["backends"]]
        apps: Mapping[str, App] = self.resolver.apps()
        self.resolver.set_app(attrs.evolve(apps[name], **fields))

    # -- clients -------------------------------------------------------------

    def client(
        self, source: str | None = None, *, closes_at_end: bool = True, fault: Fault | None = None
    ) -> ScriptedClient:
        """A client connected to the proxy, from the IP address *source*.

        :param fault: what the connection meets.
        """
        if fault is not None:
            self.network.faults.plan(join_host_port(*self.address), [fault])
        bound = (source, 0) if source else None
        client = connect_client(self.network, self.address, source=bound, closes_at_end=closes_at_end)
        self.clients.append(client)
        self.run_until(lambda: client.is_connected or client.is_over)
        return client

    def request(self, data: bytes, source: str | None = None, limit_seconds: float = 120.0) -> Response:
        """Send *data* over a connection of its own and give the first final response.

        :raises NothingLeftToHappen: when no whole response comes.
        """
        client = self.client(source).send(data)
        self.run_until(lambda: client.responses or client.is_over, limit_seconds)
        assert client.responses, f"no whole response: {client.malformed or client.received!r}"
        client.close()
        self.settle()
        return client.responses[0]

    @property
    def records(self) -> list[Record]:
        """What each finished exchange had to tell."""
        return self.observer.records

    # -- time ----------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass; every event runs at its exact time."""
        self.network.advance(seconds)

    def settle(self) -> None:
        """Run until no byte is under way and nothing is due."""
        self.network.settle()

    def run_until(self, done: Deferred[T] | Callable[[], T], limit_seconds: float = 120.0) -> T:
        """Run until *done*; see :meth:`MemoryNetwork.run_until`."""
        return self.network.run_until(done, limit_seconds)

    # -- the end -------------------------------------------------------------

    def assert_idle(self) -> None:
        """Nothing is in flight: no lease, no tunnel, no queue, and no backend got nonsense.

        :raises AssertionError: naming what is.
        """
        busy = [
            f"pool {pool.app.name}: {pool.in_flight} in flight, {pool.tunnels} tunnels, {pool.queued} queued"
            for pool in self.pools
            if pool.in_flight or pool.tunnels or pool.queued
        ]
        nonsense = [f"{backend.name} got {why}" for backend in self.backends for why in backend.malformed]
        assert not (busy or nonsense), "; ".join(busy + nonsense)

    def assert_quiet(self) -> None:
        """Nothing at all is left: no connection, no lease, nothing scheduled.

        Kept-alive connections count, so this holds only after :meth:`end`
        or its like.

        :raises AssertionError: naming what is left.
        """
        self.assert_idle()
        left = [repr(socket.descriptor) for socket in self.network.kernel.sockets]
        left += [repr(call) for call in self.network.getDelayedCalls()]
        left += [f"observer: {count} of {key} still open" for key, count in self.observer.still_open.items()]
        assert not left, "; ".join(left)

    def end(self, patience_seconds: float = 0.0) -> None:
        """Let clients leave, stop the proxy and the backends, and see that nothing is left.

        Faults end first; a connection that was cut off stays so.  A client
        that cannot leave in order resets its connection.

        :param patience_seconds: how long the proxy may take to notice.  It
            should be at once, but nothing can be noticed behind bytes that
            the proxy does not read for now.
        :raises AssertionError: naming what is left.
        """
        self.network.faults.end()
        for leave in (ScriptedClient.close, ScriptedClient.abort):
            for client in self.clients:
                if not client.is_over:
                    leave(client)
            self.settle()
        self.advance(patience_seconds)
        self.assert_idle()
        self.run_until(maybeDeferred(self._port.stopListening))
        self.run_until(maybeDeferred(self.factory.drain, 0))
        for backend in self.backends:
            backend.stop_listening()
            backend.close_connections()
        self.settle()
        for backend in self.backends:
            backend.crash()
        self.settle()
        self.assert_quiet()
