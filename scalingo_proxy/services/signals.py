"""What the process is told by signals, for the program alone.

An embedder's signals are the embedder's: nothing else installs a handler.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from twisted.application.service import Service

__all__ = ["Signals"]


class Signals(Service):
    """Calls functions in the reactor's turn when signals come.

    :param reactor: an IReactorFromThreads.
    :param actions: what to call, by signal.
    """

    name = "signals"

    def __init__(self, reactor: Any, actions: Mapping[signal.Signals, Callable[[], object]]) -> None:
        self._reactor = reactor
        self._actions = actions
        self._before: dict[signal.Signals, Any] = {}

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        for number in self._actions:
            self._before[number] = signal.signal(number, self._received)

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._actions[signal.Signals(number)])
