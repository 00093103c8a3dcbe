"""What each trick buys: ``python -m tests.benchmarks.tricks`` measures with and without it, in turns.

Everything runs in this process; what is told is its CPU time, user and system,
the least of several turns.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import itertools
import os
import re
import select
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock

from scalingo_proxy.model import Limits
from scalingo_proxy.protocols.deadlines import Deadlines, Timed
from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.protocols.tls_certificates import stored_certificate
from scalingo_proxy.protocols.tls_contexts import server_context
from scalingo_proxy.protocols.tls_engine import Engine
from scalingo_proxy.protocols.tls_transport import TLSTransport
from scalingo_proxy.routing.networks import plain_address
from scalingo_proxy.transports.descriptors import RecentDescriptors, read_descriptors
from scalingo_proxy.transports.eager import eager
from scalingo_proxy.transports.turns import shorten_turns
from scalingo_proxy.wire.client_hello import ClientHelloReader
from scalingo_proxy.wire.grammar import parse_fields
from scalingo_proxy.wire.hello_message import whole_hello
from scalingo_proxy.wire.http1_exchange import Side
from scalingo_proxy.wire.http1_forwarding import (
    ClientIdentity,
    request_head_for_backend,
    response_head_for_client,
)
from scalingo_proxy.wire.http1_request import parse_request_head
from scalingo_proxy.wire.http1_response import parse_response_head
from scalingo_proxy.wire.known_hellos import known_hello
from scalingo_proxy.wire.known_requests import recent_request
from scalingo_proxy.wire.request_id import request_ids
from scalingo_proxy.wire.tls_records import RECORD_BYTES
from tests.benchmarks.clients import hello_to
from tests.benchmarks.comparing import TURNS, compare, line
from tests.benchmarks.http2_cost import of_http2
from tests.benchmarks.records_cost import of_records
from tests.benchmarks.world import BROWSER_HEADERS

# -- pure ones ----------------------------------------------------------------

_OLD_SECTION = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
_OLD_FIELD = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")


def by_expression(section: bytes) -> object:
    """How fields were parsed before."""
    assert _OLD_SECTION.fullmatch(section)
    return _OLD_FIELD.findall(section)


class _Plain(enum.Enum):
    ONE = "one"


_DONE = Side.DONE


def pure() -> Iterator[str]:
    hello = hello_to("app.example")

    def in_two_pieces() -> object:
        reader = ClientHelloReader()
        return reader.receive(hello[:1]) or reader.receive(hello[1:])

    yield compare("a hello read in one go", in_two_pieces, lambda: whole_hello(hello), 2000)
    yield compare("a hello that is known again", lambda: whole_hello(hello), lambda: known_hello(hello), 2000)
    fields = [(name.encode(), value.encode()) for name, value in BROWSER_HEADERS.items()]
    section = b"".join(b"%b: %b\r\n" % field for field in fields)
    yield compare(
        "header fields told apart by counting lines",
        lambda: by_expression(section),
        lambda: parse_fields(section),
        2000,
    )
    yield compare(
        "an Enum's hash that is not a function", lambda: hash(_Plain.ONE), lambda: hash(Side.IDLE), 20_000
    )
    yield compare("an Enum's member named once", lambda: Side.DONE, lambda: _DONE, 20_000)
    yield compare("request ids written in batches", lambda: str(uuid.uuid4()), request_ids(), 5000)
    yield compare(
        "addresses parsed once",
        lambda: ipaddress.ip_address("2001:db8::17"),
        lambda: plain_address("2001:db8::17"),
        2000,
    )
    yield compare(
        "descriptors counted now and then",
        lambda: read_descriptors(lambda: 0),
        RecentDescriptors(lambda: read_descriptors(lambda: 0), time.monotonic),
        2000,
    )
    yield from of_connections()
    yield from of_records()
    answer = b"HTTP/1.1 200 OK\r\n" + section + b"\r\n" + b"x" * 500
    yield compare(
        "an answer's head told from its body in one call",
        lambda: ((end := answer.find(b"\r\n\r\n") + 4), answer[:end], answer[end:]),
        lambda: answer.partition(b"\r\n\r\n"),
        20_000,
    )
    yield from heads(section)


def of_connections() -> Iterator[str]:
    """What is made for each connection of a client."""
    near, far = socket.socketpair()
    family, kind, descriptor = near.family, int(near.type), near.fileno()
    yield compare(
        "a socket of the C type alone, made and closed",
        lambda: socket.socket(family, kind, 0, os.dup(descriptor)).close(),
        lambda: socket.SocketType(family, kind, 0, os.dup(descriptor)).close(),
        5000,
    )
    near.close()
    far.close()
    known = functools.lru_cache(maxsize=4096)(ClientIdentity)
    yield compare(
        "a client known by its address",
        lambda: ClientIdentity("192.0.2.1", "http", 80, None),
        lambda: known("192.0.2.1", "http", 80, None),
        5000,
    )
    deadlines, timed, moments = Deadlines(Clock()), Timed(), itertools.cycle((5.0, 9.0))
    deadlines.set(Timed(), 5.0)
    deadlines.set(Timed(), 9.0)

    def set_and_forget(at: float) -> None:
        deadlines.set(timed, at)
        deadlines.forget(timed)

    yield compare(
        "a deadline put where the one before it is",
        lambda: set_and_forget(next(moments)),
        lambda: set_and_forget(5.0 + next(moments) * 0.0),
        5000,
    )


def heads(section: bytes) -> Iterator[str]:
    """Heads that came before, against such as never come again; read, and written as they go on."""
    limits, identity = Limits(), ClientIdentity("192.0.2.1", "http", 80, None)
    start = b"GET /some/path?page=2 HTTP/1.1\r\nHost: app.example\r\n" + section

    def request(blocks: Iterator[bytes]) -> Callable[[], bytes]:
        def read() -> bytes:
            block = next(blocks)
            head = recent_request(block) or parse_request_head(block, limits)
            return request_head_for_backend(head, identity, b"0" * 32, 1.0)

        return read

    unheard = itertools.cycle([start + b"X-%d: 1\r\n\r\n" % number for number in range(5000)])
    others = itertools.cycle([start + b"Referer: /%d\r\n\r\n" % number for number in range(5000)])
    elsewhere = itertools.cycle([b"GET /%d" % number + start[4:] + b"\r\n" for number in range(5000)])
    same = itertools.repeat(start + b"\r\n")
    yield compare("a browser's request known as a whole", request(unheard), request(same), 2000)
    yield compare("the same: its header section known as a whole", request(unheard), request(elsewhere), 2000)
    yield compare("the same: known but for a Referer", request(unheard), request(others), 2000)

    def response(blocks: Iterator[bytes]) -> Callable[[], bytes]:
        return lambda: response_head_for_client(parse_response_head(next(blocks), b"GET"), 1, True)

    answer = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 27 Nov 2026 13:15:19 GMT\r\n"
    answer += b"Content-Type: text/plain\r\nConnection: keep-alive\r\n%bContent-Length: %d\r\n\r\n"
    unheard = itertools.cycle([answer % (b"X-%d: 1\r\n" % number, 2) for number in range(5000)])
    others = itertools.cycle([answer % (b"", number) for number in range(5000)])
    same = itertools.repeat(answer % (b"", 2))
    yield compare("an answer's head known as a whole", response(unheard), response(same), 2000)
    yield compare("the same: known but for its length", response(unheard), response(others), 2000)


# -- those of TLS -------------------------------------------------------------


class _Layered:
    """What :class:`Engine` does, with what pyOpenSSL has for everybody."""

    def __init__(self, context: SSL.Context) -> None:
        self._connection = SSL.Connection(context)
        self._connection.set_accept_state()
        self.receive = self._connection.bio_write
        self.read = lambda: self._connection.recv(RECORD_BYTES)

    def write(self, data: bytes) -> bytes:
        self._connection.send(data)
        return self.outgoing()

    def handshake(self, data: bytes) -> bytes:
        self.receive(data)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        return self.outgoing()

    def outgoing(self) -> bytes:
        try:
            return self._connection.bio_read(2 * RECORD_BYTES)
        except SSL.WantReadError:
            return b""


def conversation(engine: Any, answer: bytes) -> Callable[[], object]:
    """After a handshake: a client's request to *engine*, and its answer."""
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = trusting.wrap_bio(coming, going)
    while not going.pending:
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            coming.write(engine.handshake(going.read()))
    engine.handshake(going.read())

    def ask() -> None:
        client.write(b"x" * 500)
        engine.receive(going.read())
        engine.read()
        engine.write(answer)

    return ask


