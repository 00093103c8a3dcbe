"""The trouble of a soak: backends killed, stopped, restarted, exchanged and scaled, at random from a seed.

At most two backends of an app are in trouble at once, and never all of them:
a request meets at most three, so that one that fails has met a sound one.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from tests.soak.fleet import BackendProcess, Fleet

__all__ = ["Troubles"]

#: Asks the admin API: method, path, body; gives status and document.
Admin = Callable[[str, str, Any], Awaitable[tuple[int, Any]]]

_MOST_AT_ONCE = 2


class Troubles:
    """What is done to the backends of a fleet, and how often.

    :ivar counts: by kind.
    :ivar mistakes: what the admin API should not have said.
    """

    def __init__(self, random: Random, fleet: Fleet, admin: Admin) -> None:
        self._random = random
        self._fleet = fleet
        self._admin = admin
        self._under_way: set[asyncio.Task[None]] = set()
        self._busy: dict[str, set[BackendProcess]] = {}
        self._changing: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.mistakes: list[str] = []

    async def run(self, apps: list[str], until: float, every: float) -> None:
        """Cause trouble until then, one thing each *every* seconds on average, and wait for its end."""
        while time.monotonic() < until:
            await asyncio.sleep(self._random.expovariate(1 / every))
            app = self._random.choice(apps)
            self._busy.setdefault(app, set())
            begin = self._random.choice(
                (
                    *(self._kill, self._kill, self._hang, self._hang, self._restart),
                    *(self._redeploy, self._scale, self._reload),
                )
            )
            task = asyncio.ensure_future(begin(app))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        for outcome in await asyncio.gather(*self._under_way, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    # -- one backend ---------------------------------------------------------

    def _victim(self, app: str) -> BackendProcess | None:
        """One of the app's backends that may be troubled now."""
        busy, members = self._busy[app], self._fleet.members[app]
        free = [each for each in members if each not in busy]
        if app in self._changing or len(busy) >= _MOST_AT_ONCE or len(free) < 2:
            return None
        return self._random.choice(free)

    @contextlib.asynccontextmanager
    async def _trouble(self, app: str, kind: str):  # type: ignore[no-untyped-def]
        victim = self._victim(app)
        if victim is None:
            yield None
            return
        self.counts[kind] += 1
        self._busy[app].add(victim)
        try:
            with victim.touched(kind):
                yield victim
        finally:
            self._busy[app].discard(victim)

    async def _kill(self, app: str) -> None:
        """Kill -9; it is back after a while."""
        async with self._trouble(app, "killed") as victim:
            if victim is not None:
                await victim.kill()
                await asyncio.sleep(self._random.uniform(0.0, 2.0))
                await victim.start()

    async def _hang(self, app: str) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        async with self._trouble(app, "hung") as victim:
            if victim is not None:
                victim.signal(signal.SIGSTOP)
                await asyncio.sleep(self._random.choice((0.2, 1.0, 3.0, 5.0)))
                victim.signal(signal.SIGCONT)
                await asyncio.sleep(0.2)

    async def _restart(self, app: str) -> None:
        """SIGTERM, as a supervisor does, and a fresh start."""
        async with self._trouble(app, "restarted") as victim:
            if victim is not None:
                victim.signal(signal.SIGTERM)
                await victim.wait()
                await victim.start()

    # -- the set of an app ---------------------------------------------------

    async def _redeploy(self, app: str) -> None:
        """All of them, or some, are exchanged for new ones."""
        async with self._change(app, "redeployed") as may:
            if may:
                old = self._fleet.members[app]
                kept = self._random.choice(([], old[:1], old[:2]))
                fresh = await self._fleet.add(app, len(old) - len(kept))
                await self._put(app, [*kept, *fresh], "?wait=drained")

    async def _scale(self, app: str) -> None:
        """More of them, or fewer, but at least three."""
        async with self._change(app, "scaled") as may:
            if may:
                old = self._fleet.members[app]
                count = self._random.choice((3, 4, 5))
                fresh = await self._fleet.add(app, max(0, count - len(old)))
                await self._put(app, [*old[:count], *fresh], self._random.choice(("", "?wait=ready")))

    async def _reload(self, app: str) -> None:
        """The proxy reads its configuration again; nobody should notice."""
        self.counts["reloaded"] += 1
        status, told = await self._admin("POST", "/api/v1/reload", None)
        if status != 200:
            self.mistakes.append(f"a reload answered {status}: {told}")

    @contextlib.asynccontextmanager
    async def _change(self, app: str, kind: str):  # type: ignore[no-untyped-def]
        """Nobody else may change or trouble the app meanwhile, so that one thing is seen at a time."""
        may = app not in self._changing and not self._busy[app]
        if not may:
            yield False
            return
        self.counts[kind] += 1
        self._changing.add(app)
        try:
            yield True
        finally:
            self._changing.discard(app)

    async def _put(self, app: str, members: list[BackendProcess], wait: str) -> None:
        """Tell the proxy of a new set; end those that are gone when it says so."""
        gone = [each for each in self._fleet.members[app] if each not in members]
        asked_at = time.monotonic()
        for each in gone:
            each.serves_until = asked_at
        addresses = [each.address for each in members]
        status, told = await self._admin("PUT", f"/api/v1/apps/{app}/backends{wait}", {"backends": addresses})
        if wait == "?wait=ready" and "not available yet" in str(told):
            status, told = await self._admin("PUT", f"/api/v1/apps/{app}/backends", {"backends": addresses})
        # Tunnels may outlive the wait; everything else has to be over.
        if status != 200 and not (status == 504 and _only_tunnels(told)):
            self.mistakes.append(f"PUT backends{wait} of {app} answered {status}: {told}")
        answered_at = time.monotonic()
        for each in gone:
            each.gone_from = answered_at
        for each in members:
            each.serves_from = min(each.serves_from, answered_at)
        self._fleet.members[app] = members
        if wait != "?wait=drained":
            await asyncio.sleep(2.0)
        for each in gone:
            with each.touched("removed"):
                await each.kill()
            each.touches[-1].ended = float("inf")


def _only_tunnels(told: Any) -> bool:
    """Whether those that still drain have nothing but tunnels."""
    return not any(each["in_flight"] for each in told["backends"] if each["membership"] == "draining")
