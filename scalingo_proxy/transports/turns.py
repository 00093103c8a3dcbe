"""Turns of the epoll reactor without the log's bookkeeping for each event.

Twisted calls each reader and writer through ``log.callWithLogger``, which makes
a context with the name that lines of the old log bear.  Ours do not use it, and
for a proxy, which has two events for a request and little to do for each, it
shows: 5 µs for each event.

Only the method that waits for events is put in the place of the reactor's own,
on this one object.  Whoever is not one of our transports is called as before.

What our transports want to do when nobody is in the middle of anything, such
as closing, they do at the end of a turn, which costs no timer and no turn of
its own.  Nobody is given an event of a descriptor that was closed, and given
to somebody else, by those who were served before it in the same turn.

Work that nobody waits for is handed to the reactor's ``when_idle()``: it is
done once, as soon as there is no event and no timer that comes first.  A busy
reactor may never get there, so who hands it in has to set an end to that.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

from scalingo_proxy.transports.accepted import EagerPort, EagerServer
from scalingo_proxy.transports.alarm import Alarm
from scalingo_proxy.transports.connection import Eager

__all__ = ["shorten_turns"]

_READABLE, _WRITABLE = getattr(select, "EPOLLIN", 0), getattr(select, "EPOLLOUT", 0)
_BOTH = _READABLE | _WRITABLE
_ONCE = _READABLE | getattr(select, "EPOLLET", 0)

#: A turn serves no more, so that timers have theirs.
_EVENTS_A_TURN = 512

#: Adds to what is polled, or removes from it.
_Change = Callable[[Any], None]

#: Who has ``read_now``.
_OURS = (Eager, EagerPort)


#: What an object of a reactor has of ours.
_NAMES = (
    "addReader",
    "addWriter",
    "doIteration",
    "ends_of_turn",
    "enter",
    "leave",
    "removeReader",
    "removeWriter",
    "when_idle",
)


def shorten_turns(reactor: Any) -> Callable[[], None]:
    """Let *reactor* call our transports directly from now on, if it is Twisted's epoll reactor.

    :return: undoes it; what waits for the end of a turn then, or for an idle moment, is called by a timer.
    """
    if "ends_of_turn" in vars(reactor):  # whoever else serves on this reactor has done so
        return _nothing_to_undo
    idle: list[Callable[[], None]] = []
    if type(reactor) is EPollReactor and hasattr(reactor, "_poller"):
        reactor.ends_of_turn = []  # type: ignore[attr-defined]
        reactor.doIteration = _turn_of(reactor, idle)  # type: ignore[method-assign]
        _poll_directly(reactor)

    def lengthen_turns() -> None:
        left = [*vars(reactor).get("ends_of_turn", ()), *idle]
        for name in _NAMES:
            vars(reactor).pop(name, None)
        for call in left:
            reactor.callLater(0, call)

    return lengthen_turns


def _nothing_to_undo() -> None:
    """The first to shorten a reactor's turns undoes it."""


