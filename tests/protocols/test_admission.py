"""Who is let in, and how often: what clients and backends see of it."""

from __future__ import annotations

from scalingo_proxy.routing.access import AccessRules
from tests.protocols.worlds import WorldTestCase, code_of, get, post


class AdmissionTests(WorldTestCase):
    """Refused requests reach no backend, and leave one record."""

    def test_denied(self) -> None:
        """403 whatever is asked for, an unknown host among it, and the connection goes on."""
        world = self.world()
        app = world.app("hello", ["hello.test"])
        world.factory.env.policies.access = AccessRules(deny=["127.0.0.1"])
        client = world.client().send(get(b"/a") + get(b"/b", b"nobody.test"))
        world.run_until(lambda: len(client.responses) == 2)
        self.assertEqual(client.statuses, [403, 403])
        self.assertEqual(app.requests, 0)
        told = [(record.status, record.code, record.app) for record in world.records]
        self.assertEqual(told, [(403, "denied", "")] * 2)
        world.factory.env.policies.access = AccessRules()
        client.send(get(b"/c"))
        world.run_until(lambda: len(client.responses) == 3)
        self.assertEqual(client.statuses[2], 200)

    def test_trusted_proxy_tells_the_client(self) -> None:
        """It is not the trusted proxy that is judged."""
        world = self.world(trusted_proxies=["127.0.0.1"])
        world.app("hello", ["hello.test"])
        world.factory.env.policies.access = AccessRules(deny=["127.0.0.1", "192.0.2.0/24"])
        refused = world.request(get(b"/", b"hello.test", b"X-Forwarded-For: 192.0.2.9"))
        served = world.request(get(b"/", b"hello.test", b"X-Forwarded-For: 192.0.2.9, 198.51.100.1"))
        self.assertEqual((refused.status, served.status), (403, 200))

    def test_forged_header(self) -> None:
        """Nobody else's word counts."""
        world = self.world()
        world.app("hello", ["hello.test"])
        world.factory.env.policies.access = AccessRules(deny=["127.0.0.1"])
        self.assertEqual(world.request(get(b"/", b"hello.test", b"X-Forwarded-For: 10.0.0.1")).status, 403)

    def test_app_lists(self) -> None:
        """One app's list is not another's."""
        world = self.world()
        closed = world.app("closed", ["closed.test"], access={"deny": ("127.0.0.0/8",)})
        world.app("hello", ["hello.test"])
        self.assertEqual(world.request(get(b"/", b"closed.test")).status, 403)
        self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(closed.requests, 0)

    def test_rate_limit(self) -> None:
        """429 with the time to wait; a body that comes along is not taken for a request."""
        world = self.world()
        app = world.app("hello", ["hello.test"], rate_limit={"requests": 1, "per": 2.0, "burst": 2})
        client = world.client()
        for number in range(1, 4):
            client.send(post(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"))
            world.run_until(lambda count=number: len(client.responses) == count)  # type: ignore[misc]
        self.assertEqual(client.statuses, [200, 200, 429])
        last = client.responses[-1]
        self.assertEqual(last.get(b"Retry-After"), b"2")
        self.assertEqual(last.get(b"X-Scalingo-Error", b"").partition(b";")[0], b"rate-limited")
        world.advance(2.0)
        self.assertEqual(world.request(get()).status, 200)
        self.assertEqual(app.requests, 3)

    def test_refused_before_redirects(self) -> None:
        """A client that is kept out learns nothing of the app."""
        world = self.world()
        world.app("hello", ["hello.test"], force_https=True, access={"allow": ("10.0.0.0/8",)})
        client = world.client().send(get())
        world.run_until(lambda: client.responses)
        self.assertEqual(code_of(client), "denied")
