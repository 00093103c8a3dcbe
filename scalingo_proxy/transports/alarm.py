"""A descriptor that wakes up who waits for events, at a moment that is told once.

A wait with a timeout has the kernel start a timer and take it back each time,
and a busy proxy waits thousands of times for one timer that becomes due.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

__all__ = ["Alarm"]

_NANOSECONDS = 1_000_000_000

#: The C library that is loaded already; Python has no function of its own for timerfd_create(2) before 3.13.
_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Alarm:
    """A timer of the kernel's (timerfd_create(2)); it is closed with the object.

    Who polls its descriptor edge-triggered need not read from it.

    :raises OSError: there is none to be had, or no such thing here.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        if not hasattr(_libc, "timerfd_create"):
            raise OSError("no timerfd_create")
        self._descriptor = _checked(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK))
        # struct itimerspec: seconds and nanoseconds, of the interval and of the first time.
        self._when = (ctypes.c_long * 4)()

    def fileno(self) -> int:
        return self._descriptor

    def set(self, seconds: float) -> None:
        """Ring once, *seconds* from now; what it was set to before is forgotten."""
        when = self._when
        nanoseconds = max(1, int(seconds * _NANOSECONDS))  # with 0, it would never ring
        when[2], when[3] = divmod(nanoseconds, _NANOSECONDS)
        _checked(_libc.timerfd_settime(self._descriptor, 0, when, None))

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
