"""Tests for :mod:`scalingo_proxy.services.listeners`."""

from __future__ import annotations

import errno
import gc
from typing import Any
from weakref import WeakSet

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.services.endpoint_strings import parse_endpoint
from scalingo_proxy.services.listeners import GRACE_SECONDS, Listener, ListenersService, OpenPort


class ScriptedFactory(Factory):
    """A factory whose drain ends when the test says so."""

    noisy = False
    protocol = Protocol

    def __init__(self) -> None:
        self.drained: Deferred[None] = Deferred()
        self.seconds: list[float] = []

    def drain(self, seconds: float) -> Deferred[None]:
        self.seconds.append(seconds)
        return self.drained


class ScriptedPort:
    """A port that listens nowhere, and is closed when the test says so."""

    def __init__(self, description: str, door: IProtocolFactory) -> None:
        self.description = description
        self.door = door
        self.is_accepting = True
        self.closed: Deferred[None] = Deferred()

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", int(self.description.split(":")[1]))

    def stopListening(self) -> Deferred[None]:
        self.is_accepting = False
        return self.closed

    def connect(self) -> Any:
        """A client comes: which factory serves it."""
        protocol = self.door.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert protocol is not None
        return protocol.factory


class Network:
    """Opens scripted ports; a port of *refused* fails with its error, one of *slow* waits."""

    def __init__(self) -> None:
        self.ports: list[ScriptedPort] = []
        self.refused: dict[str, Exception] = {}
        self.slow: dict[str, Deferred[Any]] = {}

    def open(self, reactor: object, description: str, door: IProtocolFactory) -> Deferred[Any]:
        if description in self.slow:
            return self.slow[description]
        if description in self.refused:
            raise self.refused[description]
        port = ScriptedPort(description, door)
        self.ports.append(port)
        return succeed(port)

    @property
    def accepting(self) -> list[str]:
        """The endpoints that accept now."""
        return [port.description for port in self.ports if port.is_accepting]

    def close_all(self) -> None:
        """Let every port that was told to close be closed."""
        for port in self.ports:
            if not port.is_accepting and not port.closed.called:
                port.closed.callback(None)


def busy(port: int = 1) -> CannotListenError:
    """What Twisted raises for a port that is in use."""
    return CannotListenError("", port, OSError(errno.EADDRINUSE, "Address already in use"))


class ListenersCase(SynchronousTestCase):
    """What the tests below share."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network()
        self.factory = ScriptedFactory()

    def service(self, *endpoints: str, **options: Any) -> ListenersService:
        """A service with one listener for each endpoint, all with the same factory."""
        return ListenersService(
            self.clock, [self.listener(text) for text in endpoints], open_port=self.network.open, **options
        )

    def listener(self, endpoint: str, factory: IProtocolFactory | None = None) -> Listener:
        """A listener that was set in a file."""
        return Listener("http", endpoint, factory or self.factory, f"listen[{endpoint}]")

    def started(self, *endpoints: str) -> ListenersService:
        """A running service."""
        service = self.service(*endpoints)
        service.privilegedStartService()
        service.startService()
        return service


class StartTests(ListenersCase):
    """Opening doors."""

    def test_constructor_opens_nothing(self) -> None:
        """Nothing listens before the start."""
        service = self.service("tcp:1")
        self.assertEqual((self.network.accepting, service.ports), ([], ()))

    def test_privileged(self) -> None:
        """Doors are open before the process gives up being root, and are not opened twice."""
        service = self.service("tcp:1", "tcp:2")
        service.privilegedStartService()
        self.assertEqual(self.network.accepting, ["tcp:1", "tcp:2"])
        service.startService()
        self.assertEqual(self.network.accepting, ["tcp:1", "tcp:2"])
        self.assertTrue(service.running)

    def test_only_started(self) -> None:
        """A program that never calls privilegedStartService gets its doors all the same."""
        self.service("tcp:1").startService()
        self.assertEqual(self.network.accepting, ["tcp:1"])

    def test_twisted_endpoints(self) -> None:
        """Unless told otherwise, Twisted opens the endpoints, with what they say."""
        reactor = MemoryReactorClock()
        listeners = [
            self.listener("127.0.0.1:8080"),
            self.listener("[::1]:8081"),
            self.listener("unix:/run/x.sock:mode=660"),
        ]
        ListenersService(reactor, listeners).startService()
        tcp = [(port, backlog, interface) for port, _, backlog, interface in reactor.tcpServers]
        self.assertEqual(tcp, [(8080, 1024, "127.0.0.1"), (8081, 1024, "::1")])
        ((path, _, _, mode, _),) = reactor.unixServers
        self.assertEqual((path, mode), ("/run/x.sock", 0o660))

    def test_factory_is_started(self) -> None:
        """The factory knows how many ports it has."""
        service = self.started("tcp:1", "tcp:2")
        self.assertEqual(self.factory.numPorts, 2)
        service.stopService()
        self.network.close_all()
        self.assertEqual(self.factory.numPorts, 0)

    def test_ports(self) -> None:
        """After the start, the real addresses are known, in the order of the listeners."""
        service = self.started("tcp:2", "tcp:1")
        self.assertEqual([port.text for port in service.ports], ["127.0.0.1:2", "127.0.0.1:1"])
        self.assertEqual([port.port for port in service.ports], [2, 1])

    def test_port_texts(self) -> None:
        """Every kind of address has a text."""
        addresses = (
            IPv4Address("TCP", "0.0.0.0", 80),
            IPv6Address("TCP", "::", 80),
            UNIXAddress(b"/run/x"),
            UNIXAddress(None),
        )
        endpoint = parse_endpoint("tcp:80")
        texts = [OpenPort("http", endpoint, address).text for address in addresses]
        self.assertEqual(texts, ["0.0.0.0:80", "[::]:80", "unix:/run/x", "unix:"])

    def test_connections_reach_the_factory(self) -> None:
        """A connection is served by the listener's factory."""
        self.started("tcp:1")
        self.assertIs(self.network.ports[0].connect(), self.factory)


