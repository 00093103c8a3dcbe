"""The network in memory, where a reactor would be."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IConnector, IListeningPort, IReactorTCP, IReactorTime
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.testing.connecting import Reach
from scalingo_proxy.testing.network import MemoryNetwork, NothingLeftToHappen
from scalingo_proxy.testing.transport_recorders import Recorder


class RecordingFactory(ClientFactory):
    """Writes down its own life."""

    protocol = Recorder
    noisy = False

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.protocols: list[Recorder] = []

    def startFactory(self) -> None:
        self.events.append("start")

    def stopFactory(self) -> None:
        self.events.append("stop")

    def startedConnecting(self, connector: IConnector) -> None:
        self.events.append("connecting")

    def clientConnectionFailed(self, connector: IConnector, reason: Any) -> None:
        self.events.append(reason.type)

    def clientConnectionLost(self, connector: IConnector, reason: Any) -> None:
        self.events.append(reason.type)

    def buildProtocol(self, addr: Any) -> Recorder:
        built = Recorder()
        self.protocols.append(built)
        return built


class NetworkTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork(Clock(), Random(0), latency=0.01)
        self.server = RecordingFactory()
        self.port = self.network.listenTCP(80, self.server, interface="10.0.0.1")
        self.client = RecordingFactory()
        self.network.settle()

    def connect(self, host: str = "10.0.0.1", port: int = 80, **options: Any) -> Any:
        return self.network.connectTCP(host, port, self.client, **options)


class ConnectingTests(NetworkTestCase):
    def test_provides_interfaces(self) -> None:
        """It stands for a reactor's TCP and time."""
        for interface in (IReactorTCP, IReactorTime):
            verifyObject(interface, self.network)
        verifyObject(IListeningPort, self.port)
        verifyObject(IConnector, self.connect())

    def test_life_of_factories(self) -> None:
        """Both factories are started and stopped as under a reactor."""
        connector = self.connect()
        self.assertEqual(self.client.events, ["start", "connecting"])
        self.network.settle()
        self.assertEqual((connector.state, self.network.open_connections), ("connected", 2))
        connector.disconnect()
        self.network.settle()
        self.assertEqual(self.client.events, ["start", "connecting", error.ConnectionDone, "stop"])
        self.network.run_until(self.port.stopListening())
        self.assertEqual(self.server.events, ["start", "stop"])
        self.assertEqual((self.network.open_connections, self.network.getDelayedCalls()), (0, []))

    def test_takes_a_round_trip(self) -> None:
        """A connection is there after twice the latency."""
        self.connect()
        self.network.advance(0.019)
        self.assertEqual(self.client.protocols, [])
        self.network.advance(0.001)
        self.assertEqual(len(self.client.protocols), 1)

    def test_source_address(self) -> None:
        """A client comes from where it says."""
        self.connect(bindAddress=("203.0.113.5", 0))
        self.network.settle()
        self.assertEqual(self.server.protocols[0].transport.getPeer().host, "203.0.113.5")

    def failure(self) -> list[Any]:
        """How the only attempt of the client ended."""
        self.network.settle()
        self.assertEqual(self.client.events[:2] + self.client.events[3:], ["start", "connecting", "stop"])
        return [self.client.events[2], round(self.network.seconds(), 6)]

    def test_nobody_listens(self) -> None:
        """Without a listener the connection is refused."""
        self.connect(port=81)
        self.assertEqual(self.failure(), [error.ConnectionRefusedError, 0.02])

    def test_refuse_and_restore(self) -> None:
        """An address may refuse although somebody listens."""
        self.network.refuse("10.0.0.1:80")
        self.connect()
        self.assertEqual(self.failure(), [error.ConnectionRefusedError, 0.02])
        self.network.restore("10.0.0.1:80")
        self.connect()
        self.network.settle()
        self.assertEqual(len(self.client.protocols), 1)

    def test_unreachable(self) -> None:
        """There may be no route."""
        self.network.set_way("10.0.0.1:80", Reach.UNREACHABLE)
        self.connect()
        self.assertEqual(self.failure()[0], error.NoRouteError)

    def test_unknown_name(self) -> None:
        """A name without an address fails as DNS does."""
        self.connect("nowhere.test")
        self.assertEqual(self.failure()[0], error.DNSLookupError)

    def test_black_hole(self) -> None:
        """Where nobody answers only the timeout ends the attempt."""
        self.network.black_hole("10.0.0.1:80")
        self.connect(timeout=5)
        self.network.advance(4.99)
        self.assertEqual(self.client.events, ["start", "connecting"])
        self.network.advance(0.01)
        self.assertEqual(self.client.events[2:], [error.TimeoutError, "stop"])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_slow_answer(self) -> None:
        """An answer behind the timeout comes too late."""
        self.network.set_way("10.0.0.1:80", delay=7)
        self.connect(timeout=5)
        self.network.advance(8)
        self.assertEqual(self.client.events[2:], [error.TimeoutError, "stop"])
        self.assertEqual((self.server.protocols, self.network.kernel.moving), ([], 0))

    def test_reset_on_accept(self) -> None:
        """The connection is made, and reset before anything is said."""
        self.network.reset_on_accept("10.0.0.1:80")
        self.connect()
        self.network.settle()
        self.assertEqual(self.client.protocols[0].ended_with, error.ConnectionLost)
        self.assertEqual(self.server.protocols, [])

    def test_stop_connecting(self) -> None:
        """An attempt that is stopped fails with UserError and leaves nothing."""
        self.connect().stopConnecting()
        self.assertEqual(self.client.events[2:], [error.UserError, "stop"])
        self.assertEqual((self.network.getDelayedCalls(), self.network.kernel.moving), ([], 0))

    def test_reconnect(self) -> None:
        """A connector connects again when told to."""
        connector = self.connect()
        self.network.settle()
        connector.disconnect()
        self.network.settle()
        connector.connect()
        self.network.settle()
        self.assertEqual(len(self.client.protocols), 2)

    def test_factory_without_protocol(self) -> None:
        """A factory that builds nothing closes the connection, on either side."""
        self.server.buildProtocol = lambda addr: None  # type: ignore[assignment,return-value]
        self.connect()
        self.network.settle()
        self.assertEqual(self.client.protocols[0].ended_with, error.ConnectionDone)
        self.assertEqual(self.network.open_connections, 0)


