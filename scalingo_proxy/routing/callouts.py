"""Calling other people's code in a row, when one failure must not stop the row.

It knows nothing of routing: a callback that raises is a bug of whoever gave
it, and the waiters behind that one must not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

__all__ = ["Callouts"]

_P = ParamSpec("_P")


class Callouts:
    """A row of calls; the first exception is kept until the row is over."""

    __slots__ = ("_failure",)

    def __init__(self) -> None:
        self._failure: Exception | None = None

    def call(self, function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Call *function* and go on, whatever it raises."""
        try:
            function(*args, **kwargs)
        except Exception as error:
            self._failure = self._failure or error

    def finish(self) -> None:
        """Raise what the first failing call raised, if there was one."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