class StartFailureTests(ListenersCase):
    """Doors that cannot be opened."""

    def test_every_mistake(self) -> None:
        """Every door that cannot be opened is told at once, to whoever starts the service."""
        self.network.refused = {
            "tcp:1": busy(),
            "tcp:3": CannotListenError("", 3, OSError(errno.EACCES, "Permission denied")),
        }
        service = self.service("tcp:1", "tcp:2", "tcp:3")
        error = self.assertRaises(ConfigurationError, service.privilegedStartService)
        self.assertEqual(
            [str(mistake) for mistake in error.mistakes],
            [
                'listen[tcp:1]: cannot listen on "tcp:1": port 1 is in use by another program',
                (
                    'listen[tcp:3]: cannot listen on "tcp:3": no permission for port 3'
                    " (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
                ),
            ],
        )
        self.assertEqual((self.network.accepting, service.ports), ([], ()))

    def test_failing_deferred(self) -> None:
        """An endpoint that fails through its Deferred is raised to the caller as well."""
        failed: Deferred[Any] = Deferred()
        failed.errback(busy())
        self.network.slow["tcp:1"] = failed
        self.assertRaises(ConfigurationError, self.service("tcp:1").startService)

    def test_start_again(self) -> None:
        """After a failed start, another one may succeed."""
        self.network.refused["tcp:1"] = busy()
        service = self.service("tcp:1")
        self.assertRaises(ConfigurationError, service.startService)
        self.network.refused.clear()
        service.startService()
        self.assertEqual(self.network.accepting, ["tcp:1"])

    def test_other_exceptions(self) -> None:
        """A bug in an endpoint is not taken for a mistake of the operator; no door stays open."""
        self.network.refused["tcp:2"] = ZeroDivisionError()
        self.assertRaises(ZeroDivisionError, self.service("tcp:1", "tcp:2").startService)
        self.assertEqual(self.network.accepting, [])

    def test_same_port_twice(self) -> None:
        """A door that is in the way of another one of ours is named."""
        self.network.refused["tcp:1:interface=127.0.0.1"] = busy()
        error = self.assertRaises(
            ConfigurationError, self.service("tcp:1", "tcp:1:interface=127.0.0.1").startService
        )
        self.assertIn('this proxy has "tcp:1" open', str(error))

    def test_late_failure(self) -> None:
        """An endpoint that fails only later is told in the program log."""
        self.network.slow["tcp:1"] = Deferred()
        self.service("tcp:1").startService()
        with capturedLogs() as events:
            self.network.slow["tcp:1"].errback(busy())
        self.assertEqual([event["log_level"] for event in events], [LogLevel.critical])

    def test_stopped_before_open(self) -> None:
        """Stopping gives up an endpoint that is not open yet."""
        self.network.slow["tcp:2"] = Deferred()
        service = self.service("tcp:1", "tcp:2")
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(self.network.accepting, [])


