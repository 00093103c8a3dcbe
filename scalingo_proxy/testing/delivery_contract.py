"""What a stream transport owes a protocol while it is connected.

See :mod:`scalingo_proxy.testing.transport_contract` for how to bind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface.verify import verifyObject

from scalingo_proxy.testing.transport_recorders import TransportBinding

__all__ = ["DeliveryContract"]


class DeliveryContract(TransportBinding):
    """Addresses, options, delivery and reading."""

    # -- what it is ----------------------------------------------------------

    async def test_provides_interfaces(self) -> None:
        """It is a TCP transport, a consumer and a push producer."""
        near, _ = await self.pair()
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, near.transport)

    async def test_addresses_match(self) -> None:
        """Each end's peer is the other end's host."""
        near, far = await self.pair()
        self.assertEqual(near.transport.getHost(), far.transport.getPeer())
        self.assertEqual(far.transport.getHost(), near.transport.getPeer())

    async def test_address_after_loss(self) -> None:
        """The peer is known even when the connection is lost; the host is not."""
        near, far = await self.pair()
        peer = near.transport.getPeer()
        near.on_lost = lambda: self.assertRaises(AttributeError, near.transport.getHost)
        far.transport.loseConnection()
        await self.until(lambda: near.reason)
        self.assertEqual(near.transport.getPeer(), peer)

    async def test_options(self) -> None:
        """TCP options are kept while there is a connection."""
        near, _ = await self.pair()
        for enabled in (True, False):
            near.transport.setTcpNoDelay(enabled)
            near.transport.setTcpKeepAlive(enabled)
            self.assertIs(near.transport.getTcpNoDelay(), enabled)
            self.assertIs(near.transport.getTcpKeepAlive(), enabled)

    async def test_options_after_loss(self) -> None:
        """Setting a TCP option of a lost connection is an error."""
        near, _ = await self.pair()
        near.transport.loseConnection()
        await self.until(lambda: near.reason)
        self.assertRaises(AttributeError, near.transport.setTcpNoDelay, True)
        self.assertRaises(AttributeError, near.transport.setTcpKeepAlive, True)

    # -- delivery ------------------------------------------------------------

    async def test_delivers_in_order(self) -> None:
        """All bytes arrive, once and in order, both ways at once."""
        near, far = await self.pair()
        near.transport.write(self.more_than_fits)
        far.transport.writeSequence([b"one ", b"two ", b"three"])
        await self.until(lambda: far.count == len(self.more_than_fits) and len(near.received) == 13)
        self.assertEqual(near.received, b"one two three")
        self.assertTrue(far.received == self.more_than_fits)

    async def test_pieces_are_bounded(self) -> None:
        """One delivery carries at most 64 KiB."""
        near, far = await self.pair()
        near.transport.write(self.more_than_fits)
        await self.until(lambda: far.count == len(self.more_than_fits))
        self.assertLessEqual(max(far.sizes), 65536)

    async def test_never_reenters(self) -> None:
        """Nothing is delivered inside ``write``, however the two ends answer each other."""
        near, far = await self.pair()
        depths = [0, 0]

        def answer(transport: Any) -> Callable[[bytes], None]:
            def on_data(data: bytes) -> None:
                depths[0] += 1
                depths[1] = max(depths)
                if len(near.received) < 20:
                    transport.write(data)
                depths[0] -= 1

            return on_data

        near.on_data, far.on_data = answer(near.transport), answer(far.transport)
        near.transport.write(b"x")
        self.assertEqual(far.received, b"")
        await self.until(lambda: len(near.received) == 20)
        self.assertEqual(depths[1], 1)

    async def test_only_bytes(self) -> None:
        """Text, and byte-likes that may change, are refused."""
        near, far = await self.pair()
        for data in ("text", bytearray(b"x"), memoryview(b"x"), None, 1):
            self.assertRaises(TypeError, near.transport.write, data)
        self.assertRaises(TypeError, near.transport.writeSequence, [b"x", "text"])
        near.transport.write(b"")
        near.transport.writeSequence([])
        await self.rest()
        self.assertEqual(far.received, b"")

    async def test_failing_protocol_is_cut_off(self) -> None:
        """An exception in ``dataReceived`` ends that connection, with it as the reason."""
        near, far = await self.pair()

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        far.on_data = fail
        near.transport.write(b"x")
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIs(far.ended_with, ZeroDivisionError)
        self.assertIs(near.ended_with, ConnectionDone)

    # -- reading -------------------------------------------------------------

    async def test_paused_reader_gets_nothing(self) -> None:
        """A paused reader gets no data until it resumes."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        near.transport.write(b"later")
        await self.rest()
        self.assertEqual(far.received, b"")
        far.transport.resumeProducing()
        await self.until(lambda: far.received == b"later")

    async def test_pause_inside_delivery(self) -> None:
        """Pausing inside ``dataReceived`` keeps the next piece back."""
        near, far = await self.pair()
        far.on_data = lambda data: far.transport.pauseProducing()
        near.transport.write(self.more_than_fits)
        await self.rest()
        self.assertEqual(len(far.sizes), 1)

    async def test_pausing_another_connection(self) -> None:
        """Of two readers that are ready together, the first can pause the second."""
        near, far = await self.pair()
        other_near, other_far = await self.pair()
        far.on_data = lambda data: other_far.transport.pauseProducing()
        other_far.on_data = lambda data: far.transport.pauseProducing()
        near.transport.write(b"x")
        other_near.transport.write(b"x")
        await self.rest()
        self.assertEqual(sorted([far.count, other_far.count]), [0, 1])

    async def test_aborting_another_connection(self) -> None:
        """Of two readers that are ready together, the first can abort the second."""
        near, far = await self.pair()
        other_near, other_far = await self.pair()
        far.on_data = lambda data: other_far.transport.abortConnection()
        other_far.on_data = lambda data: far.transport.abortConnection()
        near.transport.write(b"x")
        other_near.transport.write(b"x")
        await self.until(lambda: far.reason or other_far.reason)
        await self.rest()
        self.assertEqual(sorted([far.count, other_far.count]), [0, 1])

    async def test_paused_reader_is_not_told_of_the_end(self) -> None:
        """A paused reader learns of the peer's close when it resumes, behind the data."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        near.transport.write(b"last words")
        near.transport.loseConnection()
        await self.rest()
        self.assertEqual((far.received, far.reason), (b"", None))
        far.transport.resumeProducing()
        await self.until(lambda: far.reason)
        self.assertEqual((far.received, far.ended_with), (b"last words", ConnectionDone))

    async def test_stop_producing_closes(self) -> None:
        """``stopProducing`` is ``loseConnection``."""
        near, far = await self.pair()
        near.transport.write(b"bye")
        near.transport.stopProducing()
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual((near.ended_with, far.received), (ConnectionDone, b"bye"))
