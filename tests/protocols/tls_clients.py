"""TLS without sockets: a client for the in-memory transports, and who vouches for the server."""

from __future__ import annotations

import functools
import ssl
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.model import Certificate
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.factories import make_environment
from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.protocols.tls_certificates import load_certificate
from scalingo_proxy.resolvers.memory import MemoryResolver

__all__ = ["MemoryTLSClient", "authority", "certificate", "client_context", "environment", "now", "rsa_key"]


@functools.cache
def authority() -> Authority:
    """The root that the clients of the tests trust."""
    return Authority.create("tests", now())


@functools.cache
def now() -> float:
    """When the certificates of the tests were made: real clients look at the real date."""
    return time.time()


def environment(clock: Clock) -> Environment:
    """What a TLS transport needs around it."""
    return make_environment(MemoryResolver(), clock)


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key that took long to make."""
    return rsa.generate_private_key(65537, bits)


def certificate(name: str, *domains: str, **options: Any) -> Certificate:
    """A certificate by :func:`authority`, called *name*; for its name's sake alone without *domains*."""
    chain, key = authority().issue(domains or (name,), now(), **options)
    return load_certificate(name, chain, key, now())


def client_context(*alpn: str, **settings: Any) -> ssl.SSLContext:
    """A client's settings: trusts :func:`authority`, offers *alpn*."""
    context = ssl.create_default_context(cadata=authority().pem.decode("ascii"))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    for name, value in settings.items():
        setattr(context, name, value)
    return context


@implementer(IHalfCloseableProtocol)
class MemoryTLSClient(Protocol):
    """A TLS client on a transport in memory; Python's own ssl does the work.

    :ivar received: what the server said inside.
    :ivar error: why TLS broke, as ssl tells it.
    :ivar is_established: the handshake is done.
    :ivar saw_end: the server sent its ``close_notify``.
    :ivar saw_fin: the server's TCP stream has ended.
    :ivar reason: why the connection was lost.
    """

    transport: Any

    def __init__(self, context: ssl.SSLContext, server_name: str | None, session: Any = None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=server_name, session=session)
        self.received = b""
        self.error: ssl.SSLError | None = None
        self.is_established = False
        self.saw_end = False
        self.saw_fin = False
        self.reason: Failure | None = None

    def connectionMade(self) -> None:
        self.step()

    def dataReceived(self, data: bytes) -> None:
        self._in.write(data)
        self.step()

    def step(self) -> None:
        """Go on as far as it goes."""
        try:
            if not self.is_established:
                self.tls.do_handshake()
                self.is_established = True
            while not self.saw_end:
                data = self.tls.read(65536)
                self.received += data
                self.saw_end = not data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.saw_end = True
        except ssl.SSLError as error:
            self.error = self.error or error
        self.flush()

    def flush(self) -> None:
        """Send what TLS has to say."""
        data = self._out.read()
        if data:
            self.transport.write(data)

    def send(self, data: bytes) -> None:
        """Say *data* inside."""
        self.tls.write(data)
        self.flush()

    def close_notify(self) -> None:
        """Say that nothing more comes."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # the answer has not come yet
        self.flush()

    def readConnectionLost(self) -> None:
        self.saw_fin = True
        self._in.write_eof()
        self.step()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
