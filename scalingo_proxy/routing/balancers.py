"""Which member is next: round robin, least requests, a random two.

A balancer serves one pool.  It is handed its randomness, and it knows
neither queue nor health: the pool tells it who may be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import reduce
from heapq import heapify, heappop, heappush
from math import gcd, inf
from random import Random
from types import MappingProxyType

from zope.interface import implementer

from scalingo_proxy.interfaces import IBalancer
from scalingo_proxy.routing.members import Member

__all__ = ["BALANCERS", "LeastRequests", "RandomTwoChoices", "RoundRobin", "turns"]


def turns(weights: Sequence[int]) -> list[int]:
    """One cycle of smooth weighted round robin: indexes into *weights*.

    Each index comes as often as its weight says (all weights divided by what
    they have in common), and at no moment is its share off by a whole turn.
    Equal weights give plain rotation.

    This is Tijdeman's answer to the chairman assignment problem (Discrete
    Mathematics 32, 1980): a turn may not come before its release, and among
    the released ones the earliest deadline goes first.  The greedy rule known
    from nginx has no such bound, and costs members × cycle instead of
    cycle × log(members).
    """
    if not weights:
        return []
    common = reduce(gcd, weights)
    shares = [weight // common for weight in weights]
    cycle = sum(shares)
    if cycle == len(shares):
        return list(range(cycle))
    slack = 2 * len(shares) - 2

    def release(index: int, taken: int) -> int:
        return -(-cycle * (1 + taken * slack) // (shares[index] * slack))

    def deadline(index: int, taken: int) -> int:
        return cycle * (slack - 1 + taken * slack) // (shares[index] * slack)

    order: list[int] = []
    taken = [0] * len(shares)
    later = [(release(index, 0), index) for index in range(len(shares))]
    heapify(later)
    ready: list[tuple[int, int]] = []
    for turn in range(1, cycle + 1):
        while later and later[0][0] <= turn:
            index = heappop(later)[1]
            heappush(ready, (deadline(index, taken[index]), index))
        index = heappop(ready)[1]
        order.append(index)
        taken[index] += 1
        heappush(later, (release(index, taken[index]), index))
    return order


class _Rotation:
    """Members in the order of their turns, and whose turn it is.

    The first turn is random: many proxies that start together must not all
    begin with the same container.  A change of the set does not start over:
    the turn stays with the member that would have been next or, if that one
    left, with the next one that stayed.

    :ivar steps: whose turn each is, and which turn follows: looked up, not worked out, for each
        request (0.1 µs less).
    """

    __slots__ = ("_random", "members", "steps", "turn")

    def __init__(self, random: Random) -> None:
        self._random = random
        self.members: tuple[Member, ...] = ()
        self.steps: tuple[tuple[Member, int], ...] = ()
        self.turn = 0

    def take_over(self, members: Sequence[Member]) -> None:
        old, turn = [member for member, _ in self.steps], self.turn
        self.members = tuple(members)
        sequence = [self.members[index] for index in turns([one.weight for one in self.members])]
        self.steps = tuple(zip(sequence, (*range(1, len(sequence)), 0), strict=False))
        staying = set(self.members)
        due = next((member for member in old[turn:] + old[:turn] if member in staying), None)
        if due is not None:
            self.turn = _position_near(sequence, due, turn * len(sequence) // len(old))
        else:
            self.turn = self._random.randrange(len(sequence)) if sequence else 0

    def take_next(self, avoid: Container[Member], load: float = inf) -> Member | None:
        """The next in turn that has room, is not avoided, and is loaded no more than *load*."""
        steps, turn = self.steps, self.turn
        for _ in steps:
            member, turn = steps[turn]
            # Member.has_room spelled out, here and below: the property costs
            # more than all the rest, and this runs for every request.
            if (
                member.in_flight < member.limit
                and member not in avoid
                and member.in_flight / member.weight <= load
            ):
                self.turn = turn
                return member
        return None


def _position_near(sequence: list[Member], member: Member, start: int) -> int:
    # With weights a member has many turns; taking the first each time
    # would favour the head of the sequence under frequent changes.
    try:
        return sequence.index(member, start)
    except ValueError:
        return sequence.index(member)


@implementer(IBalancer)
class RoundRobin(_Rotation):
    """Strict rotation in the app's order, from a random start.

    A member that is busy or avoided when its turn comes misses that turn, and
    the rotation goes on behind the one chosen in its place.
    """

    __slots__ = ()

    def members_changed(self, members: Sequence[Member]) -> None:
        """Take over the members that may be chosen, in the app's order."""
        self.take_over(members)

    def choose(self, avoid: Container[Member]) -> Member | None:
        """The next in turn that has room and is not in *avoid*, or ``None``."""
        # The usual case without one more call: whose turn it is, has room.
        steps = self.steps
        if steps:
            member, following = steps[self.turn]
            if member.in_flight < member.limit and member not in avoid:
                self.turn = following
                return member
        return self.take_next(avoid)


