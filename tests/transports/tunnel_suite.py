"""What a tunnel owes the two peers it joins: one suite for every way in which bytes are carried.

A relay stands between a client and a backend; both are recorders that the
tests command directly.  Bind the suite by mixing :class:`TunnelSuite` into a
trial ``TestCase`` that says how to connect and how to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone

from scalingo_proxy.protocols.relay import Relay
from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder
from scalingo_proxy.transports.pipes import Pipes
from tests.transports.tunnels import End

if TYPE_CHECKING:
    from unittest import TestCase as _TestCase
else:
    _TestCase = object

__all__ = ["Peer", "Tunnel", "TunnelSuite"]


class Peer(HalfCloseRecorder):
    """One peer of a tunnel."""

    @property
    def saw_end(self) -> bool:
        """Whether the other side has said that it sends no more."""
        return "readConnectionLost" in self.events or self.reason is not None


class Tunnel:
    """A relay and its two peers.

    :ivar alive: how often the relay told that bytes moved.
    :ivar ended: how often it told that it is over.
    """

    def __init__(self, client: Peer, backend: Peer) -> None:
        self.client = client
        self.backend = backend
        self.alive = 0
        self.ended = 0
        self.ends: list[End] = []
        self.relay: Any = None

    def join(self, client: End, backend: End, pipes: Pipes | None) -> None:
        self.ends = [client, backend]
        self.relay = Relay(client.transport, backend.transport, self._alive, self._ended, pipes, 0)
        client.join(self.relay.client)
        backend.join(self.relay.backend)

    def _alive(self) -> None:
        self.alive += 1

    def _ended(self) -> None:
        self.ended += 1


class TunnelSuite(_TestCase):
    """Delivery, ends and back-pressure.

    :cvar more_than_fits: so many bytes that no buffer on the way takes them all.
    """

    more_than_fits = bytes(range(256)) * 16 * 4096

    async def open(self) -> Tunnel:
        """A tunnel whose four ends are connected."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until *condition* holds; fail when it never does."""
        raise NotImplementedError

    async def rest(self) -> None:
        """Wait until everything has happened that would happen soon."""
        raise NotImplementedError

    async def over(self, tunnel: Tunnel) -> None:
        """Wait until the relay is over; it must tell so once."""
        await self.until(lambda: tunnel.ended and tunnel.client.reason and tunnel.backend.reason)
        await self.rest()
        self.assertEqual(tunnel.ended, 1)

    def assert_same(self, received: bytes, sent: bytes) -> None:
        """Compare without printing megabytes."""
        self.assertEqual(len(received), len(sent))
        self.assertTrue(received == sent, "the bytes differ")

    # -- delivery ------------------------------------------------------------

    async def test_both_ways_at_once(self) -> None:
        """All bytes arrive, once and in order, both ways at once; and all of them are counted."""
        tunnel = await self.open()
        back = self.more_than_fits[::-1]
        tunnel.client.transport.write(self.more_than_fits)
        tunnel.backend.transport.write(back)
        await self.until(lambda: tunnel.backend.count + tunnel.client.count == 2 * len(back))
        self.assert_same(tunnel.backend.received, self.more_than_fits)
        self.assert_same(tunnel.client.received, back)
        relay = tunnel.relay
        self.assertEqual((relay.client.received, relay.backend.received), (len(back), len(back)))
        self.assertGreater(tunnel.alive, 2)

    async def test_pieces_of_all_sizes(self) -> None:
        """Small pieces and large ones, sent when the last has arrived or not, keep their order."""
        tunnel = await self.open()
        random = Random(0)
        sent = b""
        for turn in range(60):
            piece = random.randbytes(random.choice((1, 7, 300, 5000, 70_000)))
            sent += piece
            tunnel.client.transport.write(piece)
            if turn % 3:
                await self.until(lambda expected=sent: tunnel.backend.count == len(expected))  # type: ignore[misc]
        await self.until(lambda: tunnel.backend.count == len(sent))
        self.assert_same(tunnel.backend.received, sent)

    async def test_question_and_answer(self) -> None:
        """What is sent arrives at once, without waiting for more."""
        tunnel = await self.open()
        tunnel.backend.on_data = lambda data: tunnel.backend.transport.write(data.upper())
        for number in range(1, 20):
            tunnel.client.transport.write(b"hello")
            await self.until(lambda expected=5 * number: tunnel.client.count == expected)  # type: ignore[misc]
        self.assertEqual(tunnel.client.received, b"HELLO" * 19)

    # -- back-pressure -------------------------------------------------------

    async def test_slow_reader_holds_the_writer(self) -> None:
        """While one peer does not read, the relay takes no more than buffers hold; then all of it arrives."""
        tunnel = await self.open()
        tunnel.backend.transport.pauseProducing()
        tunnel.client.transport.write(self.more_than_fits)
        before, held = -1, 0
        while before != held:  # the buffers of a kernel grow for a while
            await self.rest()
            before, held = held, tunnel.relay.client.received
        self.assertLess(held, len(self.more_than_fits))
        tunnel.backend.transport.write(b"the other way is free")
        await self.until(lambda: tunnel.client.received == b"the other way is free")
        tunnel.backend.transport.resumeProducing()
        await self.until(lambda: tunnel.backend.count == len(self.more_than_fits))
        self.assert_same(tunnel.backend.received, self.more_than_fits)

    async def test_readers_that_stop_and_go(self) -> None:
        """Peers that pause again and again miss nothing."""
        tunnel = await self.open()
        random = Random(1)
        for peer in (tunnel.client, tunnel.backend):
            peer.transport.write(self.more_than_fits)
        peers = (tunnel.client, tunnel.backend)
        for _ in range(40):
            peer = random.choice(peers)
            random.choice((peer.transport.pauseProducing, peer.transport.resumeProducing))()
            await self.rest()
        for peer in peers:
            peer.transport.resumeProducing()
        await self.until(lambda: all(peer.count == len(self.more_than_fits) for peer in peers))
        for peer in peers:
            self.assert_same(peer.received, self.more_than_fits)

    # -- half-close ----------------------------------------------------------

    async def test_half_close_of_the_client(self) -> None:
        """The client's FIN arrives behind its bytes; the answer still comes back."""
        tunnel = await self.open()
        await self.half_close(tunnel, tunnel.client, tunnel.backend)

    async def test_half_close_of_the_backend(self) -> None:
        """The other way round as well."""
        tunnel = await self.open()
        await self.half_close(tunnel, tunnel.backend, tunnel.client)

    async def half_close(self, tunnel: Tunnel, first: Peer, second: Peer) -> None:
        first.transport.write(self.more_than_fits)
        first.transport.loseWriteConnection()
        await self.until(lambda: second.saw_end)
        self.assert_same(second.received, self.more_than_fits)
        self.assertEqual((first.saw_end, tunnel.ended), (False, 0))
        second.transport.write(self.more_than_fits)
        await self.until(lambda: first.count == len(self.more_than_fits))
        second.transport.loseConnection()
        await self.until(lambda: first.saw_end)
        self.assert_same(first.received, self.more_than_fits)
        first.transport.loseConnection()
        await self.over(tunnel)

    async def test_half_close_waits_for_a_slow_reader(self) -> None:
        """A FIN stays behind bytes that wait for room."""
        tunnel = await self.open()
        tunnel.backend.transport.pauseProducing()
        tunnel.client.transport.write(self.more_than_fits)
        tunnel.client.transport.loseWriteConnection()
        await self.rest()
        tunnel.backend.transport.resumeProducing()
        await self.until(lambda: tunnel.backend.saw_end)
        self.assert_same(tunnel.backend.received, self.more_than_fits)
        tunnel.backend.transport.loseConnection()
        tunnel.client.transport.loseConnection()
        await self.over(tunnel)

    async def test_half_close_without_a_byte(self) -> None:
        """Both directions can end before anything was said."""
        tunnel = await self.open()
        tunnel.client.transport.loseWriteConnection()
        await self.until(lambda: tunnel.backend.saw_end)
        self.assertEqual(tunnel.ended, 0)
        tunnel.backend.transport.loseWriteConnection()
        await self.until(lambda: tunnel.client.saw_end)
        for peer in (tunnel.client, tunnel.backend):
            peer.transport.loseConnection()
        await self.over(tunnel)

    # -- ends ----------------------------------------------------------------

    async def test_close_of_the_client(self) -> None:
        """What a client wrote before it closed arrives, however slowly it is read."""
        tunnel = await self.open()
        tunnel.backend.transport.pauseProducing()
        tunnel.client.transport.write(self.more_than_fits)
        tunnel.client.transport.loseConnection()
        await self.rest()
        tunnel.backend.transport.resumeProducing()
        await self.until(lambda: tunnel.backend.saw_end)
        self.assert_same(tunnel.backend.received, self.more_than_fits)
        tunnel.backend.transport.loseConnection()
        await self.over(tunnel)
        self.assertIs(tunnel.backend.ended_with, ConnectionDone)

    async def test_close_of_the_backend(self) -> None:
        """A backend that has answered and closes: the client gets all of it."""
        tunnel = await self.open()
        tunnel.client.transport.write(b"question")
        await self.until(lambda: tunnel.backend.received == b"question")
        tunnel.backend.transport.write(self.more_than_fits)
        tunnel.backend.transport.loseConnection()
        await self.until(lambda: tunnel.client.saw_end)
        self.assert_same(tunnel.client.received, self.more_than_fits)
        tunnel.client.transport.loseConnection()
        await self.over(tunnel)

    async def test_abort_at_rest(self) -> None:
        """A reset of one side ends the other."""
        for first in ("client", "backend"):
            tunnel = await self.open()
            tunnel.client.transport.write(b"x")
            tunnel.backend.transport.write(b"y")
            await self.until(lambda tunnel=tunnel: tunnel.client.count + tunnel.backend.count == 2)  # type: ignore[misc]
            getattr(tunnel, first).transport.abortConnection()
            await self.until(lambda tunnel=tunnel: tunnel.client.saw_end and tunnel.backend.saw_end)  # type: ignore[misc]
            for peer in (tunnel.client, tunnel.backend):
                peer.transport.loseConnection()
            await self.over(tunnel)

    async def test_abort_in_full_flow(self) -> None:
        """A reset in the middle of bytes both ways ends the other side."""
        for first in ("client", "backend"):
            tunnel = await self.open()
            for peer in (tunnel.client, tunnel.backend):
                peer.transport.write(self.more_than_fits)
            await self.until(lambda tunnel=tunnel: tunnel.client.count > 0 and tunnel.backend.count > 0)  # type: ignore[misc]
            getattr(tunnel, first).transport.abortConnection()
            await self.until(lambda tunnel=tunnel: tunnel.client.saw_end and tunnel.backend.saw_end)  # type: ignore[misc]
            for peer in (tunnel.client, tunnel.backend):
                peer.transport.loseConnection()
            await self.over(tunnel)

    async def test_abort_of_a_reader_that_does_not_read(self) -> None:
        """A reset reaches the writer that waits for room, although nobody reads from it."""
        tunnel = await self.open()
        for peer in (tunnel.client, tunnel.backend):
            peer.transport.pauseProducing()
            peer.transport.write(self.more_than_fits)
        await self.rest()
        tunnel.backend.transport.abortConnection()
        await self.rest()
        tunnel.client.transport.resumeProducing()
        await self.until(lambda: tunnel.client.saw_end)
        tunnel.client.transport.abortConnection()
        await self.over(tunnel)

    async def test_abort_of_the_relay(self) -> None:
        """The relay can cut both sides, whatever is under way."""
        for backlog in (False, True):
            tunnel = await self.open()
            if backlog:
                tunnel.backend.transport.pauseProducing()
            tunnel.client.transport.write(self.more_than_fits)
            await self.rest()
            tunnel.relay.abort()
            tunnel.backend.transport.resumeProducing()
            await self.over(tunnel)
            self.assertLessEqual(tunnel.backend.count, len(self.more_than_fits))
