"""Whose turn it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.interfaces import IBalancer
from scalingo_proxy.model import Backend
from scalingo_proxy.routing.balancers import BALANCERS, LeastRequests, RandomTwoChoices, RoundRobin, turns
from scalingo_proxy.routing.members import Member


def make_members(*weights: int, limit: int = 1000) -> list[Member]:
    return [
        Member(Backend(f"10.0.0.{number}", 80, weight), limit, 0.0)
        for number, weight in enumerate(weights, start=1)
    ]


def fill(member: Member) -> None:
    member.in_flight = member.limit


def rotation(members: list[Member], seed: int = 1) -> RoundRobin:
    balancer = RoundRobin(Random(seed))
    balancer.members_changed(members)
    return balancer


class EveryBalancerTests(SynchronousTestCase):
    def test_provide_the_interface(self) -> None:
        """What BALANCERS names are providers of IBalancer."""
        for factory in BALANCERS.values():
            self.assertTrue(verifyObject(IBalancer, factory(Random(1))))

    def test_nobody_to_choose(self) -> None:
        """Before the first members, and after the last one left, nobody is chosen."""
        for factory in BALANCERS.values():
            balancer = factory(Random(1))
            self.assertIsNone(balancer.choose(()))
            balancer.members_changed(make_members(1, 3))
            self.assertIsNotNone(balancer.choose(()))
            balancer.members_changed([])
            self.assertIsNone(balancer.choose(()))

    @given(
        st.sampled_from(sorted(BALANCERS)),
        st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.booleans()), min_size=1, max_size=6),
        st.integers(0, 2**32),
    )
    @settings(deadline=None)
    def test_whoever_fits_is_found(self, name: str, shape: list[tuple[int, bool, bool]], seed: int) -> None:
        """A member with room that is not avoided is chosen whenever there is one, and no other ever."""
        members = make_members(*(weight for weight, _, _ in shape))
        balancer = BALANCERS[name](Random(seed))
        balancer.members_changed(members)
        for member, (_, is_busy, _) in zip(members, shape, strict=True):
            if is_busy:
                fill(member)
        avoid = tuple(member for member, (_, _, avoided) in zip(members, shape, strict=True) if avoided)
        fitting = [member for member in members if member.has_room and member not in avoid]
        for _ in range(10):
            chosen = balancer.choose(avoid)
            if fitting:
                self.assertIn(chosen, fitting)
            else:
                self.assertIsNone(chosen)


class TurnsTests(SynchronousTestCase):
    def test_equal_weights_rotate(self) -> None:
        """Equal weights, whatever they are, give one turn each in order."""
        self.assertEqual([0, 1, 2], turns([7, 7, 7]))

    def test_one_needs_one_turn(self) -> None:
        """A single member has a cycle of one turn, whatever its weight."""
        self.assertEqual([0], turns([42]))

    def test_nobody_has_no_turns(self) -> None:
        """No members, no cycle."""
        self.assertEqual([], turns([]))

    def test_weights_are_reduced(self) -> None:
        """Weights with a common divisor do not lengthen the cycle."""
        self.assertEqual(turns([2, 1]), turns([100, 50]))

    def test_heavy_turns_are_spread(self) -> None:
        """A heavy member's turns are interleaved with the others', not in a block."""
        order = turns([5, 1, 1])
        self.assertEqual({0: 5, 1: 1, 2: 1}, Counter(order))
        self.assertNotIn("0000", "".join(map(str, order + order)))

    @given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
    @settings(max_examples=60, deadline=None)
    def test_no_share_is_ever_off_by_a_turn(self, weights: list[int]) -> None:
        """After any number of turns, everybody's count differs from its exact share by less than one."""
        order = turns(weights)
        counts = [0] * len(weights)
        for done, index in enumerate(order, start=1):
            counts[index] += 1
            for weight, count in zip(weights, counts, strict=True):
                self.assertLess(abs(count - Fraction(done * weight, sum(weights))), 1)
        for weight, count in zip(weights, counts, strict=True):
            self.assertEqual(count * sum(weights), weight * len(order))


