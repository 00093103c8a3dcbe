"""Host names in memory, for endpoints that resolve them through the reactor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

__all__ = ["MemoryNameResolver"]


@implementer(IHostResolution)
class _Resolution:
    """One question under way; cancelling it keeps the answer back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


@implementer(IHostnameResolver)
class MemoryNameResolver:
    """Answers from a dictionary, in a later turn of the clock.

    :ivar names: host names, and the IP address each has; changed at will.
    :ivar delay: seconds until an answer comes; ``None`` for never.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.names: dict[str, str] = {"localhost": "127.0.0.1"}
        self.delay: float | None = 0.0
        self._clock = clock

    def address_of(self, name: str) -> str | None:
        """The IP address of *name*, which may be one itself; ``None`` when it has none."""
        return name if isIPAddress(name) or isIPv6Address(name) else self.names.get(name)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803 - as Twisted calls it
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[type[IAddress]] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        """Tell *resolutionReceiver* the address of *hostName*, or that there is none."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def answer() -> None:
            if resolution.is_cancelled:
                return
            host = self.address_of(hostName)
            if host is not None:
                kind: Any = IPv6Address if isIPv6Address(host) else IPv4Address
                if not addressTypes or kind in addressTypes:
                    resolutionReceiver.addressResolved(kind(transportSemantics, host, portNumber))
            resolutionReceiver.resolutionComplete()

        if self.delay is not None:
            self._clock.callLater(self.delay, answer)
        return resolution
