"""PROXY headers towards the backends of HTTP apps that want them."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import join_host_port
from scalingo_proxy.protocols.backend_connections import MAX_IDLE_PER_BACKEND
from scalingo_proxy.protocols.sent_proxy_header import proxy_header_bytes
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.transport_recorders import Recorder
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.proxy_header import ProxyHeader, ProxyHeaderReader
from tests.protocols.worlds import WorldTestCase, get

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class BytesTests(SynchronousTestCase):
    """The header as bytes."""

    def read(self, data: bytes) -> ProxyHeader:
        header = ProxyHeaderReader().receive(data)
        assert header is not None
        return header

    def test_addresses(self) -> None:
        """Both versions tell both addresses."""
        peer, host = IPv4Address("TCP", "192.0.2.1", 5000), IPv4Address("TCP", "192.0.2.2", 443)
        for version in ("v1", "v2"):
            header = self.read(proxy_header_bytes(version, peer, host))
            self.assertEqual(header, ProxyHeader("192.0.2.1", 5000, "192.0.2.2", 443))

    def test_ipv6(self) -> None:
        """IPv6 as well, and IPv4 mapped into it is IPv4."""
        peer, host = IPv6Address("TCP", "2001:db8::1", 5000), IPv6Address("TCP", "2001:db8::2", 443)
        for version in ("v1", "v2"):
            header = self.read(proxy_header_bytes(version, peer, host))
            self.assertEqual((header.source, header.destination), ("2001:db8::1", "2001:db8::2"))
        mapped = IPv6Address("TCP", "::ffff:192.0.2.1", 5000), IPv6Address("TCP", "::ffff:192.0.2.2", 443)
        self.assertEqual(proxy_header_bytes("v1", *mapped), b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n")

    def test_told_client(self) -> None:
        """A client that a trusted proxy told of has no port that anybody knows."""
        peer, host = IPv4Address("TCP", "10.0.0.1", 5000), IPv4Address("TCP", "192.0.2.2", 443)
        header = self.read(proxy_header_bytes("v2", peer, host, client="203.0.113.7"))
        self.assertEqual((header.source, header.source_port), ("203.0.113.7", 0))
        header = self.read(proxy_header_bytes("v2", peer, host, client="10.0.0.1"))
        self.assertEqual((header.source, header.source_port), ("10.0.0.1", 5000))

    def test_unix(self) -> None:
        """Where there are no addresses, the header says so."""
        peer, host = UNIXAddress(None), UNIXAddress(b"/run/proxy.sock")
        self.assertEqual(proxy_header_bytes("v1", peer, host, client="unix:"), b"PROXY UNKNOWN\r\n")
        self.assertEqual(self.read(proxy_header_bytes("v2", peer, host, client="unix:")).source, "")


class PrefacedServer(ServerFactory):
    """A backend that wants a PROXY header first, and answers whatever follows.

    :ivar headers: the header of each connection.
    :ivar requests: how many requests came over each.
    """

    noisy = False

    def __init__(self, world: World) -> None:
        self.headers: list[ProxyHeader] = []
        self.requests: list[int] = []
        self.connections: list[Recorder] = []
        self._port = world.network.listenTCP(0, self, interface="127.0.0.1")
        self.address = join_host_port("127.0.0.1", self._port.getHost().port)

    def buildProtocol(self, addr: IAddress | None) -> Recorder:
        connection, number, reader = Recorder(), len(self.connections), ProxyHeaderReader()
        self.connections.append(connection)
        self.requests.append(0)

        def on_data(data: bytes) -> None:
            if len(self.headers) <= number:
                header = reader.receive(data)
                assert header is not None
                self.headers.append(header)
                data = reader.excess
            for _ in range(data.count(b"\r\n\r\n")):
                self.requests[number] += 1
                connection.transport.write(ANSWER)

        connection.on_data = on_data
        return connection

    def end(self) -> None:
        self._port.stopListening()
        for connection in self.connections:
            if connection.reason is None:
                connection.transport.loseConnection()


class SentHeaderTests(WorldTestCase):
    """Whose connection is whose."""

    def serve(self, world: World, send_proxy: str = "v2") -> PrefacedServer:
        server = PrefacedServer(world)
        world.app("hello", ["hello.test"], backends=[server], send_proxy=send_proxy)  # type: ignore[list-item]
        self.addCleanup(server.end)
        return server

    def ask(self, world: World, client: ScriptedClient, *lines: bytes) -> None:
        """Ask, and see an answer."""
        before = len(client.responses)
        client.send(get(b"/", b"hello.test", *lines))
        world.settle()
        self.assertEqual(client.statuses[before:], [200])

    def test_client_is_told(self) -> None:
        """The header names the client, its port, and where it connected."""
        for version in ("v1", "v2"):
            world = self.world()
            server = self.serve(world, version)
            client = world.client("127.0.0.7")
            self.ask(world, client)
            (header,) = server.headers
            here, there = client.transport.getHost(), client.transport.getPeer()
            self.assertEqual((header.source, header.source_port), ("127.0.0.7", here.port))
            self.assertEqual((header.destination, header.destination_port), (there.host, there.port))

    def test_same_client_same_connection(self) -> None:
        """Further requests of one client's connection go over its own backend connection."""
        world = self.world()
        server = self.serve(world)
        client = world.client()
        for _ in range(3):
            self.ask(world, client)
        self.assertEqual(server.requests, [3])

    def test_never_shared(self) -> None:
        """No other client's request goes over it, not even one from the same address."""
        world = self.world()
        server = self.serve(world)
        first, second = world.client("127.0.0.7"), world.client("127.0.0.7")
        for _ in range(2):
            self.ask(world, first)
            self.ask(world, second)
        self.assertEqual(server.requests, [2, 2])
        ports = [client.transport.getHost().port for client in (first, second)]
        self.assertEqual([header.source_port for header in server.headers], ports)

    def test_told_clients_are_apart(self) -> None:
        """Nor do clients share one that a trusted proxy brings over one connection."""
        world = self.world(trusted_proxies=["127.0.0.0/8"])
        server = self.serve(world)
        proxy = world.client()
        for address in (b"203.0.113.1", b"203.0.113.2", b"203.0.113.1"):
            self.ask(world, proxy, b"X-Forwarded-For: " + address)
        self.assertEqual([header.source for header in server.headers], ["203.0.113.1", "203.0.113.2"])
        self.assertEqual(server.requests, [2, 1])

    def test_setting_that_changes(self) -> None:
        """Connections from before the app wanted headers are not used by those who must send one."""
        world = self.world()
        server = self.serve(world, "v1")
        client = world.client()
        self.ask(world, client)
        world.change("hello", send_proxy="v2")
        self.ask(world, client)
        self.assertEqual(server.requests, [1, 1])

    def test_those_of_clients_long_gone_make_room(self) -> None:
        """Connections that no client comes back for do not keep others from being kept."""
        world = self.world()
        server = self.serve(world)
        for _ in range(MAX_IDLE_PER_BACKEND + 5):
            client = world.client()
            self.ask(world, client)
            client.close()
        last = world.client()
        for _ in range(2):
            self.ask(world, last)
        self.assertEqual(server.requests[-1], 2)
        open_connections = [one for one in server.connections if one.reason is None]
        self.assertEqual(len(open_connections), MAX_IDLE_PER_BACKEND)
