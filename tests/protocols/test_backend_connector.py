"""One attempt to connect: it is told of once, in time, and not at all after it was abandoned."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import error
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Backend
from scalingo_proxy.protocols.backend_connector import BackendConnector
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.network import MemoryNetwork


class Connected(Protocol):
    """Notes that it was connected."""

    is_connected = False
    is_lost = False

    def connectionMade(self) -> None:
        self.is_connected = True

    def connectionLost(self, reason: object = None) -> None:
        self.is_lost = True


class BackendConnectorTests(SynchronousTestCase):
    """Addresses and host names, each with every way to fail."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.backend = ScriptedBackend("backend").listen(self.network)
        self.v6 = ScriptedBackend("v6").listen(self.network, "::1")
        self.failures: list[Failure] = []
        self.network.nameResolver.names.update({"backend.test": "127.0.0.1", "v6.test": "::1"})

    def begin(self, address: str, timeout: float = 5.0) -> tuple[Connected, Callable[[], None]]:
        """Begin one attempt."""
        protocol = Connected()
        connect = BackendConnector(self.network)
        return protocol, connect(Backend.parse(address), protocol, timeout, self.failures.append)

    def port_of(self, backend: ScriptedBackend) -> str:
        """The port *backend* listens on."""
        return backend.address.rpartition(":")[2]

    def addresses(self) -> tuple[str, ...]:
        """The same backends, told in each way."""
        port = self.port_of(self.backend)
        return self.backend.address, self.v6.address, f"backend.test:{port}", f"localhost:{port}"

    def test_connects(self) -> None:
        """IPv4 and IPv6 addresses and names all connect; abandoning afterwards does nothing."""
        for address in (*self.addresses(), f"v6.test:{self.port_of(self.v6)}"):
            protocol, abandon = self.begin(address)
            self.assertFalse(protocol.is_connected, address)
            self.network.advance(1)
            self.assertTrue(protocol.is_connected, address)
            abandon()
            self.network.advance(10)
            self.assertFalse(protocol.is_lost, address)
            self.assertEqual(self.failures, [])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """A refusal is told once."""
        self.backend.stop_listening()
        self.v6.stop_listening()
        self.network.settle()
        for address in self.addresses():
            del self.failures[:]
            protocol, abandon = self.begin(address)
            self.network.advance(1)
            self.assertEqual([f.type for f in self.failures], [error.ConnectionRefusedError], address)
            abandon()
            self.network.advance(10)
            self.assertEqual(len(self.failures), 1)
            self.assertFalse(protocol.is_connected)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_black_hole(self) -> None:
        """Silence is told after the timeout, and a late answer changes nothing."""
        for address in self.addresses():
            del self.failures[:]
            self.network.black_hole(self.backend.address)
            self.network.black_hole(self.v6.address)
            protocol, _ = self.begin(address, timeout=3.0)
            self.network.advance(2.9)
            self.assertEqual(self.failures, [], address)
            self.network.advance(0.2)
            self.assertEqual(len(self.failures), 1, address)
            self.network.restore(self.backend.address)
            self.network.advance(30)
            self.assertFalse(protocol.is_connected)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_name_without_an_address(self) -> None:
        """A name that nobody knows, or that cannot be one, is a failure."""
        for name in ("nowhere.test:80", "a..b:80", "x" * 300 + ":80"):
            del self.failures[:]
            self.begin(name)
            self.network.advance(1)
            self.assertEqual(len(self.failures), 1, name)

    def test_silent_name_server(self) -> None:
        """The time a name takes counts."""
        self.network.nameResolver.delay = None
        self.begin("backend.test:80", timeout=3.0)
        self.network.advance(2.9)
        self.assertEqual(self.failures, [])
        self.network.advance(0.2)
        self.assertEqual(len(self.failures), 1)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_slow_name_server_and_slow_backend(self) -> None:
        """Both together have one timeout."""
        self.network.nameResolver.delay = 2.0
        self.network.black_hole(self.backend.address)
        self.begin(f"backend.test:{self.port_of(self.backend)}", timeout=3.0)
        self.network.advance(3.1)
        self.assertEqual(len(self.failures), 1)

    def test_abandoned(self) -> None:
        """After abandoning nobody is told of anything, whatever the attempt would have met."""
        for meets in ("nothing", "silence", "refusal"):
            for address in self.addresses():
                if meets == "silence":
                    self.network.black_hole(self.backend.address)
                elif meets == "refusal":
                    self.network.refuse(self.backend.address)
                protocol, abandon = self.begin(address)
                abandon()
                abandon()
                self.network.advance(10)
                self.assertFalse(protocol.is_connected, (meets, address))
                self.network.restore(self.backend.address)
        self.assertEqual(self.failures, [])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_abandoned_while_the_name_is_resolved(self) -> None:
        """An answer of the name server that comes then is nobody's."""
        self.network.nameResolver.delay = 2.0
        protocol, abandon = self.begin(f"backend.test:{self.port_of(self.backend)}")
        self.network.advance(1)
        abandon()
        self.network.advance(10)
        self.assertFalse(protocol.is_connected)
        self.assertEqual(self.failures, [])
        self.assertEqual(self.backend.connections, [])
