"""A mapping that never changes, of which a changed one is made cheaply.

It is cut into many small dicts.  A changed mapping copies only those that it
touches and shares all others, so that one change among 100,000 entries costs
about as much as one among ten.  It knows nothing about apps or domains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

__all__ = ["SHARD_MASK", "ShardedMap", "differing_parts"]

V = TypeVar("V")
T = TypeVar("T")

# 1024 shards hold about 100 of 100,000 entries each: copying one of them and
# the tuple of all of them both take a few microseconds.
_SHARD_COUNT = 1024

#: ``hash(key) & SHARD_MASK`` is the index of the shard that holds a key.
SHARD_MASK = _SHARD_COUNT - 1

_EMPTY: tuple[dict[str, Any], ...] = ({},) * _SHARD_COUNT


class ShardedMap(Mapping[str, V], Generic[V]):
    """A frozen mapping from text; iterates in the order of its keys.

    :ivar shards: the parts, for readers that cannot afford a method call;
        nobody changes them.
    """

    __slots__ = ("_size", "shards")

    def __init__(self, shards: tuple[dict[str, V], ...] = _EMPTY, size: int = 0) -> None:
        self.shards = shards
        self._size = size

    def __getitem__(self, key: str) -> V:
        return self.shards[hash(key) & SHARD_MASK][key]

    @overload
    def get(self, key: str, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: str, default: V | T, /) -> V | T: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        """As of any mapping; the inherited one would raise and catch for each miss."""
        return self.shards[hash(key) & SHARD_MASK].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.shards[hash(key) & SHARD_MASK]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        # Hashes differ from one process to the next; an order that does not
        # is worth a sort, since only listings iterate.
        return iter(sorted(key for shard in self.shards for key in shard))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._size}>"

    def changed(self, values: Mapping[str, V], removed: Iterable[str] = ()) -> ShardedMap[V]:
        """A mapping without the keys *removed* and with *values* put in, in this order."""
        shards = list(self.shards)
        copied: set[int] = set()
        size = self._size

        def shard_of(key: str) -> dict[str, V]:
            index = hash(key) & SHARD_MASK
            if index not in copied:
                copied.add(index)
                shards[index] = shards[index].copy()
            return shards[index]

        for key in removed:
            if shard_of(key).pop(key, None) is not None:
                size -= 1
        for key, value in values.items():
            shard = shard_of(key)
            size += key not in shard
            shard[key] = value
        return ShardedMap(tuple(shards), size)


def differing_parts(
    old: Mapping[str, V], new: Mapping[str, V]
) -> Iterator[tuple[Mapping[str, V], Mapping[str, V]]]:
    """Pairs of parts that hold all differences; what both share is left out."""
    if isinstance(old, ShardedMap) and isinstance(new, ShardedMap):
        for before, after in zip(old.shards, new.shards, strict=True):
            if before is not after:
                yield before, after
    elif old is not new:
        yield old, new
