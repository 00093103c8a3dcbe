"""Clients that hang up while nobody reads from them."""

from __future__ import annotations

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.hangups import LOOK_SECONDS, Hangups


class Client:
    """One end of a socket pair, paused, that counts how often it was told."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.transport = self
        self.is_reading_paused = True
        self.told = 0

    def getHandle(self) -> socket.socket:
        return self.near

    def hung_up(self) -> None:
        self.told += 1

    def close(self) -> None:
        self.near.close()
        self.far.close()


class HangupsTests(SynchronousTestCase):
    """Each is told once, soon, and only while its reading is paused."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hangups = Hangups(self.clock)

    def client(self) -> Client:
        client = Client()
        self.addCleanup(client.close)
        self.hangups.watch(client)
        return client

    def test_told_once(self) -> None:
        """A close behind unread bytes is noticed, once; whoever stays is asked again and again."""
        leaving, staying = self.client(), self.client()
        leaving.far.sendall(b"unread")
        leaving.far.close()
        for _ in range(4):
            self.clock.advance(LOOK_SECONDS)
        self.assertEqual((leaving.told, staying.told), (1, 0))
        staying.far.close()
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((leaving.told, staying.told), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_read_again(self) -> None:
        """Whoever is read from again is left to the reactor, and no timer stays."""
        client = self.client()
        client.is_reading_paused = False
        client.far.close()
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(client.told, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost_meanwhile(self) -> None:
        """A connection that is gone, as Twisted leaves it behind, keeps nobody else from being noticed."""
        lost, leaving = self.client(), self.client()

        def no_socket() -> socket.socket:
            raise AttributeError("socket")

        self.patch(lost, "getHandle", no_socket)
        leaving.far.close()
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((lost.told, leaving.told), (0, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_meanwhile(self) -> None:
        """A descriptor that is no longer the client's is not asked about."""
        client = self.client()
        client.near.close()
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(client.told, 0)

    def test_no_socket(self) -> None:
        """Transports without a socket are passed over."""
        self.hangups.watch(type("InMemory", (), {"transport": None, "is_reading_paused": True})())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """Stopping leaves no timer."""
        self.client()
        self.hangups.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
