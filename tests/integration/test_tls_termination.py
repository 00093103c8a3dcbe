"""Certificates on real sockets: OpenSSL, Python's ssl and curl before a proxy whose certificates change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from scalingo_proxy.model import Certificate, CertificateChange
from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.resolvers.store_file import StoreFile
from tests.integration.programs import IntegrationTestCase, ProxyProcess, curl, needs_program, wait_for
from tests.integration.servers import SocketServer
from tests.integration.test_many_connections import answer_ok
from tests.integration.test_tls_listener import TLS_LISTENER

API = "/api/v1/certificates"


class CertificatesCase(IntegrationTestCase):
    """A proxy with a TLS listener, and an authority that its clients trust."""

    def setUp(self) -> None:
        self.folder = self.directory()
        root = Authority.create("Test root", time.time())
        self.authority = root.subordinate("Test issuer", time.time())
        self.ca = self.write("ca.pem", root.pem)
        self.backend = SocketServer(answer_ok)
        self.addCleanup(self.backend.close)

    def write(self, name: str, content: bytes) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def start(self, *apps: str, **options: Any) -> ProxyProcess:
        self.proxy = proxy = self.start_proxy(TLS_LISTENER + "".join(apps), **options)
        match = re.search(r"^  tls +https://[^/]*:(\d+)/", proxy.output, re.MULTILINE)
        assert match is not None, proxy.output
        self.port = int(match[1])
        return proxy

    def hello(self, *domains: str, rest: str = "") -> str:
        """An app of these domains."""
        return (
            f'[[app]]\nname = "{domains[0].lstrip("*.")}"\ndomains = {list(domains)}\n'
            f'backends = ["{self.backend.address}"]\n{rest}\n'
        )

    def tell(self, name: str, *domains: str, **options: Any) -> str:
        """Tell the admin API a new certificate; its fingerprint as OpenSSL writes it."""
        chain, key = self.authority.issue(domains, time.time(), **options)
        body = {"certificate": chain.decode(), "key": key.decode()}
        status, told = self.proxy.admin("PUT", f"{API}/{name}", body)
        self.assertIn(status, (200, 201), told)
        return str(told["fingerprint"])

    def context(self, version: ssl.TLSVersion | None = None, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def connect(
        self, name: str, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        """Python's ssl, verifying."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        try:
            connection = (context or self.context()).wrap_socket(raw, server_hostname=name, session=session)
        except BaseException:
            raw.close()
            raise
        self.addCleanup(connection.close)
        return connection

    def served(self, name: str, context: ssl.SSLContext | None = None) -> str:
        """The fingerprint of what a client that asks for *name* gets."""
        with self.connect(name, context) as connection:
            return fingerprint(connection)

    def s_client(self, name: str, *options: str, lines: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """OpenSSL's own client."""
        program = needs_program("openssl", "install the package openssl")
        address = ("-connect", f"127.0.0.1:{self.port}", "-servername", name)
        return subprocess.run(
            [program, "s_client", *address, "-CAfile", self.ca, *options],
            input=lines,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def request(self, connection: ssl.SSLSocket, host: str) -> bytes:
        """One request on an open connection."""
        connection.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        received = b""
        while not received.endswith((b"ok", b"</html>\n")):
            data = connection.recv(65536)
            assert data, received
            received += data
        return received


def fingerprint(connection: ssl.SSLSocket) -> str:
    encoded = connection.getpeercert(binary_form=True)
    assert encoded is not None
    return hashlib.sha256(encoded).digest().hex(":").upper()


class ChoiceTests(CertificatesCase):
    """Which certificate a client gets."""

    def test_by_name(self) -> None:
        """The very name before a wildcard: both versions, both kinds of keys, three clients."""
        self.start(self.hello("a.test", "*.a.test"), self.hello("b.test"))
        key = rsa.generate_private_key(65537, 2048)
        told = {
            "a.test": self.tell("exact", "a.test"),
            "x.a.test": self.tell("wild", "*.a.test", key=key),
            "y.a.test": self.tell("one", "y.a.test"),
            "b.test": self.tell("b", "b.test", key=key),
        }
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for name, expected in told.items():
                self.assertEqual(self.served(name, self.context(version)), expected, (name, version))
        for name in told:
            answer = curl("--cacert", self.ca, "--resolve", f"{name}:{self.port}:127.0.0.1", self.url(name))
            self.assertEqual(answer, "ok")
            for option in ("-tls1_2", "-tls1_3"):
                done = self.s_client(name, option, "-verify_return_error", "-showcerts")
                self.assertIn(b"Verify return code: 0 (ok)", done.stdout)
                self.assertEqual(done.stdout.count(b"-----BEGIN CERTIFICATE-----"), 2)  # with its issuer
        self.assertNotIn("Traceback", self.proxy.output)

    def url(self, name: str) -> str:
        return f"https://{name}:{self.port}/"

    def test_asked_for(self) -> None:
        """An app gets the certificate it asks for by name, though another one lasts longer."""
        self.start(self.hello("a.test", rest='certificate = "mine"'))
        other = self.tell("other", "a.test", days=60)
        self.assertEqual(self.served("a.test"), other)
        mine = self.tell("mine", "a.test", days=10)
        self.assertEqual(self.served("a.test"), mine)

    def test_nobody(self) -> None:
        """A name without an app, or without a certificate, gets ``unrecognized_name`` and no certificate."""
        self.start(self.hello("a.test"), self.hello("bare.test"))
        self.tell("a", "a.test", "unclaimed.test")
        for name in ("bare.test", "nobody.test", "x.a.test", "unclaimed.test"):
            with self.assertRaises(ssl.SSLError) as caught:
                self.served(name)
            self.assertIn("UNRECOGNIZED_NAME", str(caught.exception).upper())
            self.assertNotIn(b"BEGIN CERTIFICATE", self.s_client(name).stdout)
        self.assertEqual(self.backend.connections, 0)

    def test_alpn(self) -> None:
        """``h2`` and ``http/1.1`` are spoken; a client that speaks neither is told so."""
        self.start(self.hello("a.test"))
        self.tell("a", "a.test")
        for offer, chosen in ((("http/1.1", "h2"), "h2"), (("http/1.1",), "http/1.1"), ((), None)):
            with self.connect("a.test", self.context(None, *offer)) as connection:
                self.assertEqual(connection.selected_alpn_protocol(), chosen)
        with self.assertRaises(ssl.SSLError) as caught:
            self.connect("a.test", self.context(None, "imap"))
        self.assertIn("NO_APPLICATION_PROTOCOL", str(caught.exception).upper().replace(" ", "_"))
        wait_for(lambda: len(self.proxy.request_log()) == 1, "the log")
        self.assertIn(" code=bad-request ", self.proxy.request_log()[0])

    def test_old_versions(self) -> None:
        """TLS 1.1 and older are refused with ``protocol_version``."""
        self.start(self.hello("a.test"))
        self.tell("a", "a.test")
        for option in ("-tls1_1", "-tls1"):
            done = self.s_client("a.test", option, "-cipher", "DEFAULT:@SECLEVEL=0")
            self.assertIn(b"alert protocol version", done.stderr)


class SwapTests(CertificatesCase):
    """Certificates that change while clients are there."""

    def test_exchanged(self) -> None:
        """The next handshake sees the new one; open connections stay and go on."""
        self.start(self.hello("a.test"))
        old = self.tell("a", "a.test")
        with self.connect("a.test") as before:
            self.assertIn(b"200 OK", self.request(before, "a.test"))
            new = self.tell("a", "a.test", key=rsa.generate_private_key(65537, 2048))
            self.assertEqual(self.served("a.test"), new)
            self.assertIn(b"200 OK", self.request(before, "a.test"))
            self.assertEqual(fingerprint(before), old)
        self.assertEqual(self.proxy.admin("DELETE", f"{API}/a")[0], 200)
        with self.assertRaises(ssl.SSLError):
            self.served("a.test")

    def test_broken_upload(self) -> None:
        """A broken one names what is wrong, and the old one is served on."""
        self.start(self.hello("a.test"))
        old = self.tell("a", "a.test")
        chain, _ = self.authority.issue(["a.test"], time.time())
        _, key = self.authority.issue(["a.test"], time.time())
        status, told = self.proxy.admin(
            "PUT", f"{API}/a", {"certificate": chain.decode(), "key": key.decode()}
        )
        self.assertEqual((status, told["error"]["field"]), (422, "key"))
        self.assertEqual(self.served("a.test"), old)
        self.assertNotIn(key.decode().splitlines()[1], self.proxy.output)

    def test_killed(self) -> None:
        """What was acknowledged is served after kill -9 and a restart."""
        directory = self.directory()
        self.start(self.hello("a.test"), state="state.db", directory=directory)
        told = self.tell("a", "a.test")
        self.proxy.signal(signal.SIGKILL)
        self.proxy.wait()
        self.assertEqual(os.stat(os.path.join(directory, "state.db")).st_mode & 0o777, 0o600)
        self.start(self.hello("a.test"), state="state.db", directory=directory)
        self.assertEqual(self.served("a.test"), told)

    def test_files(self) -> None:
        """A pair of files is read again at a reload; a broken one keeps the old one, with file and line."""
        rest = 'certificate = { cert = "a.pem", key = "a.key" }'
        directory = self.directory()

        def renew() -> tuple[bytes, bytes]:
            chain, key = self.authority.issue(["a.test"], time.time())
            for name, content in (("a.pem", chain), ("a.key", key)):
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(content)
            return chain, key

        renew()
        self.start(self.hello("a.test", rest=rest), directory=directory)
        first = self.served("a.test")
        with self.connect("a.test") as before:
            renew()
            self.assertEqual(self.served("a.test"), first)
            self.assertEqual(self.proxy.admin("POST", "/api/v1/reload")[0], 200)
            second = self.served("a.test")
            self.assertNotEqual(second, first)
            self.assertIn(b"200 OK", self.request(before, "a.test"))
        with open(os.path.join(directory, "a.key"), "wb") as file:
            file.write(b"nonsense")
        status, told = self.proxy.admin("POST", "/api/v1/reload")
        self.assertEqual((status, told["error"]["code"]), (409, "broken-configuration"))
        self.assertRegex(
            told["error"]["message"], r"proxy\.toml:\d+: \[\[app\]\] #1 certificate key: .*is not PEM"
        )
        self.assertEqual(self.served("a.test"), second)


class SessionTests(CertificatesCase):
    """Sessions that are taken up again."""

    def resumed(self, first: str, second: str, version: ssl.TLSVersion) -> bool:
        """Whether a session as *first* goes on as *second*."""
        context = self.context(version)
        with self.connect(first, context) as connection:
            self.request(connection, first)  # with TLS 1.3 the tickets come behind the handshake
            session = connection.session
        with self.connect(second, context, session) as connection:
            self.assertIn(b"200 OK", self.request(connection, second))
            return bool(connection.session_reused)

    def test_resumption(self) -> None:
        """Within one certificate, and never with another one (CVE-2025-23419)."""
        self.start(self.hello("a.test", "*.a.test"), self.hello("b.test"))
        self.tell("a", "a.test", "*.a.test")
        self.tell("b", "b.test")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.assertTrue(self.resumed("a.test", "a.test", version))
            self.assertFalse(self.resumed("a.test", "b.test", version))

    def test_renegotiation(self) -> None:
        """A client that wants to negotiate anew is refused, and the proxy goes on."""
        self.start(self.hello("a.test"))
        self.tell("a", "a.test")
        said = self.command("-tls1_2", b"R\n", 10)
        self.assertIn(b"RENEGOTIATING", said)
        self.assertIn(b"no renegotiation", said)
        self.served("a.test")

    def test_key_updates(self) -> None:
        """A flood of key updates ends its connection, and harms no other."""
        self.start(self.hello("a.test"))
        self.tell("a", "a.test")
        with self.connect("a.test") as other:
            said = self.command("-tls1_3", b"k\n", 6000)
            self.assertIn(b"KEYUPDATE", said)
            self.assertIn(b"200 OK", self.request(other, "a.test"))

    def test_new_keys(self) -> None:
        """A client that changes its keys, and asks for new ones of ours, gets its answers all the same."""
        self.start(self.hello("a.test"))
        self.tell("a", "a.test")
        program = needs_program("openssl", "install the package openssl")
        address = f"127.0.0.1:{self.port}"
        words = [program, "s_client", "-connect", address, "-servername", "a.test", "-tls1_3"]
        client = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        assert client.stdin is not None and client.stdout is not None
        said = b""
        try:
            for command in (b"K\n", b"k\n"):
                client.stdin.write(command)
                while b"KEYUPDATE" not in said:
                    said += os.read(client.stdout.fileno(), 65536)
                client.stdin.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                while b"200 OK" not in said:
                    data = os.read(client.stdout.fileno(), 65536)
                    self.assertNotEqual(data, b"", said)
                    said += data
                said = b""
        finally:
            client.kill()
            client.communicate()

    def command(self, version: str, command: bytes, most: int) -> bytes:
        """What OpenSSL's client says, given *command* until its connection ends."""
        program = needs_program("openssl", "install the package openssl")
        words = [program, "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", "a.test", version]
        client = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        assert client.stdin is not None and client.stdout is not None
        reading = threading.Thread(target=lambda: said.append(client.stdout.read()))  # type: ignore[union-attr]
        said: list[bytes] = []
        reading.start()
        try:
            for _ in range(most):
                client.stdin.write(command)
                time.sleep(0.0003)  # one command each time it reads
            client.wait(30)
        except BrokenPipeError:
            client.wait(30)  # it has gone already
        finally:
            client.kill()
            client.wait()
            reading.join(10)
            for pipe in (client.stdin, client.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        return said[0]


class ManyTests(CertificatesCase):
    """Thousands of certificates."""

    def test_five_thousand(self) -> None:
        """A store of 5,000 is loaded while the proxy starts, and each of them is served."""
        count = 5000
        directory = self.directory()
        file = StoreFile(os.path.join(directory, "state.db"))
        file.open()
        issued = []
        for number in range(count):
            chain, key = self.authority.issue([f"app{number}.many.test"], time.time())
            issued.append(Certificate(f"app{number}", chain, key, (), 0.0, 0.0, ""))
        file.write_certificates(CertificateChange(tuple(issued)))
        file.close()
        self.start(self.hello("*.many.test"), state="state.db", directory=directory)
        for number in (0, 1, 17, 2500, count - 1):
            with self.connect(f"app{number}.many.test") as connection:
                subject = connection.getpeercert()["subject"]  # type: ignore[index]
                self.assertEqual(subject, ((("commonName", f"app{number}.many.test"),),))
        status, told = self.proxy.admin("GET", f"{API}?per_page=1")
        self.assertEqual((status, told["total"]), (200, count))
        text = self.proxy.admin("GET", "/metrics")[1]
        self.assertEqual(text.count("\nscalingo_proxy_certificate_expiry_timestamp_seconds{"), count)
