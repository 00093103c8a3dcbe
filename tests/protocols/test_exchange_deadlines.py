"""Every wait of an exchange ends: with its own code, after its own limit, at the right one's cost."""

from __future__ import annotations

from unittest import mock

from scalingo_proxy.model import Outcome, Timeouts
from scalingo_proxy.protocols.progress import SendProgress
from scalingo_proxy.routing.pool import Lease
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.replies import IncomingExchange
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, code_of, each_world, get, hello, post

CHUNKED_POST = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")


def reads_nothing(exchange: IncomingExchange) -> None:
    """Take no byte beyond the head."""
    exchange.transport.pauseProducing()


class DeadlineTestCase(WorldTestCase):
    """Notes whom each lease blames."""

    def setUp(self) -> None:
        self.outcomes: list[Outcome] = []
        release = Lease.release

        def noting(lease: Lease, outcome: Outcome, now: float, reason: str = "") -> None:
            self.outcomes.append(outcome)
            release(lease, outcome, now, reason)

        patch = mock.patch.object(Lease, "release", noting)
        patch.start()
        self.addCleanup(patch.stop)

    def ended(self, world: World, code: str, status: int, outcome: Outcome) -> None:
        """The only exchange ended like this, and its backend connection with it."""
        self.assertEqual((world.observer.record.code, world.observer.record.status), (code, status))
        self.assertEqual(self.outcomes[-1], outcome)
        world.settle()
        self.assertEqual(world.factory.env.connections.open_count, 0)
        world.assert_idle()


class FirstByteTests(DeadlineTestCase):
    """From the request fully sent to the first byte of the response."""

    @each_world(timeouts=Timeouts(first_byte=30.0))
    def test_first_byte_timeout(self, world: World) -> None:
        """A backend that does not begin to answer within ``first_byte`` is 504."""
        hello(world, replies.never())
        client = world.client().send(get())
        world.advance(29.9)
        self.assertEqual(client.responses, [])
        world.advance(0.4)
        self.assertEqual((client.response.status, code_of(client)), (504, "first-byte-timeout"))
        self.assertFalse(client.is_over)
        self.ended(world, "first-byte-timeout", 504, Outcome.TIMED_OUT)

    @each_world(timeouts=Timeouts(first_byte=30.0, request_body=30.0))
    def test_counted_from_the_end_of_the_request(self, world: World) -> None:
        """A slow upload takes nothing from the backend's time."""
        hello(world, replies.delayed(29.0, replies.echo()))
        client = world.client().send(post(b"x" * 60)[:-50]).send_slowly(b"x" * 50, 15, every_seconds=25.0)
        world.run_until(lambda: client.responses)
        self.assertEqual(client.response.body, b"x" * 60)
        self.assertGreater(world.clock.seconds(), 100.0)

    @each_world(timeouts=Timeouts(first_byte=10.0, idle=60.0), buffer_bytes=16384)
    def test_not_before_the_request_is_sent(self, world: World) -> None:
        """While the backend still has to take the end of the upload, its time to answer has not begun."""
        app = hello(world, replies.Reply(replies.fixed(b"ok").complete, reads_nothing))
        client = world.client().send(post(b"x" * 110_000))
        world.advance(15)
        self.assertEqual(client.responses, [])
        app.backend.connections[0].transport.resumeProducing()
        world.advance(5)
        self.assertEqual(client.statuses, [200])

    @each_world(timeouts=Timeouts(first_byte=30.0))
    def test_timeout_of_the_app(self, world: World) -> None:
        """An app may have its own ``first_byte``, longer or shorter."""
        app = hello(world, replies.delayed(35.0, replies.fixed(b"late")), timeouts={"first_byte": 40})
        self.assertEqual(world.request(get()).body, b"late")
        world.change("hello", timeouts={"first_byte": 2.0})
        client = world.client().send(get())
        world.advance(2.3)
        self.assertEqual(code_of(client), "first-byte-timeout")
        app.backend.close_connections()

    @each_world(timeouts=Timeouts(first_byte=30.0))
    def test_late_answer(self, world: World) -> None:
        """What a backend says after its time is nobody's answer, and the connection serves on."""
        app = hello(world, replies.fixed(b"second"))
        app.backend.script(replies.delayed(30.5, replies.fixed(b"late")))
        client = world.client().send(get())
        world.advance(31.5)
        client.send(get())
        world.advance(1)
        self.assertEqual(client.statuses, [504, 200])
        self.assertEqual(client.responses[1].body, b"second")


