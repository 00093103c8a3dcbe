"""Transports that call back inside a call: answers, ends and pauses come before ``write`` returns."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Backend, Limits
from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.observers import RecordingObserver
from scalingo_proxy.testing.replies import IncomingExchange, Reply
from tests.protocols.test_upgrades import SWITCH, websocket
from tests.protocols.worlds import get, post


class DirectTransport:
    """One of two ends without anything between: each call arrives before it returns.

    :ivar pauses_writer: pause and resume the producer inside every write.
    :ivar breaks_after: lose the connection inside the write that goes beyond so many bytes.
    """

    disconnecting = False

    def __init__(self, protocol: Any, port: int) -> None:
        self.protocol = protocol
        self.port = port
        self.peer: DirectTransport
        self.is_lost = False
        self.pauses_writer = False
        self.breaks_after: int | None = None
        self._producer: Any = None
        self._paused = False
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self.is_lost:
            return
        if self.breaks_after is not None:
            self.breaks_after -= len(data)
            if self.breaks_after < 0:
                self.lose(ConnectionLost())
                return
        if self.pauses_writer and self._producer is not None:
            self._producer.pauseProducing()
        self.peer.deliver(data)
        if self.pauses_writer and self._producer is not None:
            self._producer.resumeProducing()

    def deliver(self, data: bytes) -> None:
        """Hand bytes to the protocol, unless it has paused us."""
        if self._paused:
            self._held.append(data)
        elif not self.is_lost:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        self.lose(ConnectionDone())

    def abortConnection(self) -> None:
        self.lose(ConnectionLost())

    def lose(self, error: Exception) -> None:
        """Both ends are told at once."""
        for end in (self, self.peer):
            if not end.is_lost:
                end.is_lost = True
                end.protocol.connectionLost(Failure(error))

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._held and not self._paused:
            self.deliver(self._held.pop(0))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.port)

    getHost = getPeer


def join(one: Any, other: Any, port: int) -> tuple[DirectTransport, DirectTransport]:
    """Connect two protocols to each other; the second is told first."""
    near, far = DirectTransport(one, port), DirectTransport(other, port)
    near.peer, far.peer = far, near
    other.makeConnection(far)
    one.makeConnection(near)
    return near, far


class DirectTestCase(SynchronousTestCase):
    """A proxy whose clients and backends are reached by plain calls."""

    limits = Limits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.observer = RecordingObserver()
        self.backends = {port: ScriptedBackend(f"backend-{port}") for port in (1, 2)}
        for backend in self.backends.values():
            backend._reactor = self.clock
        self.backend_ends: list[DirectTransport] = []
        self.refuses: set[int] = set()
        self.resolver = MemoryResolver([App("hello", ["hello.test"], ["127.0.0.1:1", "127.0.0.1:2"])])
        self.factory = HTTPProxyFactory(
            self.resolver,
            self.clock,
            connect=self.connect,
            observer=self.observer,
            limits=self.limits,
            random_source=Random(1),
        )
        self.factory.doStart()

    def tearDown(self) -> None:
        for client in getattr(self, "clients", []):
            client.close()
        self.factory.doStop()
        self.assertTrue(self.factory.drain(0).called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.env.connections.open_count, 0)
        self.assertEqual(
            sum(pool.in_flight + pool.tunnels + pool.queued for pool in self.factory.env.pools), 0
        )

    def connect(
        self, backend: Backend, protocol: Protocol, timeout: float, failed: Callable[[Failure], None]
    ) -> Callable[[], None]:
        """Connect, or fail, before returning."""

        def abandon() -> None:
            raise AssertionError("there is nothing to abandon any more")

        if backend.port in self.refuses:
            failed(Failure(ConnectionLost()))
        else:
            near, _ = join(protocol, self.backends[backend.port].buildProtocol(None), backend.port)
            self.backend_ends.append(near)
        return abandon

    def answer(self, reply: Reply) -> None:
        """Let every backend answer like this."""
        for backend in self.backends.values():
            backend.answer(reply)

    def client(self) -> ScriptedClient:
        """A client that is connected."""
        client = ScriptedClient(self.clock)
        self.frontend = self.factory.buildProtocol(None)
        self.front_end, _ = join(self.frontend, client, 80)
        if not hasattr(self, "clients"):
            self.clients: list[ScriptedClient] = []
        self.clients.append(client)
        return client

    @property
    def executed(self) -> list[int]:
        """How often each request was seen."""
        return [count for backend in self.backends.values() for count in backend.request_ids.values()]


class InsideCallsTests(DirectTestCase):
    """What happens in worlds, happens here inside one call."""

    def test_requests(self) -> None:
        """Hundreds of pipelined requests that are answered inside their own sending do not nest."""
        self.answer(replies.echo())
        client = self.client().send(b"".join(get() + post(b"%d" % number) for number in range(300)))
        self.clock.pump([0.0] * 600)  # a client has its turns like others
        self.assertEqual(len(client.responses), 600)
        self.assertEqual([r.body for r in client.responses[1::2]], [b"%d" % n for n in range(300)])
        self.assertEqual(set(self.executed), {1})

    def test_every_reply(self) -> None:
        """Each way to answer works from inside the call that asked."""
        for reply in (
            replies.fixed(b"x" * 1000),
            replies.chunked([b"x" * 500] * 2, trailers=((b"A", b"b"),)),
            replies.early(replies.fixed(b"x" * 1000)),
            replies.after_interim(replies.fixed(b"x" * 1000), status=100),
            replies.close_delimited(b"x" * 1000),
        ):
            for request in (get(), post(b"body"), post(b"")):
                self.answer(reply)
                client = self.client().send(request)
                self.assertEqual(client.response.body, b"x" * 1000)
        self.assertEqual(set(self.observer.codes), {"-"})

    def test_early_answer(self) -> None:
        """An answer inside the sending of the head leaves the upload unopened, and nothing confused."""
        self.answer(replies.early(replies.fixed(b"early")))
        client = self.client().send(post(b"x" * 1000)[:-500])
        self.assertEqual(client.statuses, [200])
        client = self.client().send(post(b"x" * 1000) + get())
        self.assertEqual(client.statuses[0], 200)
        self.clock.advance(3)

    def test_pauses(self) -> None:
        """A writer that is paused and resumed inside each of its writes loses nothing."""
        body = bytes(range(256)) * 1000
        self.answer(replies.echo())
        client = self.client()
        self.front_end.pauses_writer = True
        client.send(post(b"warm") + get())
        for end in self.backend_ends:
            end.pauses_writer = True
        client.send(post(body) + get() + post(body))
        self.assertEqual([len(r.body) for r in client.responses], [4, 0, len(body), 0, len(body)])

    def test_connect_failures(self) -> None:
        """Attempts that fail inside the call that begins them move on, and give up."""
        self.refuses = {1}
        self.answer(replies.echo())
        for _ in range(3):
            self.assertEqual(self.client().send(post(b"x")).response.body, b"x")
        self.refuses = {1, 2}
        self.resolver.set_app(App("other", ["other.test"], ["127.0.0.1:1", "127.0.0.1:2"]))
        client = self.client().send(get(b"/", b"other.test") * 2)
        self.assertEqual(client.statuses, [502, 502])

    def test_backend_lost_inside_the_request(self) -> None:
        """A connection that breaks in the sending of a GET is replaced in the same call."""
        self.answer(replies.fixed(b"ok"))
        self.assertEqual(self.client().send(get() + get()).statuses, [200, 200])
        for end in self.backend_ends:
            end.breaks_after = 10
        self.assertEqual(self.client().send(get() + get()).statuses, [200, 200])
        for end in self.backend_ends:
            end.breaks_after = 10
        self.assertEqual(self.client().send(post(b"x")).statuses, [502])
        self.assertEqual(len(self.observer.records), 5)

    def test_backend_lost_inside_the_upload(self) -> None:
        """One that breaks in the middle of a body is 502, once."""
        self.answer(replies.echo())
        self.client().send(post(b"warm") + post(b"warm"))
        for end in self.backend_ends:
            end.breaks_after = 5000
        client = self.client().send(post(b"x" * 1000)[:-500])
        client.send(b"x" * 400)
        for end in self.backend_ends:
            end.breaks_after = 50
        client.send(b"x" * 100)
        self.assertEqual(client.statuses, [502])
        self.assertEqual(self.observer.codes[-1], "backend-closed")

    def test_client_lost_inside_the_answer(self) -> None:
        """A client that is lost while its answer is written is accounted for once."""
        for reply in (
            replies.fixed(b"x" * 5000),
            replies.chunked([b"x" * 100] * 50),
            replies.drip([b"x"] * 5, 1.0),
        ):
            for after in (0, 50, 300, 5000):
                del self.observer.records[:]
                self.answer(reply)
                client = self.client()
                self.front_end.breaks_after = after
                client.send(get())
                self.clock.pump([1.0] * 10)
                self.assertEqual(len(self.observer.records), 1, (reply, after))
                client.close()

    def test_client_lost_inside_an_error(self) -> None:
        """Nor does an error page that cannot be written count twice."""
        client = self.client()
        self.front_end.breaks_after = 10
        client.send(get(b"/", b"nobody.test") * 3)
        self.assertEqual(self.observer.codes, ["unknown-host"])
        client = self.client()
        self.front_end.breaks_after = 10
        client.send(b"nonsense\r\n\r\n")
        self.assertEqual(self.observer.codes, ["unknown-host", "bad-request"])

    def test_tunnel(self) -> None:
        """A tunnel that is opened, used and closed inside single calls."""

        def talk(exchange: IncomingExchange) -> None:
            exchange.tunnel(exchange.write)
            exchange.write(SWITCH + b"hello")

        self.answer(replies.reply_with(talk))
        client = self.client().send(websocket() + b"early")
        self.assertEqual(client.tunnelled, b"helloearly")
        client.send(b"late")
        self.assertEqual(client.tunnelled, b"helloearlylate")
        client.close()
        self.assertEqual(self.observer.codes, ["-"])

    def test_tunnel_that_ends_inside_its_opening(self) -> None:
        """A backend that switches and is gone in the same call leaves nothing."""

        def come_and_go(exchange: IncomingExchange) -> None:
            exchange.write(SWITCH + b"hello")
            exchange.close()

        self.answer(replies.reply_with(come_and_go))
        client = self.client().send(websocket())
        self.assertEqual(client.tunnelled, b"hello")
        self.assertTrue(client.is_over)
        self.assertEqual(len(self.observer.records), 1)

    def test_drain_inside(self) -> None:
        """Stopping from inside a backend's answer ends with that answer."""
        done: list[object] = []

        def stop(exchange: IncomingExchange) -> None:
            self.factory.drain(30).addCallback(done.append)
            replies.fixed(b"last").complete(exchange)

        self.answer(replies.reply_with(stop))
        client = self.client().send(get() * 3)
        self.assertEqual(client.response.body, b"last")
        self.clock.advance(3)
        self.assertEqual(len(done), 1)
        self.assertTrue(client.is_over)


class NarrowTests(DirectTestCase):
    """One place at each backend, passed on inside the call that frees it."""

    limits = Limits(in_flight_per_backend=1)

    def test_places_pass_on(self) -> None:
        """Each of many that wait is served by the end of the one before, one connection for all."""
        waiting: list[IncomingExchange] = []
        self.answer(replies.reply_with(waiting.append))
        clients = [self.client().send(get()) for _ in range(40)]
        self.assertEqual(len(waiting), 2)
        self.answer(replies.fixed(b"ok"))
        for exchange in waiting:
            replies.fixed(b"first").complete(exchange)
        self.assertEqual([client.statuses for client in clients], [[200]] * 40)
        self.assertEqual(set(self.executed), {1})
        self.assertEqual(len(self.backend_ends), 2)