@implementer(IBalancer)
class LeastRequests:
    """The member with the fewest requests in flight for its weight.

    Equals take turns, as in :class:`RoundRobin`: otherwise a quiet app would
    only ever use its first member.
    """

    __slots__ = ("_rotation",)

    def __init__(self, random: Random) -> None:
        self._rotation = _Rotation(random)

    def members_changed(self, members: Sequence[Member]) -> None:
        """Take over the members that may be chosen, in the app's order."""
        self._rotation.take_over(members)

    def choose(self, avoid: Container[Member]) -> Member | None:
        """The least loaded that has room and is not in *avoid*, or ``None``."""
        least = None
        for member in self._rotation.members:
            if member.in_flight < member.limit and member not in avoid:
                if not member.in_flight:
                    return self._rotation.take_next(avoid, 0)
                if least is None or _less_loaded(member, least) is not least:
                    least = member
        if least is None:
            return None
        return self._rotation.take_next(avoid, least.in_flight / least.weight)


@implementer(IBalancer)
class RandomTwoChoices:
    """The less loaded of two members drawn at random, by weight.

    With many proxies in front of the same members it avoids the herd that
    :class:`LeastRequests` sends to whoever looks idle.
    """

    __slots__ = ("_draw", "_lots", "_members")

    def __init__(self, random: Random) -> None:
        self._draw = random.random
        self._members: tuple[Member, ...] = ()
        self._lots: tuple[Member, ...] = ()

    def members_changed(self, members: Sequence[Member]) -> None:
        """Take over the members that may be chosen."""
        self._members = tuple(members)
        common = reduce(gcd, (member.weight for member in members), 0)
        self._lots = tuple(member for member in members for _ in range(member.weight // common))

    def choose(self, avoid: Container[Member]) -> Member | None:
        """The better of two; if neither will do, any that will; or ``None``."""
        lots = self._lots
        if not lots:
            return None
        first = int(self._draw() * len(lots))
        second = int(self._draw() * (len(lots) - 1))
        one, other = lots[first], lots[second + 1 if second >= first and len(lots) > 1 else second]
        one_fits = one.in_flight < one.limit and one not in avoid
        other_fits = other.in_flight < other.limit and other not in avoid
        if one_fits and other_fits:
            return _less_loaded(one, other)
        if one_fits:
            return one
        if other_fits:
            return other
        fitting = [
            member for member in self._members if member.in_flight < member.limit and member not in avoid
        ]
        return fitting[int(self._draw() * len(fitting))] if fitting else None


def _less_loaded(one: Member, other: Member) -> Member:
    return one if one.in_flight * other.weight <= other.in_flight * one.weight else other


#: What ``balancer`` of an app may say.
BALANCERS: Mapping[str, Callable[[Random], IBalancer]] = MappingProxyType(
    {"round_robin": RoundRobin, "least_requests": LeastRequests, "random_two": RandomTwoChoices}
)