class IdleTests(DeadlineTestCase):
    """Silence after a response has begun."""

    @each_world(timeouts=Timeouts(idle=60.0))
    def test_event_every_59_seconds(self, world: World) -> None:
        """A stream that says something every 59 seconds stays for as long as it likes."""
        hello(world, replies.drip([b"data\n\n"] * 10, 59.0))
        client = world.client().send(get())
        world.run_until(lambda: client.responses, limit_seconds=600)
        self.assertEqual(client.response.body, b"data\n\n" * 10)

    @each_world(timeouts=Timeouts(idle=60.0))
    def test_silence(self, world: World) -> None:
        """Silence of more than ``idle`` cuts the response, visibly; the code is in the record alone."""
        hello(world, replies.drip([b"data\n\n"] * 10, 61.0))
        client = world.client().send(get())
        world.advance(59.9)
        self.assertFalse(client.is_over)
        world.advance(0.5)
        self.assertTrue(client.is_over)
        self.assertEqual(client.responses, [])
        self.assertFalse(client.received.endswith(b"0\r\n\r\n"))
        self.ended(world, "idle-timeout", 200, Outcome.ABANDONED)

    @each_world(timeouts=Timeouts(idle=60.0))
    def test_silence_to_http10(self, world: World) -> None:
        """A body that the end of the connection would end is cut by a reset."""
        hello(world, replies.drip([b"data\n\n"] * 10, 61.0))
        client = world.client().send(b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n")
        world.advance(60.5)
        self.assertTrue(client.is_over)
        self.assertFalse(client.saw_end)
        self.assertEqual(client.responses, [])

    @each_world(timeouts=Timeouts(idle=60.0, first_byte=30.0))
    def test_head_drip(self, world: World) -> None:
        """A head that comes a byte every 50 seconds is slow, not silent; then silence is 504."""
        head = b"HTTP/1.1 200 OK\r\n"

        def drip(exchange: IncomingExchange) -> None:
            for number in range(5):
                exchange.later(50.0 * number, lambda number=number: exchange.write(head[number : number + 1]))

        hello(world, replies.reply_with(drip))
        client = world.client().send(get())
        world.advance(259)
        self.assertEqual(client.responses, [])
        world.advance(2)
        self.assertEqual((client.response.status, code_of(client)), (504, "idle-timeout"))
        self.ended(world, "idle-timeout", 504, Outcome.TIMED_OUT)

    @each_world(timeouts=Timeouts(idle=60.0))
    def test_both_directions_count(self, world: World) -> None:
        """An upload that moves keeps a silent response alive, and the other way round."""

        def begin(exchange: IncomingExchange) -> None:
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")

        def end(exchange: IncomingExchange) -> None:
            exchange.write(b"ok")
            exchange.finish()

        hello(world, replies.Reply(end, begin))
        client = world.client().send(post(b"x" * 300)[:-200]).send_slowly(b"x" * 200, 50, every_seconds=55.0)
        world.run_until(lambda: client.responses, limit_seconds=400)
        self.assertEqual(client.response.body, b"ok")
        self.assertGreater(world.clock.seconds(), 160)

    @each_world(timeouts=Timeouts(idle=60.0))
    def test_timeout_of_the_app(self, world: World) -> None:
        """An app may have its own ``idle``."""
        hello(world, replies.drip([b"data\n\n"] * 10, 6.0), timeouts={"idle": 5.0})
        client = world.client().send(get())
        world.advance(5.4)
        self.assertTrue(client.is_over)
        self.ended(world, "idle-timeout", 200, Outcome.ABANDONED)

    @each_world(timeouts=Timeouts(idle=60.0), buffer_bytes=8192)
    def test_client_reads_nothing(self, world: World) -> None:
        """A client that takes nothing for ``idle`` is cut, and the backend not blamed."""
        hello(world, replies.bulk(1_000_000))
        client = world.client()
        client.pause()
        client.send(get())
        world.advance(59)
        self.assertEqual(world.records, [])
        world.advance(2)
        self.ended(world, "idle-timeout", 200, Outcome.ABANDONED)
        world.advance(61)
        self.assertEqual(world.factory.open_connections, 0)
        client.resume()
        world.settle()
        self.assertEqual(client.responses, [])

    @each_world(timeouts=Timeouts(idle=60.0))
    def test_client_stalls_its_upload_after_an_early_start(self, world: World) -> None:
        """Silence that begins with the client's upload is not the backend's fault."""

        def begin(exchange: IncomingExchange) -> None:
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")

        hello(world, replies.Reply(replies.never().complete, begin))
        client = world.client().send(post(b"x" * 300)[:-200])
        world.advance(61)
        self.assertTrue(client.is_over)
        self.ended(world, "idle-timeout", 200, Outcome.ABANDONED)


class UploadTests(DeadlineTestCase):
    """Request bodies that stall, and whose fault it is."""

    @each_world(timeouts=Timeouts(request_body=30.0))
    def test_client_stalls(self, world: World) -> None:
        """An upload that stalls for ``request_body`` is 408, and the backend not blamed."""
        for request in (post(b"x" * 100)[:-50], CHUNKED_POST + b"5\r\nhello\r\n", post(b"x" * 100)[:-100]):
            world.observer.records.clear()
            world.app("hello", ["hello.test"])
            client = world.client().send(request)
            world.advance(29.8)
            self.assertEqual(client.responses, [])
            world.advance(0.5)
            self.assertEqual((client.response.status, code_of(client)), (408, "request-timeout"))
            self.ended(world, "request-timeout", 408, Outcome.ABANDONED)
            world.advance(3)
            self.assertTrue(client.is_over)

    @each_world(timeouts=Timeouts(request_body=30.0))
    def test_client_is_slow(self, world: World) -> None:
        """The limit counts from the last byte that came, not from the first."""
        hello(world, replies.echo())
        client = world.client().send(post(b"x" * 40)[:-30]).send_slowly(b"x" * 30, 10, every_seconds=28.0)
        world.run_until(lambda: client.responses, limit_seconds=300)
        self.assertEqual(client.response.body, b"x" * 40)

    @each_world(timeouts=Timeouts(request_body=30.0))
    def test_timeout_of_the_app(self, world: World) -> None:
        """An app may have its own ``request_body``."""
        hello(world, timeouts={"request_body": 3.0})
        client = world.client().send(post(b"x" * 100)[:-50])
        world.advance(3.4)
        self.assertEqual(code_of(client), "request-timeout")

    @each_world(timeouts=Timeouts(request_body=10.0, idle=60.0), buffer_bytes=16384)
    def test_backend_does_not_read(self, world: World) -> None:
        """A stall because the backend takes nothing is its silence: 504, not the client's 408."""
        hello(world, replies.Reply(replies.never().complete, reads_nothing))
        client = world.client().send(post(b"x" * 1_000_000))
        world.advance(59)
        self.assertEqual(client.responses, [])
        world.advance(2)
        self.assertEqual((client.response.status, code_of(client)), (504, "idle-timeout"))
        self.ended(world, "idle-timeout", 504, Outcome.TIMED_OUT)

    @each_world(timeouts=Timeouts(request_body=10.0, idle=20.0), buffer_bytes=16384)
    def test_backend_reads_in_bursts(self, world: World) -> None:
        """A backend that stops for less than ``idle`` at a time gets everything."""

        def in_bursts(exchange: IncomingExchange) -> None:
            def stop() -> None:
                exchange.transport.pauseProducing()
                exchange.later(15.0, go_on)

            def go_on() -> None:
                exchange.transport.resumeProducing()
                exchange.later(0.5, stop)

            stop()

        hello(world, replies.Reply(replies.echo().complete, in_bursts))
        body = bytes(range(256)) * 1000
        client = world.client().send(post(body))
        world.run_until(lambda: client.responses, limit_seconds=600)
        self.assertEqual(client.response.body, body)

    @each_world(timeouts=Timeouts(first_byte=30.0, request_body=5.0))
    def test_nobody_sends_continue(self, world: World) -> None:
        """A client that waits for a 100 which does not come waits for the backend: ``first_byte``, 504."""
        hello(world, replies.never())
        client = world.client().send(post(b"", b"Expect: 100-continue").replace(b": 0", b": 5"))
        world.advance(29.8)
        self.assertEqual(client.responses, [])
        world.advance(0.5)
        self.assertEqual((client.response.status, code_of(client)), (504, "first-byte-timeout"))
        self.ended(world, "first-byte-timeout", 504, Outcome.ABANDONED)

    @each_world(timeouts=Timeouts(first_byte=30.0, request_body=5.0))
    def test_stall_after_continue(self, world: World) -> None:
        """Once the 100 was relayed, the client is waited for."""
        hello(world, replies.after_interim(replies.fixed(b"ok"), status=100))
        client = world.client().send(post(b"", b"Expect: 100-continue").replace(b": 0", b": 5"))
        world.advance(4.7)
        self.assertEqual([interim.status for interim in client.interim], [100])
        world.advance(0.6)
        self.assertEqual(code_of(client), "request-timeout")
        self.ended(world, "request-timeout", 408, Outcome.ABANDONED)


class PipelinedDeadlineTests(DeadlineTestCase):
    """Deadlines belong to the exchange that is under way."""

    @each_world(timeouts=Timeouts(first_byte=10.0, keep_alive=5.0))
    def test_each_its_own(self, world: World) -> None:
        """An exchange that timed out leaves the one behind it its full time."""
        app = hello(world, replies.delayed(9.0, replies.fixed(b"ok")), backends=2)
        app.backends[0].script(replies.never())
        client = world.client().send(get() + get())
        world.advance(19.5)
        self.assertEqual(sorted(client.statuses), [200, 504])
        world.advance(5)
        self.assertTrue(client.is_over)


class SlowReaderTests(DeadlineTestCase):
    """A client that takes what the kernel holds, however slowly, is not silent; nothing else waits for it."""

    def progress(self, moves: bool) -> None:
        """Let the kernel say that bytes move, or that they do not."""
        patch = mock.patch.object(SendProgress, "has_moved", lambda progress, transport: moves)
        patch.start()
        self.addCleanup(patch.stop)

    @each_world(timeouts=Timeouts(idle=60.0), buffer_bytes=8192)
    def test_reads_slowly(self, world: World) -> None:
        """As long as bytes move a response is not cut; when they stop, it is."""
        hello(world, replies.bulk(1_000_000))
        client = world.client()
        client.pause()
        client.send(get())
        self.progress(True)
        world.advance(200)
        self.assertEqual(world.records, [])
        self.progress(False)
        world.advance(61)
        self.ended(world, "idle-timeout", 200, Outcome.ABANDONED)

    @each_world(timeouts=Timeouts(idle=60.0), buffer_bytes=8192)
    def test_reads_the_last_answer_slowly(self, world: World) -> None:
        """Nor is the end of a connection cut while its last answer is taken."""
        hello(world, replies.fixed(b"x" * 60_000))
        client = world.client()
        client.pause()
        client.send(get(b"/", b"hello.test", b"Connection: close"))
        self.progress(True)
        world.advance(200)
        self.assertEqual(world.factory.open_connections, 1)
        client.resume()
        world.settle()
        self.assertEqual(len(client.response.body), 60_000)

    @each_world(timeouts=Timeouts(idle=60.0), buffer_bytes=8192)
    def test_early_answer_is_read_slowly(self, world: World) -> None:
        """An answer in the middle of an upload has the same time."""
        hello(world, replies.early(replies.fixed(b"x" * 60_000)))
        client = world.client()
        client.pause()
        client.send(post(b"y" * 1000)[:-10])
        self.progress(True)
        world.advance(30)
        client.resume()
        world.advance(1)
        self.assertEqual(len(client.response.body), 60_000)
        self.progress(False)
        client.close()

    @each_world(timeouts=Timeouts(first_byte=30.0, request_head=10.0, queue=20.0, keep_alive=40.0))
    def test_nothing_else_waits(self, world: World) -> None:
        """What a client still has to read gives neither the backend nor the client more time for the rest."""
        self.progress(True)
        app = hello(world, replies.never(), limits={"in_flight_per_backend": 1})
        waiting = world.client().send(get())
        world.settle()
        queued = world.client().send(get())
        head = world.client().send(get()[:-3])
        idle = world.client().send(get(b"/", b"nobody.test"))
        world.advance(10.3)
        self.assertEqual(head.statuses, [408])
        world.advance(10)
        self.assertEqual(code_of(queued), "queue-timeout")
        world.advance(10)
        self.assertEqual(code_of(waiting), "first-byte-timeout")
        self.assertFalse(idle.is_over)
        world.advance(10)
        self.assertTrue(idle.is_over)
        self.assertEqual(app.requests, 1)
