"""Deploys as a program that embeds the proxy makes them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import DomainTaken
from scalingo_proxy.model import App, Health
from scalingo_proxy.protocols.probes import BackendProbe
from scalingo_proxy.routing.members import HealthState
from scalingo_proxy.services.deploys import Deploys
from scalingo_proxy.services.paced_probes import PacedProbes
from scalingo_proxy.services.readiness import BackendsNotReady
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import WorldTestCase, get


class DeploysTests(WorldTestCase):
    """In a world with real probes."""

    def setUp(self) -> None:
        self.world_ = self.world()
        self.app = self.world_.app("hello", ["hello.test"], backends=2)
        self.deploys = self.deploys_of(self.world_)

    def deploys_of(self, world: World) -> Deploys:
        """What a program makes of its environment."""
        probes = PacedProbes(BackendProbe(world.network), world.network)
        return Deploys(world.pools, probes, world.network)

    def new(self, *addresses: str, **fields: Any) -> App:
        """The app with other backends."""
        return App("hello", ["hello.test"], addresses, **fields)

    def test_ready_then_applied(self) -> None:
        """New ones begin as up, old ones finish what they have, and then it is told."""
        world = self.world_
        self.app.backends[0].answer(replies.delayed(5, replies.fixed(b"slow")))
        self.app.backends[1].answer(replies.delayed(5, replies.fixed(b"slow")))
        client = world.client()
        client.send(get())
        world.network.advance(1)
        fresh = world.backend("fresh")
        app = self.new(fresh.address, health={"path": "/up"})
        tryouts = world.network.run_until(self.deploys.ready(app))
        (tryout,) = tryouts
        self.assertEqual(tryout.reason, f"GET http://{fresh.address}/up: answered 200")
        self.assertEqual(world.resolver.apps()["hello"].backends[0].address, self.app.backends[0].address)
        deploy = self.deploys.apply(app, world.resolver.set_app, tryouts)
        (member,) = world.pools.get("hello").members  # type: ignore[union-attr]
        self.assertEqual((member.health, member.health_reason), (HealthState.UP, tryout.reason))
        self.assertEqual(len(deploy.removed), 2)
        self.assertNoResult(deploy.is_drained)
        world.network.run_until(deploy.is_drained.addCallback(lambda _: True))
        world.settle()
        self.assertEqual(client.responses[0].body, b"slow")
        self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(len(fresh.requests), 2)

    def test_not_ready(self) -> None:
        """Nothing has changed, and each reason is there."""
        world = self.world_
        self.deploys.seconds = 3
        fresh = world.backend("fresh").answer(replies.fixed(b"", 503))
        app = self.new(fresh.address, "127.0.0.1:9", health={"path": "/up"})
        ready = self.deploys.ready(app)
        world.network.advance(3.5)
        error = self.failureResultOf(ready, BackendsNotReady).value
        self.assertEqual(
            [(tryout.passed, tryout.tries, tryout.reason) for tryout in error.tryouts],
            [
                (False, 3, f"GET http://{fresh.address}/up: answered 503"),
                (False, 3, "GET http://127.0.0.1:9/up: connection refused"),
            ],
        )
        self.assertEqual(len(world.resolver.apps()["hello"].backends), 2)

    def test_at_once(self) -> None:
        """Without a wait, and with nobody to wait for."""
        world = self.world_
        deploy = self.deploys.apply(self.new(self.app.backends[0].address), world.resolver.set_app)
        # Nobody used the app yet: there is nobody to drain.
        self.successResultOf(deploy.is_drained)
        self.assertEqual(deploy.removed, ())
        world.request(get())
        deploy = self.deploys.apply(self.new(self.app.backends[1].address), world.resolver.set_app)
        self.successResultOf(deploy.is_drained)
        self.assertEqual([one.backend.address for one in deploy.removed], [self.app.backends[0].address])

    def test_refused(self) -> None:
        """Whatever the resolver says comes out, and nothing is left."""
        self.world_.app("other", ["other.test"])
        taken = App("hello", ["other.test"], [self.app.backends[0].address])
        self.assertRaises(DomainTaken, self.deploys.apply, taken, self.world_.resolver.set_app)
        self.assertEqual(self.world_.resolver.apps()["hello"].domains, ("hello.test",))

    def test_given_up(self) -> None:
        """Either wait can be cancelled."""
        world = self.world_
        self.app.backends[0].answer(replies.never())
        self.app.backends[1].answer(replies.never())
        client = world.client()
        client.send(get())
        world.network.advance(1)
        ready = self.deploys.ready(self.new("127.0.0.1:9"))
        world.network.advance(1)
        ready.cancel()
        self.failureResultOf(ready, CancelledError)
        deploy = self.deploys.apply(self.new("127.0.0.1:9"), world.resolver.set_app)
        deploy.is_drained.cancel()
        self.failureResultOf(deploy.is_drained, CancelledError)
        client.close()
        world.network.advance(1)


class HealthOfTests(SynchronousTestCase):
    """How an app without a pool would be probed."""

    def test_defaults_with_its_own(self) -> None:
        """The app's own values over the defaults."""
        world = World()
        self.assertEqual(world.pools.health_of(App("a")), Health())
        self.assertEqual(world.pools.health_of(App("a", health={"rise": 3})), Health(rise=3))
        world.end()
