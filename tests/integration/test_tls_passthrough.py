"""TLS passed through on real sockets: nginx and Python behind, Python's ssl in front."""

from __future__ import annotations

import os
import re
import resource
import select
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib

from scalingo_proxy.protocols.tls_authority import Authority
from tests.integration.programs import IntegrationTestCase, Nginx, ProxyProcess, free_port, wait_for
from tests.integration.servers import SocketServer
from tests.wire import hello_builder

MEGABYTE = 1024 * 1024

TLS_LISTENER = """
[[listen]]
protocol = "tls"
endpoint = "tcp:0:interface=127.0.0.1:backlog=4096"
"""

HELLO = hello_builder.record(hello_builder.message(hello_builder.server_name(b"hello.test")))

#: A backend of its own process: says that it is there, then sends back whatever comes.
ECHO = """
import socket, threading
listening = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listening.getsockname()[1], flush=True)
def serve(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


class EchoServer:
    """Sends everything back, on any number of connections, in one thread."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listening.setblocking(False)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is self._woken:
                        for each in list(selector.get_map().values()):
                            each.fileobj.close()  # type: ignore[union-attr]
                        return
                    if ready is self._listening:
                        selector.register(ready.accept()[0], selectors.EVENT_READ)
                        continue
                    try:
                        data = ready.recv(65536)
                        ready.sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        selector.unregister(ready)
                        ready.close()

    def close(self) -> None:
        self._wake.close()
        self._thread.join(10)


