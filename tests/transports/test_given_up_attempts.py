"""Attempts to connect that fail or are given up: nobody else is hit by what the system tells of them."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from scalingo_proxy.transports.eager import eager


def real_reactor() -> Any:
    """The one that runs the tests, as the proxy uses it."""
    from twisted.internet import reactor

    return eager(reactor)


class Attempt(ClientFactory):
    """One attempt, and what came of it.

    :ivar ended: fires with the protocol, or with the failure.
    """

    noisy = False

    def __init__(self) -> None:
        self.ended: Deferred[Any] = Deferred()
        self.lost: list[Failure] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        protocol = Protocol()
        protocol.connectionMade = lambda: self.ended.callback(protocol)  # type: ignore[method-assign]
        protocol.connectionLost = lambda reason=connectionDone: self.lost.append(reason)  # type: ignore[method-assign]
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.ended.errback(reason)


class GivenUpAttemptTests(TestCase):
    """Real sockets on the loopback interface."""

    def setUp(self) -> None:
        self.reactor = real_reactor()
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.addCleanup(self.listening.close)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.refusing = closed.getsockname()[1]

    def begin(self, port: int) -> tuple[Attempt, Any]:
        attempt = Attempt()
        return attempt, self.reactor.connectTCP("127.0.0.1", port, attempt, timeout=5)

    async def test_refused(self) -> None:
        """Whoever is refused is told so."""
        attempt, _ = self.begin(self.refusing)
        failure = await self.assertFailure(attempt.ended, error.ConnectionRefusedError)
        self.assertIn("refused", str(failure))

    async def given_up_with_an_event(self, then: Any) -> None:
        """Give up attempts that were refused in the very turn that tells of it, and call *then* at once.

        A byte is told of before, over a connection of its own.
        """
        began: Deferred[None] = Deferred()
        attempts: list[Any] = []

        class Alarm(Protocol):
            def dataReceived(self, data: bytes) -> None:
                for attempt, connector in attempts:
                    attempt.ended.addErrback(lambda _: None)
                    connector.stopConnecting()
                began.callback(then())

        factory = Factory()
        factory.protocol = Alarm  # type: ignore[assignment]
        factory.noisy = False
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as ringing:
            await deferLater(self.reactor, 0.05)
            ringing.sendall(b"!")
            attempts += [self.begin(self.refusing) for _ in range(10)]
            await began
            await deferLater(self.reactor, 0.05)

    async def test_new_attempts(self) -> None:
        """Attempts that are begun at that moment succeed, and their connections stay."""
        fresh: list[tuple[Attempt, Any]] = []
        await self.given_up_with_an_event(
            lambda: fresh.extend(self.begin(self.listening.getsockname()[1]) for _ in range(10))
        )
        for attempt, connector in fresh:
            await attempt.ended
            self.assertEqual(attempt.lost, [])
            connector.disconnect()
        await deferLater(self.reactor, 0.05)
