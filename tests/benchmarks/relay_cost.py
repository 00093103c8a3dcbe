"""What a relay costs: CPU seconds per gigabyte, and microseconds per small message.

Run it with ``python -m tests.benchmarks.relay_cost [GIGABYTES [ROUNDS]]``.  The relay
runs in a process of its own, under Twisted's epoll reactor, between two plain
TCP connections over loopback; what is told is the user and system time of that
process alone, from before the first byte to after the last.  Peers are plain
sockets in other processes.  Of several rounds, in which the ways take turns,
the least is told: other programs can only add to it.  Absolute figures are
those of the machine; only those of one run compare.
"""

from __future__ import annotations

import multiprocessing
import resource
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

MEGABYTE = 1024 * 1024
MESSAGES = 30_000
#: How the bytes are carried: the name, and how many bytes come first in the ordinary way.
WAYS = (("ordinary", None), ("spliced", 0), ("spliced after 1 MB", 1_000_000))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run_relay(backend_port: int, splice_after: int | None, told: Any) -> None:
    """One tunnel after another, until the parent ends this process."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory

    from scalingo_proxy.protocols.relay import Relay
    from scalingo_proxy.transports.pipes import Pipes
    from tests.transports.tunnels import End, connect_ends

    pipes = None if splice_after is None else Pipes()

    def ended(before: float) -> None:
        told.send(cpu_seconds() - before)

    def client_connected(client: End) -> None:
        before = cpu_seconds()

        def join(backend: End) -> None:
            relay = Relay(
                client.transport,
                backend.transport,
                lambda: None,
                lambda: ended(before),
                pipes=pipes,
                splice_after=splice_after or 0,
            )
            client.join(relay.client)
            backend.join(relay.backend)

        connect_ends(reactor, backend_port, join)

    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda addr: End(client_connected)  # type: ignore[assignment]
    port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
    told.send(port.getHost().port)
    reactor.run()  # type: ignore[attr-defined]


def serve(listening: socket.socket) -> None:
    """A backend: the first byte says whether to throw away, to send, or to answer."""
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


def serve_one(connection: socket.socket) -> None:
    buffer = bytearray(MEGABYTE)
    with connection:
        kind = connection.recv(1)
        if kind == b"e":
            while count := connection.recv_into(buffer):
                connection.sendall(memoryview(buffer)[:count])
        else:
            while connection.recv_into(buffer):
                pass


def send_bulk(client: socket.socket, size: int) -> None:
    piece = bytes(MEGABYTE)
    client.sendall(b"d")
    for _ in range(size // MEGABYTE):
        client.sendall(piece)


def send_both_ways(client: socket.socket, size: int) -> None:
    def receive() -> None:
        buffer = bytearray(MEGABYTE)
        left = size
        while left:
            left -= client.recv_into(buffer)

    receiver = threading.Thread(target=receive)
    receiver.start()
    piece = bytes(MEGABYTE)
    client.sendall(b"e")
    for _ in range(size // MEGABYTE):
        client.sendall(piece)
    receiver.join()


def send_messages(client: socket.socket, size: int) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"e")
    message = bytes(200)
    for _ in range(MESSAGES):
        client.sendall(message)
        left = len(message)
        while left:
            left -= len(client.recv(left))


def measure(splice_after: int | None, use: Callable[[socket.socket, int], None], size: int) -> float:
    """CPU seconds of the relay for one tunnel."""
    listening = socket.create_server(("127.0.0.1", 0))
    backend = multiprocessing.Process(target=serve, args=(listening,), daemon=True)
    backend.start()
    told, tell = multiprocessing.Pipe(False)
    relay = multiprocessing.Process(
        target=run_relay, args=(listening.getsockname()[1], splice_after, tell), daemon=True
    )
    relay.start()
    try:
        with socket.create_connection(("127.0.0.1", told.recv())) as client:
            use(client, size)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        return float(told.recv())
    finally:
        for process in (relay, backend):
            process.terminate()
            process.join()
        listening.close()


def main() -> None:
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    size = int(gigabytes * 1024) * MEGABYTE
    uses: tuple[tuple[str, Callable[[socket.socket, int], None], float], ...] = (
        ("one way, s/GB", send_bulk, size / 1e9),
        ("both ways, s/GB", send_both_ways, 2 * size / 1e9),
        ("200-byte echo, µs", send_messages, MESSAGES / 1e6),
    )
    least: dict[tuple[str, str], float] = {}
    for _ in range(rounds):
        for use_name, use, divisor in uses:
            for way, splice_after in WAYS:
                cost = measure(splice_after, use, size) / divisor
                least[use_name, way] = min(cost, least.get((use_name, way), cost))
    sys.stdout.write(f"{'':20}" + "".join(f"{name:>20}" for name, _, _ in uses) + "\n")
    for way, _ in WAYS:
        sys.stdout.write(f"{way:20}" + "".join(f"{least[name, way]:20.2f}" for name, _, _ in uses) + "\n")


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
