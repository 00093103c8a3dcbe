"""Worlds whose proxy ends TLS, and what puts any client of theirs inside TLS."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import ClientFactory, Factory, connectionDone
from twisted.python.failure import Failure

from scalingo_proxy.protocols.http2_frontend import HTTP2Frontend
from scalingo_proxy.protocols.http_frontend import HTTPFrontend
from scalingo_proxy.protocols.tls_contexts import server_context
from scalingo_proxy.protocols.tls_termination import terminate
from scalingo_proxy.testing.world import World, build_http_factory
from tests.protocols.tls_clients import MemoryTLSClient, certificate, client_context

__all__ = ["Cut", "SERVER_NAME", "TLSDoor", "bytewise", "connect_inside", "cut_by", "whole"]

#: What clients ask for in the hello.
SERVER_NAME = "any.test"

#: Cuts one write into the records that it is sent in.
Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    """One write, one record as far as TLS allows."""
    yield data


def bytewise(data: bytes) -> Iterable[bytes]:
    """A record for each byte."""
    return (data[at : at + 1] for at in range(len(data)))


def cut_by(random: Random) -> Cut:
    """Records of random sizes."""

    def cut(data: bytes) -> Iterable[bytes]:
        at = 0
        while at < len(data):
            size = random.choice((1, 2, 7, 50, 400, 5000))
            yield data[at : at + size]
            at += size

    return cut


@functools.cache
def _server_context(*alpn: bytes) -> SSL.Context:
    return server_context(certificate(SERVER_NAME), alpn)


_client_context = functools.cache(client_context)


class TLSDoor(Factory):
    """Ends TLS in front of a world's HTTP factory, with one certificate that covers every host.

    Which host may be asked for over which certificate is not what is tested here.
    """

    def __init__(self, world: World, alpn: str = "http/1.1", **options: Any) -> None:
        self.http = build_http_factory(world, **options)
        self.env = self.http.env
        self.context = _server_context(alpn.encode())

    def doStart(self) -> None:
        self.http.doStart()

    def doStop(self) -> None:
        self.http.doStop()

    def drain(self, seconds: float) -> Any:
        return self.http.drain(seconds)

    def buildProtocol(self, addr: Any) -> Any:
        return _FirstBytes(self)

    def inside(self, version: str, alpn: str | None) -> Any:
        """What is spoken inside."""
        kind: Any = HTTP2Frontend if alpn == "h2" else HTTPFrontend
        return kind(self.http)


class _FirstBytes:
    """Hands the connection to TLS with its first bytes."""

    transport: Any

    def __init__(self, door: TLSDoor) -> None:
        self._door = door

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        door = self._door
        self.transport.protocol = terminate(
            door.env,
            self.transport,
            data,
            door.context,
            door.inside,
            until=door.env.seconds() + 10,
            on_failed=lambda error: None,
        )

    def connectionLost(self, reason: Any) -> None:
        pass


class _Inside(MemoryTLSClient):
    """TLS below a client, which sees an ordinary transport."""

    def __init__(self, client: Any, cut: Cut, alpn: str) -> None:
        super().__init__(_client_context(alpn), SERVER_NAME)
        self._client = client
        self._cut = cut
        self._is_begun = False
        self.disconnecting = False

    def step(self) -> None:
        super().step()
        if self.is_established and not self._is_begun:
            self._is_begun = True
            self._client.makeConnection(self)
        if self.received:
            received, self.received = self.received, b""
            self._client.dataReceived(received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._client.connectionLost(reason)

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.transport.loseConnection()

    # -- what the client sees of its transport --------------------------------

    def write(self, data: bytes) -> None:
        for piece in self._cut(data):
            self.tls.write(piece)
        self.flush()

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.close_notify()
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.transport.abortConnection()


class _One(ClientFactory):
    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


def connect_inside(world: World, client: Any, source: str, cut: Cut = whole, alpn: str = "http/1.1") -> Any:
    """Connect *client* to the proxy of *world* inside TLS, from the address *source*.

    :param cut: cuts each write into records.
    :return: *client*, connected.
    """
    world.network.connectTCP(*world.address, _One(_Inside(client, cut, alpn)), bindAddress=(source, 0))
    world.clients.append(client)
    world.run_until(lambda: client.is_connected)
    return client
