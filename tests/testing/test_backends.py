"""Scripted backends: what they record and how they go away."""

from __future__ import annotations

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import split_host_port
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient, connect_client
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.replies import delayed, fixed

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\nX-Request-ID: id-%d\r\n\r\n"


class ScriptedBackendTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.backend = ScriptedBackend("web-1").listen(self.network)

    def client(self) -> ScriptedClient:
        client = connect_client(self.network, split_host_port(self.backend.address))
        self.network.settle()
        return client

    def test_default_answer(self) -> None:
        """Untold, it answers with its name."""
        client = self.client().send(GET % (1, 1))
        self.network.settle()
        self.assertEqual((client.response.body, client.response.get(b"X-Backend")), (b"web-1", b"web-1"))

    def test_records(self) -> None:
        """Requests are kept with their bytes, and counted by their id."""
        self.client().send(GET % (1, 7) + GET % (2, 7))
        self.client().send((GET % (3, 8))[:20])
        self.network.settle()
        self.assertEqual([request.target for request in self.backend.requests], [b"/1", b"/2"])
        self.assertEqual(self.backend.requests[0].raw, GET % (1, 7))
        self.assertEqual(dict(self.backend.request_ids), {b"id-7": 2})
        self.assertEqual([len(each.requests) for each in self.backend.connections], [2, 0])
        self.assertEqual(self.backend.connections[1].received, (GET % (3, 8))[:20])

    def test_script(self) -> None:
        """Scripted replies come first, one each, in order."""
        self.backend.answer(fixed(status=503)).script(fixed(status=201), fixed(status=202))
        client = self.client()
        for number in range(4):
            client.send(GET % (number, number))
        self.network.settle()
        self.assertEqual(client.statuses, [201, 202, 503, 503])

    def test_answers_in_order(self) -> None:
        """Pipelined requests are answered in the order they came."""
        self.backend.script(delayed(5, fixed(b"slow")), fixed(b"fast"))
        client = self.client().send(GET % (1, 1) + GET % (2, 2))
        self.network.advance(4)
        self.assertEqual(client.responses, [])
        self.network.advance(2)
        self.assertEqual([response.body for response in client.responses], [b"slow", b"fast"])

    def test_malformed(self) -> None:
        """Nonsense is noted and the connection cut off."""
        client = self.client().send(b"GET / HTTP/1.1\nHost: x\r\n\r\n")
        self.network.settle()
        self.assertEqual(len(self.backend.malformed), 1)
        self.assertTrue(client.is_over)

    def test_stop_listening(self) -> None:
        """New connections are refused, those there are live on, until it listens again."""
        client = self.client()
        self.backend.stop_listening()
        self.network.settle()
        refused = self.client()
        assert refused.lost_because is not None
        self.assertEqual(refused.lost_because.type, error.ConnectionRefusedError)
        client.send(GET % (1, 1))
        self.backend.listen_again()
        self.network.settle()
        self.assertEqual((client.statuses, self.client().is_connected), ([200], True))

    def test_crash(self) -> None:
        """A crash refuses and resets."""
        client = self.client()
        self.backend.crash()
        self.network.settle()
        assert client.lost_because is not None
        self.assertEqual(client.lost_because.type, error.ConnectionLost)
        self.assertEqual((self.backend.open_connections, self.network.listening), ([], ()))

    def test_close_connections(self) -> None:
        """Idle connections can be closed in order."""
        client = self.client()
        self.backend.close_connections()
        self.network.settle()
        assert client.lost_because is not None
        self.assertEqual(client.lost_because.type, error.ConnectionDone)

    def test_closes_when_the_client_does(self) -> None:
        """Like most servers it closes when the other side does, answer or not."""
        self.backend.answer(delayed(5, fixed()))
        client = self.client().send(GET % (1, 1))
        self.network.settle()
        client.half_close()
        self.network.settle()
        self.assertEqual((client.is_over, client.responses), (True, []))
        self.assertTrue(self.backend.connections[0].saw_end)
