"""Tests for :mod:`scalingo_proxy.transports.alarm`."""

from __future__ import annotations

import os
import select
import time
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.transports import alarm
from scalingo_proxy.transports.alarm import Alarm


class AlarmTests(SynchronousTestCase):
    """One alarm, polled edge-triggered."""

    def setUp(self) -> None:
        try:
            self.alarm = Alarm()
        except OSError as error:
            self.skipTest(str(error))
        self.poller = select.epoll()
        self.addCleanup(self.poller.close)
        self.poller.register(self.alarm, select.EPOLLIN | select.EPOLLET)

    def test_rings_once(self) -> None:
        """At its moment, each time it was set."""
        for seconds in (0.01, 0.0, 1e-12):
            before = time.monotonic()
            self.alarm.set(seconds)
            self.assertEqual([each for each, _ in self.poller.poll(5)], [self.alarm.fileno()])
            self.assertGreaterEqual(time.monotonic() - before, seconds)
            self.assertEqual(self.poller.poll(0), [])

    def test_set_anew(self) -> None:
        """What it was set to before is forgotten, also when it has rung and nobody has heard."""
        self.alarm.set(0.0)
        self.alarm.set(1e6)
        self.assertEqual(self.poller.poll(0.001), [])

    def test_longest(self) -> None:
        """The longest wait of a reactor, with parts of a second."""
        self.alarm.set(2147483.5)
        self.assertEqual(tuple(self.alarm._when), (0, 0, 2147483, 500_000_000))

    def test_closed(self) -> None:
        """The descriptor goes with the object."""
        descriptor = self.alarm.fileno()
        os.fstat(descriptor)
        del self.alarm
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_none_to_be_had(self) -> None:
        """Neither without such a function nor when the kernel refuses."""
        with mock.patch.object(alarm, "_libc", None):
            self.assertRaisesRegex(OSError, "no timerfd_create", Alarm)
        with mock.patch.object(alarm, "_libc") as library:
            library.timerfd_create.return_value = -1
            self.assertRaises(OSError, Alarm)
