"""TLS towards backends: whom a connection is handed to, when, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from scalingo_proxy.model import App, Backend, BackendTrust, Timeouts
from scalingo_proxy.protocols import backend_trust
from scalingo_proxy.protocols.backend_connector import BackendConnector
from scalingo_proxy.protocols.backend_trust import BackendTrusts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.world import World
from tests.authorities import Authority
from tests.protocols.test_upgrades import open_tunnel
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, post

WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"seed": 1, "cut": True, "shuffle": True},
    {"seed": 2, "latency": 0.02, "buffer_bytes": 4096},
)

AUTHORITY = Authority()
CERTIFICATE = AUTHORITY.issue(["127.0.0.1", "backend.test"])


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """A server's side of TLS with one certificate."""

    def __init__(self, certificate: tuple[str, str] = CERTIFICATE) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.use_certificate(crypto.load_certificate(crypto.FILETYPE_PEM, certificate[0].encode()))
        self.context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, certificate[1].encode()))

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)


def serve(network: MemoryNetwork, factory: Any, certificate: tuple[str, str] = CERTIFICATE) -> str:
    """Let *factory* serve behind TLS; gives the address for an app."""
    clock: Any = network
    port = network.listenTCP(
        0, TLSMemoryBIOFactory(Creator(certificate), False, factory, clock), 50, "127.0.0.1"
    )
    return f"https://127.0.0.1:{port.getHost().port}"


class Silent(Protocol):
    """Says nothing; notes its end."""

    transport: Any

    def __init__(self) -> None:
        self.is_lost = False
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.is_lost = True


class Connected(Protocol):
    """Notes that it was connected and how it ended."""

    transport: Any

    def __init__(self) -> None:
        self.is_connected = False
        self.end: object = None

    def connectionMade(self) -> None:
        self.is_connected = True

    def connectionLost(self, reason: Any = None) -> None:
        self.end = reason.type


