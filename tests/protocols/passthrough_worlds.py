"""Worlds whose proxy passes TLS through: clients send hellos, backends are whatever a test makes them."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from scalingo_proxy.model import join_host_port
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.tls_alert import Alert, alert_record
from tests.protocols.worlds import WorldTestCase
from tests.wire import hello_builder

__all__ = ["PassthroughTestCase", "RawServer", "alert_of", "hello"]


def hello(name: bytes = b"hello.test", *protocols: bytes) -> bytes:
    """A hello that asks for *name*."""
    offered = [hello_builder.alpn(*protocols)] if protocols else []
    message = hello_builder.message(hello_builder.server_name(name), *offered)
    return hello_builder.record(message)


def alert_of(client: ScriptedClient) -> str:
    """The one alert that a client got and nothing else, by its name."""
    for alert in Alert:
        if client.received == alert_record(alert):
            return alert.text
    return f"no alert but {client.received!r}"


class RawConnection(HalfCloseRecorder):
    """One connection at a raw backend; closes when its client has closed, as servers do.

    :ivar closes_at_end: whether it does.
    """

    closes_at_end = True

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        if self.closes_at_end:
            self.transport.loseConnection()


class RawServer(ServerFactory):
    """A backend that does what its test says, byte by byte.

    :ivar connections: what came, in order.
    :ivar greeting: sent as soon as anything came.
    """

    noisy = False

    def __init__(self, network: Any, greeting: bytes = b"") -> None:
        self.connections: list[RawConnection] = []
        self.greeting = greeting
        self._network = network
        self._port = network.listenTCP(0, self, interface="127.0.0.1")
        host = self._port.getHost()
        self._host_port = host.host, host.port
        self.address = join_host_port(*self._host_port)

    def buildProtocol(self, addr: IAddress | None) -> RawConnection:
        connection = RawConnection()
        if self.greeting:
            connection.on_data = lambda data: (
                connection.transport.write(self.greeting) if len(connection.sizes) == 1 else None
            )
        self.connections.append(connection)
        return connection

    @property
    def connection(self) -> RawConnection:
        """The only connection."""
        assert len(self.connections) == 1, f"{len(self.connections)} connections"
        return self.connections[0]

    def stop(self) -> None:
        """Refuse whoever comes from now on."""
        if self._port is not None:
            self._port.stopListening()
            self._port = None

    def end(self) -> None:
        """Stop, and close what is open."""
        self.stop()
        for connection in self.connections:
            if connection.reason is None:
                connection.transport.loseConnection()


def build_passthrough(world: World, **options: Any) -> Any:
    from scalingo_proxy.protocols.tls_passthrough_factory import TLSPassthroughFactory

    given: dict[str, Any] = {
        "pools": world.pools,
        "observer": world.observer,
        "timeouts": world.timeouts,
        "limits": world.limits,
        "request_ids": world.make_request_id,
        "wall_clock": world.wall_clock,
    }
    return TLSPassthroughFactory(world.resolver, world.network, **(given | options))


class PassthroughTestCase(WorldTestCase):
    """A test case whose worlds pass TLS through."""

    def world(self, seed: int = 0, **options: Any) -> World:
        return super().world(seed, build=build_passthrough, **options)

    def serve(self, world: World, servers: int = 1, greeting: bytes = b"", **fields: Any) -> list[RawServer]:
        """The app ``hello`` in passthrough, with so many backends."""
        serving = [RawServer(world.network, greeting) for _ in range(servers)]
        world.app("hello", ["hello.test"], backends=serving, tls="passthrough", **fields)
        for server in serving:
            self.addCleanup(server.end)
        return serving
