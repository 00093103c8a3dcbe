"""Tests for :mod:`scalingo_proxy.routing.fair_queue`."""

from __future__ import annotations

from hypothesis import given
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

    def test_leaving(self) -> None:
        """Who leaves has no turn, once."""
        queue = filled(*crowd(3, "192.0.2.1", "a"))
        self.assertEqual([queue.remove("crowd 1"), queue.remove("crowd 1")], [True, False])
        self.assertEqual([queue.take(), queue.take()], ["crowd 0", "crowd 2"])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("put", "take", "drop", "remove")), st.integers(0, 3), st.integers(0, 3)
            )
        )
    )
    def test_everybody_once(self, steps: list[tuple[str, int, int]]) -> None:
        """Each who came goes exactly once, whatever happens in between."""
        queue: FairQueue[int] = FairQueue()
        waiting: set[int] = set()
        for number, (step, address, app) in enumerate(steps):
            if step == "put":
                queue.put(number, f"192.0.2.{address}" if address else "", f"app {app}")
                waiting.add(number)
            elif step == "remove":
                self.assertEqual(queue.remove(address), address in waiting)
                waiting.discard(address)
            elif waiting:
                waiting.remove(queue.take() if step == "take" else queue.drop())
            self.assertEqual(len(queue), len(waiting))
