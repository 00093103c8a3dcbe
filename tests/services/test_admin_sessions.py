"""Tests for :mod:`scalingo_proxy.services.admin_sessions`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services import admin_sessions
from scalingo_proxy.services.admin_sessions import SESSION_SECONDS, Sessions


class SessionsTests(SynchronousTestCase):
    """Who is let in."""

    def setUp(self) -> None:
        self.token = "secret"
        self.clock = Clock()
        self.clock.advance(5.0)
        self.sessions = Sessions(lambda: self.token, self.clock.seconds)

    def sign_in(self) -> str:
        session = self.sessions.sign_in("secret")
        assert session is not None
        return session

    def test_the_right_token(self) -> None:
        """It opens a session that nobody can guess; blanks around it do not matter."""
        one, other = self.sign_in(), self.sessions.sign_in(" secret\n")
        assert other is not None
        self.assertNotEqual(one, other)
        self.assertTrue(self.sessions.admits(one))
        self.assertTrue(self.sessions.admits(other))
        self.assertGreater(len(one), 40)

    def test_anything_else(self) -> None:
        """No other text does, whatever letters are in it, and no session is open that was not opened."""
        for given in ("", "Secret", "secre", "secret2", "sécret"):
            self.assertIsNone(self.sessions.sign_in(given))
        self.assertFalse(self.sessions.admits(""))
        self.assertFalse(self.sessions.admits("made-up"))

    def test_without_a_token(self) -> None:
        """Where none is required, nobody can sign in with an empty one."""
        self.token = ""
        self.assertIsNone(self.sessions.sign_in(""))

    def test_ends(self) -> None:
        """A session ends when it is not used, and lives on while it is."""
        session = self.sign_in()
        for _ in range(3):
            self.clock.advance(SESSION_SECONDS - 1)
            self.assertTrue(self.sessions.admits(session))
        self.clock.advance(SESSION_SECONDS + 1)
        self.assertFalse(self.sessions.admits(session))
        self.clock.advance(-1e6)
        self.assertFalse(self.sessions.admits(session))

    def test_sign_out(self) -> None:
        """It ends when its owner says so, and only it."""
        one, other = self.sign_in(), self.sign_in()
        self.sessions.sign_out(one)
        self.sessions.sign_out("made-up")
        self.assertEqual([self.sessions.admits(each) for each in (one, other)], [False, True])

    def test_another_token(self) -> None:
        """When the token is exchanged, every session ends."""
        session = self.sign_in()
        self.token = "other"
        self.assertFalse(self.sessions.admits(session))
        self.token = "secret"
        self.assertFalse(self.sessions.admits(session))

    def test_bounded(self) -> None:
        """Beyond the limit, the one that was not used for longest ends."""
        self.patch(admin_sessions, "MAX_SESSIONS", 2)
        first, second = self.sign_in(), self.sign_in()
        self.sessions.admits(first)
        third = self.sign_in()
        self.assertEqual([self.sessions.admits(each) for each in (first, second, third)], [True, False, True])

    def test_proofs(self) -> None:
        """A proof is good for one session of one process."""
        proof = self.sessions.proof("a")
        self.assertTrue(self.sessions.is_proof("a", proof))
        for session, given in (("b", proof), ("a", ""), ("a", proof[:-1]), ("a", "é" * 64)):
            self.assertFalse(self.sessions.is_proof(session, given))
        self.assertFalse(Sessions(lambda: "secret", self.clock.seconds).is_proof("a", proof))
