"""Tests for :mod:`scalingo_proxy.cli_explain`."""

from __future__ import annotations

from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import get, hello
from tests.test_cli import AppsCase


class ExplainTests(AppsCase):
    """``explain``."""

    def setUp(self) -> None:
        super().setUp()
        traffic = World(seed=1)
        app = hello(traffic, replies.fixed(b"fine"), backends=2)
        app.backends[0].stop_listening()
        for _ in range(2):
            traffic.request(get(b"/path"))
        self.record = max(traffic.records, key=lambda record: record.attempts)
        self.dead, self.alive = (backend.address for backend in app.backends)
        self.world.explain.exchange_finished(self.record)

    async def test_for_a_person(self) -> None:
        """One thing after the other, in sentences."""
        run = await self.command("explain", self.record.request_id)
        self.assertEqual((0, ""), (run.status, run.err))
        for line in (
            f"request   {self.record.request_id}",
            "          GET /path for host hello.test",
            "route     app hello, by its domain hello.test, said resolver 'memory'",
            f"backends  {self.dead}  tried: the connection was refused",
            f"          {self.alive}  chosen: it had room, and it was its turn",
            f"attempts  1. {self.dead}  connecting took 0.0 ms, nothing sent: the connection was refused",
            "end       status 200: the backend's answer was relayed to its end",
        ):
            self.assertIn(line, run.out.splitlines())

    async def test_same_id_twice(self) -> None:
        """Both are told."""
        self.world.explain.exchange_finished(self.record)
        run = await self.command("explain", self.record.request_id)
        self.assertIn("The same id was used before:", run.out)
        self.assertEqual(2, run.out.count("GET /path"))

    async def test_json(self) -> None:
        """The answer of the API as it is."""
        run = await self.command("explain", self.record.request_id, "--json")
        self.assertEqual([self.dead, self.alive], [each["backend"] for each in run.document["attempts"]])

    async def test_unknown(self) -> None:
        """A sentence that says how far back is remembered, and status 1."""
        run = await self.command("explain", "nobody")
        self.assertEqual((1, ""), (run.status, run.out))
        self.assertIn("nothing is known of request 'nobody'", run.err)
