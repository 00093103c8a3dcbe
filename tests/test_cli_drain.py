"""Tests for the command ``drain`` and the part of the admin API behind it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Outcome
from tests.services.admin_world import AdminWorld
from tests.test_cli import AppsCase, Run

PATH = "/api/v1/apps/hello/backends/10.0.0.1%3A80"


class ApiTests(SynchronousTestCase):
    """``DELETE /apps/NAME/backends/ADDRESS``."""

    def setUp(self) -> None:
        backends = ("10.0.0.1:80", "https://10.0.0.2:443")
        self.world = AdminWorld(App("hello", ("hello.localhost",), backends)).start()

    def test_taken_out(self) -> None:
        """The others stay, and so does all else about the app."""
        reply = self.world.ask("DELETE", PATH)
        self.assertEqual(reply.status, 200)
        (left,) = self.world.resolver.apps()["hello"].backends
        self.assertEqual(left.address, "https://10.0.0.2:443")
        self.assertEqual(
            self.world.ask("DELETE", "/api/v1/apps/hello/backends/https%3A%2F%2F10.0.0.2%3A443").status, 200
        )
        self.assertEqual(self.world.resolver.apps()["hello"].backends, ())

    def test_wait(self) -> None:
        """With ``wait=drained`` the answer comes when nothing is left on it."""
        lease = self.world.pool("hello").lease()
        assert lease is not None
        self.assertEqual(lease.member.backend.address, "10.0.0.1:80")
        asked = self.world.begin("DELETE", f"{PATH}?wait=drained")
        self.assertTrue(asked.is_silent)
        again = self.world.begin("DELETE", f"{PATH}?wait=drained")
        self.assertTrue(again.is_silent)
        lease.release(Outcome.COMPLETED, 1.0)
        for one in (asked, again):
            self.assertEqual(one.reply().status, 200)

    def test_refused(self) -> None:
        """What is not there, and a wait that makes no sense."""
        for path, status, code in (
            ("/api/v1/apps/hello/backends/10.9.9.9%3A80", 404, "unknown-backend"),
            ("/api/v1/apps/nobody/backends/10.0.0.1%3A80", 404, "unknown-app"),
            (f"{PATH}?wait=ready", 400, "invalid"),
        ):
            reply = self.world.ask("DELETE", path)
            self.assertEqual((reply.status, reply.code), (status, code), path)
        self.assertEqual(len(self.world.resolver.apps()["hello"].backends), 2)


class DrainTests(AppsCase):
    """``drain``."""

    def busy(self) -> object:
        """A lease on the first backend."""
        lease = self.world.pool("filed").lease()
        assert lease is not None
        assert lease.member.backend.address == "127.0.0.1:1"
        return lease

    async def test_idle(self) -> None:
        """A backend with nothing on it is drained at once, with and without waiting."""
        run = await self.command("drain", "filed", "127.0.0.1:1")
        self.assertEqual(
            (0, "127.0.0.1:1 is drained: it is safe to kill\n", ""), (run.status, run.out, run.err)
        )
        run = await self.command("drain", "filed", "127.0.0.1:2", "--wait", "--json")
        self.assertEqual((0, True), (run.status, run.document["is_drained"]))

    async def test_busy(self) -> None:
        """Without ``--wait`` it says what is left, and is done."""
        self.busy()
        run = await self.command("drain", "filed", "127.0.0.1:1")
        self.assertEqual(0, run.status)
        self.assertEqual(
            "127.0.0.1:1 is taken out of filed and still has 1 request: do not kill it yet\n", run.out
        )
        run = await self.command("drain", "filed", "127.0.0.1:1", "--json")
        self.assertIs(run.document["is_drained"], False)

    async def test_wait(self) -> None:
        """It tells how far it is on the error stream, and ends when nothing is left."""
        lease = self.busy()
        running: Deferred[Run] = deferToThread(self.run_command, "drain", "filed", "127.0.0.1:1", "--wait")
        await deferLater(self.world.reactor, 0.7)
        self.assertFalse(running.called)
        lease.release(Outcome.COMPLETED, self.world.reactor.seconds())  # type: ignore[attr-defined]
        run = await running
        self.assertEqual((0, "127.0.0.1:1 is drained: it is safe to kill\n"), (run.status, run.out))
        self.assertEqual("127.0.0.1:1: 1 request, after 0 s\n", run.err)

    async def test_not_in_time(self) -> None:
        """4, and what is left."""
        self.busy()
        run = await self.command("drain", "filed", "127.0.0.1:1", "--wait", "--timeout", "0.05")
        self.assertEqual((4, ""), (run.status, run.out))
        self.assertIn("127.0.0.1:1 still has 1 request after 0 seconds: do not kill it yet\n", run.err)

    async def test_unknown(self) -> None:
        """1, and what there is not."""
        run = await self.command("drain", "filed", "10.9.9.9:1", "--wait")
        self.assertEqual((1, "app 'filed' has no backend '10.9.9.9:1'\n"), (run.status, run.err))
