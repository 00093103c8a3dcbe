"""From a client's hello to the HTTP protocol that was negotiated behind it.

Takes over a connection whose hello was read already, makes the handshake with
the context that was chosen for it, and puts the protocol inside that ALPN
names.  Knows neither routes nor certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IHandshakeListener, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import BadRequest, ClientClosed, ProxyError, RequestTimeout
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.tls_transport import TLSTransport

__all__ = ["terminate"]


def terminate(
    env: Environment,
    transport: Any,
    received: bytes,
    context: SSL.Context,
    build_inner: Callable[[str, str | None], IProtocol],
    *,
    until: float | None = None,
    on_failed: Callable[[ProxyError], None],
) -> TLSTransport:
    """Go on with a connection as the server of TLS.

    :param transport: below TLS; whatever it is told from now on is for the
        protocol that this returns.
    :param received: everything that the client has sent so far.
    :param build_inner: makes the protocol inside; called when the handshake
        is complete, at most once, with the version, ``"TLSv1.3"`` or
        ``"TLSv1.2"``, and what ALPN has chosen, ``None`` when the client
        offered nothing.
    :param until: the moment on the monotonic clock by which it has to be;
        ``None``: whoever calls keeps time, and calls ``deadline_reached``.
    :param on_failed: told once when there was no handshake and the connection
        is gone: RequestTimeout, ClientClosed, or BadRequest with OpenSSL's
        reason.  The client got OpenSSL's alert then.
    """
    handshake = _Handshake(env, build_inner, on_failed)
    tls = handshake.transport = TLSTransport(env, context, handshake)
    tls.makeConnection(transport)
    if until is not None:
        env.deadlines.set(tls, until)
    if received:
        tls.dataReceived(received)
    return tls


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Stands where the protocol inside will be, until it is known which one."""

    transport: TLSTransport

    def __init__(
        self,
        env: Environment,
        build_inner: Callable[[str, str | None], IProtocol],
        on_failed: Callable[[ProxyError], None],
    ) -> None:
        self._env = env
        self._build_inner = build_inner
        self._on_failed = on_failed

    def handshakeCompleted(self) -> None:
        """Put the protocol inside that was negotiated."""
        tls = self.transport
        self._env.deadlines.clear(tls)
        engine = tls.engine
        tls.wrappedProtocol = inner = self._build_inner(engine.version, engine.alpn)
        inner.makeConnection(tls)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It never came to that."""
        self._on_failed(self._error(reason.value))

    def _error(self, value: BaseException | None) -> ProxyError:
        if self.transport.is_late:
            return RequestTimeout("the TLS handshake was not finished in time")
        if isinstance(value, SSL.Error) and value.args and value.args[0]:
            return BadRequest(f"the TLS handshake failed: {value.args[0][-1][2]}")
        if isinstance(value, ConnectionClosed):
            return ClientClosed("the client left during the TLS handshake")
        return BadRequest("the TLS handshake failed")
