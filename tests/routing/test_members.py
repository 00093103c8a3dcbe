"""A member's two machines, and drains."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Backend
from scalingo_proxy.routing.callouts import Callouts
from scalingo_proxy.routing.members import Drain, HealthState, Member, Membership


def make_member(limit: int = 2) -> Member:
    return Member(Backend("10.0.0.1", 80, 3), limit, 5.0)


class MemberTests(SynchronousTestCase):
    def test_starts_serving_and_unproven(self) -> None:
        """A new member serves, and nothing is known of its answers."""
        member = make_member()
        self.assertIs(Membership.SERVING, member.membership)
        self.assertIs(HealthState.UNPROVEN, member.health)
        self.assertEqual((5.0, 5.0, 3), (member.membership_since, member.health_since, member.weight))

    def test_room(self) -> None:
        """There is room below the limit, and tunnels take none."""
        member = make_member(limit=2)
        member.in_flight = 1
        member.tunnels = 9
        self.assertTrue(member.has_room)
        member.in_flight = 2
        self.assertFalse(member.has_room)

    def test_drained(self) -> None:
        """Drained means: the app has it no longer, and no request and no tunnel is left."""
        member = make_member()
        self.assertFalse(member.is_drained)
        member.membership = Membership.DRAINING
        self.assertTrue(member.is_drained)
        member.tunnels = 1
        self.assertFalse(member.is_drained)
        member.tunnels, member.in_flight = 0, 1
        self.assertFalse(member.is_drained)

    def test_weight_within_bounds(self) -> None:
        """A weight that no record would be allowed counts as the nearest that is."""
        for weight, expected in ((-1, 1), (0, 1), (1, 1), (100, 100), (10**9, 100)):
            self.assertEqual(expected, Member(Backend("a", 1, weight), 1, 0.0).weight)

    def test_identity(self) -> None:
        """Two members with one address are two."""
        self.assertNotEqual(make_member(), make_member())

    def test_repr(self) -> None:
        """It shows what an operator asks first."""
        self.assertEqual("<Member 10.0.0.1:80 serving unproven in_flight=0 tunnels=0>", repr(make_member()))


class DrainTests(SynchronousTestCase):
    def test_nobody_to_wait_for(self) -> None:
        """A drain of nobody is done, and says so at once."""
        told: list[str] = []
        drain = Drain()
        self.assertTrue(drain.is_done)
        drain.when_done(lambda: told.append("done"))
        self.assertEqual(["done"], told)

    def test_waits_for_the_last(self) -> None:
        """Callbacks are made once, when the last member is gone."""
        told: list[str] = []
        members = make_member(), make_member()
        drain = Drain(members)
        drain.when_done(lambda: told.append("done"))
        for member in members:
            self.assertEqual((False, []), (drain.is_done, told))
            member.membership = Membership.GONE
            drain.member_gone(Callouts())
        drain.member_gone(Callouts())
        self.assertEqual((True, ["done"]), (drain.is_done, told))
