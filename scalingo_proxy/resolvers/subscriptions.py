"""Those who are told of changes, or asked before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Subscriptions"]

F = TypeVar("F", bound=Callable[..., object])


class Subscriptions(Generic[F]):
    """Callbacks in the order in which they came; each may leave at any time."""

    def __init__(self) -> None:
        self._callbacks: dict[object, F] = {}

    def add(self, callback: F) -> Callable[[], None]:
        token = object()
        self._callbacks[token] = callback

        def leave() -> None:
            self._callbacks.pop(token, None)

        return leave

    def __iter__(self) -> Iterator[F]:
        for token in tuple(self._callbacks):
            callback = self._callbacks.get(token)
            if callback is not None:
                yield callback