class _Inside(Protocol):
    """Answers each request, on a transport that takes what it gets."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"x" * 400)


class _Below:
    """The transport below, which keeps what it is given."""

    written = b""

    def write(self, data: bytes) -> None:
        self.written = data


def requests(context: SSL.Context, *, whole: bool) -> Callable[[], object]:
    """A client's request through the transport, and its answer; *whole*: as what comes whole and alone."""
    inside, below, coming, going = _Inside(), _Below(), ssl.MemoryBIO(), ssl.MemoryBIO()
    transport: Any = TLSTransport(cast(Any, None), context, cast(Any, inside))
    transport.makeConnection(below)
    inside.transport = transport
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = trusting.wrap_bio(coming, going)
    while not client.version() or going.pending or not below.written:
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            transport.dataReceived(going.read())
            coming.write(below.written)
            continue
        transport.dataReceived(going.read())

    def ask() -> None:
        client.write(b"x" * 500)
        transport._is_regular = whole
        transport.dataReceived(going.read())

    return ask


def of_tls() -> Iterator[str]:
    chain, key = Authority.create("measured", time.time()).issue(["a.example"], time.time())
    context = server_context(stored_certificate("a", chain, key), (b"http/1.1",))
    without, using = (conversation(each(context), b"x" * 400) for each in (_Layered, Engine))
    yield compare("a record read and one written, its client included", without, using, 2000)
    in_pieces, whole = (requests(context, whole=whole) for whole in (False, True))
    yield compare("the same through the transport: whole and alone", in_pieces, whole, 2000)


