"""Tests for :mod:`scalingo_proxy.services.admin`: the service itself."""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import URI, Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.model import App
from scalingo_proxy.services.endpoint_strings import parse_endpoint
from tests.services.admin_world import AdminWorld


class StartTests(SynchronousTestCase):
    """What is refused before anything listens."""

    def refused(self, **options: Any) -> tuple[str, str]:
        world = AdminWorld(**options)
        error = self.assertRaises(ConfigurationError, world.service.startService)
        self.assertEqual([], world.reactor.tcpServers)
        (mistake,) = error.mistakes
        return mistake.path, mistake.message

    def test_a_listener_for_others_needs_a_token(self) -> None:
        """Anything that is not loopback or a unix socket."""
        for endpoint in ("8081", "0.0.0.0:8081", "10.0.0.1:8081", "tcp:8081"):
            path, message = self.refused(endpoint=endpoint)
            self.assertEqual("admin.endpoint", path)
            self.assertIn("token_file", message)

    def test_with_a_token_it_listens(self) -> None:
        """On the address that was asked for."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("token")
        world = AdminWorld(endpoint=parse_endpoint("10.0.0.1:8081"), token_file=path).start()
        self.assertEqual((8081, "10.0.0.1"), (world.reactor.tcpServers[0][0], world.reactor.tcpServers[0][3]))

    def test_a_token_file_that_is_missing(self) -> None:
        """Without it everybody would be admitted."""
        path, message = self.refused(token_file="no-such-file")
        self.assertEqual("admin.token_file", path)
        self.assertIn("no such file", message)

    def test_an_endpoint_that_is_none(self) -> None:
        """Said in the words of the parser."""
        self.assertIn("TLS is no part of an endpoint", self.refused(endpoint="ssl:8081")[1])


class StopTests(SynchronousTestCase):
    """What stopping does to connections."""

    def setUp(self) -> None:
        self.world = AdminWorld(App("hello", ("hello.localhost",), ("127.0.0.1:1",))).start()

    def test_idle_connections_are_closed(self) -> None:
        """It is over when the last one is."""
        connection = self.world.begin("GET", "/live")
        stopping = self.world.stop()
        self.assertTrue(connection.transport.disconnecting)
        self.assertNoResult(stopping)
        connection.leave()
        self.successResultOf(stopping)
        self.assertIsNone(self.world.service.address)

    def test_who_waits_is_answered(self) -> None:
        """A wait ends with 503; the change that it was about stays."""
        self.world.pool("hello").lease()
        waiting = self.world.begin("PUT", "/api/v1/apps/hello/backends?wait=drained", {"backends": []})
        stopping = self.world.stop()
        reply = waiting.reply()
        self.assertEqual((503, "stopping"), (reply.status, reply.code))
        waiting.leave()
        self.successResultOf(stopping)
        self.assertEqual((), self.world.store.apps()["hello"].backends)

    def test_a_peer_that_does_not_read(self) -> None:
        """It holds up the end for a second."""
        connection = self.world.begin("GET", "/live")
        stopping = self.world.stop()
        self.world.reactor.advance(1.1)
        self.assertTrue(connection.transport.disconnected)
        connection.leave()
        self.successResultOf(stopping)

    def test_started_again(self) -> None:
        """A stopped service can be started."""
        self.successResultOf(self.world.stop())
        self.world.service.startService()
        self.assertEqual(200, self.world.ask("GET", "/ready").status)

    def test_never_started(self) -> None:
        """There is nothing to stop."""
        self.successResultOf(AdminWorld().stop())


class RealTests(TestCase):
    """On real sockets, over loopback."""

    def world(self, endpoint: str) -> AdminWorld:
        from twisted.internet import reactor

        world = AdminWorld(reactor=reactor, endpoint=endpoint).start()
        self.addCleanup(world.stop)
        return world

    async def status(self, world: AdminWorld, endpoint: IStreamClientEndpoint) -> int:
        agent = Agent.usingEndpointFactory(world.reactor, _Always(endpoint))
        response = await agent.request(b"GET", b"http://localhost/ready")
        await readBody(response)
        return int(response.code)

    async def test_tcp(self) -> None:
        """A client gets its answer."""
        world = self.world("127.0.0.1:0")
        address = world.service.address
        assert isinstance(address, IPv4Address)
        endpoint = TCP4ClientEndpoint(world.reactor, address.host, address.port)
        self.assertEqual(200, await self.status(world, endpoint))

    async def test_a_unix_socket_is_its_owners(self) -> None:
        """Whoever may open it may do everything, so only its owner may."""
        path = self.mktemp()
        world = self.world(f"unix:{path}")
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        self.assertEqual(200, await self.status(world, UNIXClientEndpoint(world.reactor, path)))

    def test_a_unix_socket_with_a_mode(self) -> None:
        """An operator may open it to a group."""
        for arguments in (":mode=660", ":660"):
            path = self.mktemp()
            self.world(f"unix:{path}{arguments}")
            self.assertEqual(0o660, stat.S_IMODE(os.stat(path).st_mode))

    def test_a_busy_port(self) -> None:
        """One sentence with the endpoint."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        error = self.assertRaises(ConfigurationError, self.world, endpoint)
        self.assertIn(f'admin.endpoint: cannot listen on "{endpoint}": port ', str(error))


@implementer(IAgentEndpointFactory)
class _Always:
    """Leads every request to one endpoint."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self.endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self.endpoint
