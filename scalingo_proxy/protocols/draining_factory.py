"""What every door has in common: it counts its clients, and lets them finish when it stops.

Knows frontends only as what can be drained and cut, not what they speak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.client_connections import NO_ROOM, is_loopback
from scalingo_proxy.protocols.downstream import Frontend, Phase, UnderWay
from scalingo_proxy.protocols.drains import oldest_first
from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.routing.networks import plain_address

__all__ = ["DrainingFactory"]

_log = Logger()

#: When the proxy stops, tunnels begin to be closed so long before the rest is
#: cut, but not in the first half of the time.
_TUNNELS_SECONDS = 5.0

#: How much of that time the closing is spread over; the rest is for them to close in order.
_SPREAD = 0.5

#: Tunnels that came about since the last look are looked for so often.
_LOOK_AGAIN_SECONDS = 0.5


class DrainingFactory(Factory):
    """A factory whose frontends tell it of their beginning and their end.

    :param env: what its connections share with those of other doors.
    :param listener: the name of this door in logs and metrics.
    :ivar is_draining: answers are the last ones of their connections.
    """

    noisy = False
    #: What clients speak here, as far as that is known before they have said a word.
    protocol_name = "-"

    def __init__(self, env: Environment, listener: str) -> None:
        self.env = env
        self.listener = listener
        self.is_draining = False
        self._frontends: dict[Frontend, None] = {}
        #: The address that clients from some host count for.  They come again, and each is asked for twice
        #: (0.2 µs less).
        self._counts_for = lru_cache(maxsize=4096)(self._address_that_counts)
        self._drained: Deferred[None] | None = None
        self._drain_timer: Any = None
        self._tunnels_timer: Any = None
        # Tunnels whose turn to be closed comes, or has come.
        self._asked: set[UnderWay] = set()

    @property
    def open_connections(self) -> int:
        """How many clients are connected through this factory."""
        return len(self._frontends)

    def has_room(self, addr: IAddress | None) -> bool:
        """Whether another client may come in; one that may not is told to the observer."""
        env = self.env
        now = env.seconds()
        host = getattr(addr, "host", None)
        error = self.refusal(self._counts_for(host), now)
        if error is None:
            return True
        env.connection_opened(self.listener, "refused")
        env.connection_closed(self.listener, "refused")
        record = Record(now, env.wall_clock(), plain_address(host) if host else "unix:", self.listener)
        record.protocol = self.protocol_name
        env.refused(record, error)
        return False

    def refusal(self, address: str, now: float) -> ProxyError | None:
        """Why a client may not come in; *address* as :meth:`counted_address` has it."""
        limit = self.env.clients.refusal(address, self.env.limits, now)
        return NO_ROOM[limit] if limit else None

    def counted_address(self, addr: Any) -> str:
        """The address that a connection counts for; ``""`` where one address may bring many clients."""
        return self._counts_for(getattr(addr, "host", None))

    def _address_that_counts(self, host: str | None) -> str:
        address = plain_address(host) if host else ""
        return "" if not address or is_loopback(address) or self.trusts(address) else address

    def trusts(self, address: str) -> bool:
        """Whether *address* is that of a trusted proxy; for as long as this factory serves."""
        return False

    def under_way(self) -> Iterator[UnderWay]:
        """The exchanges and tunnels of its clients now."""
        for frontend in list(self._frontends):
            yield from frontend.under_way()

    # -- called by Twisted ---------------------------------------------------

    def startFactory(self) -> None:
        self.is_draining = False
        self.env.begin(self)

    def stopFactory(self) -> None:
        if not self._frontends:
            self.env.end(self)

    # -- called by the frontends ---------------------------------------------

    def frontend_opened(self, frontend: Frontend, kind: str) -> None:
        """A client is served by *frontend* now; ``""``: it is counted, because another served it before."""
        self._frontends[frontend] = None
        env = self.env
        env.clients.opened(frontend, self._counts_for(getattr(frontend.transport.getPeer(), "host", None)))
        if kind:
            env.connection_opened(self.listener, kind)

    def kind_changed(self, before: str, now: str) -> None:
        self.env.connection_closed(self.listener, before)
        self.env.connection_opened(self.listener, now)

    def frontend_closed(self, frontend: Frontend, kind: str) -> None:
        """It is served no more; ``""``: not by this one."""
        frontends, env = self._frontends, self.env
        frontends.pop(frontend, None)
        env.clients.closed(frontend)
        if kind:
            env.connection_closed(self.listener, kind)
        if not frontends:
            if not self.numPorts:
                self.env.end(self)
            if self._drained is not None:
                self._end_drain()

    # -- stopping ------------------------------------------------------------

    def drain(self, seconds: float) -> Deferred[None]:
        """Let the exchanges under way finish, then close every connection.

        Idle clients are closed at once; answers say ``Connection: close``.
        Tunnels, which may last for ever, are closed little by little in the
        last five seconds (or the second half) of the time; whatever is left
        after *seconds* is cut, and gone two seconds later.
        Accepting must have stopped.  A further call may bring the end forward.

        :return: fires when no client is connected any more.
        """
        self.is_draining = True
        self._ask_each("drain")
        if not self._frontends:
            return succeed(None)
        self._cut_within(seconds)
        if self._drained is None:
            self._drained = Deferred()
        waiter: Deferred[None] = Deferred()
        self._drained.addCallback(lambda _: waiter.callback(None))
        return waiter

    def _cut_within(self, seconds: float) -> None:
        before = min(_TUNNELS_SECONDS, seconds / 2)
        self._drain_timer = self._within(self._drain_timer, seconds, self._cut)
        self._tunnels_timer = self._within(self._tunnels_timer, seconds - before, self._close_tunnels)

    def _within(self, timer: Any, seconds: float, call: Callable[[], None]) -> Any:
        reactor = self.env.reactor
        if timer is None:
            return reactor.callLater(seconds, call)
        if timer.active() and timer.getTime() > reactor.seconds() + seconds:
            timer.reset(seconds)
        return timer

    def _close_tunnels(self) -> None:
        """Close those there are, little by little; look again for those that come about meanwhile."""
        env = self.env
        new = [each for each in self.under_way() if each.phase is Phase.TUNNEL and each not in self._asked]
        self._asked.update(new)
        left = self._drain_timer.getTime() - env.reactor.seconds()
        env.pace.spread([partial(_leave, tunnel) for tunnel in oldest_first(new)], left * _SPREAD)
        self._tunnels_timer = env.reactor.callLater(_LOOK_AGAIN_SECONDS, self._close_tunnels)

    def _cut(self) -> None:
        self._cancel_timers()
        self._ask_each("cut")

    def _ask_each(self, what: str) -> None:
        for frontend in list(self._frontends):
            try:
                getattr(frontend, what)()
            except Exception:
                _log.failure("a connection did not {what} in order", what=what)
                frontend.transport.abortConnection()

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        self._cancel_timers()
        self._drain_timer = self._tunnels_timer = None
        self._asked.clear()
        if drained is not None:
            drained.callback(None)

    def _cancel_timers(self) -> None:
        for timer in (self._drain_timer, self._tunnels_timer):
            if timer is not None and timer.active():
                timer.cancel()


def _leave(tunnel: UnderWay) -> None:
    if tunnel.phase is Phase.TUNNEL:
        tunnel.drain_deadline_reached()
