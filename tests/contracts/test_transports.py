"""Transports in memory keep the same contract as TCP on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.transport_contract import TransportContract
from scalingo_proxy.testing.transport_recorders import Recorder
from scalingo_proxy.transports.eager import EagerClient, EagerServer, eager
from scalingo_proxy.transports.turns import shorten_turns


async def connect(reactor: Any, server: Recorder, client: Recorder, host: str) -> Any:
    """Connect two protocols over *reactor*; gives the listening port."""
    from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol

    factory = Factory()
    factory.protocol = lambda: server  # type: ignore[assignment]
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface=host)
    endpoint = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
    await connectProtocol(endpoint(reactor, host, port.getHost().port), client)
    return port


class LoopbackTCP(TransportContract, TestCase):
    """Real sockets through the reactor that runs the tests: the truth."""

    host = "127.0.0.1"
    near_listens = True

    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    async def connect(self, near: Recorder, far: Recorder) -> None:
        server, client = (near, far) if self.near_listens else (far, near)
        port = await connect(self.reactor(), server, client, self.host)
        self.addCleanup(port.stopListening)
        self.addCleanup(self._abort, near, far)
        await self.until(lambda: near.transport and far.transport)

    async def _abort(self, *ends: Recorder) -> None:
        for end in ends:
            if end.reason is None:
                end.transport.abortConnection()
        await self.until(lambda: all(end.reason for end in ends))

    async def until(self, condition: Callable[[], Any]) -> None:
        from twisted.internet import reactor

        while not condition():
            await deferLater(reactor, 0)

    async def rest(self) -> None:
        from twisted.internet import reactor

        # The loopback interface delivers inside the sending call, so what
        # is going to happen needs turns of the reactor, not time.
        for _ in range(50):
            await deferLater(reactor, 0)


class LoopbackTCPClient(LoopbackTCP):
    """The end under test is the connecting one."""

    near_listens = False


class Memory(TransportContract, TestCase):
    """The network in memory, as plain as it gets."""

    host = "127.0.0.1"
    near_listens = True
    settings: dict[str, Any] = {}  # noqa: RUF012
    more_than_fits = bytes(range(256)) * 2048

    def setUp(self) -> None:
        self.network = MemoryNetwork(Clock(), Random(self.id()), **self.settings)

    async def connect(self, near: Recorder, far: Recorder) -> None:
        server, client = (near, far) if self.near_listens else (far, near)
        connected = Deferred.fromCoroutine(connect(self.network, server, client, self.host))
        self.network.run_until(connected)
        self.network.run_until(lambda: near.transport and far.transport)

    async def until(self, condition: Callable[[], Any]) -> None:
        self.network.run_until(condition)

    async def rest(self) -> None:
        self.network.settle()


class MemoryClient(Memory):
    """The end under test is the connecting one, over IPv6."""

    near_listens = False
    host = "::1"


class MemoryWithLatency(Memory):
    """Segments take their time."""

    settings = {"latency": 0.005}  # noqa: RUF012


class MemoryCut(Memory):
    """Reads and writes move random parts, and who is served first is random."""

    settings = {"cut": True, "shuffle": True, "latency": 0.001}  # noqa: RUF012


class MemoryTinyBuffers(Memory):
    """Kernel buffers of one kilobyte."""

    settings = {"buffer_bytes": 1024}  # noqa: RUF012
    more_than_fits = bytes(range(256)) * 512


class EagerTCP(LoopbackTCP):
    """Real sockets whose transports write at once: nobody can tell the difference."""

    def reactor(self) -> Any:
        from twisted.internet import reactor

        return eager(reactor)

    async def connect(self, near: Recorder, far: Recorder) -> None:
        await super().connect(near, far)
        self.assertIsInstance(near.transport, EagerServer if self.near_listens else EagerClient)


class ShortTurns(EagerTCP):
    """The reactor calls them without the detour over its log."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.addCleanup(shorten_turns(reactor))


class EagerTCPClient(EagerTCP):
    """The end under test is the connecting one, over IPv6."""

    near_listens = False
    host = "::1"
