"""A door behind another proxy: the header first, then nothing in between."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, FirstError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides, providedBy

from scalingo_proxy.model import Limits
from scalingo_proxy.protocols.deadlines import GRANULARITY
from scalingo_proxy.protocols.factories import HTTPProxyFactory, make_environment
from scalingo_proxy.protocols.proxy_header import ProxyHeaderFactory
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder, Recorder, TransportBinding
from scalingo_proxy.testing.transports import MemoryTransport
from scalingo_proxy.testing.world import World, build_http_factory
from scalingo_proxy.transports.eager import eager
from scalingo_proxy.wire.proxy_header import ProxyHeader, encode_proxy_v1, encode_proxy_v2
from tests.contracts import test_transports as bindings
from tests.corpus.proxy_headers import HERE, read_header
from tests.protocols.test_tls_wrapped import server_creator
from tests.protocols.test_upgrades import websocket
from tests.protocols.tls_clients import MemoryTLSClient
from tests.protocols.worlds import WorldTestCase, each_world, get, hello

HEADER = ProxyHeader("192.0.2.1", 56324, "198.51.100.2", 443)
PEER = IPv4Address("TCP", "192.0.2.1", 56324)
HOST = IPv4Address("TCP", "198.51.100.2", 443)
V1 = encode_proxy_v1(HEADER)
V2 = encode_proxy_v2(HEADER, checksum=True)
LOCAL = encode_proxy_v2(ProxyHeader(is_local=True))
SECONDS = 5.0


def build(world: World, **options: Any) -> ProxyHeaderFactory:
    """An HTTP door that demands headers."""
    http = build_http_factory(world)
    return ProxyHeaderFactory(http, http.env, **options)


def serving(make: Callable[[], Any]) -> ClientFactory[Any]:
    """A factory, for either end, of the protocols that *make* gives."""
    factory: ClientFactory[Any] = ClientFactory()
    factory.noisy = False
    factory.buildProtocol = lambda addr: make()  # type: ignore[method-assign,assignment]
    return factory


def in_front_of(make: Callable[[], Any], **options: Any) -> Callable[[World], ProxyHeaderFactory]:
    """A door that demands headers in front of the protocols that *make* gives."""
    return lambda world: ProxyHeaderFactory(serving(make), build_http_factory(world).env, **options)


class HTTPTests(WorldTestCase):
    """In front of HTTP."""

    @each_world(build=build)
    def test_addresses(self, world: World) -> None:
        """The header's addresses are the client's everywhere."""
        app = hello(world, replies.fixed(b"hello"))
        for header in (V1, V2):
            self.assertEqual(world.request(header + get()).body, b"hello")
            names = (b"X-Forwarded-For", b"X-Real-IP", b"X-Forwarded-Port")
            told = [app.backend.requests[-1].get(name) for name in names]
            self.assertEqual(told, [b"192.0.2.1", b"192.0.2.1", b"443"])
        self.assertEqual([record.client for record in world.records], ["192.0.2.1"] * 2)

    @each_world(build=build)
    def test_cut_anywhere(self, world: World) -> None:
        """A header may come in single bytes, and so may what follows it."""
        hello(world, replies.fixed(b"hello"))
        client = world.client().send_slowly(V2 + get(), every_seconds=0.01)
        world.run_until(lambda: client.responses)
        self.assertEqual(world.records[0].client, "192.0.2.1")

    @each_world(build=build)
    def test_own_addresses(self, world: World) -> None:
        """Where the header tells none, the connection's own count: a health check is served."""
        hello(world, replies.fixed(b"hello"))
        for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
            self.assertEqual(world.request(header + get(), source="10.1.2.3").status, 200)
        self.assertEqual([record.client for record in world.records], ["10.1.2.3"] * 2)

    @each_world(build=build)
    def test_forged_headers(self, world: World) -> None:
        """Being believed about the address is not being believed about ``X-Forwarded-For``."""
        app = hello(world, replies.fixed(b"hello"))
        world.request(V1 + get(b"/", b"hello.test", b"X-Forwarded-For: 6.6.6.6"))
        self.assertEqual(app.backend.requests[0].get(b"X-Forwarded-For"), b"192.0.2.1")

    @each_world(build=build)
    def test_kept_alive(self, world: World) -> None:
        """One header serves all requests of its connection."""
        hello(world, replies.fixed(b"hello"))
        client = world.client().send(V1 + get() + get()).send(get())
        world.run_until(lambda: len(client.responses) == 3)
        self.assertEqual(world.observer.codes, ["-"] * 3)

    @each_world(build=build)
    def test_tunnel(self, world: World) -> None:
        """Half-close travels through."""
        hello(world, replies.upgrade_echo(farewell=b"bye"))
        client = world.client(closes_at_end=False).send(V2 + websocket())
        world.run_until(lambda: client.responses)
        client.send(b"hello")
        client.half_close()
        world.run_until(lambda: client.saw_end)
        self.assertEqual(client.tunnelled, b"hellobye")


