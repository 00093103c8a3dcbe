"""Clients that leave, in every phase: the backend's request is cancelled, the backend not blamed."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

from scalingo_proxy.model import Limits, Outcome
from scalingo_proxy.routing.pool import Lease
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WAYS, WorldTestCase, each_world, get, hello, post

Leave = Callable[[ScriptedClient], None]

LEAVES: tuple[Leave, ...] = (
    ScriptedClient.close,
    ScriptedClient.half_close,
    ScriptedClient.abort,
)


class LeavingTests(WorldTestCase):
    """Whatever the exchange waits for, it ends when its client is gone."""

    def setUp(self) -> None:
        self.outcomes: list[Outcome] = []
        release = Lease.release

        def noting(lease: Lease, outcome: Outcome, now: float, reason: str = "") -> None:
            self.outcomes.append(outcome)
            release(lease, outcome, now, reason)

        patch = mock.patch.object(Lease, "release", noting)
        patch.start()
        self.addCleanup(patch.stop)

    def each_leave(self, begin: Callable[[World], ScriptedClient], **options: object) -> None:
        """*begin* something, leave in every way, and see that all is given back at once."""
        for way in WAYS:
            for leave in LEAVES:
                with self.subTest(leave=leave.__name__, way=way):
                    del self.outcomes[:]
                    world = World(**{**way, **options})
                    client = begin(world)
                    self.assertEqual(client.responses, [])
                    leave(client)
                    world.advance(0.2)
                    world.assert_idle()
                    record = world.observer.record
                    self.assertEqual(record.code, "client-closed")
                    if not client.received:
                        self.assertEqual(record.status, 499)
                    self.assertTrue(client.is_over)
                    self.assertLessEqual(set(self.outcomes), {Outcome.ABANDONED})
                    for backend in world.backends:
                        self.assertEqual(backend.open_connections, [])
                    world.end()

    def test_connecting(self) -> None:
        """The attempt is given up."""

        def begin(world: World) -> ScriptedClient:
            app = hello(world)
            world.network.set_way(app.backend.address, delay=2.0)
            client = world.client().send(post(b"x" * 100))
            world.advance(1)
            return client

        self.each_leave(begin)

    def test_uploading(self) -> None:
        """The backend's half of a request is cut."""

        def begin(world: World) -> ScriptedClient:
            hello(world)
            client = world.client().send(post(b"x" * 1000)[:-10])
            world.settle()
            return client

        self.each_leave(begin)

    def test_uploading_in_chunks(self) -> None:
        """The backend never sees the last chunk."""

        def begin(world: World) -> ScriptedClient:
            hello(world)
            head = get(b"/", b"hello.test", b"Transfer-Encoding: chunked", method=b"POST")
            client = world.client().send(head + b"5\r\nhello\r\n")
            world.settle()
            return client

        self.each_leave(begin)

    def test_waiting(self) -> None:
        """A request whose answer nobody waits for is cut."""

        def begin(world: World) -> ScriptedClient:
            hello(world, replies.never())
            client = world.client().send(post(b"whole"))
            world.settle()
            return client

        self.each_leave(begin)

    def test_waiting_for_continue(self) -> None:
        """So is one that waits for a 100."""

        def begin(world: World) -> ScriptedClient:
            hello(world, replies.never())
            client = world.client().send(post(b"", b"Expect: 100-continue").replace(b": 0", b": 5"))
            world.settle()
            return client

        self.each_leave(begin)

    def test_response_head_under_way(self) -> None:
        """A response of which the client has seen nothing yet is given up."""

        def begin(world: World) -> ScriptedClient:
            hello(world, replies.raw(b"HTTP/1.1 200 O"))
            client = world.client().send(get())
            world.settle()
            return client

        self.each_leave(begin)

    def test_response_under_way(self) -> None:
        """A response in the middle is given up."""

        def begin(world: World) -> ScriptedClient:
            hello(world, replies.drip([b"data: 1\n\n"] * 100, 5.0))
            client = world.client().send(get())
            world.advance(7)
            return client

        self.each_leave(begin)

    def test_behind_other_requests(self) -> None:
        """What was pipelined behind is not begun."""

        def begin(world: World) -> ScriptedClient:
            hello(world, replies.never())
            client = world.client().send(get() * 3)
            world.settle()
            return client

        self.each_leave(begin)

    def test_request_on_a_kept_connection(self) -> None:
        """A request that was repeated because its kept connection was dead can be left like any other."""

        def begin(world: World) -> ScriptedClient:
            app = hello(world, replies.never())
            app.backend.script(replies.fixed(b"first"), replies.close_silently())
            world.request(get())
            world.observer.records.clear()
            client = world.client().send(get())
            world.settle()
            self.assertEqual(len(app.backend.connections), 2)
            self.outcomes.clear()
            return client

        self.each_leave(begin)

    def test_waiting_connection(self) -> None:
        """A client that leaves between two requests leaves no record and no trace."""
        for leave in LEAVES:
            world = self.world(cut=True)
            hello(world)
            client = world.client().send(get())
            world.settle()
            leave(client)
            world.settle()
            self.assertTrue(client.is_over)
            self.assertEqual(world.observer.codes, ["-"])

    def test_part_of_a_head(self) -> None:
        """A client that leaves in the middle of a head is not answered, and is told of."""
        for leave in LEAVES:
            world = self.world(cut=True)
            client = world.client().send(get()[:-5])
            world.settle()
            leave(client)
            world.settle()
            self.assertTrue(client.is_over)
            self.assertEqual(client.received, b"")
            self.assertEqual(world.observer.codes, ["client-closed"])

    @each_world(buffer_bytes=4096)
    def test_slow_reader_leaves(self, world: World) -> None:
        """A client that stopped reading and resets stops the backend, too."""
        del self.outcomes[:]
        app = hello(world, replies.bulk(3_000_000))
        client = world.client()
        client.pause()
        client.send(get())
        world.advance(5)
        client.abort()
        world.advance(0.2)
        self.assertEqual(world.observer.record.code, "client-closed")
        self.assertEqual(world.observer.record.status, 200)
        self.assertEqual(app.backend.open_connections, [])
        self.assertEqual(self.outcomes, [Outcome.ABANDONED])

    @each_world(limits=Limits(in_flight_per_backend=1))
    def test_place_is_free_at_once(self, world: World) -> None:
        """The next in line gets the place of the one who left."""
        app = hello(world)
        app.backend.script(replies.never())
        first = world.client().send(get())
        world.settle()
        second = world.client().send(get())
        world.settle()
        first.abort()
        world.settle()
        self.assertEqual(second.statuses, [200])

    @each_world()
    def test_answer_crosses_the_leaving(self, world: World) -> None:
        """An answer that meets a client on its way out is accounted for once."""
        hello(world, replies.delayed(1.0, replies.fixed(b"answer")))
        client = world.client().send(get())
        world.advance(1.0)
        client.close()
        world.settle()
        self.assertEqual(len(world.records), 1)
