"""Transports that write at once: what the contract of all transports does not say."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder, Recorder
from scalingo_proxy.transports.eager import ACCEPTS_A_TURN, EagerPort, EagerServer, eager
from scalingo_proxy.transports.pipes import Pipes
from scalingo_proxy.transports.splice import begin_splice


class EagerTests(TestCase):
    """One accepted connection, with a plain socket at the other end."""

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = eager(reactor)

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await deferLater(self.reactor, 0)

    async def turns(self, count: int = 20) -> None:
        for _ in range(count):
            await deferLater(self.reactor, 0)

    async def connect(self, kind: type[Recorder] = Recorder) -> tuple[Any, socket.socket]:
        """The protocol, and the socket of its peer."""
        protocol = kind()
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: protocol  # type: ignore[assignment]
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        peer = socket.create_connection(("127.0.0.1", port.getHost().port))
        peer.settimeout(10)
        self.addCleanup(self._end, protocol)
        self.addCleanup(peer.close)
        await self.until(lambda: protocol.transport is not None)
        return protocol, peer

    async def _end(self, protocol: Any) -> None:
        if protocol.reason is None:
            protocol.transport.abortConnection()
        await self.until(lambda: protocol.reason)

    async def test_written_at_once(self) -> None:
        """A write has left before it returns."""
        protocol, peer = await self.connect()
        protocol.transport.write(b"one ")
        protocol.transport.writeSequence([b"two ", b"three"])
        peer.setblocking(False)
        self.assertEqual(peer.recv(100), b"one two three")
        self.assertEqual(self.reactor.getWriters(), [])

    async def test_abort(self) -> None:
        """Who aborts hears of nothing but the end, in a later turn and once; the peer sees a reset."""
        protocol, peer = await self.connect()
        peer.sendall(b"unheard")
        protocol.transport.abortConnection()
        protocol.transport.abortConnection()
        protocol.transport.write(b"unsaid")
        self.assertIs(protocol.reason, None)
        await self.until(lambda: protocol.reason)
        self.assertEqual((protocol.received, protocol.ended_with), (b"", ConnectionAborted))
        self.assertRaises(ConnectionResetError, peer.recv, 100)
        protocol.transport.abortConnection()
        await self.turns()
        self.assertEqual(protocol.events.count("connectionLost"), 1)

    async def test_reset_inside_write(self) -> None:
        """A write that meets a reset raises nothing and calls nobody; the next turn tells of the loss."""
        protocol, peer = await self.connect()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        protocol.transport.write(b"x")
        protocol.transport.write(b"y")
        self.assertIs(protocol.reason, None)
        await self.until(lambda: protocol.reason)
        self.assertIs(protocol.ended_with, ConnectionLost)

    async def test_reset_inside_write_is_no_clean_end(self) -> None:
        """The error that a write has taken is not missed by who reads."""
        protocol, peer = await self.connect(HalfCloseRecorder)
        peer.sendall(b"half of it")
        await self.until(lambda: protocol.received)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        protocol.transport.write(b"x")
        await self.until(lambda: protocol.reason)
        self.assertIs(protocol.ended_with, ConnectionLost)
        self.assertNotIn("readConnectionLost", protocol.events)

    async def test_rest_is_buffered_in_order(self) -> None:
        """What the kernel does not take follows by itself, before what is written later."""
        protocol, peer = await self.connect()
        sent = bytes(range(256)) * 40_000
        protocol.transport.write(sent)
        protocol.transport.write(b"the end")
        protocol.transport.loseConnection()
        received = bytearray()
        while len(received) < len(sent) + 7:
            await self.turns(1)
            received += peer.recv(1 << 20)
        self.assertTrue(received == sent + b"the end")
        await self.until(lambda: protocol.reason)
        self.assertIs(protocol.ended_with, ConnectionDone)

    async def test_write_does_not_overtake_a_pipe(self) -> None:
        """While bytes lie in the pipe of a splice, a write waits behind them."""
        pipes = Pipes()
        if not pipes.are_of_use:
            self.skipTest("there is no splice here")
        self.addCleanup(pipes.close)
        source, source_peer = await self.connect()
        destination, peer = await self.connect()
        splice = begin_splice(source.transport, destination.transport, pipes, lambda count: None)
        assert splice is not None
        source_peer.settimeout(0.2)
        data, sent = bytes(1 << 16), 0
        while not splice.held:
            try:
                sent += source_peer.send(data)
            except TimeoutError:
                pass
            await self.turns(1)
        destination.transport.write(b"behind")
        received = 0
        last = b""
        source.transport.pauseProducing()
        while not last.endswith(b"behind"):
            await self.turns(1)
            last = peer.recv(1 << 20)
            received += len(last)
        splice.stop()
        destination.transport.write(b"at once")
        self.assertEqual(peer.recv(100), b"at once")

    async def test_adopted_and_described_ports(self) -> None:
        """Ports that were adopted, and ports made from endpoint strings, write at once, too."""
        factory = Factory()
        factory.noisy = False
        described = await serverFromString(self.reactor, "tcp:0:interface=127.0.0.1").listen(factory)
        self.addCleanup(described.stopListening)
        opened = socket.create_server(("127.0.0.1", 0))
        opened.setblocking(False)
        self.addCleanup(opened.close)
        adopted = self.reactor.adoptStreamPort(opened.fileno(), socket.AF_INET, factory)
        self.addCleanup(adopted.stopListening)
        for port in (described, adopted):
            self.assertIsInstance(port, EagerPort)
            self.assertIs(port.transport, EagerServer)

    async def test_host(self) -> None:
        """The address a client has connected to is told rightly, also where the port has more than one."""
        opened = socket.create_server(("127.0.0.2", 0))
        opened.setblocking(False)
        self.addCleanup(opened.close)
        ports = (
            (
                "127.0.0.1",
                "127.0.0.1",
                lambda factory: self.reactor.listenTCP(0, factory, interface="127.0.0.1"),
            ),
            ("127.0.0.3", "127.0.0.3", lambda factory: self.reactor.listenTCP(0, factory)),
            ("::1", "::1", lambda factory: self.reactor.listenTCP(0, factory, interface="::1")),
            ("::1", "::1", lambda factory: self.reactor.listenTCP(0, factory, interface="::")),
            (
                "127.0.0.2",
                "127.0.0.2",
                lambda factory: self.reactor.adoptStreamPort(opened.fileno(), socket.AF_INET, factory),
            ),
        )
        for address, expected, listen in ports:
            protocol = Recorder()
            factory = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda addr, made=protocol: made  # type: ignore[assignment,misc]
            port = listen(factory)
            peer = socket.create_connection((address, port.getHost().port))
            await self.until(lambda made=protocol: made.transport is not None)
            transport: Any = protocol.transport
            self.assertEqual(
                (transport.getHost().host, transport.getHost().port), (expected, port.getHost().port)
            )
            self.assertEqual(transport.local_port, 0 if expected == "127.0.0.2" else port.getHost().port)
            self.assertEqual((transport.getPeer().host, transport.getPeer().port), peer.getsockname()[:2])
            # As its constructor makes it, in all respects.
            made = type(transport.getPeer())("TCP", *transport.client)
            self.assertEqual((transport.getPeer(), hash(transport.getPeer())), (made, hash(made)))
            self.assertEqual((repr(transport.getPeer()), vars(transport.getPeer())), (repr(made), vars(made)))
            peer.close()
            await self._end(protocol)
            await port.stopListening()

    async def test_handle(self) -> None:
        """Who asks for the socket gets one of Python's, of either end, and the connection goes on with it."""
        protocol, peer = await self.connect()
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        dialled = Recorder()
        self.reactor.dial("127.0.0.1", listening.getsockname()[1], dialled, 5.0, self.fail)
        self.addCleanup(self._end, dialled)
        for transport in (protocol.transport, dialled.transport):
            descriptor = transport.fileno()
            handle = transport.getHandle()
            self.assertIsInstance(handle, socket.socket)
            self.assertIs(handle, transport.getHandle())
            self.assertEqual((handle.fileno(), transport.fileno()), (descriptor, descriptor))
            self.assertEqual((handle.family, handle.gettimeout()), (socket.AF_INET, 0.0))
            handle.dup().close()
        peer.sendall(b"heard")
        await self.until(lambda: protocol.received)
        protocol.transport.write(b"said")
        self.assertEqual(peer.recv(100), b"said")
        protocol.transport.loseConnection()
        await self.until(lambda: protocol.reason)
        self.assertEqual(peer.recv(100), b"")
        self.assertRaises(AttributeError, protocol.transport.getHandle)

    async def test_names(self) -> None:
        """An accepted connection tells the address of its peer by the names that Twisted's has."""
        protocol, _ = await self.connect()
        transport = protocol.transport
        self.assertEqual((transport.hostname, transport.client[0]), ("127.0.0.1", "127.0.0.1"))

    def test_accepts_are_bounded(self) -> None:
        """However many come, a turn takes in so many, and Twisted's own rule holds below that."""
        port = EagerPort(0, Factory(), Clock())
        self.assertEqual(port.numberAccepts, ACCEPTS_A_TURN)
        port.numberAccepts += 20
        self.assertEqual(port.numberAccepts, ACCEPTS_A_TURN)
        port.numberAccepts = 1
        port.numberAccepts += 5
        self.assertEqual(port.numberAccepts, 6)

    def test_other_reactors_stay_as_they_are(self) -> None:
        """A reactor that polls no sockets is left alone."""
        network = MemoryNetwork(Clock())
        self.assertIs(eager(network), network)
