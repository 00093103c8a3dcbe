"""The status page's changes as server-sent events: every second what has become different.

Each viewer has a clock of its own, so that many of them do not come at the
same moment; one that does not read is told nothing until it does.  Knows
values and one connection each, no page.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

from scalingo_proxy.services.live_values import LiveValues

__all__ = ["EVENT_SECONDS", "MAX_VIEWERS", "StatusStreams"]

#: Seconds between two events.
EVENT_SECONDS = 1.0
#: How many may look at once.
MAX_VIEWERS = 64
#: Without a change something is sent all the same, so that whoever is between keeps the connection.
_QUIET_EVENTS = 15


class StatusStreams:
    """Everybody who looks at the moment."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._viewers: set[_Viewer] = set()

    @property
    def has_room(self) -> bool:
        """Whether one more may look."""
        return len(self._viewers) < MAX_VIEWERS

    def begin(self, request: Request, values: Callable[[], LiveValues]) -> None:
        """Stream what changes until the viewer leaves."""
        viewer = _Viewer(self._reactor, request, values, self._viewers.discard)
        self._viewers.add(viewer)
        viewer.begin()

    def end_all(self) -> None:
        """Nobody looks any more: the proxy is stopping."""
        for viewer in tuple(self._viewers):
            viewer.end()


@implementer(IPushProducer)
class _Viewer:
    """One of them."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        request: Request,
        values: Callable[[], LiveValues],
        left: Callable[[_Viewer], None],
    ) -> None:
        self._reactor = reactor
        self._request = request
        self._values = values
        self._left = left
        self._told = LiveValues()
        self._is_paused = False
        self._quiet = 0
        self._call: IDelayedCall | None = None

    def begin(self) -> None:
        request = self._request
        request.notifyFinish().addBoth(self._gone)
        request.responseHeaders.setRawHeaders("Content-Type", ["text/event-stream; charset=utf-8"])
        # Whoever is between must not gather events before passing them on.
        request.responseHeaders.setRawHeaders("X-Accel-Buffering", ["no"])
        request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        request.write(b"retry: 2000\n\n")  # type: ignore[no-untyped-call]
        self._tick()

    def end(self) -> None:
        """Close the stream; a browser asks again by itself."""
        request = self._request
        self._gone(None)
        request.unregisterProducer()  # type: ignore[no-untyped-call]
        request.finish()  # type: ignore[no-untyped-call]

    # -- IPushProducer -------------------------------------------------------

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False

    def stopProducing(self) -> None:
        self._gone(None)

    # -- inner parts ---------------------------------------------------------

    def _gone(self, _result: Any) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._left(self)

    def _tick(self) -> None:
        self._call = self._reactor.callLater(EVENT_SECONDS, self._tick)
        if self._is_paused:
            return
        try:
            values = self._values()
        except Exception as error:
            # The app was removed, or something is broken: either way there is nothing more to tell.
            self._log.debug("a stream of the status page ended: {error}", error=error)
            self.end()
            return
        changes = values.since(self._told)
        self._told = values
        self._quiet += 1
        if changes:
            data = json.dumps(changes, ensure_ascii=True, separators=(",", ":"))
            self._request.write(f"data: {data}\n\n".encode("ascii"))  # type: ignore[no-untyped-call]
            self._quiet = 0
        elif self._quiet >= _QUIET_EVENTS:
            self._request.write(b": still here\n\n")  # type: ignore[no-untyped-call]
            self._quiet = 0
