"""What is shared by all searches that wait for nothing cannot be changed by one that does."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.detour import NO_DETOUR, Detour
from scalingo_proxy.testing import replies
from tests.protocols.worlds import WorldTestCase, get, hello


class NoDetourTests(SynchronousTestCase):
    """The one that nobody has made."""

    def test_tells_what_a_new_one_tells(self) -> None:
        """Reading it needs no question whether there is one."""
        blank = Detour()
        for name in Detour.__slots__:
            self.assertEqual(getattr(NO_DETOUR, name), getattr(blank, name), name)

    def test_takes_no_change(self) -> None:
        """Whatever were written there would be read by everybody's requests."""
        for name in Detour.__slots__:
            with self.assertRaises(AttributeError):
                setattr(NO_DETOUR, name, ())


class SearchTests(WorldTestCase):
    """Who has one of its own."""

    def test_only_off_the_ordinary_way(self) -> None:
        """A request over a kept connection has none, one that has to connect has one."""
        world = self.world()
        app = hello(world, replies.delayed(1, replies.fixed(b"hello")))
        client = world.client()
        found = []
        for _ in range(2):
            client.send(get())
            world.advance(0.5)
            (exchange,) = world.factory.under_way()
            found.append(exchange._detour is NO_DETOUR)
            world.advance(1)
        self.assertEqual(found, [False, True])
        self.assertEqual(client.statuses, [200, 200])
        self.assertEqual(len(app.backend.connections), 1)