class PassthroughTests(IntegrationTestCase):
    """One TLS listener, and apps that speak TLS themselves."""

    def start(self, backends: list[str], settings: str = "") -> ProxyProcess:
        app = self.app("hello", backends, rest='tls = "passthrough"')
        proxy = self.start_proxy(TLS_LISTENER + settings + app)
        match = re.search(r"^  tls +https://[^/]*:(\d+)/", proxy.output, re.MULTILINE)
        assert match is not None, proxy.output
        self.port = int(match[1])
        return proxy

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.addCleanup(client.close)
        return client

    def echo_server(self) -> EchoServer:
        server = EchoServer()
        self.addCleanup(server.close)
        return server

    # -- TLS -----------------------------------------------------------------

    def start_tls_nginx(self) -> tuple[str, ssl.SSLContext, bytes]:
        """Nginx with TLS of its own: its address, whom to trust, and its certificate."""
        folder = self.directory()
        authority = Authority.create("Test CA", time.time())
        chain, key = authority.issue(["hello.test"], time.time())
        for name, pem in (("ca.pem", authority.pem), ("own.pem", chain), ("own.key", key)):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(pem)

        class TLSNginx(Nginx):
            tls = f"ssl_certificate {folder}/own.pem; ssl_certificate_key {folder}/own.key;"

        nginx = TLSNginx(self.directory())
        self.addCleanup(nginx.end)
        context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))
        own = chain.decode().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
        return nginx.address, context, ssl.PEM_cert_to_DER_cert(own)

    def test_certificate_and_resumption(self) -> None:
        """The client sees nginx's own certificate, and resumes its session with it."""
        address, context, own = self.start_tls_nginx()
        self.start([address])
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.minimum_version = context.maximum_version = version
            session = None
            for turn in range(2):
                with context.wrap_socket(
                    self.connect(), server_hostname="hello.test", session=session
                ) as client:
                    self.assertEqual(client.getpeercert(binary_form=True), own)
                    self.assertEqual(client.session_reused, turn == 1, version)
                    client.sendall(b"GET /hello HTTP/1.1\r\nHost: hello.test\r\nConnection: close\r\n\r\n")
                    answer = b""
                    while data := client.recv(65536):
                        answer += data
                    self.assertTrue(answer.endswith(b"hello from nginx"), answer)
                    session = client.session

    def test_unknown_name(self) -> None:
        """A client that asks for another name gets an alert that it understands."""
        self.start([self.echo_server().address])
        context = ssl.create_default_context()
        with self.assertRaises(ssl.SSLError) as caught:
            context.wrap_socket(self.connect(), server_hostname="other.test")
        self.assertIn("UNRECOGNIZED_NAME", str(caught.exception).upper().replace(" ", "_"))

    def test_backend_that_is_down(self) -> None:
        """So does one whose app has no backend that answers."""
        self.start([f"127.0.0.1:{free_port()}"])
        with self.assertRaises(ssl.SSLError) as caught:
            ssl.create_default_context().wrap_socket(self.connect(), server_hostname="hello.test")
        self.assertIn("INTERNAL_ERROR", str(caught.exception).upper().replace(" ", "_"))

    # -- much ----------------------------------------------------------------

    def test_gigabyte_both_ways(self) -> None:
        """1 GB each way at once arrives as it was sent, and the proxy's memory does not grow."""
        pieces = [os.urandom(MEGABYTE) for _ in range(16)]
        count = 1024
        expected = 0
        for number in range(count):
            expected = zlib.crc32(pieces[number % 16], expected)

        def send(connection: socket.socket) -> None:
            for number in range(count):
                connection.sendall(pieces[number % 16])
            connection.shutdown(socket.SHUT_WR)

        def receive(connection: socket.socket) -> tuple[int, int]:
            buffer, size, check = bytearray(MEGABYTE), 0, 0
            while got := connection.recv_into(buffer):
                check = zlib.crc32(memoryview(buffer)[:got], check)
                size += got
            return size, check

        seen = []

        def serve(connection: socket.socket) -> None:
            received = connection.recv(len(HELLO), socket.MSG_WAITALL)
            if not received:
                return  # a probe
            assert received == HELLO
            sender = threading.Thread(target=send, args=(connection,))
            sender.start()
            seen.append(receive(connection))
            sender.join()

        server = SocketServer(serve)
        self.addCleanup(server.close)
        proxy = self.start([server.address])
        before = proxy.resident_bytes()
        with self.connect() as client:
            client.sendall(HELLO)
            sender = threading.Thread(target=send, args=(client,))
            sender.start()
            got = receive(client)
            sender.join()
        grown = proxy.resident_bytes() - before
        wait_for(lambda: seen and proxy.request_log(), "the end of the tunnel")
        self.assertEqual((got, seen[0]), ((count * MEGABYTE, expected), (count * MEGABYTE, expected)))
        self.assertLess(grown, 10 * MEGABYTE)
        (line,) = proxy.request_log()
        for words in (
            f"bytes_in={len(HELLO) + count * MEGABYTE}",
            f"bytes_out={count * MEGABYTE}",
            "at=info method=- host=hello.test path=-",
            "status=0 code=-",
            "protocol=tls tls=passthrough",
        ):
            self.assertIn(words, line)

    def test_two_thousand_tunnels(self) -> None:
        """2,000 tunnels at once each carry their own bytes; when they are gone, nothing is left."""
        limits = "[limits]\nin_flight_per_backend = 1000\nqueue_per_backend = 1000\n"
        proxy = self.start([self.echo_server().address], settings=limits)
        before, memory = proxy.descriptor_count(), proxy.resident_bytes()
        clients = []
        for number in range(2000):
            client = self.connect()
            client.sendall(HELLO + b"%06d" % number)
            clients.append(client)
        for turn in range(2):
            for number, client in enumerate(clients):
                expected = (HELLO + b"%06d" % number) if turn == 0 else b"%06d" % (number + 5000)
                self.assertEqual(client.recv(len(expected), socket.MSG_WAITALL), expected)
                client.sendall(b"%06d" % (number + 5000))
        grown = proxy.resident_bytes() - memory
        # Two for each tunnel, and few pipes.
        self.assertLess(proxy.descriptor_count() - before, 4000 + 100)
        for client in clients:
            client.close()
        wait_for(lambda: len(proxy.request_log()) == 2000, "the end of all tunnels")
        wait_for(lambda: proxy.descriptor_count() <= before + 70, "the end of their descriptors")
        self.assertLess(grown, 60 * MEGABYTE)

    # -- faults --------------------------------------------------------------

    def test_killed_backend(self) -> None:
        """Clients of a killed backend learn of it at once; others and new ones are served."""
        processes = []
        for _ in range(2):
            process = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            self.addCleanup(process.stdout.close)
            processes.append((process, f"127.0.0.1:{int(process.stdout.readline())}"))
        proxy = self.start([address for _, address in processes])
        clients = []
        for _ in range(10):
            client = self.connect()
            client.sendall(HELLO)
            self.assertEqual(client.recv(len(HELLO), socket.MSG_WAITALL), HELLO)
            clients.append(client)
        processes[0][0].send_signal(signal.SIGKILL)
        began = time.monotonic()
        ended, alive = 0, []
        for client in clients:
            client.settimeout(0.5)
            try:
                data = client.recv(1)
            except TimeoutError:
                alive.append(client)
            except ConnectionResetError:
                ended += 1
            else:
                self.assertEqual(data, b"")
                ended += 1
        self.assertEqual((ended, len(alive)), (5, 5))
        self.assertLess(time.monotonic() - began, 5)
        for client in alive:
            client.settimeout(30)
            client.sendall(b"still here")
            self.assertEqual(client.recv(10, socket.MSG_WAITALL), b"still here")
        for _ in range(4):
            client = self.connect()
            client.sendall(HELLO)
            self.assertEqual(client.recv(len(HELLO), socket.MSG_WAITALL), HELLO)
        for client in clients:
            client.close()
        wait_for(lambda: len(proxy.request_log()) >= 10, "the end of the tunnels")

    def test_end_right_behind_the_hello(self) -> None:
        """A client that ends its direction at once gets the answer of a backend that saw hello and end."""

        def serve(connection: socket.socket) -> None:
            received = b""
            while data := connection.recv(65536):
                received += data
            connection.sendall(b"%d, then the end" % len(received))

        server = SocketServer(serve)
        self.addCleanup(server.close)
        proxy = self.start([server.address])
        for _ in range(30):
            with self.connect() as client:
                client.sendall(HELLO)
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while data := client.recv(4096):
                    answer += data
            self.assertEqual(answer, b"%d, then the end" % len(HELLO))
        wait_for(lambda: len(proxy.request_log()) == 30, "the log")
        self.assertEqual([line for line in proxy.request_log() if " code=- " not in line], [])

    def test_out_of_descriptors(self) -> None:
        """With no descriptor to spare, tunnels go on, nothing spins, and who waits is served in the end."""
        proxy = self.start([self.echo_server().address])
        limit = proxy.descriptor_count() + 41
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (limit, limit))
        clients = [self.connect() for _ in range(40)]
        for client in clients:
            client.sendall(HELLO)
        served: list[socket.socket] = []

        def come_in() -> list[socket.socket]:
            return select.select([client for client in clients if client not in served], [], [], 1.0)[0]

        while ready := come_in():
            for client in ready:
                self.assertEqual(client.recv(len(HELLO), socket.MSG_WAITALL), HELLO)
            served += ready
        self.assertTrue(5 < len(served) < 20, len(served))
        before = proxy.cpu_seconds()
        piece = os.urandom(MEGABYTE)
        for client in served:
            sender = threading.Thread(target=client.sendall, args=(piece,))
            sender.start()
            received = bytearray()
            while len(received) < len(piece):
                received += client.recv(MEGABYTE)
            sender.join()
            self.assertTrue(received == piece)
        time.sleep(0.5)
        self.assertLess(proxy.cpu_seconds() - before, 1.0)
        for client in served:
            client.close()
        for client in clients:
            if client not in served:
                self.assertEqual(client.recv(len(HELLO), socket.MSG_WAITALL), HELLO)
                client.close()
        wait_for(lambda: proxy.descriptor_count() < limit - 30, "the end of the tunnels")
