"""Turns of the epoll reactor without the log's bookkeeping for each event.

Twisted calls each reader and writer through ``log.callWithLogger``, which makes
a context with the name that lines of the old log bear.  Ours do not use it, and
for a proxy, which has two events for a request and little to do for each, it
shows: 5 µs for each event.

Only the method that waits for events is put in the place of the reactor's own,
on this one object.  Whoever is not one of our transports is called as before.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.python import log

from scalingo_proxy.transports.eager import Eager

__all__ = ["shorten_turns"]

_READABLE = getattr(select, "EPOLLIN", 0)


def shorten_turns(reactor: Any) -> None:
    """Let *reactor* call our transports directly from now on, if it is Twisted's epoll reactor."""
    if type(reactor) is EPollReactor and hasattr(reactor, "_poller"):
        reactor.doIteration = _turn_of(reactor)  # type: ignore[method-assign]


def _read(selectable: Eager) -> Any:
    """What the reactor does for an event that is nothing but bytes to read."""
    try:
        return selectable.doRead()
    except BaseException as error:
        log.err()  # type: ignore[no-untyped-call]
        return error


def _turn_of(reactor: Any) -> Callable[[float | None], None]:
    wait, selectables, serve = reactor._poller.poll, reactor._selectables, reactor._doReadOrWrite
    disconnect = reactor._disconnectSelectable

    def turn(timeout: float | None) -> None:
        try:
            events = wait(-1 if timeout is None else timeout, len(selectables))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue  # closed by one that was served before it
            if isinstance(selectable, Eager):
                try:
                    if event != _READABLE:
                        serve(selectable, descriptor, event)
                    elif why := _read(selectable):
                        disconnect(selectable, why, isinstance(why, ConnectionDone))
                except Exception:
                    log.err()  # type: ignore[no-untyped-call]
            else:
                log.callWithLogger(selectable, serve, selectable, descriptor, event)  # type: ignore[no-untyped-call]

    return turn