class RoundRobinTests(SynchronousTestCase):
    def test_in_order(self) -> None:
        """Members take turns in the app's order."""
        members = make_members(1, 1, 1)
        balancer = rotation(members)
        first = members.index(balancer.choose(()))
        for step in range(1, 7):
            self.assertIs(members[(first + step) % 3], balancer.choose(()))

    def test_starts_anywhere(self) -> None:
        """The first turn is drawn from the randomness handed in."""
        members = make_members(1, 1, 1)
        starts = {rotation(members, seed).choose(()) for seed in range(30)}
        self.assertEqual(set(members), starts)

    def test_goes_on_behind_the_one_chosen(self) -> None:
        """Whoever stands in for a busy member has had its own turn."""
        members = one, two, three = make_members(1, 1, 1)
        balancer = rotation(list(members))
        while balancer.choose(()) is not three:
            pass
        fill(one)
        self.assertEqual([two, three, two, three], [balancer.choose(()) for _ in range(4)])
        one.in_flight = 0
        self.assertEqual([one, two, three], [balancer.choose(()) for _ in range(3)])

    def test_nobody_chosen_nobody_passed_over(self) -> None:
        """An attempt that finds everybody busy does not move the turn."""
        members = one, two = make_members(1, 1)
        balancer = rotation(list(members))
        while balancer.choose(()) is not two:
            pass
        fill(one)
        fill(two)
        self.assertIsNone(balancer.choose(()))
        one.in_flight = two.in_flight = 0
        self.assertIs(one, balancer.choose(()))

    def test_change_keeps_the_turn(self) -> None:
        """Members that join or leave do not send the rotation back to its start."""
        one, two, three, four = make_members(1, 1, 1, 1)
        balancer = rotation([one, two, three])
        while balancer.choose(()) is not one:
            pass
        balancer.members_changed([one, two, three, four])
        self.assertEqual([two, three], [balancer.choose(()), balancer.choose(())])
        balancer.members_changed([one, two, three])
        self.assertIs(one, balancer.choose(()), "the one due left: the next that stayed")
        balancer.members_changed([three, two, one])
        self.assertEqual([two, one, three], [balancer.choose(()) for _ in range(3)])

    def test_wholly_new_members_start_anywhere(self) -> None:
        """When nobody stayed, the start is random again."""
        starts = set()
        for seed in range(30):
            balancer = rotation(make_members(1, 1), seed)
            fresh = make_members(1, 1, 1)
            balancer.members_changed(fresh)
            starts.add(fresh.index(balancer.choose(())))
        self.assertEqual({0, 1, 2}, starts)

    def test_weights_survive_constant_change(self) -> None:
        """Light members get their turns even if the set is replaced after every request."""
        heavy, light = make_members(9, 1)
        balancer = rotation([heavy, light])
        counts: Counter[object] = Counter()
        for _ in range(100):
            counts[balancer.choose(())] += 1
            balancer.members_changed([heavy, light])
        self.assertEqual({heavy: 90, light: 10}, counts)

    @given(
        st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=6),
        st.lists(st.integers(0, 12), min_size=6, max_size=6),
        st.integers(0, 2**32),
    )
    @settings(deadline=None)
    def test_strict_through_changes(self, sets: list[set[int]], requests: list[int], seed: int) -> None:
        """Between two changes all counts are within one, and a change never skips who was due."""
        everybody = make_members(*[1] * 8)
        balancer = RoundRobin(Random(seed))
        due: list[Member] = []
        for numbers, count in zip(sets, requests, strict=False):
            members = [everybody[number] for number in sorted(numbers)]
            balancer.members_changed(members)
            chosen = [balancer.choose(()) for _ in range(count)]
            counts = Counter(chosen)
            served = [counts[member] for member in members]
            self.assertLessEqual(max(served) - min(served), 1)
            stayed = [member for member in due if member in members]
            if stayed and chosen:
                self.assertIs(stayed[0], chosen[0])
            due = self.order_after(members, chosen, stayed)

    def order_after(
        self, members: list[Member], chosen: Iterable[object], stayed: list[Member]
    ) -> list[Member]:
        """The order in which *members* are due when *chosen* were served."""
        last = list(chosen)[-1:]
        if last:
            start = members.index(last[0]) + 1
        elif stayed:
            start = members.index(stayed[0])
        else:
            return []
        return members[start:] + members[:start]


class LeastRequestsTests(SynchronousTestCase):
    def balancer(self, members: list[Member]) -> LeastRequests:
        balancer = LeastRequests(Random(3))
        balancer.members_changed(members)
        return balancer

    def test_least_loaded(self) -> None:
        """Whoever has the fewest requests is next."""
        members = one, two, three = make_members(1, 1, 1)
        one.in_flight, two.in_flight, three.in_flight = 3, 1, 2
        self.assertIs(two, self.balancer(list(members)).choose(()))
        self.assertIs(three, self.balancer(list(members)).choose((two,)))

    def test_load_is_by_weight(self) -> None:
        """Two requests at a member of weight three are less than one at a member of weight one."""
        members = heavy, light = make_members(3, 1)
        heavy.in_flight, light.in_flight = 2, 1
        self.assertIs(heavy, self.balancer(list(members)).choose(()))

    def test_equals_take_turns(self) -> None:
        """A quiet app uses all its members, each by its weight."""
        members = heavy, light = make_members(2, 1)
        balancer = self.balancer(list(members))
        counts = Counter(balancer.choose(()) for _ in range(30))
        self.assertEqual({heavy: 20, light: 10}, counts)

    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 100)), min_size=1, max_size=6))
    @settings(deadline=None)
    def test_exact_for_any_load(self, loads: list[tuple[int, int]]) -> None:
        """Whatever the loads and weights, the one chosen is a least loaded one."""
        members = make_members(*(weight for _, weight in loads))
        for member, (in_flight, _) in zip(members, loads, strict=True):
            member.in_flight = in_flight
        chosen = self.balancer(members).choose(())
        assert chosen is not None
        least = min(Fraction(member.in_flight, member.weight) for member in members)
        self.assertEqual(least, Fraction(chosen.in_flight, chosen.weight))


class RandomTwoChoicesTests(SynchronousTestCase):
    def balancer(self, members: list[Member]) -> RandomTwoChoices:
        balancer = RandomTwoChoices(Random(5))
        balancer.members_changed(members)
        return balancer

    def test_never_the_worst_of_two(self) -> None:
        """Of two members the less loaded one is always chosen."""
        members = busy, idle = make_members(1, 1)
        busy.in_flight = 1
        balancer = self.balancer(list(members))
        self.assertEqual({idle}, {balancer.choose(()) for _ in range(30)})

    def test_everybody_gets_some(self) -> None:
        """Idle members are all drawn, in proportion to their weight."""
        members = heavy, light, other = make_members(8, 1, 1)
        balancer = self.balancer(list(members))
        counts = Counter(balancer.choose(()) for _ in range(1000))
        self.assertGreater(counts[heavy], 700)
        self.assertGreater(min(counts[light], counts[other]), 50)