class RefusalTests(WorldTestCase):
    """Everything else is closed without a word."""

    def refused(self, world: World, data: bytes) -> None:
        """*data* leads to a close and one record, and to no backend."""
        app = hello(world, replies.fixed(b"hello"))
        client = world.client().send(data)
        world.run_until(lambda: client.is_over)
        self.assertEqual((client.received, app.requests), (b"", 0))
        record = world.observer.record
        self.assertEqual((record.code, record.status, record.client), ("bad-request", 400, "127.0.0.1"))
        self.assertEqual((record.listener, record.protocol, record.app), ("http", "proxy", ""))

    @each_world(build=build)
    def test_no_header(self, world: World) -> None:
        """Plain HTTP on a port that wants a header."""
        self.refused(world, get())

    @each_world(build=build)
    def test_malformed(self, world: World) -> None:
        """A header that is wrong, and a good request behind it."""
        self.refused(world, V1.replace(b"443", b"0443") + get())

    @each_world(build=build)
    def test_wrong_checksum(self, world: World) -> None:
        """A header that was damaged on the way."""
        self.refused(world, V2[:-1] + bytes([V2[-1] ^ 1]) + get())

    @each_world(build=build)
    def test_cut_off(self, world: World) -> None:
        """The client ends inside its header."""
        client = world.client().send(V1[:20])
        world.settle()
        client.close()
        world.settle()
        self.assertEqual(world.observer.codes, ["bad-request"])

    @each_world(build=build)
    def test_probe(self, world: World) -> None:
        """A connection that says nothing is a probe: no record."""
        world.client().close()
        world.client().abort()
        world.settle()
        self.assertEqual(world.records, [])

    @each_world(build=build)
    def test_silence(self, world: World) -> None:
        """Silence is closed at the deadline, and leaves no record either."""
        client = world.client()
        world.advance(SECONDS - 0.2)
        self.assertFalse(client.is_over)
        world.advance(0.2 + 2 * GRANULARITY)
        self.assertTrue(client.is_over)
        self.assertEqual(world.records, [])

    @each_world(build=build)
    def test_late(self, world: World) -> None:
        """Bytes do not move the deadline."""
        client = world.client().send_slowly(V1, every_seconds=0.25)
        world.advance(SECONDS + 0.5)
        self.assertTrue(client.is_over)
        self.assertEqual((world.observer.record.code, world.observer.record.status), ("request-timeout", 408))
        self.assertEqual(client.received, b"")

    @each_world(build=build, header_seconds=3.0)
    def test_in_time(self, world: World) -> None:
        """The deadline is the header's alone: the request behind it has its own."""
        hello(world, replies.fixed(b"hello"))
        client = world.client()
        world.advance(2.5)
        client.send(V1)
        world.advance(2.0)
        client.send(get())
        world.run_until(lambda: client.responses)

    @each_world(build=build, trusted_proxies=["10.0.0.0/8", "2001:db8::/32"])
    def test_trusted_only(self, world: World) -> None:
        """Who may not send a header is closed before a byte is read."""
        hello(world, replies.fixed(b"hello"))
        stranger = world.client(source="11.0.0.1").send(V1 + get())
        world.run_until(lambda: stranger.is_over)
        self.assertEqual(stranger.received, b"")
        record = world.observer.record
        self.assertEqual((record.code, record.status, record.client), ("denied", 403, "11.0.0.1"))
        self.assertEqual(world.request(V1 + get(), source="10.9.8.7").status, 200)

    def test_unix_peer(self) -> None:
        """A peer without an address is in no network."""
        world = self.world(build=build, trusted_proxies=["0.0.0.0/0", "::/0"])
        self.assertIs(world.factory.buildProtocol(UNIXAddress(None)), None)
        self.assertEqual(world.observer.codes, ["denied"])

    @each_world(build=build, limits=Limits(client_connections=2))
    def test_crowd(self, world: World) -> None:
        """Clients that owe their header count as clients."""
        hello(world, replies.fixed(b"hello"))
        waiting = [world.client(), world.client()]
        third = world.client()
        world.run_until(lambda: third.is_over)
        self.assertEqual(world.observer.opened["http", "refused"], 1)
        waiting[0].send(V1 + get())
        world.run_until(lambda: waiting[0].responses)
        self.assertEqual(world.factory.env.client_connections, 2)


