"""The drain deadline of backends that left: what they still have is ended, in order and little by little."""

from __future__ import annotations

from functools import partial

from h2.errors import ErrorCodes
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.protocols.drains import when_drained
from scalingo_proxy.protocols.pace import Pace
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.replies import Reply
from scalingo_proxy.testing.world import World
from scalingo_proxy.wire.websocket_frames import SERVICE_RESTART, close_frame
from tests.protocols.http2_worlds import HTTP2TestCase, fields
from tests.protocols.passthrough_worlds import PassthroughTestCase
from tests.protocols.passthrough_worlds import hello as tls_hello
from tests.protocols.test_http2_websocket import accepting, connect_fields
from tests.protocols.test_upgrades import open_tunnel, websocket
from tests.protocols.worlds import WAYS, WorldTestCase, code_of, each_world, get, hello, post

DRAIN = 10.0
PATIENT = Timeouts(first_byte=1000.0, request_body=1000.0, queue=1000.0, idle=1000.0, drain=DRAIN)

GOODBYE = close_frame(SERVICE_RESTART, "Service Restart")
#: What a client answers: the same code, masked.
ANSWER = b"\x88\x82\0\0\0\0\x03\xf4"


def redeploy(world: World) -> None:
    """Take all backends away from the app, and give it another one."""
    world.change("hello", backends=[world.backend("fresh")])


def websockets(app_reply: Reply, world: World, count: int = 1) -> list[ScriptedClient]:
    """Open WebSockets of an app whose backend does *app_reply*."""
    hello(world, app_reply)
    return [open_tunnel(world) for _ in range(count)]


class RequestTests(WorldTestCase):
    """Requests at the drain deadline of their backend."""

    @each_world(timeouts=PATIENT)
    def test_not_answered(self, world: World) -> None:
        """503 drain-timeout at the deadline and not before; the connection serves on."""
        hello(world, replies.never())
        waiting = world.client().send(post(b"whole"))
        uploading = world.client().send(post(b"x" * 10)[:-5])
        world.settle()
        redeploy(world)
        world.advance(DRAIN - 0.1)
        self.assertEqual((waiting.statuses, uploading.statuses), ([], []))
        world.advance(0.4)
        self.assertEqual((code_of(waiting), code_of(uploading)), ("drain-timeout", "drain-timeout"))
        self.assertEqual({response.status for response in waiting.responses + uploading.responses}, {503})
        waiting.send(get())
        world.settle()
        self.assertEqual(waiting.responses[-1].body, b"fresh")

    @each_world(timeouts=PATIENT)
    def test_response_under_way(self, world: World) -> None:
        """A response that has begun breaks off, and never looks whole."""
        app = hello(world, replies.drip([b"data\n\n"] * 100, 1.0))
        client = world.client().send(get())
        world.settle()
        redeploy(world)
        world.advance(DRAIN + 1)
        self.assertEqual(client.responses, [])
        self.assertIsNotNone(client.partial)
        self.assertTrue(client.is_over)
        self.assertEqual(app.backend.open_connections, [])

    @each_world(timeouts=PATIENT)
    def test_others_notice_nothing(self, world: World) -> None:
        """Requests at a backend that stays, and those that finish in time, are not touched."""
        app = hello(world, backends=2)
        for backend in app.backends:
            backend.script(replies.delayed(DRAIN + 20, replies.fixed(b"late")))
        clients = [world.client().send(get()) for _ in range(2)]
        world.settle()
        quick = app.backends[1].answer(replies.delayed(DRAIN - 1, replies.fixed(b"in time")))
        done = [world.client().send(get()) for _ in range(2)]
        world.settle()
        world.change("hello", backends=app.backends[:1])
        world.advance(DRAIN + 30)
        self.assertEqual(sorted(client.response.status for client in clients), [200, 503])
        self.assertEqual([client.response.status for client in done], [200, 200])
        self.assertEqual(quick.open_connections, [])

    @each_world(timeouts=PATIENT)
    def test_still_connecting(self, world: World) -> None:
        """What was not sent yet goes to another backend."""
        app = hello(world, timeouts={"drain": 0.5})
        world.network.set_way(app.backend.address, delay=3.0)
        client = world.client().send(post(b"x"))
        world.advance(0.2)
        redeploy(world)
        world.advance(1)
        self.assertEqual(client.response.body, b"fresh")
        self.assertEqual(app.requests, 0)

    @each_world(timeouts=PATIENT)
    def test_app_is_removed(self, world: World) -> None:
        """The backends of an app that goes have its own drain time."""
        hello(world, replies.never(), timeouts={"drain": 3.0})
        client = world.client().send(get())
        world.settle()
        world.resolver.remove_app("hello")
        world.advance(2.9)
        self.assertEqual(client.statuses, [])
        world.advance(0.2)
        self.assertEqual(code_of(client), "drain-timeout")

    @each_world({}, timeouts=PATIENT, limits=Limits(in_flight_per_backend=1000))
    def test_pace(self, world: World) -> None:
        """Many are ended over a time, the oldest first, ten milliseconds each."""
        hello(world, replies.never())
        clients = []
        for _ in range(100):
            clients.append(world.client().send(get()))
            world.advance(0.05)
        redeploy(world)
        world.advance(DRAIN + 0.5)
        answered = [bool(client.responses) for client in clients]
        self.assertEqual(answered, sorted(answered, reverse=True))
        self.assertTrue(45 <= sum(answered) <= 60, sum(answered))
        world.advance(0.6)
        self.assertEqual({tuple(client.statuses) for client in clients}, {(503,)})

    @each_world(timeouts=PATIENT)
    def test_when_drained(self, world: World) -> None:
        """Whoever waits for the drain hears of it, unless there is nothing to wait for or nobody waits."""
        hello(world, replies.never())
        world.client().send(get())
        world.settle()
        (pool,) = world.pools
        self.assertTrue(when_drained(pool).called)
        redeploy(world)
        done: list[object] = []
        waiting, given_up = when_drained(pool).addCallback(done.append), when_drained(pool)
        given_up.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        world.advance(DRAIN - 0.1)
        self.assertFalse(waiting.called)
        world.advance(0.3)
        self.assertEqual(done, [None])

    @each_world(timeouts=PATIENT)
    def test_two_deploys(self, world: World) -> None:
        """Each backend has its own deadline."""
        hello(world, replies.never())
        first = world.client().send(get())
        world.settle()
        second_backend = world.backend("second").answer(replies.never())
        world.change("hello", backends=[second_backend])
        second = world.client().send(get())
        world.advance(DRAIN / 2)
        redeploy(world)
        world.advance(DRAIN / 2 + 0.1)
        self.assertEqual((first.statuses, second.statuses), ([503], []))
        world.advance(DRAIN / 2)
        self.assertEqual(second.statuses, [503])


