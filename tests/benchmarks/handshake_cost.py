"""What a TLS handshake costs the proxy, with few certificates and with many.

Run it with ``python -m tests.benchmarks.handshake_cost``; ``--help`` tells its
options.  Each number of certificates gets a proxy in a process of its own.
Clients connect over loopback, make a full handshake and close; what is told is
the user and system time of the proxy alone for each of them.  The proxies take
turns every few handshakes, and the mean over all turns is told, so that
whatever else the machine does is in each of them alike.  Absolute figures are
those of the machine; only those of one run compare.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from scalingo_proxy.model import App, Certificate
from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.protocols.tls_certificates import stored_certificate
from scalingo_proxy.protocols.tls_contexts import CONTEXTS_KEPT

TICKS = os.sysconf("SC_CLK_TCK")


def host(number: int) -> str:
    return f"app{number}.example"


class ProxyProcess:
    """A proxy with so many certificates, forked off this process."""

    def __init__(self, certificates: list[Certificate], kept: int) -> None:
        self.count = len(certificates)
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            serve(certificates, kept, writing)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            self.port = int(pipe.readline())

    def cpu_seconds(self) -> float:
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_mebibytes(self) -> float:
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    def end(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


def serve(certificates: list[Certificate], kept: int, pipe: int) -> None:
    """Be the proxy until SIGTERM."""
    from twisted.internet import reactor as installed

    from scalingo_proxy.protocols.factories import HTTPProxyFactory
    from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
    from scalingo_proxy.protocols.tls_contexts import Contexts
    from scalingo_proxy.protocols.tls_factory import TLSProxyFactory
    from scalingo_proxy.resolvers.memory import MemoryResolver

    reactor: Any = installed
    index = CertificateIndex(time.time)
    for certificate in certificates:
        index.set(certificate)
    resolver = MemoryResolver(App(each.name, each.domains) for each in certificates)
    door = TLSProxyFactory(HTTPProxyFactory(resolver, reactor, listener="tls"), Contexts(index, kept=kept))
    port = reactor.listenTCP(0, door, interface="127.0.0.1", backlog=1024)
    reactor.callWhenRunning(os.write, pipe, b"%d\n" % port.getHost().port)
    reactor.run()


class Clients:
    """Make handshakes with a proxy, one after another."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion) -> None:
        self._context = ssl.create_default_context(cadata=authority.pem.decode())
        self._context.minimum_version = self._context.maximum_version = version
        self._context.set_alpn_protocols(["http/1.1"])

    def handshake(self, port: int, name: str) -> float:
        """One; how long it took, in seconds."""
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as plain:
            try:
                with self._context.wrap_socket(plain, server_hostname=name):
                    return time.perf_counter() - begin
            except ssl.SSLError:
                return 0.0

    def cost(self, proxy: ProxyProcess, names: list[str]) -> float:
        """The proxy's CPU time for each handshake, in seconds."""
        before = proxy.cpu_seconds()
        for name in names:
            self.handshake(proxy.port, name)
        return (proxy.cpu_seconds() - before) / len(names)


def turns(proxies: list[ProxyProcess], clients: Clients, pick: Any, count: int, times: int) -> Iterator[str]:
    before = [proxy.cpu_seconds() for proxy in proxies]
    for number in range(times):
        for proxy in proxies if number % 2 else proxies[::-1]:
            for _ in range(count):
                clients.handshake(proxy.port, pick(proxy.count))
    after = [proxy.cpu_seconds() for proxy in proxies]
    costs = [(end - begin) / (count * times) for begin, end in zip(before, after, strict=True)]
    for proxy, told in zip(proxies, costs, strict=True):
        yield f"{proxy.count:6d} certificates: {told * 1e6:6.0f} µs a handshake ({told / costs[0] - 1:+.1%})"


def latency(proxy: ProxyProcess, clients: Clients, burst: int) -> Iterator[str]:
    """How long known names take alone, and among a burst of unknown ones."""
    alone = [clients.handshake(proxy.port, host(0)) for _ in range(200)]
    among = []
    for number in range(200):
        for unknown in range(burst):
            clients.handshake(proxy.port, f"{number}-{unknown}.nobody.example")
        among.append(clients.handshake(proxy.port, host(0)))
    unknown = [f"{number}.nobody.example" for number in range(1000)]
    unknown_cost = min(clients.cost(proxy, unknown) for _ in range(5))
    yield f"a known name alone takes {statistics.median(alone) * 1e3:.2f} ms"
    yield f"behind {burst} unknown ones {statistics.median(among) * 1e3:.2f} ms"
    yield f"an unknown name costs {unknown_cost * 1e6:.0f} µs"


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description="CPU time of TLS handshakes")
    parser.add_argument("--certificates", type=int, nargs="+", default=[5, 5000])
    parser.add_argument("--handshakes", type=int, default=50, help="in each turn")
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--kept", type=int, default=CONTEXTS_KEPT, help="contexts kept")
    parser.add_argument("--tls12", action="store_true", help="TLS 1.2 instead of 1.3")
    given = parser.parse_args(words)
    authority = Authority.create("measured", time.time())
    middle = authority.subordinate("between", time.time())
    issued = [
        stored_certificate(host(number), *middle.issue([host(number)], time.time()))
        for number in range(max(given.certificates))
    ]
    proxies = [ProxyProcess(issued[:count], given.kept) for count in given.certificates]
    clients = Clients(authority, ssl.TLSVersion.TLSv1_2 if given.tls12 else ssl.TLSVersion.TLSv1_3)
    random.seed(1)
    try:
        for title, pick in (
            ("five names of all", lambda count: host(random.randrange(5))),
            ("any of the names", lambda count: host(random.randrange(count))),
        ):
            for proxy in proxies:  # each once before: contexts are made when they are first asked for
                for number in range(proxy.count if title.startswith("any") else 5):
                    clients.handshake(proxy.port, host(number))
            tell(f"{title}, {given.kept} contexts kept:")
            for line in turns(proxies, clients, pick, given.handshakes, given.turns):
                tell(f"  {line}")
        for proxy in proxies:
            tell(f"{proxy.count} certificates, {proxy.resident_mebibytes():.0f} MiB:")
            for line in latency(proxy, clients, 20):
                tell(f"  {line}")
    finally:
        for proxy in proxies:
            proxy.end()


if __name__ == "__main__":
    main(sys.argv[1:])
