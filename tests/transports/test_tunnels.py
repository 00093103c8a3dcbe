"""Tunnels carry the same, whether through this process or past it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SkipTest, TestCase

from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.transports.eager import eager
from scalingo_proxy.transports.pipes import Pipes
from tests.transports.tunnel_suite import Peer, Tunnel, TunnelSuite
from tests.transports.tunnels import End


async def open_tunnel(reactor: Any, pipes: Pipes | None, clean_up: Callable[..., Any]) -> Tunnel:
    """Connect four ends over *reactor* and join the two in the middle."""
    tunnel = Tunnel(Peer(), Peer())
    ends: list[End] = []

    def listen(build: Callable[[], Any]) -> Any:
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: build()  # type: ignore[assignment]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        clean_up(port.stopListening)
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)

    client_side = listen(lambda: End(ends.append))
    backend_side = listen(lambda: tunnel.backend)
    connecting = [
        connectProtocol(client_side, tunnel.client),
        connectProtocol(backend_side, End(lambda end: ends.insert(0, end))),
    ]
    for one in connecting:
        await one
    if isinstance(reactor, MemoryNetwork):
        while len(ends) < 2 or tunnel.backend.transport is None:
            await deferLater(reactor, 0.001)
    else:
        while len(ends) < 2 or tunnel.backend.transport is None:
            await deferLater(reactor, 0)
    backend, client = ends if ends[0].transport.getPeer().port == backend_side._port else ends[::-1]
    tunnel.join(client, backend, pipes)
    return tunnel


class Loopback(TunnelSuite, TestCase):
    """Real sockets, the ordinary way."""

    timeout = 60

    def make_pipes(self) -> Pipes | None:
        return None

    def setUp(self) -> None:
        self.pipes = self.make_pipes()
        if self.pipes is not None:
            self.addCleanup(self._close_pipes, self.pipes)

    def _close_pipes(self, pipes: Pipes) -> None:
        pipes.close()
        self.assertEqual((pipes.given_count, pipes.kept_count), (0, 0))

    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    async def open(self) -> Tunnel:
        tunnel = await open_tunnel(self.reactor(), self.pipes, self.addCleanup)
        self.addCleanup(self._abort, tunnel)
        return tunnel

    async def _abort(self, tunnel: Tunnel) -> None:
        for protocol in (tunnel.client, tunnel.backend, *tunnel.ends):
            protocol.transport.abortConnection()
        await self.until(lambda: tunnel.ended and tunnel.client.reason and tunnel.backend.reason)

    async def until(self, condition: Callable[[], Any]) -> None:
        from twisted.internet import reactor

        while not condition():
            await deferLater(reactor, 0)  # type: ignore[arg-type]

    async def rest(self) -> None:
        from twisted.internet import reactor

        for _ in range(40):
            await deferLater(reactor, 0)  # type: ignore[arg-type]


class LoopbackSpliced(Loopback):
    """Real sockets, past this process."""

    def make_pipes(self) -> Pipes | None:
        pipes = Pipes()
        if not pipes.are_of_use:
            raise SkipTest("this platform cannot splice")
        return pipes


class LoopbackSplicedAtTimes(LoopbackSpliced):
    """Pipes are to be had at random, so that both ways take turns in the middle of everything."""

    def make_pipes(self) -> Pipes | None:
        pipes = super().make_pipes()
        assert pipes is not None
        random, take = Random(self.id()), pipes.take
        self.patch(pipes, "take", lambda: take() if random.random() < 0.5 else None)
        return pipes


class LoopbackEager(Loopback):
    """Real sockets that are written to at once."""

    def reactor(self) -> Any:
        return eager(super().reactor())


class LoopbackEagerSpliced(LoopbackEager, LoopbackSplicedAtTimes):
    """The same, partly past this process."""


class Memory(TunnelSuite, TestCase):
    """The network in memory: nothing there can be spliced, although there are pipes."""

    settings: dict[str, Any] = {}  # noqa: RUF012
    more_than_fits = bytes(range(256)) * 2048

    def setUp(self) -> None:
        self.network = MemoryNetwork(Clock(), Random(self.id()), **self.settings)
        self.pipes = Pipes()

    async def open(self) -> Tunnel:
        opening = Deferred.fromCoroutine(open_tunnel(self.network, self.pipes, lambda stop: None))
        return self.network.run_until(opening)

    async def until(self, condition: Callable[[], Any]) -> None:
        self.network.run_until(condition)

    async def rest(self) -> None:
        self.network.settle()


class MemoryCut(Memory):
    """Random parts, in random order, that take their time."""

    settings = {"cut": True, "shuffle": True, "latency": 0.001}  # noqa: RUF012