class AttemptTests(SynchronousTestCase):
    """One attempt to connect: told of once, in time, or abandoned."""

    def setUp(self) -> None:
        self.network = MemoryNetwork(latency=0.25)
        self.failures: list[Failure] = []
        self.silent: list[Silent] = []
        self.connector = BackendConnector(self.network)

    def begin(
        self, address: str, timeout: float = 5.0, trust: BackendTrust | None = None
    ) -> tuple[Connected, Callable[[], None]]:
        """Begin one."""
        app = App("app", backends=[address], backend_tls={"ca": AUTHORITY.pem})
        (backend,) = app.backends
        if trust is not None:
            backend = Backend(backend.host, backend.port, tls=True, trust=trust)
        protocol = Connected()
        return protocol, self.connector(backend, protocol, timeout, self.failures.append)

    def sentences(self) -> list[str]:
        """What was told of the failures."""
        return [str(failure.value) for failure in self.failures]

    def silent_address(self) -> str:
        """Where somebody accepts and says nothing."""

        def build(_: object) -> Silent:
            self.silent.append(Silent())
            return self.silent[-1]

        factory = Factory()
        factory.buildProtocol = build  # type: ignore[method-assign, assignment]
        port = self.network.listenTCP(0, factory, 50, "127.0.0.1")
        return f"https://127.0.0.1:{port.getHost().port}"

    def test_connects_after_the_handshake(self) -> None:
        """Not TCP but the end of the handshake makes the connection; nothing is left of the attempt."""
        address = serve(self.network, ScriptedBackend("backend").listen(self.network))
        protocol, abandon = self.begin(address)
        self.network.advance(0.75)  # TCP is there, the server's part of the handshake is not
        self.assertFalse(protocol.is_connected)
        self.network.advance(1)
        self.assertTrue(protocol.is_connected)
        abandon()
        self.network.advance(10)
        self.assertEqual((protocol.end, self.failures, self.network.getDelayedCalls()), (None, [], []))

    def test_time_is_for_all_of_it(self) -> None:
        """A slow connection leaves less for the handshake."""
        address = self.silent_address()
        self.network.set_way(address.removeprefix("https://"), delay=3.0)
        protocol, _ = self.begin(address, 5.0)
        self.network.advance(4.99)
        self.assertEqual(self.failures, [])
        self.network.advance(0.02)
        self.assertEqual(
            self.sentences(), ["connect-failed: the TLS handshake with the backend took too long"]
        )
        self.network.advance(10)
        self.assertEqual([one.is_lost for one in self.silent], [True])
        self.assertEqual((protocol.is_connected, self.network.getDelayedCalls()), (False, []))

    def test_never_accepted(self) -> None:
        """Nobody answers below TLS: told once, in time."""
        address = self.silent_address()
        self.network.black_hole(address.removeprefix("https://"))
        self.begin(address)
        self.network.advance(5)
        self.assertEqual(len(self.failures), 1)
        self.network.advance(60)
        self.assertEqual((len(self.failures), self.network.getDelayedCalls()), (1, []))

    def test_abandoned_at_any_time(self) -> None:
        """Whenever an attempt is abandoned, neither success nor failure is told, and all is closed."""
        backend = ScriptedBackend("backend").listen(self.network)
        address = serve(self.network, backend)
        for steps in range(12):
            protocol, abandon = self.begin(address)
            self.network.advance(steps * 0.1)
            if protocol.is_connected:
                break
            abandon()
            self.network.advance(10)
            self.assertEqual((protocol.is_connected, self.failures), (False, []), steps)
            self.assertEqual((backend.open_connections, self.network.getDelayedCalls()), ([], []), steps)
        else:
            self.fail("no attempt was left alone for long enough")

    def test_refused_certificate(self) -> None:
        """The sentence says what is wrong; the protocol inside never hears of the connection."""
        backend = ScriptedBackend("backend").listen(self.network)
        address = serve(self.network, backend)
        for trust, sentence in (
            (BackendTrust(AUTHORITY.pem, "other.test"), "is for another name"),
            (BackendTrust(AUTHORITY.pem, "127.0.0.2"), "is for another name"),
            (BackendTrust(Authority("other").pem), "is not from a trusted authority"),
            (BackendTrust(), "is not from a trusted authority"),
        ):
            del self.failures[:]
            protocol, _ = self.begin(address, trust=trust)
            self.network.advance(2)
            self.assertEqual(self.sentences(), [f"connect-failed: the backend's certificate {sentence}"])
            self.network.advance(10)
            self.assertEqual((protocol.is_connected, protocol.end), (False, None))
            self.assertEqual((backend.open_connections, self.network.getDelayedCalls()), ([], []))

    def test_told_to_the_operator_now_and_then(self) -> None:
        """The same complaint about the same backend is logged once a minute."""
        from twisted.logger import globalLogPublisher

        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        address = serve(self.network, ScriptedBackend("backend").listen(self.network))
        for _ in range(7):
            self.begin(address, trust=BackendTrust(AUTHORITY.pem, "other.test"))
            self.network.advance(10.5)
        told = [event for event in events if event.get("address") == address]
        self.assertEqual([event["sentence"] for event in told], [str(self.failures[0].value)] * 2)

    def test_unreadable_authorities(self) -> None:
        """What no reader of records would have let through fails the attempt, and nothing is connected."""
        self.begin("https://127.0.0.1:1", trust=BackendTrust("no PEM"))
        self.assertEqual(self.sentences(), ["connect-failed: the backend cannot be verified"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_not_tls(self) -> None:
        """A server that speaks something else is told apart."""
        address = self.silent_address()
        self.begin(address)
        self.network.advance(1)
        self.silent[0].transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.network.advance(1)
        (sentence,) = self.sentences()
        self.assertIn("it does not answer in TLS", sentence)
        self.network.advance(10)
        self.assertTrue(self.silent[0].is_lost)

    def test_end_without_close_notify(self) -> None:
        """A stream that just ends is a lost connection; one that was closed in TLS is done."""
        backend = ScriptedBackend("backend").listen(self.network)
        for name, expected in (("loseConnection", "ConnectionDone"), ("abortConnection", "ConnectionLost")):
            protocol, _ = self.begin(serve(self.network, backend))
            self.network.advance(5)
            getattr(backend.connections[-1].transport, name)()
            self.network.advance(1)
            end: Any = protocol.end
            self.assertEqual(end.__name__, expected)
        protocol, _ = self.begin(serve(self.network, backend))
        self.network.advance(5)
        backend.connections[-1].transport.transport.loseConnection()  # TCP alone
        self.network.advance(1)
        end = protocol.end
        self.assertEqual(end.__name__, "ConnectionLost")

    def test_abort_is_no_end(self) -> None:
        """What is aborted never looks complete to the backend."""
        backend = ScriptedBackend("backend").listen(self.network)
        protocol, _ = self.begin(serve(self.network, backend))
        self.network.advance(5)
        protocol.transport.write(b"POST / HTTP/1.1\r\n")
        protocol.transport.abortConnection()
        self.network.advance(5)
        (connection,) = backend.connections
        lost: Any = connection.lost_because
        self.assertNotIn("ConnectionDone", repr(lost))


class TrustTests(SynchronousTestCase):
    """What is kept of contexts and names."""

    def backend(self, name: str = "", ca: str = "", host: str = "10.0.0.1") -> Backend:
        return Backend(host, 443, tls=True, trust=BackendTrust(ca, name))

    def test_made_once(self) -> None:
        """One expectation for each name under each set of authorities, one context for each set."""
        trusts = BackendTrusts()
        one = trusts.expectation(self.backend("a.test", AUTHORITY.pem))
        self.assertIs(trusts.expectation(self.backend("a.test", AUTHORITY.pem, "10.0.0.2")), one)
        other = trusts.expectation(self.backend("b.test", AUTHORITY.pem))
        self.assertIsNot(other, one)
        self.assertIs(other._options, one._options)
        self.assertIsNot(trusts.expectation(self.backend("a.test"))._options, one._options)

    def test_name_of_the_host(self) -> None:
        """Without a name, each host has its own."""
        trusts = BackendTrusts()
        one = trusts.expectation(self.backend(host="a.test"))
        self.assertIs(trusts.expectation(self.backend("a.test")), one)
        self.assertIsNot(trusts.expectation(self.backend(host="b.test")), one)

    def test_bounded(self) -> None:
        """What was not asked for longest is let go."""
        self.patch(backend_trust, "MAX_CONTEXTS", 2)
        self.patch(backend_trust, "MAX_EXPECTATIONS", 3)
        trusts = BackendTrusts()
        kept = [trusts.expectation(self.backend(name)) for name in ("a.test", "b.test", "c.test")]
        self.assertIs(trusts.expectation(self.backend("a.test")), kept[0])
        trusts.expectation(self.backend("d.test"))
        self.assertIs(trusts.expectation(self.backend("a.test")), kept[0])
        self.assertIsNot(trusts.expectation(self.backend("b.test")), kept[1])

    def test_no_old_versions(self) -> None:
        """TLS 1.2 is the oldest that is spoken."""
        context = BackendTrusts().expectation(self.backend("a.test"))._options.getContext()
        options = context.set_options(0)
        for version in (SSL.OP_NO_SSLv3, SSL.OP_NO_TLSv1, SSL.OP_NO_TLSv1_1):
            self.assertTrue(options & version)
        for version in (SSL.OP_NO_TLSv1_2, SSL.OP_NO_TLSv1_3):
            self.assertFalse(options & version)


class ExchangeTests(WorldTestCase):
    """Requests over TLS, however the bytes are cut."""

    def app(self, world: World, *, name: str = "", trusted: bool = True) -> ScriptedBackend:
        """An app with one backend behind TLS."""
        backend = world.backend()
        address = serve(world.network, backend)
        ca = AUTHORITY.pem if trusted else Authority("other").pem
        app = App("hello", ["hello.test"], [address], backend_tls={"ca": ca, "name": name})
        world.resolver.set_app(app)
        return backend

    @each_world(*WAYS)
    def test_request(self, world: World) -> None:
        """A request is answered over a connection that is kept, and told with the backend's full address."""
        backend = self.app(world).answer(replies.fixed(b"over TLS"))
        for _ in range(3):
            self.assertEqual(world.request(get()).body, b"over TLS")
        self.assertEqual(len(backend.connections), 1)
        self.assertEqual({record.backend[:18] for record in world.records}, {"https://127.0.0.1:"})
        self.leave(world, backend)

    @each_world(*WAYS)
    def test_upload(self, world: World) -> None:
        """A large body goes there and comes back."""
        backend = self.app(world).answer(replies.echo())
        body = bytes(range(256)) * 1024
        response = world.request(post(body))
        self.assertTrue(response.body.endswith(body), len(response.body))
        self.leave(world, backend)

    @each_world(*WAYS)
    def test_unverified(self, world: World) -> None:
        """Without a good certificate: 502, and the backend sees no request."""
        for options in ({"name": "other.test"}, {"trusted": False}):
            backend = self.app(world, **options)
            client = world.client().send(get())
            world.run_until(lambda client=client: client.responses)
            self.assertEqual(code_of(client), "connect-failed")
            self.assertEqual(backend.requests, [])

    @each_world(*WAYS)
    def test_closed_while_idle(self, world: World) -> None:
        """A backend that closes a kept connection in TLS is not sent a request over it."""
        backend = self.app(world)
        world.request(post(b"one"))
        backend.close_connections()
        world.settle()
        self.assertEqual(world.factory.env.connections.idle_count, 0)
        self.assertEqual(world.request(post(b"two")).status, 200)
        self.assertEqual(len(backend.connections), 2)
        self.leave(world, backend)

    @each_world(*WAYS)
    def test_tunnel(self, world: World) -> None:
        """An upgraded connection carries bytes both ways until one side ends it."""
        backend = self.app(world).answer(replies.upgrade_echo())
        client = open_tunnel(world)
        client.send(b"ping" * 100)
        world.run_until(lambda: client.tunnelled == b"ping" * 100)
        client.close()
        world.settle()
        self.assertEqual(world.observer.record.code, "-")
        self.leave(world, backend)

    @each_world(*WAYS, timeouts=Timeouts(connect=1.0))
    def test_handshake_that_stalls(self, world: World) -> None:
        """The next backend is asked, within the time for connecting."""
        factory = Factory.forProtocol(Protocol)
        port = world.network.listenTCP(0, factory, 50, "127.0.0.1")
        backend = world.backend()
        backends = [f"https://127.0.0.1:{port.getHost().port}", serve(world.network, backend)]
        app = App("hello", ["hello.test"], backends, backend_tls={"ca": AUTHORITY.pem})
        world.resolver.set_app(app)
        for _ in range(2):
            began = world.clock.seconds()
            self.assertEqual(world.request(get()).status, 200)
            self.assertLess(world.clock.seconds() - began, 1.5)
        self.leave(world, backend)

    @each_world(*WAYS)
    def test_new_rule(self, world: World) -> None:
        """When the app is verified by another rule, kept connections go and the backend joins anew."""
        backend = self.app(world)
        world.request(get())
        app = world.resolver.apps()["hello"]
        world.change("hello", backend_tls={"ca": app.backend_tls["ca"], "name": "backend.test"})
        world.settle()
        self.assertEqual(backend.open_connections, [])
        self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(len(backend.connections), 2)
        self.leave(world, backend)

    def leave(self, world: World, backend: ScriptedBackend) -> None:
        """Let the kept connections go: closing them in TLS takes both sides."""
        world.resolver.remove_app("hello")
        world.settle()
        self.assertEqual(backend.open_connections, [])
