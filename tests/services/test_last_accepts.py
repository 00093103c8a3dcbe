"""A port that closes: who is connected is accepted, who comes then is not."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scalingo_proxy.services import last_accepts
from scalingo_proxy.services.accept_gate import AcceptGate
from scalingo_proxy.services.last_accepts import close_port


class Greeter(Protocol):
    def connectionMade(self) -> None:
        self.factory.accepted += 1  # type: ignore[union-attr]
        self.transport.write(b"hello")
        self.transport.loseConnection()


class LastAcceptsTests(TestCase):
    """On real sockets, which is all that this is about."""

    def listen(self, interface: str) -> Any:
        factory: Any = Factory.forProtocol(Greeter)
        factory.accepted = 0
        return reactor.listenTCP(0, factory, interface=interface)  # type: ignore[attr-defined]

    @inlineCallbacks
    def check(self, for_good: bool, interface: str = "127.0.0.1"):  # type: ignore[no-untyped-def]
        port = self.listen(interface)
        address = (interface, port.getHost().port)
        clients = [socket.create_connection(address, timeout=5) for _ in range(30)]
        closing = close_port(port, lambda: port.factory.accepted, for_good)
        late = None
        if for_good:
            family = socket.AF_INET6 if ":" in interface else socket.AF_INET
            late = socket.socket(family)
            late.settimeout(0.05)
            self.assertRaises(TimeoutError, late.connect, address)
        yield closing
        self.assertRaises(ConnectionRefusedError, socket.create_connection, address, 5)
        for client in clients:
            received = yield deferToThread(client.recv, 10)
            self.assertEqual(received, b"hello")
            client.close()
        if late is not None:
            late.close()

    def test_for_good(self):  # type: ignore[no-untyped-def]
        """Everybody who was connected is served; who comes meanwhile is not even connected."""
        return self.check(for_good=sys.platform == "linux")

    def test_over_ipv6(self):  # type: ignore[no-untyped-def]
        """The same over IPv6."""
        return self.check(sys.platform == "linux", "::1")

    def test_for_now(self):  # type: ignore[no-untyped-def]
        """A port that may be wanted again at once closes in this turn."""
        return self.check(for_good=False)

    def test_refused_filter(self):  # type: ignore[no-untyped-def]
        """Where no filter can be attached, it closes as it can."""
        self.patch(last_accepts, "_SO_ATTACH_FILTER", -1)
        port = self.listen("127.0.0.1")
        closing = close_port(port, lambda: 0, for_good=True)
        self.assertTrue(port.disconnecting)
        return closing

    @inlineCallbacks
    def test_gate_to_the_last(self):  # type: ignore[no-untyped-def]
        """No more are accepted than there are descriptors for, and the gate is left behind in order."""
        port = self.listen("127.0.0.1")
        gate = AcceptGate(reactor, lambda: max(0, 3 - port.factory.accepted), lambda: None)
        leave = gate.guard(port)
        address = ("127.0.0.1", port.getHost().port)
        clients = [socket.create_connection(address, timeout=5) for _ in range(10)]
        yield close_port(port, lambda: port.factory.accepted, True, leave)
        self.assertEqual((port.factory.accepted, gate.is_paused), (3, False))
        for client in clients:
            client.close()
