"""Tests for :mod:`scalingo_proxy.routing.fair_queue`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.fair_queue import FairQueue


def filled(*whose: tuple[str, str, str]) -> FairQueue[str]:
    """A queue of these, each with its address and app."""
    queue: FairQueue[str] = FairQueue()
    for each in whose:
        queue.put(*each)
    return queue


def crowd(count: int, address: str = "", app: str = "") -> list[tuple[str, str, str]]:
    """So many, from one address or from as many as they are, for one app or for as many."""
    return [
        (f"crowd {number}", address or f"192.0.2.{number}", app or f"app {number}") for number in range(count)
    ]


class SlowQueue:
    """What a fair queue does, written so that it can be seen to be right: it looks at everybody."""

    def __init__(self) -> None:
        self.groups: tuple[dict[str, list[int]], ...] = ({}, {})
        self.sized: dict[tuple[int, str], int] = {}  # when a group came to its size
        self.turn = self.moments = 0

    def put(self, whose: int, address: str, app: str) -> None:
        for kind, name in enumerate((address or f"app {app}", app)):
            self.groups[kind].setdefault(name, []).append(whose)
            self._step(kind, name)

    def take(self) -> int:
        groups, self.turn = self.groups[self.turn], 1 - self.turn
        name = next(iter(groups))
        groups[name] = groups.pop(name)
        whose = groups[name][0]
        self.remove(whose)
        return whose

    def drop(self) -> int:
        _, _, group = max(
            (len(group), self.sized[kind, name], group)
            for kind, groups in enumerate(self.groups)
            for name, group in groups.items()
        )
        whose = group[-1]
        self.remove(whose)
        return whose

    def remove(self, whose: int) -> bool:
        found = [
            (kind, name)
            for kind, groups in enumerate(self.groups)
            for name, group in groups.items()
            if whose in group
        ]
        for kind, name in found:
            self.groups[kind][name].remove(whose)
            self._step(kind, name)
            if not self.groups[kind][name]:
                del self.groups[kind][name]
        return bool(found)

    def _step(self, kind: int, name: str) -> None:
        self.moments += 1
        self.sized[kind, name] = self.moments


class FairQueueTests(SynchronousTestCase):
    """Whose turn it is, and who has to go."""

    def taken_before(self, queue: FairQueue[str], whose: str) -> int:
        """How many come before *whose*."""
        count = 0
        while queue.take() != whose:
            count += 1
        return count

    def test_in_order(self) -> None:
        """Who has the same address and app waits in line."""
        queue = filled(*crowd(5, "192.0.2.1", "hello"))
        self.assertEqual([queue.take() for _ in range(5)], [f"crowd {number}" for number in range(5)])
        self.assertEqual(len(queue), 0)
        self.assertRaises(StopIteration, queue.take)

    def test_crowds(self) -> None:
        """Whatever a crowd has in common, somebody else waits for two of them, however many they are."""
        crowds = {
            "one address, one app": crowd(200, "192.0.2.1", "flooded"),
            "one address, any apps": crowd(200, "192.0.2.1"),
            "any addresses, one app": crowd(200, app="flooded"),
        }
        for name, its in crowds.items():
            queue = filled(*its, ("good", "198.51.100.1", "good"))
            self.assertLessEqual(self.taken_before(queue, "good"), 3, name)

    def test_goes_round(self) -> None:
        """Who comes again and again has a turn of several, not each first one."""
        queue = filled(*crowd(3, "192.0.2.1", "a"), ("b 0", "192.0.2.2", "b"))
        order = []
        for number in range(1, 4):
            order.append(queue.take())
            queue.put(f"b {number}", "192.0.2.2", "b")
        self.assertEqual(order, ["crowd 0", "crowd 1", "b 0"])

    def test_many_behind_one_address(self) -> None:
        """Behind a proxy in front, whose address does not count, apps do."""
        queue = filled(*[(f"crowd {number}", "", "flooded") for number in range(200)], ("good", "", "good"))
        self.assertEqual(
            {queue.drop() for _ in range(100)}, {f"crowd {number}" for number in range(100, 200)}
        )
        self.assertLessEqual(self.taken_before(queue, "good"), 3)

    def test_drops_of_the_crowd(self) -> None:
        """The last of the address, or of the app, that most wait for."""
        good = ("good", "198.51.100.1", "good")
        for its in (crowd(20, "192.0.2.1"), crowd(20, app="flooded")):
            queue = filled(*its, good)
            self.assertEqual([queue.drop() for _ in range(3)], ["crowd 19", "crowd 18", "crowd 17"])
        self.assertRaises(ValueError, filled().drop)

    def test_drops_of_crowds_that_are_alike(self) -> None:
        """Each loses as many; of people who have nothing in common it is whoever came last."""
        queue = filled(*[(f"{name} {number}", name, name) for number in range(9) for name in "ab"])
        for _ in range(9):
            self.assertEqual({queue.drop()[0], queue.drop()[0]}, {"a", "b"})
        queue = filled(*crowd(5))
        self.assertEqual([queue.drop() for _ in range(2)], ["crowd 4", "crowd 3"])

    def test_leaving(self) -> None:
        """Who leaves has no turn, once."""
        queue = filled(*crowd(3, "192.0.2.1", "a"))
        self.assertEqual([queue.remove("crowd 1"), queue.remove("crowd 1")], [True, False])
        self.assertEqual([queue.take(), queue.take()], ["crowd 0", "crowd 2"])

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("put", "put", "take", "drop", "remove")),
                st.integers(0, 3),
                st.integers(0, 3),
            )
        )
    )
    def test_as_the_slow_one(self, steps: list[tuple[str, int, int]]) -> None:
        """Each who came goes exactly once, when it should, whatever happens in between."""
        queue: FairQueue[int] = FairQueue()
        slow = SlowQueue()
        waiting: set[int] = set()
        for number, (step, address, app) in enumerate(steps):
            if step == "put":
                for each in (queue, slow):
                    each.put(number, f"192.0.2.{address}" if address else "", f"app {app}")
                waiting.add(number)
            elif step == "remove":
                self.assertEqual(queue.remove(address), slow.remove(address))
                waiting.discard(address)
            elif waiting:
                gone = queue.take() if step == "take" else queue.drop()
                self.assertEqual(gone, slow.take() if step == "take" else slow.drop())
                waiting.remove(gone)
            self.assertEqual(len(queue), len(waiting))
