"""One attempt to connect to one backend, on the reactor that was handed in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import ConnectFailed
from scalingo_proxy.model import Backend
from scalingo_proxy.protocols.backend_tls import TLSAttempt
from scalingo_proxy.protocols.backend_trust import BackendTrusts

__all__ = ["BackendConnector", "Connect", "UnderWay"]

_log = Logger()

#: How often the same complaint about the same backend is logged, in seconds.
_COMPLAIN_AGAIN_SECONDS = 60.0
_MAX_COMPLAINTS = 1024

#: ``connect(backend, protocol, timeout, failed)`` starts an attempt and gives
#: a function that abandons it.  The protocol's ``connectionMade`` tells of
#: success, which may be before it returns, *failed* of everything else, one of
#: them within *timeout* seconds and neither after abandoning.
Connect = Callable[[Backend, Protocol, float, Callable[[Failure], None]], Callable[[], None]]

#: The same of an attempt that has begun: ``go_on(timeout, failed)``.
UnderWay = Callable[[float, Callable[[Failure], None]], Callable[[], None]]


class BackendConnector:
    """Connects over TCP: addresses directly, host names through the reactor's resolver.

    Where the backend asks for TLS, the handshake is a part of connecting.

    :param reactor: an IReactorTCP, and IReactorPluggableNameResolver for names.
    :param is_quiet: log no complaints about certificates; whoever asked tells of them.
    """

    def __init__(self, reactor: Any, *, is_quiet: bool = False) -> None:
        self._reactor = reactor
        self._is_quiet = is_quiet
        #: How transports of ours connect, in one call and often at once.
        self._dial: Callable[..., Callable[[], None]] | None = getattr(reactor, "dial", None)
        self._dial_at_once: Callable[..., UnderWay | None] | None = getattr(reactor, "dial_at_once", None)
        self._trusts = BackendTrusts()
        self._complaints: dict[str, tuple[str, float]] = {}

    def __call__(
        self, backend: Backend, protocol: Protocol, timeout: float, failed: Callable[[Failure], None]
    ) -> Callable[[], None]:
        if not backend.tls:
            return self._connect(backend, protocol, timeout, failed)
        try:
            expectation = self._trusts.expectation(backend)
        except Exception:  # only an app that no reader of records has seen comes here
            _log.failure("{address} cannot be verified", address=backend.address)
            failed(Failure(ConnectFailed("the backend cannot be verified")))  # type: ignore[no-untyped-call]
            return _nothing
        told = failed if self._is_quiet else self._told(backend, failed)
        attempt = TLSAttempt(self._reactor, expectation, protocol, timeout, told)
        return attempt.connect(
            self._connect(backend, attempt.transport_protocol, timeout, attempt.connect_failed)
        )

    def at_once(self, backend: Backend, protocol: Protocol) -> UnderWay | None:
        """Begin to connect without anything that only matters where the connection has to be waited for.

        :return: None: it is there.  Otherwise what goes on with it, and must be called now.
        """
        if self._dial_at_once is None or backend.tls or not _is_address(backend.host):
            return partial(self, backend, protocol)
        return self._dial_at_once(backend.host, backend.port, protocol)

    def _told(self, backend: Backend, failed: Callable[[Failure], None]) -> Callable[[Failure], None]:
        """Also tell the operator what clients are told, but not for each of them."""

        def tell(reason: Failure) -> None:
            sentence, now = str(reason.value), self._reactor.seconds()
            before, moment = self._complaints.get(backend.address, ("", now))
            if sentence != before or now - moment >= _COMPLAIN_AGAIN_SECONDS:
                if len(self._complaints) >= _MAX_COMPLAINTS:
                    self._complaints.clear()
                self._complaints[backend.address] = sentence, now
                _log.warn("backend {address}: {sentence}", address=backend.address, sentence=sentence)
            failed(reason)

        return tell

    def _connect(
        self, backend: Backend, protocol: Protocol, timeout: float, failed: Callable[[Failure], None]
    ) -> Callable[[], None]:
        if _is_address(backend.host):
            if self._dial is not None:
                return self._dial(backend.host, backend.port, protocol, timeout, failed)
            # Not through an endpoint: its wrapper would stand in the way of
            # every byte that the backend sends.
            factory = _OneConnection(protocol, failed)
            connector = self._reactor.connectTCP(backend.host, backend.port, factory, timeout=timeout)
            return factory.abandoner(connector)
        return _NamedAttempt(self._reactor, backend, protocol, timeout, failed).abandon


def _nothing() -> None:
    """There is nothing left to abandon."""


@lru_cache(maxsize=4096)  # each backend is connected to many times
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _NamedAttempt:
    """An attempt at a host name: its resolution and each address it has, within one timeout."""

    def __init__(
        self,
        reactor: Any,
        backend: Backend,
        protocol: Protocol,
        timeout: float,
        failed: Callable[[Failure], None],
    ) -> None:
        self._failed: Callable[[Failure], None] | None = failed
        endpoint = HostnameEndpoint(reactor, backend.host, backend.port, timeout=timeout)
        self._attempt: Deferred[Any] = endpoint.connect(_Given(protocol))
        # The endpoint's own timeout is for each address and leaves the resolution out.
        self._attempt.addTimeout(timeout, reactor)
        self._attempt.addErrback(self._attempt_failed)

    def _attempt_failed(self, failure: Failure) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(failure)

    def abandon(self) -> None:
        """Nobody wants the connection any more."""
        self._failed = None
        self._attempt.cancel()


class _Given(Factory):
    """Hands out the one protocol it was given."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


class _OneConnection(ClientFactory):
    """The factory behind one attempt; Twisted keeps it as long as the connection."""

    noisy = False

    def __init__(self, protocol: Protocol, failed: Callable[[Failure], None]) -> None:
        self._protocol: Protocol | None = protocol
        self._failed: Callable[[Failure], None] | None = failed

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        # Holding on to it would leave each connection to the garbage collector.
        protocol, self._protocol, self._failed = self._protocol, None, None
        return protocol

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(reason)

    def abandoner(self, connector: Any) -> Callable[[], None]:
        """What to call when nobody wants the connection any more."""

        def abandon() -> None:
            if self._failed is not None:
                self._failed = None
                connector.stopConnecting()

        return abandon
