"""One TLS listener on real sockets: curl, h2load, openssl, Python's ssl and Chromium in front."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

from scalingo_proxy.protocols.tls_authority import Authority
from tests.integration.programs import (
    IntegrationTestCase,
    ProxyProcess,
    curl,
    free_port,
    needs_program,
    wait_for,
)
from tests.integration.servers import SocketServer, read_head
from tests.integration.test_many_connections import answer_ok

TLS_LISTENER = """
[[listen]]
protocol = "tls"
endpoint = "tcp:0:interface=127.0.0.1"
"""


class TLSListenerTests(IntegrationTestCase):
    """Termination and passthrough on one port."""

    def setUp(self) -> None:
        self.folder = self.directory()
        self.authority = Authority.create("Test CA", time.time())
        with open(self.path("ca.pem"), "wb") as file:
            file.write(self.authority.pem)
        self.issue("hello", ["hello.test", "*.hello.test"])
        self.issue("other", ["other.test"])

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def issue(self, name: str, domains: list[str]) -> tuple[str, str]:
        """A certificate and its key as files."""
        chain, key = self.authority.issue(domains, time.time())
        for suffix, pem in (("pem", chain), ("key", key)):
            with open(self.path(f"{name}.{suffix}"), "wb") as file:
                file.write(pem)
        return self.path(f"{name}.pem"), self.path(f"{name}.key")

    def server(self, serve: object = answer_ok) -> SocketServer:
        server = SocketServer(serve)  # type: ignore[arg-type]
        self.addCleanup(server.close)
        return server

    def tls_app(self, name: str, backend: str, rest: str = "") -> str:
        """An app whose certificate is one of ours."""
        files = f'certificate = {{ cert = "{self.path(name)}.pem", key = "{self.path(name)}.key" }}\n'
        return self.app(name, [backend], rest=files + rest)

    def start(self, apps: str) -> ProxyProcess:
        proxy = self.start_proxy(TLS_LISTENER + apps)
        match = re.search(r"^  tls +https://[^/]*:(\d+)/", proxy.output, re.MULTILINE)
        assert match is not None, proxy.output
        self.port = int(match[1])
        return proxy

    def curl(self, host: str, *options: str, path: str = "/") -> str:
        """Curl to the TLS listener, trusting our authority."""
        return curl(
            *("--cacert", self.path("ca.pem"), "--resolve", f"{host}:{self.port}:127.0.0.1"),
            *options,
            f"https://{host}:{self.port}{path}",
        )

    def connect(self, name: str, **options: object) -> ssl.SSLSocket:
        """Python's ssl to the TLS listener."""
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        for key, value in options.items():
            setattr(context, key, value)
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        try:
            return context.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    # -- termination ---------------------------------------------------------

    def test_curl(self) -> None:
        """Curl gets each app over HTTP/1.1 and HTTP/2, with the certificate of its name."""
        address = self.server().address
        self.start(self.tls_app("hello", address) + self.tls_app("other", address))
        for host in ("hello.test", "other.test"):
            for option, version in (("--http1.1", "1.1"), ("--http2", "2")):
                told = self.curl(host, option, "--write-out", " %{http_version} %{http_code}")
                self.assertEqual(told, f"ok {version} 200")

    def test_headers_tell_the_truth(self) -> None:
        """The backend learns that it was HTTPS, on which port, and the log which TLS."""
        heads = []

        def serve(connection: socket.socket) -> None:
            head, _ = read_head(connection)
            if head:  # and not a mere probe
                heads.append(head)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        proxy = self.start(self.tls_app("hello", self.server(serve).address, "force_https = true\n"))
        answer = self.curl("hello.test", "--http1.1", "--include")
        self.assertIn("Strict-Transport-Security: max-age=31536000\r\n", answer)
        self.assertIn(b"X-Forwarded-Proto: https\r\n", heads[0])
        self.assertIn(b"X-Forwarded-Port: %d\r\n" % self.port, heads[0])
        plain = curl(
            "--include", "--header", "Host: hello.test", f"http://127.0.0.1:{proxy.port}/a?b", seconds=30
        )
        self.assertIn("301 Moved Permanently", plain)
        self.assertIn("Location: https://hello.test/a?b\r\n", plain)
        self.assertNotIn("Strict-Transport-Security", plain)
        wait_for(lambda: len(proxy.request_log()) == 2, "the log")
        self.assertRegex(proxy.request_log()[0], r" protocol=http/1.1 tls=TLSv1.3$")

    def test_errors_of_ours_say_hsts(self) -> None:
        """A page of the router's for an app that forces HTTPS, over both versions of HTTP; never in clear."""
        proxy = self.start(self.tls_app("hello", f"127.0.0.1:{free_port()}", "force_https = true\n"))
        for option, code in (("--http1.1", "connect-failed"), ("--http2", "quarantined")):
            answer = self.curl("hello.test", option, "--include").lower()
            self.assertIn(f"x-scalingo-error: {code}", answer)
            self.assertIn("strict-transport-security: max-age=31536000\r\n", answer)
        plain = curl("--include", "--header", "Host: nobody.test", f"http://127.0.0.1:{proxy.port}/")
        self.assertNotIn("strict-transport-security", plain.lower())

    def test_misdirected(self) -> None:
        """A host beyond the certificate of the connection is 421; one within is served."""
        address = self.server().address
        self.start(
            self.tls_app("hello", address)
            + self.tls_app("other", address)
            + self.app("www", [address], "a.hello.test")
        )
        with self.connect("hello.test") as client:
            for host, status in (("a.hello.test", b"200"), ("other.test", b"421"), ("hello.test", b"200")):
                client.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
                received = b""
                while not received.endswith((b"ok", b"</html>\n")):
                    received += client.recv(65536)
                self.assertEqual(received.split()[1], status)

    def test_alerts(self) -> None:
        """Unknown names, no name, old versions and foreign protocols get alerts, no backend hears of them."""
        server = self.server()
        self.start(self.tls_app("hello", server.address))
        for name, options, reason in (
            ("unknown.test", {}, "UNRECOGNIZED_NAME"),
            (None, {"check_hostname": False}, "UNRECOGNIZED_NAME"),
            ("hello.test", {"minimum_version": 0x301, "maximum_version": 0x302}, "PROTOCOL_VERSION"),
        ):
            with self.assertRaises((ssl.SSLError, OSError)) as caught:
                if "maximum_version" in options:
                    self.openssl("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0", name=str(name))
                else:
                    self.connect(name, **options).close()  # type: ignore[arg-type]
            self.assertIn(reason.replace("_", " ").lower(), str(caught.exception).replace("_", " ").lower())
        self.assertEqual(server.connections, 0)

    def test_stalled_handshake(self) -> None:
        """A client that goes silent within its handshake is late; it was not the one that closed."""
        server = self.server()
        proxy = self.start(self.tls_app("hello", server.address) + "[timeouts]\nrequest_head = 0.5\n")
        outgoing = ssl.MemoryBIO()
        context = ssl.create_default_context()
        with self.assertRaises(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="hello.test").do_handshake()
        with socket.create_connection(("127.0.0.1", self.port), 10) as client:
            client.sendall(outgoing.read())
            with self.assertRaises(ConnectionResetError):
                while client.recv(65536):
                    pass
        wait_for(proxy.request_log, "the log")
        self.assertRegex(
            proxy.request_log()[0], r" host=hello\.test .* app=hello .* status=408 code=request-timeout "
        )
        self.assertEqual(server.connections, 0)

    def openssl(self, *options: str, name: str) -> str:
        """Openssl s_client; raises with its words when the handshake fails."""
        program = needs_program("openssl", "install the package openssl")
        done = subprocess.run(
            [program, "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", name, *options],
            input=b"",
            capture_output=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            raise OSError(done.stderr.decode())
        return done.stdout.decode()

    def test_openssl_client(self) -> None:
        """OpenSSL's own client verifies the chain, over TLS 1.2 and 1.3, and resumes its session."""
        self.start(self.tls_app("hello", self.server().address))
        for version in ("-tls1_2", "-tls1_3"):
            told = self.openssl(
                version, "-CAfile", self.path("ca.pem"), "-verify_return_error", name="hello.test"
            )
            self.assertIn("Verify return code: 0 (ok)", told)
            self.assertIn("Secure Renegotiation IS", told)
        session = self.path("session")
        self.openssl("-tls1_2", "-sess_out", session, name="hello.test")
        self.assertIn("Reused, TLSv1.2", self.openssl("-tls1_2", "-sess_in", session, name="hello.test"))

    def test_plain_http(self) -> None:
        """A request without TLS is told so in plain words."""
        self.start(self.tls_app("hello", self.server().address))
        answer = curl("--include", f"http://127.0.0.1:{self.port}/")
        self.assertIn("400 Bad Request", answer)
        self.assertIn("plain HTTP on a port for TLS", answer)

    def test_h2load(self) -> None:
        """2,000 requests over a few connections of many streams: every one answered."""
        program = needs_program("h2load", "install the package nghttp2-client")
        more = "limits = { in_flight_per_backend = 200 }\n"
        proxy = self.start(self.tls_app("hello", self.server().address, more))
        done = subprocess.run(
            [
                program,
                *("-n", "2000", "-c", "8", "-m", "16", "--connect-to", f"127.0.0.1:{self.port}"),
                f"https://hello.test:{self.port}/",
            ],
            capture_output=True,
            timeout=120,
            check=True,
        )
        self.assertIn(b"2000 succeeded, 0 failed, 0 errored, 0 timeout", done.stdout)
        self.assertNotIn("Traceback", proxy.output)

    # -- passthrough ---------------------------------------------------------

    def test_passthrough_beside_termination(self) -> None:
        """On the same port another app's TLS goes through: the client sees the backend's own certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("backend", ["sealed.test"]))

        def serve(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secured:
                answer_ok(secured)

        address = self.server().address
        sealed = self.app("sealed", [self.server(serve).address], rest='tls = "passthrough"\n')
        proxy = self.start(self.tls_app("hello", address) + sealed)
        self.assertEqual(self.curl("sealed.test"), "ok")
        self.assertEqual(self.curl("hello.test"), "ok")
        wait_for(lambda: len(proxy.request_log()) == 2, "the log")
        (line,) = [line for line in proxy.request_log() if "host=sealed.test" in line]
        self.assertRegex(line, r" app=sealed .* code=- .* protocol=tls tls=passthrough$")

    # -- the PROXY header ----------------------------------------------------

    def test_proxy_header(self) -> None:
        """With a PROXY header, before HTTP and before TLS, its address is the client's everywhere."""
        heads = []

        def serve(connection: socket.socket) -> None:
            while head := read_head(connection)[0]:
                heads.append(head)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        address = self.server(serve).address
        rest = TLS_LISTENER + "proxy_protocol = true\n" + self.tls_app("hello", address)
        proxy = self.start_proxy(rest)
        match = re.search(r"^  tls +https://[^/]*:(\d+)/", proxy.output, re.MULTILINE)
        assert match is not None
        self.port = int(match[1])
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        raw.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n")
        with ssl.create_default_context(cafile=self.path("ca.pem")).wrap_socket(
            raw, server_hostname="hello.test"
        ) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: close\r\n\r\n")
            received = b""
            while data := client.recv(65536):
                received += data
        self.assertTrue(received.endswith(b"ok"), received)
        self.assertIn(b"X-Forwarded-For: 192.0.2.7\r\n", heads[0])
        self.assertIn(b"X-Forwarded-Port: 443\r\n", heads[0])
        wait_for(proxy.request_log, "the log")
        self.assertIn(" from=192.0.2.7 ", proxy.request_log()[0])
        with self.assertRaises((ssl.SSLError, OSError)):
            self.connect("hello.test").close()  # no header where one is required


class DemoTests(IntegrationTestCase):
    """What ``make demo`` shows over TLS."""

    def demo(self) -> tuple[str, str]:
        """A demo on free ports: the folder and the URL of its TLS listener."""
        folder = self.directory()
        ports = [word for name in ("http", "tls", "admin") for word in (f"--{name}", "127.0.0.1:0")]
        self.proxy = proxy = ProxyProcess(folder, "", "--demo", *ports)
        self.addCleanup(proxy.end)
        proxy.wait_until_up()
        match = re.search(r"^  tls +(https://hello\.localhost:\d+/)", proxy.output, re.MULTILINE)
        assert match is not None, proxy.output
        return folder, match[1]

    def test_curl(self) -> None:
        """The page comes over HTTP/2, trusted by the demo's own CA; another app is passed through."""
        folder, url = self.demo()
        ca = os.path.join(folder, "scalingo-demo", "ca.pem")
        self.assertIn("scalingo-demo", self.proxy.output)
        told = curl("--cacert", ca, "--write-out", "%{http_version}", url)
        self.assertIn("hello from demo-", told)
        self.assertTrue(told.endswith("2"), told)
        sealed = url.replace("hello.localhost", "sealed.localhost")
        self.assertIn("hello from", curl("--cacert", ca, sealed))

    def test_chromium(self) -> None:
        """A browser loads the page over HTTP/2."""
        browser = needs_program("chromium", "install the package chromium")
        _, url = self.demo()
        profile = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, profile, True)
        done = subprocess.run(
            [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--ignore-certificate-errors", f"--user-data-dir={profile}", "--dump-dom", url),
            ],
            capture_output=True,
            timeout=90,
            check=False,
        )
        self.assertIn(b"hello from demo-", done.stdout, done.stderr[-2000:])
        wait_for(self.proxy.request_log, "the log")
        self.assertIn(" status=200 code=- ", self.proxy.request_log()[0])
        self.assertIn(" protocol=h2 tls=TLSv1.3", self.proxy.request_log()[0])