class WebSocketTests(WorldTestCase):
    """WebSockets whose backend left."""

    @each_world(timeouts=PATIENT)
    def test_between_frames(self, world: World) -> None:
        """The client gets a close frame with 1012, its answer reaches the backend, all closes in order."""
        (client,) = websockets(replies.upgrade_echo(greeting=b"\x81\x05hello"), world)
        world.settle()
        backend = world.backends[0]
        redeploy(world)
        world.advance(DRAIN - 0.1)
        self.assertEqual(client.tunnelled, b"\x81\x05hello")
        world.advance(0.2)
        self.assertEqual(client.tunnelled, b"\x81\x05hello" + GOODBYE)
        client.send(ANSWER)
        world.settle()
        self.assertEqual(backend.connections[0].tunnelled, ANSWER)
        backend.connections[0].transport.loseConnection()
        world.settle()
        self.assertTrue(client.saw_end)
        client.close()
        world.settle()
        self.assertEqual(client.tunnelled, b"\x81\x05hello" + GOODBYE)
        self.assertEqual(world.observer.codes, ["drain-timeout"])

    @each_world(timeouts=PATIENT)
    def test_in_the_middle_of_a_frame(self, world: World) -> None:
        """The rest of a frame that was begun goes out first, and what follows it does not."""
        (client,) = websockets(replies.upgrade_echo(greeting=b"\x01\x05hel"), world)
        world.settle()
        redeploy(world)
        world.advance(DRAIN + 0.5)
        self.assertEqual(client.tunnelled, b"\x01\x05hel")
        world.backends[0].connections[0].transport.write(b"lo\x80\x05never")
        world.settle()
        self.assertEqual(client.tunnelled, b"\x01\x05hello" + GOODBYE)
        world.advance(3)
        self.assertTrue(client.saw_end)

    @each_world(timeouts=PATIENT)
    def test_frame_that_does_not_end(self, world: World) -> None:
        """It is waited for a second."""
        (client,) = websockets(replies.upgrade_echo(greeting=b"\x82\x05hel"), world)
        world.settle()
        redeploy(world)
        world.advance(DRAIN + 0.9)
        self.assertFalse(client.is_over)
        world.advance(0.5)
        self.assertTrue(client.is_over)
        self.assertEqual(client.tunnelled, b"\x82\x05hel")

    @each_world(timeouts=PATIENT)
    def test_nobody_answers(self, world: World) -> None:
        """A client that does not close, and a backend that does not, hold it up for two seconds."""
        (client,) = websockets(replies.upgrade_echo(), world)
        redeploy(world)
        world.advance(DRAIN + 1.9)
        self.assertFalse(client.saw_end)
        world.advance(0.5)
        self.assertTrue(client.saw_end)
        self.assertEqual(client.tunnelled, GOODBYE)
        self.assertEqual(world.backends[0].open_connections, [])
        world.assert_idle()

    @each_world(timeouts=PATIENT)
    def test_chatter_does_not_prolong_it(self, world: World) -> None:
        """A client that goes on talking, and a backend that answers, do not either."""
        (client,) = websockets(replies.upgrade_echo(), world)
        client.send_slowly(b"\x81\x80\0\0\0\0" * 200, size=6, every_seconds=0.1)
        redeploy(world)
        world.advance(DRAIN + 3)
        self.assertTrue(client.saw_end or client.is_over)
        self.assertTrue(client.tunnelled.endswith(GOODBYE))

    @each_world(timeouts=PATIENT)
    def test_backend_has_closed(self, world: World) -> None:
        """There are not two close frames."""
        (client,) = websockets(replies.upgrade_echo(greeting=b"\x88\x02\x03\xe8"), world)
        redeploy(world)
        world.advance(DRAIN + 3)
        self.assertEqual(client.tunnelled, b"\x88\x02\x03\xe8")
        self.assertTrue(client.saw_end)

    @each_world(timeouts=PATIENT, buffer_bytes=4096)
    def test_client_does_not_read(self, world: World) -> None:
        """A client that takes nothing is cut."""
        flood = b"\x82\x7e\x03\xe8" + b"x" * 1000
        (client,) = websockets(replies.upgrade_echo(greeting=flood * 500), world)
        client.pause()
        redeploy(world)
        world.advance(DRAIN + 6)
        world.assert_idle()
        client.resume()
        world.settle()
        self.assertNotIn(GOODBYE, client.tunnelled)

    @each_world(timeouts=PATIENT)
    def test_many(self, world: World) -> None:
        """Each of many gets its own close frame, over a time."""
        clients = websockets(replies.upgrade_echo(), world, 60)
        redeploy(world)
        world.advance(DRAIN + 0.3)
        told = sum(client.tunnelled == GOODBYE for client in clients)
        self.assertTrue(25 <= told <= 40, told)
        world.advance(4)
        self.assertEqual({client.tunnelled for client in clients}, {GOODBYE})
        world.assert_idle()


