"""One probe under way: within its time, and told of once.

Knows when a probe is over and how its failures are put into words; what is
said to the backend is the business of whoever begins it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from scalingo_proxy.errors import ConnectFailed
from scalingo_proxy.model import ProbeResult

__all__ = ["ProbeAttempt"]

#: Seconds that a backend has, once the verdict is clear, to end what it sends
#: and to close: a reset in the middle of an answer fills its log with errors.
_PARTING_SECONDS = 0.2

#: What the proxy lacks, not the backend.
_OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM}

_SENTENCES = (
    (error.ConnectionRefusedError, "connection refused"),
    (error.DNSLookupError, "its name has no address"),
    (error.NoRouteError, "no route to it"),
)


class ProbeAttempt:
    """Turns what happens to one connection into one ProbeResult.

    :ivar result: fires with the ProbeResult; cancelled, it leaves nothing behind.
    :ivar timeout: seconds from now, for connecting and answer together.

    :param what: what is done, with the URL: the beginning of each reason.
    """

    def __init__(self, reactor: Any, what: str, url: str, timeout: float) -> None:
        self.result: Deferred[ProbeResult] = Deferred(self._cancelled)
        self.timeout = timeout
        self._reactor = reactor
        self._what = what
        self._url = url
        self._began = reactor.seconds()
        self._verdict: ProbeResult | None = None
        self._abandon: Callable[[], None] | None = None
        self._transport: Any = None
        self._timer: Any = None
        self._is_over = False

    # -- told by the connector -----------------------------------------------

    def begin(self, connect: Callable[[], Callable[[], None]]) -> None:
        """Start to connect; *connect* gives what abandons it."""
        abandon = connect()
        if not (self._is_over or self._transport is not None):
            self._abandon = abandon

    def connect_failed(self, reason: Failure) -> None:
        """There is no connection, for a reason that a connector gave."""
        self._abandon = None
        sentence, is_our_own = _told(reason.value, self.timeout)
        self._decide(False, sentence, is_inconclusive=is_our_own)
        self._finish()

    # -- told by the protocol ------------------------------------------------

    def connected(self, transport: Any) -> None:
        """There is a connection, of which the probe's protocol takes care."""
        self._abandon = None
        self._transport = transport
        left = self._began + self.timeout - self._reactor.seconds()
        self._timer = self._reactor.callLater(max(left, 0.0), self._time_is_up)

    def conclude(self, passed: bool, sentence: str, status: int = 0) -> None:
        """The verdict is clear; the backend gets a moment to end what it sends."""
        if self._verdict is None:
            self._decide(passed, sentence, status)
            left = self._began + self.timeout - self._reactor.seconds()
            self._timer.reset(max(min(left, _PARTING_SECONDS), 0.0))

    def part(self) -> None:
        """There is nothing more to hear: close in order."""
        if self._transport is not None:
            self._transport.loseConnection()

    def cut(self) -> None:
        """There is nothing more that is worth hearing: close at once."""
        self._finish()

    def lost(self, sentence: str) -> None:
        """The connection is gone, which without a verdict is one: *sentence*."""
        self._transport = None
        self._decide(False, sentence)
        self._finish()

    # -- the end -------------------------------------------------------------

    def _decide(self, passed: bool, sentence: str, status: int = 0, is_inconclusive: bool = False) -> None:
        if self._verdict is None:
            seconds = self._reactor.seconds() - self._began
            reason = f"{self._what}: {sentence}"
            self._verdict = ProbeResult(
                passed, reason, self._url, status, seconds, status > 0, is_inconclusive=is_inconclusive
            )

    def _time_is_up(self) -> None:
        self._decide(False, f"no answer within {self.timeout:g} s")
        self._finish()

    def _finish(self) -> None:
        verdict = self._verdict
        if not self._is_over and verdict is not None:
            self._leave_nothing()
            self.result.callback(verdict)

    def _cancelled(self, _result: Deferred[ProbeResult]) -> None:
        self._leave_nothing()

    def _leave_nothing(self) -> None:
        self._is_over = True
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abortConnection()
        abandon, self._abandon = self._abandon, None
        if abandon is not None:
            abandon()


def _told(reason: Any, timeout: float) -> tuple[str, bool]:
    """What went wrong with connecting, and whether that is the proxy's own trouble."""
    if isinstance(reason, ConnectFailed):
        sentence = reason.detail.replace("the backend's", "the")
        return sentence.removeprefix("the TLS handshake with the backend failed: "), False
    if isinstance(reason, error.TimeoutError | defer.TimeoutError):
        return f"no connection within {timeout:g} s", False
    if isinstance(reason, error.DNSLookupError) and _has_no_descriptor():
        return "its name cannot be looked up, for want of descriptors", True
    for kind, sentence in _SENTENCES:
        if isinstance(reason, kind):
            return sentence, False
    number = getattr(reason, "osError", None)
    if isinstance(number, int):
        return os.strerror(number).lower(), number in _OUR_OWN
    return "no connection", False


def _has_no_descriptor() -> bool:
    """Whether the process has none left, which a lookup does not tell."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as failure:
        return failure.errno in _OUR_OWN
    return False
