"""What never became a request has its record, once, and silence has none.

Connections that a limit turned away, streams that were refused, and clients that
closed in the middle of a head, a frame, a hello or a PROXY header.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from hyperframe.frame import SettingsFrame

from scalingo_proxy.model import Limits
from scalingo_proxy.protocols.proxy_header import ProxyHeaderFactory
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_contexts import Contexts
from scalingo_proxy.protocols.tls_factory import TLSProxyFactory
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.replies import never
from scalingo_proxy.testing.world import World, build_http_factory
from scalingo_proxy.wire.http2_connection import MAX_STREAMS
from tests.protocols.http2_worlds import (
    PREFACE,
    HTTP2TestCase,
    RawClient,
    build_http2_factory,
    fields,
    headers_frame,
)
from tests.protocols.tls_clients import certificate, client_context, now
from tests.protocols.worlds import WorldTestCase, get


def build_tls(world: World, **options: Any) -> TLSProxyFactory:
    index = CertificateIndex(now)
    index.set(certificate("hello.test"))
    return TLSProxyFactory(build_http_factory(world, **options), Contexts(index))


def build_proxied(world: World, **options: Any) -> ProxyHeaderFactory:
    factory = build_http_factory(world, **options)
    proxied = ProxyHeaderFactory(factory, factory.env)
    return proxied


def client_hello() -> bytes:
    """The first flight of a client that wants ``hello.test``."""
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client_context().wrap_bio(coming, going, server_hostname="hello.test").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return going.read()


_HEAD = b"GET /half HTTP/1.1\r\nHost: hello.te"
_HEADERS = headers_frame(1, fields(b"/half")).serialize()

#: What is spoken -> how its door is built, and the beginnings after which a client may go.
_BEGUN: dict[str, tuple[Callable[..., Any], list[bytes]]] = {
    "http/1.1": (build_http_factory, [b"G", _HEAD, get() + _HEAD, b"\r\nG"]),
    "h2": (
        build_http2_factory,
        [PREFACE[:5], PREFACE + b"\0\0", PREFACE + SettingsFrame(0).serialize() + _HEADERS[:-1]],
    ),
    "tls": (build_tls, [b"\x16", client_hello()[:-1], client_hello()]),
    "proxy": (build_proxied, [b"P", b"PROXY TCP4 192.0.2.7 "]),
}

_KINDS = [
    (protocol, build, begun) for protocol, (build, beginnings) in _BEGUN.items() for begun in beginnings
]

_ENDS = {"it closes": ScriptedClient.close, "it resets": ScriptedClient.abort}


class CutShortTests(WorldTestCase):
    """Clients that go before they have asked for anything."""

    def last_of(self, world: World, records: int) -> Any:
        self.assertEqual(len(world.records), records, world.observer.codes)
        return world.records[-1]

    def test_begun(self) -> None:
        """A few bytes, and the client goes: 499, from when it began."""
        for how, leave in _ENDS.items():
            for protocol, build, begun in _KINDS:
                world = World(build=build)
                world.app("hello", ["hello.test"])
                client = world.client("192.0.2.1").send(begun)
                world.advance(2.0)
                before = len(world.records)
                leave(client)
                world.settle()
                record = self.last_of(world, before + 1)
                told = (record.protocol, record.client, record.code, record.status)
                code = ("bad-request", 400) if protocol == "proxy" else ("client-closed", 499)
                self.assertEqual(told, (protocol, "192.0.2.1", *code), f"{begun[-20:]!r}, {how}")
                self.assertNotIn(record.request_id, ("-", ""))
                world.end()

    def test_how_long(self) -> None:
        """The record of half a head tells when that began, on both clocks."""
        world = self.world()
        client = world.client()
        world.advance(1.5)
        client.send(_HEAD)
        world.advance(2.0)
        client.close()
        world.settle()
        record = self.last_of(world, 1)
        self.assertAlmostEqual(record.finished_at - record.started_at, 2.0)
        self.assertAlmostEqual(record.wall_time, world.wall_clock() - 2.0)

    def test_late(self) -> None:
        """So does one that did not come in time: the wait is what it took."""
        world = self.world()
        client = world.client().send(_HEAD)
        world.run_until(lambda: client.is_over or client.responses)
        record = self.last_of(world, 1)
        self.assertEqual(record.code, "request-timeout")
        self.assertAlmostEqual(record.finished_at - record.started_at, 10.0, delta=0.2)

    def test_silence(self) -> None:
        """A connection that said nothing, or nothing since its last answer, was no request."""
        for how, leave in _ENDS.items():
            for protocol, (build, _) in _BEGUN.items():
                world = World(build=build)
                world.app("hello", ["hello.test"])
                client = world.client()
                if protocol == "http/1.1":
                    client.send(get())
                elif protocol == "h2":
                    client.send(
                        PREFACE + SettingsFrame(0).serialize() + headers_frame(1, fields()).serialize()
                    )
                world.advance(1.0)
                before = list(world.observer.codes)
                leave(client)
                world.advance(20.0)
                told = "client-closed" if protocol == "h2" else None  # its stream did not end
                self.assertEqual(world.observer.codes, before + [told] * bool(told), f"{protocol}, {how}")
                world.end()

    def test_nothing_ever_came(self) -> None:
        """Nor is a connection that is closed for its silence told of."""
        for build, _ in _BEGUN.values():
            world = World(build=build)
            client = world.client()
            world.advance(90.0)
            self.assertTrue(client.is_over)
            self.assertEqual(world.observer.codes, [])
            world.end()

    def test_made_room(self) -> None:
        """Who is given up for others in the middle of a head has its record, and no second one."""
        for protocol, build, begun in _KINDS:
            if begun.startswith(b"GET / "):
                continue  # it has been of use
            world = World(build=build)
            world.app("hello", ["hello.test"])
            world.client("192.0.2.1").send(begun)
            world.advance(3.0)
            env = world.factory.env
            self.assertEqual(env.clients.make_room(world.clock.seconds()), 1, protocol)
            world.advance(5.0)
            self.assertEqual(self.last_of(world, 1).code, "request-timeout")
            world.end()

    def test_stopped(self) -> None:
        """Who is cut because the proxy stops has not left by itself."""
        for protocol, build, begun in _KINDS:
            if begun.startswith(b"GET / "):
                continue
            world = World(build=build)
            world.app("hello", ["hello.test"], tls="terminate")
            world.client("192.0.2.1").send(begun)
            world.advance(0.1)
            world.factory.drain(0.2)
            world.advance(15.0)
            record = self.last_of(world, 1)
            self.assertIn(record.code, ("drain-timeout", "request-timeout"), protocol)
            world.end()


class TurnedAwayTests(WorldTestCase):
    """Connections that a limit keeps out."""

    def test_limits(self) -> None:
        """One record for each, with the code of its limit, at every door."""
        cases = {
            "rate-limited": Limits(connections_per_address=1),
            "queue-full": Limits(client_connections=1),
        }
        for code, limits in cases.items():
            for protocol, build in (("http/1.1", build_http_factory), ("tls", build_tls)):
                world = World(build=build, limits=limits)
                world.client("192.0.2.1")
                for _ in range(3):
                    self.assertTrue(self.is_turned_away(world))
                told = [(record.code, record.protocol, record.client) for record in world.records]
                self.assertEqual(told, [(code, protocol, "192.0.2.1")] * 3)
                self.assertEqual(
                    [record.status for record in world.records], [429 if code[0] == "r" else 503] * 3
                )
                self.assertEqual(sum(world.factory.env.clients.refused.values()), 3)
                world.end()

    def is_turned_away(self, world: World) -> bool:
        client = world.client("192.0.2.1")
        world.settle()
        return client.is_over

    def test_proxied(self) -> None:
        """Behind a PROXY header it is the address in there that counts, and that is told."""
        world = self.world(build=build_proxied, limits=Limits(connections_per_address=1))
        clients = [world.client("192.0.2.1") for _ in range(3)]
        for client, address in zip(clients, (b"192.0.2.7", b"192.0.2.7", b"192.0.2.8"), strict=True):
            client.send(b"PROXY TCP4 %b 192.0.2.1 1000 80\r\n" % address)
            world.settle()
        self.assertEqual([client.is_over for client in clients], [False, True, False])
        self.assertEqual([(r.code, r.client) for r in world.records], [("rate-limited", "192.0.2.7")])

    def test_before_the_header(self) -> None:
        """Where there is no room for anybody, nobody is asked for a header."""
        world = self.world(build=build_proxied, limits=Limits(client_connections=1))
        world.client("192.0.2.1")
        self.assertTrue(self.is_turned_away(world))
        told = [(record.code, record.protocol, record.client) for record in world.records]
        self.assertEqual(told, [("queue-full", "proxy", "192.0.2.1")])
        self.assertEqual(world.observer.opened["http", "refused"], 1)


class RefusedStreamTests(HTTP2TestCase):
    """Streams that are reset before anything was done for them."""

    def test_too_many(self) -> None:
        """Each has a record that tells what was asked for; those under way go on."""
        world: World = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(never())
        client = self.raw(world)
        frames = [
            headers_frame(1 + 2 * number, fields(b"/%d" % number), "END_STREAM") for number in range(103)
        ]
        client.write(*frames)
        world.advance(1.0)
        self.assertEqual(list(client.resets.values()), [7, 7, 7])
        told = [(r.code, r.status, r.method, r.host, r.path, r.protocol) for r in world.records]
        self.assertEqual(
            told,
            [
                ("rate-limited", 429, "GET", "hello.test", f"/{number}", "h2")
                for number in range(MAX_STREAMS, MAX_STREAMS + 3)
            ],
        )
        self.assertEqual(app.requests, min(MAX_STREAMS, 50))

    def test_malformed_beyond(self) -> None:
        """What could not have been read anyhow is refused all the same, and told of."""
        world: World = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(never())
        client = self.raw(world)
        frames = [headers_frame(1 + 2 * number, fields(), "END_STREAM") for number in range(MAX_STREAMS)]
        client.write(*frames, headers_frame(201, [(b":method", b"GET")], "END_STREAM"))
        world.advance(1.0)
        (record,) = world.records
        self.assertEqual((record.code, record.method), ("rate-limited", "-"))

    def test_leaving(self) -> None:
        """A stream that comes when the connection is being closed is told as that."""
        world: World = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(never())
        client = self.raw(world)
        client.write(headers_frame(1, fields(), "END_STREAM"))
        world.advance(0.1)
        world.factory.drain(30.0)
        world.advance(2.0)
        client.write(headers_frame(3, fields(b"/late"), "END_STREAM"))
        world.advance(1.0)
        (record,) = world.records
        self.assertEqual((record.code, record.status, record.path), ("drain-timeout", 503, "/late"))
        self.assertEqual(client.resets, {3: 7})

    def test_flood(self) -> None:
        """Beyond a hundred at once the connection ends: no further line, and no further work."""
        world: World = self.world()
        app = world.app("hello", ["hello.test"])
        app.backend.answer(never())
        client: RawClient = self.raw(world)
        client.write(*(headers_frame(1 + 2 * number, fields(), "END_STREAM") for number in range(1000)))
        world.advance(2.0)
        self.assertEqual(client.goaway, 11)
        codes = world.observer.codes
        self.assertEqual(codes.count("rate-limited"), 101)
        self.assertEqual(codes.count("bad-request"), 1)
        self.assertEqual(codes.count("client-closed"), MAX_STREAMS)
