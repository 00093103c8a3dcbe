"""What scripted backends can do, seen from a scripted client at the other end."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import split_host_port
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient, connect_client
from scalingo_proxy.testing.network import MemoryNetwork

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
POST_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
POST = POST_HEAD + b"hello"


class ReplyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork(latency=0.001)
        self.backend = ScriptedBackend().listen(self.network)

    def client(self) -> ScriptedClient:
        return connect_client(self.network, split_host_port(self.backend.address))

    def ask(self, reply: replies.Reply, request: bytes = GET, seconds: float = 0.1) -> ScriptedClient:
        """Send *request* to be answered by *reply*, and let *seconds* pass."""
        self.backend.answer(reply)
        client = self.client().send(request)
        self.network.advance(seconds)
        return client

    def test_fixed(self) -> None:
        """A fixed answer has a length, the fields given, and keeps the connection."""
        client = self.ask(replies.fixed(b"body", 418, ((b"A", b"b"),), b"Teapot"))
        expected = b"HTTP/1.1 418 Teapot\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"
        self.assertEqual((client.received, client.is_over), (expected, False))

    def test_fixed_without_body(self) -> None:
        """HEAD gets the head alone, 204 and 304 not even a length."""
        self.assertEqual(self.ask(replies.fixed(b"body"), HEAD).response.get(b"Content-Length"), b"4")
        for status in (204, 304):
            client = self.ask(replies.fixed(b"body", status))
            self.assertEqual(client.response.get_all(b"Content-Length"), [])
            self.assertTrue(client.received.endswith(b"\r\n\r\n"))

    def test_closes_when_asked(self) -> None:
        """Connection: close is honoured, and HTTP/1.0 closes unless asked not to."""
        for request, closes in (
            (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", True),
            (b"GET / HTTP/1.0\r\n\r\n", True),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        ):
            self.assertIs(self.ask(replies.fixed(), request).is_over, closes)

    def test_echo(self) -> None:
        """The body comes back."""
        self.assertEqual(self.ask(replies.echo(), POST).response.body, b"hello")

    def test_chunked(self) -> None:
        """Each part is a chunk, and trailers follow."""
        response = self.ask(replies.chunked([b"one", b"four"], ((b"T", b"v"),))).response
        self.assertEqual((response.body, response.chunk_sizes), (b"onefour", [3, 4]))
        self.assertEqual(response.trailers, ((b"T", b"v"),))
        self.assertEqual(self.ask(replies.chunked([b"x"]), HEAD).response.body, b"")

    def test_close_delimited(self) -> None:
        """The end of the connection ends the body."""
        client = self.ask(replies.close_delimited(b"body"))
        self.assertEqual((client.response.body, client.response.ended_by_close), (b"body", True))

    def test_delayed(self) -> None:
        """It thinks for as long as it was told."""
        client = self.ask(replies.delayed(2, replies.fixed()), seconds=2)
        self.assertEqual(client.responses, [])
        self.network.advance(0.1)
        self.assertEqual(client.response.status, 200)

    def test_drip(self) -> None:
        """Parts come one by one at their times."""
        client = self.ask(replies.drip([b"a", b"b", b"c"], 5), seconds=20)
        self.assertEqual(client.response.body, b"abc")
        times = [when for when, _ in client.arrivals]
        self.assertEqual([round(when - times[0]) for when in times], [0, 5, 10])

    def test_bulk(self) -> None:
        """A big body is produced only as fast as it is read."""
        size = 10_000_000
        client = self.ask(replies.fixed())
        client.pause()
        self.backend.answer(replies.bulk(size))
        client.send(GET)
        self.network.advance(1)
        (connection,) = self.backend.open_connections
        self.assertLess(len(connection.transport.dataBuffer), 200_000)
        client.resume()
        self.network.settle()
        self.assertEqual(len(client.responses[1].body), size)

    def test_upgrade(self) -> None:
        """After 101 bytes come back as they are, and a farewell follows the end."""
        client = self.ask(replies.upgrade_echo(b"chat", b"hi ", b" bye"))
        self.assertEqual(client.response.get(b"Upgrade"), b"chat")
        client.send(b"\x00\xff")
        self.network.settle()
        client.half_close()
        self.network.settle()
        self.assertEqual((client.tunnelled, client.is_over), (b"hi \x00\xff bye", True))
        (connection,) = self.backend.connections
        self.assertEqual((connection.tunnelled, connection.saw_end), (b"\x00\xff", True))

    def test_early(self) -> None:
        """An early answer does not wait for the body; the connection serves on."""
        client = self.ask(replies.early(replies.fixed(b"early")), POST_HEAD)
        self.assertEqual(client.response.body, b"early")
        client.send(b"hello").send(POST)
        self.network.settle()
        self.assertEqual([request.body for request in self.backend.requests], [b"hello", b"hello"])
        self.assertEqual(client.statuses, [200, 200])

    def test_after_interim(self) -> None:
        """An interim response comes on the head, the final one after the body."""
        client = self.ask(replies.after_interim(replies.fixed(), 100), POST_HEAD)
        self.assertEqual(([r.status for r in client.interim], client.statuses), ([100], []))
        client.send(b"hello")
        self.network.settle()
        self.assertEqual(client.statuses, [200])

    def test_close_silently(self) -> None:
        """It closes without a byte."""
        client = self.ask(replies.close_silently())
        self.assertEqual((client.received, client.saw_end), (b"", True))

    def test_never(self) -> None:
        """It reads and never answers."""
        client = self.ask(replies.never(), seconds=3600)
        self.assertEqual((client.received, client.is_over), (b"", False))

    def test_reset_after(self) -> None:
        """Exactly so many bytes get through, and a reset follows."""
        for count in (0, 1, 20, 60):
            client = self.ask(replies.reset_after(count, replies.fixed(bytes(100))))
            assert client.lost_because is not None
            self.assertEqual((client.count, client.lost_because.type), (count, ConnectionLost))
            self.assertFalse(client.saw_end)

    def test_close_after(self) -> None:
        """Exactly so many bytes get through, and an orderly end follows, of whatever reply."""
        for reply in (replies.fixed(bytes(100)), replies.drip([b"x" * 50] * 9, 1), replies.bulk(10**6)):
            client = self.ask(replies.close_after(120, reply), seconds=20)
            assert client.lost_because is not None
            self.assertEqual((client.count, client.lost_because.type), (120, ConnectionDone))
            self.assertEqual(client.responses, [])

    def test_longer_than_the_reply(self) -> None:
        """A reply shorter than the limit is not cut."""
        client = self.ask(replies.reset_after(1000, replies.fixed(b"short")))
        self.assertEqual((client.response.body, client.is_over), (b"short", False))

    def test_raw(self) -> None:
        """Any bytes can be sent, with or without a close."""
        client = self.ask(replies.raw(b"nonsense\r\n\r\n"))
        self.assertEqual((client.malformed, client.is_over), ("status line b'nonsense'", False))
        self.assertTrue(self.ask(replies.raw(b"x", close=True)).is_over)

    def test_reply_with(self) -> None:
        """A function of one's own may do anything."""
        client = self.ask(replies.reply_with(lambda exchange: exchange.write(exchange.request.target)))
        self.assertEqual(client.received, b"/")

    def test_nothing_stays_scheduled(self) -> None:
        """What a reply has scheduled goes with its connection."""
        client = self.ask(replies.delayed(1000, replies.fixed()))
        self.assertEqual(len(self.network.getDelayedCalls()), 1)
        client.abort()
        self.network.settle()
        self.assertEqual(self.network.getDelayedCalls(), [])
