"""Every request of the corpus through the whole proxy: what reached the backend?

The wire tests say how each input is read; these say what came of it at the
other end, as a reader of messages that has no part in the proxy sees it: no
more requests than were counted, each whole one as the case has it, and never
a byte that it could not place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from scalingo_proxy.model import App, Route, RouteQuery
from scalingo_proxy.protocols.secured import Secured
from scalingo_proxy.protocols.tls_contexts import server_context
from scalingo_proxy.protocols.tls_termination import Negotiated, terminate
from scalingo_proxy.testing.messages import Request
from scalingo_proxy.testing.world import World, build_http_factory
from tests.corpus import Case, load_cases
from tests.protocols.tls_clients import MemoryTLSClient, certificate, client_context
from tests.protocols.worlds import WorldTestCase

_PEERS = {"": "192.0.2.1", "trusted": "10.0.0.9"}
_CASES = [case for case in load_cases("requests") if case.peer in _PEERS]


class AnyHost:
    """Routes every host to one app, so that a host that got through shows."""

    name = "any"

    def __init__(self) -> None:
        self.app: App | None = None

    def set_app(self, app: App) -> None:
        self.app = app

    def resolve(self, query: RouteQuery) -> Route:
        assert self.app is not None
        return Route(self.app, query.host, self.name)


def complaints(case: Case, requests: list[Request], malformed: list[str]) -> list[str]:
    """What reached the backend and should not have, or the other way round."""
    found = [f"the backend could not read: {why}" for why in malformed]
    whole = [request for request in requests if request.is_complete]
    if len(requests) > len(case.accepts) + 1:
        found.append(f"{len(requests)} requests reached the backend, {len(case.accepts)} were accepted")
    if len(whole) > len(case.accepts):
        found.append(f"{len(whole)} whole requests reached the backend")
    if case.then == "ready" and len(whole) < len(case.accepts):
        found.append(f"of {len(case.accepts)} requests, {len(whole)} reached the backend")
    for request, outcome in zip(whole, case.accepts, strict=False):
        method, target, _host = outcome.line.split(" ")
        told = (request.method.decode(), request.target.decode(), request.body)
        if told != (method, target, outcome.body):
            found.append(f"the backend saw {told}, not {(method, target, outcome.body)}")
    return found


def failures(
    run_case: Callable[..., list[str]], cases: Iterable[Any], **options: Any
) -> dict[str, list[str]]:
    """What is wrong with each case, by its name; each is run from a seed of its own."""
    return {
        case.name: found
        for seed, case in enumerate(cases)
        if (found := run_case(case, seed=seed, **options))
    }


class PlainTests(WorldTestCase):
    """Over plain connections, in one piece and cut at random."""

    def run_case(self, case: Case, **options: Any) -> list[str]:
        world = World(resolver=AnyHost(), trusted_proxies=["10.0.0.0/8"], **options)
        app = world.app("any", ["any.test"])
        client = world.client(_PEERS[case.peer])
        client.send(case.input)
        world.advance(1.0)
        if case.closed:
            client.close()
        world.advance(1.0)
        found = complaints(case, app.backend.requests, app.backend.malformed)
        world.end()
        return found

    def test_whole(self) -> None:
        """As one segment."""
        self.assertGreater(len(_CASES), 400)
        self.assertEqual({}, failures(self.run_case, _CASES))

    def test_cut(self) -> None:
        """In segments of random sizes."""
        self.assertEqual({}, failures(self.run_case, _CASES, cut=True))


class _TLSFactory(Factory):
    """Ends TLS in front of a world's HTTP factory, with one certificate for all names."""

    def __init__(self, world: World, **options: Any) -> None:
        self.http = build_http_factory(world, **options)
        self.context = server_context(certificate("any.test"), (b"http/1.1",))
        self.clock: Clock = world.clock

    def doStart(self) -> None:
        self.http.doStart()

    def doStop(self) -> None:
        self.http.doStop()

    def drain(self, seconds: float) -> Any:
        return self.http.drain(seconds)

    def buildProtocol(self, addr: Any) -> Any:
        return _FirstBytes(self)


class _FirstBytes:
    """Hands the connection to TLS with its first bytes."""

    transport: Any

    def __init__(self, factory: _TLSFactory) -> None:
        self.factory = factory

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        factory = self.factory

        def build(negotiated: Negotiated) -> Any:
            frontend = factory.http.buildProtocol(None)
            # Covers everything: which host may be asked here is not what is tested.
            frontend._secured = Secured(negotiated.version, lambda host: True)
            return frontend

        env = factory.http.env
        until = env.seconds() + 10
        self.transport.protocol = terminate(
            env, self.transport, data, factory.context, build, until=until, on_failed=lambda error: None
        )

    def connectionLost(self, reason: Any) -> None:
        pass


class TLSTests(WorldTestCase):
    """Inside TLS that ends at the proxy."""

    def test_whole(self) -> None:
        """As one write inside TLS."""
        failed = {}
        context = client_context()
        for case in _CASES:
            world = World(resolver=AnyHost(), build=_TLSFactory, trusted_proxies=["10.0.0.0/8"])
            app = world.app("any", ["any.test"])
            client = MemoryTLSClient(context, "any.test")
            source = (_PEERS[case.peer], 0)
            world.network.connectTCP(*world.address, _Given(client), bindAddress=source)
            world.run_until(lambda client=client: client.is_established)  # type: ignore[misc]
            client.send(case.input)
            world.advance(1.0)
            if client.reason is None:
                client.transport.abortConnection()
            world.advance(1.0)
            found = complaints(case, app.backend.requests, app.backend.malformed)
            if found:
                failed[case.name] = found
            world.end()
        self.assertEqual({}, failed)


class _Given(Factory):
    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def startedConnecting(self, connector: Any) -> None:
        pass

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        pass

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol
