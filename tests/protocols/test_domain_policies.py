"""Apps that want to be asked elsewhere: force_https and canonical."""

from __future__ import annotations

from scalingo_proxy.model import Limits
from tests.protocols.worlds import WorldTestCase, get, post


class DomainPolicyTests(WorldTestCase):
    """One 301, and no backend is asked."""

    def test_force_https(self) -> None:
        """Plain HTTP is sent to HTTPS, path and query kept, and the connection goes on."""
        world = self.world()
        app = world.app("hello", ["hello.test"], force_https=True)
        client = world.client().send(get(b"/a?b=c") + post(b"abc"))
        world.run_until(lambda: client.responses)
        world.advance(3)
        first = client.responses[0]
        self.assertEqual((first.status, first.get(b"Location")), (301, b"https://hello.test/a?b=c"))
        self.assertEqual(first.get_all(b"Strict-Transport-Security"), [])
        self.assertEqual(first.get_all(b"X-Scalingo-Error"), [])
        self.assertEqual(client.statuses, [301, 301])
        self.assertEqual(app.requests, 0)
        self.assertEqual([(record.status, record.code) for record in world.records], [(301, "-")] * 2)

    def test_behind_a_trusted_proxy(self) -> None:
        """A trusted proxy's word that the client came over TLS counts, and HSTS is added once."""
        world = self.world(trusted_proxies=["127.0.0.1"])
        app = world.app("hello", ["hello.test"], force_https=True)
        response = world.request(get(b"/", b"hello.test", b"X-Forwarded-Proto: https"))
        self.assertEqual(response.status, 200)
        self.assertEqual(response.get_all(b"Strict-Transport-Security"), [b"max-age=31536000"])
        self.assertEqual(app.requests, 1)

    def test_errors_of_ours(self) -> None:
        """They say HSTS as answers do, as soon as the app is known, and never in clear."""
        world = self.world(trusted_proxies=["127.0.0.1"], limits=Limits(body_bytes=10))
        world.app("hello", ["hello.test"], backends=[], force_https=True)
        world.app("denied", ["denied.test"], force_https=True, access={"deny": ("127.0.0.1/32",)})
        world.app("lax", ["lax.test"], backends=[])
        secure = b"X-Forwarded-Proto: https"
        for request, status, told in (
            (get(b"/", b"hello.test", secure), 503, [b"max-age=31536000"]),
            (post(bytes(11), secure), 413, [b"max-age=31536000"]),
            (get(b"/", b"denied.test", secure), 403, [b"max-age=31536000"]),
            (get(b"/", b"denied.test"), 403, []),
            (get(b"/", b"lax.test", secure), 503, []),
            (get(b"/", b"nobody.test", secure), 404, []),
        ):
            response = world.request(request)
            self.assertEqual(response.status, status)
            self.assertEqual(response.get_all(b"Strict-Transport-Security"), told, request)

    def test_canonical(self) -> None:
        """Other domains of the app are sent to the canonical one."""
        world = self.world()
        world.app("hello", ["hello.test", "www.hello.test"], canonical="www.hello.test")
        response = world.request(get(b"/x?y"))
        self.assertEqual((response.status, response.get(b"Location")), (301, b"http://www.hello.test/x?y"))
        self.assertEqual(world.request(get(b"/x?y", b"www.hello.test")).status, 200)

    def test_changed_under_a_connection(self) -> None:
        """What an app begins, or ceases, to ask counts for the next request of a kept connection."""
        world = self.world()
        world.app("hello", ["hello.test"])
        client = world.client()
        for force in (False, False, True, True, False):
            world.change("hello", force_https=force)
            client.send(get())
            world.advance(1)
        self.assertEqual(client.statuses, [200, 200, 301, 301, 200])
