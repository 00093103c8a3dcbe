"""Apps that want to be asked elsewhere: force_https and canonical."""

from __future__ import annotations

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

    def test_canonical(self) -> None:
        """Other domains of the app are sent to the canonical one."""
        world = self.world()
        world.app("hello", ["hello.test", "www.hello.test"], canonical="www.hello.test")
        response = world.request(get(b"/x?y"))
        self.assertEqual((response.status, response.get(b"Location")), (301, b"http://www.hello.test/x?y"))
        self.assertEqual(world.request(get(b"/x?y", b"www.hello.test")).status, 200)