def _turn_of(reactor: Any, idle: list[Callable[[], None]]) -> Callable[[float | None], None]:
    wait, selectables, serve = reactor._poller.poll, reactor._selectables, reactor._doReadOrWrite
    ends: list[Callable[[], None]] = reactor.ends_of_turn
    reactor.when_idle = idle.append
    alarm = _alarm_of(reactor)
    alarm_descriptor = -1 if alarm is None else alarm.fileno()

    def turn(timeout: float | None) -> None:
        # The reactor's timers are waited for in one of the kernel's, and not with the timeout of each wait,
        # which would be set up and taken back each time (2 µs less for a request that is alone).
        timers = reactor._pendingTimedCalls
        due = timers[0].time if timers else None
        patience = -1.0 if timeout is None else timeout
        if timeout and alarm is not None:
            alarm.set(timeout)
            patience = -1.0
        while True:
            if ends:  # of what was called since the last turn
                _call_all(ends)
            try:
                events = wait(0 if ends or idle else patience, _EVENTS_A_TURN)
            except OSError as error:
                if error.errno == errno.EINTR:
                    return
                raise
            if not events and idle and patience:  # nobody waits, and no timer is due
                _call_all(idle)
            # Who had a descriptor when the events came; it may be somebody else's by the time it is served.
            if len(events) == 1:  # without a list of its own: 0.2 us less
                ((descriptor, event),) = events
                served = [(selectables.get(descriptor), descriptor, event)]
            else:
                served = [(selectables.get(each), each, event) for each, event in events]
                # Answers before requests: who is nearly done goes first (3 % less latency at half load).
                served.sort(key=_is_of_a_client)
            for each, descriptor, event in served:
                if isinstance(each, _OURS) and selectables.get(descriptor) is each:
                    try:
                        if event == _READABLE or event & _BOTH == _READABLE:
                            each.read_now()
                        else:
                            serve(each, descriptor, event)
                    except Exception:
                        log.err()  # type: ignore[no-untyped-call]
                elif each is None or selectables.get(descriptor) is not each:
                    if descriptor == alarm_descriptor:
                        patience = 0.0
                else:
                    log.callWithLogger(each, serve, each, descriptor, event)  # type: ignore[no-untyped-call]
            if ends:
                _call_all(ends)
            # The reactor looks after its timers and threads between two turns.  While nothing
            # of them has changed or is due, the next turn may as well follow here.
            if patience >= 0 or reactor._newTimedCalls or reactor.threadCallQueue or reactor._justStopped:
                return
            if not timers or timers[0].time != due or not reactor.running:
                return

    return turn


def _is_of_a_client(served: tuple[Any, int, int]) -> bool:
    return isinstance(served[0], EagerServer)


def _alarm_of(reactor: Any) -> Alarm | None:
    """One that *reactor* polls; None where there is no such thing."""
    try:
        alarm = Alarm()
    except OSError:
        return None
    reactor._poller.register(alarm, _ONCE)
    return alarm


def _call_all(ends: list[Callable[[], None]]) -> None:
    """Call those there are now; what they ask for comes with the next turn."""
    calls = ends[:]
    del ends[: len(calls)]
    for call in calls:
        try:
            call()
        except BaseException:
            log.err()  # type: ignore[no-untyped-call]


def _poll_directly(reactor: Any) -> None:
    """Let what is polled of our transports be changed in one call instead of four."""
    poller, selectables = reactor._poller, reactor._selectables
    reads, writes = reactor._reads, reactor._writes
    register, modify, unregister = poller.register, poller.modify, poller.unregister

    def adder(here: set[int], there: set[int], event: int, usual: _Change) -> _Change:
        def add(selectable: Any) -> None:
            if not isinstance(selectable, Eager):
                usual(selectable)
            elif (descriptor := selectable.fileno()) not in here:
                if descriptor in there:
                    modify(descriptor, _BOTH)
                else:
                    register(descriptor, event)
                here.add(descriptor)
                selectables[descriptor] = selectable

        return add

    def remover(here: set[int], there: set[int], rest: int, usual: _Change) -> _Change:
        def remove(selectable: Any) -> None:
            if not isinstance(selectable, Eager) or (descriptor := selectable.fileno()) < 0:
                usual(selectable)
            elif descriptor in here:
                if descriptor in there:
                    modify(descriptor, rest)
                else:
                    del selectables[descriptor]
                    unregister(descriptor)
                here.remove(descriptor)

        return remove

    def enter(selectable: Eager, descriptor: int) -> None:
        """Poll one that is new for reading."""
        register(descriptor, _READABLE)
        reads.add(descriptor)
        selectables[descriptor] = selectable

    def leave(descriptor: int) -> None:
        """Poll it no more at all, if it is polled."""
        if selectables.pop(descriptor, None) is not None:
            unregister(descriptor)
            reads.discard(descriptor)
            writes.discard(descriptor)

    reactor.enter, reactor.leave = enter, leave
    reactor.addReader = adder(reads, writes, _READABLE, partial(EPollReactor.addReader, reactor))
    reactor.addWriter = adder(writes, reads, _WRITABLE, partial(EPollReactor.addWriter, reactor))
    reactor.removeReader = remover(reads, writes, _WRITABLE, partial(EPollReactor.removeReader, reactor))
    reactor.removeWriter = remover(writes, reads, _READABLE, partial(EPollReactor.removeWriter, reactor))
