"""Clients for what no ready program does: ``python -m tests.benchmarks.clients KIND COUNT PORT AUTHORITY``.

Tells as JSON how many units it has made of the proxy: gigabytes, handshakes or connections.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys

from tests.benchmarks.world import BODY_BYTES, host

__all__ = ["hello_to"]

_BUFFER = bytearray(1024 * 1024)


def _connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _head(client: socket.socket) -> bytes:
    """What came behind the head of a response."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = client.recv(65536)
        if not data:
            raise RuntimeError(f"closed after {received!r}")
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    if b" 200 " not in head:
        raise RuntimeError(f"no 200: {head!r}")
    return rest


def _receive(client: socket.socket, size: int) -> None:
    while size:
        count = client.recv_into(_BUFFER, min(size, len(_BUFFER)))
        if not count:
            raise RuntimeError("closed too early")
        size -= count


def bodies(count: int, port: int, authority: str) -> float:
    """One reply and one upload of 64 MB after the other; gigabytes."""
    piece = bytes(1024 * 1024)
    with _connect(port) as client:
        for number in range(count):
            name = host(number).encode()
            client.sendall(b"GET /body HTTP/1.1\r\nHost: %b\r\n\r\n" % name)
            _receive(client, BODY_BYTES - len(_head(client)))
            client.sendall(
                b"POST /upload HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (name, BODY_BYTES)
            )
            for _ in range(BODY_BYTES // len(piece)):
                client.sendall(piece)
            _receive(client, len(b"thanks") - len(_head(client)))
        return 2 * count * BODY_BYTES / 1e9


def hello_to(name: str) -> bytes:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def bulk(count: int, port: int, authority: str) -> float:
    """One tunnel of 64 MB after the other; gigabytes."""
    hello = hello_to("bulk.example")
    for _ in range(count):
        with _connect(port) as client:
            client.sendall(hello)
            _receive(client, BODY_BYTES)
    return count * BODY_BYTES / 1e9


def hellos(count: int, port: int, authority: str) -> float:
    """Hello, connect, close; connections.  As of a program: each hello has a random of its own."""
    hello = hello_to("hello.example")
    for _ in range(count):
        with _connect(port) as client:
            client.sendall(hello[:11] + os.urandom(32) + hello[43:])
            _receive(client, 1)
    return count


def handshakes(count: int, port: int, authority: str) -> float:
    """Full handshakes of TLS 1.3 with a P-256 certificate."""
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    for _ in range(count):
        with _connect(port) as plain, context.wrap_socket(plain, server_hostname=host(7)):
            pass
    return count


def main() -> None:
    kind, count, port, authority = sys.argv[1:]
    made = {"bodies": bodies, "bulk": bulk, "hellos": hellos, "handshakes": handshakes}
    sys.stdout.write(json.dumps({"units": made[kind](int(count), int(port), authority)}))


if __name__ == "__main__":
    main()
