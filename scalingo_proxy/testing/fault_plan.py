"""Which connection of a network in memory meets which fault.

By address: a series with one entry for each connection, and faults that an
address suffers for a while.  Refuses to know what faults do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs
from twisted.internet.interfaces import IDelayedCall

from scalingo_proxy.model import split_host_port
from scalingo_proxy.testing.connecting import Reach
from scalingo_proxy.testing.faults import Fault, Outage
from scalingo_proxy.testing.lines import Line, Trouble

if TYPE_CHECKING:
    from scalingo_proxy.testing.kernel import Kernel
    from scalingo_proxy.testing.sockets import MemorySocket
    from scalingo_proxy.testing.transports import Address

__all__ = ["FaultPlan", "MetFault", "Series"]

#: One entry for each connection: nothing, a fault, or several at once.
Series = Iterable[Fault | tuple[Fault, ...] | None]


@attrs.frozen
class MetFault:
    """A fault that came about.

    :ivar time: when, on the clock of the world.
    :ivar address: whose connection met it, or who began to suffer it, ``(HOST, PORT)``.
    """

    time: float
    address: tuple[str, int]
    fault: Fault


@attrs.define(eq=False)
class _Suffering:
    """A fault in force at one address, and what it did to connections."""

    fault: Fault
    troubles: list[tuple[Line, Trouble]] = attrs.field(factory=list)


class FaultPlan:
    """The faults of a :class:`~scalingo_proxy.testing.network.MemoryNetwork`.

    :ivar met: every fault that came about, in order.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.met: list[MetFault] = []
        self._kernel = kernel
        self._series: dict[tuple[str, int], Iterator[Fault | tuple[Fault, ...] | None]] = {}
        self._sufferings: dict[tuple[str, int], list[_Suffering]] = {}
        self._scheduled: list[IDelayedCall] = []

    # -- what is planned -----------------------------------------------------

    def plan(self, address: str, faults: Series) -> None:
        """Let the next connections to *address* (``HOST:PORT``) meet *faults*, one each.

        Behind the last one all are well; an endless series never ends.
        """
        self._series[split_host_port(address)] = iter(faults)

    def schedule(self, address: str, outages: Iterable[Outage]) -> None:
        """Let *address* suffer *outages*, each at its time."""
        now = self._kernel.seconds()
        for outage in outages:
            wait = max(0.0, outage.begins - now)
            call = self._kernel.callLater(wait, self.suffer, address, outage.fault, outage.seconds)
            self._scheduled.append(call)

    def suffer(self, address: str, fault: Fault, seconds: float | None = None) -> None:
        """Let every connection to *address* suffer *fault*, open ones too, counting from their next byte.

        :param seconds: for how long; ``None`` until :meth:`relieve`.
        """
        where = split_host_port(address)
        suffering = _Suffering(fault)
        self._sufferings.setdefault(where, []).append(suffering)
        self._note(where, fault)
        for socket in list(self._kernel.sockets):
            if socket.destination == where:
                self._add(suffering, Line.of(socket))
        if seconds is not None:
            self._scheduled.append(self._kernel.callLater(seconds, self._relieve, where, suffering))

    def relieve(self, address: str) -> None:
        """End whatever *address* suffers; connections that were reset or cut stay so."""
        where = split_host_port(address)
        for suffering in self._sufferings.pop(where, []):
            self._let_go(suffering)

    def end(self) -> None:
        """End everything, and forget what was to come; connections that were reset or cut stay so."""
        for call in self._scheduled:
            if call.active():
                call.cancel()
        self._scheduled.clear()
        self._series.clear()
        self._sufferings.clear()
        for socket in list(self._kernel.sockets):
            if socket.line is not None:
                socket.line.end()
                socket.pump()

    def is_suffering(self, address: str) -> bool:
        """Whether a fault is in force at *address* now."""
        return bool(self._sufferings.get(split_host_port(address)))

    # -- asked by connectors -------------------------------------------------

    def draw(self, address: Address) -> tuple[Fault, ...]:
        """The faults of the next connection to *address*; drawn once for each attempt."""
        where = address.host, address.port
        series = self._series.get(where)
        drawn = next(series, None) if series is not None else None
        faults = drawn if isinstance(drawn, tuple) else () if drawn is None else (drawn,)
        for fault in faults:
            self._note(where, fault)
        return faults

    def reach(self, address: Address, drawn: tuple[Fault, ...]) -> Reach:
        """What an attempt meets now: the first of its faults that lets it not through."""
        sufferings = self._sufferings.get((address.host, address.port), ())
        for fault in (*drawn, *(suffering.fault for suffering in sufferings)):
            if fault.reach is not Reach.NORMAL:
                return fault.reach
        return Reach.NORMAL

    def connected(self, near: MemorySocket, address: Address, drawn: tuple[Fault, ...]) -> None:
        """A connection came about: let its faults take their course."""
        near.destination = where = address.host, address.port
        for fault in drawn:
            line = Line.of(near)
            trouble = fault.trouble(line)
            if trouble is not None:
                line.add(trouble)
        for suffering in self._sufferings.get(where, ()):
            self._add(suffering, Line.of(near))

    # -- what is in force ----------------------------------------------------

    def _note(self, where: tuple[str, int], fault: Fault) -> None:
        self.met.append(MetFault(self._kernel.seconds(), where, fault))

    def _add(self, suffering: _Suffering, line: Line) -> None:
        trouble = suffering.fault.trouble(line)
        if trouble is not None:
            suffering.troubles.append((line, trouble))
            line.add(trouble)

    def _relieve(self, where: tuple[str, int], suffering: _Suffering) -> None:
        sufferings = self._sufferings.get(where, [])
        if suffering in sufferings:
            sufferings.remove(suffering)
            self._let_go(suffering)

    def _let_go(self, suffering: _Suffering) -> None:
        for line, trouble in suffering.troubles:
            trouble.end()
            line.pump()