class ListeningTests(NetworkTestCase):
    def test_assigns_ports(self) -> None:
        """Port 0 takes a free one each time."""
        ports = [self.network.listenTCP(0, Factory()).getHost().port for _ in range(3)]
        self.assertEqual(len({*ports, 0}), 4)

    def test_address_taken(self) -> None:
        """An address can be listened on once, and again after it was given back."""
        with self.assertRaises(error.CannotListenError):
            self.network.listenTCP(80, Factory(), interface="10.0.0.1")
        self.network.run_until(self.port.stopListening())
        self.network.listenTCP(80, Factory(), interface="10.0.0.1")

    def test_any_address(self) -> None:
        """Listening nowhere in particular is listening on every IPv4 address."""
        self.network.listenTCP(81, self.server)
        self.connect("192.0.2.9", 81)
        self.network.settle()
        self.assertEqual(self.server.protocols[0].transport.getHost().host, "192.0.2.9")

    def test_any_address_maps(self) -> None:
        """An IPv6 wildcard takes IPv4 clients under mapped addresses."""
        self.network.listenTCP(81, self.server, interface="::")
        self.connect("192.0.2.9", 81)
        self.network.settle()
        self.assertEqual(self.server.protocols[0].transport.getPeer().host, "::ffff:127.0.0.1")

    def test_paused_port(self) -> None:
        """Clients of a port that pauses are connected and wait."""
        self.port.pauseProducing()
        self.connect()
        self.network.settle()
        self.assertEqual((len(self.client.protocols), len(self.server.protocols)), (1, 0))
        self.port.resumeProducing()
        self.network.settle()
        self.assertEqual(len(self.server.protocols), 1)

    def test_stopping_resets_who_waits(self) -> None:
        """Whoever was not accepted yet is reset when the port closes."""
        self.port.pauseProducing()
        self.connect()
        self.network.settle()
        self.network.run_until(self.port.stopListening())
        self.network.settle()
        self.assertEqual(self.client.protocols[0].ended_with, error.ConnectionLost)


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.factory = Factory.forProtocol(Recorder)

    def test_ipv4_and_ipv6(self) -> None:
        """Twisted's endpoints work on it."""
        for server, client, host in (
            (TCP4ServerEndpoint, TCP4ClientEndpoint, "127.0.0.1"),
            (TCP6ServerEndpoint, TCP6ClientEndpoint, "::1"),
        ):
            port = self.network.run_until(server(self.network, 0).listen(self.factory))
            endpoint = client(self.network, host, port.getHost().port)
            protocol = self.network.run_until(connectProtocol(endpoint, Recorder()))
            self.assertEqual(protocol.transport.getPeer().host, host)

    def test_names(self) -> None:
        """A host name is resolved by the network's own resolver, in a later turn."""
        self.network.nameResolver.names["web.test"] = "10.0.0.7"
        self.network.listenTCP(80, self.factory, interface="10.0.0.7")
        endpoint = HostnameEndpoint(self.network, "web.test", 80)
        protocol = self.network.run_until(connectProtocol(endpoint, Recorder()))
        self.assertEqual(protocol.transport.getPeer().host, "10.0.0.7")

    def test_unknown_name(self) -> None:
        """A name that has no address fails."""
        connecting = connectProtocol(HostnameEndpoint(self.network, "nowhere.test", 80), Recorder())
        with self.assertRaises(error.DNSLookupError):
            self.network.run_until(connecting)

    def test_cancelling(self) -> None:
        """An endpoint's attempt can be cancelled and leaves nothing behind."""
        self.network.black_hole("10.0.0.1:80")
        connecting = connectProtocol(TCP4ClientEndpoint(self.network, "10.0.0.1", 80), Protocol())
        self.network.settle()
        connecting.cancel()
        self.failureResultOf(connecting, error.ConnectingCancelledError)
        self.assertEqual(self.network.getDelayedCalls(), [])


class RunningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork(latency=0.01)
        self.times: list[float] = []

    def note(self) -> None:
        """Write down when it is."""
        self.times.append(self.network.seconds())

    def test_exact_times(self) -> None:
        """Each event sees its own moment, however far the clock is advanced."""
        for delay in (3, 1, 2):
            self.network.callLater(delay, self.note)
        self.network.callLater(1.5, lambda: self.network.callLater(0.25, self.note))
        self.network.advance(10)
        self.assertEqual(self.times, [1, 1.75, 2, 3])
        self.assertEqual(self.network.seconds(), 10)

    def test_same_moment_in_order(self) -> None:
        """What is due at one moment happens in the order it was scheduled."""
        order: list[int] = []
        for number in range(5):
            self.network.callLater(1, order.append, number)
        self.network.advance(1)
        self.assertEqual(order, [0, 1, 2, 3, 4])

    def test_settle_leaves_deadlines(self) -> None:
        """Settling waits for traffic and runs nothing that is due later."""
        self.network.listenTCP(80, Factory.forProtocol(Recorder))
        self.network.callLater(30, self.note)
        factory = RecordingFactory()
        self.network.connectTCP("127.0.0.1", 80, factory)
        self.network.settle()
        self.assertEqual((len(factory.protocols), self.times), (1, []))
        self.assertAlmostEqual(self.network.seconds(), 0.02)

    def test_run_until_condition(self) -> None:
        """It stops at the event that makes the condition true, and gives its value."""
        for delay in (1, 2, 3):
            self.network.callLater(delay, self.note)
        self.assertEqual(self.network.run_until(lambda: self.times[1:]), [2])
        self.assertEqual(self.network.seconds(), 2)

    def test_run_until_deferred(self) -> None:
        """It gives the result of a Deferred, or raises its failure."""
        done: Deferred[str] = Deferred()
        self.network.callLater(1, done.callback, "done")
        self.assertEqual(self.network.run_until(done), "done")
        failed: Deferred[None] = fail(ZeroDivisionError())
        self.assertRaises(ZeroDivisionError, self.network.run_until, failed)

    def test_run_until_gives_up(self) -> None:
        """It fails when the time is up, and at once when nothing is scheduled."""
        self.assertRaises(NothingLeftToHappen, self.network.run_until, lambda: self.times)
        self.network.callLater(61, self.note)
        self.assertRaises(NothingLeftToHappen, self.network.run_until, lambda: self.times, 60)
        self.assertEqual(self.times, [])

    def test_loops_are_found(self) -> None:
        """Events that make each other happen for ever are an error."""
        self.network.max_events = 1000

        def again() -> None:
            self.network.callLater(0, again)

        again()
        self.assertRaises(NothingLeftToHappen, self.network.settle)

    def test_call_when_running(self) -> None:
        """It always runs."""
        self.network.callWhenRunning(self.note)
        self.assertEqual(self.times, [0])
