"""Scripted clients: how they send and what they read."""

from __future__ import annotations

from random import Random

from twisted.internet import error
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.testing.clients import ScriptedClient, connect_client
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ScriptedClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.servers: list[HalfCloseRecorder] = []
        factory = Factory()
        factory.protocol = self.build  # type: ignore[assignment]
        self.network.listenTCP(80, factory)

    def build(self) -> HalfCloseRecorder:
        self.servers.append(HalfCloseRecorder())
        return self.servers[-1]

    def client(self, **options: bool) -> ScriptedClient:
        client = connect_client(self.network, ("127.0.0.1", 80), **options)  # type: ignore[arg-type]
        self.network.settle()
        return client

    def test_sends_before_it_is_connected(self) -> None:
        """What is to be sent waits for the connection."""
        client = connect_client(self.network, ("127.0.0.1", 80)).send(b"early")
        self.network.settle()
        self.assertEqual((client.is_connected, self.servers[0].received), (True, b"early"))

    def test_sends_slowly(self) -> None:
        """Bytes go one by one, each at its time, and keep their order with what follows."""
        self.client().send_slowly(b"slow", 1, every_seconds=2).send(b"rest")
        self.network.advance(3)
        self.assertEqual(self.servers[0].sizes, [1, 1])
        self.network.advance(10)
        self.assertEqual((self.servers[0].received, self.servers[0].sizes), (b"slowrest", [1] * 4 + [4]))

    def test_sends_cut(self) -> None:
        """Random pieces are all there is, in order."""
        data = bytes(range(256)) * 10
        self.client().send_cut(data, Random(5))
        self.network.advance(10)
        self.assertEqual(self.servers[0].received, data)
        self.assertGreater(len(self.servers[0].sizes), 2)

    def test_reads_by_method(self) -> None:
        """How a response ends follows from the request that was sent, in however many pieces."""
        client = self.client().send_slowly(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 10)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.network.advance(1)
        self.servers[0].transport.write(ANSWER[:-2] + ANSWER)
        self.network.settle()
        self.assertEqual([response.body for response in client.responses], [b"", b"ok"])

    def test_reads_what_answers_nonsense(self) -> None:
        """Sent nonsense is answered like GET."""
        client = self.client().send(b"nonsense\n\r\n\r\n")
        self.network.settle()
        self.servers[0].transport.write(ANSWER)
        self.network.settle()
        self.assertEqual(client.response.body, b"ok")

    def test_only_response(self) -> None:
        """Asking for the only response of none is a mistake worth an error."""
        client = self.client()
        self.assertRaises(AssertionError, lambda: client.response)

    def test_partial(self) -> None:
        """A response that has begun can be looked at."""
        client = self.client()
        self.servers[0].transport.write(ANSWER[:-1])
        self.network.settle()
        assert client.partial is not None
        self.assertEqual((client.partial.body, client.responses), (b"o", []))

    def test_malformed(self) -> None:
        """A malformed response is noted; bytes are still recorded."""
        client = self.client()
        for data in (b"junk\r\n\r\n", b"more"):
            self.servers[0].transport.write(data)
            self.network.settle()
        self.assertEqual((client.malformed, client.received), ("status line b'junk'", b"junk\r\n\r\nmore"))

    def test_pause(self) -> None:
        """It reads only while it is not paused."""
        client = self.client()
        client.pause()
        self.servers[0].transport.write(ANSWER)
        self.network.settle()
        self.assertEqual(client.count, 0)
        client.resume()
        self.network.settle()
        self.assertEqual(client.count, len(ANSWER))

    def test_half_close(self) -> None:
        """Half-closed, it still reads; the other side's end closes it."""
        client = self.client()
        client.half_close()
        self.network.settle()
        self.assertIn("readConnectionLost", self.servers[0].events)
        self.servers[0].transport.write(ANSWER)
        self.servers[0].transport.loseConnection()
        self.network.settle()
        self.assertEqual((client.statuses, client.saw_end, client.is_over), ([200], True, True))

    def test_stays_when_told_to(self) -> None:
        """A stubborn client does not close when the other side does."""
        client = self.client(closes_at_end=False)
        self.servers[0].transport.loseWriteConnection()
        self.network.settle()
        self.assertEqual((client.saw_end, client.is_over), (True, False))

    def test_abort(self) -> None:
        """It can leave without a word, and what was to be sent is not."""
        client = self.client().send_slowly(b"slow")
        client.abort()
        self.network.settle()
        assert client.lost_because is not None
        self.assertEqual(client.lost_because.type, error.ConnectionAborted)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """A connection that cannot be made is over from the start."""
        client = connect_client(self.network, ("127.0.0.1", 81)).send(b"x")
        self.network.settle()
        assert client.lost_because is not None
        self.assertEqual(
            (client.is_connected, client.lost_because.type), (False, error.ConnectionRefusedError)
        )
