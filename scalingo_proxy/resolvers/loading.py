"""Waiting for a source of routes that has not told its apps yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from scalingo_proxy.errors import ResolverUnavailable
from scalingo_proxy.model import Route

__all__ = ["Loading", "Loads", "answer_after"]


@runtime_checkable
class Loads(Protocol):
    """A source of routes that can answer only once it has loaded."""

    @property
    def is_loaded(self) -> bool:
        """Whether it has."""

    def when_loaded(self) -> Deferred[None]:
        """Fires once it has; fails when it cannot."""


class Loading:
    """Whether a source has loaded, and everybody who waits for it.

    Who asks while it has not begun or is under way waits; who asks after it
    failed is told so at once, until it is begun again.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._error: Exception | None = None
        # A dict for the order and the cheap removal: a slow start of a busy
        # proxy lets many wait, and any of them may leave.
        self._waiting: dict[Deferred[None], None] = {}

    def wait(self) -> Deferred[None]:
        """A Deferred of the end; it may be cancelled and harms nobody else."""
        if self.is_done:
            return succeed(None)
        if self._error is not None:
            return fail(self._error)
        waiting: Deferred[None] = Deferred(lambda waiting: self._waiting.pop(waiting, None))
        self._waiting[waiting] = None
        return waiting

    def begin(self) -> None:
        """It is tried (again): whoever asks from now on waits."""
        self._error = None

    def finish(self) -> None:
        """It has loaded."""
        self.is_done = True
        for waiting in self._released():
            waiting.callback(None)

    def abandon(self, error: Exception) -> None:
        """It could not be loaded."""
        self._error = error
        for waiting in self._released():
            waiting.errback(error)

    def _released(self) -> tuple[Deferred[None], ...]:
        released = tuple(self._waiting)
        self._waiting.clear()
        return released


def answer_after(loaded: Deferred[None], answer: Callable[[], Route | Deferred[Route]]) -> Deferred[Route]:
    """What *answer* gives once *loaded* has fired.

    :raises ResolverUnavailable: (the Deferred fails with it) when *loaded*
        fails, unless it is cancelled.
    """

    def unavailable(failure: Failure) -> Failure:
        if isinstance(failure.value, CancelledError):
            return failure
        raise ResolverUnavailable("the routes could not be loaded") from failure.value

    def answered(_: None) -> Any:
        return answer()

    return loaded.addCallbacks(answered, unavailable)