class StoppingTests(WorldTestCase):
    """Stopping."""

    def test_drain(self) -> None:
        """Clients without a header go, but for those that have just come; exchanges under way finish."""
        world = self.world(build=build)
        app = hello(world)
        app.backend.answer(replies.delayed(1.5, replies.fixed(b"late")))
        silent = world.client()
        world.advance(1.1)
        busy, new, mute = world.client().send(V1 + get()), world.client(), world.client()
        world.run_until(lambda: app.requests)
        drained = world.factory.drain(10.0)
        world.settle()
        self.assertTrue(silent.is_over)
        world.advance(0.5)
        new.send(V1 + get())
        world.advance(0.7)
        self.assertTrue(mute.is_over)
        self.assertNoResult(drained)
        world.run_until(drained)
        world.settle()
        self.assertEqual([client.response.body for client in (busy, new)], [b"late"] * 2)

    def test_drain_of_the_last_moment(self) -> None:
        """The drain waits for a client whose header came when nobody else was left."""
        world = self.world(build=build)
        hello(world)
        client = world.client()
        world.settle()
        drained = world.factory.drain(10.0)
        world.advance(0.5)
        self.assertNoResult(drained)
        client.send(V1 + get())
        world.run_until(drained)
        world.settle()
        self.assertEqual(client.statuses, [200])

    def test_drain_that_is_given_up(self) -> None:
        """Whoever waits no longer is told of that, and nobody else."""
        world = self.world(build=build)
        hello(world)
        world.client().send(V1 + get()[:-2])  # at the factory behind
        world.settle()
        world.client()
        world.settle()
        drained = world.factory.drain(10.0)
        drained.cancel()
        failure = self.failureResultOf(drained, FirstError)
        self.assertIsInstance(failure.value.subFailure.value, CancelledError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_drain_of_others(self) -> None:
        """A factory that knows no drain is left alone."""
        world = self.world(build=in_front_of(Recorder))
        self.successResultOf(world.factory.drain(1.0))

    def test_started_and_stopped_together(self) -> None:
        """The factory behind is started and stopped with this one."""
        world = self.world(build=build)
        self.assertEqual(world.factory.wrapped.numPorts, 1)
        world.factory.doStart()
        world.factory.doStop()
        self.assertEqual(world.factory.wrapped.numPorts, 1)


class _Curious(Recorder):
    """Asks for the addresses at its first moment."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.seen = self.transport.getPeer(), self.transport.getHost()


class InnerTestCase(WorldTestCase):
    """Tests that look at the protocol behind."""

    def inner(self, kind: type[Recorder], data: bytes, **options: Any) -> tuple[World, Any, Any]:
        """The world, the protocol behind the header in *data*, and its client."""
        made: list[Recorder] = []

        def make() -> Recorder:
            made.append(kind())
            return made[-1]

        world = self.world(build=in_front_of(make), **options)
        client = world.client().send(data)
        world.run_until(lambda: made and made[0].transport)
        return world, made[0], client


class HandOverTests(InnerTestCase):
    """What the protocol behind meets."""

    def test_first_moment(self) -> None:
        """The addresses are the header's from the beginning."""
        _, inner, _ = self.inner(_Curious, V1)
        self.assertEqual(inner.seen, (PEER, HOST))

    def test_ipv6(self) -> None:
        """IPv6 is equal."""
        header = ProxyHeader("2001:db8::1", 1, "2001:db8::2", 2)
        _, inner, _ = self.inner(_Curious, encode_proxy_v2(header))
        self.assertEqual(
            inner.seen, (IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "2001:db8::2", 2))
        )

    def test_unix(self) -> None:
        """Unix sockets have paths, or none."""
        for name, path in (("unix", b"/run/client.sock"), ("unix-unnamed", None)):
            _, inner, _ = self.inner(_Curious, read_header(HERE / "v2" / f"{name}.header").data)
            self.assertEqual(inner.seen, (UNIXAddress(path), UNIXAddress(b"/run/door.sock")))

    def test_nothing_in_between(self) -> None:
        """The transport is the real one, and deals with the protocol itself."""
        _, inner, _ = self.inner(Recorder, V1)
        self.assertIs(type(inner.transport), MemoryTransport)
        self.assertIs(inner.transport.protocol, inner)

    def test_excess(self) -> None:
        """What came behind the header comes first, in one piece, and everything else after it."""
        world, inner, client = self.inner(Recorder, V1 + b"first")
        client.send(b" second")
        world.settle()
        self.assertEqual((inner.received, inner.sizes), (b"first second", [5, 7]))

    def test_nobody_behind(self) -> None:
        """The factory behind may want no more clients."""
        world = self.world(build=in_front_of(lambda: None))
        client = world.client().send(V1 + b"x")
        world.run_until(lambda: client.is_over)
        self.assertEqual(world.records, [])

    def test_tls(self) -> None:
        """TLS begins behind the header, and its addresses are the header's."""
        made: list[_Curious] = []

        def make() -> _Curious:
            made.append(_Curious())
            return made[-1]

        world = self.world(
            build=lambda world: ProxyHeaderFactory(
                TLSMemoryBIOFactory(server_creator(), False, serving(make), world.clock),
                build_http_factory(world).env,
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = _TLSBehindHeader(context, "hello.test")
        world.network.connectTCP(*world.address, serving(lambda: client))
        world.run_until(lambda: client.is_established)
        client.send(b"inside")
        world.run_until(lambda: made and made[0].received == b"inside")
        self.assertEqual(made[0].seen, (PEER, HOST))
        client.transport.loseConnection()
        world.settle()


class _TLSBehindHeader(MemoryTLSClient):
    """A TLS client that another proxy brings: header and hello in one segment."""

    def connectionMade(self) -> None:
        transport, self.transport = self.transport, StringTransport()
        super().connectionMade()
        hello, self.transport = self.transport.value(), transport
        transport.write(V2 + hello)


class _Paused(Recorder):
    """Wants no data at first."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.pauseProducing()


class _Resumed(_Paused):
    """Changes its mind while it is being connected."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.resumeProducing()
        self.received_inside = self.received


class _Closing(Recorder):
    """Wants nothing at all."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.loseConnection()


class _Aborting(Recorder):
    """Likewise, in a hurry."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.abortConnection()


class _Broken(_Paused):
    """Fails on data."""

    def dataReceived(self, data: bytes) -> None:
        raise ZeroDivisionError


class HeldBackTests(InnerTestCase):
    """What came with the header waits for a protocol that is not ready."""

    def test_until_resumed(self) -> None:
        """It comes when the protocol resumes: not from inside that call, and before anything else."""
        world, inner, client = self.inner(_Paused, V1 + b"first")
        client.send(b" second")
        world.settle()
        self.assertEqual(inner.received, b"")
        inner.transport.resumeProducing()
        self.assertEqual(inner.received, b"")
        world.settle()
        self.assertEqual((inner.received, inner.sizes), (b"first second", [5, 7]))

    def test_pausing_is_ordinary_afterwards(self) -> None:
        """Nothing of the watch stays on the transport."""
        world, inner, client = self.inner(_Paused, V1 + b"first")
        inner.transport.resumeProducing()
        world.settle()
        self.assertEqual(
            {name for name in vars(inner.transport) if name.endswith("Producing") or name.startswith("get")},
            {"getPeer", "getHost"},
        )
        inner.transport.pauseProducing()
        client.send(b"second")
        world.settle()
        self.assertEqual(inner.received, b"first")
        inner.transport.resumeProducing()
        world.settle()
        self.assertEqual(inner.received, b"firstsecond")

    def test_paused_again(self) -> None:
        """A protocol may pause again before anything came."""
        world, inner, _ = self.inner(_Paused, V1 + b"first")
        inner.transport.resumeProducing()
        inner.transport.pauseProducing()
        world.settle()
        self.assertEqual(inner.received, b"")
        inner.transport.resumeProducing()
        inner.transport.resumeProducing()
        world.settle()
        self.assertEqual(inner.received, b"first")

    def test_resumed_at_once(self) -> None:
        """Nothing is delivered before the protocol is connected."""
        world, inner, _ = self.inner(_Resumed, V1 + b"first")
        world.settle()
        self.assertEqual((inner.received_inside, inner.received), (b"", b"first"))

    def test_client_gone_meanwhile(self) -> None:
        """What nobody asked for in time is dropped with the connection."""
        world, inner, client = self.inner(_Paused, V1 + b"first")
        client.abort()
        world.settle()
        inner.transport.loseConnection()
        inner.transport.resumeProducing()
        world.settle()
        self.assertEqual(inner.received, b"")
        self.assertEqual(inner.events, ["connectionMade", "connectionLost"])

    def test_closed_while_connecting(self) -> None:
        """Nothing is delivered to a protocol that has closed."""
        for kind in (_Closing, _Aborting):
            world, inner, client = self.inner(kind, V1 + b"first")
            world.run_until(lambda client=client: client.is_over)
            self.assertEqual((inner.received, inner.events), (b"", ["connectionMade", "connectionLost"]))

    def test_failure(self) -> None:
        """A protocol that fails on it loses its connection, as ever."""
        world, inner, client = self.inner(_Broken, V1 + b"first")
        inner.transport.resumeProducing()
        world.run_until(lambda: client.is_over)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


# -- transports that cannot be told other addresses ---------------------------


class _Veil:
    """Stands between a transport and its protocol, so that neither can be exchanged."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def _same(self) -> None:
        directlyProvides(self, providedBy(self._protocol))

    def makeConnection(self, transport: Any) -> None:
        self._protocol.makeConnection(transport)
        self._same()

    def dataReceived(self, data: bytes) -> None:
        self._protocol.dataReceived(data)
        self._same()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)


class VeiledTests(SynchronousTestCase):
    """A thin layer stays where the transport does not let go."""

    def connected(self, kind: type[Recorder]) -> tuple[Any, Recorder, StringTransport]:
        """The layer, the protocol behind it, and the transport."""
        inner = kind()
        self.world = world = World(build=in_front_of(lambda: inner))
        self.addCleanup(world.end)
        outer = world.factory.buildProtocol(None)
        transport = StringTransport()
        outer.makeConnection(transport)
        outer.dataReceived(V1 + b"first")
        return outer, inner, transport

    def test_addresses(self) -> None:
        """Addresses are the header's, everything else is the transport's."""
        _, inner, transport = self.connected(_Curious)
        assert isinstance(inner, _Curious)
        self.assertEqual(inner.seen, (PEER, HOST))
        inner.transport.write(b"out")
        self.assertEqual(transport.value(), b"out")
        self.assertEqual(list(providedBy(inner.transport)), list(providedBy(transport)))

    def test_data_and_end(self) -> None:
        """Data and ends pass."""
        outer, inner, _ = self.connected(HalfCloseRecorder)
        outer.dataReceived(b" second")
        self.assertTrue(IHalfCloseableProtocol.providedBy(outer))
        outer.readConnectionLost()
        outer.writeConnectionLost()
        outer.connectionLost(None)
        outer.dataReceived(b"too late")
        outer.readConnectionLost()
        self.assertEqual(inner.received, b"first second")
        self.assertEqual(inner.events[1:], ["readConnectionLost", "writeConnectionLost", "connectionLost"])

    def test_held_back(self) -> None:
        """What came with the header waits here, too."""
        _, inner, transport = self.connected(_Paused)
        self.assertEqual((inner.received, transport.producerState), (b"", "paused"))
        inner.transport.resumeProducing()
        self.world.settle()
        self.assertEqual((inner.received, transport.producerState), (b"first", "producing"))

    def test_half_close_only_where_known(self) -> None:
        """A protocol that knows no half-close is not asked."""
        outer, _, _ = self.connected(Recorder)
        self.assertFalse(IHalfCloseableProtocol.providedBy(outer))


class _OtherAddresses(TransportBinding):
    """What of the contract of transports cannot hold behind a header."""

    async def test_addresses_match(self) -> None:
        """Addresses are the header's instead of the connection's."""
        near, _ = await self.pair()
        self.assertEqual((near.transport.getPeer(), near.transport.getHost()), (PEER, HOST))

    async def test_address_after_loss(self) -> None:
        """Both are told after the connection was lost, too."""
        near, far = await self.pair()
        far.transport.loseConnection()
        await self.until(lambda: near.reason)
        self.assertEqual((near.transport.getPeer(), near.transport.getHost()), (PEER, HOST))


class BehindHeader(_OtherAddresses, bindings.Memory):
    """The contract of transports holds for what the protocol behind gets."""

    def door(self, near: Recorder) -> Any:
        """What listens."""
        return ProxyHeaderFactory(serving(lambda: near), make_environment(None, self.network))

    async def connect(self, near: Recorder, far: Recorder) -> None:
        port = self.network.listenTCP(0, self.door(near), interface=self.host)
        self.network.connectTCP(self.host, port.getHost().port, serving(lambda: far))
        self.network.run_until(lambda: far.transport)
        far.transport.write(V2)
        self.network.run_until(lambda: near.transport)


class BehindHeaderCut(BehindHeader):
    """The same with reads and writes of random parts."""

    settings = bindings.MemoryCut.settings


class BehindHeaderVeiled(BehindHeader):
    """The same where a thin layer stays."""

    def door(self, near: Recorder) -> Any:
        door = super().door(near)
        return serving(lambda: _Veil(door.buildProtocol(None)))


class BehindHeaderLoopback(_OtherAddresses, bindings.LoopbackTCP):
    """The same with real sockets."""

    async def connect(self, near: Recorder, far: Recorder) -> None:
        from twisted.internet import reactor

        door = ProxyHeaderFactory(serving(lambda: near), make_environment(None, reactor))
        port = reactor.listenTCP(0, door, interface=self.host)
        self.addCleanup(port.stopListening)
        self.addCleanup(self._abort, near, far)
        reactor.connectTCP(self.host, port.getHost().port, serving(lambda: far))
        await self.until(lambda: far.transport)
        far.transport.write(V1)
        await self.until(lambda: near.transport)


class KnownPortTests(TestCase):
    """Before transports that know what they are connected to."""

    timeout = 30

    async def test_port_of_the_header(self) -> None:
        """What the header says is believed, not what the transport knows of itself."""
        made: list[Protocol] = []

        class Inner(Protocol):
            def connectionMade(self) -> None:
                made.append(self)

        http = HTTPProxyFactory(MemoryResolver(), Clock())
        wrapped = Factory.forProtocol(Inner)
        wrapped.noisy = False
        for header, expected in ((V1, 443), (b"PROXY UNKNOWN\r\n", 0)):
            port = eager(installed).listenTCP(0, ProxyHeaderFactory(wrapped, http.env), interface="127.0.0.1")
            number = port.getHost().port
            with socket.create_connection(("127.0.0.1", number)) as peer:
                peer.sendall(header)
                while not made:
                    await deferLater(installed, 0.01)
                transport: Any = made.pop().transport
                self.assertEqual(http.identify(transport).port, expected or number)
                transport.abortConnection()
                await deferLater(installed, 0)
            await port.stopListening()
