"""A network in memory that a whole proxy runs on, without sockets or real time.

It stands where the reactor stands: endpoints, ``listenTCP`` and
``connectTCP`` work on it.  Everything that happens, happens from its clock,
in an order that the seed of its random generator decides.  Refuses to know
HTTP and the proxy.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar, cast

import attrs
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory, ServerFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.model import split_host_port
from scalingo_proxy.testing.connecting import MemoryConnector, MemoryPort, Reach
from scalingo_proxy.testing.fault_plan import FaultPlan
from scalingo_proxy.testing.kernel import Kernel
from scalingo_proxy.testing.names import MemoryNameResolver
from scalingo_proxy.testing.transports import Address, make_address

__all__ = ["MemoryNetwork", "NothingLeftToHappen", "Way"]

T = TypeVar("T")


class NothingLeftToHappen(AssertionError):
    """What was waited for did not come in time, or can no longer come."""


@attrs.frozen
class Way:
    """How an address is reached.

    :ivar reach: what a connection attempt meets.
    :ivar delay: seconds until it is answered, beside the latency.
    """

    reach: Reach = Reach.NORMAL
    delay: float = 0.0


_NORMAL = Way()


@implementer(IReactorTCP, IReactorTime, IReactorPluggableNameResolver)
class MemoryNetwork:
    """A reactor's TCP and time, in memory and deterministic.

    Addresses need not exist: whatever IP address somebody listens on or
    connects from is there.  ``localhost`` and what else
    ``nameResolver.names`` has are the only host names.

    :ivar clock: the clock everything runs on.
    :ivar kernel: buffers and segments; its ``latency``, ``cut`` and
        ``shuffle`` may be changed at any time.
    :ivar faults: which connections meet which faults.
    :ivar nameResolver: its ``names`` are the host names and the IP address each has.
    :ivar max_events: how many events one run may take before it is taken
        for a loop.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        random: Random | None = None,
        *,
        latency: float = 0.0,
        cut: bool = False,
        shuffle: bool = False,
        buffer_bytes: int = 65536,
    ) -> None:
        self.clock = clock or Clock()
        self.random = random or Random(0)
        self.kernel = Kernel(
            self.clock, self.random, latency=latency, cut=cut, shuffle=shuffle, buffer_bytes=buffer_bytes
        )
        self.faults = FaultPlan(self.kernel)
        self.nameResolver = MemoryNameResolver(self.clock)
        self.max_events = 5_000_000
        self._ports: dict[tuple[str, int], MemoryPort] = {}
        self._ways: dict[tuple[str, int], Way] = {}
        self._listening_numbers = itertools.count(30000)
        self._source_numbers = itertools.count(40000)

    # -- IReactorTime --------------------------------------------------------

    def seconds(self) -> float:
        """The time on the clock."""
        return self.clock.seconds()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002 - as Twisted calls it
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        """Call *callable* after *delay* seconds on the clock."""
        return self.clock.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """Everything still to happen, traffic under way included."""
        return self.clock.getDelayedCalls()

    # -- IReactorTCP ---------------------------------------------------------

    def listenTCP(
        self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = ""
    ) -> MemoryPort:
        """Listen on *interface*, any IPv4 address by default; port 0 takes a free one.

        The backlog has no bound here.

        :raises CannotListenError: when the address is taken.
        """
        listening = MemoryPort(self, port, factory, interface)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,  # noqa: N803 - as Twisted calls it
    ) -> MemoryConnector:
        """Connect to *host*; *bindAddress* may be any IP address and port 0."""
        connector = MemoryConnector(self, host, port, factory, timeout, bindAddress)
        connector.connect()
        return connector

    def callWhenRunning(self, call: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Call *call* at once: the network always runs."""
        call(*args, **kwargs)

    # -- how addresses behave ------------------------------------------------

    def set_way(self, address: str, reach: Reach = Reach.NORMAL, *, delay: float = 0.0) -> None:
        """Decide what connection attempts to *address* (``HOST:PORT``) meet from now on."""
        self._ways[split_host_port(address)] = Way(reach, delay)

    def refuse(self, address: str) -> None:
        """Refuse connections to *address*, though somebody may listen."""
        self.set_way(address, Reach.REFUSED)

    def black_hole(self, address: str) -> None:
        """Never answer a connection attempt to *address*."""
        self.set_way(address, Reach.SILENT)

    def reset_on_accept(self, address: str) -> None:
        """Accept connections to *address* and reset them."""
        self.set_way(address, Reach.RESET)

    def restore(self, address: str) -> None:
        """Let *address* behave normally again."""
        self._ways.pop(split_host_port(address), None)

    def way_to(self, address: Address) -> Way:
        """What a connection attempt to *address* meets."""
        return self._ways.get((address.host, address.port), _NORMAL)

    # -- asked by ports and connectors ---------------------------------------

    def bind(self, port: MemoryPort) -> int:
        """Take *port*'s address; returns its number."""
        number = port.port or next(self._listening_numbers)
        if (port.interface, number) in self._ports:
            taken = OSError(errno.EADDRINUSE, "Address already in use")
            raise CannotListenError(port.interface, number, taken)  # type: ignore[no-untyped-call]
        self._ports[port.interface, number] = port
        return number

    def unbind(self, port: MemoryPort) -> None:
        """Give *port*'s address back."""
        del self._ports[port.interface, port.port]

    def listener(self, address: Address) -> MemoryPort | None:
        """Who listens on *address*; ``::`` takes IPv4 too, as on Linux."""
        wildcards = ("::",) if isinstance(address, IPv6Address) else ("", "0.0.0.0", "::")
        for interface in (address.host, *wildcards):
            port = self._ports.get((interface, address.port))
            if port is not None:
                return port
        return None

    def seen_by(self, port: MemoryPort, here: Address, there: Address) -> tuple[Address, Address]:
        """Both addresses as *port* sees them: IPv4 is mapped on an IPv6 port."""
        if isIPv6Address(port.interface) and not isinstance(here, IPv6Address):
            return tuple(make_address(f"::ffff:{a.host}", a.port) for a in (here, there))  # type: ignore[return-value]
        return here, there

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Resolve names by *resolver*, of the same class, from now on; returns the one before."""
        previous, self.nameResolver = self.nameResolver, cast(MemoryNameResolver, resolver)
        return previous

    def source_address(self, destination: str, bind_address: tuple[str, int] | None) -> Address:
        """Where a connection to *destination* comes from."""
        host, port = bind_address or ("", 0)
        host = host or ("::1" if isIPv6Address(destination) else "127.0.0.1")
        return make_address(host, port or next(self._source_numbers))

    @property
    def open_connections(self) -> int:
        """How many ends of connections are open."""
        return len(self.kernel.sockets)

    @property
    def listening(self) -> tuple[MemoryPort, ...]:
        """The ports that listen."""
        return tuple(self._ports.values())

    # -- running -------------------------------------------------------------

    def step(self) -> bool:
        """Run the next event at its exact time; ``False`` when there is none."""
        return self._step(float("inf"))

    def _step(self, until: float) -> bool:
        calls = self.clock.calls
        if not calls:
            return False
        # The first of several at the same moment: the one scheduled first.
        call = min(calls, key=_time_of)
        when = call.getTime()
        if when > until:
            return False
        calls.remove(call)
        self.clock.rightNow = max(self.clock.rightNow, when)
        call.called = 1
        call.func(*call.args, **call.kw)
        return True

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, running every event at its exact time."""
        until = self.clock.seconds() + seconds
        self._run(lambda: self._step(until))
        self.clock.rightNow = until

    def settle(self) -> None:
        """Run until nothing is under way and nothing is due.

        Time passes only as far as traffic takes it; deadlines later than
        that stay.
        """
        self._run(lambda: self._step(float("inf") if self.kernel.moving else self.clock.seconds()))

    def run_until(self, done: Deferred[T] | Callable[[], T], limit_seconds: float = 60.0) -> T:
        """Run until *done* fired, or returns something true, and return that.

        :raises NothingLeftToHappen: when it did not within *limit_seconds*,
            or nothing is scheduled that could bring it about.
        :raises Exception: whatever the Deferred failed with.
        """
        if isinstance(done, Deferred):
            outcomes: list[T | Failure] = []
            done.addBoth(outcomes.append)
            self._run_until_true(lambda: bool(outcomes), done, limit_seconds)
            if isinstance(outcomes[0], Failure):
                outcomes[0].raiseException()
            return outcomes[0]
        return self._run_until_true(done, done, limit_seconds)

    def _run_until_true(self, done: Callable[[], T], what: object, limit_seconds: float) -> T:
        until = self.clock.seconds() + limit_seconds
        result = done()

        def step() -> bool:
            nonlocal result
            if not result and self._step(until):
                result = done()
                return True
            return False

        self._run(step)
        if not result:
            why = "time is up" if self.clock.calls else "nothing is scheduled"
            raise NothingLeftToHappen(f"{what!r} did not come: {why} at {self.clock.seconds():.3f} s")
        return result

    def _run(self, step: Callable[[], bool]) -> None:
        for _ in range(self.max_events):
            if not step():
                return
        raise NothingLeftToHappen(f"no rest after {self.max_events} events at {self.clock.seconds():.3f} s")


def _time_of(call: Any) -> float:
    when: float = call.getTime()
    return when
