"""Apps that change under load: no request fails, and none goes where it must not."""

from __future__ import annotations

from random import Random

from scalingo_proxy.model import Limits
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WAYS, WorldTestCase, code_of, each_world, get, hello, post


class RedeployTests(WorldTestCase):
    """Backends that join and leave."""

    @each_world()
    def test_removed_backend_finishes(self, world: World) -> None:
        """A backend that left gets nothing new, and finishes what it has."""
        app = hello(world, replies.delayed(5.0, replies.echo()))
        under_way = [world.client().send(post(b"%d" % number)) for number in range(3)]
        uploading = world.client().send(post(b"x" * 10)[:-5])
        world.advance(1)
        fresh = world.backend("fresh")
        world.change("hello", backends=[fresh])
        for _ in range(5):
            self.assertEqual(world.request(get()).body, b"fresh")
        uploading.send(b"x" * 5)
        world.advance(10)
        self.assertEqual([client.response.body for client in under_way], [b"0", b"1", b"2"])
        self.assertEqual(uploading.response.body, b"x" * 10)
        self.assertEqual(app.requests, 4)
        self.assertEqual(app.backend.open_connections, [])

    @each_world()
    def test_idle_connections_close_at_once(self, world: World) -> None:
        """Connections that wait for a backend that left are closed; those in use, with their exchange."""
        app = hello(world, replies.delayed(1.0, replies.fixed(b"x")))
        for _ in range(3):
            world.client().send(get())
        world.advance(2)
        world.client().send(get())
        world.advance(0.5)
        self.assertEqual(len(app.backend.open_connections), 3)
        world.change("hello", backends=[world.backend("fresh")])
        world.settle()
        self.assertEqual(len(app.backend.open_connections), 1)
        world.advance(1)
        self.assertEqual(app.backend.open_connections, [])

    @each_world()
    def test_drain_is_told(self, world: World) -> None:
        """The drain of a change is over when the last request of those backends is."""
        hello(world, replies.delayed(2.0, replies.fixed(b"x")), backends=2)
        for _ in range(4):
            world.client().send(get())
        world.advance(1)
        (pool,) = world.pools
        old = pool.members
        done: list[float] = []
        world.change("hello", backends=[world.backend("fresh")])
        self.assertFalse(any(member.is_drained for member in old))
        pool.watch(lambda member, event: done.append(world.clock.seconds()) if event == "gone" else None)
        world.advance(0.5)
        self.assertEqual(done, [])
        world.advance(1)
        self.assertEqual(len(done), 2)
        self.assertTrue(all(member.is_drained for member in old))

    @each_world()
    def test_app_is_removed(self, world: World) -> None:
        """Requests of an app that goes finish; the next one finds nobody."""
        app = hello(world, replies.delayed(2.0, replies.fixed(b"last")))
        client = world.client().send(get())
        world.advance(1)
        world.resolver.remove_app("hello")
        late = world.client().send(get())
        world.settle()
        self.assertEqual(code_of(late), "unknown-host")
        world.advance(2)
        self.assertEqual(client.response.body, b"last")
        self.assertEqual(app.backend.open_connections, [])

    @each_world()
    def test_address_comes_back(self, world: World) -> None:
        """An address that leaves and joins again is served over new connections."""
        app = hello(world, backends=2)
        for _ in range(4):
            world.request(get())
        world.change("hello", backends=app.backends[:1])
        world.settle()
        world.change("hello", backends=app.backends)
        for _ in range(4):
            self.assertEqual(world.request(get()).status, 200)
        self.assertEqual([len(backend.connections) for backend in app.backends], [1, 2])

    @each_world(*WAYS, limits=Limits(in_flight_per_backend=3))
    def test_under_load(self, world: World) -> None:
        """Backends replaced again and again cost no request anything, POST or GET."""
        random = Random(3)
        generation = [world.backend(f"0-{n}").answer(replies.delayed(0.2, replies.echo())) for n in range(2)]
        world.app("hello", ["hello.test"], backends=generation)
        clients = []
        for turn in range(25):
            for _ in range(3):
                request = random.choice((get(), post(b"x" * random.randrange(2000))))
                clients.append(world.client().send(request))
            world.advance(random.choice((0.0, 0.05, 0.15)))
            if turn % 3 == 2:
                generation = [
                    world.backend(f"{turn}-{n}").answer(replies.delayed(0.2, replies.echo()))
                    for n in range(random.randint(1, 3))
                ]
                world.change("hello", backends=generation)
        world.advance(30)
        self.assertEqual({tuple(client.statuses) for client in clients}, {(200,)})
        executed = [count for backend in world.backends for count in backend.request_ids.values()]
        self.assertEqual(sum(executed), len(clients))
        self.assertEqual([b.name for b in world.backends if b.open_connections and b not in generation], [])
