"""The doors: opens listening ports, changes them while running, and closes them with a drain.

Knows factories only as what Twisted listens with, plus one verb of ours: a
factory that has ``drain(seconds)`` is asked to let its connections finish when
the proxy stops.  What is behind a door is not known here, and neither is
reading the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakSet

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredLock,
    FirstError,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.resolvers.strict_tables import shown
from scalingo_proxy.services.accept_gate import AcceptGate
from scalingo_proxy.services.doors import Door, Listener, OpenPort
from scalingo_proxy.services.endpoint_strings import BACKLOG
from scalingo_proxy.services.listen_errors import LISTEN_ERRORS, explain_listen_error
from scalingo_proxy.services.stale_sockets import clear_stale_socket

__all__ = ["GRACE_SECONDS", "Listener", "ListenersService", "OpenPort"]

_log = Logger()

#: How long after the deadline of a drain the factories may take to cut what is left: who was told of it
#: has two seconds to close.
GRACE_SECONDS = 2.5

#: Opens a port: reactor, Twisted's description of the endpoint, factory.
OpenPortFunction = Callable[[Any, str, IProtocolFactory], "Deferred[IListeningPort]"]


def _open_port(reactor: Any, description: str, factory: IProtocolFactory) -> Deferred[IListeningPort]:
    # Twisted's own backlog of 50 overflows when clients come back together, and
    # each that does not fit waits a second for its next try.
    longer = "" if "backlog=" in description else f":backlog={BACKLOG}"
    endpoint: IStreamServerEndpoint
    try:
        endpoint = serverFromString(reactor, description + longer)  # type: ignore[no-untyped-call]
    except (TypeError, ValueError):
        # It names one by its position, or is of a kind that has none.
        endpoint = serverFromString(reactor, description)  # type: ignore[no-untyped-call]
    return endpoint.listen(factory)


class ListenersService(Service):
    """Opens every door when it starts, and drains them all when it stops.

    :param listeners: the doors.
    :param drain_seconds: how long connections may take to finish at the stop.
    :param open_port: how a port is opened, for transports of one's own.
    :param gate: keeps clients waiting while there is no room for more.
    :ivar drain_seconds: may be changed while running.
    """

    def __init__(
        self,
        reactor: Any,
        listeners: Iterable[Listener],
        *,
        drain_seconds: float = 30.0,
        open_port: OpenPortFunction = _open_port,
        gate: AcceptGate | None = None,
    ) -> None:
        self._gate = gate
        self.drain_seconds = drain_seconds
        self._reactor = reactor
        self._wanted = tuple(listeners)
        self._open_port = open_port
        self._doors: list[Door] = []
        self._opening: Deferred[None] | None = None
        self._reconciling = DeferredLock()
        # Factories without a port whose connections are still finishing:
        # those connections hold them, nothing else does.
        self._retired: WeakSet[IProtocolFactory] = WeakSet()

    @property
    def ports(self) -> tuple[OpenPort, ...]:
        """The open ports, in the order of the listeners."""
        return tuple(
            OpenPort(door.listener.name, door.listener.endpoint, door.port.getHost())
            for door in self._doors
            if door.port is not None
        )

    # -- IService ------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Open every door while the process may still be root.

        :raises ConfigurationError: with a sentence for each one that cannot
            be opened; none is open then.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._start()

    def startService(self) -> None:
        """Open every door unless that happened before.

        :raises ConfigurationError: as :meth:`privilegedStartService`.
        """
        if not self._is_started():
            self._start()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Stop accepting at once, then let connections finish for up to ``drain_seconds``.

        Fires when all are done; a little after the deadline at the latest.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        doors, self._doors = self._doors, []
        factories = dict.fromkeys([*(door.listener.factory for door in doors), *self._retired])
        closing: Deferred[Any] = DeferredList([door.close(for_good=True) for door in doors])
        waits = [closing.addCallback(lambda _: self._drain_late(factories))]
        waits += [_drain(factory, self.drain_seconds) for factory in factories]
        return self._all_or_deadline(waits)

    # -- while it runs -------------------------------------------------------

    def reconcile(self, listeners: Iterable[Listener]) -> Deferred[None]:
        """Have these doors instead of those so far, all or nothing.

        A door whose endpoint stays is not touched: if its factory is another
        one, that serves the connections from now on.  Doors that go stop
        accepting; their connections finish in their own time, and are drained
        with all others when the proxy stops.

        :return: fires when everything is in effect, or fails with
            ConfigurationError, and then nothing has changed.
        """
        return self._reconciling.run(self._reconcile, tuple(listeners))

    # -- inner parts ---------------------------------------------------------

    def _is_started(self) -> bool:
        return self._opening is not None

    def _start(self) -> None:
        self._opening = Deferred.fromCoroutine(self._open_wanted())
        # Endpoints of the kinds we take answer at once, so that a failure can be raised to
        # whoever starts the proxy.  Another one may answer later: then it can only be logged.
        failures: list[Failure] = []
        is_late = False

        def failed(failure: Failure) -> None:
            if is_late and isinstance(failure.value, CancelledError):
                return  # stopped before it was open
            if is_late:
                _log.critical("{error}", error=failure.value)
            else:
                failures.append(failure)

        self._opening.addErrback(failed)
        is_late = True
        if failures:
            self._opening = None
            failures[0].raiseException()

    async def _open_wanted(self) -> None:
        self._doors = await self._open_all(self._wanted)

    async def _open_all(self, listeners: Sequence[Listener]) -> list[Door]:
        doors: list[Door] = []
        mistakes: list[Mistake] = []
        try:
            for listener in listeners:
                try:
                    doors.append(await self._open_one(listener))
                except LISTEN_ERRORS as error:
                    mistakes.append(Mistake(listener.setting, self._explain(listener, error, doors)))
            if mistakes:
                raise ConfigurationError(mistakes)
        except BaseException:
            for door in doors:  # not waited for: the caller is to know at once
                door.close()
            raise
        return doors

    async def _open_one(self, listener: Listener) -> Door:
        door = Door(listener, self._gate)
        endpoint = listener.endpoint
        try:
            port = await self._open_port(self._reactor, endpoint.description, door)
        except LISTEN_ERRORS:
            if not endpoint.path or not clear_stale_socket(endpoint.path):
                raise
            port = await self._open_port(self._reactor, endpoint.description, door)
        door.opened(port)
        return door

    def _explain(self, listener: Listener, error: BaseException, opened: Iterable[Door]) -> str:
        wanted = listener.endpoint
        for door in (*opened, *self._doors):
            present = door.listener.endpoint
            if present.clashes_with(wanted):
                sentence = f"cannot listen on {shown(wanted.text)}: this proxy has {shown(present.text)} open"
                if door in self._doors:
                    sentence += "; take that out with one reload and put this in with the next, or restart"
                return sentence
        return explain_listen_error(wanted, error)

    async def _reconcile(self, listeners: tuple[Listener, ...]) -> None:
        if not self._is_started():  # these are what to start with
            self._wanted = listeners
            return
        doors = self._doors
        staying = _pair(listeners, doors)
        opened = iter(await self._open_all([listener for listener in listeners if listener not in staying]))
        if not self._is_started():  # stopped meanwhile
            for door in opened:
                door.close()
            return
        for listener, door in staying.items():
            self._retired.add(door.listener.factory)
            door.hand_over(listener)
        self._doors = [staying[listener] if listener in staying else next(opened) for listener in listeners]
        for door in doors:
            if door not in self._doors:
                self._retired.add(door.listener.factory)
                door.close()
        for listener in listeners:
            self._retired.discard(listener.factory)
        self._wanted = listeners

    def _drain_late(self, factories: Iterable[IProtocolFactory]) -> Deferred[Any]:
        """Drain those to whom somebody came at the last moment, when they had drained already."""
        late = [factory for factory in factories if getattr(factory, "open_connections", 0)]
        return DeferredList([_drain(factory, self.drain_seconds) for factory in late], consumeErrors=True)

    def _all_or_deadline(self, waits: Sequence[Deferred[Any]]) -> Deferred[None]:
        if not waits:
            return succeed(None)
        done: Deferred[Any] = DeferredList(waits, consumeErrors=True)
        done.addTimeout(self.drain_seconds + GRACE_SECONDS, self._reactor)

        def finish(results: list[tuple[bool, Any]]) -> None:
            for succeeded, result in results:
                if succeeded:
                    continue
                reason = result.value
                while isinstance(reason, FirstError):  # of a factory that waits for others, too
                    reason = reason.subFailure.value
                if isinstance(reason, CancelledError):
                    _log.warn("connections were still open when the time to drain was over")
                else:
                    _log.failure("connections could not be drained", result)

        return done.addCallback(finish)


def _drain(factory: Any, seconds: float) -> Deferred[Any]:
    drain = getattr(factory, "drain", None)
    return maybeDeferred(drain, seconds) if callable(drain) else succeed(None)


def _pair(listeners: Iterable[Listener], doors: Iterable[Door]) -> dict[Listener, Door]:
    """Which listeners are open already: those of the same endpoint, each door once."""
    free = list(doors)
    pairs: dict[Listener, Door] = {}
    for listener in listeners:
        for door in free:
            if door.listener.endpoint.description == listener.endpoint.description:
                pairs[listener] = door
                free.remove(door)
                break
    return pairs
