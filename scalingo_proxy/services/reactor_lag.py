"""How late the reactor comes: measured all the time, and told where it hangs.

A reactor that is kept busy by one call serves nobody meanwhile.  A timer that
notes how late it is called gives the number; a thread that waits for that
timer sees a standstill while it lasts, and writes to the program log what the
reactor's thread is doing at that moment.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["BLOCKED_SECONDS", "TICK_SECONDS", "WINDOW_SECONDS", "ReactorLag", "Watchdog"]

#: How often the reactor is asked to be in time.
TICK_SECONDS = 0.1
#: For how long the worst delay is told, so that each scrape sees it.
WINDOW_SECONDS = 15.0
#: A standstill of this length is told, with the place.
BLOCKED_SECONDS = 1.0


class Watchdog:
    """A thread that sees the reactor hang, because it does not hang with it.

    :param thread: the reactor's thread.
    :param tell: gets how long the reactor has been away, and the stack of its
        thread; called in the watchdog's own thread, once for each standstill.
    :param clock: seconds, monotonic.
    """

    def __init__(
        self,
        thread: int,
        tell: Callable[[float, str], object],
        blocked_seconds: float = BLOCKED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._thread = thread
        self._tell = tell
        self._blocked_seconds = blocked_seconds
        self._clock = clock
        self._end = threading.Event()
        self._seen_at = clock()
        self._told_of = 0.0

    def start(self) -> None:
        """Begin to watch."""
        # A daemon, so that it never keeps a process from ending.
        threading.Thread(target=self._run, name="reactor watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._end.set()

    def seen(self) -> None:
        """The reactor is alive; called in its thread."""
        self._seen_at = self._clock()

    def look(self, rested_seconds: float) -> None:
        """Tell, if the reactor has been away for too long.

        :param rested_seconds: how long it is since the watchdog looked last.
        """
        seen_at = self._seen_at
        away = self._clock() - seen_at
        if away < self._blocked_seconds or seen_at == self._told_of:
            return
        if rested_seconds >= self._blocked_seconds:
            return  # not the reactor stood still, but the whole process or the machine
        self._told_of = seen_at
        frame = sys._current_frames().get(self._thread)
        if frame is not None:
            self._tell(away, "".join(traceback.format_stack(frame)))

    def _run(self) -> None:
        looked_at = self._clock()
        while not self._end.wait(self._blocked_seconds / 4):
            now = self._clock()
            self.look(now - looked_at)
            looked_at = now


class ReactorLag(Service):
    """Measures how late the reactor calls what is due, and has it watched.

    :param watch: makes the watchdog, or ``None`` to have none.
    """

    name = "reactor lag"
    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        watch: Callable[[int, Callable[[float, str], object]], Watchdog] | None = Watchdog,
    ) -> None:
        self._reactor = reactor
        self._watch = watch
        self._watchdog: Watchdog | None = None
        self._due_at = 0.0
        self._call: IDelayedCall | None = None
        # The moment and the delay of each one that no later one has exceeded.
        self._worst: deque[tuple[float, float]] = deque()

    @property
    def seconds(self) -> float:
        """The longest delay within the last :data:`WINDOW_SECONDS`, in seconds."""
        now = self._reactor.seconds()
        while self._worst and self._worst[0][0] < now - WINDOW_SECONDS:
            self._worst.popleft()
        # Whoever asks may be what keeps the reactor busy, or comes right after it.
        overdue = max(0.0, now - self._due_at) if self._call is not None else 0.0
        return max(overdue, self._worst[0][1] if self._worst else 0.0)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if self._watch is not None:
            self._watchdog = self._watch(threading.get_ident(), self._blocked)
            self._watchdog.start()
        self._again(self._reactor.seconds())

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.stop()

    def _again(self, now: float) -> None:
        self._due_at = now + TICK_SECONDS
        self._call = self._reactor.callLater(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = self._reactor.seconds()
        late = max(0.0, now - self._due_at)
        worst = self._worst
        while worst and worst[-1][1] <= late:
            worst.pop()
        worst.append((now, late))
        if worst[0][0] < now - WINDOW_SECONDS:
            worst.popleft()
        if self._watchdog is not None:
            self._watchdog.seen()
        if late >= BLOCKED_SECONDS:
            self._log.warn("the reactor was {late:.1f} s late: nobody was served meanwhile", late=late)
        self._again(now)

    def _blocked(self, seconds: float, stack: str) -> None:
        self._log.error(
            "the reactor has been blocked for {seconds:.1f} s, by this:\n{stack}",
            seconds=seconds,
            stack=stack.rstrip(),
        )