class OtherTunnelTests(PassthroughTestCase):
    """Tunnels that are no WebSockets."""

    @each_world(*WAYS, timeouts=PATIENT)
    def test_upgraded(self, world: World) -> None:
        """An upgrade to something else is closed."""
        hello(world, replies.upgrade_echo(b"chat"))
        client = open_tunnel(world, get(b"/", b"hello.test", b"Connection: upgrade", b"Upgrade: chat"))
        client.send(b"abc")
        world.settle()
        redeploy(world)
        world.advance(DRAIN - 0.1)
        self.assertFalse(client.saw_end)
        world.advance(0.3)
        self.assertTrue(client.saw_end)
        self.assertEqual(client.tunnelled, b"abc")
        self.assertEqual(world.observer.codes, ["drain-timeout"])

    def test_passthrough(self) -> None:
        """So is TLS that passes through."""
        world = self.world(timeouts=PATIENT)
        (server,) = self.serve(world, greeting=b"hi")
        client = world.client().send(tls_hello())
        world.settle()
        world.change("hello", backends=[])
        world.advance(DRAIN - 0.1)
        client.send(b"more")
        world.settle()
        self.assertTrue(server.connection.received.endswith(b"more"))
        world.advance(0.3)
        self.assertTrue(client.is_over)
        self.assertIsNotNone(server.connection.reason)
        self.assertEqual(world.observer.codes, ["drain-timeout"])


