"""Behind the TLS wrapper that Twisted's endpoints use: no half-close, and closing is a dialogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from scalingo_proxy.model import Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.world import World
from tests.authorities import Authority
from tests.protocols.test_upgrades import SWITCH, websocket
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, hello, post

WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"seed": 1, "cut": True, "shuffle": True},
    {"seed": 2, "latency": 0.02, "buffer_bytes": 4096},
)


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class Creator:
    """Makes connections from one context, for either side."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)

    clientConnectionForTLS = serverConnectionForTLS


def server_creator() -> Creator:
    """A server with a certificate that nobody verifies."""
    certificate, key = Authority().issue(["hello.test"])
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(crypto.load_certificate(crypto.FILETYPE_PEM, certificate.encode()))
    context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, key.encode()))
    return Creator(context)


class TLSCase(WorldTestCase):
    """Worlds whose proxy has a second door, behind TLS."""

    server = server_creator()

    def door(self, world: World) -> Callable[[], ScriptedClient]:
        """Open it; gives what connects a client to it."""
        wrapped = TLSMemoryBIOFactory(self.server, False, world.factory, world.clock)
        port = world.network.listenTCP(8443, wrapped, interface="127.0.0.1")
        end = world.end

        def end_both(*args: Any) -> None:
            for client in world.clients:
                if not client.is_over:
                    client.abort()
            world.settle()
            world.run_until(port.stopListening())
            end(*args)

        world.end = end_both  # type: ignore[method-assign]

        def connect() -> ScriptedClient:
            client = ScriptedClient(world.network)
            creator = Creator(SSL.Context(SSL.TLS_METHOD))
            factory = TLSMemoryBIOFactory(creator, True, _Only(client), world.clock)
            world.network.connectTCP("127.0.0.1", 8443, factory)
            world.clients.append(client)
            world.settle()  # the handshake
            return client

        return connect


class _Only(ClientFactory[Protocol]):
    noisy = False

    def __init__(self, client: ScriptedClient) -> None:
        self.client = client

    def buildProtocol(self, addr: object) -> ScriptedClient:
        return self.client


