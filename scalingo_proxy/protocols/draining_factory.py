"""What every door has in common: it counts its clients, and lets them finish when it stops.

Knows frontends only as what can be drained and cut, not what they speak.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from scalingo_proxy.protocols.downstream import Frontend, UnderWay
from scalingo_proxy.protocols.environment import Environment

__all__ = ["DrainingFactory"]

_log = Logger()


class DrainingFactory(Factory):
    """A factory whose frontends tell it of their beginning and their end.

    :param env: what its connections share with those of other doors.
    :param listener: the name of this door in logs and metrics.
    :ivar is_draining: answers are the last ones of their connections.
    """

    noisy = False

    def __init__(self, env: Environment, listener: str) -> None:
        self.env = env
        self.listener = listener
        self.is_draining = False
        self._frontends: dict[Frontend, None] = {}
        self._drained: Deferred[None] | None = None
        self._drain_timer: Any = None

    @property
    def open_connections(self) -> int:
        """How many clients are connected through this factory."""
        return len(self._frontends)

    def has_room(self) -> bool:
        """Whether another client may come in; one that may not is told to the observer."""
        env = self.env
        if env.client_connections < env.limits.client_connections:
            return True
        env.connection_opened(self.listener, "refused")
        env.connection_closed(self.listener, "refused")
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
        self._frontends[frontend] = None
        self.env.client_connections += 1
        self.env.connection_opened(self.listener, kind)

    def kind_changed(self, before: str, now: str) -> None:
        self.env.connection_closed(self.listener, before)
        self.env.connection_opened(self.listener, now)

    def frontend_closed(self, frontend: Frontend, kind: str) -> None:
        self._frontends.pop(frontend, None)
        self.env.client_connections -= 1
        self.env.connection_closed(self.listener, kind)
        if not self._frontends:
            if not self.numPorts:
                self.env.end(self)
            if self._drained is not None:
                self._end_drain()

    # -- stopping ------------------------------------------------------------

    def drain(self, seconds: float) -> Deferred[None]:
        """Let the exchanges under way finish, then close every connection.

        Idle clients are closed at once; answers say ``Connection: close``;
        whatever is left after *seconds* is cut, and gone two seconds later.
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
        timer, reactor = self._drain_timer, self.env.reactor
        if timer is None:
            self._drain_timer = reactor.callLater(seconds, self._cut)
        elif timer.active() and timer.getTime() > reactor.seconds() + seconds:
            timer.reset(seconds)

    def _cut(self) -> None:
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
        timer, self._drain_timer = self._drain_timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if drained is not None:
            drained.callback(None)
