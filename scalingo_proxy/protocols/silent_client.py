"""Inside a TLS connection whose client has shaken hands and not said a word yet.

Browsers open connections just in case, and checks of certificates want no more:
what serves HTTP is made when there is something to serve.  For who shakes hands
and leaves, that is a tenth of what Python has to do.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["SilentClient"]


@implementer(IHalfCloseableProtocol)
class SilentClient(Protocol):
    """Stands where an HTTP protocol will be, and tells the frontend below what comes first.

    :param frontend: the :class:`~scalingo_proxy.protocols.tls_frontend.TLSFrontend`
        that has read the hello; it keeps time, and makes room.
    """

    def __init__(self, frontend: Any) -> None:
        self._frontend = frontend

    def dataReceived(self, data: bytes) -> None:
        self._frontend.begin_http().dataReceived(data)

    def readConnectionLost(self) -> None:
        self._frontend.leave()

    def writeConnectionLost(self) -> None:
        """We have closed."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._frontend.closed()
