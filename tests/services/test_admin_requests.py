"""Tests for :mod:`scalingo_proxy.services.admin_requests` and ``admin_guards``."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App
from scalingo_proxy.services.admin_connections import MAX_CONNECTIONS
from scalingo_proxy.services.admin_guards import token_in
from scalingo_proxy.services.admin_requests import MAX_BODY_BYTES
from tests.services.admin_world import LOOPBACK, AdminWorld, Connection, Reply, request_bytes

APP = "/api/v1/apps/hello"
TOKEN = "correct-horse-battery-staple"


class RequestsCase(SynchronousTestCase):
    """A world with one app of the file."""

    def setUp(self) -> None:
        self.world = AdminWorld(App("hello", ("hello.localhost",))).start()

    def assert_refused(self, reply: Reply, status: int, code: str) -> None:
        self.assertEqual((status, code), (reply.status, reply.code))


class ArrivalTests(RequestsCase):
    """Requests that take their time to arrive, and those who only connect."""

    def test_slow_requests(self) -> None:
        """A head, a body or a second request that comes byte by byte is cut off after half a minute."""
        half = request_bytes("PUT", APP, {"domains": ["a" * 60]}, {})
        whole = request_bytes("GET", APP, None, {})
        for begin in (b"", b"GET", half[:-50], whole + b"GE"):
            connection = self.world.connect()
            connection.send(begin)
            for _ in range(30):
                self.assertFalse(connection.transport.disconnected, begin)
                connection.send(b"x")
                self.world.reactor.advance(1.0)
            self.assertTrue(connection.transport.disconnected, begin)

    def test_kept_connections(self) -> None:
        """One that is used again and again, or waits for its answer, goes on."""
        connection = self.world.connect()
        for _ in range(5):
            connection.send(request_bytes("GET", APP, None, {}))
            self.assertEqual(200, connection.reply().status)
            self.world.reactor.advance(20.0)
        self.assertFalse(connection.transport.disconnecting or connection.transport.disconnected)

    def test_hoards(self) -> None:
        """Beyond so many the oldest that asks for nothing makes room."""
        connections = [self.world.connect() for _ in range(MAX_CONNECTIONS)]
        self.assertFalse(any(each.transport.disconnected for each in connections))
        self.assertEqual(200, self.world.ask("GET", APP).status)
        self.assertTrue(connections[0].transport.disconnected)
        self.assertFalse(connections[1].transport.disconnected)


class BodyTests(RequestsCase):
    """What a body may be."""

    def test_only_json(self) -> None:
        """Other media types are refused, whatever is in them."""
        for media_type in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin1",
        ):
            reply = self.world.ask("PUT", APP, {}, headers={"Content-Type": media_type})
            self.assert_refused(reply, 415, "unsupported-media-type")
            self.assertEqual("application/json", reply.headers["Accept"])
        reply = self.world.ask("PUT", APP, {}, headers={"Content-Type": "application/merge-patch+json"})
        self.assert_refused(reply, 415, "unsupported-media-type")

    def test_json_by_any_of_its_names(self) -> None:
        """Case and a charset of UTF-8 do not matter; the header may be missing."""
        for media_type in ("Application/JSON", 'application/json;charset="UTF-8"', ""):
            self.assertEqual(200, self.world.ask("PUT", APP, {}, headers={"Content-Type": media_type}).status)

    def test_no_content_encoding(self) -> None:
        """A compressed body could be a bomb."""
        reply = self.world.ask("PUT", APP, {}, headers={"Content-Encoding": "gzip"})
        self.assert_refused(reply, 415, "unsupported-media-type")

    def test_json_that_could_mean_two_things(self) -> None:
        """Duplicate keys, NaN, deep nesting, several documents, no document."""
        for data in (
            b'{"tls": 1, "tls": 2}',
            b'{"x": NaN}',
            b"[" * 100_000,
            b"{} {}",
            b"{",
            b"\xff",
            b'"a"',
            b"[]",
        ):
            self.assert_refused(self.world.ask("PUT", APP, data), 400, "malformed-json")

    def test_a_body_is_required_where_one_is_taken(self) -> None:
        """No body is not an empty record."""
        self.assert_refused(self.world.ask("PUT", APP), 400, "bad-request")
        self.assert_refused(self.world.ask("PUT", APP, b""), 400, "bad-request")

    def test_a_body_is_refused_where_none_is_taken(self) -> None:
        """A GET with a body is somebody's trick."""
        for method in ("GET", "DELETE"):
            self.assert_refused(self.world.ask(method, APP, {}), 400, "bad-request")

    def test_form_bodies_are_not_parsed(self) -> None:
        """Parameters come from the query alone."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        reply = self.world.ask("POST", f"{APP}/stop", b"q=1", headers=headers)
        self.assert_refused(reply, 400, "bad-request")


class BodySizeTests(RequestsCase):
    """How long a body may be."""

    def begin(self, *headers: str) -> Connection:
        connection = self.world.connect()
        connection.send("\r\n".join([f"PUT {APP} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
        return connection

    def test_the_longest_that_is_read(self) -> None:
        """1 MiB is read."""
        data = b'{"balancer": "random_two"}'.ljust(MAX_BODY_BYTES)
        self.assertEqual(200, self.world.ask("PUT", APP, data).status)

    def test_refused_by_its_announced_length(self) -> None:
        """Nothing of it is waited for."""
        connection = self.begin(f"Content-Length: {MAX_BODY_BYTES + 1}")
        self.assert_refused(connection.reply(), 413, "body-too-large")

    def test_no_100_continue_for_it(self) -> None:
        """The refusal is the answer to the expectation."""
        connection = self.begin(f"Content-Length: {MAX_BODY_BYTES + 1}", "Expect: 100-continue")
        self.assert_refused(connection.reply(), 413, "body-too-large")

    def test_refused_as_soon_as_chunks_are_too_many(self) -> None:
        """A length that is not announced is counted."""
        connection = self.begin("Transfer-Encoding: chunked")
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        for _ in range(16):
            connection.send(chunk)
        self.assertTrue(connection.is_silent)
        connection.send(chunk)
        reply = connection.reply()
        self.assert_refused(reply, 413, "body-too-large")
        self.assertEqual("close", reply.headers["Connection"])

    def test_the_rest_is_discarded_until_its_end(self) -> None:
        """A client that sends on gets to read the refusal; nothing follows it."""
        connection = self.begin(f"Content-Length: {2 * MAX_BODY_BYTES}")
        connection.reply()
        connection.send(bytes(2 * MAX_BODY_BYTES - 1))
        self.assertFalse(connection.transport.disconnecting)
        connection.send(b"\0" + request_bytes("GET", "/live", None, {}))
        self.assertTrue(connection.transport.disconnecting)
        self.assertTrue(connection.is_silent)

    def test_patience_is_limited(self) -> None:
        """Who goes on sending is cut."""
        connection = self.begin("Transfer-Encoding: chunked")
        chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        for _ in range(20):
            connection.send(chunk)
        self.assertTrue(connection.transport.disconnecting)


class MessageTests(RequestsCase):
    """Requests that are malformed as HTTP."""

    def test_ambiguous_framing(self) -> None:
        """Both lengths, or two of one kind, are 400 and the end of the connection."""
        for headers in (
            b"Content-Length: 2\r\nTransfer-Encoding: chunked",
            b"Content-Length: 2\r\nContent-Length: 3",
            b"Transfer-Encoding: gzip, chunked",
            b"Content-Length: +2",
        ):
            connection = self.world.connect()
            connection.send(
                b"PUT /api/v1/apps/hello HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n\r\n{}"
            )
            self.assertIn(b" 400 ", connection.transport.value().split(b"\r\n")[0])
            self.assertTrue(connection.transport.disconnecting)

    def test_one_host(self) -> None:
        """Exactly one Host header, also in HTTP/1.0."""
        for head in (
            b"GET /live HTTP/1.1",
            b"GET /live HTTP/1.0",
            b"GET /live HTTP/1.1\r\nHost: a\r\nHost: b",
        ):
            connection = self.world.connect()
            connection.send(head + b"\r\n\r\n")
            self.assert_refused(connection.reply(), 400, "bad-request")

    def test_bytes_that_are_no_text(self) -> None:
        """No header or path makes it fail."""
        for request in (
            b"GET /api/v1/apps/%FF HTTP/1.1\r\nHost: localhost",
            b"GET /api/v1/apps/\xff HTTP/1.1\r\nHost: localhost",
            b"GET /live HTTP/1.1\r\nHost: \xff",
            b"PUT /api/v1/apps/a HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff",
        ):
            connection = self.world.connect()
            connection.send(request + b"\r\n\r\n")
            self.assertIn(connection.reply().status, (400, 403))

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """A connection carries one request after another."""
        connection = self.world.connect()
        connection.send(request_bytes("GET", "/live", None, {}) + request_bytes("GET", "/nothing", None, {}))
        first, _, second = connection.transport.value().partition(b'{"live": true}\n')
        self.assertTrue(first.startswith(b"HTTP/1.1 200 "))
        self.assertTrue(second.startswith(b"HTTP/1.1 404 "))


class MethodTests(RequestsCase):
    """Paths and methods."""

    def test_a_method_that_is_not_here(self) -> None:
        """405 tells which ones are, HEAD with GET."""
        for method in ("POST", "OPTIONS", "TRACE", "BREW"):
            reply = self.world.ask(method, APP)
            self.assert_refused(reply, 405, "method-not-allowed")
            self.assertEqual("DELETE, GET, HEAD, PATCH, PUT", reply.headers["Allow"])
        self.assertEqual("POST", self.world.ask("GET", f"{APP}/stop").headers["Allow"])

    def test_head_is_get_without_the_body(self) -> None:
        """The length is that of the answer to GET."""
        for path in (APP, "/metrics", "/ready"):
            got, head = self.world.ask("GET", path), self.world.ask("HEAD", path)
            self.assertEqual(b"", head.body)
            self.assertEqual((got.status, len(got.body)), (head.status, int(head.headers["Content-Length"])))

    def test_unknown_paths(self) -> None:
        """Whole segments count; what comes later is not here either."""
        for path in (
            "/api/v1",
            "/api/v1/apps/",
            "/api/v1/apps/hello/",
            "//live",
            "/api/v1/certificates/x/y",
            "/api/v1/requests/x/y",
            "/live/x",
            "/LIVE",
            "/api/v1/apps/hello/../hello",
        ):
            self.assert_refused(self.world.ask("GET", path), 404, "not-found")

    def test_an_escaped_slash_is_part_of_the_name(self) -> None:
        """It does not make another path."""
        self.assert_refused(self.world.ask("GET", "/api/v1/apps/hello%2Fbackends"), 404, "unknown-app")

    def test_a_query_where_none_is_understood(self) -> None:
        """A misspelt parameter is a mistake, not nothing."""
        self.assert_refused(self.world.ask("PUT", f"{APP}?wait=drained", {}), 400, "invalid")


class HeaderTests(RequestsCase):
    """What every answer carries."""

    def test_nothing_is_cached_sniffed_or_framed(self) -> None:
        """Refusals included; the server does not tell what it is."""
        for method, path in (("GET", "/"), ("GET", "/nothing"), ("PUT", APP), ("GET", "/metrics")):
            headers = self.world.ask(method, path).headers
            self.assertEqual("no-store", headers["Cache-Control"])
            self.assertEqual("nosniff", headers["X-Content-Type-Options"])
            self.assertEqual("default-src 'none'; frame-ancestors 'none'", headers["Content-Security-Policy"])
            self.assertNotIn("Server", headers)
            self.assertNotIn("Access-Control-Allow-Origin", headers)


class HostTests(RequestsCase):
    """DNS rebinding: under which names a listener answers."""

    def status(self, host: str, local: IAddress = LOOPBACK) -> int:
        return self.world.ask("GET", "/api/v1/status", headers={"Host": host}, local=local).status

    def test_names_of_loopback(self) -> None:
        """localhost, what is below it, and addresses of loopback; on any port, as tunnels have."""
        for host in (
            "localhost",
            "LocalHost:8081",
            "a.localhost:1",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:8081",
            "localhost.",
        ):
            self.assertEqual(200, self.status(host), host)

    def test_other_names(self) -> None:
        """A name of an attacker that resolves to loopback."""
        for host in (
            "evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "[::2]",
            "[",
            "",
        ):
            self.assertIn(self.status(host), (400, 403), host)

    def test_also_over_ipv6(self) -> None:
        """A listener on ::1, or a mapped IPv4 address."""
        for address in ("::1", "::ffff:127.0.0.1"):
            local = IPv6Address("TCP", address, 8081)
            self.assertEqual(
                (200, 403), (self.status("localhost", local), self.status("evil.example", local))
            )

    def test_configured_names(self) -> None:
        """An operator may name more."""
        self.world = AdminWorld(allowed_hosts=["Admin.internal"]).start()
        self.assertEqual(200, self.status("admin.INTERNAL:8081"))

    def test_other_listeners(self) -> None:
        """The file system guards a unix socket, the token everything else."""
        self.assertEqual(200, self.status("anything", UNIXAddress("/run/admin.sock")))
        self.assertEqual(200, self.status("router-1.internal", IPv4Address("TCP", "10.0.0.1", 8081)))


class CrossSiteTests(RequestsCase):
    """Pages of other origins."""

    def status(self, method: str = "POST", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"{APP}/stop" if method == "POST" else APP
        return self.world.ask(method, path, headers=named).status

    def test_changes_from_other_origins(self) -> None:
        """Refused by Origin, also a different port, and ``null``."""
        for origin in ("http://evil.example", "http://127.0.0.1:8080", "http://localhost:8081", "null", ""):
            expected = 403 if origin else 200
            self.assertEqual(expected, self.status(Origin=origin), origin)
        self.assertEqual(403, self.world.ask("DELETE", APP, headers={"Origin": "http://evil.example"}).status)

    def test_changes_from_the_same_origin(self) -> None:
        """A page of ours may do what a program may."""
        self.assertEqual(200, self.status(Origin="http://127.0.0.1:8081", Sec_Fetch_Site="same-origin"))
        self.assertEqual(200, self.status(Sec_Fetch_Site="none"))

    def test_fetch_metadata(self) -> None:
        """Refused by Sec-Fetch-Site, where a browser leaves Origin out."""
        for site in ("cross-site", "same-site"):
            self.assertEqual(403, self.status(Sec_Fetch_Site=site))

    def test_reading_is_not_refused(self) -> None:
        """The browser itself keeps the answer from the page: there are no CORS headers."""
        self.assertEqual(200, self.status("GET", Origin="http://evil.example", Sec_Fetch_Site="cross-site"))


class TokenTests(SynchronousTestCase):
    """With ``token_file``."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "w") as file:
            file.write(f"{TOKEN}\n")
        self.world = AdminWorld(App("hello"), token_file=self.path).start()

    def status(self, path: str, authorization: str = "", method: str = "GET") -> int:
        reply = self.world.ask(method, path, headers={"Authorization": authorization})
        if reply.status == 401:
            self.assertEqual('Bearer realm="scalingo-proxy"', reply.headers["WWW-Authenticate"])
            self.assertNotIn(TOKEN.encode(), reply.body)
        return reply.status

    def test_required_everywhere(self) -> None:
        """Without it nobody learns even which paths there are."""
        for path in ("/", "/metrics", "/api/v1/apps", "/api/v1/openapi.json", "/nothing", APP):
            self.assertEqual(401, self.status(path), path)
        self.assertEqual(401, self.status(APP, method="BREW"))

    def test_but_for_live_and_ready(self) -> None:
        """Whoever restarts the process has no token."""
        self.assertEqual((200, 200), (self.status("/live"), self.status("/ready")))

    def test_the_right_one(self) -> None:
        """The scheme's case does not matter."""
        for authorization in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
            self.assertEqual(200, self.status("/api/v1/apps", authorization))

    def test_wrong_ones(self) -> None:
        """Another, a part, another scheme, another place."""
        for authorization in (
            "Bearer x",
            "Bearer",
            f"Bearer {TOKEN[:-1]}",
            f"Basic {TOKEN}",
            TOKEN,
            "Bearer \xff",
        ):
            self.assertEqual(401, self.status("/api/v1/apps", authorization), authorization)
        self.assertEqual(401, self.status(f"/api/v1/apps?token={TOKEN}"))

    def test_a_token_in_the_query_is_not_logged(self) -> None:
        """It is no place for it, but it happens."""
        with capturedLogs() as events:
            self.world.ask("DELETE", f"{APP}?token={TOKEN}")
        self.assertEqual(1, len(events))
        self.assertNotIn(TOKEN, repr(events))

    def test_two_of_them(self) -> None:
        """One header, or none that counts."""
        connection = self.world.connect()
        line = f"Authorization: Bearer {TOKEN}\r\n"
        connection.send(f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{line}{line}\r\n".encode())
        self.assertEqual(401, connection.reply().status)

    def test_exchanged_while_running(self) -> None:
        """The new one counts from the next request on; a broken file changes nothing."""
        with open(self.path, "w") as file:
            file.write("another\n# comment")
        self.world.service.read_token()
        self.assertEqual(200, self.status("/metrics", "Bearer another"))
        self.assertEqual(401, self.status("/metrics", f"Bearer {TOKEN}"))

    def test_a_file_without_a_token(self) -> None:
        """An empty token would let everybody in; the sentence does not tell what is there."""
        for content in ("", "\n", "two words\n", "bell\a\n", "é\n", f"\n{TOKEN}"):
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(content)
            sentence = str(self.assertRaises(ValueError, token_in, self.path))
            self.assertTrue(sentence.startswith(self.path))
            self.assertNotIn("words", sentence.removeprefix(self.path))
        self.assertRaises(ValueError, token_in, self.path + "-missing")


class FailureTests(RequestsCase):
    """Bugs of ours."""

    def test_a_bug_is_500_and_logged_once(self) -> None:
        """The answer tells nothing of the inside; the next request is served."""

        def fail() -> None:
            raise RuntimeError("secret detail")

        self.world.reload = fail
        reply = self.world.ask("POST", "/api/v1/reload")
        self.assert_refused(reply, 500, "internal-error")
        self.assertNotIn(b"secret", reply.body)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.assertEqual(200, self.world.ask("GET", "/live").status)
