"""Tests of scalingo_proxy.routing.retries."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.retries import is_repeatable, may_send_again


class RepeatableTests(SynchronousTestCase):
    def test_methods(self) -> None:
        """The idempotent methods of RFC 9110 §9.2.2 are, others are not; methods are case-sensitive."""
        for method in (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"):
            self.assertTrue(is_repeatable(method, []), method)
        for method in (b"POST", b"PATCH", b"CONNECT", b"get", b"PROPFIND", b""):
            self.assertFalse(is_repeatable(method, []), method)

    def test_key(self) -> None:
        """An Idempotency-Key that says something makes every method repeatable."""
        for name, value, expected in (
            (b"Idempotency-Key", b'"8e03978e"', True),
            (b"IDEMPOTENCY-KEY", b"x", True),
            (b"Idempotency-Key", b" ", False),
            (b"Idempotency-Keys", b"x", False),
            (b"X-Idempotency-Key", b"x", False),
        ):
            fields = [(b"Host", b"a"), (name, value)]
            self.assertEqual(expected, is_repeatable(b"POST", fields), name)


class AgainTests(SynchronousTestCase):
    def test_every_case(self) -> None:
        """What was not written may always be sent; what was, only whole, repeatable and unanswered."""
        for written, repeatable, body_lost, begun in product((False, True), repeat=4):
            allowed = not body_lost and not begun and (repeatable or not written)
            self.assertEqual(allowed, may_send_again(written, repeatable, body_lost, begun))
