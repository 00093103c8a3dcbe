"""When bytes are spliced, when not, and that nothing is left of either."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface import directlyProvides

from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder
from scalingo_proxy.testing.transports import connected_pair
from scalingo_proxy.transports import splice
from scalingo_proxy.transports.eager import eager
from scalingo_proxy.transports.pipes import Pipes
from scalingo_proxy.transports.splice import can_be_spliced
from tests.transports.test_tunnels import open_tunnel
from tests.transports.tunnel_suite import Tunnel

MEGABYTE = bytes(range(256)) * 4096


class SpliceTestCase(TestCase):
    """Tunnels over real sockets, with the pipes that the test looks at."""

    timeout = 60

    def setUp(self) -> None:
        self.pipes = Pipes()
        if not self.pipes.are_of_use:
            raise SkipTest("this platform cannot splice")
        self.addCleanup(self.pipes.close)
        self.tunnels: list[Tunnel] = []
        self.addCleanup(self.cut_all)

    async def open(self) -> Tunnel:
        from twisted.internet import reactor

        tunnel = await open_tunnel(eager(reactor), self.pipes, self.addCleanup)
        self.tunnels.append(tunnel)
        return tunnel

    async def cut_all(self) -> None:
        for tunnel in self.tunnels:
            for protocol in (tunnel.client, tunnel.backend, *tunnel.ends):
                protocol.transport.abortConnection()
        await self.until(lambda: all(one.client.reason and one.backend.reason for one in self.tunnels))
        await self.until(lambda: all(one.ended == 1 for one in self.tunnels))
        self.assertEqual(self.pipes.given_count, 0)

    async def until(self, condition: Callable[[], Any]) -> None:
        from twisted.internet import reactor

        while not condition():
            await deferLater(reactor, 0)  # type: ignore[arg-type]

    async def rest(self) -> None:
        from twisted.internet import reactor

        for _ in range(40):
            await deferLater(reactor, 0)  # type: ignore[arg-type]

    def count_pieces(self, tunnel: Tunnel) -> list[int]:
        """The sizes of what comes into this process from now on."""
        sizes: list[int] = []
        for end in tunnel.ends:
            data_received = end.dataReceived
            self.patch(
                end, "dataReceived", lambda data, tell=data_received: (sizes.append(len(data)), tell(data))
            )
        return sizes

    async def begin(self) -> Tunnel:
        """A tunnel through which two pieces have gone each way: what follows can be spliced."""
        tunnel = await self.open()
        for count in (1, 2):
            tunnel.client.transport.write(b"x")
            tunnel.backend.transport.write(b"y")
            await self.until(lambda sent=count: tunnel.client.count == tunnel.backend.count == sent)
        await self.rest()
        return tunnel


class SpliceTests(SpliceTestCase):
    """What is spliced."""

    async def test_bytes_do_not_come_here(self) -> None:
        """After the second piece of a direction, nothing enters this process any more."""
        tunnel = await self.begin()
        pieces = self.count_pieces(tunnel)
        tunnel.client.transport.write(MEGABYTE)
        tunnel.backend.transport.write(MEGABYTE)
        await self.until(lambda: tunnel.client.count + tunnel.backend.count == 2 * len(MEGABYTE) + 4)
        self.assertEqual(pieces, [])
        self.assertEqual(tunnel.relay.client.received, len(MEGABYTE) + 2)

    async def test_no_pipe_is_held_at_rest(self) -> None:
        """However many tunnels there are, pipes are in use only where bytes wait."""
        tunnels = [await self.begin() for _ in range(10)]
        for tunnel in tunnels:
            tunnel.client.transport.write(MEGABYTE)
        await self.until(lambda: all(tunnel.backend.count == len(MEGABYTE) + 2 for tunnel in tunnels))
        await self.rest()
        self.assertEqual(self.pipes.given_count, 0)
        self.assertLessEqual(self.pipes.kept_count, 10)

    async def test_a_slow_reader_holds_one_pipe(self) -> None:
        """Bytes that wait do so in one pipe of their own, and in the buffers of the kernel."""
        tunnel = await self.begin()
        tunnel.backend.transport.pauseProducing()
        tunnel.client.transport.write(MEGABYTE * 16)
        await self.until(lambda: self.pipes.given_count)
        await self.rest()
        self.assertEqual(self.pipes.given_count, 1)
        tunnel.backend.transport.resumeProducing()
        await self.until(lambda: tunnel.backend.count == 16 * len(MEGABYTE) + 2)
        await self.rest()
        self.assertEqual(self.pipes.given_count, 0)

    async def test_nothing_turns_at_rest(self) -> None:
        """With readers that do not read, and ends that were closed, the reactor sleeps."""
        from twisted.internet import reactor

        for stall in (True, False):
            tunnel = await self.begin()
            if stall:
                tunnel.backend.transport.pauseProducing()
                tunnel.client.transport.write(MEGABYTE * 16)
            tunnel.client.transport.loseWriteConnection()
            await deferLater(reactor, 0.5)  # type: ignore[arg-type]
            self.assertLess(await self.count_turns(0.1), 20)

    async def count_turns(self, seconds: float) -> int:
        """How often the reactor wakes up meanwhile."""
        from twisted.internet import reactor

        turns: list[float] = []
        iterate = reactor.doIteration  # type: ignore[attr-defined]
        patch = self.patch(reactor, "doIteration", lambda delay: (turns.append(delay), iterate(delay)))
        await deferLater(reactor, seconds)  # type: ignore[arg-type]
        patch.restore()
        return len(turns)

    async def test_transports_are_given_back(self) -> None:
        """A tunnel that is over leaves nothing of its own in the transports."""
        tunnel = await self.begin()
        transports = [end.transport for end in tunnel.ends]
        for transport in transports:
            self.assertIn("doRead", transport.__dict__)
        tunnel.client.transport.loseConnection()
        await self.until(lambda: tunnel.backend.saw_end)
        tunnel.backend.transport.loseConnection()
        await self.until(lambda: tunnel.ended)
        for transport in transports:
            self.assertEqual([name for name in ("doRead", "doWrite") if name in transport.__dict__], [])


    async def test_one_piece_each_way(self) -> None:
        """What carries no more than that is not made ready for more."""
        tunnel = await self.open()
        tunnel.client.transport.write(b"x")
        tunnel.backend.transport.write(b"y")
        await self.until(lambda: tunnel.client.count == tunnel.backend.count == 1)
        for end in tunnel.ends:
            self.assertNotIn("doRead", end.transport.__dict__)
        self.assertEqual(self.pipes.kept_count, 0)


class FallbackTests(SpliceTestCase):
    """Where bytes cannot be spliced, they arrive all the same."""

    async def assert_carries(self, tunnel: Tunnel) -> None:
        """Both ways, whatever went through before."""
        before = tunnel.client.count, tunnel.backend.count
        tunnel.client.transport.write(MEGABYTE)
        tunnel.backend.transport.write(MEGABYTE)
        await self.until(
            lambda: (
                (tunnel.client.count, tunnel.backend.count)
                == (before[0] + len(MEGABYTE), before[1] + len(MEGABYTE))
            )
        )
        for peer in (tunnel.client, tunnel.backend):
            self.assertTrue(peer.received.endswith(MEGABYTE))

    async def test_no_descriptors_left(self) -> None:
        """Without a descriptor for a pipe, the ordinary way is taken, until there are some again."""
        tunnel = await self.begin()
        self.pipes.close()
        self.pipes.open()

        def refuse(flags: int) -> tuple[int, int]:
            raise OSError(errno.EMFILE, "too many open files")

        patch = self.patch(os, "pipe2", refuse)
        pieces = self.count_pieces(tunnel)
        await self.assert_carries(tunnel)
        self.assertEqual(sum(pieces), 2 * len(MEGABYTE))
        patch.restore()
        await self.assert_carries(tunnel)
        self.assertEqual(sum(pieces), 2 * len(MEGABYTE))

    async def test_kernel_that_does_not_splice(self) -> None:
        """A kernel that refuses these sockets is asked once."""
        asked = []

        def refuse(*arguments: Any, **named: Any) -> int:
            asked.append(arguments)
            raise OSError(errno.EINVAL, "invalid argument")

        self.patch(splice, "_splice", refuse)
        tunnel = await self.begin()
        await self.assert_carries(tunnel)
        self.assertEqual((len(asked), self.pipes.are_of_use), (1, False))

    async def test_kernel_that_takes_and_does_not_give(self) -> None:
        """What is in a pipe already is not lost when the kernel refuses to write it."""
        tunnel = await self.begin()
        real = os.splice

        def half(source: int, sink: int, count: int, **named: Any) -> int:
            if sink in (end.transport.fileno() for end in tunnel.ends):
                raise OSError(errno.EINVAL, "invalid argument")
            return real(source, sink, count, **named)

        self.patch(splice, "_splice", half)
        await self.assert_carries(tunnel)
        self.assertFalse(self.pipes.are_of_use)

    def test_transports_in_memory(self) -> None:
        """A transport that is no TCP socket is left alone."""
        near, far = connected_pair(Clock(), HalfCloseRecorder(), HalfCloseRecorder())
        self.assertFalse(can_be_spliced(near) or can_be_spliced(far))
        self.assertFalse(can_be_spliced(MemoryNetwork(Clock())))

    async def test_unix_sockets_and_tls(self) -> None:
        """Neither unix sockets nor TLS on top of TCP are."""
        from twisted.internet import reactor

        path = self.mktemp()
        served: list[Any] = []
        factory = Factory()
        factory.buildProtocol = lambda addr: served.append(HalfCloseRecorder()) or served[-1]  # type: ignore[assignment]
        port = reactor.listenUNIX(path, factory)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        client = await connectProtocol(UNIXClientEndpoint(reactor, path), HalfCloseRecorder())
        await self.until(lambda: served and served[0].transport)
        self.assertFalse(can_be_spliced(client.transport))
        served[0].transport.abortConnection()
        await self.until(lambda: served[0].reason)
        tunnel = await self.begin()
        transport = tunnel.ends[0].transport
        self.assertTrue(can_be_spliced(transport))
        directlyProvides(transport, ISSLTransport)
        self.assertFalse(can_be_spliced(transport))


class DescriptorTests(SpliceTestCase):
    """Descriptors come back, whatever becomes of a tunnel."""

    timeout = 90

    async def one_life(self, number: int) -> None:
        """Open a tunnel, and end it at a stage and in a way that *number* says."""
        tunnel = await self.open()
        peers = (tunnel.client, tunnel.backend)
        stage, ending = number % 5, number // 5 % 5
        if stage >= 1:
            tunnel.client.transport.write(b"x")
        if stage >= 2:
            tunnel.backend.transport.write(b"y")
            await self.until(lambda: tunnel.client.count)
        if stage >= 3:
            tunnel.backend.transport.pauseProducing()
            tunnel.client.transport.write(MEGABYTE * 8)
            await self.until(lambda: self.pipes.given_count)
        if stage == 4:
            tunnel.client.transport.loseWriteConnection()
            await self.until(lambda: True)
        tunnel.backend.transport.resumeProducing()
        if ending == 0:
            tunnel.relay.abort()
        elif ending == 1:
            tunnel.client.transport.abortConnection()
        elif ending == 2:
            tunnel.backend.transport.abortConnection()
        elif ending == 3:
            for peer in peers:
                peer.transport.loseConnection()
        else:
            tunnel.backend.transport.pauseProducing()
            tunnel.ends[0].transport.loseConnection()
            tunnel.ends[1].transport.abortConnection()
        await self.until(lambda: tunnel.ended or tunnel.client.saw_end or tunnel.backend.saw_end)
        for peer in peers:
            peer.transport.abortConnection()
        await self.until(lambda: tunnel.ended and all(peer.reason for peer in peers))

    async def test_two_hundred_lives(self) -> None:
        """200 tunnels, 20 at a time, ended at every stage in every way, leave no descriptor."""
        await self.one_life(4)
        self.pipes.close()
        self.pipes.open()
        gc.collect()  # tests before this one may have left descriptors in garbage
        before = len(os.listdir("/proc/self/fd"))
        for start in range(0, 200, 20):
            lives = [self.start_life(number) for number in range(start, start + 20)]
            await gatherResults(lives, consumeErrors=True)
        await self.rest()
        self.assertEqual(self.pipes.given_count, 0)
        self.pipes.close()
        # Each life has left its two listening ports, which the test closes at its end.
        self.assertEqual(len(os.listdir("/proc/self/fd")) - 400, before)

    def start_life(self, number: int) -> Any:
        return Deferred.fromCoroutine(self.one_life(number))
