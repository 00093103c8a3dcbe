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
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE
from twisted.python import log

from scalingo_proxy.transports.eager import Eager

__all__ = ["shorten_turns"]

_READABLE, _WRITABLE = getattr(select, "EPOLLIN", 0), getattr(select, "EPOLLOUT", 0)
_BOTH = _READABLE | _WRITABLE


def shorten_turns(reactor: Any) -> None:
    """Let *reactor* call our transports directly from now on, if it is Twisted's epoll reactor."""
    if type(reactor) is EPollReactor and hasattr(reactor, "_poller"):
        reactor.doIteration = _turn_of(reactor)  # type: ignore[method-assign]


def _read(selectable: Eager) -> Any:
    """What the reactor does where there is something to read, and nothing to write."""
    try:
        return selectable.doRead()
    except BaseException as error:
        log.err()  # type: ignore[no-untyped-call]
        return error


def _turn_of(reactor: Any) -> Callable[[float | None], None]:
    wait, selectables, serve = reactor._poller.poll, reactor._selectables, reactor._doReadOrWrite
    disconnect = reactor._disconnectSelectable
    ends: list[Callable[[], None]] = []

    def turn(timeout: float | None) -> None:
        if ends:  # of what was called since the last turn
            _call_all(ends)
        try:
            events = wait(0 if ends else -1 if timeout is None else timeout, len(selectables))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        for selectable, descriptor, event in [(selectables.get(each), each, event) for each, event in events]:
            if selectable is None or selectables.get(descriptor) is not selectable:
                continue  # closed by one that was served before it
            if isinstance(selectable, Eager):
                try:
                    if event & _BOTH != _READABLE:
                        serve(selectable, descriptor, event)
                    elif why := _read(selectable):
                        if why is CONNECTION_DONE:
                            selectable.read_ended()
                        else:
                            disconnect(selectable, why, False)
                except Exception:
                    log.err()  # type: ignore[no-untyped-call]
            else:
                log.callWithLogger(selectable, serve, selectable, descriptor, event)  # type: ignore[no-untyped-call]
        if ends:
            _call_all(ends)

    turn.ends = ends  # type: ignore[attr-defined]
    return turn


def _call_all(ends: list[Callable[[], None]]) -> None:
    """Call those there are now; what they ask for comes with the next turn."""
    calls = ends[:]
    del ends[: len(calls)]
    for call in calls:
        try:
            call()
        except BaseException:
            log.err()  # type: ignore[no-untyped-call]