class TLSWrappedTests(TLSCase):
    """The same promises, as far as TLS has the words."""

    @each_world(*WAYS)
    def test_requests(self, world: World) -> None:
        """Requests are served in a row, and the backend learns of https."""
        connect = self.door(world)
        app = hello(world, replies.echo())
        client = connect().send(post(b"one") + post(b"two" * 10_000) + post(b"three"))
        world.run_until(lambda: len(client.responses) == 3)
        self.assertEqual([len(response.body) for response in client.responses], [3, 30_000, 5])
        self.assertEqual(app.backend.requests[0].get(b"X-Forwarded-Proto"), b"https")
        self.assertEqual(app.backend.requests[0].get(b"X-Forwarded-Port"), b"8443")

    @each_world(*WAYS)
    def test_leaving(self, world: World) -> None:
        """A client that leaves, by a close alert or a reset, cancels its request."""
        connect = self.door(world)
        app = hello(world, replies.never())
        for leave in (ScriptedClient.close, ScriptedClient.abort):
            client = connect().send(get())
            world.advance(0.5)
            leave(client)
            world.advance(0.5)
            self.assertEqual(world.records[-1].code, "client-closed")
            self.assertEqual(app.backend.open_connections, [])
            self.assertEqual(world.factory.open_connections, 0)

    @each_world(*WAYS)
    def test_early_answer(self, world: World) -> None:
        """An answer in the middle of an upload arrives, and the connection ends soon."""
        connect = self.door(world)
        hello(world, replies.early(replies.fixed(b"too much", status=413)))
        client = connect().send(post(b"x" * 100_000)[:-10])
        world.advance(5)
        self.assertEqual(client.statuses, [413])
        self.assertEqual(client.responses[0].body, b"too much")
        self.assertTrue(client.is_over)
        self.assertEqual(world.factory.open_connections, 0)

    @each_world(*WAYS, timeouts=Timeouts(idle=20.0))
    def test_close_alert_is_not_answered(self, world: World) -> None:
        """A client that does not answer the close alert, nor reads it, is cut after ``idle``."""
        connect = self.door(world)
        hello(world)
        for request in (get(b"/", b"hello.test", b"Connection: close"), b"nonsense\r\n\r\n"):
            client = connect()
            client.send(request)
            client.transport.transport.pauseProducing()
            world.advance(1)
            self.assertEqual(world.factory.open_connections, 1)
            world.advance(20.5)
            self.assertEqual(world.factory.open_connections, 0)
            client.abort()

    @each_world(*WAYS)
    def test_slow_reader(self, world: World) -> None:
        """What a slow client does not take is not buffered; then it gets everything."""
        connect = self.door(world)
        app = hello(world, replies.bulk(1_500_000))
        client = connect()
        client.transport.transport.pauseProducing()
        client.send(get())
        world.advance(10)
        (backend,) = app.backend.connections
        self.assertFalse(backend.is_over)
        self.assertGreater(world.observer.records == [], 0)
        client.transport.transport.resumeProducing()
        world.run_until(lambda: client.responses)
        self.assertEqual(len(client.response.body), 1_500_000)

    @each_world(*WAYS)
    def test_pipelined_answers_nobody_takes(self, world: World) -> None:
        """Answers are not heaped up behind TLS either."""
        connect = self.door(world)
        app = hello(world, replies.fixed(b"x" * 10_000))
        client = connect()
        client.transport.transport.pauseProducing()
        client.send(get() * 200)
        world.advance(5)
        self.assertLess(app.requests, 60)
        client.transport.transport.resumeProducing()
        world.run_until(lambda: len(client.responses) == 200)

    @each_world(*WAYS)
    def test_tunnel(self, world: World) -> None:
        """A tunnel carries both directions; the backend's end closes it, after all it said."""
        connect = self.door(world)
        app = hello(world, replies.upgrade_echo())
        client = connect().send(websocket())
        world.run_until(lambda: client.statuses == [101])
        data = bytes(range(256)) * 800
        client.send(data)
        world.run_until(lambda: len(client.tunnelled) == len(data))
        self.assertEqual(client.tunnelled, data)
        app.backend.connections[0].transport.write(b"bye")
        app.backend.connections[0].transport.loseWriteConnection()
        world.advance(2)
        self.assertTrue(client.tunnelled.endswith(b"bye"))
        self.assertTrue(client.is_over)
        self.assertTrue(app.backend.connections[0].is_over)
        self.assertEqual(world.observer.codes, ["-"])

    @each_world(*WAYS)
    def test_client_ends_a_tunnel(self, world: World) -> None:
        """The client's end takes the backend along, after all it said."""
        connect = self.door(world)

        def listen(exchange: replies.IncomingExchange) -> None:
            exchange.tunnel(lambda data: None)
            exchange.write(SWITCH)

        app = hello(world, replies.reply_with(listen))
        client = connect().send(websocket())
        world.run_until(lambda: client.statuses == [101])
        client.send(b"last words" * 1000)
        client.close()
        world.advance(2)
        self.assertEqual(app.backend.connections[0].tunnelled, b"last words" * 1000)
        self.assertTrue(app.backend.connections[0].is_over)
        self.assertEqual(world.factory.open_connections, 0)

    @each_world(*WAYS)
    def test_broken_response(self, world: World) -> None:
        """A response that broke off is not whole, for HTTP/1.1 and for HTTP/1.0."""
        connect = self.door(world)
        hello(world, replies.reset_after(300, replies.chunked([b"x" * 1000])))
        for request in (get(), b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n"):
            client = connect().send(request)
            world.advance(2)
            self.assertEqual(client.responses, [])
            self.assertFalse(client.received.endswith(b"0\r\n\r\n"))
            self.assertEqual(world.factory.open_connections, 0)

    @each_world(*WAYS)
    def test_drain(self, world: World) -> None:
        """Idle clients are closed, requests under way finish, the rest hears 503."""
        connect = self.door(world)
        app = hello(world, replies.never())
        app.backend.script(replies.fixed(b"x"), replies.delayed(3.0, replies.fixed(b"done")))
        idle = connect().send(get())
        world.advance(0.5)
        finishing = connect().send(get())
        world.advance(0.5)
        waiting = connect().send(get())
        world.advance(0.5)
        done: list[object] = []
        world.factory.drain(5).addCallback(done.append)
        world.advance(1)
        self.assertTrue(idle.is_over)
        world.advance(7)
        self.assertEqual(len(done), 1)
        self.assertEqual(finishing.response.body, b"done")
        self.assertEqual(code_of(waiting), "drain-timeout")

    @each_world(*WAYS, timeouts=Timeouts(request_head=10.0))
    def test_no_handshake(self, world: World) -> None:
        """A client that connects and says nothing, or no TLS, is closed like any other."""
        self.door(world)
        for words in (b"", b"GET / HTTP/1.1\r\n\r\n"):
            client = ScriptedClient(world.network)
            world.network.connectTCP("127.0.0.1", 8443, _Only(client))
            client.send(words)
            world.advance(11)
            self.assertTrue(client.is_over)
            self.assertEqual(world.factory.open_connections, 0)
        self.assertEqual(world.records, [])
