"""Tests for the command ``top`` and the part of the admin API behind it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Record
from scalingo_proxy.services.alarms import Alarm
from tests.services.admin_world import AdminWorld
from tests.test_cli import AppsCase


def finish(world: AdminWorld, app: str, status: int = 200, seconds: float = 0.02, **fields: Any) -> None:
    """A request ends."""
    now = world.reactor.seconds()
    record = Record(now - seconds, world.wall_clock(), "127.0.0.1", "http")
    record.method = "GET"
    record.app, record.status, record.finished_at = app, status, now
    for name, value in fields.items():
        setattr(record, name, value)
    world.traffic.exchange_finished(record)


class ApiTests(SynchronousTestCase):
    """``GET /traffic``."""

    def setUp(self) -> None:
        self.world = AdminWorld(
            App("a", ("a.localhost",), ("10.0.0.1:80",)),
            App("b", ("b.localhost",)),
            App("c", ("c.localhost",)),
        ).start()

    def test_everything(self) -> None:
        """Totals, the busiest apps first, alarms, the last errors without their queries."""
        for _ in range(5):
            finish(self.world, "b")
        finish(self.world, "a", 502, code="connect-failed", request_id="x", path="/p?secret=1")
        self.world.alarms.append(Alarm("look at this"))
        self.world.reactor.advance(1.0)
        told = self.world.ask("GET", "/api/v1/traffic").document
        self.assertEqual([app["name"] for app in told["apps"]], ["b", "a", "c"])
        self.assertEqual(told["totals"]["requests_per_second"], 6.0)
        self.assertEqual(told["totals"]["errors_per_second"], 1.0)
        self.assertEqual(told["apps"][1]["last_minute"]["5xx"], 1)
        self.assertEqual((told["apps"][1]["backends"], told["apps"][1]["backends_up"]), (1, 1))
        self.assertEqual(told["alarms"], [{"text": "look at this", "is_urgent": False}])
        (error,) = told["errors"]
        self.assertEqual((error["path"], error["code"], error["request_id"]), ("/p", "connect-failed", "x"))

    def test_parts(self) -> None:
        """A search, another order, a page."""
        told = self.world.ask("GET", "/api/v1/traffic?sort=name&page=2&per_page=2").document
        self.assertEqual(([app["name"] for app in told["apps"]], told["total"]), (["c"], 3))
        told = self.world.ask("GET", "/api/v1/traffic?q=b.local").document
        self.assertEqual([app["name"] for app in told["apps"]], ["b"])
        self.assertEqual(self.world.ask("GET", "/api/v1/traffic?sort=size").status, 400)


class TopTests(AppsCase):
    """``top``."""

    async def test_once(self) -> None:
        """Where nobody looks, one table that a program can cut; with ``--once`` anywhere."""
        for _ in range(3):
            finish(self.world, "filed")
        self.world.alarms.append(Alarm("look at this"))
        for words in (("top",), ("top", "--once")):
            run = await self.command(*words)
            self.assertEqual((0, ""), (run.status, run.err))
            lines = run.out.splitlines()
            self.assertIn(" req/s ", lines[0])
            self.assertEqual("alarm: look at this", lines[1])
            self.assertEqual(
                "APP    STATE    REQ/S  IN FLIGHT  QUEUE  2XX  4XX  5XX  P50   P95   BACKENDS UP", lines[3]
            )
            self.assertRegex(
                lines[4], r"^filed  running  0\.\d    0          0      3    0    0    \d+ms  \d+ms  2/2$"
            )
            self.assertNotIn("\x1b", run.out)

    async def test_json(self) -> None:
        """What the API tells."""
        run = await self.command("top", "--json", "--query", "filed", "--sort", "name")
        self.assertEqual(["filed"], [app["name"] for app in run.document["apps"]])

    async def test_at_a_terminal(self) -> None:
        """It draws again and again over a screen of its own, until q; then all is as before."""
        for key in (b"q", b"\x03"):
            drawn, status = await deferToThread(self.at_a_terminal, key)
            self.assertTrue(drawn.startswith("\x1b[?1049h\x1b[?25l\x1b[H"), drawn[:80])
            self.assertGreaterEqual(drawn.count("\x1b[H"), 3)
            self.assertIn("filed  running", drawn)
            self.assertIn("q quit", drawn)
            self.assertTrue(drawn.endswith("\x1b[?25h\x1b[?1049l"), drawn[-80:])
            self.assertEqual(status, 0 if key == b"q" else 130)

    async def test_narrow(self) -> None:
        """Where there is no room for a column it is left out whole, and so are totals."""
        drawn, _ = await deferToThread(self.at_a_terminal, b"q", columns=45)
        lines = drawn.split("\x1b[H")[-1].replace("\x1b[K", "").split("\r\n")
        self.assertRegex(lines[0], r"5xx/s  p50 -  p95 -  p99 -\x1b\[0m$")
        self.assertIn("\x1b[1mAPP    STATE    REQ/S  5XX  P95  BACKENDS UP\x1b[0m", lines)
        self.assertIn("filed  running    0.0    0    -          2/2", lines)

    async def test_without_colours(self) -> None:
        """NO_COLOR is heeded; a terminal that cannot draw gets the table once, in plain text."""
        self.world.alarms.append(Alarm("look at this"))
        coloured, _ = await deferToThread(self.at_a_terminal, b"q", NO_COLOR="")
        self.assertIn("\x1b[31malarm: look at this", coloured)
        drawn, _ = await deferToThread(self.at_a_terminal, b"q", NO_COLOR="1")
        self.assertIn("\x1b[1malarm: look at this", drawn)
        self.assertNotIn("\x1b[3", drawn)
        told, status = await deferToThread(self.at_a_terminal, b"q", TERM="dumb")
        self.assertNotIn("\x1b", told)
        self.assertEqual((status, told.count("filed")), (0, 1))

    async def test_numbers_that_make_no_sense(self) -> None:
        """They are wrong usage: nobody should ask a proxy without a pause."""
        for words in (("--interval", "0"), ("--interval", "x"), ("--rows", "0"), ("--rows", "-3")):
            run = await self.command("top", *words)
            self.assertEqual(2, run.status, words)
            self.assertIn("invalid number of", run.err)

    def at_a_terminal(self, key: bytes, columns: int = 80, **environment: str) -> tuple[str, int]:
        """Run it at a pseudo-terminal, press *key* after three screens, and give what it drew."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1", "TERM": "xterm"}
        process = subprocess.Popen(
            [sys.executable, "-m", "scalingo_proxy", "top", "--interval", "0.05"],
            stdin=its,
            stdout=its,
            stderr=its,
            env={**os.environ, "NO_COLOR": "", **own, **environment},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(its)
        drawn, end, is_pressed = b"", time.monotonic() + 60, False
        try:
            while time.monotonic() < end:
                if not is_pressed and drawn.count(b"\x1b[H") >= 3:
                    os.write(ours, key)
                    is_pressed = True
                if select.select([ours], [], [], 0.1)[0]:
                    try:
                        data = os.read(ours, 65536)
                    except OSError:  # its end is closed
                        break
                    if not data:
                        break
                    drawn += data
            return drawn.decode("utf-8"), process.wait(30)
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def _take_terminal() -> None:
    """Make standard input the terminal that Ctrl-C comes from."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
