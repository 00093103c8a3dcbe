"""A load that comes to nothing says on whom it was put, for which row, and what its program said."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmarks import loads
from tests.benchmarks.rows import Result, Row, Scale, measure

_PEER: Any = SimpleNamespace(name="nginx", http=1, https=2, passthrough=3)


class _World:
    cores = SimpleNamespace(rest=os.sched_getaffinity(0))
    authority = SimpleNamespace(pem=b"")

    def write(self, name: str, text: str) -> str:
        return name


class NothingTests(SynchronousTestCase):
    """No load tells of zero units."""

    world: Any = _World()

    def setUp(self) -> None:
        self.patch(loads, "find", lambda name, _how: name)

    def assert_refused(self, load: loads.Load, told: str) -> None:
        self.patch(loads, "_run", lambda *_: told)
        error = self.assertRaises(RuntimeError, load, _PEER)
        self.assertEqual(str(error), f"nginx did not answer at all: {told}")

    def test_wrk(self) -> None:
        """A peer that answers no request within the time."""
        self.assert_refused(loads.wrk(self.world, 1), "  0 requests in 1.00s, 0.00B read\n")

    def test_h2load(self) -> None:
        """The same, with the other program."""
        told = "requests: 0 total, 0 succeeded, 0 failed\nstatus codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx\n"
        self.assert_refused(loads.h2load(self.world, 1, []), told)

    def test_clients(self) -> None:
        """The same, with clients of our own."""
        self.assert_refused(loads.clients(self.world, "hellos", 0, "passthrough"), '{"units": 0}')

    def test_open_loop(self) -> None:
        """So seldom that nothing is sent within the time."""
        told = json.dumps({"took": [], "late": [], "core": 0.0, "seconds": 1.0})
        self.patch(loads, "_run", lambda *_: told)
        error = self.assertRaises(RuntimeError, loads.open_loop, self.world, "nginx", 1, 0.1, 1.0, 1)
        self.assertEqual(str(error), "at 0.100 requests a second, none is sent to nginx within 1.0 s")

    def test_row(self) -> None:
        """The row says so, too."""

        def fails(*_: Any) -> None:
            raise RuntimeError("nginx did not answer at all: ")

        row = Row("routes", "µs/request", 1.0, 1.0, fails)
        error = self.assertRaises(RuntimeError, measure, row, self.world, Scale(), lambda _line: None)
        self.assertEqual(str(error), "routes: nginx did not answer at all: ")
        row = Row("routes", "µs/request", 1.0, 1.0, lambda *_: None)
        self.assertEqual(measure(row, self.world, Scale(), lambda _line: None), Result(row))


class ProgramTests(SynchronousTestCase):
    """The program of a load."""

    world: Any = _World()

    def test_output(self) -> None:
        """What it writes is what it tells."""
        told = loads._run(self.world, "nginx", [sys.executable, "-c", "print('7 requests')"])
        self.assertEqual(told, "7 requests\n")

    def test_does_not_end(self) -> None:
        """It is ended, and the error names whom it was put on and the command."""
        self.patch(loads, "_LONGEST_SECONDS", 0.2)
        command = [sys.executable, "-c", "import time; time.sleep(30)"]
        error = self.assertRaises(RuntimeError, loads._run, self.world, "nginx", command)
        late = f"the load on nginx did not end within 0.2 s: {' '.join(command)}"
        self.assertEqual(str(error), late)

    def test_fails(self) -> None:
        """The error says what it said."""
        command = [sys.executable, "-c", "import sys; print('half'); sys.exit('no route')"]
        error = self.assertRaises(RuntimeError, loads._run, self.world, "nginx", command)
        self.assertIn("the load on nginx, ", str(error))
        self.assertIn("failed: half\n no route", str(error))
