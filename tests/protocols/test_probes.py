"""Probes: what they say, what they believe, and that nothing is left of them."""

from __future__ import annotations

import errno
import os
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.interfaces import IProbe
from scalingo_proxy.model import App, Backend, Health, ProbeResult
from scalingo_proxy.protocols.probes import BackendProbe
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.wire.proxy_header import ProxyHeaderReader
from tests.authorities import Authority
from tests.protocols.test_backend_tls import AUTHORITY, WAYS, Silent, serve


class ProbeTestCase(SynchronousTestCase):
    """A network, a backend and probes."""

    def setUp(self) -> None:
        self.use()

    def use(self, **way: Any) -> None:
        """Begin with a network of that kind."""
        seed = way.pop("seed", 0)
        self.network = MemoryNetwork(random=Random(seed), **way)
        self.backend = ScriptedBackend("backend").listen(self.network)
        self.probe = BackendProbe(self.network)

    def run_probe(
        self, address: str, health: Health | None = None, *, seconds: float = 30.0, **app: Any
    ) -> ProbeResult:
        """Probe once, let *seconds* pass, and find nothing left of it."""
        record = App("app", **{"domains": ["*.wild.test", "hello.test"], "backends": [address], **app})
        probing = self.probe.probe(record.backends[0], record, health or Health())
        self.network.advance(seconds)
        result: ProbeResult = self.successResultOf(probing)
        self.network.advance(60)
        self.assertEqual((self.network.open_connections, self.network.getDelayedCalls()), (0, []))
        return result

    def silent(self) -> str:
        """Where somebody accepts and says nothing."""
        port = self.network.listenTCP(0, Factory.forProtocol(Silent), 50, "127.0.0.1")
        return f"127.0.0.1:{port.getHost().port}"


class TCPTests(ProbeTestCase):
    """A connection is all that is asked for."""

    def test_passes(self) -> None:
        """IPv4, IPv6 and names; not a byte is sent."""
        self.network.nameResolver.names["backend.test"] = "127.0.0.1"
        v6 = ScriptedBackend("v6").listen(self.network, "::1")
        port = self.backend.address.rpartition(":")[2]
        for address in (self.backend.address, v6.address, f"backend.test:{port}"):
            result = self.run_probe(address)
            self.assertEqual(
                result, ProbeResult(True, f"connection to {address}: connected", f"tcp://{address}")
            )
        self.assertEqual([one.received for one in (*self.backend.connections, *v6.connections)], [b""] * 3)

    def test_fails(self) -> None:
        """The reason names the address and what happened, in time."""
        nobody, hole = "127.0.0.1:9", "127.0.0.1:10"
        self.network.black_hole(hole)
        for address, sentence, seconds in (
            (nobody, "connection refused", 0),
            ("[::1]:9", "connection refused", 0),
            (hole, "no connection within 2 s", 2),
            ("nowhere.test:80", "its name has no address", 0),
        ):
            result = self.run_probe(address)
            self.assertEqual((result.passed, result.reason), (False, f"connection to {address}: {sentence}"))
            self.assertEqual((result.is_answer, result.is_inconclusive), (False, False))
            self.assertAlmostEqual(result.seconds, seconds, places=2)

    def test_says_who_connects(self) -> None:
        """A backend that expects a PROXY header gets one that speaks of nobody, and no more."""
        for version, header in (("v1", b"PROXY UNKNOWN\r\n"), ("v2", None)):
            self.run_probe(self.backend.address, send_proxy=version)
            received = self.backend.connections[-1].received
            if header is None:
                told = ProxyHeaderReader().receive(received)
                assert told is not None
                self.assertTrue(told.is_local)
            else:
                self.assertEqual(received, header)

    def test_our_own_trouble(self) -> None:
        """A proxy without descriptors learns nothing of the backend."""

        def connect(backend: Backend, protocol: Protocol, timeout: float, failed: Any) -> Any:
            failed(Failure(ConnectError(errno.EMFILE, "too many")))  # type: ignore[no-untyped-call]
            return lambda: None

        self.probe = BackendProbe(self.network, connect)
        result = self.run_probe("127.0.0.1:1")
        self.assertEqual((result.passed, result.is_inconclusive), (False, True))
        self.assertIn("too many open files", result.reason)

    def test_our_own_trouble_with_names(self) -> None:
        """Nor when it shows as a name that has no address."""

        def no_more(*_: object) -> int:
            raise OSError(errno.EMFILE, "too many")

        self.patch(os, "open", no_more)
        result = self.run_probe("nowhere.test:80")
        self.assertEqual((result.passed, result.is_inconclusive), (False, True))
        self.assertIn("for want of descriptors", result.reason)

    def test_a_bug_is_a_result(self) -> None:
        """Whatever is raised, the Deferred does not fail."""

        def connect(*_: object) -> Any:
            raise RuntimeError("a bug")

        self.probe = BackendProbe(self.network, connect)
        result = self.run_probe("127.0.0.1:1")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(
            (result.passed, result.reason), (False, "tcp://127.0.0.1:1 cannot be probed; the log says why")
        )

    def test_provides(self) -> None:
        """It is what the interface describes."""
        self.assertTrue(IProbe.providedBy(self.probe))


