"""What a stream transport owes the producer that fills it: one suite for every provider.

Twisted's rules, surprising ones included; see
:mod:`scalingo_proxy.testing.transport_contract` for how to bind it.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone

from scalingo_proxy.testing.transport_recorders import (
    HalfCloseRecorder,
    PullRecorder,
    PushRecorder,
    TransportBinding,
)

__all__ = ["ProducerContract"]

#: Twisted's high mark: a buffer longer than this pauses the producer.
HIGH_MARK = 65536


class ProducerContract(TransportBinding):
    """Registering, pausing, resuming and stopping producers."""

    async def test_pauses_above_the_mark(self) -> None:
        """A streaming producer is paused inside the write that puts the buffer above 64 KiB."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        near.transport.write(self.more_than_fits)
        await self.rest()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        self.assertEqual(producer.calls, [])
        near.transport.write(b"x")
        self.assertEqual(producer.calls, ["pause"])

    async def test_pauses_again_at_each_write(self) -> None:
        """A producer that writes although it was paused is told again."""
        near, _ = await self.pair()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(self.more_than_fits)
        near.transport.write(b"x")
        near.transport.writeSequence([b"x", b"y"])
        self.assertEqual(producer.calls, ["pause"] * 3)

    async def test_resumes_when_drained(self) -> None:
        """It is resumed once, when the whole buffer is gone."""
        near, far = await self.pair()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(self.more_than_fits)
        await self.until(lambda: far.count == len(self.more_than_fits))
        await self.rest()
        self.assertEqual(producer.calls, ["pause", "resume"])

    async def test_slow_reader_holds_the_producer(self) -> None:
        """As long as the peer does not read, the producer stays paused."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(self.more_than_fits)
        await self.rest()
        self.assertEqual(producer.calls, ["pause"])
        far.transport.resumeProducing()
        await self.until(lambda: producer.calls == ["pause", "resume"])

    async def test_small_writes_do_not_pause(self) -> None:
        """Exactly 64 KiB in the buffer is not too much; it resumes nobody when it is gone."""
        near, far = await self.pair()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(bytes(HIGH_MARK // 2))
        await self.until(lambda: far.count == HIGH_MARK // 2)
        await self.rest()
        self.assertEqual(producer.calls, [])

    async def test_second_producer_is_refused(self) -> None:
        """Only one producer at a time; another after the first was unregistered."""
        near, _ = await self.pair()
        near.transport.registerProducer(PushRecorder(), True)
        self.assertRaises(RuntimeError, near.transport.registerProducer, PushRecorder(), True)
        near.transport.unregisterProducer()
        near.transport.registerProducer(PushRecorder(), True)

    async def test_registering_after_loss_stops(self) -> None:
        """A producer that comes when the connection is gone is stopped at once."""
        near, _ = await self.pair()
        near.transport.loseConnection()
        await self.until(lambda: near.reason)
        for streaming in (True, False):
            producer = PushRecorder()
            near.transport.registerProducer(producer, streaming)
            self.assertEqual(producer.calls, ["stop"])

    async def test_loss_stops_the_producer_first(self) -> None:
        """When the connection is lost, the producer is stopped before the protocol is told."""
        near, far = await self.pair()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.on_lost = lambda: self.assertEqual(producer.calls, ["stop"])
        far.transport.loseConnection()
        await self.until(lambda: near.reason)
        self.assertEqual(producer.calls, ["stop"])

    async def test_abort_stops_the_producer(self) -> None:
        """Aborting stops the producer, whether it is paused or not."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(self.more_than_fits)
        near.transport.abortConnection()
        await self.until(lambda: near.reason)
        self.assertEqual(producer.calls, ["pause", "stop"])

    async def test_close_waits_for_a_paused_producer(self) -> None:
        """``loseConnection`` resumes a paused producer and waits until it unregisters."""
        near, far = await self.pair()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(self.more_than_fits)
        near.transport.loseConnection()
        await self.until(lambda: far.count == len(self.more_than_fits))
        await self.rest()
        self.assertEqual((producer.calls, near.reason), (["pause", "resume"], None))
        near.transport.write(b"the rest")
        near.transport.unregisterProducer()
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual((far.received[-8:], near.ended_with), (b"the rest", ConnectionDone))
        self.assertEqual(producer.calls, ["pause", "resume"])

    async def test_close_does_not_wait_for_a_running_producer(self) -> None:
        """A streaming producer that is not paused holds nothing up: it is stopped."""
        near, far = await self.pair()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(b"all")
        near.transport.loseConnection()
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual((far.received, producer.calls), (b"all", ["stop"]))

    async def test_half_close_waits_for_a_paused_producer(self) -> None:
        """``loseWriteConnection`` waits for a paused producer to write again."""
        near, far = await self.pair(HalfCloseRecorder)
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(self.more_than_fits)
        near.transport.loseWriteConnection()
        await self.until(lambda: far.count == len(self.more_than_fits))
        await self.rest()
        self.assertEqual((producer.calls, far.events), (["pause", "resume"], ["connectionMade"]))
        near.transport.write(b"the rest")
        await self.until(lambda: "readConnectionLost" in far.events)
        self.assertEqual(far.received[-8:], b"the rest")

    async def test_unregistered_producer_is_forgotten(self) -> None:
        """A producer that left while paused is not resumed."""
        near, far = await self.pair()
        producer = PushRecorder()
        near.transport.registerProducer(producer, True)
        near.transport.write(self.more_than_fits)
        near.transport.unregisterProducer()
        await self.until(lambda: far.count == len(self.more_than_fits))
        await self.rest()
        self.assertEqual(producer.calls, ["pause"])

    async def test_pull_producer(self) -> None:
        """A pull producer is asked on registration, and each time the buffer is empty."""
        near, far = await self.pair()
        pieces = [b"one ", b"two ", b"three"]
        producer = PullRecorder(near.transport, list(pieces))
        near.transport.registerProducer(producer, False)
        self.assertEqual(producer.asked, 1)
        near.transport.loseConnection()
        await self.until(lambda: near.reason and far.reason)
        self.assertEqual(far.received, b"".join(pieces))
        self.assertEqual((producer.asked, producer.stopped), (len(pieces) + 1, False))

    async def test_stop_consuming(self) -> None:
        """``stopConsuming`` forgets the producer and closes."""
        near, far = await self.pair()
        near.transport.registerProducer(PushRecorder(), True)
        near.transport.stopConsuming()
        await self.until(lambda: near.reason and far.reason)
        self.assertIs(near.ended_with, ConnectionDone)