class StopTests(ListenersCase):
    """Closing doors with a drain."""

    def test_stops_accepting_at_once(self) -> None:
        """No connection is accepted any more, though those there are may finish."""
        service = self.started("tcp:1", "tcp:2")
        stopped = service.stopService()
        self.assertEqual((self.network.accepting, service.ports), ([], ()))
        self.assertNoResult(stopped)

    def test_waits_for_drains(self) -> None:
        """It has stopped when every port is closed and every factory has drained."""
        other = ScriptedFactory()
        service = ListenersService(
            self.clock,
            [self.listener("tcp:1"), self.listener("tcp:2", other)],
            drain_seconds=7.0,
            open_port=self.network.open,
        )
        service.startService()
        stopped = service.stopService()
        self.network.close_all()
        self.factory.drained.callback(None)
        self.assertNoResult(stopped)
        other.drained.callback(None)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual((self.factory.seconds, other.seconds), ([7.0], [7.0]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shared_factory(self) -> None:
        """A factory behind two doors is drained once."""
        self.started("tcp:1", "tcp:2").stopService()
        self.assertEqual(len(self.factory.seconds), 1)

    def test_one_deadline(self) -> None:
        """A drain that does not end is given up a little after the deadline, and that is told."""
        service = self.started("tcp:1")
        stopped = service.stopService()
        self.network.close_all()
        self.clock.advance(service.drain_seconds)
        self.assertNoResult(stopped)
        with capturedLogs() as events:
            self.clock.advance(GRACE_SECONDS)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])

    def test_one_deadline_of_several_drains(self) -> None:
        """A factory in front of another waits for both; that they do not end is told in the same way."""
        parts: list[Deferred[None]] = [Deferred(), Deferred()]
        inner = gatherResults(parts, consumeErrors=True)
        self.factory.drained = gatherResults([inner, Deferred()], consumeErrors=True)  # type: ignore[assignment]
        service = self.started("tcp:1")
        stopped = service.stopService()
        self.network.close_all()
        with capturedLogs() as events:
            self.clock.advance(service.drain_seconds + GRACE_SECONDS)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])

    def test_failing_drain(self) -> None:
        """A drain that fails is logged, and the others are waited for."""
        other = ScriptedFactory()
        service = ListenersService(
            self.clock, [self.listener("tcp:1"), self.listener("tcp:2", other)], open_port=self.network.open
        )
        service.startService()
        stopped = service.stopService()
        self.network.close_all()
        self.factory.drained.errback(ZeroDivisionError())
        self.assertNoResult(stopped)
        other.drained.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_factory_without_drain(self) -> None:
        """Any factory of Twisted's will do."""
        service = ListenersService(
            self.clock, [self.listener("tcp:1", Factory())], open_port=self.network.open
        )
        service.startService()
        stopped = service.stopService()
        self.network.close_all()
        self.successResultOf(stopped)

    def test_port_that_does_not_close_cleanly(self) -> None:
        """A port whose closing fails, as when its socket file has gone, is told and does not hinder."""
        service = self.started("tcp:1")
        stopped = service.stopService()
        self.factory.drained.callback(None)
        with capturedLogs() as events:
            self.network.ports[0].closed.errback(FileNotFoundError(2, "No such file"))
        self.successResultOf(stopped)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])

    def test_nothing_open(self) -> None:
        """A service without doors stops at once."""
        service = self.started()
        self.successResultOf(service.stopService())