class HTTPTests(ProbeTestCase):
    """One GET, judged by its status."""

    def test_request(self) -> None:
        """It says what it is, and asks for the app's own name."""
        for health, app, path, host in (
            (Health(path="/up"), {}, b"/up", b"hello.test"),
            (Health(path="/up?a=b", host="other.test:81"), {}, b"/up?a=b", b"other.test:81"),
            (Health(kind="http"), {"domains": []}, b"/", self.backend.address.encode()),
        ):
            result = self.run_probe(self.backend.address, health, **app)
            self.assertTrue(result.passed, result)
            request = self.backend.requests[-1]
            self.assertEqual((request.method, request.target), (b"GET", path))
            self.assertEqual(request.get(b"Host"), host)
            self.assertEqual(request.get(b"User-Agent"), b"scalingo-proxy-probe")
            self.assertEqual(request.get(b"Connection"), b"close")

    def test_statuses(self) -> None:
        """Those expected pass; a redirect is an answer and is not followed."""
        url = f"http://{self.backend.address}/up"
        for status, expected, passed in (
            (200, "200-399", True),
            (204, "200-399", True),
            (301, "200-399", True),
            (404, "200-399", False),
            (503, "200-399", False),
            (401, "200,401", True),
            (200, "204", False),
        ):
            self.backend.answer(replies.fixed(b"", status, headers=((b"Location", b"/elsewhere"),)))
            before = len(self.backend.requests)
            result = self.run_probe(self.backend.address, Health(path="/up", status=expected))
            self.assertEqual(
                result, ProbeResult(passed, f"GET {url}: answered {status}", url, status, is_answer=True)
            )
            self.assertEqual(len(self.backend.requests), before + 1)

    def test_answers_of_every_shape(self) -> None:
        """The whole answer is taken where that is quick, whatever its framing; interim ones are not it."""
        for way in WAYS:
            self.use(**way)
            for reply in (
                replies.fixed(b"ok" * 1000),
                replies.chunked([b"a", b"b"]),
                replies.close_delimited(b"until the end"),
                replies.after_interim(replies.fixed(b"ok")),
                replies.raw(b"HTTP/1.0 200 OK\r\n\r\nok", close=True),
            ):
                self.backend.answer(reply)
                result = self.run_probe(self.backend.address, Health(path="/up"))
                self.assertEqual((result.passed, result.status), (True, 200))
                self.assertTrue(all(connection.is_over for connection in self.backend.connections))

    def test_polite(self) -> None:
        """Who answers in two parts is not reset between them."""
        self.backend.answer(replies.drip([b"0123", b"4567", b"89"], 0.05))
        result = self.run_probe(self.backend.address, Health(path="/up"))
        self.assertTrue(result.passed)
        (connection,) = self.backend.connections
        assert connection.lost_because is not None
        self.assertEqual(connection.lost_because.type.__name__, "ConnectionDone")

    def test_endless_answer(self) -> None:
        """What goes on and on is judged by its head, soon."""
        self.backend.answer(replies.bulk(10_000_000))
        result = self.run_probe(self.backend.address, Health(path="/up"), seconds=0.5)
        self.assertTrue(result.passed)
        self.use()
        self.backend.answer(replies.drip([b"x"] * 1000, 0.1))
        result = self.run_probe(self.backend.address, Health(path="/up"), seconds=0.5)
        self.assertTrue(result.passed)

    def test_no_answer(self) -> None:
        """Silence is bounded as a whole, connecting included."""
        address = self.silent()
        self.network.set_way(address, delay=1.5)
        result = self.run_probe(address, Health(path="/up", timeout=2), seconds=2.01)
        self.assertEqual(
            (result.passed, result.reason), (False, f"GET http://{address}/up: no answer within 2 s")
        )
        self.assertAlmostEqual(result.seconds, 2, places=3)

    def test_no_http(self) -> None:
        """What is no answer says so, without a byte of it."""
        for reply, sentence in (
            (replies.close_silently(), "it closed the connection without an answer"),
            (replies.raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "it sent a malformed status line"),
            (replies.raw(b"\x00\x15\x03" * 30000), None),
            (
                replies.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000),
                "it sent a response head that is too large",
            ),
            (replies.raw(b"HTTP/1.1 100 \r\n\r\n" * 12), "it sent too many interim responses"),
            (
                replies.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
                "it sent an ambiguous Content-Length",
            ),
            (replies.reset_after(10, replies.fixed(b"ok")), "it closed the connection without an answer"),
        ):
            self.use()
            self.backend.answer(reply)
            result = self.run_probe(self.backend.address, Health(path="/up"))
            self.assertFalse(result.passed, result)
            self.assertEqual(result.status, 0)
            if sentence:
                self.assertEqual(result.reason, f"GET http://{self.backend.address}/up: {sentence}")

    def test_cannot_be_asked(self) -> None:
        """A path that would break out of the request is not sent."""
        for health in (Health(path="/a b"), Health(path="/a\r\nX: y"), Health(path="/", host="a\nb")):
            result = self.run_probe(self.backend.address, health)
            self.assertFalse(result.passed)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)
        self.assertEqual(self.backend.connections, [])

    def test_behind_a_proxy_header(self) -> None:
        """The header stands before the request."""
        self.run_probe(self.backend.address, Health(path="/up"), send_proxy="v1", seconds=3)
        self.assertTrue(
            self.backend.connections[-1].received.startswith(b"PROXY UNKNOWN\r\nGET /up HTTP/1.1\r\n")
        )


