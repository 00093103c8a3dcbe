"""What all exchanges of one proxy share, in one object handed to each.

Hardly more than a place: nothing here is looked up elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from twisted.logger import Logger

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import App, Limits, Record, Route, Timeouts
from scalingo_proxy.protocols.client_connections import PATIENT_SECONDS, ClientConnections
from scalingo_proxy.protocols.deadlines import Deadlines
from scalingo_proxy.protocols.drains import Drains
from scalingo_proxy.protocols.forgetting import Forgetting
from scalingo_proxy.protocols.handshakes import Handshakes
from scalingo_proxy.protocols.hangups import Hangups
from scalingo_proxy.protocols.pace import Pace
from scalingo_proxy.protocols.turns import Turns
from scalingo_proxy.routing.policies import Policies
from scalingo_proxy.routing.pools import Pools
from scalingo_proxy.transports.descriptors import Descriptors, RecentDescriptors, read_descriptors
from scalingo_proxy.transports.pipes import Pipes
from scalingo_proxy.wire.error_answer import Page
from scalingo_proxy.wire.http1_response import forget_unused_responses
from scalingo_proxy.wire.http2_head import forget_unused_header_lists
from scalingo_proxy.wire.known_hellos import forget_unused_hellos
from scalingo_proxy.wire.known_requests import forget_unused_requests
from scalingo_proxy.wire.request_id import request_ids as random_request_ids

if TYPE_CHECKING:
    from scalingo_proxy.protocols.backend_attempts import BackendAttempts
    from scalingo_proxy.protocols.backend_connections import BackendConnections
    from scalingo_proxy.protocols.downstream import UnderWay
    from scalingo_proxy.routing.members import Member

__all__ = ["Environment", "SilentObserver"]

_log = Logger()

#: Kept-alive clients for whom one descriptor is held back, for when they ask again.
_IDLE_PER_BACKEND = 8

#: Room for so many clients need not be known exactly.
_PLENTY = 200

#: Idle connections to backends that are closed at once when descriptors run short.
_GIVEN_UP_AT_ONCE = 16


@runtime_checkable
class _Serving(Protocol):
    def under_way(self) -> Iterable[UnderWay]: ...


class SilentObserver:
    """An observer for whoever needs none."""

    def exchange_finished(self, record: Record) -> None:
        pass

    def connection_opened(self, listener: str, kind: str) -> None:
        pass

    def connection_closed(self, listener: str, kind: str) -> None:
        pass


def _must_be_asked(host: str) -> None:
    """What resolvers know at once that do not say so."""


class Environment:
    """Resolver, pools, connections, clock, observer and defaults of one proxy.

    :ivar resolver: an IResolver.
    :ivar observer: an IObserver.
    :ivar timeouts: for what happens before an app is known.
    :ivar limits: for what happens before an app is known.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        resolver: Any,
        pools: Pools,
        connections: BackendConnections,
        deadlines: Deadlines,
        observer: Any,
        timeouts: Timeouts,
        limits: Limits,
        request_ids: Callable[[], str] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.resolver = resolver
        #: What it answers for a host without being asked a question, if it is one that can.
        self.route_at_once: Callable[[str], Route | None] = getattr(resolver, "route_at_once", _must_be_asked)
        self.pools = pools
        self.connections = connections
        self.deadlines = deadlines
        self.hangups = Hangups(reactor)
        self.turns = Turns(reactor)
        #: Whose TLS handshake is next.
        self.handshakes = Handshakes(reactor)
        self.observer = observer
        #: Tell the observer of a client connection, by listener and kind, and of its end.
        self.connection_opened: Callable[[str, str], object] = self._tell_opened
        self.connection_closed: Callable[[str, str], object] = self._tell_closed
        if getattr(observer, "never_raises", False):
            self.connection_opened, self.connection_closed = (
                observer.connection_opened,
                observer.connection_closed,
            )
        self.timeouts = timeouts
        self.limits = limits
        #: Who is let in, and how often they may ask.
        self.policies = Policies()
        self.request_ids = request_ids or random_request_ids()
        self.wall_clock = wall_clock
        #: What tunnels are spliced through.
        self.pipes = Pipes()
        self.pipes.has_room = lambda: self.descriptors().has_room_for_pipe(self._owed())
        connections.attempts.has_room = lambda: self.descriptors().has_room_for_backend()
        #: Tells how many descriptors the process has and may have.
        self.descriptors: Callable[[], Descriptors] = RecentDescriptors(
            lambda: read_descriptors(self._descriptor_count), reactor.seconds
        )
        #: Gives the page of an app's own for an error, if it has one.
        self.page_for: Callable[[App, ProxyError], Page | None] | None = None
        #: Clients connected through all factories that share this.
        self.clients = ClientConnections()
        #: Spreads what is done to many clients.
        self.pace = Pace(reactor)
        #: Who is being connected to which pool member.
        self.connecting: dict[Member, dict[BackendAttempts, None]] = {}
        #: How often requests went on to another connection, by why; and how often they may not have.
        self.retries = {"connect-failed": 0, "backend-closed": 0, "kept-connection": 0}
        self.retries_refused = 0
        #: The backends that left their apps, and when that is over.
        self.drains = Drains(reactor, self.under_way, self.pace)
        #: Limits for how long heads are known that nobody sends again.
        self._forgetting = Forgetting(
            deadlines,
            self.seconds,
            [
                forget_unused_hellos,
                forget_unused_requests,
                forget_unused_responses,
                forget_unused_header_lists,
            ],
        )
        # Ordered, so that the same run gives the same order of events.
        self._users: dict[object, None] = {}

    @property
    def client_connections(self) -> int:
        """How many clients are connected."""
        return self.clients.count

    # -- descriptors ---------------------------------------------------------

    def room_for_clients(self) -> int:
        """How many further clients the process has descriptors for, with a backend connection for each."""
        descriptors = self.descriptors()
        room = descriptors.room_for_clients(self.client_connections)
        # Most of the time there is enough without a closer look.
        return room if room >= _PLENTY else descriptors.room_for_clients(self._owed())

    def make_room(self) -> None:
        """Give up some of what is only kept in case it is needed again."""
        self.connections.close_some_idle(_GIVEN_UP_AT_ONCE)
        self.pipes.shed()
        self.clients.make_room(self.seconds(), PATIENT_SECONDS)

    def _owed(self) -> int:
        """How many connections to backends the clients who are here may still need at once.

        Each of those who have just come will; of those who have had an answer
        and wait, a part: should more ask at once, they take turns.
        """
        busy = self.connections.busy_count
        waiting = max(0, self.client_connections - busy)
        idle = min(waiting, max(0, self.clients.asked - busy))
        return waiting - idle + -(-idle // _IDLE_PER_BACKEND)

    def _descriptor_count(self) -> int:
        return self.client_connections + self.connections.open_count + len(self.connections.attempts)

    # -- the observer, and who uses this ---------------------------------------

    def refused(self, record: Record, error: ProxyError) -> None:
        """Tell the observer of what never became an exchange, and why."""
        record.status, record.code, record.cause = error.status, error.code, error.detail
        if record.request_id == "-":
            record.request_id = self.request_ids()
        record.finished_at = self.seconds()
        self.finished(record)

    def finished(self, record: Record) -> None:
        """Tell the observer of *record*; one that fails takes nothing with it."""
        try:
            self.observer.exchange_finished(record)
        except Exception:
            _log.failure("the observer failed on request {request_id}", request_id=record.request_id)

    def _tell_opened(self, listener: str, kind: str) -> None:
        try:
            self.observer.connection_opened(listener, kind)
        except Exception:
            _log.failure("the observer failed on a new connection")

    def _tell_closed(self, listener: str, kind: str) -> None:
        try:
            self.observer.connection_closed(listener, kind)
        except Exception:
            _log.failure("the observer failed on the end of a connection")

    def under_way(self) -> Iterator[UnderWay]:
        """The exchanges and tunnels of all factories that share this, now."""
        for user in list(self._users):
            if isinstance(user, _Serving):
                yield from user.under_way()

    def begin(self, user: object) -> None:
        """*user*, a factory, serves clients from now on."""
        if not self._users:
            self._forgetting.begin()
        self._users[user] = None
        self.deadlines.start()
        self.connections.open()
        self.pipes.open()

    def end(self, user: object) -> None:
        """*user* serves none any more; the last one leaves nothing behind."""
        self._users.pop(user, None)
        if not self._users:
            self.pace.stop()
            self.connections.close_all_idle()
            self.pipes.close()
            self._forgetting.end()
            self.deadlines.stop()
            self.hangups.stop()