class ReconcileTests(ListenersCase):
    """Changing doors while running."""

    def test_before_the_start(self) -> None:
        """Before the start it only changes what will be opened."""
        service = self.service("tcp:1")
        self.successResultOf(service.reconcile([self.listener("tcp:2")]))
        self.assertEqual(self.network.accepting, [])
        service.startService()
        self.assertEqual(self.network.accepting, ["tcp:2"])

    def test_added_and_removed(self) -> None:
        """New doors are opened, those that are gone are closed, those that stay are not touched."""
        service = self.started("tcp:1", "tcp:2")
        self.successResultOf(service.reconcile([self.listener("tcp:3"), self.listener("tcp:2")]))
        self.assertEqual(self.network.accepting, ["tcp:2", "tcp:3"])
        self.assertEqual([port.description for port in self.network.ports], ["tcp:1", "tcp:2", "tcp:3"])
        self.assertEqual([port.port for port in service.ports], [3, 2])

    def test_all_or_nothing(self) -> None:
        """When one door cannot be opened, everything stays as it was."""
        service = self.started("tcp:1", "tcp:2")
        self.network.refused["tcp:4"] = busy()
        new = ScriptedFactory()
        wanted = [self.listener("tcp:2", new), self.listener("tcp:3"), self.listener("tcp:4")]
        failure = self.failureResultOf(service.reconcile(wanted), ConfigurationError)
        self.assertIn("port 4 is in use", str(failure.value))
        self.assertEqual(self.network.accepting, ["tcp:1", "tcp:2"])
        self.assertIs(self.network.ports[1].connect(), self.factory)
        self.assertEqual((self.factory.numPorts, new.numPorts), (3, 0))  # the third is still closing
        self.network.close_all()
        self.assertEqual(self.factory.numPorts, 2)

    def test_in_the_way_of_itself(self) -> None:
        """A door that stands in the way although it is to go is named, with what to do."""
        service = self.started("tcp:1")
        self.network.refused["tcp:1:interface=127.0.0.1"] = busy()
        failure = self.failureResultOf(
            service.reconcile([self.listener("tcp:1:interface=127.0.0.1")]), ConfigurationError
        )
        self.assertIn('this proxy has "tcp:1" open; take that out with one reload', str(failure.value))

    def test_connections_of_a_removed_door(self) -> None:
        """Connections of a door that is gone are not drained before the proxy stops; then they are."""
        gone = ScriptedFactory()
        service = ListenersService(self.clock, [self.listener("tcp:1", gone)], open_port=self.network.open)
        service.startService()
        self.successResultOf(service.reconcile([self.listener("tcp:2")]))
        self.assertEqual(gone.seconds, [])
        service.stopService()
        self.assertEqual(len(gone.seconds), 1)

    def test_other_factory(self) -> None:
        """An open door is handed to another factory without being closed."""
        service = self.started("tcp:1")
        new = ScriptedFactory()
        self.successResultOf(service.reconcile([self.listener("tcp:1", new)]))
        self.assertIs(self.network.ports[0].connect(), new)
        self.assertEqual((self.factory.numPorts, new.numPorts), (0, 1))
        self.assertEqual((len(self.network.ports), self.factory.seconds), (1, []))
        service.stopService()
        self.assertEqual((len(self.factory.seconds), len(new.seconds)), (1, 1))

    def test_same_factory(self) -> None:
        """A door that stays with its factory is only drained once in the end."""
        service = self.started("tcp:1")
        self.successResultOf(service.reconcile([self.listener("tcp:1")]))
        self.assertEqual(self.factory.numPorts, 1)
        service.stopService()
        self.assertEqual(len(self.factory.seconds), 1)

    def test_same_endpoint_twice(self) -> None:
        """Two doors on any free port are two doors, also after a reload."""
        service = self.started("tcp:0", "tcp:0")
        self.successResultOf(service.reconcile([self.listener("tcp:0"), self.listener("tcp:0")]))
        self.assertEqual(len(self.network.ports), 2)
        self.successResultOf(service.reconcile([self.listener("tcp:0")]))
        self.assertEqual(len(self.network.accepting), 1)

    def test_many_reloads_leave_nothing_behind(self) -> None:
        """Factories of earlier reloads are forgotten once nothing else holds them."""
        service = self.started("tcp:1")
        factories: WeakSet[ScriptedFactory] = WeakSet()
        for _ in range(20):
            factory = ScriptedFactory()
            factories.add(factory)
            self.successResultOf(service.reconcile([self.listener("tcp:1", factory)]))
        gc.collect()
        self.assertEqual(list(factories), [factory])

    def test_one_after_another(self) -> None:
        """A reload that comes while another one waits is made after it."""
        service = self.started("tcp:1")
        self.network.slow["tcp:2"] = Deferred()
        first = service.reconcile([self.listener("tcp:2")])
        second = service.reconcile([self.listener("tcp:3")])
        self.assertNoResult(second)
        self.assertEqual(self.network.accepting, ["tcp:1"])
        port = ScriptedPort("tcp:2", self.factory)
        self.network.ports.append(port)
        self.network.slow["tcp:2"].callback(port)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.network.accepting, ["tcp:3"])

    def test_stopped_meanwhile(self) -> None:
        """A door that opens after the stop is closed."""
        service = self.started("tcp:1")
        self.network.slow["tcp:2"] = Deferred()
        reconciled = service.reconcile([self.listener("tcp:2")])
        service.stopService()
        port = ScriptedPort("tcp:2", self.factory)
        self.network.ports.append(port)
        self.network.slow["tcp:2"].callback(port)
        self.successResultOf(reconciled)
        self.assertEqual((self.network.accepting, service.ports), ([], ()))