class TLSTests(ProbeTestCase):
    """Verified where requests are, and believed where the app ends TLS itself."""

    def test_as_requests_are(self) -> None:
        """The certificate counts, for a handshake alone and for a GET."""
        for way in WAYS:
            self.use(**way)
            address = serve(self.network, self.backend)
            trusted, foreign = {"ca": AUTHORITY.pem}, {"ca": Authority("other").pem}
            for health, doing, url in (
                (Health(), "TLS handshake with ", address),
                (Health(path="/up"), "GET ", f"{address}/up"),
            ):
                result = self.run_probe(address, health, backend_tls=trusted)
                self.assertTrue(result.passed, result)
                self.assertEqual((result.url, result.is_answer), (url, bool(health.path)))
                result = self.run_probe(address, health, backend_tls=foreign)
                self.assertEqual(
                    result.reason, f"{doing}{url}: the certificate is not from a trusted authority"
                )
                self.assertEqual(result.passed, False)
            self.assertEqual([request.target for request in self.backend.requests], [b"/up"])

    def test_connection_alone(self) -> None:
        """Kind "tcp" asks for no more, even where requests are encrypted."""
        address = serve(self.network, self.backend)
        result = self.run_probe(address, Health(kind="tcp"))
        self.assertEqual((result.passed, result.url), (True, address.replace("https", "tcp")))

    def test_no_tls(self) -> None:
        """Plain HTTP is no TLS, and silence is bounded."""
        self.backend.answer(replies.fixed(b"ok"))
        result = self.run_probe(f"https://{self.silent()}", Health(timeout=1.5), seconds=1.6)
        self.assertIn("took too long", result.reason)
        port = self.network.listenTCP(0, Factory.forProtocol(Chatty), 50, "127.0.0.1").getHost().port
        result = self.run_probe(f"https://127.0.0.1:{port}")
        self.assertIn("it does not answer in TLS", result.reason)

    def test_passed_through(self) -> None:
        """By default a connection; a handshake or a GET inside it if the app says so, whoever signed."""
        for way in WAYS:
            self.use(**way)
            address = serve(self.network, self.backend).removeprefix("https://")
            for health, url in (
                (Health(path="/up"), f"tcp://{address}"),
                (Health(kind="tls"), f"tls://{address}"),
                (Health(kind="http", path="/up"), f"https://{address}/up"),
            ):
                result = self.run_probe(address, health, tls="passthrough")
                self.assertEqual((result.passed, result.url), (True, url), result)
            self.assertEqual([request.get(b"Host") for request in self.backend.requests], [b"hello.test"])

    def test_name_of_the_hello(self) -> None:
        """The app's first domain without a wildcard, or the host that health names."""
        hellos: list[bytes] = []

        class Listening(Protocol):
            def dataReceived(self, data: bytes) -> None:
                hellos.append(data)

        port = self.network.listenTCP(0, Factory.forProtocol(Listening), 50, "127.0.0.1").getHost().port
        address = f"127.0.0.1:{port}"
        for health, name in (
            (Health(kind="tls", timeout=1), b"hello.test"),
            (Health(kind="tls", timeout=1, host="other.test:443"), b"other.test"),
        ):
            result = self.run_probe(address, health, tls="passthrough", send_proxy="v1")
            self.assertFalse(result.passed)
            received = b"".join(hellos)
            self.assertTrue(received.startswith(b"PROXY UNKNOWN\r\n\x16\x03"))
            self.assertIn(name, received)
            del hellos[:]
        self.run_probe(address, Health(kind="tls", host="[::1]:443"), tls="passthrough")
        self.assertNotIn(b"hello.test", b"".join(hellos))


class Chatty(Protocol):
    """Answers everything in plain text."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class CancelTests(ProbeTestCase):
    """Nobody wants to know any more."""

    def test_at_any_time(self) -> None:
        """Whenever it is cancelled, everything is closed at once."""
        for health in (Health(), Health(path="/up"), Health(kind="tls")):
            for steps in range(8):
                self.use(latency=0.25)
                self.backend.answer(replies.delayed(0.5, replies.fixed(b"ok")))
                address = serve(self.network, self.backend)
                app = App("app", ["a.test"], [address], backend_tls={"ca": AUTHORITY.pem})
                probing: Deferred[ProbeResult] = self.probe.probe(app.backends[0], app, health)
                outcomes: list[object] = []
                probing.addBoth(outcomes.append)
                self.network.advance(steps * 0.2)
                before = list(outcomes)
                probing.cancel()
                self.assertEqual(len(outcomes), 1)
                if not before:
                    (outcome,) = outcomes
                    assert isinstance(outcome, Failure)
                    self.assertIs(outcome.type, CancelledError)
                self.network.advance(60)
                self.assertEqual((self.network.open_connections, self.network.getDelayedCalls()), (0, []))
