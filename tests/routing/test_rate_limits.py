"""Tests of scalingo_proxy.routing.rate_limits: token buckets."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.routing.rate_limits import Buckets, rate_key


class BucketsTests(SynchronousTestCase):
    """How many go through, and when the next one may."""

    def test_burst_then_rate(self) -> None:
        """A full bucket at once, then one token after the other."""
        buckets = Buckets(requests=2, per=1.0, burst=3)
        waits = [buckets.take("a", 100.0) for _ in range(4)]
        self.assertEqual(waits[:3], [0.0] * 3)
        self.assertAlmostEqual(waits[3], 0.5)
        self.assertEqual(buckets.take("a", 100.5), 0.0)
        self.assertGreater(buckets.take("a", 100.9), 0.0)
        self.assertEqual(buckets.take("a", 101.0), 0.0)

    def test_at_least_one(self) -> None:
        """A burst of none would let nobody through."""
        buckets = Buckets(requests=1, per=10.0, burst=0)
        self.assertEqual(buckets.take("a", 0.0), 0.0)
        self.assertAlmostEqual(buckets.take("a", 1.0), 9.0)
        self.assertEqual(buckets.take("a", 10.0), 0.0)

    def test_each_key(self) -> None:
        """One client's use is not another's."""
        buckets = Buckets(requests=1, burst=1)
        self.assertEqual([buckets.take(key, 5.0) for key in "abc"], [0.0] * 3)

    def test_refused_costs_nothing(self) -> None:
        """Asking while there is none does not put the next one off."""
        buckets = Buckets(requests=1, per=1.0, burst=1)
        buckets.take("a", 0.0)
        for tenth in range(1, 10):
            self.assertGreater(buckets.take("a", tenth / 10), 0.0)
        self.assertEqual(buckets.take("a", 1.0), 0.0)

    def test_long_run(self) -> None:
        """Over any time no more than the rate and one bucket go through, and no less under pressure."""
        random = Random(7)
        for requests, per, burst in ((3, 1.0, 5), (10, 0.3, 1), (7, 60.0, 7)):
            buckets = Buckets(requests, per, burst)
            now, passed, seconds = 1000.0, 0, 40 * per
            while now < 1000.0 + seconds:
                passed += not buckets.take("a", now)
                now += random.random() * per / requests
            self.assertLessEqual(passed, burst + 40 * requests + 1)
            self.assertGreaterEqual(passed, 20 * requests)

    def test_bounded(self) -> None:
        """A client with many addresses cannot make the proxy remember all of them."""
        buckets = Buckets(requests=1, per=1000.0, burst=1, max_keys=100)
        for number in range(10_000):
            buckets.take(str(number), 0.0)
        self.assertLessEqual(len(buckets), 100)

    def test_forgets_the_full(self) -> None:
        """Buckets that nobody draws from any more go by themselves."""
        buckets = Buckets(requests=1, per=1.0, burst=1)
        for number in range(1000):
            buckets.take(str(number), 0.0)
        for number in range(600):
            buckets.take(f"new {number}", 50.0)
        self.assertLessEqual(len(buckets), 601)


class RateKeyTests(SynchronousTestCase):
    """Whose bucket it is."""

    def test_keys(self) -> None:
        """An IPv4 address alone, an IPv6 /64 together."""
        self.assertEqual(rate_key("10.0.0.1"), "10.0.0.1")
        self.assertEqual(rate_key("unix:"), "unix:")
        self.assertEqual(rate_key("2001:db8::1"), rate_key("2001:db8:0:0:ffff::2"))
        self.assertNotEqual(rate_key("2001:db8::1"), rate_key("2001:db8:0:1::1"))
        self.assertEqual(rate_key("no:address"), "no:address")
