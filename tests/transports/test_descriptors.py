"""What descriptors can be spared for, and how their numbers are found out."""

from __future__ import annotations

import os
import resource

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.transports import descriptors as module
from scalingo_proxy.transports.descriptors import (
    Descriptors,
    RecentDescriptors,
    limit_for,
    raise_limit,
    read_descriptors,
)


class RoomTests(SynchronousTestCase):
    """Arithmetic on two numbers."""

    def test_reserve(self) -> None:
        """A part of the limit, neither tiny nor huge, and never most of it."""
        for limit, reserve in ((30, 10), (64, 21), (128, 24), (256, 32), (1024, 128), (20_000, 512)):
            self.assertEqual(Descriptors(limit, 0).reserve, reserve)

    def test_room_for_clients(self) -> None:
        """Each client needs two: one for itself and one for its backend; so do those who are here."""
        for used, owed, room in (
            (14, 0, 45),
            (14, 10, 40),
            (100, 0, 2),
            (100, 3, 0),
            (104, 0, 0),
            (128, 60, 0),
        ):
            self.assertEqual(Descriptors(128, used).room_for_clients(owed), room, (used, owed))

    def test_no_overshoot(self) -> None:
        """Whatever comes in by turns, and whenever it connects, the reserve is never touched."""
        for limit in (40, 128, 256, 1024):
            for batch in (1, 7, 100):
                used, owed = 12, 0
                for turn in range(1000):
                    come = min(batch, Descriptors(limit, used).room_for_clients(owed))
                    connect = owed // 2 if turn % 3 else 0
                    used, owed = used + come + connect, owed + come - connect
                now = Descriptors(limit, used + owed)
                self.assertGreaterEqual(limit - now.used, now.reserve)
                self.assertEqual(Descriptors(limit, used).room_for_clients(owed), 0)

    def test_order(self) -> None:
        """Clients go without first, then pipes, then further connections to backends."""
        short = Descriptors(128, 128 - 20)
        self.assertEqual(short.room_for_clients(0), 0)
        self.assertTrue(short.has_room_for_pipe(0))
        self.assertFalse(short.has_room_for_pipe(10))
        shorter = Descriptors(128, 128 - 13)
        self.assertFalse(shorter.has_room_for_pipe(0))
        self.assertTrue(shorter.has_room_for_backend())
        self.assertFalse(Descriptors(128, 128 - 12).has_room_for_backend())

    def test_limit_for(self) -> None:
        """With that limit, so many clients fit beside all the rest."""
        for clients in (1, 20, 1000, 10_000, 1_000_000):
            now = Descriptors(limit_for(clients), 32)
            self.assertIn(now.room_for_clients(0) - clients, (0, 1, 2))


class ReadingTests(SynchronousTestCase):
    """The numbers of this process."""

    def test_numbers(self) -> None:
        """The limit is the system's; a further file is a further one in use."""
        before = read_descriptors(lambda: 0)
        self.assertEqual(before.limit, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        pipe = os.pipe()
        now = read_descriptors(lambda: 2)
        for descriptor in pipe:
            os.close(descriptor)
        self.assertEqual(now.used - before.used, 2)

    def test_the_system_does_not_tell(self) -> None:
        """Then what is known to be connected is counted, and something added for the rest."""

        def untold(path: str) -> os.stat_result:
            raise FileNotFoundError(path)

        self.patch(module.os, "stat", untold)
        used = read_descriptors(lambda: 100).used
        self.assertGreater(used, 100)
        self.assertLess(used, 200)

    def test_no_limit(self) -> None:
        """A process without a limit has room."""
        self.patch(module, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.assertGreater(read_descriptors(lambda: 0).room_for_clients(0), 1_000_000)
        self.assertGreater(raise_limit(5000), 5000)

    def test_raise(self) -> None:
        """As far as wanted and as far as allowed, and never down."""
        for before, wanted, after in (((100, 500), 300, 300), ((100, 200), 300, 200), ((400, 500), 300, 400)):
            limits = [before]
            self.patch(module, "getrlimit", lambda _, limits=limits: limits[-1])
            self.patch(module, "setrlimit", lambda _, both, limits=limits: limits.append(both))
            self.assertEqual(raise_limit(wanted), after)
            self.assertEqual(limits[-1], (after, before[1]))

    def test_may_not_raise(self) -> None:
        """A system that does not let it is no reason to fail."""

        def refuse(what: int, limits: tuple[int, int]) -> None:
            raise PermissionError

        self.patch(module, "getrlimit", lambda _: (100, 500))
        self.patch(module, "setrlimit", refuse)
        self.assertEqual(raise_limit(300), 100)


class RecentTests(SynchronousTestCase):
    """When the numbers are read anew."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.read = 0
        self.used = 10
        self.recent = RecentDescriptors(self.count, self.clock.seconds)

    def count(self) -> Descriptors:
        self.read += 1
        return Descriptors(1024, self.used)

    def test_plenty(self) -> None:
        """While most are free, one reading is good for some uses and a moment."""
        for _ in range(64):
            self.recent()
        self.assertEqual(self.read, 1)
        for _ in range(2):
            self.recent()
        self.assertEqual(self.read, 2)
        self.clock.advance(0.2)
        self.recent()
        self.assertEqual(self.read, 3)

    def test_scarce(self) -> None:
        """When half of them are in use, each use is told the truth."""
        self.used = 512
        for _ in range(5):
            self.recent()
        self.assertEqual(self.read, 5)
