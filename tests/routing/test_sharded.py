"""The frozen mapping under the route table."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.sharded import ShardedMap, differing_parts

KEYS = st.text(alphabet="abc", max_size=3)
CHANGES = st.lists(st.tuples(st.dictionaries(KEYS, st.integers()), st.lists(KEYS)), max_size=6)


class ShardedMapTests(SynchronousTestCase):
    """A changed mapping, and the one it came from."""

    @settings(max_examples=150, deadline=None)
    @given(CHANGES)
    def test_behaves_as_a_dict(self, changes: list[tuple[dict[str, int], list[str]]]) -> None:
        """After any changes it holds what a dict would, and earlier ones hold what they held."""
        model: dict[str, int] = {}
        history = [(dict(model), ShardedMap[int]())]
        for values, removed in changes:
            for key in removed:
                model.pop(key, None)
            model.update(values)
            history.append((dict(model), history[-1][1].changed(values, removed)))
        for expected, mapping in history:
            self.assertEqual(dict(mapping), expected)
            self.assertEqual(len(mapping), len(expected))
            for key in ("a", "b", "zz"):
                self.assertEqual(key in mapping, key in expected)
                self.assertEqual(mapping.get(key, -1), expected.get(key, -1))

    def test_order(self) -> None:
        """It iterates in the order of its keys, whatever their hashes."""
        keys = [f"key-{n:03}" for n in range(200)]
        self.assertEqual(list(ShardedMap[int]().changed(dict.fromkeys(reversed(keys), 1))), keys)

    def test_repr(self) -> None:
        """It tells how much is in it, not what: there may be very much."""
        self.assertEqual(repr(ShardedMap[int]().changed({"a": 1, "b": 2})), "<ShardedMap of 2>")

    def test_missing_key(self) -> None:
        """A key that is not there raises KeyError."""
        self.assertRaises(KeyError, lambda: ShardedMap[int]()["a"])

    def test_shares_what_did_not_change(self) -> None:
        """One change copies one shard; all others are the very same objects."""
        old = ShardedMap[int]().changed({f"key-{n}": n for n in range(5000)})
        new = old.changed({"key-7": -7})
        copied = [index for index, shard in enumerate(new.shards) if shard is not old.shards[index]]
        self.assertEqual(len(copied), 1)
        self.assertEqual(len(list(differing_parts(old, new))), 1)