# -- those of the reactor -----------------------------------------------------


class _Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class _Asking(Protocol):
    """Sends a message so many times, each after the answer to the one before."""

    def __init__(self, times: int, done: Callable[[], None]) -> None:
        self._left, self._done = times, done

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
        self.transport.write(b"x" * 200)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._left -= 1
        if self._left:
            self.transport.write(data)
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self._done()


def conversations(reactor: Any, network: Any, messages: int, times: int, dials: bool = False) -> float:
    """CPU time of so many connections, one after another, each with so many messages; both ends are here."""
    factory = Factory()
    factory.noisy = False
    factory.protocol = _Echo  # type: ignore[assignment]
    port = network.listenTCP(0, factory, backlog=512, interface="127.0.0.1")
    left = [times]

    def next_one() -> None:
        left[0] -= 1
        if left[0] < 0:
            reactor.crash()
            return
        if dials:
            network.dial("127.0.0.1", port.getHost().port, _Asking(messages, next_one), 5.0, print)
            return
        client = ClientFactory()
        client.noisy = False
        client.buildProtocol = lambda addr: _Asking(messages, next_one)  # type: ignore[assignment]
        network.connectTCP("127.0.0.1", port.getHost().port, client)

    reactor.callWhenRunning(next_one)
    began = time.process_time()
    reactor.run(installSignalHandlers=False)
    cost = (time.process_time() - began) / (times * messages) * 1e6
    port.stopListening()
    return cost


_ECHO = "import os\nwhile data := os.read(0, 100):\n    os.write(1, data)"


def of_waits() -> Iterator[str]:
    near, far = socket.socketpair()
    with near, subprocess.Popen([sys.executable, "-c", _ECHO], stdin=far, stdout=far):
        far.close()
        poller = select.epoll()
        poller.register(near, select.EPOLLIN)

        def ask(seconds: float) -> None:
            near.send(b"x")
            poller.poll(seconds)
            near.recv(1)

        ask(-1)
        yield compare("a wait without a timeout", lambda: ask(0.02), lambda: ask(-1), 2000)
        poller.close()
        near.shutdown(socket.SHUT_RDWR)


def of_the_reactor() -> Iterator[str]:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    ways = {
        "twisted": (reactor, False),
        "eager": (eager(reactor), False),
        "short": (eager(reactor), True),
        "dialled": (eager(reactor), True),
    }
    costs: dict[tuple[str, int], float] = {}
    for messages, times in ((2000, 1), (1, 300)):
        for _ in range(TURNS):
            for name, (network, has_short_turns) in ways.items():
                lengthen = shorten_turns(reactor) if has_short_turns else None
                cost = conversations(reactor, network, messages, times, name == "dialled")
                if lengthen is not None:
                    lengthen()
                costs[name, messages] = min(cost, costs.get((name, messages), 1e9))
    yield line("an echoed message: writing at once", costs["twisted", 2000], costs["eager", 2000])
    yield line("the same: turns without the log's context, too", costs["eager", 2000], costs["short", 2000])
    yield line("a connection with one message, both ends", costs["twisted", 1], costs["short", 1])
    yield line("the same: dialled instead of given to a connector", costs["short", 1], costs["dialled", 1])


def main() -> None:
    for lines in (pure(), of_http2(), of_tls(), of_waits(), of_the_reactor()):
        for each in lines:
            sys.stdout.write(f"{each}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