class HTTP2Tests(HTTP2TestCase):
    """Streams whose backend left, beside streams whose backend did not."""

    def test_only_their_streams(self) -> None:
        """Nothing is said to the connection, and other streams go on."""
        world = self.world(timeouts=PATIENT)
        hello(world, replies.never())
        world.app("other", ["other.test"]).backend.answer(
            replies.delayed(DRAIN * 2, replies.fixed(b"untouched"))
        )
        client = self.client(world)
        gone = client.request(fields())
        other = client.request(fields(host=b"other.test"))
        world.settle()
        redeploy(world)
        world.advance(DRAIN + 1)
        self.assertEqual((gone.status, gone.code), (503, "drain-timeout"))
        world.advance(DRAIN)
        self.assertEqual((client.goaway, bytes(other.body)), (None, b"untouched"))

    def test_response_under_way(self) -> None:
        """It ends with RST_STREAM."""
        world = self.world(timeouts=PATIENT)
        hello(world, replies.drip([b"data\n\n"] * 100, 1.0))
        client = self.client(world)
        stream = client.request(fields())
        world.settle()
        redeploy(world)
        world.advance(DRAIN + 1)
        self.assertEqual((stream.ended, stream.reset), (False, ErrorCodes.INTERNAL_ERROR))
        self.assertIsNone(client.goaway)

    def test_websocket(self) -> None:
        """A WebSocket over a stream gets its close frame, and then its end."""
        world = self.world(timeouts=PATIENT)
        hello(world, accepting())
        client = self.client(world)
        stream = client.request(connect_fields(), end=False)
        world.settle()
        self.assertEqual(stream.status, 200)
        redeploy(world)
        world.advance(DRAIN + 0.2)
        self.assertEqual((bytes(stream.body), stream.ended), (GOODBYE, False))
        client.upload(stream, ANSWER, end=True)
        world.advance(3)
        self.assertTrue(stream.ended)
        self.assertIsNone(client.goaway)
        self.assertEqual(world.backends[0].connections[0].tunnelled, ANSWER)


class StopTests(WorldTestCase):
    """Tunnels when the proxy stops."""

    @each_world(timeouts=PATIENT)
    def test_websockets(self, world: World) -> None:
        """Each gets 1012 before the time is over, and requests have all of it."""
        app = hello(world, replies.upgrade_echo())
        clients = [open_tunnel(world) for _ in range(200)]
        app.backend.answer(replies.delayed(29.5, replies.fixed(b"slow")))
        slow = world.client().send(get())
        world.settle()
        done: list[object] = []
        world.factory.drain(30.0).addCallback(done.append)
        world.advance(24.9)
        self.assertEqual({client.tunnelled for client in clients}, {b""})
        world.advance(1.0)
        self.assertTrue(30 < sum(bool(client.tunnelled) for client in clients) < 150)
        world.advance(4.0)
        self.assertEqual({client.tunnelled for client in clients}, {GOODBYE})
        self.assertEqual(slow.response.body, b"slow")
        world.advance(0.5)
        self.assertEqual(len(done), 1)

    @each_world(timeouts=PATIENT)
    def test_opened_meanwhile(self, world: World) -> None:
        """One that was opened at the last moment is closed, too."""
        hello(world, replies.delayed(9.0, replies.upgrade_echo()))
        client = world.client(closes_at_end=False).send(websocket())
        world.settle()
        world.factory.drain(10.0)
        world.advance(9.9)
        self.assertEqual((client.statuses, client.tunnelled), ([101], GOODBYE))
        world.advance(1)


class PaceTests(SynchronousTestCase):
    """What is spread."""

    def test_evenly(self) -> None:
        """Few take ten milliseconds each, many no more than five seconds."""
        for count, half in ((1, 0.0), (10, 0.05), (10_000, 2.5)):
            clock = Clock()
            done: list[int] = []
            Pace(clock).spread([partial(done.append, number) for number in range(count)])
            self.assertEqual(done[:1], [0])
            clock.pump([0.01] * int(half * 100))
            self.assertLessEqual(abs(len(done) - max(count // 2, 1)), max(count // 50, 1))
            clock.pump([0.01] * int(half * 100 + 2))
            self.assertEqual(done, list(range(count)))
            self.assertEqual(clock.getDelayedCalls(), [])
