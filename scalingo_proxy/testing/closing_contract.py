"""What a stream transport owes a protocol when the connection ends, however it ends.

See :mod:`scalingo_proxy.testing.transport_contract` for how to bind it.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol

from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder, TransportBinding

__all__ = ["ClosingContract"]


class ClosingContract(TransportBinding):
    """Closing, half-closing and aborting."""

    # -- closing -------------------------------------------------------------

    async def test_close_flushes(self) -> None:
        """``loseConnection`` sends what is buffered first; both ends see a clean close."""
        near, far = await self.pair()
        near.transport.write(self.more_than_fits)
        near.transport.loseConnection()
        self.assertIs(near.reason, None)
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual(far.count, len(self.more_than_fits))
        self.assertEqual((near.ended_with, far.ended_with), (ConnectionDone, ConnectionDone))

    async def test_write_after_close_was_asked(self) -> None:
        """What is written between ``loseConnection`` and the close still goes out."""
        near, far = await self.pair()
        near.transport.loseConnection()
        near.transport.write(b"postscript")
        await self.until(lambda: far.reason)
        self.assertEqual(far.received, b"postscript")

    async def test_write_after_loss(self) -> None:
        """Writing to a lost connection does nothing."""
        near, _ = await self.pair()
        near.transport.loseConnection()
        await self.until(lambda: near.reason)
        near.transport.write(b"x")
        near.transport.writeSequence([b"x"])
        near.transport.loseConnection()
        near.transport.abortConnection()
        await self.rest()
        self.assertEqual(near.events, ["connectionMade", "connectionLost"])

    async def test_close_stops_reading(self) -> None:
        """After ``loseConnection`` nothing more is delivered, resumed or not."""
        near, far = await self.pair()
        near.transport.write(self.more_than_fits)
        far.transport.pauseProducing()
        near.transport.loseConnection()
        near.transport.resumeProducing()
        far.transport.write(b"too late")
        await self.rest()
        self.assertEqual((near.received, near.reason), (b"", None))

    async def test_close_with_unread_bytes(self) -> None:
        """Closing over bytes that were never read looks clean to a peer that reads on."""
        near, far = await self.pair()
        near.transport.pauseProducing()
        far.transport.write(b"never read")
        await self.rest()
        near.transport.write(b"bye")
        near.transport.loseConnection()
        await self.until(lambda: far.reason)
        self.assertEqual((far.received, far.ended_with), (b"bye", ConnectionDone))

    async def test_writing_after_unread_bytes(self) -> None:
        """Bytes that the peer never read made its close a reset: the next write finds out."""
        near, far = await self.pair(HalfCloseRecorder)
        near.transport.pauseProducing()
        far.transport.write(b"never read")
        await self.rest()
        near.transport.loseConnection()
        await self.until(lambda: "readConnectionLost" in far.events)
        await self.rest()
        self.assertIs(far.reason, None)
        far.transport.write(b"x")
        await self.until(lambda: far.reason)
        self.assertIs(far.ended_with, ConnectionLost)

    async def test_writing_to_a_closed_peer(self) -> None:
        """A writer whose peer is gone meets a reset, sooner or later."""
        near, far = await self.pair(HalfCloseRecorder)
        far.transport.loseConnection()
        await self.until(lambda: "readConnectionLost" in near.events)
        near.transport.write(b"x")
        await self.rest()
        near.transport.write(b"y")
        await self.until(lambda: near.reason)
        self.assertIs(near.ended_with, ConnectionLost)

    # -- half-close ----------------------------------------------------------

    async def test_half_close(self) -> None:
        """``loseWriteConnection`` ends one direction; the other goes on."""
        near, far = await self.pair(HalfCloseRecorder)
        self.assertTrue(IHalfCloseableProtocol.providedBy(near))
        near.transport.write(self.more_than_fits)
        near.transport.loseWriteConnection()
        await self.until(lambda: "readConnectionLost" in far.events)
        self.assertEqual(far.count, len(self.more_than_fits))
        self.assertEqual(near.events, ["connectionMade", "writeConnectionLost"])
        near.transport.write(b"dropped")
        far.transport.write(b"answer")
        await self.until(lambda: near.received == b"answer")
        far.transport.loseConnection()
        await self.until(lambda: "readConnectionLost" in near.events and far.reason)
        self.assertEqual(far.count, len(self.more_than_fits))
        near.transport.loseConnection()
        self.assertIs(near.ended_with, ConnectionDone)

    async def test_half_close_without_interface(self) -> None:
        """To a protocol that knows no half-close, the peer's is the end."""
        near, far = await self.pair()
        near.transport.loseWriteConnection()
        await self.until(lambda: far.reason and near.reason)
        self.assertEqual((near.ended_with, far.ended_with), (ConnectionDone, ConnectionDone))

    async def test_half_close_after_loss(self) -> None:
        """Half-closing a lost connection is an error: there is nothing left to poll."""
        near, _ = await self.pair()
        near.transport.loseConnection()
        await self.until(lambda: near.reason)
        self.assertRaises(ValueError, near.transport.loseWriteConnection)

    async def test_half_closed_both_ways(self) -> None:
        """A connection closed in both directions stays until somebody closes it, then goes at once."""
        near, far = await self.pair(HalfCloseRecorder)
        near.transport.loseWriteConnection()
        far.transport.loseWriteConnection()
        expected = {"connectionMade", "readConnectionLost", "writeConnectionLost"}
        await self.until(lambda: set(near.events) == set(far.events) == expected)
        await self.rest()
        self.assertEqual((near.reason, far.reason), (None, None))
        near.transport.loseConnection()
        far.transport.loseConnection()
        self.assertEqual((near.ended_with, far.ended_with), (ConnectionDone, ConnectionDone))

    async def test_failing_half_close(self) -> None:
        """An exception in ``readConnectionLost`` ends the connection."""
        near, far = await self.pair(HalfCloseRecorder)
        far.readConnectionLost = lambda: 1 / 0
        near.transport.loseWriteConnection()
        await self.until(lambda: far.reason)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIs(far.ended_with, ZeroDivisionError)

    # -- aborting ------------------------------------------------------------

    async def test_abort(self) -> None:
        """``abortConnection`` is told to both ends, to its own in a later turn."""
        near, far = await self.pair(HalfCloseRecorder)
        near.transport.abortConnection()
        near.transport.abortConnection()
        self.assertIs(near.reason, None)
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual((near.ended_with, far.ended_with), (ConnectionAborted, ConnectionLost))
        self.assertEqual(near.events, ["connectionMade", "connectionLost"])
        self.assertEqual(far.events, ["connectionMade", "connectionLost"])

    async def test_abort_drops_what_is_buffered(self) -> None:
        """What did not get through before an abort never does."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        near.transport.write(self.more_than_fits)
        await self.rest()
        near.transport.abortConnection()
        await self.until(lambda: near.reason)
        await self.rest()
        self.assertIs(far.reason, None)
        far.transport.resumeProducing()
        await self.until(lambda: far.reason)
        self.assertIs(far.ended_with, ConnectionLost)
        self.assertLess(far.count, len(self.more_than_fits))

    async def test_abort_leaves_what_arrived(self) -> None:
        """What arrived before the reset can still be read."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        near.transport.write(b"arrived")
        await self.rest()
        near.transport.abortConnection()
        await self.rest()
        far.transport.resumeProducing()
        await self.until(lambda: far.reason)
        self.assertEqual((far.received, far.ended_with), (b"arrived", ConnectionLost))

    async def test_abort_stops_delivery(self) -> None:
        """After ``abortConnection`` nothing is delivered."""
        near, far = await self.pair()
        far.on_data = lambda data: far.transport.abortConnection()
        near.transport.write(self.more_than_fits)
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual(len(far.sizes), 1)
        self.assertIs(near.ended_with, ConnectionLost)

    async def test_abort_ends_a_close_that_hangs(self) -> None:
        """A close that waits for its buffer can be cut short."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        near.transport.write(self.more_than_fits)
        near.transport.loseConnection()
        await self.rest()
        self.assertIs(near.reason, None)
        near.transport.abortConnection()
        await self.until(lambda: near.reason)
        self.assertIs(near.ended_with, ConnectionAborted)

    async def test_reset_reaches_a_blocked_writer(self) -> None:
        """A writer that waits for room learns of the reset although it does not read."""
        near, far = await self.pair()
        near.transport.pauseProducing()
        far.transport.pauseProducing()
        near.transport.write(self.more_than_fits)
        await self.rest()
        far.transport.abortConnection()
        await self.until(lambda: near.reason)
        self.assertIs(near.ended_with, ConnectionLost)
