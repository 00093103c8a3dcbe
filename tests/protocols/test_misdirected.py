"""Hosts that the certificate of a connection does not cover."""

from __future__ import annotations

from typing import Any

from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.testing.world import World, build_http_factory
from scalingo_proxy.wire.http1_forwarding import ClientIdentity
from tests.protocols.worlds import WorldTestCase, get


class SecuredFactory(HTTPProxyFactory):
    """Builds frontends as they stand behind TLS that ended with one certificate."""

    def identify(self, transport: Any, *, is_tls: bool = False) -> ClientIdentity:
        covers = {"hello.test", "www.hello.test"}.__contains__
        return super().identify(transport, is_tls=True).over_tls("TLSv1.3", covers)


def build_secured(world: World, **options: Any) -> SecuredFactory:
    """The factory of a world, behind TLS."""
    plain = build_http_factory(world, **options)
    return SecuredFactory(env=plain.env)


class MisdirectedTests(WorldTestCase):
    """421 beyond the certificate; anything within it is legal reuse."""

    def test_coverage(self) -> None:
        """Other hosts of the certificate are served, hosts beyond it are not, whoever has them."""
        world = self.world(build=build_secured)
        hello = world.app("hello", ["hello.test", "www.hello.test"])
        other = world.app("other", ["other.test"])
        client = world.client().send(
            get() + get(b"/", b"WWW.hello.test:443") + get(b"/", b"other.test") + get(b"/", b"nobody.test")
        )
        world.run_until(lambda: len(client.responses) == 4)
        self.assertEqual(client.statuses, [200, 200, 421, 421])
        self.assertIn(b"misdirected", client.responses[2].get(b"X-Scalingo-Error"))
        self.assertEqual((hello.requests, other.requests), (2, 0))
        self.assertEqual([record.tls for record in world.records], ["TLSv1.3"] * 4)
        self.assertEqual(hello.backend.requests[0].get(b"X-Forwarded-Proto"), b"https")

    def test_hsts(self) -> None:
        """An app that forces HTTPS says so for a year, unless it has words of its own."""
        world = self.world(build=build_secured)
        world.app("hello", ["hello.test"], force_https=True)
        response = world.request(get())
        self.assertEqual(response.get_all(b"Strict-Transport-Security"), [b"max-age=31536000"])

    def test_app_that_ends_tls_itself(self) -> None:
        """Its backends hear nothing in clear, whether the connection is plain or covers the name."""
        for build in (build_http_factory, build_secured):
            world = self.world(build=build)
            sealed = world.app("sealed", ["hello.test"], tls="passthrough")
            response = world.request(get())
            self.assertEqual(response.status, 421)
            self.assertIn(b"misdirected; the app of this host ends TLS", response.get(b"X-Scalingo-Error"))
            self.assertEqual(sealed.backend.connections, [])
            self.assertEqual((world.records[0].app, world.records[0].attempts), ("sealed", 0))

    def test_app_that_ends_tls_itself_and_forces_it(self) -> None:
        """Plain requests are sent to where the app is."""
        world = self.world()
        world.app("sealed", ["hello.test"], tls="passthrough", force_https=True)
        response = world.request(get(b"/a?b"))
        self.assertEqual((response.status, response.get(b"Location")), (301, b"https://hello.test/a?b"))
