"""Who belongs to a pool, and who is told."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Backend, BackendTrust
from scalingo_proxy.routing.members import Drain, Membership
from scalingo_proxy.routing.roster import Roster


def backends(*texts: str) -> list[Backend]:
    return [Backend.parse(text) for text in texts]


class RosterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.roster = Roster()
        self.events: list[tuple[str, str]] = []
        self.roster.watch(lambda member, event: self.events.append((member.backend.address, event)))

    def replace(self, *texts: str, now: float = 1.0) -> Drain:
        return self.roster.replace(backends(*texts), 50, now)

    def test_same_address_same_member(self) -> None:
        """A backend that stays keeps its member, wherever it stands in the list."""
        self.replace("a:1", "b:1")
        a, b = self.roster.members
        drain = self.replace("b:1", "a:1")
        self.assertEqual((b, a), self.roster.members)
        self.assertEqual((), drain.members)

    def test_nothing_new(self) -> None:
        """The same backends again are no change."""
        self.replace("a:1", "b:1")
        before = self.roster.members
        self.assertEqual((), self.replace("a:1", "b:1").members)
        self.assertEqual(before, self.roster.members)

    def test_new_weight(self) -> None:
        """The same member takes over a new weight."""
        self.replace("a:1")
        member = self.roster.members[0]
        self.roster.replace([Backend("a", 1, 7)], 50, 2.0)
        self.assertEqual(((member,), 7), (self.roster.members, member.weight))
        self.assertEqual(7, member.backend.weight)

    def test_said_twice(self) -> None:
        """An address that is listed twice is one member, as it was listed first."""
        self.roster.replace([Backend("a", 1, 2), Backend("a", 1, 9)], 50, 1.0)
        self.assertEqual([2], [member.weight for member in self.roster.members])

    def test_with_and_without_tls(self) -> None:
        """The same address with TLS is another member."""
        self.replace("a:443", "https://a:443")
        plain, secret = self.roster.members
        drain = self.replace("https://a:443")
        self.assertEqual(((plain,), (secret,)), (drain.members, self.roster.members))

    def test_another_rule(self) -> None:
        """A backend that is verified by another rule is another member; the old one drains."""
        self.replace("https://a:443")
        former = self.roster.members
        drain = self.roster.replace([Backend("a", 443, tls=True, trust=BackendTrust(name="b"))], 50, 2.0)
        self.assertEqual(former, drain.members)
        self.assertNotEqual(former, self.roster.members)

    def test_idle_members_go_at_once(self) -> None:
        """A member without a request drains and is gone in one step."""
        self.replace("a:1", "b:1")
        a = self.roster.members[0]
        drain = self.replace("b:1", now=4.0)
        self.assertEqual(((a,), True), (drain.members, drain.is_done))
        self.assertEqual((Membership.GONE, 4.0, ()), (a.membership, a.membership_since, self.roster.draining))

    def test_busy_members_drain(self) -> None:
        """A member with a request stays on the list of those who drain until it is let go."""
        self.replace("a:1")
        member = self.roster.members[0]
        member.in_flight = 1
        drain = self.replace(now=4.0)
        self.assertEqual(((), (member,), False), (self.roster.members, self.roster.draining, drain.is_done))
        self.assertEqual((Membership.DRAINING, 4.0), (member.membership, member.membership_since))
        self.assertEqual((member,), self.roster.everybody())
        self.roster.let_go(member, 9.0)
        self.assertEqual(((), True, 9.0), (self.roster.draining, drain.is_done, member.membership_since))

    def test_address_comes_back(self) -> None:
        """An address that comes back is a new member; the old one still drains and goes."""
        self.replace("a:1")
        old = self.roster.members[0]
        old.in_flight = 1
        drain = self.replace()
        self.replace("a:1")
        (new,) = self.roster.members
        self.assertIsNot(old, new)
        self.assertEqual((0, (old,)), (new.in_flight, self.roster.draining))
        self.roster.let_go(old, 2.0)
        self.assertEqual((True, (new,)), (drain.is_done, self.roster.members))

    def test_told_in_order(self) -> None:
        """Watchers hear nothing before tell(), and then everything in order."""
        self.replace("a:1", "b:1")
        self.replace("b:1")
        self.assertEqual([], self.events)
        self.roster.tell()
        self.roster.tell()
        self.assertEqual(
            [("a:1", "joined"), ("b:1", "joined"), ("a:1", "draining"), ("a:1", "gone")], self.events
        )

    def test_order_survives_reentrance(self) -> None:
        """A watcher that changes the roster does not make anybody hear news out of order."""

        def meddle(member: Any, event: str) -> None:
            if (member.backend.address, event) == ("a:1", "joined"):
                self.replace("c:1")
                self.roster.tell()

        heard_last: list[tuple[str, str]] = []
        self.roster.watch(meddle)
        self.roster.watch(lambda member, event: heard_last.append((member.backend.address, event)))
        self.replace("a:1", "b:1")
        self.roster.tell()
        self.assertEqual(
            [
                ("a:1", "joined"),
                ("b:1", "joined"),
                ("c:1", "joined"),
                ("a:1", "draining"),
                ("a:1", "gone"),
                ("b:1", "draining"),
                ("b:1", "gone"),
            ],
            heard_last,
        )
        self.assertEqual(heard_last, self.events)

    def test_stop_watching(self) -> None:
        """A watcher that stopped hears nothing, and may stop twice."""
        heard: list[str] = []
        stop = self.roster.watch(lambda member, event: heard.append(event))
        stop()
        stop()
        self.replace("a:1")
        self.roster.tell()
        self.assertEqual(([], [("a:1", "joined")]), (heard, self.events))

    def test_a_failing_watcher(self) -> None:
        """A watcher that raises is reported, after the others and the drain were told."""
        self.roster.watch(lambda member, event: 1 / 0)
        done: list[str] = []
        self.replace("a:1")
        self.assertRaises(ZeroDivisionError, self.roster.tell)
        member = self.roster.members[0]
        member.in_flight = 1
        drain = self.replace()
        drain.when_done(lambda: done.append("done"))
        self.roster.let_go(member, 1.0)
        self.assertRaises(ZeroDivisionError, self.roster.tell)
        self.assertEqual((3, ["done"]), (len(self.events), done))
